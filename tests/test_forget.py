"""A forgotten item is nowhere: not in a table, not in the bytes of a file, not on a board; everything else stays."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import text as text_of
from sqlmodel import SQLModel, func, select
from typer.testing import CliRunner, Result

from connectors import campaign, memory
from connectors.cli import app
from connectors.exports import Wanted, export
from connectors.forget import Forgetting
from connectors.progress import RichProgress
from connectors.report_page import write_report
from connectors.status import status
from connectors.wiring import Project
from loop.answer import Answer, AnswerKind
from loop.config import Config, TaskConfig
from loop.errors import PreceptorError, StoreUnusable
from loop.ports import Completion
from loop.records import (
    Author,
    Charge,
    Checkpoint,
    Contamination,
    Currency,
    DecisionKind,
    DemonstrationSet,
    Flag,
    Item,
    Prediction,
    Prompt,
    Rationale,
    Reply,
    Shadow,
    Split,
    Stage,
    Trial,
    Verdict,
    VerdictKind,
    Withdrawal,
)
from loop.records.student import Arm
from loop.records.teacher import TrialKind
from loop.store import checkpoints, exported, forgetting, items, rationales, reviews, rounds
from loop.store import database as database_of
from loop.store.database import Store
from loop.store.money import Purse
from review.desk import Desk
from review.fake_board import FakeBoard
from review.task import result
from tests import databases
from tests.builders import (
    NOON,
    RUN,
    a_campaign,
    a_reply,
    a_round,
    a_store,
    a_verdict,
    an_item,
    checked,
    decided,
    id_of,
    queried,
    sent_to_review,
)
from tests.tiny import tiny_project

QUESTION = (
    'Wie viele Äpfel hat "Frau O\'Neil" <nach dem Umzug>, wenn sie acht von ihnen noch am selben Abend verschenkt?'
)
LONG = " ".join(f"Am {number}. Tag kamen neue Gäste in das Haus." for number in range(1, 40))
STEP = 'Ihr bleiben "zwölf" Äpfel & eine Birne.'


def bytes_of(file: Path) -> bytes:
    """All that a database has on disk."""
    return b"".join(each.read_bytes() for each in sorted(file.parent.glob(f"{file.name}*")))


def everything(store: Store) -> str:
    """Every value of every table, as text."""
    with store.reading() as session:
        return "\n".join(
            repr(tuple(row)) for table in SQLModel.metadata.sorted_tables for row in session.execute(table.select())
        )


def counted(store: Store, model: type[SQLModel]) -> int:
    with store.reading() as session:
        return session.exec(select(func.count()).select_from(model)).one()


# --- in the database ------------------------------------------------------------------------------------------------


def known(store: Store) -> None:
    """Two items in all tables that can hold one: `a/1` is to be forgotten, `a/1/2` stays and was shown the first."""
    items.add(
        store,
        [an_item("a/1", question=QUESTION, context=LONG), an_item("a/1/2", question="Wie viele Birnen bleiben übrig?")],
    )
    opened = queried(store, a_round(store), ["a/1", "a/1/2"])
    first = a_reply(store, opened, "a/1", steps=[STEP], answer=12)
    second = a_reply(store, opened, "a/1/2", steps=["Es bleiben zwei."], answer=2)
    checked(store, first, 0.5, "it does not add up")
    checked(store, second, 0.2, f"the nearest is “{QUESTION[:79]}…”")
    sent_to_review(store, opened, ["a/1", "a/1/2"])
    a_verdict(store, first, VerdictKind.EDIT, steps=[STEP, "Das ist alles, was bleibt."])
    a_verdict(store, second, VerdictKind.ACCEPT)
    decided(store, opened, "a/1", DecisionKind.GOLD, first)
    decided(store, opened, "a/1/2", DecisionKind.GOLD, second)
    Purse(store, RUN).reserve(Currency.USD, "ask/1/a/1/0/1", 5)
    Purse(store, RUN).reserve(Currency.USD, "ask/1/a/1/2/0/1", 5)
    shown = {
        "messages": [{"role": "user", "content": f"Example:\n{LONG}\n{QUESTION}\n" + json.dumps([STEP])}],
        "model": "m",
    }
    member = {"key": "a/1", "steps": [STEP], "answer": "12"}
    trained = Checkpoint(
        run=RUN, round_id=id_of(opened), folder="round-1", examples=2, created_at=NOON,
        card={"validation_keys": ["a/1", "a/1/2"]},
    )  # fmt: skip
    number = checkpoints.keep(store, trained).id or 0
    with store.writing() as session:
        session.add(Prompt(hash="shows it", body=shown))
        session.flush()
        session.add_all(
            [
                Prediction(checkpoint_id=number, item_key="a/1", part="DEV", correct=True, steps=[STEP]),
                Trial(
                    run=RUN, round_id=id_of(opened), kind=TrialKind.DEV, item_key="a/1/2", prompt_hash="shows it",
                    model="m", text="Zwei.", finish_reason="stop", input_tokens=1, output_tokens=1, created_at=NOON,
                ),
                DemonstrationSet(
                    run=RUN, round_id=id_of(opened), hash="h",
                    groups=[[member, {**member, "key": "a/1/2", "steps": []}]],
                    taken=True, reason="", created_at=NOON,
                ),
                Shadow(
                    round_id=id_of(opened), pair=0, arm=Arm.CONTROL, asked=1, examples=1, micro_usd=1,
                    correct={"a/1": True, "a/1/2": False},
                ),
                Contamination(
                    digest="d", similarity=0.9, pool=1, holdout=1, pairs={"x": ["a/1", 0.95]}, looked_at=NOON
                ),
            ]
        )  # fmt: skip
    planted = Rationale(
        item_key="a/1", round_id=id_of(opened), author=Author.TEACHER, steps=[STEP], planted="sign", planted_from=first
    )
    doubted = Withdrawal(run=RUN, teacher_model="other", prompt_hash=prompt_of(store), reason="bad", withdrawn_at=NOON)
    with store.writing() as session:
        session.add_all([planted, doubted])
    rounds.enter(store, rounds.by_id(store, id_of(opened)), Stage.CLOSED, closed_at=NOON)


def prompt_of(store: Store) -> str:
    """The hash of the prompt by which the teacher was asked about `a/1`."""
    with store.reading() as session:
        return session.exec(select(Reply.prompt_hash).where(Reply.item_key == "a/1")).one()


def test_no_row_and_no_text_of_it_is_left_and_the_other_item_keeps_all_of_its_own(database: str) -> None:
    store = Store(database)
    store.migrate()
    with closing(store):
        known(store)
        item = items.get(store, "a/1")
        assert item is not None
        held = forgetting.held(store, item)
        assert held.shared == ()
        assert {QUESTION, STEP, LONG[:200]} <= set(held.texts)
        found, looked = forgetting.search(store, held.texts)
        assert {"item.question", "rationale.steps", "prompt.body", "flag.evidence", "verdict.steps"} <= found.keys()
        asked_by = prompt_of(store)
        before = {model: counted(store, model) for model in (Charge, Rationale, Flag)}
        forgetting.remove(store, "a/1", held.texts, taught=True)
        assert forgetting.search(store, held.texts) == ({}, looked)
        with store.reading() as session:
            assert session.get(Prompt, asked_by) is None
        left = everything(store)
        assert "a/1'" not in left.replace("a/1/2'", "")
        assert '"a/1"' not in left
        for text in (
            "Tag kamen",
            "Haus.",
            "Gäste",
            "G\\u00e4ste",
            "Äpfel",
            "acht von ihnen",
            "zwölf",
            "Das ist alles",
            "\\u00c4pfel",
        ):
            assert text not in left, text
        assert "Wie viele Birnen" in left
        store.compact()
        assert (before[Charge], before[Rationale] - 2, before[Flag] - 1) == tuple(
            counted(store, model) for model in (Charge, Rationale, Flag)
        )
        with store.reading() as session:
            purposes = set(session.exec(select(Charge.purpose)))
            (sets,) = session.exec(select(DemonstrationSet.groups))
            (card,) = session.exec(select(Checkpoint.card))
            body = session.exec(select(Prompt.body).where(Prompt.hash == "shows it")).one()
        assert {"ask/1/forgotten/0/1", "ask/1/a/1/2/0/1"} <= purposes
        assert [[each["key"] for each in group] for group in sets] == [["a/1/2"]]
        assert card["validation_keys"] == ["a/1/2"]
        assert body["messages"][0]["content"].startswith("Example:\n[forgotten]")


def test_what_other_items_say_too_is_not_looked_for_and_whose_it_is_is_told(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    items.add(
        store,
        [
            an_item("q1", question="Which of them is older?", context="They were all born in one year.\nShe in May."),
            an_item("q2", question="Who is it?", context="They were all born in one year."),
        ],
    )
    told = Config.model_validate({"task": {"instructions": "Be brief, please."}})
    first = queried(store, a_round(store, told), ["q1"])
    a_reply(store, first, "q1", steps=["Be brief, please.", "She was born first."], answer=1)
    item = items.get(store, "q1")
    assert item is not None
    held = forgetting.held(store, item)
    assert set(held.texts) == {"Which of them is older?", "She in May.", "She was born first."}
    assert held.shared == ("q2",)
    assert held.replies == ("raw reply",)
    a_reply(store, queried(store, a_round(store), ["q2"]), "q2", steps=["She was born first."], answer=1)
    again = forgetting.held(store, item)
    assert set(again.texts) == {"Which of them is older?", "She in May."}
    assert again.replies == ()


def test_answers_in_free_text_are_taken_out_of_prompts_that_show_them(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    free = Config(task=TaskConfig(answer=AnswerKind.TEXT))
    known_answer, corrected = (
        Answer(kind=AnswerKind.TEXT, value=f"anna maria schmidt, hauptstr. {number}").canonical for number in (5, 6)
    )
    items.add(store, [an_item("q1", Split.SEED, answer=known_answer), an_item("q2"), an_item("q3")])
    opened = queried(store, a_round(store, free), ["q1", "q2"])
    number = a_reply(store, opened, "q1", steps=["one"], answer=1, stated="Anna Maria Schmidt (Nr. 7)")
    a_verdict(store, number, VerdictKind.EDIT, answer=corrected)
    a_reply(store, opened, "q2", steps=["one"], answer=1)
    shown = "Answer: anna maria schmidt, hauptstr. 5\nanna maria schmidt, hauptstr. 6\nAnna Maria Schmidt (Nr. 7)"
    other = select(Reply.prompt_hash).where(Reply.item_key == "q2")
    with store.writing() as session:
        session.get_one(Prompt, session.exec(other).one()).body = {"messages": [{"role": "user", "content": shown}]}
    item = items.get(store, "q1")
    assert item is not None
    forgetting.remove(store, "q1", forgetting.held(store, item).texts, taught=False)
    with store.reading() as session:
        left = session.get_one(Prompt, session.exec(other).one()).body["messages"][0]["content"]
    assert left == "Answer: [forgotten]\n[forgotten]\n[forgotten]"


def test_the_key_does_not_stay_in_what_exports_were_filtered_by(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    items.add(store, [an_item("person/17"), an_item("person/170")])
    opened = queried(store, a_round(store), ["person/170"])
    decided(store, opened, "person/170", DecisionKind.GOLD, a_reply(store, opened, "person/170", steps=["s"], answer=1))
    export(store, RUN, tmp_path / "out", Wanted(where=("key!=person/17", "key=person/170")))
    assert forgetting.search(store, [], "person/17")[0] == {"item.key": 1, "export.filters": 1}
    forgetting.remove(store, "person/17", [], taught=False)
    assert [each.filters for each in exported.of_run(store, RUN)] == [["key!=forgotten", "key=person/170"]]
    assert forgetting.search(store, [], "person/17")[0] == {}
    assert forgetting.search(store, [], "person/170")[0].keys() >= {"item.key", "charge.purpose", "export.filters"}


def test_every_column_that_names_an_item_is_found_by_its_foreign_key() -> None:
    for table in SQLModel.metadata.sorted_tables:
        for column in table.columns:
            if column.name == "item_key":
                assert [each.target_fullname for each in column.foreign_keys] == ["item.key"], table.name


def test_the_search_finds_what_is_left_anywhere(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    with store.writing() as session:
        session.add(Withdrawal(run=RUN, reviewer="x", since=NOON, reason=f"of {STEP}", withdrawn_at=NOON))
    assert forgetting.search(store, [STEP])[0] == {"withdrawal.reason": 1}


@pytest.mark.sqlite("reads its file's bytes")
def test_deleted_bytes_stay_in_the_file_until_it_is_written_anew(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    items.add(store, [an_item(f"q{number}", question=f"What is the secret number {number}?") for number in range(200)])
    with store.writing() as session:
        session.delete(session.get_one(Item, "q117"))
    assert b"secret number 117?" in bytes_of(tmp_path / "store.db")
    store.compact()
    assert b"secret number 117?" not in bytes_of(tmp_path / "store.db")
    assert b"secret number 118?" in bytes_of(tmp_path / "store.db")


@pytest.mark.sqlite("there readers keep it from being written anew")
def test_a_database_that_others_read_is_not_called_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_of, "BUSY_SECONDS", 0.1)
    store = a_store(tmp_path)
    items.add(store, [an_item("q1")])
    with closing(sqlite3.connect(tmp_path / "store.db")) as other:
        other.execute("begin")
        other.execute("select * from item").fetchall()
        with pytest.raises(StoreUnusable, match="end other processes that use it"):
            store.compact()


def test_a_student_that_learned_it_is_not_trained_on_further(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    items.add(store, [an_item("q1"), an_item("q2")])
    forgetting.remove(store, "q1", [], taught=False)
    assert not forgetting.taught_since(store, NOON)
    forgetting.remove(store, "q2", [], taught=True)
    assert forgetting.taught_since(store, NOON)
    assert not forgetting.taught_since(store, NOON.replace(year=9999))


def test_what_people_say_of_it_while_it_is_forgotten_is_not_kept(tmp_path: Path) -> None:
    store, board = a_store(tmp_path), FakeBoard(tmp_path / "board.json", title="reviews")
    items.add(store, [an_item("a/1"), an_item("b")])
    opened = queried(store, a_round(store), ["a/1", "b"])
    numbers = [a_reply(store, opened, key, steps=[STEP], answer=12) for key in ("a/1", "b")]
    sent_to_review(store, opened, ["a/1", "b"])
    book = reviews.RunReviewBook(store, RUN)
    desk = Desk(lambda _: board, book, lambda _: {}, TaskConfig())
    desk.push(reviews.pending(store, id_of(opened)))
    for task in board.open_tasks():
        board.annotate(task.task, result(VerdictKind.EDIT, steps=[STEP]), seconds=1.0, unique_id=task.uid)
    forgetting.remove(store, "a/1", [], taught=False)
    assert book.forgotten({f"{RUN}/1/{end}" for end in ("a/1", "a/1/2", "a/1/again", "a/10", "b")}) == {
        f"{RUN}/1/a/1", f"{RUN}/1/a/1/2", f"{RUN}/1/a/1/again"
    }  # fmt: skip
    assert desk.pull() == 1
    a_verdict(store, numbers[0], VerdictKind.EDIT)  # looked up before
    with store.reading() as session:
        assert session.exec(select(Verdict.rationale_id)).all() == [numbers[1]]


# --- remembered replies ---------------------------------------------------------------------------------------------


def remember(file: Path, *texts: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(memory.TABLE)
        for number, text in enumerate(texts):
            stored = json.dumps(asdict(Completion(text, "m", "stop", 1, 1)))
            connection.execute("insert into reply values (?, ?, 'e', 'm', 0, '')", [str(number), stored])


def test_remembered_replies_about_something_are_gone_from_the_file_and_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "replies.db"
    remember(file, "Peter has three apples.", "She has four.")
    assert memory.forget(file, lambda text: "apples" in text) == 1
    assert b"apples" not in bytes_of(file)
    assert b"She has four." in bytes_of(file)
    assert memory.forget(file, lambda text: "apples" in text) == 0


def test_a_remembered_reply_that_holds_marks_for_what_was_hidden_is_known_by_the_rest(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    items.add(store, [an_item("q1", question="Who wrote it, jane@example.org?"), an_item("q2")])
    opened = queried(store, a_round(store), ["q1"])
    a_reply(store, opened, "q1", steps=["jane@example.org wrote."], answer=1)
    with store.writing() as session:
        session.execute(text_of("UPDATE reply SET text = '1. So jane@example.org wrote it.'"))
        session.execute(text_of("UPDATE round SET stage = 'CLOSED'"))
    store.close()
    config = '[run]\ndatabase = "sqlite:///store.db"\n[review]\nboard = "fake"\n[teacher]\nreplies = "replies.db"\n'
    (tmp_path / "config.toml").write_text(config + '[teacher.redact]\nkinds = ["email"]\n', encoding="utf-8")
    remembered = tmp_path / "replies.db"
    remember(remembered, "1. So [EMAIL_2] wrote it.", "1. So [EMAIL_1] read it.")
    done = preceptor("forget", "q1", "--apply", folder=tmp_path)
    assert done.exit_code == 0, done.output
    assert b"wrote it" not in bytes_of(remembered)
    assert b"read it" in bytes_of(remembered), "another's"


# --- the command ----------------------------------------------------------------------------------------------------


def preceptor(*words: str, folder: Path) -> Result:
    return CliRunner().invoke(app, [*words, "--config", str(folder / "config.toml")])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after a round, with a log, a report, an export, and what the student answers now."""
    folder = tmp_path_factory.mktemp("forget")
    config = tiny_project(folder, rounds=1)
    text = config.read_text(encoding="utf-8").replace('name = "tiny"\n', 'name = "tiny"\nlog = "events.jsonl"\n')
    config.write_text(text, encoding="utf-8")
    for split in ("holdout", "pool"):
        assert preceptor("ingest", str(folder / f"{split}.jsonl"), "--split", split, folder=folder).exit_code == 0
    assert preceptor("run", folder=folder).exit_code == 0
    project = Project(config, RichProgress(Console(quiet=True)))
    with closing(project.store) as store:
        export(store, "tiny", folder / "runs" / "dataset")
        write_report(store, "tiny", project.config, project.folder / "report.html")
        (project.folder / "student-answers").mkdir()
        answers = {accepted(folder): {"steps": [question(folder)], "answer": None}, "other": {}}
        (project.folder / "student-answers" / "1.json").write_text(json.dumps(answers), encoding="utf-8")
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "project"))


