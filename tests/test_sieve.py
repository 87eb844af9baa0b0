"""The sieve keeps what sorting everything would keep."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from loop.query.sieve import sieve

Piece = tuple[list[str], NDArray[np.float64]]


def pieces(scores: list[float], size: int) -> Iterator[Piece]:
    for start in range(0, len(scores), size):
        some = scores[start : start + size]
        yield [str(start + place) for place in range(len(some))], np.array(some)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, float("nan"), -float("inf")]), max_size=60), st.integers(1, 9))
def test_the_best_are_those_of_a_stable_sort(scores: list[float], size: int) -> None:
    number = np.nan_to_num(np.array(scores), nan=-np.inf, neginf=-np.inf)
    wanted = [str(place) for place in np.argsort(-number, kind="stable")]
    for keep in (1, 3, len(scores) + 2):
        assert sieve(pieces(scores, size), keep) == wanted[:keep]


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

    assert len(sieve(stream(), 10)) == 10
    assert largest == 100  # no key of a piece without a better score is looked at


def test_an_empty_stream_gives_nothing() -> None:
    assert sieve([], 5) == []


@pytest.mark.parametrize("size", [1, 7])
def test_fewer_items_than_wanted_all_pass(size: int) -> None:
    assert sieve(pieces([0.1, 0.9], size), 5) == ["1", "0"]
