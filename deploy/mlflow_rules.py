"""Writes which calls of MLflow the proxy passes on, from MLflow's own routes and from `proxy/mlflow-routes.txt`.

The file says of each call whether everybody may send it (`read`), who signed in (`write`), or nobody (`closed`). Here
it becomes two lists of regular expressions over `METHOD /path`, one a line. What no line matches is refused, so a route
that a later MLflow adds is closed until somebody decides: then this program names it and writes nothing.

    python deploy/mlflow_rules.py
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

PROXY = Path(__file__).parent / "proxy"
DECISIONS = PROXY / "mlflow-routes.txt"
RULES = {"read": PROXY / "mlflow-read.rules", "write": PROXY / "mlflow-write.rules"}
WORDS = frozenset({"read", "write", "closed"})
UNROUTED = frozenset({"HEAD", "OPTIONS"})

# One part of a path as it is sent. Dots and slashes that are encoded, encoded percent signs and control characters are
# out, and so are the parts `.` and `..`: a server that decodes or resolves them would see another path than the proxy.
_PART = r"(?!\.{1,2}(?:/|$))(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%(?!2[5EeFf]|5[Cc]|[01]|7[Ff])[0-9A-Fa-f]{2})+"
_PARAMETER = re.compile(r"<(?:(\w+):)?(\w+)>")

Call = tuple[str, str]
"""Method and path template, as Flask writes it."""


def calls() -> set[Call]:
    """Returns every call that the installed MLflow server answers.

    Raises:
        ValueError: It has a kind of route that is not understood here.
    """
    from fastapi.routing import iter_route_contexts
    from mlflow.server import app as flask_app
    from mlflow.server.fastapi_app import app as fastapi_app

    found: set[Call] = set()
    for route in iter_route_contexts(fastapi_app.routes):
        if not route.methods:
            if route.path == "":  # where the Flask application is mounted
                continue
            raise ValueError(f"this route is not understood: {route.path}")
        template = re.sub(r"\{(\w+)(?::(\w+))?\}", _flask_parameter, str(route.path))
        found |= {(method, template) for method in route.methods - UNROUTED}
    for rule in flask_app.url_map.iter_rules():
        found |= {(method, rule.rule) for method in (rule.methods or set()) - UNROUTED}
    return found


def _flask_parameter(found: re.Match[str]) -> str:
    return f"<{found[2]}:{found[1]}>" if found[2] else f"<{found[1]}>"


def decisions(text: str) -> dict[Call, str]:
    """Returns what was decided of each call; `/ajax-api/` counts as `/api/`.

    Raises:
        ValueError: A line is not a word, a method and a path, or a call stands twice.
    """
    found: dict[Call, str] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        word, method, template = line.split()
        if word not in WORDS or (method, template) in found:
            raise ValueError(f"not understood, or there twice: {line}")
        found[method, template] = word
    return found


def decided(call: Call) -> Call:
    """Returns the call under which one is decided: the web interface's own address of a call is the same call."""
    method, template = call
    return method, re.sub(r"^/ajax-api/", "/api/", template)


def undecided(present: Iterable[Call], known: dict[Call, str]) -> list[Call]:
    """Returns the calls that nothing was decided of, and the decisions of which there is no call, in order."""
    asked = {decided(call) for call in present}
    return sorted(asked ^ set(known))


def rules(present: Iterable[Call], known: dict[Call, str], word: str) -> str:
    """Returns one list, in order."""
    chosen = sorted(call for call in present if known[decided(call)] == word)
    return "".join(f"{line}\n" for line in _lines(chosen))


def _lines(chosen: Iterable[Call]) -> Iterator[str]:
    for method, template in chosen:
        methods = "(?:GET|HEAD)" if method == "GET" else method
        yield f"^{methods} {pattern(template)}$"


def pattern(template: str) -> str:
    """Returns the regular expression of the paths, as they are sent, that a template stands for."""
    parts: list[str] = []
    end = 0
    for found in _PARAMETER.finditer(template):
        parts += [_literal(template[end : found.start()]), f"{_PART}(?:/{_PART})*" if found[1] == "path" else _PART]
        end = found.end()
    return "".join([*parts, _literal(template[end:])])


def _literal(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9./:_-]*", text):
        raise ValueError(f"this part of a route is not understood: {text}")
    return text.replace(".", r"\.")


def main() -> int:
    """Writes the lists; returns 1, and names the calls, when something is not decided."""
    present, known = calls(), decisions(DECISIONS.read_text())
    open_questions = undecided(present, known)
    for method, template in open_questions:
        print(f"decide in {DECISIONS.name}, or take it out: {method} {template}", file=sys.stderr)  # noqa: T201
    if open_questions:
        return 1
    for word, path in RULES.items():
        path.write_text(rules(present, known, word))
    return 0


if __name__ == "__main__":
    sys.exit(main())
