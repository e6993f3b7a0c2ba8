"""Every call of the installed MLflow server, what was decided of it, and a path to send it with."""

import re
import warnings
from functools import cache

from deploy.mlflow_rules import DECISIONS, Call, calls, decided, decisions

DECIDED = decisions(DECISIONS.read_text())


@cache
def present() -> tuple[Call, ...]:
    """Returns every call that the installed server answers; to ask it takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow's server says about its own insides
        return tuple(sorted(calls()))


def word_of(call: Call) -> str:
    """Returns who may send a call."""
    return DECIDED.get(decided(call), "undecided")


def path_of(call: Call) -> str:
    """Returns a path that a call may be sent with; nothing there has such a name."""
    return re.sub(r"<(path:)?\w+>", lambda found: "none/at.all" if found[1] else "none", call[1])
