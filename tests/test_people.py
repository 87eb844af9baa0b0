"""Several people review a round: blind second reviews, adjudication, assignment, quorum and deadline."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from loop import round as rounds_of
from loop.answer import AnswerKind
from loop.config import Config, ReviewConfig, ReviewerConfig, TaskConfig
from loop.records import Rationale, ReviewTask, Stage, Verdict, VerdictKind
from loop.stages.parts import Parts
from loop.store import items, planted, rationales, reviews, rounds
from loop.store.database import Store
from loop.store.reviews import RunReviewBook
from review.desk import Desk, Queue
from review.fake_board import FakeBoard
from review.task import result
from tests.builders import RUN, a_reply, a_round, a_store, an_item, checked, decided_kinds, id_of, queried
from tests.judging import NoStudent, Silent, _Unused

TASK = TaskConfig(answer=AnswerKind.NUMBER)
ACCEPT, REJECT, EDIT = VerdictKind.ACCEPT, VerdictKind.REJECT, VerdictKind.EDIT
PEOPLE = tuple(ReviewerConfig(name=name, capacity=9) for name in ("ann", "bob", "cid"))


class Review:
    """A round in REVIEW on fake boards, with people who judge there."""

    def __init__(
        self, folder: Path, keys: Sequence[str] = "abcd", audits: Sequence[str] = (), **review: object
    ) -> None:
        self.config = Config(review=ReviewConfig.model_validate({"board": "fake", **review}))
        folder.mkdir(exist_ok=True)
        self.store, self.folder = a_store(folder), folder
        items.add(self.store, [an_item(key) for key in keys])
        opened = queried(self.store, a_round(self.store, self.config), keys, audits=audits)
        for key in keys:
            number = a_reply(self.store, opened, key, steps=["1 + 1 = 2"], answer=2)
            checked(self.store, number, 0.1 if key in audits else 0.6)
        self.round = rounds.enter(self.store, opened, Stage.REVIEW, review_opened_at=datetime.now(UTC))
        self.worth = {"worth": lambda rows: {each.id or 0: 0.1 for each in rows}}

    def board(self, slot: int, person: str = "1") -> FakeBoard:
        return FakeBoard(self.folder / f"board-{slot}.json", title=f"main {slot}", person=person)

    @property
    def desk(self) -> Desk:
        settings = self.config.review
        queue = Queue(**self.worth, reviewers=settings.reviewers, patience=timedelta(hours=settings.claim_hours))
        return Desk(self.board, RunReviewBook(self.store, RUN), lambda _: {}, TASK, queue)

    def goes_on(self) -> Stage:
        """Where the round stands after it was carried on."""
        parts = Parts(NoStudent(), _Unused(), self.desk, Silent(), self.folder / "checkpoints")
        self.round = rounds_of.advance(self.round, self.store, parts, self.config)
        return self.round.stage

    def says(self, person: str, key: str, kind: VerdictKind, slot: int = 0) -> None:
        """A person's verdict on the newest copy of a task."""
        board = self.board(slot, person)
        task = next(each for each in board.open_tasks() if each.data["item_key"] == key)
        given = result(kind, steps=["1 + 1 = 3"], answer="3")
        board.annotate(task.task, given, seconds=30.0, unique_id=f"{person}/{task.uid}")

    def tasks(self, slot: int) -> dict[str, ReviewTask]:
        """The tasks of a slot by item."""
        rows = RunReviewBook(self.store, RUN).queue(id_of(self.round))
        return {rationale.item_key: task for task, rationale in rows if task.slot == slot}

    def shown(self, slot: int) -> dict[str, str]:
        """Whose each open task is on the board."""
        return {each.data["item_key"]: each.data.get("reviewer", "") for each in self.board(slot).open_tasks()}


@pytest.fixture
def review(tmp_path: Path) -> Review:
    return Review(tmp_path, second_share=1.0)


def test_a_share_of_all_reviews_is_blind_double_and_the_same_each_time(tmp_path: Path) -> None:
    keys = [f"k{n}" for n in range(24)]
    first, again = (Review(tmp_path / name, keys, second_share=0.5) for name in ("one", "two"))
    for each in (first, again):
        assert each.goes_on() is Stage.REVIEW
    assert 6 <= len(first.tasks(1)) <= 18
    assert first.tasks(1).keys() == again.tasks(1).keys()
    assert len(first.tasks(0)) == 24


def test_a_second_verdict_by_the_same_person_is_no_second_review(review: Review) -> None:
    review.goes_on()
    for key in "abcd":
        review.says("ann", key, ACCEPT)
        review.says("ann" if key == "a" else "bob", key, ACCEPT, slot=1)
    assert review.goes_on() is Stage.REVIEW
    assert list(review.shown(1)) == ["a"]  # a fresh copy, since the board takes the first one for done
    review.says("bob", "a", ACCEPT, slot=1)
    assert review.goes_on() is Stage.CLOSED
    assert len(verdicts(review.store)) == 9


