"""Servers and callers that are not who they should be: what they get of our tokens, and what they can set in motion."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from connectors import web
from connectors.cli import app
from connectors.invitations import Invitations
from connectors.label_studio import LabelStudioBoard
from connectors.openai_teacher import OpenAITeacher
from connectors.recorded_teacher import RecordedTeacher, read_recordings, running
from loop.config import Config, TaskConfig, TeacherConfig, load, written_down
from loop.errors import BadConfig, BoardError, TeacherError
from loop.ports import Request
from review.page import review_page
from tests.test_board import a_task
from tests.test_observability import nobody_listens  # noqa: F401 - a fixture
from tests.tiny import tiny_project

TOKEN = "canary-token-4711"
SECRET = "open sesame"


@contextmanager
def answering(status: int, body: bytes = b"{}", **headers: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that says the same to everything; the headers that it was sent. `echo` puts them into its answers."""
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append({name.lower(): value for name, value in self.headers.items()})
            said = body.replace(b"ECHO", self.headers.get("Authorization", "").encode())
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the base class's name

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


# --- servers that point elsewhere -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_label_studio_s_token_goes_to_no_other_server(status: int) -> None:
    with answering(200) as (elsewhere, reached), answering(status, Location=f"{elsewhere}/api/") as (url, asked):
        with (
            closing(LabelStudioBoard(url, TOKEN, title="a title", page=review_page(TaskConfig()))) as board,
            pytest.raises(BoardError) as caught,
        ):
            board.put([a_task(1)])
        with pytest.raises(BoardError):
            Invitations(url, TOKEN).link()
        Invitations(url, TOKEN).is_open()
    assert any(TOKEN in each.get("authorization", "") for each in asked)
    assert reached == []
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_a_key_that_an_endpoint_sends_back_stands_in_no_error(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", TOKEN)
    body = b'{"error": {"message": "wrong key: ECHO ' + b"x" * 280 + b'", "code": "ECHO"}}'
    with answering(status, body) as (url, asked), pytest.raises(TeacherError) as caught:
        asyncio.run(OpenAITeacher(TeacherConfig(model="m", base_url=url)).complete(a_request()))
    assert TOKEN in asked[0]["authorization"]
    assert TOKEN not in str(caught.value)
    assert "[the key]" in str(caught.value)


def a_request() -> Request:
    said = ({"role": "user", "content": "How?"},)
    return Request(model="m", messages=said, temperature=0.0, max_completion_tokens=9, item_key="a")


# --- callers that are not Label Studio --------------------------------------------------------------------------------

FORGED = [
    {}, {web.HEADER: ""}, {web.HEADER: "open"}, {web.HEADER: "Open Sesame"}, {web.HEADER: f"{SECRET} "[:-2]},
    {web.HEADER: SECRET + "\u00e9"}, {web.HEADER: f"{SECRET},{SECRET}"}, {web.HEADER: "*"},
    {"Authorization": f"Bearer {SECRET}"}, {"Cookie": f"{web.HEADER}={SECRET}"},
]  # fmt: skip


@pytest.mark.parametrize("headers", FORGED, ids=str)
def test_a_forged_call_wakes_nothing(headers: dict[str, str]) -> None:
    changed = asyncio.Event()
    with TestClient(web.application(SECRET, changed)) as caller:
        raw = {name: value.encode() for name, value in headers.items()}
        assert caller.post(web.PATH, headers=raw, json={"action": "ANNOTATION_CREATED"}).status_code == 403
        assert caller.post(f"{web.PATH}?{web.HEADER}={SECRET}", headers=raw).status_code == 403
        assert caller.get(web.PATH, headers={web.HEADER: SECRET}).status_code in (404, 405)
    assert not changed.is_set()


def test_a_call_that_is_sent_again_wakes_one_pull_and_its_body_says_nothing() -> None:
    changed = asyncio.Event()
    pulls: list[int] = []
    forged = {"action": "ANNOTATION_CREATED", "annotation": {"id": 1, "result": [{"verdict": "accept"}]}, "task": 7}
    with TestClient(web.application(SECRET, changed)) as caller:
        for _ in range(50):
            answer = caller.post(web.PATH, headers={web.HEADER: SECRET}, json=forged)
            assert (answer.status_code, answer.content) == (200, b"")

    async def working() -> None:
        """What `serve` does: it works once for all calls that came, and then waits for the next."""
        server: Any = type("Server", (), {"started": True})()
        task = asyncio.create_task(web._keep_working(server, lambda: pulls.append(1), changed, every=60.0))
        await asyncio.sleep(0.3)
        task.cancel()

    assert changed.is_set()
    asyncio.run(working())
    assert len(pulls) == 1


# --- what is written down ---------------------------------------------------------------------------------------------

NAMES = ("OPENAI_API_KEY", "LABEL_STUDIO_API_KEY", "PRECEPTOR_WEBHOOK_SECRET", "PRECEPTOR_DASHBOARD_TOKEN", "HF_TOKEN")
CANARIES = {name: f"canary-{name.lower()}-48151623" for name in NAMES}
PASSWORD = "canary-password-42"


def test_no_token_is_written_down_or_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    config = tiny_project(tmp_path, rounds=1)
    with running(RecordedTeacher(read_recordings(tmp_path / "recorded.jsonl"))) as address:
        place = address.replace("://", f"://user:{PASSWORD}@")
        text = config.read_text().replace('recorded = "recorded.jsonl"', f'base_url = "{place}"')
        config.write_text(text.replace('name = "tiny"\n', 'name = "tiny"\nlog = "events.jsonl"\n'), encoding="utf-8")
        said = [called(words, config) for words in CAMPAIGN]
    assert all(code in (0, 3) for code, _ in said), said[-1]
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != config and "model" not in path.parts]
    assert {"preceptor.db", "events.jsonl", "report.html", "manifest.json"} <= {path.name for path in written}
    assert sum("round-1" in str(path) for path in written) > 2
    for secret in (*CANARIES.values(), PASSWORD):
        assert [path for path in written if secret.encode() in path.read_bytes()] == []
        assert [output for _, output in said if secret in output] == []


