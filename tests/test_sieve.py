"""The sieve keeps what sorting everything would keep, and asks a student about each item once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlmodel import select as rows_of

from loop.config import Config
from loop.ports import Silent
from loop.query.sieve import sieve
from loop.records import Checkpoint, Doubt, Item, Round, Stage
from loop.stages import select
from loop.stages.parts import Parts
from loop.store import checkpoints, items, rounds
from loop.store.database import Store
from tests.builders import NOON, RUN, a_round, a_store, an_item

Piece = tuple[list[str], NDArray[np.float64]]


def pieces(scores: list[float], size: int) -> Iterator[Piece]:
    for start in range(0, len(scores), size):
        some = scores[start : start + size]
        yield [str(start + place) for place in range(len(some))], np.array(some)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, float("nan"), -float("inf")]), max_size=60), st.integers(1, 9))
def test_the_best_are_those_of_a_sort(scores: list[float], size: int) -> None:
    number = np.nan_to_num(np.array(scores), nan=-np.inf, neginf=-np.inf)
    wanted = np.sort(number)[::-1]
    for keep in (1, 3, len(scores) + 2):
        kept = sieve(pieces(scores, size), keep, seed=1)
        assert len({*kept}) == len(kept)
        assert [number[int(key)] for key in kept] == [*wanted[:keep]]
        assert kept == sieve(pieces(scores, len(scores) + 1), keep, seed=1)


def test_of_equal_ones_each_is_as_likely_to_pass_wherever_it_came() -> None:
    scores = [0.5] * 10 + [0.9] + [0.5] * 9
    passed = Counter(key for seed in range(2000) for key in sieve(pieces(scores, 3), 5, seed=seed))
    assert passed.pop("10") == 2000
    assert len(passed) == 19
    assert all(0.15 < times / 2000 < 0.28 for times in passed.values())  # 4 of 19, so 0.21


def test_memory_holds_the_best_so_far_and_one_piece() -> None:
    largest = 0

    class Keys(list[str]):
        def __getitem__(self, place: object) -> str:  # type: ignore[override]
            nonlocal largest
            largest += 1
            return str(place)

    def stream() -> Iterator[tuple[Keys, NDArray[np.float64]]]:
        for number in range(1000):
            yield Keys(), np.full(100, -float(number))

    assert len(sieve(stream(), 10, seed=0)) == 10
    assert largest == 100  # no key of a piece without a better score is looked at


def test_an_empty_stream_gives_nothing() -> None:
    assert sieve([], 5, seed=0) == []


@pytest.mark.parametrize("size", [1, 7])
def test_fewer_items_than_wanted_all_pass(size: int) -> None:
    assert sieve(pieces([0.1, 0.9], size), 5, seed=0) == ["1", "0"]


# --- in the stage -----------------------------------------------------------------------------------------------------

SIEVED = Config.model_validate({"query": {"batch_size": 2, "candidates": 2, "sieve": 100}})


class Doubting:
    """A student that doubts each item by its number, and remembers whom it was asked about."""

    def __init__(self, fails_after: int = 10**9) -> None:
        self.asked: list[str] = []
        self._left = fails_after

    def doubt(self, some: Sequence[Item]) -> NDArray[np.float32]:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        self.asked += [item.key for item in some]
        return np.array([np.nan if item.key == "q7" else int(item.key[1:]) for item in some], dtype=np.float32)


def passed(store: Store, student: Doubting, current: Round) -> list[str]:
    parts = Parts(*cast(Any, (None, None, None)), Silent(), Path())
    _, asked = select._looked_at(store, RUN, SIEVED)
    return [item.key for item in select._candidates(current, asked, cast(Any, student), store, parts, SIEVED)]


def with_a_student(store: Store) -> Round:
    """The round after one whose student is in force."""
    opened = a_round(store)
    kept = checkpoints.keep(store, Checkpoint(run=RUN, round_id=opened.id, folder="-", examples=1, created_at=NOON))
    rounds.enter(store, opened, Stage.CLOSED, student_id=kept.id, candidate_id=kept.id, closed_at=NOON)
    return rounds.open_round(store, RUN, {})


def test_a_student_that_stays_is_asked_about_new_items_alone(tmp_path: Path) -> None:
    store, student = a_store(tmp_path), Doubting()
    items.add(store, [an_item(f"q{n}") for n in range(20)])
    current = with_a_student(store)
    assert passed(store, student, current) == ["q16", "q17", "q18", "q19"]
    assert len(student.asked) == 20
    items.add(store, [an_item("q30")])
    student.asked.clear()
    assert passed(store, student, current) == ["q17", "q18", "q19", "q30"]
    assert sorted(student.asked) == ["q30", "q7"]  # what is no number is not kept
    rounds.enter(store, current, Stage.CLOSED, student_id=rounds.all_rounds(store, RUN)[0].student_id, closed_at=NOON)
    student.asked.clear()
    new = with_a_student(store)
    passed(store, student, new)
    assert len(student.asked) == 21
    with store.reading() as session:
        kept = session.exec(rows_of(Doubt.checkpoint_id)).all()
    assert set(kept) == {rounds.all_rounds(store, RUN)[-2].student_id}  # what the student before said is gone
    store.close()


def test_a_sieve_that_was_cut_off_goes_on_and_ends_with_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "BLOCK", 5)
    store, cut_off, student = a_store(tmp_path), Doubting(fails_after=2), Doubting()
    items.add(store, [an_item(f"q{n}") for n in range(20)])
    current = with_a_student(store)
    with pytest.raises(KeyboardInterrupt):
        passed(store, cut_off, current)
    assert passed(store, student, current) == ["q16", "q17", "q18", "q19"]
    assert {*cut_off.asked, *student.asked} == {f"q{n}" for n in range(20)}
    assert {*cut_off.asked} & {*student.asked} <= {"q7"}
    store.close()
