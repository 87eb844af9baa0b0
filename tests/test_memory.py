"""Remembered replies cost nothing, are used only for what they were given for, and lose nothing when files break."""

import asyncio
import multiprocessing
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from connectors import campaign
from connectors.history import history, history_text
from connectors.memory import RememberingTeacher
from connectors.recorded_teacher import Fault, RecordedTeacher, Recording, read_recordings, running
from connectors.sources import ingest
from connectors.wiring import Project
from loop.config import TeacherConfig
from loop.errors import BadConfig, TeacherRefused
from loop.plain import storable
from loop.ports import Completion, Request
from loop.records import Charge, Reply, Split
from loop.records.teacher import ReplyState
from loop.store import reading
from tests.test_ask import RICH, Book, an_item, asking, recorded, run
from tests.test_judge import a_project
from tests.test_teacher import answering, http
from tests.tiny import tiny_project

REQUEST = Request(
    model="recorded",
    messages=({"role": "user", "content": "How many?"},),
    temperature=0.0,
    max_completion_tokens=100,
    seed=0,
    item_key="a",
)
SAID = [Recording(key="a", question="How many?", text=text, sample=at) for at, text in enumerate(("two", "three"))]


def a_teacher(
    address: str,
    file: Path,
    *,
    asked: Callable[[str], int] = lambda _: 0,
    said: list[str] | None = None,
    **more: object,
) -> RememberingTeacher:
    settings = {"max_completion_tokens": 100, "model": "recorded", "timeout": 5.0, **more}
    config = TeacherConfig(**{"base_url": address, **settings})
    return RememberingTeacher(config, file, asked=asked, say=(said if said is not None else []).append)


def completed(teacher: RememberingTeacher, request: Request = REQUEST) -> Completion:
    return asyncio.run(teacher.complete(request))


def test_same_request_of_another_client_is_remembered_with_its_origin(tmp_path: Path) -> None:
    with running(RecordedTeacher(SAID)) as address:
        given = completed(a_teacher(address, tmp_path / "replies.db"))
        known = a_teacher(address, tmp_path / "replies.db").recall(replace(REQUEST, item_key="another key"))
    assert known is not None
    assert known.completion == given
    assert known.origin.startswith(f"{address}, 20")


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, model="another"),
        replace(REQUEST, messages=({"role": "user", "content": "How many more?"},)),
        replace(REQUEST, temperature=0.1),
        replace(REQUEST, schema={"type": "object"}),
        replace(REQUEST, seed=1),
        replace(REQUEST, sample=1),
    ],
)
def test_whatever_shapes_a_reply_makes_it_another(other: Request, tmp_path: Path) -> None:
    with running(RecordedTeacher(SAID)) as address:
        teacher = a_teacher(address, tmp_path / "replies.db")
        completed(teacher)
        assert teacher.recall(REQUEST) is not None
        assert teacher.recall(other) is None


def test_another_endpoint_and_another_longest_reply_ask_again(tmp_path: Path) -> None:
    file = tmp_path / "replies.db"
    with running(RecordedTeacher(SAID)) as address:
        completed(a_teacher(address, file))
        assert a_teacher("http://127.0.0.1:9/v1", file).recall(REQUEST) is None
        assert a_teacher(address, file, max_completion_tokens=50).recall(REQUEST) is None


def test_above_temperature_zero_whoever_asks_again_gets_the_next_reply(tmp_path: Path) -> None:
    warm, times = replace(REQUEST, temperature=1.0), [0]
    with running(RecordedTeacher(SAID)) as address:
        teacher = a_teacher(address, tmp_path / "replies.db", asked=lambda _: times[0])
        completed(teacher, warm)
        times[0] = 1
        assert teacher.recall(warm) is None
        completed(teacher, warm)
        assert teacher.recall(warm) is not None


def test_reply_that_a_shorter_limit_cut_off_is_not_remembered_and_one_that_ended_by_itself_is(tmp_path: Path) -> None:
    short = replace(REQUEST, max_completion_tokens=20)
    with running(RecordedTeacher(SAID, [Fault(kind="cut_off")])) as address:
        teacher = a_teacher(address, tmp_path / "replies.db")
        assert completed(teacher, short).finish_reason == "length"
        assert teacher.recall(REQUEST) is None
        assert completed(teacher, short).finish_reason == "stop"
        assert teacher.recall(REQUEST) is not None


