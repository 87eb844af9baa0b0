"""A server takes its port before anything slow is done, and says in a sentence where it cannot."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from connectors import student_server
from connectors.cli import app
from connectors.listening import listening
from loop.errors import PreceptorError
from tests.tiny import tiny_project

HOST = "127.0.0.1"
SERVERS = {
    "student": ["student", "serve", "--round", "0", "--config", "config.toml"],
    "dashboard": ["serve", "--config", "config.toml"],
    "teacher": ["teacher", "serve", "recorded.jsonl"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    tiny_project(folder)
    return folder


def test_a_port_is_held_from_the_start() -> None:
    with listening(HOST, 0) as (listener, address):
        port = listener.getsockname()[1]
        assert address == f"http://{HOST}:{port}"
        with (
            pytest.raises(PreceptorError, match=f"^port {port} of {HOST} is taken; name another with --port$"),
            listening(HOST, port),
        ):
            pass
    with listening(HOST, port) as (_, again):
        assert again == address


def test_a_host_that_is_not_here_is_named() -> None:
    with pytest.raises(PreceptorError, match=r"^cannot listen at port 0 of 192\.0\.2\.1: "), listening("192.0.2.1", 0):
        pass


@pytest.mark.parametrize("server", SERVERS)
def test_a_taken_port_is_told_before_anything_is_loaded(
    server: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(student_server, "a_server", lambda *_: pytest.fail("the model was loaded"))
    with listening(HOST, 0) as (listener, _):
        port = listener.getsockname()[1]
        done = CliRunner().invoke(app, [*SERVERS[server], "--port", str(port)])
    assert isinstance(done.exception, PreceptorError)
    assert str(done.exception) == f"port {port} of {HOST} is taken; name another with --port"
    assert HOST not in done.output


@pytest.mark.parametrize("server", SERVERS)
def test_a_port_that_cannot_be_is_wrong_usage(server: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for port in ("99999999", "-1"):
        assert CliRunner().invoke(app, [*SERVERS[server], "--port", port]).exit_code == 2


@contextmanager
def started(server: str, folder: Path) -> Iterator[str]:
    """The address that a server says, on a free port."""
    words = [sys.executable, "-c", "from connectors.cli import main; main()", *SERVERS[server], "--port", "0"]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said = (re.search(rf"http://{HOST}:[1-9]\d*", line) for line in process.stdout)
            yield next(found[0] for found in said if found)
        finally:
            process.terminate()
            process.stdout.read()


@pytest.mark.parametrize(
    ("server", "path"), [("student", "/v1/models"), ("dashboard", "/health"), ("teacher", "/v1/models")]
)
def test_a_server_on_a_free_port_says_which(server: str, path: str, folder: Path) -> None:
    with started(server, folder) as address:
        assert httpx.get(f"{address}{path}", timeout=60, trust_env=False).status_code == 200
