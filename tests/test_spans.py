"""A request to a model is an OpenTelemetry span that says how it went, and nothing of what was said."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from connectors import spans
from connectors.openai_teacher import OpenAITeacher
from connectors.recorded_teacher import RecordedTeacher, Recording, running
from loop.config import TaskConfig, TeacherConfig
from loop.errors import BadConfig, TeacherRefused
from loop.records import Item, Split
from loop.teacher.prompt import request_for

SECRET = "sk-a-key-that-nobody-may-see"
APPLES = Recording(key="secret-item", question="How many apples?", steps=("1 + 1 = 2",), answer="2")
ITEM = Item(key="secret-item", question="How many apples?", split=Split.POOL, text_hash="")
TOLD = ("apples", "1 + 1", "secret-item", SECRET, "Answer", "Explain")
MEMORY = ".in_memory_span_exporter"
NEEDED = pytest.importorskip("opentelemetry.sdk.trace", reason='pip install "preceptor[otel]"')


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Spans as a real SDK keeps them."""
    export, memory = (pytest.importorskip(f"opentelemetry.sdk.trace.export{name}") for name in ("", MEMORY))
    exporter, provider = memory.InMemorySpanExporter(), NEEDED.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans.trace, "get_tracer", provider.get_tracer)
    return exporter


def ask(key: str = SECRET) -> None:
    """Ask the recorded teacher, which takes one key."""
    with running(RecordedTeacher([APPLES], api_key=SECRET)) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEACHER_KEY", key)
        config = TeacherConfig(base_url=address, model="recorded", api_key_env="TEACHER_KEY")
        asyncio.run(OpenAITeacher(config).complete(request_for(ITEM, TaskConfig(), config, (), 0)))


def test_a_span_says_which_model_took_how_many_tokens(seen: Any) -> None:
    ask()
    (span,) = seen.get_finished_spans()
    assert span.name == "chat recorded"
    assert span.attributes["gen_ai.request.model"] == "recorded"
    assert span.attributes["gen_ai.usage.input_tokens"] > 0
    assert span.attributes["gen_ai.usage.output_tokens"] > 0
    assert span.attributes["preceptor.table"] == "teacher"
    assert span.attributes["server.address"] == "127.0.0.1"


def test_a_span_holds_nothing_of_what_was_said(seen: Any) -> None:
    ask()
    (span,) = seen.get_finished_spans()
    assert not [each for each in TOLD if each in span.to_json()]


def test_a_refused_request_is_told_by_its_kind_alone(seen: Any) -> None:
    with pytest.raises(TeacherRefused):
        ask("sk-another")
    (span,) = seen.get_finished_spans()
    assert span.attributes["error.type"] == "TeacherRefused"
    assert not span.status.is_ok
    assert span.status.description is None
    assert not span.events
    assert "sk-another" not in span.to_json()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, bytes]]]:
    """A collector on loopback, and what came to it."""
    came: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    yield came
    server.shutdown()
    server.server_close()


def test_spans_reach_a_collector_where_the_config_says_so(collector: list[tuple[str, bytes]]) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason='pip install "preceptor[otel]"')
    with spans.exported(wanted=False):
        ask()
    assert not collector
    with spans.exported(wanted=True):
        ask()
    ((path, body),) = collector
    assert path == "/v1/traces"
    assert b"chat recorded" in body
    assert not [each for each in TOLD if each.encode() in body]


def test_a_missing_sdk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(BadConfig, match=r"preceptor\[otel\]"), spans.exported(wanted=True):
        pass
