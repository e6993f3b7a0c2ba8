"""Who launched a run: a stamp on the run that a client can neither make nor carry over to another run.

Run tags are claims, since whoever launches a run may set them. A stamp is a message authentication code over the run,
its job, its configuration and the operator, with a secret that only Dagster's web server and the code location have.
The web server makes it after it was told, by the proxy alone, who signed in.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping

from release_platform.domain.errors import Refused

OPERATOR_TAG = "release/operator"
STAMP_TAG = "release/operator_stamp"
SHORTEST_SECRET = 32


def stamped(secret: str, *, run_id: str, job: str, config: object, operator: str) -> dict[str, str]:
    """Returns the tags that say who launched a run.

    Args:
        secret: At least 32 characters; stamps are shown, so it must be too long to be guessed.
        run_id: The run; no other run has this id.
        job: The name of its job.
        config: Its whole configuration, a JSON value.
        operator: Who launched it.

    Raises:
        Refused: The secret is too short.
    """
    return {OPERATOR_TAG: operator, STAMP_TAG: _code(secret, [run_id, job, config, operator])}


def unstamped(tags: Mapping[str, str]) -> dict[str, str]:
    """Returns the tags of a run that nobody who signed in launched: they cover what a client wrote there."""
    return {name: "" for name in (OPERATOR_TAG, STAMP_TAG) if name in tags}


def operator_of(secret: str, tags: Mapping[str, str], *, run_id: str, job: str, config: object) -> str:
    """Returns who launched a run.

    Raises:
        Refused: It has no stamp, or one that was made for another run, job, configuration or operator, or with another
            secret; or the secret is too short.
    """
    operator, stamp = tags.get(OPERATOR_TAG, ""), tags.get(STAMP_TAG, "")
    expected = _code(secret, [run_id, job, config, operator])
    if not operator or not stamp:
        raise Refused("nobody who signed in launched this run", remedy=_REMEDY)
    if not hmac.compare_digest(stamp.encode(errors="replace"), expected.encode()):
        raise Refused(
            f"the stamp that names '{operator:.100}' was not made for this run: it is forged, or of another run",
            remedy=_REMEDY,
        )
    return operator


_REMEDY = (
    "launch it anew after signing in at the writable web interface, or use `release promote`, `release approve` and "
    "`release rollback` with RELEASE_API_URL and an API key of the scope operator"
)


def _code(secret: str, message: object) -> str:
    if len(secret) < SHORTEST_SECRET:
        raise Refused(
            f"runs cannot be told from forged ones: RELEASE_STAMP_SECRET has fewer than {SHORTEST_SECRET} characters",
            remedy="give the same random value to Dagster's web server and to the code location",
        )
    # Not `canonical_json`, which refuses what a client may write into a configuration: NaN, half of a surrogate pair.
    return hmac.new(secret.encode(), json.dumps(message, sort_keys=True).encode(), hashlib.sha256).hexdigest()
