"""The real Label Studio on the real PostgreSQL, with the environment of the compose file; both kinds of token work."""

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from benchmarks import postgres
from connectors import studio_server
from connectors.invitations import Invitations
from connectors.label_studio import LabelStudioBoard
from connectors.wiring import cache_folder
from loop.records import VerdictKind
from review.page import review_page
from review.task import result
from tests.test_board import TASK
from tests.test_chaos import Campaign
from tests.test_tokens import SDK, personal_token

COMPOSE = Path(__file__).resolve().parents[1] / "deploy" / "compose.yaml"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
PASSWORD = "a password of nobody"
USER = "admin@example.org"
MANY = 4


@dataclass(frozen=True)
class Server:
    """Where it is, and a token of each kind."""

    url: str
    tokens: dict[str, str]


@pytest.fixture(scope="module")
def server(postgresql: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Label Studio as the compose file starts it, on an empty database; making all tables takes two minutes."""
    database, port = postgres.new_database(postgresql, "studio"), studio_server._free_port()
    folder, url = tmp_path_factory.mktemp("studio"), f"http://127.0.0.1:{port}"
    environment = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["label-studio"]["environment"] | {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data"),
        "LABEL_STUDIO_HOST": url,
        "LABEL_STUDIO_CSRF_TRUSTED_ORIGINS": url,
        "LABEL_STUDIO_SESSION_COOKIE_SECURE": "0",
        "LABEL_STUDIO_POSTGRE_HOST": database.split("host=")[1],
        "LABEL_STUDIO_POSTGRE_NAME": "studio",
        "LABEL_STUDIO_POSTGRE_USER": "postgres",
        "LABEL_STUDIO_POSTGRE_PASSWORD": "",
        "LABEL_STUDIO_USERNAME": USER,
        "LABEL_STUDIO_PASSWORD": PASSWORD,
        "LABEL_STUDIO_USER_TOKEN": TOKEN,
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
    }
    program = studio_server.install(cache_folder(), lambda _: None) / "bin" / "label-studio"
    words = [program, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            _wait(process, url, folder / "server.log")
            assert not list(folder.rglob("*.sqlite3"))
            yield Server(url, {"legacy": TOKEN, "personal": personal_token(url, USER, PASSWORD)})
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + 600
    with httpx.Client(trust_env=False, timeout=5.0) as client:
        while time.monotonic() < until:
            assert process.poll() is None, log.read_text(encoding="utf-8")[-3000:]
            try:
                if client.get(f"{url}/health").status_code == httpx.codes.OK:
                    return
            except httpx.HTTPError:
                time.sleep(0.5)
    raise AssertionError(log.read_text(encoding="utf-8")[-3000:])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings(SDK)
@pytest.mark.parametrize("kind", ["legacy", "personal"])
def test_tasks_verdicts_and_deletions_go_both_ways_with_either_token(server: Server, kind: str, tmp_path: Path) -> None:
    board = LabelStudioBoard(server.url, server.tokens[kind], title=f"on postgresql {kind}", page=review_page(TASK))
    headers = {"Authorization": f"Token {TOKEN}"}
    with closing(board), httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=60.0) as api:
        here = Campaign(tmp_path, board, api, MANY)
        with closing(here.store):
            here.push()
            here.push()
            assert here.stands_once(MANY)
            task, other, *_ = [copies[0] for copies in here.tasks().values()]
            annotation = here.answer(task)
            assert here.desk.pull() == 1
            assert (here.counted(), here.waiting()) == (1, MANY - 1)
            assert api.patch(f"/api/annotations/{annotation}/", json={"result": result(VerdictKind.REJECT)}).is_success
            assert here.desk.pull() == 1
            assert api.delete(f"/api/annotations/{annotation}/").status_code == 204
            assert api.delete(f"/api/tasks/{other}/").status_code == 204
            here.desk.pull(whole=True)
            assert (here.counted(), here.waiting()) == (0, MANY)
            here.push()
            assert here.stands_once(MANY)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings(SDK)
@pytest.mark.parametrize("kind", ["legacy", "personal"])
def test_people_are_invited_with_either_token_and_nobody_comes_uninvited(server: Server, kind: str) -> None:
    invitations = Invitations(server.url, server.tokens[kind])
    assert not invitations.is_open()
    assert invitations.invite(f"{kind}@example.org").password is not None
    assert invitations.invite(f"{kind}@example.org").password is None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_24_writers_on_postgresql_store_each_answer_once(server: Server, tmp_path: Path) -> None:
    many = 160
    board = LabelStudioBoard(server.url, TOKEN, title="writers", page=review_page(TASK))
    headers = {"Authorization": f"Token {TOKEN}"}
    with closing(board), httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=120.0) as api:
        here = Campaign(tmp_path, board, api, many)
        with closing(here.store), ThreadPoolExecutor(24) as writers:
            here.push()
            sent = sum(writers.map(here.answer_until_it_is_taken, [copies[0] for copies in here.tasks().values()]))
            stored = sum(len(each.verdicts) for each in board.listing(board.project()))
            print(f"{many} answers, sent {sent} times, are {stored} annotations")  # noqa: T201
            assert here.desk.pull() == stored == many