def test_contradicting_reviews_wait_for_a_third_person_and_hold_the_round(review: Review) -> None:
    review.goes_on()
    for key in "abcd":
        review.says("ann", key, ACCEPT)
        review.says("bob", key, REJECT if key == "b" else ACCEPT, slot=1)
    assert review.goes_on() is Stage.REVIEW
    assert list(review.shown(2)) == ["b"]
    assert review.tasks(2)["b"].reason == "disagreement"
    review.says("bob", "b", ACCEPT, slot=2)
    assert review.goes_on() is Stage.REVIEW
    review.says("cid", "b", ACCEPT, slot=2)
    assert review.goes_on() is Stage.CLOSED
    assert decided_kinds(review.store) == dict.fromkeys("abcd", "gold")


def test_verdicts_pulled_by_hand_go_to_a_third_person_too(review: Review) -> None:
    review.goes_on()
    for key in "abcd":
        review.says("ann", key, ACCEPT)
        review.says("bob", key, REJECT, slot=1)
    assert review.desk.pull() == 8
    assert reviews.pending(review.store, id_of(review.round)) == []
    assert review.goes_on() is Stage.REVIEW
    assert sorted(review.shown(2)) == [*"abcd"]


def test_a_disagreement_is_undecided_once_the_deadline_has_passed(tmp_path: Path) -> None:
    review = Review(tmp_path, second_share=1.0, deadline_hours=1.0)
    review.goes_on()
    for key in "abcd":
        review.says("ann", key, ACCEPT)
        review.says("bob", key, REJECT if key == "b" else ACCEPT, slot=1)
    assert review.goes_on() is Stage.REVIEW
    review.round.review_opened_at = datetime.now(UTC) - timedelta(hours=2)
    assert review.goes_on() is Stage.CLOSED
    assert decided_kinds(review.store)["b"] == "undecided"


def test_where_the_strictest_counts_nobody_adjudicates(tmp_path: Path) -> None:
    review = Review(tmp_path, second_share=1.0, disagreements="strictest")
    review.goes_on()
    for key in "abcd":
        review.says("ann", key, EDIT if key == "c" else ACCEPT)
        review.says("bob", key, REJECT if key == "b" else ACCEPT, slot=1)
    assert review.goes_on() is Stage.CLOSED
    assert review.tasks(2) == {}
    assert decided_kinds(review.store) == {"a": "gold", "b": "rejected", "c": "gold", "d": "gold"}
    corrected = [each for each in rationales.of_round(review.store, id_of(review.round)) if each.supersedes]
    assert [each.item_key for each in corrected] == ["c"]


def test_a_low_quorum_closes_over_open_first_reviews_but_not_over_a_disagreement(tmp_path: Path) -> None:
    review = Review(tmp_path, second_share=1.0, quorum=0.25)
    review.goes_on()
    review.says("ann", "a", ACCEPT)
    review.says("bob", "a", REJECT, slot=1)
    assert review.goes_on() is Stage.REVIEW
    review.says("cid", "a", REJECT, slot=2)
    assert review.goes_on() is Stage.CLOSED
    assert decided_kinds(review.store) == {"a": "rejected", **dict.fromkeys("bcd", "undecided")}


def test_both_reviews_are_assigned_to_different_people_and_shown_on_the_board(tmp_path: Path) -> None:
    review = Review(tmp_path, second_share=1.0, reviewers=PEOPLE)
    review.goes_on()
    first, second = review.tasks(0), review.tasks(1)
    assert all(first[key].assignee != second[key].assignee for key in "abcd")
    assert {each.assignee for each in first.values()} | {each.assignee for each in second.values()} == {
        "ann", "bob", "cid"
    }  # fmt: skip
    assert review.shown(0) == {key: task.assignee for key, task in first.items()}
    assert all(task.assigned_at is not None for task in first.values())


def test_without_reviewers_in_the_config_nobody_is_named(review: Review) -> None:
    review.goes_on()
    assert set(review.shown(0).values()) == {""}
    assert {task.assignee for task in review.tasks(0).values()} == {""}


def test_an_adjudication_goes_to_a_third_person(tmp_path: Path) -> None:
    review = Review(tmp_path, second_share=1.0, reviewers=PEOPLE)
    review.goes_on()
    before = {key: {review.tasks(slot)[key].assignee for slot in (0, 1)} for key in "abcd"}
    for key in "abcd":
        review.says(review.tasks(0)[key].assignee, key, ACCEPT)
        review.says(review.tasks(1)[key].assignee, key, REJECT, slot=1)
    assert review.goes_on() is Stage.REVIEW
    for key, task in review.tasks(2).items():
        assert {task.assignee} | before[key] == {"ann", "bob", "cid"}
        assert review.shown(2)[key] == task.assignee