def rows(folder: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    return databases.rows(folder / "preceptor.db", query, *values)


def accepted(folder: Path) -> str:
    """An item that was reviewed, became gold and was learned."""
    query = (
        "select d.item_key from decision d join rationale r on r.item_key = d.item_key "
        "join reviewtask t on t.rationale_id = r.id where d.kind = 'GOLD' order by d.item_key"
    )
    return str(rows(folder, query)[0][0])


def question(folder: Path) -> str:
    return str(rows(folder, "select question from item where key = ?", accepted(folder))[0][0])


@pytest.mark.sqlite("reads its file's bytes")
def test_what_would_go_is_shown_and_nothing_is_changed(folder: Path) -> None:
    key, before = accepted(folder), bytes_of(folder / "preceptor.db")
    found = preceptor("forget", key, folder=folder)
    assert found.exit_code == 0, found.output
    for told in ("1 item", "1 query", "1 reply", "tasks on boards: 1", "tiny/round-1", "/runs/dataset"):
        assert told in found.output, told
    assert "pool.jsonl" in found.output
    assert "nothing was changed; --apply does it" in found.output
    assert rows(folder, "select count(*) from item") == [(20,)]
    assert question(folder).encode() in before
    assert not list((folder / "runs").glob("forget-*"))


def test_an_item_is_gone_from_everywhere_and_what_is_yours_is_named_until_you_delete_it(folder: Path) -> None:
    key, text = accepted(folder), question(folder)
    spent = rows(folder, "select count(*), sum(settled), sum(reserved) from charge")
    others = rows(folder, "select * from item where key != ? order by key", key)
    assert key in (folder / "events.jsonl").read_text()
    first = preceptor("forget", key, "--apply", folder=folder)
    assert first.exit_code == 1, first.output
    assert f"file {folder / 'runs/dataset/examples.jsonl'}" in first.output
    assert first.output.count("  file ") == 1, first.output
    shutil.rmtree(folder / "runs" / "dataset")
    second = preceptor("forget", key, "--apply", folder=folder)
    assert second.exit_code == 0, second.output
    assert "nothing is left" in second.output

    assert not list((folder / "runs").glob("forget-*"))
    assert text.encode() not in bytes_of(folder / "preceptor.db")
    assert f"/{key}/".encode() not in bytes_of(folder / "preceptor.db")
    assert rows(folder, "select count(*), sum(settled), sum(reserved) from charge") == spent
    assert rows(folder, "select * from item order by key") == others
    board = FakeBoard(folder / "runs" / "tiny" / "fake-board-tiny.json", title="Preceptor tiny")
    uids = [each.uid for each in board.listing(board.project())]
    assert uids
    assert f"tiny/1/{key}" not in uids
    assert not any(f'"{key}"' in line for line in (folder / "events.jsonl").read_text().splitlines())
    assert json.loads((folder / "runs/tiny/student-answers/1.json").read_text()) == {"other": {}}
    assert not (folder / "runs/tiny/report.html").exists()


def test_a_log_keeps_its_place_its_rights_and_every_line_about_other_things(folder: Path) -> None:
    key, log, elsewhere = accepted(folder), folder / "events.jsonl", folder / "logs.jsonl"
    other = json.dumps({"item": "other", "reason": "two\u2028lines\x85of it"}, ensure_ascii=False)
    split = json.dumps({"item": key, "reason": "one\u2028two"}, ensure_ascii=False)
    elsewhere.write_text(f"{other}\n{split}\n", encoding="utf-8")
    elsewhere.chmod(0o640)
    log.unlink()
    log.symlink_to(elsewhere)
    shutil.rmtree(folder / "runs" / "dataset")
    assert preceptor("forget", key, "--apply", folder=folder).exit_code == 0
    assert log.is_symlink()
    assert elsewhere.stat().st_mode & 0o777 == 0o640
    left = elsewhere.read_text(encoding="utf-8").split("\n")
    assert left[0] == other
    assert not any("one" in line for line in left)


def test_the_campaign_goes_on_without_it_and_it_is_not_taken_in_again(folder: Path) -> None:
    key = accepted(folder)
    shutil.rmtree(folder / "runs" / "dataset")
    assert preceptor("forget", key, "--apply", folder=folder).exit_code == 0
    again = preceptor("ingest", str(folder / "pool.jsonl"), "--split", "pool", folder=folder)
    assert again.exit_code == 1
    assert f"item '{key}' was forgotten on" in " ".join(again.output.split())
    assert rows(folder, "select count(*) from item") == [(19,)]
    project = Project(folder / "config.toml", RichProgress(Console(quiet=True)))
    with closing(project.store) as store:
        assert campaign.run(project, rounds_wanted=2, wait=False).outcome is campaign.Outcome.FINISHED
        assert key not in {row.item_key for row in rationales.of_round(store, 2)}
        assert status(store, "tiny", project.config)["items"]["holdout"] == 8
    told = preceptor("forget", key, folder=folder)
    assert "was forgotten on" in str(told.exception)


@pytest.mark.parametrize("place", ["_clear_caches", "remove"])
def test_what_was_cut_off_is_done_by_calling_it_again(
    folder: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, text = accepted(folder), question(folder)
    shutil.rmtree(folder / "runs" / "dataset")
    owner: Any = forgetting if place == "remove" else Forgetting

    def cut_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(owner, place, cut_off)
        project = Project(folder / "config.toml", RichProgress(Console(quiet=True)))
        with closing(project.store), pytest.raises(KeyboardInterrupt):
            Forgetting(project, key).apply()
    done = preceptor("forget", key, "--apply", folder=folder)
    assert (done.exit_code, "nothing is left" in done.output) == (0, True), done.output
    assert text.encode() not in bytes_of(folder / "preceptor.db")
    assert rows(folder, "select count(*) from item") == [(19,)]


def test_a_process_that_was_killed_between_deleting_and_writing_anew_leaves_the_rest_to_the_next(folder: Path) -> None:
    key, text = accepted(folder), question(folder)
    shutil.rmtree(folder / "runs" / "dataset")
    script = (
        "import os, signal, sys\n"
        "from connectors.cli import main\n"
        "from loop.store.database import Store\n"
        "Store.compact = lambda self: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"sys.argv = ['preceptor', 'forget', {key!r}, '--apply', '--config', {str(folder / 'config.toml')!r}]\n"
        "main()\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert rows(folder, "select count(*) from item") == [(19,)]
    done = preceptor("forget", key, "--apply", folder=folder)
    assert "nothing is left" in done.output
    assert text.encode() not in bytes_of(folder / "preceptor.db")


def test_an_unknown_key_is_answered_with_the_nearest(folder: Path) -> None:
    found = preceptor("forget", "i00", "--apply", folder=folder)
    assert isinstance(found.exception, PreceptorError)
    assert "i00: no such item; did you mean i0?" in str(found.exception)


def test_an_item_that_an_open_round_works_on_is_kept_with_the_cure(folder: Path) -> None:
    project = Project(folder / "config.toml", RichProgress(Console(quiet=True)))
    with closing(project.store) as store:
        free = next(key for key in items.unasked(store) if key.startswith("i"))
        opened = queried(store, a_round(store, Config(), run="tiny"), [free])
        with pytest.raises(PreceptorError, match=r"round 2 of run tiny works on .* `preceptor run`") as told:
            Forgetting(project, free)
        assert f"(stage {opened.stage})" in str(told.value)
        assert items.get(store, free) is not None


def test_a_run_at_work_is_not_disturbed(folder: Path) -> None:
    script = (
        "import sys, time\nfrom loop.store import claims\nfrom loop.store.database import Store\n"
        f"store = Store('sqlite:///{folder / 'preceptor.db'}')\n"
        "with claims.holding(store, 'tiny', 'run', 'tiny', lease_seconds=60):\n    print('at work', flush=True)\n"
        "    time.sleep(60)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline() == "at work\n"
        found = preceptor("forget", accepted(folder), "--apply", folder=folder)
        assert "run tiny is being worked on by process" in str(found.exception)
        assert rows(folder, "select count(*) from item") == [(20,)]
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()


def test_tasks_on_another_board_than_the_configs_are_not_passed_over(folder: Path) -> None:
    databases.change(folder / "preceptor.db", "update reviewtask set board = 'label-studio http://old'")
    found = preceptor("forget", accepted(folder), "--apply", folder=folder)
    assert "stand on label-studio http://old, and the config names fake" in str(found.exception)
    assert rows(folder, "select count(*) from item") == [(20,)]


def test_an_item_that_nobody_asked_goes_too(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    a_campaign(store)
    store.close()
    (tmp_path / "config.toml").write_text('[run]\ndatabase = "sqlite:///store.db"\n[review]\nboard = "fake"\n')
    done = preceptor("forget", "q7", "--apply", folder=tmp_path)
    assert done.exit_code == 0, done.output
    assert b"What is q7?" not in bytes_of(tmp_path / "store.db")
    assert databases.rows(tmp_path / "store.db", "select digest from forgotten") == [(forgetting.digest("q7"),)]
