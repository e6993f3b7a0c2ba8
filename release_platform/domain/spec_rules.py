"""What the parts of a `defs.yaml` have in common."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

STRICT: dict[str, Any] = {"extra": "forbid"}
"""As `__pydantic_config__` of a dataclass: pydantic, which builds it from YAML, refuses unknown keys."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""What a model and a gate may be named."""


def suggestion(word: str, known: Sequence[str]) -> str:
    """Returns the known word that is nearest to an unknown one, as a question, or all that are known."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(known)}"
