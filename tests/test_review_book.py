"""The book of reviews: which are open, what was said of them, what counts, and what it cost, whoever asks and when."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import select

from loop.errors import BudgetSpent
from loop.records import Charge, ChargeState, Currency, Rationale, ReviewTask, Round, Verdict, VerdictKind
from loop.store import forgetting, items, rationales, reviews, withdrawals
from loop.store.database import Store
from loop.store.money import Purse
from loop.store.reviews import RunReviewBook, Wanted
from loop.store.tainted import Grounds
from tests.builders import NOON, RUN, a_reply, a_round, a_store, a_verdict, an_item, id_of, queried

ACCEPT, EDIT, REJECT = VerdictKind.ACCEPT, VerdictKind.EDIT, VerdictKind.REJECT
EACH = 1_500_000
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = a_store(tmp_path)
    yield opened
    opened.close()


def asked(store: Store, keys: str, run: str = RUN) -> tuple[Round, list[Rationale]]:
    """A new round in which the teacher explained these items."""
    items.add(store, [an_item(key) for key in keys])
    opened = queried(store, a_round(store, run=run), [*keys])
    for key in keys:
        a_reply(store, opened, key, steps=["1 + 1 = 2"], answer=2, cost=1)
    return opened, rationales.of_round(store, id_of(opened))


def wanted(rows: Sequence[Rationale], run: str = RUN, slot: int = 0) -> list[Wanted]:
    return [Wanted(each, "risk", f"{run}/1/{each.item_key}" + f"/{slot}" * bool(slot), slot) for each in rows]


def in_review(store: Store, keys: str = "ab", run: str = RUN) -> tuple[int, list[int]]:
    """The id of a round in review, and those of its rationales."""
    opened, rows = asked(store, keys, run)
    reviews.open_tasks(store, run, id_of(opened), wanted(rows, run), EACH)
    return id_of(opened), [each.id or 0 for each in rows]


def held(store: Store, run: str = RUN) -> tuple[int, int]:
    balance = Purse(store, run).balances()[Currency.MINUTES]
    return balance.spent, balance.reserved


def every(store: Store, model: type) -> list:
    """The rows of a table in the order of their numbers, or as the database gives them where they have none."""
    with store.reading() as session:
        return sorted(session.exec(select(model)), key=lambda row: getattr(row, "id", 0))


def said(verdicts: Sequence[Verdict]) -> list[tuple[str, VerdictKind | None]]:
    return sorted((each.annotation, each.kind) for each in verdicts)


# --- opening ----------------------------------------------------------------------------------------------------------


def test_an_open_review_says_why_and_holds_its_minutes_in_its_name(store: Store) -> None:
    opened, rows = asked(store, "ab")
    made = reviews.open_tasks(
        store, RUN, id_of(opened), [Wanted(rows[0], "audit", "u", slot=1, unflagged=True), *wanted(rows[1:])], EACH
    )
    assert [(each.rationale_id, each.slot, each.uid, each.reason, each.unflagged) for each in made] == [
        (rows[0].id, 1, "u", "audit", True), (rows[1].id, 0, f"{RUN}/1/b", "risk", False)
    ]  # fmt: skip
    assert made == reviews.tasks(store, id_of(opened))
    charges = {each.id: each for each in every(store, Charge) if each.currency is Currency.MINUTES}
    assert {charges[each.charge_id].purpose: charges[each.charge_id].reserved for each in made} == {
        "review/u": EACH, f"review/{RUN}/1/b": EACH
    }  # fmt: skip
    assert all(each.round_id == id_of(opened) for each in made)
    assert held(store) == (0, 2 * EACH)


def test_what_is_open_already_or_not_stored_is_passed_over_and_the_rest_is_opened(store: Store) -> None:
    opened, rows = asked(store, "abc")
    number = id_of(opened)
    reviews.open_tasks(store, RUN, number, wanted(rows[:1]), EACH)
    unstored = Rationale(item_key="a", round_id=number, author=rows[0].author, steps=[])
    again = [Wanted(unstored, "risk", "unstored"), *wanted(rows[:1]), *wanted(rows[:1], slot=1), *wanted(rows[1:])]
    made = reviews.open_tasks(store, RUN, number, again, EACH)
    assert [(each.rationale_id, each.slot) for each in made] == [
        (rows[0].id, 1), (rows[1].id, 0), (rows[2].id, 0)
    ]  # fmt: skip
    assert [(each.rationale_id, each.slot) for each in reviews.tasks(store, number)] == [
        (rows[0].id, 0), (rows[0].id, 1), (rows[1].id, 0), (rows[2].id, 0)
    ]  # fmt: skip
    assert reviews.tasks(store, number + 1) == []


def test_reviews_are_opened_up_to_the_last_minute_and_none_without_its_hold(store: Store) -> None:
    opened, rows = asked(store, "abc")
    Purse(store, RUN).open(usd=10, minutes=2 * EACH)
    assert len(reviews.open_tasks(store, RUN, id_of(opened), wanted(rows), EACH)) == 2
    assert len(every(store, ReviewTask)) == 2
    assert held(store) == (0, 2 * EACH)
    with pytest.raises(BudgetSpent):
        Purse(store, RUN).reserve(Currency.MINUTES, "more", 1)


# --- what counts ------------------------------------------------------------------------------------------------------


def test_a_review_waits_until_something_readable_that_counts_was_said_in_its_slot(store: Store) -> None:
    opened, rows = asked(store, "abcd")
    number, ids = id_of(opened), [each.id or 0 for each in rows]
    reviews.open_tasks(store, RUN, number, [*wanted(rows), *wanted(rows[:1], slot=1)], EACH)
    elsewhere, _ = in_review(store, "e", run="elsewhere")
    a_verdict(store, ids[0], ACCEPT, reviewer="ann")
    a_verdict(store, ids[0], ACCEPT, reviewer="ann", annotation="same person", slot=1)
    a_verdict(store, ids[1], None)  # type: ignore[arg-type]
    a_verdict(store, ids[2], REJECT, deleted_at=NOON)
    found = reviews.pending(store, number)
    waiting = {f"{RUN}/1/{end}" for end in ("a/1", "b", "c", "d")}
    assert {task.uid for task, _, _ in found} == waiting
    assert [task.uid for task, _, _ in found] == sorted(waiting, key=lambda uid: hashlib.sha256(uid.encode()).digest())
    assert all((task.rationale_id, rationale.item_key) == (rationale.id, item.key) for task, rationale, item in found)
    assert [task.uid for task, _, _ in reviews.pending(store, elsewhere)] == ["elsewhere/1/e"]
    a_verdict(store, ids[0], REJECT, reviewer="bob", annotation="another person", slot=1)
    assert {task.uid for task, _, _ in reviews.pending(store, number)} == waiting - {f"{RUN}/1/a/1"}


def test_of_what_was_said_the_newest_version_is_read_unless_it_was_deleted_or_withdrawn(store: Store) -> None:
    number, ids = in_review(store, "abcd")
    a_verdict(store, ids[0], REJECT, minute=2)
    a_verdict(store, ids[0], ACCEPT, minute=1)
    a_verdict(store, ids[0], EDIT, annotation="b", reviewer="bob")
    a_verdict(store, ids[0], EDIT, annotation="b2", reviewer="bob", minute=3)
    a_verdict(store, ids[1], REJECT, deleted_at=NOON)
    a_verdict(store, ids[2], ACCEPT, reviewer="eve")
    a_verdict(store, ids[2], REJECT, reviewer="eve", minute=1)
    a_verdict(store, ids[3], None)  # type: ignore[arg-type]
    withdrawals.withdraw(store, RUN, Grounds("eve", since=LONG_AGO), "never looked")
    readable = reviews.readable(store, number)
    assert {key: said(some) for key, some in readable.items() if some} == {
        ids[0]: [(f"a{ids[0]}", REJECT), ("b", EDIT), ("b2", EDIT)]
    }
    assert RunReviewBook(store, RUN).given(number) == readable
    assert reviews.readable(store, number + 1) == {}
    counted = {key: said(some) for key, some in reviews.verdicts(store, ids).items()}
    assert reviews.verdicts(store, ids[:1]).keys() == {ids[0]}
    assert reviews.verdicts(store, []) == {}
    assert counted == {ids[0]: [(f"a{ids[0]}", REJECT), ("b2", EDIT)], ids[3]: [(f"a{ids[3]}", None)]}
    assert {task.rationale_id for task, _, _ in reviews.pending(store, number)} == {ids[1], ids[3]}


def test_an_older_version_never_takes_the_place_of_a_newest_that_was_withdrawn_or_is_another_board_s(
    store: Store,
) -> None:
    number, ids = in_review(store, "abc")
    a_verdict(store, ids[0], ACCEPT, minute=1)
    a_verdict(store, ids[0], REJECT, minute=5)
    a_verdict(store, ids[1], ACCEPT, minute=1)
    withdrawals.withdraw(store, RUN, Grounds("ann@example.org", since=NOON + timedelta(minutes=3)), "doubted")
    assert reviews.readable(store, number)[ids[0]] == []
    assert {key: said(some) for key, some in reviews.verdicts(store, ids).items()} == {ids[1]: [(f"a{ids[1]}", ACCEPT)]}
    assert [task.rationale_id for task, _, _ in reviews.pending(store, number)] == [ids[2]]
    [(recall, _, _)] = withdrawals.of_run(store, RUN)
    for at, counting in ((recall.withdrawn_at, ids[1:2]), (NOON + timedelta(minutes=4), ids[:2])):
        with store.reading() as session:
            assert [*reviews.verdicts_in(session, ids, reviews.verdicts_query(at))] == counting
    other = {"rationale_id": ids[2], "reviewer": "bob", "kind": EDIT, "raw": {}, "pulled_at": NOON}
    late = "2026-01-01T13:00:00.000000Z"
    book = RunReviewBook(store, RUN)
    assert book.keep_verdict(Verdict(board="fake", project="2", annotation=f"a{ids[1]}", updated_at=late, **other))
    assert book.keep_verdict(Verdict(board="real", project="1", annotation=f"a{ids[1]}", updated_at=late, **other))
    assert not book.keep_verdict(Verdict(board="real", project="1", annotation=f"a{ids[1]}", updated_at=late, **other))
    assert said(reviews.verdicts(store, ids)[ids[1]]) == [(f"a{ids[1]}", ACCEPT)]


def test_a_verdict_that_can_no_longer_be_read_is_waited_for_again(store: Store) -> None:
    number, ids = in_review(store, "ab")
    a_verdict(store, ids[0], ACCEPT, minute=1)
    a_verdict(store, ids[1], ACCEPT, minute=1)
    assert reviews.pending(store, number) == []
    a_verdict(store, ids[0], None, minute=2)  # type: ignore[arg-type]
    assert [task.rationale_id for task, _, _ in reviews.pending(store, number)] == [ids[0]]
    a_verdict(store, ids[0], REJECT, minute=3)
    assert reviews.pending(store, number) == []


def test_what_counted_at_a_moment_is_found_later(store: Store) -> None:
    _, ids = in_review(store, "ab")
    a_verdict(store, ids[0], ACCEPT, minute=1)
    a_verdict(store, ids[0], REJECT, minute=3)
    a_verdict(store, ids[1], EDIT, minute=1, deleted_at=NOON + timedelta(minutes=4))

    def at(minute: float) -> dict[int, list[tuple[str, VerdictKind | None]]]:
        with store.reading() as session:
            query = reviews.verdicts_query(NOON + timedelta(minutes=minute))
            return {key: said(some) for key, some in reviews.verdicts_in(session, ids, query).items()}

    first, second = f"a{ids[0]}", f"a{ids[1]}"
    assert at(0.5) == {}
    assert at(1) == at(2) == {ids[0]: [(first, ACCEPT)], ids[1]: [(second, EDIT)]}
    assert at(3) == {ids[0]: [(first, REJECT)], ids[1]: [(second, EDIT)]}
    assert at(4) == at(5) == {ids[0]: [(first, REJECT)]}
    row = withdrawals.withdraw(store, RUN, Grounds("ann@example.org", since=LONG_AGO), "doubted")
    assert row.verdicts
    assert at(5) == {ids[0]: [(first, REJECT)]}
    [(recall, _, _)] = withdrawals.of_run(store, RUN)
    minute = (recall.withdrawn_at - NOON) / timedelta(minutes=1)
    assert at(minute) == {}
    assert at(minute - 0.001) == {ids[0]: [(first, REJECT)]}
    assert reviews.verdicts(store, ids) == {}


def test_whoever_was_judged_ever_is_known_by_run(store: Store) -> None:
    _, ids = in_review(store, "abc")
    _, others = in_review(store, "d", run="elsewhere")
    assert reviews.pulled(store) == 0
    a_verdict(store, ids[0], ACCEPT, deleted_at=NOON)
    a_verdict(store, ids[1], None)  # type: ignore[arg-type]
    a_verdict(store, others[0], ACCEPT, minute=1)
    a_verdict(store, ids[0], REJECT, minute=2)
    a_verdict(store, ids[2], REJECT, annotation="0", minute=2)
    assert reviews.ever_judged(store, RUN) == {ids[0], ids[2]}
    assert reviews.ever_judged(store, "elsewhere") == set(others)
    assert [(each.annotation, each.updated_at[14:16]) for each in reviews.versions(store, RUN)] == [
        (f"a{ids[0]}", "00"), (f"a{ids[1]}", "00"), ("0", "02"), (f"a{ids[0]}", "02")
    ]  # fmt: skip
    assert reviews.pulled(store) == 5


def test_minutes_of_what_nobody_judged_are_given_back_and_no_others(store: Store) -> None:
    number, ids = in_review(store, "abc")
    elsewhere, _ = in_review(store, "d", run="elsewhere")
    a_verdict(store, ids[0], ACCEPT)
    a_verdict(store, ids[1], None)  # type: ignore[arg-type]
    assert held(store) == (2 * 500_000, EACH)  # one that cannot be read took its time too
    reviews.release_open(store, number)
    reviews.release_open(store, number)
    assert held(store) == (1_000_000, 0)
    assert held(store, "elsewhere") == (0, EACH)
    states = [each.state for each in every(store, Charge) if each.currency is Currency.MINUTES]
    assert states == [ChargeState.SETTLED] * 2 + [ChargeState.RELEASED, ChargeState.RESERVED]
    reviews.release_open(store, elsewhere)
    assert held(store, "elsewhere") == (0, 0)


# --- what the desk writes down ----------------------------------------------------------------------------------------


def test_the_book_knows_what_stands_where_by_run_board_and_project(store: Store) -> None:
    in_review(store, "abc")
    in_review(store, "d", run="elsewhere")
    book = RunReviewBook(store, RUN)
    book.mark_pushed({f"{RUN}/1/a": "7", f"{RUN}/1/b": "8"}, board="fake", project="1")
    book.mark_pushed({f"{RUN}/1/c": "9"}, board="fake", project="2")
    book.mark_pushed({"elsewhere/1/d": "10"}, board="fake", project="1")
    book.mark_pushed({}, board="fake", project="1")
    assert book.placed("fake", "1") == {f"{RUN}/1/a", f"{RUN}/1/b"}
    assert book.placed("fake", "2") == {f"{RUN}/1/c"}
    assert book.placed("real", "1") == set()
    assert RunReviewBook(store, "elsewhere").placed("fake", "1") == {"elsewhere/1/d"}
    assert {each.uid: each.task for each in every(store, ReviewTask)} == {
        f"{RUN}/1/a": "7", f"{RUN}/1/b": "8", f"{RUN}/1/c": "9", "elsewhere/1/d": "10"
    }  # fmt: skip
    book.mark_gone({f"{RUN}/1/a"})
    assert book.placed("fake", "1") == {f"{RUN}/1/b"}


def test_the_queue_is_of_one_round_by_uid_with_or_without_some(store: Store) -> None:
    opened, rows = asked(store, "cab")
    number = id_of(opened)
    reviews.open_tasks(store, RUN, number, [*wanted(rows), *wanted(rows[:1], slot=1)], EACH)
    in_review(store, "d", run="elsewhere")
    book = RunReviewBook(store, RUN)
    uids = [f"{RUN}/1/{end}" for end in ("a", "b", "c")]
    assert [task.uid for task, _ in book.queue(number)] == sorted([*uids, f"{RUN}/1/{rows[0].item_key}/1"])
    found = book.queue(number, but={uids[1], f"{RUN}/1/{rows[0].item_key}/1"})
    assert [(task.uid, rationale.item_key) for task, rationale in found] == [(uids[0], "a"), (uids[2], "c")]
    assert book.slots() == [0, 1]
    assert RunReviewBook(store, "elsewhere").slots() == [0]
    task = reviews.tasks(store, number)[0]
    task.assignee, task.assigned_at, task.place = "ann", NOON, 0.25
    book.keep_queued([task])
    book.keep_queued([])
    kept = next(each for each in every(store, ReviewTask) if each.uid == task.uid)
    assert (kept.assignee, kept.assigned_at, kept.place) == ("ann", NOON, 0.25)
    assert [each.assignee for each in every(store, ReviewTask)].count("ann") == 1


def test_a_task_is_found_by_any_of_its_copies(store: Store) -> None:
    _, ids = in_review(store, "ab")
    book = RunReviewBook(store, RUN)
    found = book.reviewed([f"2~{RUN}/1/a", f"{RUN}/1/a", "of nobody"])
    assert {uid: (task.uid, rationale.id, item.key) for uid, (task, rationale, item) in found.items()} == {
        f"{RUN}/1/a": (f"{RUN}/1/a", ids[0], "a")
    }


def test_a_forgotten_item_is_known_by_the_uids_of_its_tasks_whatever_signs_its_key_has(store: Store) -> None:
    items.add(store, [an_item(key) for key in ("a/1", "b", "c~d")])
    for key in ("a/1", "c~d"):
        forgetting.remove(store, key, [], taught=False)
    gone = {f"{RUN}/1/{end}" for end in ("a/1", "a/1/2", "a/1/2/again", "c~d")} | {f"2~{RUN}/1/a/1", f"{RUN}/12/a/1"}
    stays = {f"{RUN}/1/{end}" for end in ("a", "a/10", "b", "a/2")} | {"a/1", f"{RUN}/a/1"}
    book = RunReviewBook(store, RUN)
    assert book.forgotten(gone | stays) == gone
    assert book.forgotten(stays) == book.forgotten([]) == set()


def a_version(rationale_id: int | None, annotation: int, minute: int, slot: int, seconds: float) -> Verdict:
    return Verdict(
        board="fake", project=str(slot), annotation=str(annotation), rationale_id=rationale_id, slot=slot,
        updated_at=f"2026-01-01T12:{minute:02}:00.000000Z", reviewer="ann", kind=ACCEPT, seconds=seconds, raw={},
        pulled_at=NOON,
    )  # fmt: skip


RUNS = count()
VERSIONS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1), st.integers(0, 1), st.integers(-5, 200)),
    max_size=12,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = a_store(tmp_path_factory.mktemp("book"))
    yield opened
    opened.close()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(versions=VERSIONS, cuts=st.sets(st.integers(0, 12)))
def test_however_verdicts_come_each_version_is_kept_once_and_the_first_pays_for_its_task(
    shared: Store, versions: list[tuple[int, int, int, int, int]], cuts: set[int]
) -> None:
    run = f"run{next(RUNS)}"
    keys = [f"{run}x", f"{run}y"]
    items.add(shared, [an_item(key) for key in keys])
    opened = queried(shared, a_round(shared, run=run), keys)
    for key in keys:
        a_reply(shared, opened, key, steps=["1 + 1 = 2"], answer=2, cost=1)
    rows = rationales.of_round(shared, id_of(opened))
    reviews.open_tasks(shared, run, id_of(opened), [*wanted(rows, run), *wanted(rows, run, slot=1)], EACH)
    number, gone = int(run[3:]), 10**9
    coming = [
        a_version(gone if which == 2 else rows[which].id if which < 2 else None, 100 * number + note, minute, slot, s)
        for note, which, minute, slot, s in (
            (10 * note + 3 * slot + which, which, minute, slot, seconds)
            for which, note, minute, slot, seconds in versions
        )
    ]
    book, kept = RunReviewBook(shared, run), 0
    for start, end in pairwise(sorted({0, *cuts, len(coming)})):
        kept += book.keep_verdicts([each.model_copy() for each in coming[start:end]])
    if 0 in cuts:
        assert book.keep_verdicts([]) == 0
    real = [each for each in coming if each.rationale_id != gone]
    assert kept == len({(each.annotation, each.project, each.updated_at) for each in real})
    first: dict[tuple[int | None, int], float] = {}
    for start, end in pairwise(sorted({0, *cuts, len(coming)})):
        newest = {(each.annotation, each.project, each.updated_at): each for each in coming[start:end] if each in real}
        for each in newest.values():
            if each.rationale_id is not None:
                first.setdefault((each.rationale_id, each.slot), each.seconds)
    spent = sum(round(max(0.0, seconds) / 60 * 1_000_000) for seconds in first.values())
    assert held(shared, run) == (spent, EACH * (4 - len(first)))
