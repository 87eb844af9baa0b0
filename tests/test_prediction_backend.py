"""Label Studio asks for the student's present answer, and gives away nothing by that."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from starlette.testclient import TestClient

from connectors import studio_server
from connectors.label_studio import LabelStudioBoard
from connectors.prediction_backend import PredictionBackend, PredictRequest
from connectors.progress import RichProgress
from connectors.web import USER, application
from connectors.wiring import Project
from loop.records import Checkpoint, Round, Stage, VerdictKind
from loop.store import checkpoints, items, reviews, rounds
from review.board import BoardTask
from review.page import review_page
from review.task import STUDENT_BOX, result
from tests.builders import NOON, a_reply, a_round, an_item, id_of, queried, sent_to_review
from tests.test_board import TASK, UNIQUE
from tests.tiny import tiny_model

SECRET = "open sesame and the rest"
KEYS = ("q0", "q1", "q2")


class Served:
    """A project in review whose student was trained, and what its processes say."""

    def __init__(self, folder: Path, studio: studio_server.Studio | None = None) -> None:
        self.file = folder / "config.toml"
        url = "http://127.0.0.1:9" if studio is None else studio.url
        self.file.write_text(
            '[run]\nname = "main"\ndatabase = "sqlite:///store.db"\n[task]\nanswer = "number"\n'
            '[student]\nmodel = "model"\nlora_rank = 0\nmax_new_tokens = 12\n'
            f'[review]\nurl = "{url}"\nproject = "{folder.name}"\nstudent_answers = true\npoll_seconds = 0.5\n',
            encoding="utf-8",
        )
        self.said = StringIO()
        self.project = Project(self.file, RichProgress(Console(file=self.said)))
        tiny_model(folder / "model")
        store = self.project.store
        items.add(store, [an_item(key, question=f"What is {place} + 1 ?") for place, key in enumerate(KEYS)])
        self.student(a_round(store))
        self.round = queried(store, a_round(store), KEYS)
        for key in KEYS:
            a_reply(store, self.round, key, steps=["1 + 1 = 2"], answer=2)
        sent_to_review(store, self.round, KEYS)

    def student(self, opened: Round) -> None:
        """Close a round with a student."""
        folder = self.project.folder / "checkpoints" / f"round-{opened.number}"
        tiny_model(folder)
        settings = self.project.config.student.model_dump(mode="json")
        (folder / "card.json").write_text(json.dumps({"settings": settings}), encoding="utf-8")
        made = Checkpoint(run="main", round_id=id_of(opened), folder=folder.name, examples=1, created_at=NOON)
        number = checkpoints.keep(self.project.store, made).id
        rounds.enter(self.project.store, opened, Stage.CLOSED, student_id=number, closed_at=NOON)

    def push(self) -> None:
        """Put the reviews on the board."""
        self.project.desk().push(reviews.pending(self.project.store, id_of(self.round)))

    def answers(self) -> dict[str, str]:
        """What stands on the board as the student's answer, by item."""
        board = self.project.board()
        return {each.data["item_key"]: each.data["student"] for each in board.open_tasks()}


