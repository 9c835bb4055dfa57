"""Spans of a real service at a real receiver of OTLP over HTTP."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from jivs.backends.tracing.otlp import OtlpTracing
from jivs.ports.tracing import NoTracing
from jivs.testing.servers import free_port, wait_for
from jivs.testing.service import ServiceProcess

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Receiver:
    """Takes what exporters send to ``url``/v1/traces."""

    def __init__(self) -> None:
        self.spans: list[tuple[dict[str, str], Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/traces":
                    outer.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.spans += [(about, span) for scope in resource.scope_spans for span in scope.spans]

    def named(self, name: str) -> list[Any]:
        return [span for _, span in self.spans if span.name == name]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_each_request_is_a_span_that_goes_on_with_the_callers_trace(tmp_path: Path, receiver: Receiver) -> None:
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with ServiceProcess(tmp_path, **given, workers=False) as running, httpx.Client(base_url=running.url) as client:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        called = client.get("/api/v1/users/7?token=hush", headers=headers)
        assert called.headers["X-Trace-Id"] == TRACE == called.json()["traceId"]
        alone = client.get("/hush")
        wait_for(lambda: len(receiver.spans) >= 2, 10)
        name = "GET /api/v1/users/{user_id}"
        (span,) = receiver.named(name)
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        assert span.kind == span.SPAN_KIND_SERVER
        assert attributes(span) == {
            "http.request.method": "GET", "http.route": "/api/v1/users/{user_id}", "http.response.status_code": 401,
        }  # fmt: skip
        (other,) = receiver.named("GET other")
        assert other.trace_id.hex() == alone.headers["X-Trace-Id"]
        assert other.parent_span_id == b""
        about = receiver.spans[0][0]
        assert (about["service.name"], about["jivs.process"]) == ("jivs", "api")
        assert "hush" not in str(receiver.spans)
        client.get("/actuator/info")
    assert receiver.named("GET /actuator/info")  # what was not sent yet is, at the end


def test_spans_inside_spans_and_what_went_wrong(receiver: Receiver) -> None:
    tracing = OtlpTracing(receiver.url, "worker")
    with tracing.span("run extract", run__id="r1", rows=5) as outer:
        handed_on = outer.traceparent
        with pytest.raises(ValueError), tracing.span("table"):
            raise ValueError("hush: postgresql://ada:hush@db/x")
    with tracing.span("elsewhere", traceparent=handed_on) as later:
        assert later.trace_id == outer.trace_id
    for nonsense in ("", "00-x-y-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
        with tracing.span("anew", traceparent=nonsense) as fresh:
            assert fresh.trace_id not in {"", "0" * 32, outer.trace_id}
    tracing.close()
    (run,), (table,), (elsewhere,) = map(receiver.named, ("run extract", "table", "elsewhere"))
    assert table.parent_span_id == elsewhere.parent_span_id == run.span_id
    assert attributes(run) == {"run.id": "r1", "rows": 5}
    assert attributes(table) == {"error.type": "ValueError"}
    assert table.status.code == table.status.STATUS_CODE_ERROR
    assert "hush" not in str(receiver.spans)
    assert len(receiver.named("anew")) == 3


def test_a_collector_that_is_gone_holds_nobody_up(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}", workers=False) as running:
        with httpx.Client(base_url=running.url) as client:
            assert client.get("/actuator/health").status_code == 200
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 30, "the exporter would try for a minute"


def test_without_the_setting_nothing_of_it_is_loaded() -> None:
    code = (
        "import sys; from jivs import bootstrap, settings; bootstrap.build_service(settings.load(), process='api');"
        "import jivs.api.app; print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exp'))])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
    with NoTracing().span("x", rows=1) as span:
        assert (span.trace_id, span.traceparent) == ("", "")


def test_an_endpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    for wrong in ("collector:4318", "http://user:hush@collector", "ftp://x"):
        with pytest.raises(RuntimeError, match="OTEL_EXPORTER_OTLP_ENDPOINT") as raised:
            ServiceProcess(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=wrong, workers=False).start()
        assert "hush" not in str(raised.value)
