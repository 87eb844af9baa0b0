"""Whatever fails beneath a campaign, it waits or ends with the cure, and comes out as if nothing had failed."""

import asyncio
import ctypes
import resource
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from connectors import campaign
from connectors.openai_teacher import OpenAITeacher
from connectors.present_answers import _read
from connectors.progress import RichProgress
from connectors.recorded_teacher import Fault, RecordedTeacher, read_recordings, running
from connectors.sources import ingest
from connectors.wiring import Project
from loop.config import QueryConfig, StudentConfig, TeacherConfig
from loop.errors import BoardDown, StoreUnusable, StudentError, TeacherDown, TeacherRefused
from loop.ports import Request
from loop.query.select import score_chunk
from loop.records import Split
from loop.store import database, items
from loop.store.database import Store
from loop.student import checkpoint
from loop.student.packaged import SMOLLM2
from loop.student.reading import Reading
from review.fake_board import FakeBoard
from tests.builders import an_item
from tests.crash_matrix import resumed
from tests.dying import Moment
from tests.test_student import a_trainer, sums
from tests.tiny import tiny_model, tiny_project
from tests.whole_campaign import Lived, in_a_process, rows, said, unkilled

HOUR = 3600.0
THE_FILES = pytest.mark.sqlite("the disk and the folder are the file's")


