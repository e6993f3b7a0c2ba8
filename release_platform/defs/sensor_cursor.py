"""What a sensor last said through asset checks: its cursor remembers it, so that an unchanged tick says nothing."""

import json
from collections.abc import Sequence

import dagster as dg


def changed_evaluations(
    cursor: str | None, evaluations: Sequence[dg.AssetCheckEvaluation]
) -> tuple[list[dg.AssetCheckEvaluation], str]:
    """Returns the evaluations that say something new, and the cursor that remembers what all of them say.

    An evaluation says its description: leave out of it what changes by itself, such as a time that is left.

    Args:
        cursor: The cursor of the tick before; None, or one that is not ours: everything is new.
        evaluations: What every check would say now, passed or not.
    """
    before = _remembered(cursor)
    now = {evaluation.asset_check_key.to_user_string(): evaluation.description for evaluation in evaluations}
    new = [e for e in evaluations if before.get(e.asset_check_key.to_user_string()) != e.description]
    return new, json.dumps(now, sort_keys=True)


def _remembered(cursor: str | None) -> dict[str, str]:
    try:
        found = json.loads(cursor or "{}")
    except ValueError:  # somebody wrote it in Dagster's interface
        return {}
    return found if isinstance(found, dict) else {}
