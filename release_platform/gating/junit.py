"""A judgement as JUnit XML, which CI servers show: a test case for each gate."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from release_platform.domain.errors import ReleaseError
from release_platform.domain.gates import GateResult
from release_platform.domain.judged import Judged


def junit(judged: Judged) -> str:
    """Returns the JUnit XML of a judgement.

    A blocking gate that did not pass is a failure; an advisory one is skipped, with its reason.
    """
    cases = [_case(judged.model, gate) for gate in judged.gates]
    return _suite(judged.model, cases, failures=len(judged.failed), skipped=_n_skipped(judged.gates), errors=0)


def junit_error(model: str, error: ReleaseError) -> str:
    """Returns the JUnit XML of a model that could not be judged."""
    case = Element("testcase", classname=f"{model}.gates", name="judged")
    found = SubElement(case, "error", message=_one_line(error.problem), type=type(error).__name__)
    found.text = _legal(f"{error.problem}\nremedy: {error.remedy}")
    return _suite(model, [case], failures=0, skipped=0, errors=1)


def _n_skipped(gates: Sequence[GateResult]) -> int:
    return sum(not gate.passed and not gate.blocking for gate in gates)


def _suite(model: str, cases: Sequence[Element], *, failures: int, skipped: int, errors: int) -> str:
    counts = {"tests": len(cases), "failures": failures, "errors": errors, "skipped": skipped}
    attributes = {"name": f"gates of {model}", **{name: str(count) for name, count in counts.items()}}
    whole = Element("testsuites", attributes)
    SubElement(whole, "testsuite", attributes).extend(cases)
    indent(whole)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(whole, encoding="unicode") + "\n"


def _case(model: str, gate: GateResult) -> Element:
    case = Element("testcase", classname=f"{model}.gates", name=gate.gate)
    if not gate.passed:
        found = SubElement(case, "failure" if gate.blocking else "skipped", message=_one_line(gate.reason))
        if gate.blocking:
            found.set("type", gate.verdict.value)
            found.text = _legal(gate.reason)
    else:
        SubElement(case, "system-out").text = _legal(gate.reason)
    return case


def _one_line(text: str) -> str:
    return _legal(" ".join(text.split()))


def _legal(text: str) -> str:
    """Returns a text without the characters that no XML may hold; a slice's value may have any."""
    return "".join(
        c if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff" else "?" for c in text
    )