@pytest.fixture
def served(tmp_path: Path, studio: studio_server.Studio, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A campaign in review on the real server."""
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", studio.token)
    here = Served(tmp_path, studio)
    board = here.project.board()
    assert isinstance(board, LabelStudioBoard)
    with closing(board), closing(here.project.store):
        yield here


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Served]:
    """A campaign in review whose server is not needed."""
    here = Served(tmp_path)
    with closing(here.project.store):
        yield here


@contextmanager
def _serving(here: Served, studio: studio_server.Studio) -> Iterator[str]:
    """`preceptor serve --register` in a process of its own; what it says is in `serve.txt`."""
    port = studio_server._free_port()
    code = "from connectors.cli import main; main()"
    words = [sys.executable, "-c", code, "serve", "--register", "--port", str(port), "--config", str(here.file)]
    env = {"LABEL_STUDIO_API_KEY": studio.token, "PRECEPTOR_WEBHOOK_SECRET": SECRET, "PATH": ""}
    env |= {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE")}
    with (here.file.parent / "serve.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(words, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=20)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_open_reviews_show_the_students_answer_and_the_token_is_nowhere(
    served: Served, studio: studio_server.Studio, tmp_path: Path
) -> None:
    served.push()
    assert set(served.answers().values()) == {""}
    headers = {"Authorization": f"Token {studio.token}"}
    with (
        _serving(served, studio) as url,
        httpx.Client(base_url=studio.url, headers=headers, trust_env=False, timeout=60.0) as api,
    ):
        until = time.monotonic() + 120
        while not all(served.answers().values()):
            assert time.monotonic() < until, (tmp_path / "serve.txt").read_text()
            time.sleep(0.5)
        project = served.project.board().project()
        (connected,) = api.get("/api/ml", params={"project": project}).json()
        assert (connected["url"], connected["state"]) == (url, "CO")
        assert connected["model_version"] == "student round-1"
        hooks = api.get("/api/webhooks/", params={"project": project}).json()
        assert [hook["url"] for hook in hooks] == [f"{url}/label-studio"]
        assert _opened(api, project)["data"]["student"] in served.answers().values()
        bare = api.post("/api/tasks/", json={"data": _opened(api, project)["data"], "project": project}).json()
        (asked,) = api.get(f"/api/tasks/{bare['id']}", params={"project": project}).json()["predictions"]
    assert asked["model_version"] == "student round-1"
    assert {each["from_name"] for each in asked["result"]} == {"answer", "rationale", STUDENT_BOX}
    told = [file for file in tmp_path.rglob("*") if file.is_file() and studio.token.encode() in file.read_bytes()]
    assert told == []


def _opened(api: httpx.Client, project: str) -> dict[str, Any]:
    """The task that the next reviewer is handed, as the page gets it: with what is prefilled, and no verdict."""
    task: dict[str, Any] = api.get(f"/api/projects/{project}/next").json()
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "teacher"
    assert {each["from_name"] for each in prediction["result"]} == {"answer", "rationale"}
    return task


def test_assignee_and_place_are_kept_when_answers_are_renewed(served: Served) -> None:
    served.push()
    board, backend = served.project.board(), PredictionBackend(served.project)
    first = board.open_tasks()[0]
    board.arrange([BoardTask(first.uid, {**first.data, "reviewer": "ann@example.org"}, score=0.25)])
    assert backend.refresh() == 3
    seen = {each.uid: each for each in board.open_tasks()}[first.uid]
    assert (seen.data["reviewer"], seen.score, seen.prediction) == ("ann@example.org", 0.25, first.prediction)
    assert seen.data["student"] != first.data["student"]


def test_answers_are_renewed_once_and_a_verdict_changes_none(served: Served) -> None:
    served.push()
    board, backend = served.project.board(), PredictionBackend(served.project)
    assert [backend.refresh(), backend.refresh()] == [3, 0]
    judged, *_ = board.open_tasks()
    board.annotate(judged.task, result(VerdictKind.ACCEPT), seconds=1.0, unique_id=UNIQUE.format(80))
    assert served.project.desk().pull() == 1
    assert backend.refresh() == 0


def _asked(*uids: str) -> PredictRequest:
    return PredictRequest.model_validate({"tasks": [{"data": {"uid": uid}} for uid in uids]})


def test_every_task_gets_one_prediction_and_strange_ones_an_empty_one(apart: Served) -> None:
    given = PredictionBackend(apart.project).predict(_asked("main/2/q1", "somebody else's", ""))
    assert [len(each["result"]) for each in given["results"]] == [3, 0, 0]
    assert STUDENT_BOX in {each["from_name"] for each in given["results"][0]["result"]}


def test_no_prediction_names_a_verdict_or_a_mark(apart: Served) -> None:
    given = PredictionBackend(apart.project).predict(_asked(*(f"main/2/{key}" for key in KEYS)))
    named = {region["from_name"] for each in given["results"] for region in each["result"]}
    assert named == {"answer", "rationale", STUDENT_BOX}


def test_a_student_that_cannot_be_loaded_shows_nothing_and_is_told_of_once(apart: Served) -> None:
    here = apart
    (here.project.folder / "checkpoints" / "round-1" / "model.safetensors").unlink()
    backend = PredictionBackend(here.project)
    for _ in range(2):
        (given,) = backend.predict(_asked("main/2/q1"))["results"]
        assert {each["from_name"] for each in given["result"]} == {"answer", "rationale"}
    assert " ".join(here.said.getvalue().split()).count("do not see what the student answers") == 1


def test_answers_are_kept_and_a_new_student_answers_anew(apart: Served) -> None:
    here = apart
    answers, item = here.project.present_answers, items.get(here.project.store, "q1")
    assert item is not None
    first = answers.of([item])
    (here.project.folder / "checkpoints" / "round-1" / "model.safetensors").unlink()
    again = Project(here.file, here.project.progress)
    with closing(again.store):
        assert again.present_answers.of([item]) == first == answers.known()
    rounds.enter(here.project.store, here.round, Stage.CLOSED, closed_at=NOON)
    here.student(a_round(here.project.store))
    assert (answers.version, answers.known()) == ("student round-3", {})
    assert answers.of([item]).keys() == {"q1"}


def test_the_page_has_the_hidden_box_only_where_it_is_asked_for() -> None:
    assert STUDENT_BOX not in review_page(TASK).config
    assert STUDENT_BOX in review_page(TASK, student_answers=True).config


@pytest.fixture
def calling(apart: Served) -> Iterator[TestClient]:
    """The web application of a project, and whoever calls it."""
    with TestClient(application(SECRET, asyncio.Event(), PredictionBackend(apart.project))) as client:
        yield client


def test_only_who_knows_the_secret_gets_predictions(calling: TestClient) -> None:
    body = _asked("main/2/q1").model_dump()
    for path in ("/setup", "/predict"):
        assert calling.post(path, json=body).status_code == 401
        assert calling.post(path, json=body, auth=(USER, "wrong")).status_code == 401
        assert calling.post(path, json=body, auth=(USER, SECRET)).json()["model_version"] == "student round-1"
    assert calling.post("/predict", json=[], auth=(USER, SECRET)).status_code == 400


def test_without_the_setting_there_is_no_backend() -> None:
    with TestClient(application(SECRET, asyncio.Event())) as client:
        assert client.post("/predict", json={}, auth=(USER, SECRET)).status_code == 404
