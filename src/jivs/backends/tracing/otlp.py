"""Spans over OTLP/HTTP, by OpenTelemetry's SDK. Sampling, headers and limits are those of its ``OTEL_*`` variables."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from jivs import __version__
from jivs.ports.tracing import Span

_CLOSING_SECONDS = 3.0
_PROPAGATOR = TraceContextTextMapPropagator()


class _Span:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def trace_id(self) -> str:
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    @property
    def traceparent(self) -> str:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(self._span))
        return carrier.get("traceparent", "")

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, **attributes: str | int | float) -> None:
        for name, value in attributes.items():
            self._span.set_attribute(name.replace("__", "."), value)

    def fail(self, what: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, what))


class OtlpTracing:
    """Sends to ``endpoint``/v1/traces, in the background.

    The provider is our own and nothing global is set, so that libraries that trace by themselves stay silent.
    """

    active = True

    def __init__(self, endpoint: str, process: str) -> None:
        about = {"service.name": "jivs", "service.version": __version__, "jivs.process": process}
        resource = Resource.create(about).merge(OTELResourceDetector().detect())  # the operator's own words win
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("jivs", __version__)

    @contextmanager
    def span(
        self, name: str, *, traceparent: str = "", server: bool = False, **attributes: str | int | float
    ) -> Iterator[Span]:
        parent = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
        kind = SpanKind.SERVER if server else SpanKind.INTERNAL
        with self._tracer.start_as_current_span(
            name, context=parent, kind=kind, record_exception=False, set_status_on_exception=False
        ) as inner:
            span = _Span(inner)
            span.note(**attributes)
            try:
                yield span
            except BaseException as error:
                span.note(error__type=type(error).__name__)
                span.fail(type(error).__name__)  # its message may quote what no collector should see
                raise

    def close(self) -> None:
        ending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(_CLOSING_SECONDS)
