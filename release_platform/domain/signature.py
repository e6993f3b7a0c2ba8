"""Whether clients of the Production version can go on calling a candidate as they do."""

from collections.abc import Sequence

from release_platform.domain.features import ColumnType, FeaturePlan, Input

_WIDER = {(ColumnType.INTEGER, ColumnType.NUMBER)}


def signature_breaks(
    production_plan: FeaturePlan | None,
    candidate_plan: FeaturePlan,
    production_classes: Sequence[object],
    candidate_classes: Sequence[object],
) -> tuple[str, ...]:
    """Returns what would break a client of the Production version, in a sentence each.

    A break is an output class that is gone, an output of another kind, a new input that may not be null, an input of
    another type (an integer that becomes a number is none), and an input that could be null and no longer can. An
    input that is no longer asked for, a new class, and a new input that may be null are no breaks.

    Args:
        production_plan: What the Production version takes; None when nothing is in Production.
        candidate_plan: What the candidate takes.
        production_classes: The labels that the Production version answers; empty for a regression.
        candidate_classes: The labels that the candidate answers; empty for a regression.
    """
    if production_plan is None:
        return ()
    known = {column.name: column for column in production_plan.inputs}
    inputs = [_break_of(known.get(column.name), column) for column in candidate_plan.inputs]
    outputs = _broken_outputs(production_classes, candidate_classes)
    return (*outputs, *(sentence for sentence in inputs if sentence is not None))


def _broken_outputs(production: Sequence[object], candidate: Sequence[object]) -> tuple[str, ...]:
    if bool(production) != bool(candidate):
        was, now = ("a label", "a number") if production else ("a number", "a label")
        return (f"the output was {was} and is now {now}",)
    return tuple(f"the output class '{label}' is gone" for label in production if label not in candidate)


def _break_of(before: Input | None, now: Input) -> str | None:
    if before is None:
        return None if now.nullable else f"the input '{now.name}' is new and may not be null"
    if before.type is not now.type and (before.type, now.type) not in _WIDER:
        return f"the input '{now.name}' was of type {before.type} and is now of type {now.type}"
    if before.nullable and not now.nullable:
        return f"the input '{now.name}' could be null and no longer can"
    return None