@pytest.mark.parametrize("text", [r"\ud800 half \u0000 zero", r"{\"a\": 1}", "", "日本語" * 1000])
def test_any_text_is_remembered(text: str, tmp_path: Path) -> None:
    body = f'{{"choices": [{{"message": {{"content": "{text}"}}, "finish_reason": "stop"}}]}}'
    with answering(http(body)) as address:
        teacher = a_teacher(address, tmp_path / "replies.db")
        given = completed(teacher)
    known = teacher.recall(REQUEST)
    assert known is not None
    assert storable(known.completion.text) == storable(given.text)


# --- files ----------------------------------------------------------------------------------------------------------


def test_file_and_messages_hold_no_key_and_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret-key")
    file = tmp_path / "replies.db"
    with running(RecordedTeacher(SAID)) as address:
        teacher = a_teacher(address.replace("http://", "http://ann:s3cret-word@"), file)
        completed(teacher)
        with pytest.raises(TeacherRefused) as caught:
            completed(teacher, replace(REQUEST, model="another"))
    assert b"two" in file.read_bytes()
    assert b"s3cret" not in file.read_bytes()
    assert "s3cret" not in str(caught.value)


def test_file_that_is_something_else_names_the_key_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("dear diary " * 100)
    with pytest.raises(BadConfig, match=r"teacher\.replies: .*notes\.txt: file is not a database"):
        a_teacher("http://127.0.0.1:9/v1", file)
    with pytest.raises(BadConfig, match=r"teacher\.replies: .*unable to open"):
        a_teacher("http://127.0.0.1:9/v1", tmp_path / "no folder" / "replies.db")
    assert file.read_text().startswith("dear diary")


def test_reply_that_was_paid_for_is_not_lost_with_the_file(tmp_path: Path) -> None:
    file, said = tmp_path / "replies.db", []
    with running(RecordedTeacher(SAID)) as address:
        teacher = a_teacher(address, file, said=said)
        file.write_bytes(b"torn" * 1000)
        assert completed(teacher).text == "two"
    assert len(said) == 1
    assert "not remembered: teacher.replies" in said[0]


def test_write_that_was_torn_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    file = tmp_path / "replies.db"
    with running(RecordedTeacher(SAID)) as address:
        teacher = a_teacher(address, file)
        completed(teacher)
        cut_off = sqlite3.connect(file)
        cut_off.execute("begin immediate")
        cut_off.execute("delete from reply")
        cut_off.close()
        assert teacher.recall(REQUEST) is not None


def remember_many(address: str, file: Path, first: int) -> None:
    """Forty requests of one process."""
    teacher = a_teacher(address, file)
    for number in range(first, first + 40):
        completed(teacher, replace(REQUEST, messages=({"role": "user", "content": f"How many? {number}"},)))


@pytest.mark.slow
def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    file = tmp_path / "replies.db"
    with running(RecordedTeacher(SAID)) as address:
        spawned = multiprocessing.get_context("spawn")
        both = [spawned.Process(target=remember_many, args=(address, file, first)) for first in (0, 20)]
        for each in both:
            each.start()
        for each in both:
            each.join(120)
        assert [each.exitcode for each in both] == [0, 0]
    with sqlite3.connect(file) as database:
        assert database.execute("select count(*) from reply").fetchone() == (60,)


# --- asking ---------------------------------------------------------------------------------------------------------


def test_remembered_reply_is_kept_with_a_charge_of_nothing(tmp_path: Path) -> None:
    items = [an_item(number) for number in range(3)]
    server = recorded(items)
    books = [Book(), Book(limit=0)]
    with running(server) as address:
        for book in books:
            config = TeacherConfig(
                base_url=address, model="recorded", input_price=1.0, output_price=2.0, temperature=1.0
            )
            teacher = RememberingTeacher(config, tmp_path / "replies.db", asked=lambda _: 0, say=print)
            asyncio.run(asking(items, config, book, samples=2, teacher=teacher))
    assert len(server.served) == 6
    assert books[0].spent > 0
    assert (books[1].spent, len(books[1].replies)) == (0, 6)
    for at, reply in books[1].replies.items():
        paid = books[0].replies[at]
        assert (reply.text, reply.prompt_hash, reply.input_tokens) == (paid.text, paid.prompt_hash, paid.input_tokens)
        assert reply.remembered is not None
        assert reply.remembered.startswith(address)
        assert paid.remembered is None
        assert reply.saved == books[0].charges[paid.charge_id or 0].settled