class Told(RichProgress):
    """Progress that remembers what it says."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        object.__setattr__(self, "lines", [])

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def reference() -> Lived:
    """What comes of the campaign when nothing fails."""
    return unkilled("fake")


# --- outages ----------------------------------------------------------------------------------------------------------


class Outage:
    """Something that is down for an hour of a clock that only pauses move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = 0.0
        self.pauses: list[float] = []
        monkeypatch.setattr(campaign, "_sleep", lambda _, seconds: self.rest(seconds))

    def rest(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.passed += seconds

    @property
    def over(self) -> bool:
        return self.passed >= HOUR


def a_small_project(folder: Path, *changes: tuple[str, str]) -> tuple[Project, Told]:
    """A project of one round with some items taken in, and what it says."""
    config = tiny_project(folder, rounds=1, sums=6)
    text = config.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    told = Told()
    project = Project(config, told)
    for split in (Split.HOLDOUT, Split.POOL):
        settings = project.config
        file = folder / f"{split}.jsonl"
        ingest([file], project.store, split=split, pool=settings.pool, task=settings.task, progress=told)
    return project, told


def finished(project: Project) -> bool:
    return campaign.run(project, rounds_wanted=1, wait=True).outcome is campaign.Outcome.FINISHED


def test_an_hour_without_the_teachers_name_is_waited_for_said_once_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage, resolved = Outage(monkeypatch), socket.getaddrinfo

    def look_up(host: Any, *words: Any, **more: Any) -> Any:
        if host in ("teacher.test", b"teacher.test"):
            if not outage.over:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            host = "127.0.0.1"
        return resolved(host, *words, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setenv("OPENAI_API_KEY", "not a real one")
    monkeypatch.setenv("NO_PROXY", "*")
    tiny_project(tmp_path)
    with running(RecordedTeacher(read_recordings(tmp_path / "recorded.jsonl"))) as address:
        elsewhere = address.replace("127.0.0.1", "teacher.test")
        project, told = a_small_project(
            tmp_path, ('recorded = "recorded.jsonl"', f'base_url = "{elsewhere}"\nattempts = 1')
        )
        assert finished(project)
    [line] = [line for line in told.lines if "waits for the teacher" in line]
    assert "teacher.test" in line
    assert "goes on by itself" in line
    assert outage.pauses[:3] == [15.0, 30.0, 60.0]
    assert max(outage.pauses) == campaign.LONGEST_PAUSE
    charges = rows(project.path, "select state, settled, assumed from charge where currency = 'USD'")
    assert {(state, assumed) for state, _, assumed in charges} == {("RELEASED", 0), ("SETTLED", 0)}
    assert len(rows(project.path, "select * from reply")) == 6
    project.store.close()


def test_an_hour_without_the_review_server_is_waited_for_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage, put = Outage(monkeypatch), FakeBoard.put

    def put_later(board: FakeBoard, tasks: Any) -> Any:
        if not outage.over:
            raise BoardDown("Label Studio does not answer; start it with `preceptor review up`")
        return put(board, tasks)

    monkeypatch.setattr(FakeBoard, "put", put_later)
    project, told = a_small_project(tmp_path)
    assert finished(project)
    [line] = [line for line in told.lines if "waits for the review server" in line]
    assert "preceptor review up" in line
    assert rows(project.path, "select count(*) = count(distinct uid) and count(*) > 0 from reviewtask") == [[1]]
    project.store.close()


def test_an_outage_in_which_every_request_may_cost_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(monkeypatch)
    tiny_project(tmp_path)
    broken = RecordedTeacher(read_recordings(tmp_path / "recorded.jsonl"), [Fault(kind="500", times=1000)])
    with running(broken) as address:
        project, _ = a_small_project(tmp_path, ('recorded = "recorded.jsonl"', f'base_url = "{address}"\nattempts = 1'))
        with pytest.raises(TeacherDown, match="what came before is stored, and the same command asks for the rest"):
            finished(project)
    assert outage.pauses == []
    [[charges, assumed]] = rows(
        project.path, "select count(*), count(nullif(assumed, false)) from charge where currency = 'USD'"
    )
    assert charges == assumed in (5, 6)  # the fifth ends it; another one may have been under way
    project.store.close()


@contextmanager
def a_stranger(folder: Path) -> Iterator[int]:
    """The port of a server on loopback whose certificate nobody vouches for."""
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run([*words, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            while True:
                try:
                    context.wrap_socket(listener.accept()[0], server_side=True).close()
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        threading.Thread(target=greet, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_certificate_that_is_not_trusted_stops_at_once_and_names_its_cures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request("m", ({"role": "user", "content": "?"},), 0.0, 10)
    with a_stranger(tmp_path) as port:
        teacher = OpenAITeacher(TeacherConfig(base_url=f"https://127.0.0.1:{port}/v1", model="m"))
        with pytest.raises(TeacherRefused, match=r"self.signed certificate.*clock.*SSL_CERT_FILE"):
            asyncio.run(teacher.complete(request))


# --- disk and database ------------------------------------------------------------------------------------------------


def small_disk(most: int) -> None:
    """No file grows further: a full disk, for this process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


@THE_FILES
@pytest.mark.parametrize("kib", [300, pytest.param(420, marks=pytest.mark.slow), 600])
def test_a_disk_that_is_full_ends_the_run_with_the_cure_and_it_goes_on_when_there_is_room(
    kib: int, reference: Lived, tmp_path: Path
) -> None:
    config = tiny_project(tmp_path)
    assert in_a_process(config, first=partial(small_disk, kib << 10)) == 1
    assert "the disk has room" in said(config) or "free some space" in said(config)
    assert resumed(config, reference.facts)["differences"] == []


def as_somebody() -> None:
    """Without root's right to write everywhere (CAP_DAC_OVERRIDE, the second bit of the effective ones)."""
    header, rights = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None)
    assert libc.capget(header, rights) == 0
    rights[0] &= ~0b10
    assert libc.capset(header, rights) == 0


@pytest.mark.parametrize(
    ("locked", "cure"), [("runs", "run.folder"), pytest.param(".", "may be written", marks=THE_FILES)]
)
def test_a_folder_that_may_not_be_written_is_named_before_anything_is_spent(
    locked: str, cure: str, tmp_path: Path
) -> None:
    config = tiny_project(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / locked).chmod(0o555)
    assert in_a_process(config, first=as_somebody) == 1
    (tmp_path / locked).chmod(0o755)
    assert cure in said(config)
    assert not (tmp_path / "preceptor.db").exists() or rows(config, "select * from charge") == []


@pytest.mark.sqlite("there one writer keeps the others out")
def test_a_database_that_another_process_holds_is_said_to_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    store.migrate()
    with closing(sqlite3.connect(tmp_path / "store.db")) as other:
        other.execute("begin immediate")
        with pytest.raises(StoreUnusable, match=r"another process has held it.* wait for it or end it"):
            items.add(store, [an_item("q")])
    assert items.add(store, [an_item("q")]) == 1
    store.close()


@pytest.mark.sqlite("damages its file")
def test_a_damaged_database_is_named_with_the_cure_and_nothing_is_written_to_it(tmp_path: Path) -> None:
    project, _ = a_small_project(tmp_path)
    project.store.close()
    file = tmp_path / "preceptor.db"
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 8192) + whole[-4096:])
    broken = file.read_bytes()
    with pytest.raises(StoreUnusable, match=r"is damaged: put a backup of it in its place"):
        campaign.run(Project(project.path, Told()), rounds_wanted=1, wait=False)
    assert file.read_bytes() == broken


# --- files that are damaged -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("left", [0, 100])
def test_a_damaged_checkpoint_is_named_with_the_cure(model: Path, tmp_path: Path, name: str, left: int) -> None:
    folder = tmp_path / "round-1"
    shutil.copytree(model, folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:left])
    with pytest.raises(StudentError, match=r"round-1: cannot be loaded .* copy the folder back from a backup"):
        checkpoint.load_causal(folder, StudentConfig(model=str(model)), tmp_path, torch.float32)


def test_a_damaged_copy_of_a_packaged_model_is_to_be_deleted(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / SMOLLM2)
    (tmp_path / SMOLLM2 / "model.safetensors").write_bytes(b"half of i")
    with pytest.raises(StudentError, match=f"delete the folder {SMOLLM2} in Preceptor's cache"):
        checkpoint.load_causal(None, StudentConfig(model=SMOLLM2), tmp_path, torch.float32)


def test_damaged_answers_that_were_kept_for_reviewers_are_given_anew(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text('{"q1": {"st')
    assert _read(tmp_path / "1.json") == {}


# --- clocks -----------------------------------------------------------------------------------------------------------


def clock_off(hours: float) -> None:
    """The wall clock of this process is wrong by so many hours."""

    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(hours=hours)

    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("loop", "review", "connectors") and getattr(module, "datetime", None) is datetime:
            module.datetime = Moved
    right = time.time
    time.time = lambda: right() + hours * 3600


@pytest.mark.parametrize("hours", [-30, pytest.param(30, marks=pytest.mark.slow)])
def test_a_clock_that_jumps_while_the_run_is_down_changes_nothing(
    hours: float, reference: Lived, tmp_path: Path
) -> None:
    config = tiny_project(tmp_path)
    site = next(each for each in reference.counts if each.startswith("commit") and "reviewtask" in each)
    assert in_a_process(config, Moment(site, 1, "after")) == -signal.SIGKILL, said(config)
    assert resumed(config, reference.facts, first=partial(clock_off, hours))["differences"] == []


# --- memory -----------------------------------------------------------------------------------------------------------


def small_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Contexts that the student reads at once are asked of the memory; it has room for so many."""
    asked: list[int] = []
    plain = Reading.__init__

    def read(reading: Reading, model: Any, contexts: Any, pad: int) -> None:
        asked.append(len(contexts))
        if len(contexts) > most:
            torch.empty(2**50)
        plain(reading, model, contexts, pad)

    monkeypatch.setattr(Reading, "__init__", read)
    return asked


def test_a_chunk_that_does_not_fit_into_the_memory_is_scored_half_by_half_with_the_same_result(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = a_trainer(model).student(None)
    chunk = [an_item(f"q{number}", question=f"What is {number} + {number} ?") for number in range(8)]
    score = partial(score_chunk, 1, 0, chunk, student, QueryConfig(samples=2), seed=1)
    wanted = [(each.item_key, each.parts) for each in score()]
    asked = small_memory(monkeypatch, 2)
    assert [(each.item_key, each.parts) for each in score()] == wanted
    assert max(asked) > 2


def test_an_item_that_alone_does_not_fit_into_the_memory_ends_the_run_with_the_cure(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = a_trainer(model).student(None)
    small_memory(monkeypatch, 0)
    with pytest.raises(StudentError, match=r"does not suffice for a single item .* lower student\.max_prompt_tokens"):
        student.predict([each.item for each in sums(4)])
