"""Who launched a run: Dagster's web server stamps it with who signed in at the proxy, and the jobs ask the stamp.

The run coordinator is the place that Dagster documents for run attribution: it sees the request that launches a run.
Daemon and command line submit runs too; theirs have no request, so they are nobody's.
"""

import hmac
import logging
from collections.abc import Callable

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.storage.dagster_run import DagsterRun, DagsterRunStatus

from release_platform.domain.api_keys import is_name
from release_platform.domain.errors import Refused
from release_platform.domain.stamps import operator_of, stamped, unstamped
from release_platform.settings import Settings

PERSON_HEADER = "x-forwarded-user"
PROXY_HEADER = "x-proxy-secret"
_LOG = logging.getLogger(__name__)


class AttributedRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, which stamps each run with who launched it where keys are required."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Stamps a run that is new, whatever tags it came with, and queues it."""
        settings, run = Settings(), context.dagster_run
        if settings.require_keys and run.status is DagsterRunStatus.NOT_STARTED:
            self._instance.add_run_tags(run.run_id, _tags(context, settings))  # before it can be started
        return super().submit_run(context)


def _tags(context: SubmitRunContext, settings: Settings) -> dict[str, str]:
    run = context.dagster_run
    operator = signed_in(context.get_request_header, settings.proxy_secret.get_secret_value())
    if operator is None:
        return unstamped(run.tags)
    try:
        secret = settings.stamp_secret.get_secret_value()
        return stamped(secret, run_id=run.run_id, job=run.job_name, config=run.run_config, operator=operator)
    except Refused as error:
        _LOG.error("run %s is not stamped: %s; %s", run.run_id, error.problem, error.remedy)
        return unstamped(run.tags)


def signed_in(header: Callable[[str], str | None], proxy_secret: str) -> str | None:
    """Returns who the proxy says signed in; None unless it proves that it is the proxy.

    Args:
        header: Returns a header of the request by its name, each byte of it a character; None when it did not come.
        proxy_secret: What the proxy shows; when it is empty nobody is believed.
    """
    shown, name = header(PROXY_HEADER) or "", header(PERSON_HEADER) or ""
    if not proxy_secret or not hmac.compare_digest(shown.encode(), proxy_secret.encode()):
        return None
    try:
        name = name.encode("latin-1").decode()  # it was sent in UTF-8
    except UnicodeError:
        return None
    return name if is_name(name) else None


def actor_of(context: dg.OpExecutionContext, claimed: str, settings: Settings) -> str:
    """Returns who acts in a run: where keys are required who signed in to launch it, else who is named in its form.

    Raises:
        Refused: Keys are required, and nobody who signed in launched exactly this run.
    """
    if not settings.require_keys:
        return claimed
    run, secret = context.run, settings.stamp_secret.get_secret_value()
    operator = operator_of(secret, run.tags, run_id=run.run_id, job=run.job_name, config=run.run_config)
    if claimed and claimed != operator:
        context.log.warning("the name in the form is not believed: %s signed in", operator)
    return operator