def test_without_a_memory_nothing_is_remembered() -> None:
    book = Book()
    run([an_item(1)], book)
    assert book.limit == RICH
    assert [reply.remembered for reply in book.replies.values()] == [None]


# --- campaigns ------------------------------------------------------------------------------------------------------


def a_campaign(folder: Path, address: str, **changes: str) -> Project:
    """A finished campaign of the tiny project, asking the endpoint, on a database of its own."""
    config = tiny_project(folder)
    text = config.read_text().replace(
        'recorded = "recorded.jsonl"',
        f'base_url = "{address}"\nreplies = "../replies.db"\nsamples = 2\ntemperature = 0.7',
    )
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    project = a_project(config)
    for split in (Split.HOLDOUT, Split.POOL):
        settings = {"pool": project.config.pool, "task": project.config.task, "progress": project.progress}
        assert not ingest([folder / f"{split}.jsonl"], project.store, split=split, **settings).bad
    assert campaign.run(project, rounds_wanted=2, wait=False).outcome is campaign.Outcome.FINISHED
    return project


def everything(project: Project) -> list[tuple[object, ...]]:
    """What was decided, in its order."""
    store = project.store
    return [(each.item_key, each.kind, each.reason, each.round_id) for each in reading.decisions_of(store, "tiny")]


def table(project: Project, noun: type[Charge] | type[Reply]) -> list[Charge | Reply]:
    with project.store.reading() as session:
        return list(session.exec(reading.select(noun)).all())


def test_a_replay_needs_no_budget(tmp_path: Path) -> None:
    server = RecordedTeacher(read_recordings(tiny_project(tmp_path / "rows").parent / "recorded.jsonl"))
    with running(server) as address:
        for name, usd in (("paid", 1.0), ("again", 0.0)):
            config = tiny_project(tmp_path / name, rounds=1, usd=usd)
            asked = f'base_url = "{address}"\nreplies = "../replies.db"'
            text = config.read_text().split("[simulated_reviewer]")[0]
            config.write_text(text.replace('recorded = "recorded.jsonl"', asked))
            project = a_project(config)
            settings = {"pool": project.config.pool, "task": project.config.task, "progress": project.progress}
            ingest([config.parent / "pool.jsonl"], project.store, split=Split.POOL, **settings)
            assert campaign.run(project, rounds_wanted=1, wait=False).outcome is campaign.Outcome.WAITS
            replies = table(project, Reply)
            assert [each.remembered is not None for each in replies] == [name == "again"] * 6
            project.store.close()


@pytest.mark.slow
def test_campaign_on_a_new_database_asks_nothing_pays_nothing_and_decides_the_same(tmp_path: Path) -> None:
    server = RecordedTeacher(read_recordings(tiny_project(tmp_path / "rows").parent / "recorded.jsonl"))
    with running(server) as address:
        paid = a_campaign(tmp_path / "paid", address)
        asked = len(server.served)
        again = a_campaign(tmp_path / "again", address)
        assert len(server.served) == asked > 0
        assert everything(again) == everything(paid) != []
        assert reading.spent_by_query(again.store, "tiny") == reading.spent_by_query(paid.store, "tiny")

        assert sum(each.settled for each in table(paid, Charge) if each.currency == "usd") > 0
        assert {each.settled for each in table(again, Charge) if each.currency == "usd"} == {0}
        assert {each.state for each in table(again, Reply)} == {ReplyState.READABLE}
        found = history(again.store, "tiny", "i1")
        assert found["replies"][0]["remembered"].startswith(address)
        told = "\n".join(str(part) for part in history_text(found).renderables)
        assert f"$0.000000, remembered from {address}" in told

        other = a_campaign(tmp_path / "other", address, told=('answer = "number"', 'answer = "number"\nmax_steps = 3'))
        assert len(server.served) == 2 * asked
    for project in (paid, again, other):
        project.store.close()
