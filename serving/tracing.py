"""OpenTelemetry spans of requests, when it is configured by its own environment variables; nothing otherwise.

`OTEL_EXPORTER_OTLP_ENDPOINT` (or that of traces) says where to; sampler, resource and the rest follow the variables of
its specification too. A request that comes with a W3C `traceparent` continues that trace.
"""

import os
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp

from serving.permissions import PROBES

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_UNTRACED = rf"^[^/]*//[^/]*({'|'.join(sorted(PROBES | {'/metrics'}))})\Z"  # searched in scheme://host/path


class Tracing:
    """Makes a span of each request, and sends them from a thread of its own.

    Raises:
        ValueError: The packages for it are not installed.
    """

    def __init__(self) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise ValueError(
                f"traces are configured, but {error.name} is not installed: install the extra `tracing`"
            ) from error
        name = os.environ.get("OTEL_SERVICE_NAME", "model-serving")
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._present = trace.get_current_span
        self._middleware: Any = OpenTelemetryMiddleware

    def around(self, app: ASGIApp) -> ASGIApp:
        """Returns an application inside spans; probes have none."""
        made: ASGIApp = self._middleware(
            app, excluded_urls=_UNTRACED, tracer_provider=self._provider, exclude_spans=["receive", "send"]
        )
        return made

    def note(self, attributes: Mapping[str, Any]) -> None:
        """Notes what a request came to on its span."""
        self._present().set_attributes({f"release.{name}": value for name, value in attributes.items()})

    def close(self) -> None:
        """Sends the last spans."""
        self._provider.shutdown()


def find_tracing() -> Tracing | None:
    """Returns what traces requests where an endpoint is configured, else None. Raises as `Tracing`."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return Tracing() if not off and any(os.environ.get(name) for name in _ENDPOINTS) else None