CAMPAIGN = [
    ["ingest", "holdout.jsonl", "--split", "holdout"], ["ingest", "pool.jsonl", "--split", "pool"], ["plan"],
    ["--verbose", "run"], ["status", "--json"], ["history", "i0", "--json"], ["prompt", "i1"], ["export", "out"],
    ["report", "--out", "report.html"], ["versions"],
]  # fmt: skip


def called(words: list[str], config: Path) -> tuple[int, str]:
    """A command's exit code, and all that it said."""
    done = CliRunner().invoke(app, [*words, "--config", str(config)])
    return done.exit_code, f"{done.output}{done.exception or ''}"


def test_addresses_are_stored_without_what_may_be_secret() -> None:
    given = Config.model_validate(
        {
            "run": {"database": "postgresql+psycopg://me:pw@db.example:5432/name?sslpassword=pw"},
            "teacher": {"base_url": "https://me:p%40w@api.example/v1/?key=pw", "stronger": [{"model": "m", "base_url": "http://a:pw@b"}]},
        }
    )  # fmt: skip
    stored = written_down(given)
    assert stored["run"]["database"] == "postgresql+psycopg://db.example:5432/name"
    assert stored["teacher"]["base_url"] == "https://api.example/v1/"
    assert stored["teacher"]["stronger"][0]["base_url"] == "http://b"
    assert "pw" not in str(stored)
    assert written_down(Config()) == Config().model_dump(mode="json")
    assert Config.model_validate(stored, strict=False).run.name == given.run.name


@pytest.mark.parametrize(
    "text",
    [
        '[review]\nurl = "http://me:canary@studio.example"', '[review]\nurl = "http://studio.example?token=canary"',
        '[teacher]\napi_key_env = "sk-canary"', '[review]\ntoken_env = "canary token"',
        '[tracking]\nto = "mlflow"\nurl = "http://a:canary@b"',
    ],
)  # fmt: skip
def test_a_secret_in_a_wrong_place_is_refused_and_not_repeated(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(BadConfig, match=r"config\.toml: \w+\.\w+") as caught:
        load(tmp_path / "config.toml")
    assert "canary" not in str(caught.value)


def test_a_database_whose_address_holds_a_password_is_named_without_it(tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    address = f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:1/none"
    config.write_text(config.read_text().replace('name = "tiny"', f'name = "tiny"\ndatabase = "{address}"'))
    done = CliRunner().invoke(app, ["status", "--config", str(config)])
    assert done.exit_code == 1
    assert PASSWORD not in f"{done.output}{done.exception}"
