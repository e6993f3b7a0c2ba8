"""Who receives messages: Slack webhooks, and any other URL, whose requests are signed.

Addresses of webhooks are secrets. So requests go over httpx's transport, not over its client, which logs addresses, and
a receiver is named by its host alone.
"""

import hashlib
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from release_platform.adapters.loopback import is_loopback
from release_platform.domain.errors import SpecError
from release_platform.domain.messages import Message, signature, slack_body

TIMEOUT_S = 5.0
"""Seconds for a connection, and between two pieces of what is sent or answered."""
SECRET_CHARACTERS = 32
SLACK_HOST = "hooks.slack.com"
SLACK_PREFIX = "slack+"
_REMEDY = "write https:// addresses separated by commas; slack+https:// is a Slack webhook behind another host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """One receiver.

    Attributes:
        url: Where messages are posted; a secret.
        slack: Whether it takes what a Slack webhook takes.
        secret: What signs a message to it; a secret, empty for Slack.
    """

    url: str = field(repr=False)
    slack: bool = False
    secret: str = field(default="", repr=False)

    @property
    def key(self) -> str:
        """By which the outbox knows it; the address cannot be read from it."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """Its host, for people."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def send(self, message: Message, timestamp: int) -> str:
        """Sends a message, and returns why that failed; empty when the receiver took it.

        Redirects are not followed.

        Args:
            message: The message.
            timestamp: Seconds since 1970, now.
        """
        body = slack_body(message) if self.slack else message.body
        headers = {"Content-Type": "application/json", "User-Agent": "release-platform", "Idempotency-Key": message.id}
        if not self.slack:
            headers["X-Release-Timestamp"] = str(timestamp)
            headers["X-Release-Signature"] = signature(self.secret, timestamp, body)
        extensions = {"timeout": httpx.Timeout(TIMEOUT_S).as_dict()}
        try:
            request = httpx.Request("POST", self.url, content=body, headers=headers, extensions=extensions)
            with httpx.HTTPTransport(proxy=_find_proxy(self.url)) as transport:
                response = transport.handle_request(request)
                response.close()
        except (httpx.TransportError, OSError, ValueError) as error:
            return f"no answer ({type(error).__name__})"
        if response.is_redirect:
            return f"it answers {response.status_code}, a redirect, which is not followed"
        return "" if response.is_success else f"it answers {response.status_code}"


def receivers_of(urls: str, secret: str) -> tuple[Receiver, ...]:
    """Returns the receivers of the settings, each once.

    Args:
        urls: `RELEASE_NOTIFY_URL`: addresses separated by commas.
        secret: `RELEASE_NOTIFY_SECRET`.

    Raises:
        SpecError: An address is none, or messages to one cannot be signed.
    """
    parts = dict.fromkeys(part.strip() for part in urls.split(",") if part.strip())
    return tuple(_receiver(number, part, secret) for number, part in enumerate(parts, start=1))


def find_fault(urls: str, secret: str) -> SpecError | None:
    """Returns why the settings name no receivers to whom anything could be sent; None where they do, or name nobody."""
    try:
        receivers_of(urls, secret)
    except SpecError as error:
        return error
    return None


def _receiver(number: int, text: str, secret: str) -> Receiver:
    url = text.removeprefix(SLACK_PREFIX)
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        known = False
    if not known:
        problem = f"address {number} of RELEASE_NOTIFY_URL cannot be read"  # and is not shown: it may hold a secret
        raise SpecError(problem, remedy=_REMEDY, field="RELEASE_NOTIFY_URL")
    if text != url or parts.hostname == SLACK_HOST:
        return Receiver(url=url, slack=True)
    if len(secret) < SECRET_CHARACTERS:
        wrong = "is too short" if secret else "is not set"
        raise SpecError(
            f"messages to {Receiver(url=url).name} cannot be signed: RELEASE_NOTIFY_SECRET {wrong}",
            remedy=f"set it to {SECRET_CHARACTERS} random characters or more, and give it to the receiver",
            field="RELEASE_NOTIFY_SECRET",
        )
    return Receiver(url=url, secret=secret)


def _find_proxy(url: str) -> str | None:
    """Returns the proxy that the environment names for an address, or None."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)
