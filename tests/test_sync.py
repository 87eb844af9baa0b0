"""Boards and book agree, whatever is said, changed, deleted, lost, late or there twice, and no verdict is lost."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlmodel import col, select

from loop.answer import AnswerKind
from loop.config import ReviewerConfig, TaskConfig
from loop.errors import BoardDown
from loop.records import (
    Charge,
    Currency,
    Listing,
    Rationale,
    ReviewTask,
    Verdict,
    VerdictKind,
    own_uid,
)
from loop.store import forgetting, items, rationales, reviews
from loop.store.money import Purse
from loop.store.reviews import RunReviewBook
from review import desk as desk_of
from review import triage
from review.board import Board, BoardTask, Place, Standing
from review.desk import Desk, Queue
from review.fake_board import FakeBoard
from review.task import Details, result
from tests.builders import NOON, RUN, a_number, a_reply, a_round, a_store, an_item, id_of, queried

TASK = TaskConfig(answer=AnswerKind.NUMBER)
ACCEPT, EDIT, REJECT = VerdictKind.ACCEPT, VerdictKind.EDIT, VerdictKind.REJECT
EACH = 1_500_000
"""Micro-minutes that are held for a review."""
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)
Wrapped = Callable[[FakeBoard], Board]


class Here:
    """A round in review with a task for each item and slot, its desk, and boards that are files."""

    def __init__(self, folder: Path, keys: Sequence[str] = "abc", slots: Sequence[int] = (0,), run: str = RUN) -> None:
        self.store, self.folder, self.run = a_store(folder), folder, run
        items.add(self.store, [an_item(f"{run}-{key}") for key in keys])
        opened = queried(self.store, a_round(self.store, run=run), [f"{run}-{key}" for key in keys])
        self.number = id_of(opened)
        self.ids = {
            key: a_reply(self.store, opened, f"{run}-{key}", steps=["1 + 1 = 2"], answer=2, cost=1) for key in keys
        }
        self.rows = {each.id: each for each in rationales.of_round(self.store, self.number)}
        self.book = RunReviewBook(self.store, run)
        wanted = [
            reviews.Wanted(self.rows[self.ids[key]], "risk", self.uid(key, slot), slot)
            for slot in slots
            for key in keys
        ]
        self.opened = reviews.open_tasks(self.store, run, self.number, wanted, EACH)
        self.queue: Queue | None = None
        self.details: Callable[[Sequence[Rationale]], Mapping[int, Details]] = lambda _: {}
        self.wrapped: Wrapped = lambda board: board
        self.title = f"{run}"
        self.most = 1000
        self._clicks = count()

    def uid(self, key: str, slot: int = 0) -> str:
        return f"{self.run}/1/{self.run}-{key}" + (f"/{slot + 1}" if slot else "")

    def another_round(self) -> int:
        return id_of(a_round(self.store, run=self.run))

    def board(self, slot: int = 0, person: str = "ann") -> FakeBoard:
        file, title = self.folder / f"{self.run}-{slot}.json", f"{self.title} {slot}"
        return FakeBoard(file, title=title, person=person, tasks_per_project=self.most)

    def standing(self, slot: int = 0) -> list[Standing]:
        """What stands in the projects of a board."""
        board = self.board(slot)
        return [each for project in board.projects()[0] for each in board.listing(project)]

    @property
    def desk(self) -> Desk:
        return Desk(lambda slot: self.wrapped(self.board(slot)), self.book, self.details, TASK, self.queue)

    @property
    def pending(self) -> list[desk_of.Open]:
        return reviews.pending(self.store, self.number)

    def push(self) -> None:
        self.desk.push(self.pending)

    def waiting(self) -> list[str]:
        return sorted(task.uid for task, _, _ in self.pending)

    def task(self, key: str, slot: int = 0) -> ReviewTask:
        return next(each for each in reviews.tasks(self.store, self.number) if each.uid == self.uid(key, slot))

    def on_board(self, key: str, slot: int = 0) -> Standing:
        """The newest copy of a task on its board."""
        copies = [each for each in self.standing(slot) if own_uid(each.uid) == self.uid(key, slot)]
        return max(copies, key=lambda each: int(each.task))

    def says(
        self, key: str, kind: VerdictKind = ACCEPT, person: str = "ann", slot: int = 0, seconds: float = 30.0
    ) -> str:
        """A verdict on the newest copy of a task; its annotation."""
        board, task = self.board(slot, person), self.on_board(key, slot).task
        board.annotate(task, result(kind, steps=["so"], answer="3"), seconds=seconds, unique_id=f"{next(self._clicks)}")
        return board.changed(None)[-1].annotation

    def counted(self) -> dict[str, list[tuple[str, VerdictKind | None]]]:
        """Who says what of each item, as it counts."""
        found = reviews.verdicts(self.store, [*self.ids.values()])
        return {
            key: sorted((each.reviewer, each.kind) for each in found.get(number, []))
            for key, number in self.ids.items()
        }

    def minutes(self) -> tuple[int, int]:
        """Micro-minutes spent and held."""
        balance = Purse(self.store, self.run).balances()[Currency.MINUTES]
        return balance.spent, balance.reserved

    def stored(self) -> list[Verdict]:
        with self.store.reading() as session:
            return [*session.exec(select(Verdict).order_by(col(Verdict.updated_at), col(Verdict.annotation)))]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path)
    yield made
    made.store.close()


# --- what goes out ----------------------------------------------------------------------------------------------------


class Noted(FakeBoard):
    """A board of which it is noted what is put there and what is arranged."""

    def __init__(self, board: FakeBoard, noted: list[tuple[str, list[str]]]) -> None:
        super().__init__(board._file, title=board.project(), person=board._person)
        self._noted = noted

    def put(self, tasks: Iterable[BoardTask]) -> Mapping[str, Place]:
        some = [*tasks]
        self._noted.append(("put", [each.uid for each in some]))
        return super().put(some)

    def arrange(self, tasks: Sequence[BoardTask]) -> None:
        if tasks:
            self._noted.append(("arrange", [each.uid for each in tasks]))
        super().arrange(tasks)

    def address_of(self, person: str) -> str:
        self._noted.append(("list of", [person]))
        return super().address_of(person)


def test_every_task_stands_on_the_board_of_its_slot_and_the_book_knows_where(tmp_path: Path) -> None:
    here, before = Here(tmp_path, "ab", slots=(0, 1)), datetime.now(UTC)
    here.push()
    for slot in (0, 1):
        there = {each.uid: each.task for each in here.standing(slot)}
        assert there.keys() == {here.uid("a", slot), here.uid("b", slot)}
        for key in "ab":
            task = here.task(key, slot)
            assert (task.board, task.project, task.task) == ("fake", f"{RUN} {slot}", there[task.uid])
            assert before <= task.pushed_at <= datetime.now(UTC)
            data = next(each.data for each in here.board(slot).open_tasks() if each.uid == task.uid)
            assert (data["uid"], data["item_key"]) == (task.uid, f"{RUN}-{key}")
        assert here.book.placed("fake", f"{RUN} {slot}") == there.keys()
    assert here.book.slots() == [0, 1]
    assert here.desk.address() == f"{here.board(0).address()}, {here.board(1).address()}"
    assert Here(tmp_path, (), run="empty").desk.address() == here.board(0).address().replace(RUN, "empty")


def test_what_stands_there_is_put_once_and_all_of_it_on_a_new_page(here: Here) -> None:
    noted: list[tuple[str, list[str]]] = []
    here.wrapped = lambda board: Noted(board, noted)
    here.desk.push([])
    assert noted == []
    here.push()
    [(deed, uids)] = noted
    assert (deed, sorted(uids)) == ("put", here.waiting())
    here.push()
    assert len(noted) == 1
    here.says("a")
    here.desk.pull()
    here.push()
    assert len(noted) == 1
    here.title = "a new page"
    here.push()
    assert (noted[-1][0], sorted(noted[-1][1])) == ("put", [here.uid("b"), here.uid("c")])
    assert {here.task(key).project for key in "bc"} == {"a new page 0"}
    assert here.task("a").project == f"{RUN} 0"
    here.book.mark_gone([here.uid("b")])
    gone = here.task("b")
    assert (gone.board, gone.project, gone.task, gone.pushed_at) == ("", "", "", None)
    here.push()
    assert noted[-1] == ("put", [here.uid("b")])


class Failing(FakeBoard):
    """A board that is down for whoever puts or arranges."""

    deed = "put"

    def __init__(self, board: FakeBoard, deed: str) -> None:
        super().__init__(board._file, title=board.project())
        self.deed = deed

    def put(self, tasks: Iterable[BoardTask]) -> Mapping[str, Place]:
        if self.deed == "put":
            raise BoardDown("it is down")
        return super().put(tasks)

    def arrange(self, tasks: Sequence[BoardTask]) -> None:
        if self.deed == "arrange":
            raise BoardDown("it is down")
        super().arrange(tasks)


@pytest.mark.parametrize("deed", ["put", "arrange"])
def test_after_a_push_that_failed_the_board_is_looked_at_once_the_request_can_have_landed(
    here: Here, deed: str
) -> None:
    here.desk.pull()
    assert not here.book.listing_due("fake", f"{RUN} 0")
    here.wrapped = lambda board: Failing(board, deed)
    before = datetime.now(UTC)
    with pytest.raises(BoardDown):
        here.push()
    assert listed_next(here) - before >= reviews.LATE
    assert listed_next(here) - datetime.now(UTC) <= reviews.LATE
    assert here.task("a").pushed_at is None
    here.wrapped = lambda board: board
    here.push()
    assert here.task("a").pushed_at is not None


def listed_next(here: Here) -> datetime:
    with here.store.reading() as session:
        (row,) = session.exec(select(Listing))
        assert (row.board, row.project) == ("fake", f"{RUN} 0")
        return row.due_at


def test_a_doubt_never_puts_off_a_look_that_is_due(here: Here) -> None:
    past = datetime.now(UTC) - timedelta(hours=1)
    here.book.mark_listed("fake", f"{RUN} 0", again=past)
    here.book.doubt("fake", f"{RUN} 0")
    assert listed_next(here) == past
    assert here.book.listing_due("fake", f"{RUN} 0")
    here.book.mark_listed("fake", f"{RUN} 0", again=past + timedelta(hours=2))
    assert not here.book.listing_due("fake", f"{RUN} 0")
    assert here.book.listing_due("fake", "another")
    assert here.book.listing_due("another", f"{RUN} 0")


def test_tasks_are_made_in_pieces_and_each_gets_its_own_details(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_of, "PIECE", 2)
    here, asked = Here(tmp_path, "abcde"), []

    def details(rows: Sequence[Rationale]) -> Mapping[int, Details]:
        asked.append(len(rows))
        return {each.id or 0: Details(student_steps=(each.item_key,)) for each in rows if each.item_key[-1] != "c"}

    here.details = details
    here.push()
    assert asked == [2, 2, 1]
    shown = {each.data["item_key"]: each.data["student"] for each in here.board().open_tasks()}
    assert shown == {f"{RUN}-{key}": "" if key == "c" else f"1. {RUN}-{key}" for key in "abcde"}
    for key in "abcde":
        here.says(key)
    assert here.desk.pull() == 5
    assert here.pending == []


def test_what_the_student_answers_now_is_shown_on_open_tasks_and_nothing_else_changes(here: Here) -> None:
    here.queue = Queue(worth=lambda rows: {each.id or 0: float(each.id or 0) for each in rows})
    here.push()
    here.says("a")
    open_before = {each.uid: each for each in here.board().open_tasks()}
    tasks = [(here.task(key), here.rows[here.ids[key]], items.get(here.store, f"{RUN}-{key}")) for key in "abc"]
    assert here.desk.refresh(tasks) == 0
    here.details = lambda rows: {each.id or 0: Details(student_steps=("now",)) for each in rows}
    noted: list[tuple[str, list[str]]] = []
    here.wrapped = lambda board: Noted(board, noted)
    assert here.desk.refresh(tasks[:2]) == 1
    assert noted == [("arrange", [here.uid("b")])]
    after = {each.uid: each for each in here.board().open_tasks()}
    was = open_before[here.uid("b")]
    assert after == open_before | {here.uid("b"): replace(was, data={**was.data, "student": "1. now"})}
    assert here.desk.refresh(tasks) == 1
    assert here.desk.refresh([]) == 0


def test_open_tasks_of_all_slots_and_rounds_are_refreshed_and_counted(tmp_path: Path) -> None:
    here = Here(tmp_path, "ab", slots=(0, 1))
    here.push()
    [later] = reviews.open_tasks(
        here.store,
        RUN,
        here.another_round(),
        [reviews.Wanted(here.rows[here.ids["b"]], "again", f"{RUN}/2/b", 3)],
        EACH,
    )
    rows = [*here.pending, *reviews.pending(here.store, later.round_id)]
    here.desk.push(rows[-1:])
    here.says("a")
    here.details = lambda rows: {each.id or 0: Details(student_steps=("now",)) for each in rows}
    assert here.desk.refresh(rows) == 4
    assert here.desk.refresh(rows) == 0
    shown = [each.data["student"] for slot in (0, 1, 3) for each in here.board(slot).open_tasks()]
    assert shown == ["1. now"] * 4


PEOPLE = (ReviewerConfig(name="ann", capacity=9), ReviewerConfig(name="bob", capacity=9))


def test_a_changed_place_or_assignee_is_sent_to_the_board_and_kept_and_an_unchanged_one_is_not(here: Here) -> None:
    noted: list[tuple[str, list[str]]] = []
    here.wrapped = lambda board: Noted(board, noted)
    worth = {here.ids["a"]: 1.0, here.ids["b"]: 2.0, here.ids["c"]: 3.0}
    here.queue = Queue(worth=lambda rows: {each.id or 0: worth[each.id or 0] for each in rows}, reviewers=PEOPLE)
    assert here.desk.worth([here.rows[here.ids["b"]]]) == {here.ids["b"]: 2.0}
    assert Queue().worth([here.rows[here.ids["b"]]]) == {}
    assert Queue().patience == timedelta(hours=48)
    here.push()
    places = triage.places({here.uid(key): worth[here.ids[key]] for key in "abc"}, {})
    assert {key: here.task(key).place for key in "abc"} == {key: places[here.uid(key)] for key in "abc"}
    shown = {each.uid: (each.score, each.data["reviewer"]) for each in here.board().open_tasks()}
    assert shown == {here.uid(key): (here.task(key).place, here.task(key).assignee) for key in "abc"}
    assert [here.task(key).assignee for key in "cba"] == ["ann", "bob", "ann"]  # what is worth most is given out first
    assert sorted(deed for deed, _ in noted) == ["list of", "list of", "put"]
    assert {each for deed, some in noted if deed == "list of" for each in some} == {"ann", "bob"}
    since = here.task("a").assigned_at
    noted.clear()
    here.push()
    assert noted == []
    assert here.task("a").assigned_at == since
    worth[here.ids["a"]] = 9.0
    here.push()
    assert noted[0] == ("arrange", [here.uid("a")]) or here.uid("a") in noted[0][1]
    placed = triage.places({here.uid(key): worth[here.ids[key]] for key in "abc"}, {})
    assert {each.uid: each.score for each in here.board().open_tasks()} == placed
    assert {here.uid(key): here.task(key).place for key in "abc"} == placed


@pytest.mark.parametrize("judges", ["ab", "ba"])
def test_who_judged_a_rationale_in_one_slot_does_not_get_it_in_another(tmp_path: Path, judges: str) -> None:
    here, name = Here(tmp_path, "ab", slots=(0,)), {"a": "ann", "b": "bob"}
    here.queue = Queue(reviewers=PEOPLE)
    here.push()
    for key, judge in zip("ab", judges, strict=True):
        here.says(key, person=name[judge])
    here.desk.pull()
    wanted = [reviews.Wanted(here.rows[here.ids[key]], "risk", here.uid(key, 1), 1) for key in "ab"]
    reviews.open_tasks(here.store, RUN, here.number, wanted, EACH)
    here.push()
    assert [here.task(key, 1).assignee for key in "ab"] == [name[judge] for judge in judges[::-1]]


def test_places_rest_while_verdicts_come_in(here: Here) -> None:
    worth = {here.ids["a"]: 100.0, here.ids["b"]: 2.0, here.ids["c"]: 3.0}
    here.queue = Queue(worth=lambda rows: {each.id or 0: worth[each.id or 0] for each in rows})
    here.push()
    before = {key: here.task(key).place for key in "abc"}
    here.says("a")
    here.desk.pull()
    here.push()
    assert {key: here.task(key).place for key in "abc"} == before


def test_a_review_whose_verdict_does_not_count_gets_a_fresh_copy_each_time(tmp_path: Path) -> None:
    here = Here(tmp_path, "ab", slots=(0, 1))
    here.push()
    here.says("a", person="ann")
    for copy in (0, 1):
        assert here.on_board("a", 1).uid == (f"{copy}~" if copy else "") + here.uid("a", 1)
        here.says("a", person="ann", slot=1)
        here.desk.pull()
        assert here.waiting() == [here.uid("a", 1), here.uid("b"), here.uid("b", 1)]
        here.push()
        here.push()
    assert here.on_board("a", 1).uid == f"2~{here.uid('a', 1)}"
    (fresh,) = (each for each in here.board(1).open_tasks() if own_uid(each.uid) == here.uid("a", 1))
    assert (fresh.uid, fresh.data["uid"], here.task("a", 1).task) == (
        f"2~{here.uid('a', 1)}", f"2~{here.uid('a', 1)}", fresh.task
    )  # fmt: skip
    here.details = lambda rows: {each.id or 0: Details(student_steps=("now",)) for each in rows}
    assert here.desk.refresh(here.pending) == 3
    assert {each.uid: each.data["student"] for each in here.board(1).open_tasks()}[fresh.uid] == "1. now"
    here.says("a", REJECT, person="bob", slot=1)
    assert here.desk.pull() == 1
    assert here.waiting() == [here.uid("b"), here.uid("b", 1)]


# --- what comes back --------------------------------------------------------------------------------------------------


def test_a_verdict_is_kept_raw_with_its_task_its_person_and_its_time(tmp_path: Path) -> None:
    here = Here(tmp_path, "ab", slots=(0, 1))
    here.queue, before = Queue(reviewers=PEOPLE[:1]), datetime.now(UTC)
    here.push()
    assert here.task("a").assignee == "ann"
    here.says("a", EDIT, person="bob", seconds=90.0)
    here.says("a", REJECT, person="bob", slot=1, seconds=45.0)
    here.says("b", person="ann")
    assert here.desk.pull() == 3
    first, second, third = here.stored()
    raw = here.board().changed(None)[0]
    assert (first.board, first.project, first.annotation, first.updated_at) == (
        "fake", f"{RUN} 0", raw.annotation, raw.updated_at
    )  # fmt: skip
    assert (first.rationale_id, first.slot, first.reviewer, first.kind) == (here.ids["a"], 0, "bob", EDIT)
    assert (first.steps, first.answer, first.seconds, first.raw) == (["so"], a_number(3), 90.0, raw.raw)
    assert (second.rationale_id, second.slot, second.kind, second.project) == (here.ids["a"], 1, REJECT, f"{RUN} 1")
    assert (first.assignee, third.assignee) == ("ann", "ann")
    assert before <= first.pulled_at <= datetime.now(UTC)
    assert here.minutes() == (1_500_000 + 750_000 + 500_000, EACH)
    assert here.desk.pull() == 0


def test_whoever_the_board_does_not_know_is_assigned_nothing_there(here: Here) -> None:
    here.queue = Queue(reviewers=PEOPLE[:1])
    here.push()
    here.says("a", person="eve")
    stray = here.board().put([BoardTask("of/nobody", {"student": ""})])["of/nobody"].task
    here.board(person="eve").annotate(stray, result(ACCEPT), seconds=5.0, unique_id="stray")
    assert here.desk.pull() == 2
    assert [(each.reviewer, each.assignee) for each in here.stored()] == [("eve", ""), ("eve", "")]


def test_a_changed_verdict_is_a_new_version_that_counts_and_costs_nothing_more(here: Here) -> None:
    here.push()
    said = here.says("a", ACCEPT)
    here.desk.pull()
    before = here.minutes()
    here.board().change(said, result(REJECT))
    assert here.desk.pull() == 1
    assert [each.kind for each in here.stored()] == [ACCEPT, REJECT]
    assert here.counted()["a"] == [("ann", REJECT)]
    assert here.minutes() == before
    assert here.book.watermark("fake", f"{RUN} 0") == here.stored()[-1].updated_at
    assert here.book.watermark("fake", "another") is here.book.watermark("another", f"{RUN} 0") is None


def test_what_is_not_ours_or_cannot_be_read_is_kept_and_decides_nothing(here: Here) -> None:
    here.push()
    board = here.board()
    stray = board.put([BoardTask("of/nobody", {"student": ""})])["of/nobody"].task
    board.annotate(stray, result(ACCEPT), seconds=5.0, unique_id="stray")
    board.annotate(here.on_board("a").task, [], seconds=5.0, unique_id="unread")
    assert here.desk.pull() == 2
    assert [(each.rationale_id, each.slot, each.kind) for each in here.stored()] == [
        (None, 0, ACCEPT), (here.ids["a"], 0, None)
    ]  # fmt: skip
    assert here.waiting() == [here.uid(key) for key in "abc"]
    assert here.counted()["a"] == [("ann", None)]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_said_of_a_forgotten_item_is_not_kept_and_what_stands_beside_it_is(here: Here, place: int) -> None:
    here.push()
    for key in "abc":
        here.says(key)
    gone = [each.uid[-1] for each in here.standing()][place]
    forgetting.remove(here.store, f"{RUN}-{gone}", [], taught=False)
    assert here.desk.pull() == 2
    assert {each.rationale_id for each in here.stored()} == {here.ids[key] for key in "abc" if key != gone}


def test_a_whole_listing_is_made_when_it_is_due_and_only_it_sees_what_was_deleted(here: Here) -> None:
    here.push()
    said, before = here.says("a"), datetime.now(UTC)
    assert here.desk.pull() == 1
    assert timedelta(hours=24) <= listed_next(here) - before
    assert listed_next(here) - datetime.now(UTC) <= timedelta(hours=24)
    here.board().delete(said)
    assert here.desk.pull() == 0
    assert here.counted()["a"] == [("ann", ACCEPT)]
    assert here.desk.pull(whole=True) == 1
    assert here.counted()["a"] == []
    assert here.waiting() == [here.uid(key) for key in "abc"]
    assert here.stored()[0].deleted_at is not None
    here.book.mark_listed("fake", f"{RUN} 0", again=datetime.now(UTC) - timedelta(seconds=1))
    said = here.says("b")
    assert here.desk.pull() == 1
    here.board().delete(said)
    here.book.mark_listed("fake", f"{RUN} 0", again=datetime.now(UTC) - timedelta(seconds=1))
    assert here.desk.pull() == 1
    hours = Desk(here.board, here.book, here.details, TASK, listing_hours=2.0)
    hours.pull(whole=True)
    assert timedelta(hours=1.9) < listed_next(here) - datetime.now(UTC) <= timedelta(hours=2)


def test_of_two_annotations_of_a_task_the_one_that_was_deleted_counts_no_longer_without_a_listing(here: Here) -> None:
    here.push()
    first = here.says("a", REJECT, person="ann")
    here.desk.pull()
    here.says("a", ACCEPT, person="bob")
    here.board().delete(first)
    assert here.desk.pull() == 2  # one is new, one is gone
    assert here.counted()["a"] == [("bob", ACCEPT)]


def test_an_annotation_that_is_back_counts_again_and_others_stay_as_they_are(here: Here) -> None:
    here.push()
    gone, kept, other = here.says("a"), here.says("a", person="bob"), here.says("b")
    here.desk.pull()
    later, project = datetime.now(UTC) + timedelta(seconds=1), f"{RUN} 0"
    standing = {here.uid("a"): [kept], here.uid("b"): [other]}
    assert here.book.mark_deleted("fake", project, standing, before=later) == 1
    assert here.book.mark_deleted("fake", project, standing, before=later) == 0
    assert here.counted() == {"a": [("bob", ACCEPT)], "b": [("ann", ACCEPT)], "c": []}
    assert here.book.mark_deleted("fake", project, {here.uid("a"): [gone, kept]}, before=later) == 1
    assert here.counted()["a"] == [("ann", ACCEPT), ("bob", ACCEPT)]
    assert here.book.mark_deleted("fake", "another", {here.uid("a"): []}, before=later) == 0
    assert here.book.mark_deleted("another", project, {here.uid("a"): []}, before=later) == 0
    assert here.book.mark_deleted("fake", project, {here.uid("a"): []}, before=NOON) == 0  # it came after the listing
    assert here.book.mark_deleted("fake", project, {here.uid("c"): []}, before=later) == 0
    assert all(each.deleted_at is None for each in here.stored())


def test_a_deletion_in_one_slot_or_project_leaves_the_same_number_in_another(tmp_path: Path) -> None:
    here = Here(tmp_path, "a", slots=(0, 1))
    here.push()
    first, second = here.says("a", person="ann"), here.says("a", person="bob", slot=1)
    assert first == second  # each board counts for itself
    assert here.desk.pull() == 2
    here.board(1).delete(second)
    assert here.desk.pull(whole=True) == 1
    assert {each.slot: each.deleted_at is None for each in here.stored()} == {0: True, 1: False}


class Twice(FakeBoard):
    """A board where a task stands a second time, since a request that seemed lost was carried out late."""

    def __init__(self, board: FakeBoard, extra: list[Standing], removed: list[str]) -> None:
        super().__init__(board._file, title=board.project())
        self._extra, self._removed = extra, removed

    def listing(self, project: str) -> Iterator[Standing]:
        yield from super().listing(project)
        yield from (each for each in self._extra if each.task not in self._removed)

    def remove(self, task: str) -> None:
        self._removed.append(task)


@pytest.mark.parametrize(
    ("judged", "extra", "removed"),
    [
        ("", "", ["100"]),  # the older one stays, by number and not by name: 3 before 100
        ("first", "", ["100"]),
        ("", "second", ["first"]),
        ("first", "second", []),
    ],
)
def test_of_two_copies_the_judged_one_stays_or_else_the_older(
    here: Here, judged: str, extra: str, removed: list[str]
) -> None:
    here.push()
    other = here.board()
    beside, key = (each.uid[-1] for each in [*other.listing(other.project())][1:])
    older = here.on_board(key).task
    if judged:
        here.says(key, person="ann")
    copy = Standing(here.uid(key), "100")
    if extra:
        here.says(beside, person="bob")
        (raw,) = (each for each in other.changed(None) if each.reviewer == "bob")
        copy = replace(copy, verdicts=(replace(raw, uid=here.uid(key), annotation="777"),))
    gone: list[str] = []
    here.wrapped = lambda board: Twice(board, [copy], gone)
    here.desk.pull(whole=True)
    assert gone == [older if each == "first" else each for each in removed]
    here.desk.pull(whole=True)
    assert len(gone) == len(removed) or removed == ["first"]
    said = [("ann", ACCEPT)] * bool(judged) + [("bob", ACCEPT)] * bool(extra)
    assert here.counted()[key] == said
    here.push()
    assert here.task(key).task == older


class Flickering(FakeBoard):
    """A board of which a listing misses a task as often as is wanted: pages move while they are turned."""

    def __init__(self, board: FakeBoard, hidden: str, looks: list[int]) -> None:
        super().__init__(board._file, title=board.project())
        self._hidden, self._looks = hidden, looks

    def listing(self, project: str) -> Iterator[Standing]:
        self._looks[0] += 1
        hides = self._looks[0] <= self._looks[1]
        return (each for each in super().listing(project) if not hides or each.uid != self._hidden)


@pytest.mark.parametrize(("missed", "again"), [(0, False), (1, False), (2, True)])
def test_a_task_is_put_anew_only_if_two_looks_miss_it(here: Here, missed: int, again: bool) -> None:
    here.push()
    looks = [0, missed]
    here.wrapped = lambda board: Flickering(board, here.uid("b"), looks)
    here.desk.pull(whole=True)
    assert looks[0] == (1 if missed == 0 else 2)
    assert (here.task("b").pushed_at is None) == again
    assert here.task("a").pushed_at is not None


def test_a_task_that_is_gone_is_put_anew_and_what_was_said_of_it_still_counts(here: Here) -> None:
    here.push()
    here.says("a")
    here.desk.pull()
    for key in "ab":
        here.board().remove(here.on_board(key).task)
    here.desk.pull()
    here.push()
    assert [each.uid for each in here.board().open_tasks()] == [here.uid("c")]
    assert here.desk.pull(whole=True) == 0
    here.push()
    assert {each.uid for each in here.board().open_tasks()} == {here.uid("b"), here.uid("c")}
    assert here.counted()["a"] == [("ann", ACCEPT)]


class Asked(FakeBoard):
    """A board of which it is noted since when it is asked for what changed."""

    def __init__(self, board: FakeBoard, noted: list[str | None]) -> None:
        super().__init__(board._file, title=board.project())
        self._noted = noted

    def touched(self, project: str, since: str | None) -> Iterator[Standing]:
        self._noted.append(since)
        return super().touched(project, since)


def test_only_what_changed_since_the_newest_verdict_is_asked_for(here: Here) -> None:
    noted: list[str | None] = []
    here.wrapped = lambda board: Asked(board, noted)
    here.push()
    here.says("a")
    here.desk.pull()
    assert noted == []  # the first time the board is listed whole
    here.says("b")
    newest = [here.stored()[-1].updated_at]
    here.desk.pull()
    newest.append(here.stored()[-1].updated_at)
    here.desk.pull()
    assert noted == newest
    assert newest[0] < newest[1]


class Renewed(FakeBoard):
    """A board whose page is in its second version: what stood on the first is in a project of its own."""

    def __init__(self, old: FakeBoard, new: FakeBoard) -> None:
        super().__init__(new._file, title=new.project())
        self._old = old

    def projects(self) -> list[list[str]]:
        return [[self.project()], [self._old.project()]]

    def _of(self, project: str) -> FakeBoard:
        return self._old if project == self._old.project() else FakeBoard(self._file, title=self._title)

    def listing(self, project: str) -> Iterator[Standing]:
        return self._of(project).listing(project)

    def touched(self, project: str, since: str | None) -> Iterator[Standing]:
        return self._of(project).touched(project, since)


def test_what_is_said_on_an_older_page_comes_back_too(here: Here) -> None:
    here.push()
    here.says("a")
    new = FakeBoard(here.folder / "new.json", title="new", person="bob")
    here.wrapped = lambda board: Renewed(board, new)
    here.push()
    new.annotate(new.open_tasks()[0].task, result(REJECT), seconds=1.0, unique_id="new")
    assert here.desk.pull() == 2
    assert {each.project for each in here.stored()} == {f"{RUN} 0", "new"}
    here.says("c")
    assert here.desk.pull() == 1
    assert here.desk.pull() == 0


# --- whatever people do -----------------------------------------------------------------------------------------------

KEY, PERSON = st.sampled_from("abc"), st.sampled_from(["ann", "bob"])


class PeopleAtWork(RuleBasedStateMachine):
    """Two people judge, change, skip and delete, tasks are lost, and all of it is pushed and pulled at any time.

    In every other run the tasks stand in two projects.
    """

    def __init__(self, folder: Path, runs: Iterator[int]) -> None:
        super().__init__()
        number = next(runs)
        self.here = Here(folder, run=f"run{number}")
        self.here.most = 2 if number % 2 else 1000
        self.said: dict[str, tuple[str, str, VerdictKind, float]] = {}
        self.seen: set[tuple[str, str]] = set()
        self.here.push()

    def teardown(self) -> None:
        self.here.store.close()

    def there(self) -> dict[str, str]:
        return {own_uid(each.uid)[-1]: each.task for each in self.here.standing()}

    @rule(key=KEY, person=PERSON, kind=st.sampled_from([ACCEPT, EDIT, REJECT]), seconds=st.integers(0, 90))
    def judges(self, key: str, person: str, kind: VerdictKind, seconds: int) -> None:
        if key in self.there():
            self.said[self.here.says(key, kind, person, seconds=float(seconds))] = (key, person, kind, float(seconds))

    @precondition(lambda self: self.said)
    @rule(data=st.data(), kind=st.sampled_from([ACCEPT, REJECT]))
    def changes(self, data: st.DataObject, kind: VerdictKind) -> None:
        said = data.draw(st.sampled_from(sorted(self.said)))
        key, person, _, seconds = self.said[said]
        self.here.board().change(said, result(kind))
        self.said[said] = (key, person, kind, seconds)

    @precondition(lambda self: self.said)
    @rule(data=st.data())
    def deletes(self, data: st.DataObject) -> None:
        said = data.draw(st.sampled_from(sorted(self.said)))
        self.here.board().delete(said)
        del self.said[said]

    @rule(key=KEY)
    def skips(self, key: str) -> None:
        if key in self.there():
            self.here.board().skip(self.there()[key], unique_id=f"skip {key} {len(self.here.board().changed(None))}")

    @rule(key=KEY)
    def loses(self, key: str) -> None:
        if key in self.there() and all(of != key for of, *_ in self.said.values()):
            self.here.board().remove(self.there()[key])

    @rule(whole=st.booleans())
    def pulls(self, whole: bool) -> None:
        versions = {(each.annotation, each.updated_at): each for each in self.here.board().changed(None)}
        new = [each for version, each in sorted(versions.items(), key=lambda row: row[1].updated_at)
               if version not in self.seen]  # fmt: skip
        changed = self.here.desk.pull(whole=whole)
        assert changed >= len(new)
        self.seen |= versions.keys()
        if whole:
            self.the_book_says_what_people_say()

    @rule()
    def pushes(self) -> None:
        self.here.push()

    def the_book_says_what_people_say(self) -> None:
        by_person: dict[str, dict[str, VerdictKind | None]] = {key: {} for key in "abc"}
        for raw in sorted(self.here.board().changed(None), key=lambda each: (each.updated_at, each.annotation)):
            key, person, kind, _ = self.said[raw.annotation]
            by_person[key][person] = kind
        assert self.here.counted() == {key: sorted(said.items()) for key, said in by_person.items()}
        assert self.here.desk.pull(whole=True) == 0
        self.here.push()
        assert self.here.waiting() == [self.here.uid(key) for key, said in by_person.items() if not said]
        assert {self.here.uid(key) for key in self.there()} >= set(self.here.waiting())

    @invariant()
    def nothing_that_was_pulled_is_lost(self) -> None:
        assert {(each.annotation, each.updated_at) for each in self.stored()} == self.seen

    @invariant()
    def the_first_verdict_pays_for_its_task(self) -> None:
        paid = {each.rationale_id for each in self.stored()}
        spent, held = self.here.minutes()
        assert held == EACH * (3 - len(paid))
        with self.here.store.reading() as session:
            rows = session.exec(select(Charge).where(Charge.run == self.here.run, Charge.currency == Currency.MINUTES))
            assert spent == sum(each.settled for each in rows)

    def stored(self) -> list[Verdict]:
        return reviews.versions(self.here.store, self.here.run)


@pytest.mark.parametrize("examples", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_whatever_people_do_the_book_says_what_they_say_and_loses_nothing(tmp_path: Path, examples: int) -> None:
    runs = count()
    run_state_machine_as_test(
        lambda: PeopleAtWork(tmp_path, runs),
        settings=settings(
            max_examples=examples,
            stateful_step_count=12,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
