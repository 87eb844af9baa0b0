"""What the store keeps, and that it keeps it whole."""

import gc
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, timedelta
from pathlib import Path
from threading import Barrier
from time import monotonic

import pytest
from sqlalchemy import event, exc
from sqlmodel import select, text

from loop.answer import Answer, AnswerKind
from loop.config import Config, QueryConfig
from loop.errors import StageMoved, StoreUnusable
from loop.ports import AskBook, ReviewBook
from loop.records import (
    Author,
    Charge,
    ChargeState,
    Checkpoint,
    ConfigRow,
    Currency,
    Decision,
    DecisionKind,
    Flag,
    Item,
    Part,
    Prediction,
    Prompt,
    Query,
    Rationale,
    Reply,
    ReviewTask,
    Risk,
    Round,
    Score,
    Split,
    Stage,
    Verdict,
    VerdictKind,
)
from loop.store import asking, checkpoints, database, decisions, items, pool, rationales, reviews, rounds
from loop.store.asking import RoundAskBook
from loop.store.database import MANY_ROWS, Store, bulk, now
from loop.store.money import Purse
from loop.store.reviews import RunReviewBook
from tests.builders import a_store

RUN = "demo"
MINUTE = 1_000_000
FOUR = Answer(kind=AnswerKind.NUMBER, value="4")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = a_store(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def purse(store: Store) -> Purse:
    opened = Purse(store, RUN)
    opened.open(1000, 3 * MINUTE)
    return opened


def an_item(key: str, *, split: Split = Split.POOL, part: Part | None = None, question: str = "Why?") -> Item:
    return Item(key=key, question=question, split=split, part=part, text_hash=f"hash of {key}")


def a_round(store: Store, *keys: str) -> Round:
    """The next round of the run; it queries the keys, which become items."""
    items.add(store, [an_item(key) for key in keys])
    opened = rounds.open_round(store, RUN, {"run": {"name": RUN}})
    queries = [a_query(opened, key, position) for position, key in enumerate(keys)]
    return rounds.enter(store, opened, Stage.ASK, queries)


def a_query(opened: Round, key: str, position: int = 0) -> Query:
    return Query(round_id=opened.id, item_key=key, position=position, arm="random")


def a_prompt(name: str = "prompt") -> Prompt:
    return Prompt(hash=name, body={"model": "teacher"})


def a_reply(opened: Round, key: str, *, sample: int = 0) -> Reply:
    return Reply(
        round_id=opened.id,
        item_key=key,
        sample=sample,
        prompt_hash="prompt",
        model="teacher",
        text="1. two and two\nAnswer: 4",
        finish_reason="stop",
        input_tokens=10,
        output_tokens=5,
        created_at=now(),
    )


def a_rationale(opened: Round, key: str, *, sample: int = 0, author: Author = Author.TEACHER) -> Rationale:
    return Rationale(
        item_key=key, round_id=opened.id, author=author, sample=sample, steps=["two and two"], answer=FOUR.canonical
    )


def a_stored_rationale(store: Store, opened: Round, key: str, *, sample: int = 0) -> Rationale:
    kept = a_rationale(opened, key, sample=sample)
    with store.writing() as session:
        session.add(kept)
    return kept


def a_decision(opened: Round, key: str, kind: DecisionKind, rationale: Rationale | None = None) -> Decision:
    return Decision(
        run=RUN,
        item_key=key,
        round_id=opened.id,
        rationale_id=rationale.id if rationale else None,
        kind=kind,
        reason="because",
        decided_at=now(),
    )


def a_verdict(
    rationale: Rationale,
    *,
    annotation: str = "1",
    updated_at: str = "2026-01-01T00:00:00.000001Z",
    kind: VerdictKind | None = VerdictKind.ACCEPT,
    seconds: float = 30,
    reviewer: str = "ann",
) -> Verdict:
    return Verdict(
        board="fake",
        project="1",
        annotation=annotation,
        updated_at=updated_at,
        rationale_id=rationale.id,
        reviewer=reviewer,
        kind=kind,
        seconds=seconds,
        raw={"as": "it came"},
        pulled_at=now(),
    )


def everything(store: Store, model: type) -> list[object]:
    with store.reading() as session:
        return list(session.exec(select(model)))


# --- the database ---------------------------------------------------------------------------------------------------


@pytest.mark.sqlite("it is set up by pragmas")
def test_commits_reach_the_disk_and_references_are_checked(store: Store) -> None:
    with store.reading() as session:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        found = [session.connection().execute(text(f"PRAGMA {name}")).scalar_one() for name in pragmas]
    assert found[:3] == ["wal", 2, 1]
    assert found[3] >= 30_000


def test_connections_end_with_the_store_that_made_them(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    assert pool.count(store, RUN, Config()) == 0
    engine = store._engine
    before = engine.pool
    assert before.checkedin() == 1
    del store
    gc.collect()
    assert engine.pool is not before
    assert before.checkedin() == 0


def test_a_store_may_be_closed_while_a_connection_is_given_back(store: Store) -> None:
    event.listen(store._engine, "checkin", lambda *_: store.close(), insert=True)
    with store.reading() as session:
        session.exec(select(Item)).all()
    with store.reading() as session:  # and a reader that comes later opens one of its own, which ends with it
        session.exec(select(Item)).all()
    assert store._engine.pool.checkedin() == 0  # type: ignore[attr-defined]


def test_a_connection_that_a_thread_still_used_when_the_store_was_closed_ends_too(store: Store) -> None:
    driven = []
    with closing(store._engine.connect()) as connection:
        driven.append(connection.connection.dbapi_connection)
        store.close()
    with pytest.raises(store._engine.dialect.loaded_dbapi.Error, match="closed"):
        driven[0].cursor()
    assert items.count(store) == {}


def test_a_thread_waits_for_a_connection_as_long_as_one_waits_for_the_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    hurried = Store(store.url)
    with ExitStack() as held, closing(hurried):
        for _ in range(15):
            held.enter_context(hurried.reading()).connection()
        started = monotonic()
        with pytest.raises(exc.TimeoutError), hurried.reading() as session:
            session.connection()
        assert monotonic() - started < 10


@pytest.mark.sqlite("there one writer keeps the others out")
def test_what_a_writer_reads_cannot_change_until_it_commits(store: Store, tmp_path: Path) -> None:
    rival = sqlite3.connect(tmp_path / "store.db", timeout=0)
    with store.writing() as session:
        assert session.get(Item, "a") is None
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            rival.execute("BEGIN IMMEDIATE")
    rival.execute("BEGIN IMMEDIATE")
    rival.close()


def test_a_reader_sees_the_last_commit_while_another_writes(store: Store) -> None:
    items.add(store, [an_item("a")])
    with store.writing() as session:
        session.add(an_item("b"))
        session.flush()
        assert items.get(store, "b") is None
        assert items.get(store, "a") is not None
    assert items.get(store, "b") is not None


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    def fail_half_way() -> None:
        with store.writing() as session:
            session.add(an_item("a"))
            session.flush()
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert items.count(store) == {}


def test_times_come_back_aware_and_in_utc(store: Store) -> None:
    opened = rounds.open_round(store, RUN, {})
    read = rounds.current(store, RUN)
    assert read is not None
    assert read.opened_at == opened.opened_at
    assert read.opened_at.utcoffset() == timedelta(0)
    assert read.opened_at.tzinfo is UTC


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'missing' / 'store.db'}")
    with pytest.raises(StoreUnusable, match=r"missing.*unable to open database file.*run\.database"):
        store.migrate()
    store.close()


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n" * 500)
    store = Store(f"sqlite:///{path}")
    with pytest.raises(StoreUnusable, match="file is not a database"):
        store.migrate()
    store.close()
    assert path.read_text() == "my notes\n" * 500


def test_a_database_of_a_newer_version_is_refused(store: Store) -> None:
    with store.writing() as session:
        session.connection().execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnusable, match="newer version"):
        store.migrate()


