"""OpenTelemetry spans of requests, when it is configured by its own environment variables; nothing otherwise.

`OTEL_EXPORTER_OTLP_ENDPOINT` (or that of traces) says where to; the sampler, the resource and the rest follow the
specification's variables too. A request that comes with a W3C `traceparent` continues that trace.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import ASGIApp

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROBES = "livez,readyz,ping,health,metrics"

Note = Callable[[Mapping[str, Any]], None]


def configured() -> bool:
    """Returns whether traces are to be sent anywhere."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not off and any(os.environ.get(name) for name in _ENDPOINTS)


def traced(app: ASGIApp) -> tuple[ASGIApp, Note, Callable[[], None]]:
    """Returns the application inside spans, what notes attributes on the present one, and what sends the last ones.

    Raises:
        ValueError: The packages for it are not installed.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ValueError(f"traces are configured, but {error.name} is not installed: install the extra `tracing`") from error
    name = os.environ.get("OTEL_SERVICE_NAME", "model-serving")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    inside = OpenTelemetryMiddleware(
        app, excluded_urls=_PROBES, tracer_provider=provider, exclude_spans=["receive", "send"]
    )

    def note(attributes: Mapping[str, Any]) -> None:
        trace.get_current_span().set_attributes({f"release.{key}": value for key, value in attributes.items()})

    return inside, note, provider.shutdown