def test_a_verdict_by_somebody_else_counts_and_says_so(tmp_path: Path) -> None:
    review = Review(tmp_path, reviewers=PEOPLE[:1])
    review.goes_on()
    review.says("ann", "a", ACCEPT)
    for key in "bcd":
        review.says("eve", key, ACCEPT)
    assert review.goes_on() is Stage.CLOSED
    assert decided_kinds(review.store) == dict.fromkeys("abcd", "gold")
    assert Counter((each.reviewer, each.assignee) for each in verdicts(review.store)) == {
        ("ann", "ann"): 1, ("eve", "ann"): 3
    }  # fmt: skip


def test_a_stale_claim_goes_to_another_on_the_board_too(tmp_path: Path) -> None:
    review = Review(tmp_path, reviewers=PEOPLE[:2], claim_hours=24.0)
    review.goes_on()
    before = review.shown(0)
    with review.store.writing() as session:
        for row in session.exec(select(ReviewTask)):
            row.assigned_at = datetime.now(UTC) - timedelta(hours=25)
            session.add(row)
    review.goes_on()
    assert set(before.values()) == {"ann", "bob"}
    assert review.shown(0) == {key: {"ann": "bob", "bob": "ann"}[name] for key, name in before.items()}
    assert review.shown(0) == {key: task.assignee for key, task in review.tasks(0).items()}


def test_nobody_has_more_open_reviews_than_their_capacity_and_room_is_filled_as_it_comes(tmp_path: Path) -> None:
    review = Review(tmp_path, reviewers=(ReviewerConfig(name="ann", capacity=3),))
    review.goes_on()
    assert Counter(review.shown(0).values()) == {"ann": 3, "": 1}
    done = next(key for key, name in review.shown(0).items() if name)
    review.says("ann", done, ACCEPT)
    review.goes_on()
    assert Counter(review.shown(0).values()) == {"ann": 3}


def test_reviewers_who_leave_the_config_lose_what_was_theirs(tmp_path: Path) -> None:
    review = Review(tmp_path, reviewers=PEOPLE)
    review.goes_on()
    review.config = Config(review=ReviewConfig(board="fake"))
    review.goes_on()
    assert set(review.shown(0).values()) == {""}


def test_planted_ones_are_assigned_and_doubled_like_all_others(tmp_path: Path) -> None:
    review = Review(tmp_path, second_share=1.0, reviewers=PEOPLE)
    source = rationales.of_round(review.store, id_of(review.round))[0]
    row = Rationale(
        item_key=source.item_key, round_id=id_of(review.round), author=source.author, answer=source.answer,
        steps=["1 + 1 = 3"], stated="2", planted="arithmetic", planted_from=source.id,
    )  # fmt: skip
    items.add(review.store, [an_item("planted")])
    row.item_key = "planted"
    planted.keep(review.store, [row])
    review.goes_on()
    assert review.tasks(0)["planted"].reason == review.tasks(1)["planted"].reason == "planted"
    assert review.shown(0)["planted"] != review.shown(1)["planted"] != ""
    keys = [set(each.data) for each in review.board(0).open_tasks()]
    assert all(each == keys[0] for each in keys)


def test_what_is_worth_most_is_shown_first_and_places_follow_the_worth(tmp_path: Path) -> None:
    review = Review(tmp_path)
    order = {key: 0.1 * (place + 1) for place, key in enumerate("abcd")}
    key_of = {each.id: each.item_key for each in rationales.of_round(review.store, id_of(review.round))}
    review.worth = {"worth": lambda rows: {each.id: order[key_of[each.id]] for each in rows}}
    review.goes_on()

    def shown() -> list[str]:
        return [each.data["item_key"] for each in sorted(review.board(0).open_tasks(), key=lambda each: each.score)]

    assert shown() == [*"dcba"]
    order["a"] = 2.0
    review.goes_on()
    assert shown() == [*"adcb"]


def test_where_the_minutes_do_not_reach_audits_are_sent_first_and_then_what_is_worth_most(tmp_path: Path) -> None:
    review = Review(tmp_path, audits=["b"], minutes_per_review=30.0)  # of 60 minutes
    key_of = {each.id: each.item_key for each in rationales.of_round(review.store, id_of(review.round))}
    review.worth = {"worth": lambda rows: {each.id: "abcd".index(key_of[each.id]) / 10 for each in rows}}
    review.goes_on()
    assert sorted(review.tasks(0)) == ["b", "d"]


def test_audits_stand_among_the_others_and_not_at_their_own_worth(tmp_path: Path) -> None:
    keys = [f"k{n}" for n in range(40)]
    review = Review(tmp_path, keys, audits=keys[:20])
    rows = rationales.of_round(review.store, id_of(review.round))
    worth = {each.id: 0.0 if each.item_key in keys[:20] else 0.1 + (each.id or 0) / 100 for each in rows}
    review.worth = {"worth": lambda some: {each.id: worth[each.id] for each in some}}
    review.goes_on()
    ordered = [each.data["item_key"] for each in sorted(review.board(0).open_tasks(), key=lambda each: each.score)]
    early = sum(key in keys[:20] for key in ordered[:20])
    assert 5 <= early <= 15


def verdicts(store: Store) -> list[Verdict]:
    with store.reading() as session:
        return list(session.exec(select(Verdict)))