@pytest.mark.sqlite("the disk is the file's")
def test_a_full_disk_is_said_and_loses_nothing_that_was_there(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from loop.errors import StoreUnusable
from loop.config import Config, QueryConfig
from loop.records import Item, Split
from loop.store import items
from loop.store.database import Store

store = Store(sys.argv[1])
store.migrate()
items.add(store, [Item(key="before", question="?", split=Split.POOL, text_hash="1")])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    items.add(store, [Item(key="after", question="?" * (4 << 20), split=Split.POOL, text_hash="2")])
except StoreUnusable as error:
    print(error)
"""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    done = subprocess.run([sys.executable, "-c", script, url], capture_output=True, text=True, check=True, timeout=60)
    assert "that the disk has room" in done.stdout
    store = Store(url)
    assert set(items.existing(store, ["before", "after"])) == {"before"}
    store.close()


# --- items ----------------------------------------------------------------------------------------------------------


def test_an_item_is_added_once(store: Store) -> None:
    assert items.add(store, [an_item("a", question="first"), an_item("b"), an_item("a", question="second")]) == 2
    assert items.add(store, [an_item("a", question="third"), an_item("c")]) == 1
    assert [item.question for item in items.of_split(store, Split.POOL)] == ["first", "Why?", "Why?"]


def test_items_are_found_by_key_hash_split_and_part(store: Store) -> None:
    dev = an_item("dev", split=Split.HOLDOUT, part=Part.DEV)
    test = an_item("test", split=Split.HOLDOUT, part=Part.TEST)
    items.add(store, [an_item("b"), test, dev, an_item("a")])
    assert [item.key for item in items.of_split(store, Split.HOLDOUT)] == ["dev", "test"]
    assert [item.key for item in items.of_split(store, Split.HOLDOUT, Part.TEST)] == ["test"]
    assert items.count(store) == {Split.POOL: 2, Split.HOLDOUT: 2}
    assert set(items.existing(store, ["a", "unknown"])) == {"a"}
    assert {each: item.key for each, item in items.by_hash(store, ["hash of a", "?"]).items()} == {"hash of a": "a"}
    assert items.get(store, "unknown") is None


def test_thousands_of_keys_are_looked_up_at_once(store: Store) -> None:
    keys = [f"item-{number:05d}" for number in range(3000)]
    items.add(store, [an_item(key) for key in keys])
    assert list(items.existing(store, keys)) == keys


def test_items_for_which_money_was_short_were_not_asked(store: Store) -> None:
    for _ in range(2):
        opened = a_round(store, "sent", "unsent", "unread")
        book = asking.RoundAskBook(store, RUN, opened.id or 0)
        book.give_up("unsent", "budget of round 1 spent")
        book.give_up("unread", "the reply states no answer")
    assert [*pool.keys(store, RUN, Config())] == ["unsent"]
    assert pool.count(store, RUN, Config()) == 1


def test_items_that_are_settled_or_asked_out_are_not_eligible(store: Store) -> None:
    keys = ("gold", "silver", "rejected", "undecided", "twice")
    first = a_round(store, *keys)
    items.add(store, [an_item("fresh"), an_item("held", split=Split.HOLDOUT)])
    kept = a_stored_rationale(store, first, "gold")
    kinds = [DecisionKind.GOLD, DecisionKind.SILVER, DecisionKind.REJECTED, DecisionKind.UNDECIDED]
    decisions.keep(store, [a_decision(first, key, kind, kept) for key, kind in zip(keys, kinds, strict=False)])
    a_round(store, "twice")
    assert [*pool.keys(store, RUN, Config())] == ["fresh", "rejected", "undecided"]
    assert [*pool.keys(store, RUN, Config(query=QueryConfig(max_asks=1)))] == ["fresh"]
    assert [*pool.keys(store, "another run", Config())] == sorted([*keys, "fresh"])


def test_the_newest_decision_says_whether_an_item_is_settled(store: Store) -> None:
    first = a_round(store, "a")
    decisions.keep(store, [a_decision(first, "a", DecisionKind.SILVER)])
    second = a_round(store)
    decisions.keep(store, [a_decision(second, "a", DecisionKind.REJECTED)])
    assert [*pool.keys(store, RUN, Config())] == ["a"]


# --- rounds ---------------------------------------------------------------------------------------------------------


def test_rounds_are_numbered_by_run_and_keep_their_config(store: Store) -> None:
    first = rounds.open_round(store, RUN, {"b": 1, "a": 2})
    second = rounds.open_round(store, RUN, {"a": 2, "b": 1})
    third = rounds.open_round(store, RUN, {"a": 3})
    elsewhere = rounds.open_round(store, "another", {"a": 3})
    assert [each.number for each in rounds.all_rounds(store, RUN)] == [1, 2, 3]
    assert elsewhere.number == 1
    assert first.config_hash == second.config_hash != third.config_hash == elsewhere.config_hash
    assert rounds.config_of(store, third) == {"a": 3}
    assert len(everything(store, ConfigRow)) == 2
    assert rounds.current(store, RUN) == third
    assert rounds.current(store, "unknown") is None


def test_a_stage_ends_with_its_rows_changes_and_move_together(store: Store) -> None:
    items.add(store, [an_item("a"), an_item("b")])
    opened = rounds.open_round(store, RUN, {})
    batch = [a_query(opened, "b", 1), a_query(opened, "a", 0)]
    moved = rounds.enter(store, opened, Stage.ASK, batch, selection="at random")
    assert (moved.stage, moved.selection) == (Stage.ASK, "at random")
    assert rounds.current(store, RUN) == moved
    assert [query.item_key for query in rounds.queries(store, moved.id)] == ["a", "b"]


def test_a_second_mover_is_refused_and_its_rows_with_it(store: Store) -> None:
    items.add(store, [an_item("a"), an_item("b")])
    opened = rounds.open_round(store, RUN, {})
    rounds.enter(store, opened, Stage.ASK, [a_query(opened, "a")])
    with pytest.raises(StageMoved, match="round 1 has left the stage select"):
        rounds.enter(store, opened, Stage.ASK, [a_query(opened, "b")], selection="late")
    assert [query.item_key for query in rounds.queries(store, opened.id)] == ["a"]
    assert rounds.current(store, RUN).selection == ""


def test_of_many_movers_at_once_one_moves(store: Store) -> None:
    opened = rounds.open_round(store, RUN, {})
    start = Barrier(8)

    def move(number: int) -> bool:
        start.wait()
        try:
            rounds.enter(store, opened, Stage.ASK, selection=str(number))
        except StageMoved:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(move, range(8))) == 1


def test_a_row_that_cannot_be_stored_keeps_the_stage_where_it_is(store: Store) -> None:
    opened = rounds.open_round(store, RUN, {})
    with pytest.raises(exc.IntegrityError):
        rounds.enter(store, opened, Stage.ASK, [a_query(opened, "no such item")])
    assert rounds.current(store, RUN).stage is Stage.SELECT


def test_scores_are_kept_chunk_by_chunk(store: Store) -> None:
    opened = a_round(store, "a", "b", "c")
    chunks = {0: ["c", "a"], 2: ["b"]}
    for chunk, keys in chunks.items():
        rows = [Score(round_id=opened.id, item_key=key, chunk=chunk, score=0.5, parts={"intra": 1.0}) for key in keys]
        rounds.keep_scores(store, rows)
    assert rounds.scored_chunks(store, opened.id) == {0, 2}
    assert [score.item_key for score in rounds.scores(store, opened.id)] == ["a", "b", "c"]
    assert rounds.scores(store, opened.id)[0].parts == {"intra": 1.0}


def test_a_chunk_is_kept_whole_or_not_at_all(store: Store) -> None:
    opened = a_round(store, "a", "b")
    rows = [Score(round_id=opened.id, item_key=key, chunk=0, score=0.5) for key in ("a", "no such item")]
    with pytest.raises(exc.IntegrityError):
        rounds.keep_scores(store, rows)
    assert rounds.scored_chunks(store, opened.id) == set()


# --- asking ---------------------------------------------------------------------------------------------------------


def test_only_what_the_store_lacks_is_asked(store: Store, purse: Purse) -> None:
    opened = a_round(store, "b", "a", "c")
    book: AskBook = RoundAskBook(store, RUN, opened.id)
    book.keep(book.reserve("ask", 10), 4, a_prompt(), a_reply(opened, "b", sample=1), None)
    book.give_up("a", "refused by the filter")
    todo = [(query.item_key, item.key, sample) for query, item, sample in asking.missing(store, opened.id, 2)]
    assert todo == [("b", "b", 0), ("c", "c", 0), ("c", "c", 1)]


def test_a_reply_is_kept_with_its_settlement_prompt_and_rationale(store: Store, purse: Purse) -> None:
    opened = a_round(store, "a")
    book = RoundAskBook(store, RUN, opened.id)
    charge = book.reserve("ask/1/a/0", 100)
    book.keep(charge, 40, a_prompt(), a_reply(opened, "a"), a_rationale(opened, "a"))
    (reply,) = everything(store, Reply)
    (rationale,) = rationales.of_round(store, opened.id)
    assert (reply.charge_id, rationale.reply_id) == (charge, reply.id)
    balance = purse.balances()[Currency.USD]
    assert (balance.spent, balance.reserved) == (40, 0)
    assert asking.missing(store, opened.id, 1) == []


def test_a_second_reply_for_one_place_is_refused_whole(store: Store, purse: Purse) -> None:
    opened = a_round(store, "a")
    book = RoundAskBook(store, RUN, opened.id)
    book.keep(book.reserve("ask", 100), 40, a_prompt(), a_reply(opened, "a"), a_rationale(opened, "a"))
    again = book.reserve("ask", 100)
    with pytest.raises(exc.IntegrityError):
        book.keep(again, 50, a_prompt("another"), a_reply(opened, "a"), a_rationale(opened, "a"))
    assert (len(everything(store, Reply)), len(everything(store, Rationale))) == (1, 1)
    assert [prompt.hash for prompt in everything(store, Prompt)] == ["prompt"]
    balance = purse.balances()[Currency.USD]
    assert (balance.spent, balance.reserved) == (40, 100)


def test_a_reply_whose_rationale_cannot_be_stored_is_not_settled(store: Store, purse: Purse) -> None:
    opened = a_round(store, "a")
    book = RoundAskBook(store, RUN, opened.id)
    charge = book.reserve("ask", 100)
    with pytest.raises(exc.IntegrityError):
        book.keep(charge, 40, a_prompt(), a_reply(opened, "a"), a_rationale(opened, "no such item"))
    assert everything(store, Reply) == everything(store, Prompt) == []
    assert purse.balances()[Currency.USD].reserved == 100
    book.keep(charge, 40, a_prompt(), a_reply(opened, "a"), a_rationale(opened, "a"))
    assert purse.balances()[Currency.USD].spent == 40


def test_a_reply_is_not_paid_from_a_charge_that_is_closed(store: Store, purse: Purse) -> None:
    opened = a_round(store, "a")
    book = RoundAskBook(store, RUN, opened.id)
    charge = book.reserve("ask", 100)
    book.assume(charge)
    with pytest.raises(ValueError, match="closed already"):
        book.keep(charge, 40, a_prompt(), a_reply(opened, "a"), None)
    assert everything(store, Reply) == []
    assert purse.balances()[Currency.USD].spent == 100


def test_replies_to_one_prompt_share_it(store: Store, purse: Purse) -> None:
    opened = a_round(store, "a")
    book = RoundAskBook(store, RUN, opened.id)
    for sample in (0, 1):
        book.keep(book.reserve("ask", 10), 4, a_prompt(), a_reply(opened, "a", sample=sample), None)
    assert len(everything(store, Prompt)) == 1
    assert len(everything(store, Reply)) == 2


# --- rationales -----------------------------------------------------------------------------------------------------


def test_the_teachers_first_rationales_are_checked_once(store: Store) -> None:
    opened = a_round(store, "b", "a")
    of_b, of_a = (a_stored_rationale(store, opened, key) for key in ("b", "a"))
    others = [a_stored_rationale(store, opened, "a", sample=sample) for sample in (2, 1)]
    with store.writing() as session:
        session.add(a_rationale(opened, "a", author=Author.STUDENT))
    assert rationales.unchecked(store, opened.id) == [of_a, of_b]
    assert rationales.siblings(store, of_a) == others[::-1]
    assert rationales.siblings(store, of_b) == []

    doubts = [Flag(rationale_id=of_a.id, check_name="arithmetic", step=0, evidence="2 + 2 = 5", weight=0.9)]
    rationales.keep_checked(store, [Risk(rationale_id=of_a.id, value=0.8, check_set="1")], doubts)

    assert rationales.unchecked(store, opened.id) == [of_b]
    assert rationales.risks(store, [of_a.id, of_b.id]) == {of_a.id: 0.8}
    assert [flag.evidence for flag in rationales.flags(store, [of_a.id, of_b.id])[of_a.id]] == ["2 + 2 = 5"]


def test_what_the_checks_found_is_kept_whole_or_not_at_all(store: Store) -> None:
    opened = a_round(store, "a")
    kept = a_stored_rationale(store, opened, "a")
    doubts = [Flag(rationale_id=999, check_name="arithmetic", evidence="?", weight=1.0)]
    with pytest.raises(exc.IntegrityError):
        rationales.keep_checked(store, [Risk(rationale_id=kept.id, value=0.8, check_set="1")], doubts)
    assert rationales.unchecked(store, opened.id) == [kept]


def test_a_correction_is_a_new_version_made_once(store: Store) -> None:
    opened = a_round(store, "a")
    original = a_stored_rationale(store, opened, "a")
    five = Answer(kind=AnswerKind.NUMBER, value="5")
    corrected = rationales.keep_correction(store, original, steps=["by hand"], answer=five)
    again = rationales.keep_correction(store, original, steps=["by hand"], answer=five)
    assert again == corrected
    assert (corrected.version, corrected.supersedes, corrected.author) == (2, original.id, Author.HUMAN)
    assert [each.steps for each in rationales.of_round(store, opened.id)] == [["two and two"], ["by hand"]]
    other = rationales.keep_correction(store, original, steps=["otherwise"], answer=FOUR)
    assert (other.version, other.supersedes) == (3, original.id)


# --- reviews --------------------------------------------------------------------------------------------------------


def wanted(*kept: Rationale) -> list[reviews.Wanted]:
    return [reviews.Wanted(rationale, "risk", f"uid-{rationale.item_key}") for rationale in kept]


def in_review(store: Store, *keys: str) -> tuple[Round, list[Rationale]]:
    opened = a_round(store, *keys)
    return opened, [a_stored_rationale(store, opened, key) for key in keys]


def test_tasks_are_opened_until_the_minutes_are_reserved(store: Store, purse: Purse) -> None:
    opened, kept = in_review(store, "a", "b", "c", "d")
    tasks = reviews.open_tasks(store, RUN, opened.id, wanted(*kept[:2]), MINUTE)
    assert [task.uid for task in tasks] == ["uid-a", "uid-b"]
    tasks = reviews.open_tasks(store, RUN, opened.id, wanted(*kept), MINUTE)
    assert [task.uid for task in tasks] == ["uid-c"]
    assert len(reviews.tasks(store, opened.id)) == 3
    assert purse.balances()[Currency.MINUTES].reserved == 3 * MINUTE


def test_a_verdict_ends_the_wait_and_settles_its_minutes_once(store: Store, purse: Purse) -> None:
    opened, kept = in_review(store, "a", "b")
    reviews.open_tasks(store, RUN, opened.id, wanted(*kept), MINUTE)
    book: ReviewBook = RunReviewBook(store, RUN)
    book.mark_pushed({"uid-a": "17"}, board="fake", project="1")
    assert [task.task for task in reviews.tasks(store, opened.id)] == ["17", ""]

    assert book.keep_verdict(a_verdict(kept[0], seconds=30))
    assert not book.keep_verdict(a_verdict(kept[0], seconds=30))
    assert book.keep_verdict(a_verdict(kept[0], seconds=50, updated_at="2026-01-01T00:00:01.000000Z"))

    pending = reviews.pending(store, opened.id)
    assert [(task.uid, rationale.id, item.key) for task, rationale, item in pending] == [("uid-b", kept[1].id, "b")]
    balance = purse.balances()[Currency.MINUTES]
    assert (balance.spent, balance.reserved) == (MINUTE // 2, MINUTE)


def test_the_newest_version_of_each_annotation_counts(store: Store, purse: Purse) -> None:
    _, kept = in_review(store, "a", "b")
    book = RunReviewBook(store, RUN)
    later = "2026-01-01T00:00:01.000000Z"
    book.keep_verdict(a_verdict(kept[0], annotation="1", updated_at=later, kind=VerdictKind.REJECT))
    book.keep_verdict(a_verdict(kept[0], annotation="1"))
    book.keep_verdict(a_verdict(kept[0], annotation="2", kind=VerdictKind.EDIT, reviewer="somebody else"))
    found = reviews.verdicts(store, [each.id for each in kept])
    assert {key: [verdict.kind for verdict in rows] for key, rows in found.items()} == {
        kept[0].id: [VerdictKind.REJECT, VerdictKind.EDIT]
    }
    assert len(everything(store, Verdict)) == 3
    assert book.watermark("fake", "1") == later
    assert book.watermark("fake", "2") is None


def test_a_verdict_that_cannot_be_interpreted_is_kept_and_the_task_still_waits(store: Store, purse: Purse) -> None:
    opened, kept = in_review(store, "a")
    reviews.open_tasks(store, RUN, opened.id, wanted(*kept), MINUTE)
    book = RunReviewBook(store, RUN)
    assert book.keep_verdict(a_verdict(kept[0], kind=None))
    stray = a_verdict(kept[0], annotation="2")
    stray.rationale_id = None
    assert book.keep_verdict(stray)
    assert [task.uid for task, _, _ in reviews.pending(store, opened.id)] == ["uid-a"]
    assert [verdict.raw for verdict in everything(store, Verdict)] == [{"as": "it came"}] * 2


@pytest.mark.parametrize("seconds", [-60.0, 0.0])
def test_a_verdict_never_gives_minutes_back_that_it_did_not_hold(store: Store, purse: Purse, seconds: float) -> None:
    opened, kept = in_review(store, "a")
    reviews.open_tasks(store, RUN, opened.id, wanted(*kept), MINUTE)
    RunReviewBook(store, RUN).keep_verdict(a_verdict(kept[0], seconds=seconds))
    balance = purse.balances()[Currency.MINUTES]
    assert (balance.spent, balance.reserved) == (0, 0)


def test_minutes_of_unanswered_tasks_are_given_back_when_the_stage_closes(store: Store, purse: Purse) -> None:
    opened, kept = in_review(store, "a", "b", "c")
    reviews.open_tasks(store, RUN, opened.id, wanted(*kept), MINUTE)
    book = RunReviewBook(store, RUN)
    book.keep_verdict(a_verdict(kept[0], seconds=60))
    reviews.release_open(store, opened.id)
    reviews.release_open(store, opened.id)
    balance = purse.balances()[Currency.MINUTES]
    assert (balance.spent, balance.reserved) == (MINUTE, 0)
    states = [charge.state for charge in everything(store, Charge)]
    assert states == [ChargeState.SETTLED, ChargeState.RELEASED, ChargeState.RELEASED]

    assert book.keep_verdict(a_verdict(kept[1], annotation="late"))
    assert purse.balances()[Currency.MINUTES].spent == MINUTE


def test_a_task_is_known_by_its_uid(store: Store, purse: Purse) -> None:
    opened, kept = in_review(store, "a")
    reviews.open_tasks(store, RUN, opened.id, wanted(*kept), MINUTE)
    book = RunReviewBook(store, RUN)
    found = book.reviewed(["uid-a", "of another project"])
    assert {uid: (task.uid, rationale.id, item.key) for uid, (task, rationale, item) in found.items()} == {
        "uid-a": ("uid-a", kept[0].id, "a")
    }
    assert [task.pushed_at for task in everything(store, ReviewTask)] == [None]


# --- decisions ------------------------------------------------------------------------------------------------------


def test_decisions_are_appended_and_the_newest_counts(store: Store) -> None:
    first, second = a_round(store, "a", "b"), a_round(store)
    kept = a_stored_rationale(store, first, "a")
    decisions.keep(store, [a_decision(first, key, DecisionKind.UNDECIDED) for key in ("b", "a")])
    before = {row.id: row.model_dump() for row in everything(store, Decision)}
    decisions.keep(store, [a_decision(second, "a", DecisionKind.GOLD, kept)])

    rows = {row.id: row for row in everything(store, Decision)}
    assert {key: rows[key].model_dump() for key in before} == before
    newest = decisions.newest(store, RUN)
    assert {key: row.kind for key, row in newest.items()} == {"a": DecisionKind.GOLD, "b": DecisionKind.UNDECIDED}
    assert newest["a"].version == 2
    assert rows[newest["a"].supersedes].item_key == "a"
    assert (newest["b"].version, newest["b"].supersedes) == (1, None)


def test_a_round_that_decides_again_after_a_crash_changes_nothing(store: Store) -> None:
    opened = a_round(store, "a")
    decisions.keep(store, [a_decision(opened, "a", DecisionKind.GOLD)])
    decisions.keep(store, [a_decision(opened, "a", DecisionKind.REJECTED)])
    assert [row.kind for row in everything(store, Decision)] == [DecisionKind.GOLD]


def test_examples_are_what_gold_and_silver_in_force_decided(store: Store) -> None:
    first, second = a_round(store, "c", "b", "a"), a_round(store)
    kept = {key: a_stored_rationale(store, first, key) for key in ("a", "b", "c")}
    silver = [a_decision(first, key, DecisionKind.SILVER, kept[key]) for key in ("c", "b", "a")]
    decisions.keep(store, silver)
    decisions.keep(store, [a_decision(second, "b", DecisionKind.REJECTED, kept["b"])])
    corrected = rationales.keep_correction(store, kept["c"], steps=["by hand"], answer=FOUR)
    decisions.keep(store, [a_decision(second, "c", DecisionKind.GOLD, corrected)])
    found = decisions.decided(store, RUN)
    assert [(item.key, rationale.steps, decision.kind) for item, rationale, decision in found] == [
        ("a", ["two and two"], DecisionKind.SILVER),
        ("c", ["by hand"], DecisionKind.GOLD),
    ]
    assert decisions.decided(store, "another run") == []


# --- checkpoints ----------------------------------------------------------------------------------------------------


def a_checkpoint(opened: Round | None, *, examples: int = 3) -> Checkpoint:
    return Checkpoint(
        run=RUN, round_id=opened.id if opened else None, folder="round-1", examples=examples, created_at=now()
    )


def test_a_round_has_one_checkpoint_even_when_training_was_done_again(store: Store) -> None:
    opened = a_round(store)
    first = checkpoints.keep(store, a_checkpoint(opened))
    again = checkpoints.keep(store, a_checkpoint(opened, examples=4))
    assert first.id == again.id
    assert checkpoints.get(store, first.id).examples == 4
    assert checkpoints.keep(store, a_checkpoint(None)).id != checkpoints.keep(store, a_checkpoint(None)).id


def test_predictions_are_kept_by_part(store: Store) -> None:
    opened = a_round(store, "b", "a")
    kept = checkpoints.keep(store, a_checkpoint(opened))
    parts = {"b": Part.DEV, "a": Part.TEST}
    rows = [Prediction(checkpoint_id=kept.id, item_key=key, part=part, correct=True) for key, part in parts.items()]
    checkpoints.keep_predictions(store, rows)
    assert [row.item_key for row in checkpoints.predictions(store, kept.id)] == ["a", "b"]
    assert [row.item_key for row in checkpoints.predictions(store, kept.id, Part.DEV)] == ["b"]
    assert checkpoints.predictions(store, 999) == []


def test_postgresql_is_held_to_indexes_while_a_table_is_being_filled(postgresql: str) -> None:
    def scans() -> str:
        return str(session.connection().exec_driver_sql("SHOW enable_seqscan").scalar_one())

    with closing(Store(postgresql)) as store:
        with store.writing() as session, bulk(session, MANY_ROWS):
            assert scans() == "off"
        with store.writing() as session, bulk(session, MANY_ROWS - 1):
            assert scans() == "on"  # again, and for a few rows all along
