"""Uncertainty herding: the slow definition, values worked out by hand, and bad input."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from loop.query import herding
from loop.query.herding import Floats, herded, radius

NOBODY = np.zeros((0, 3))


def chance(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def points(count: int, dimensions: int, seed: int) -> Floats:
    drawn = chance(seed).normal(size=(count, dimensions))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def gains(doubt: Floats, embeddings: Floats, asked: Floats, chosen: list[int]) -> list[Floats]:
    """The gain of every candidate before each pick, by the definition."""
    width = radius(asked)
    near = np.exp(-((cdist(embeddings, embeddings) / width) ** 2))
    covered = np.exp(-((cdist(embeddings, asked) / width) ** 2)).max(axis=1, initial=0)
    found = []
    for place in chosen:
        gain = doubt @ np.maximum(near - covered[:, None], 0)
        found.append(np.asarray(gain))
        covered = np.maximum(covered, near[place])
    return found


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 40),
    asked=st.integers(0, 12),
    dimensions=st.integers(1, 5),
    block=st.sampled_from([1, 7, 512]),
    seed=st.integers(0, 10**6),
)
def test_each_pick_covers_the_most_doubt_for_its_cost(
    count: int, asked: int, dimensions: int, block: int, seed: int
) -> None:
    doubt, cost = chance(seed + 1).random(count), chance(seed + 2).uniform(0.5, 2, count)
    pool, before = points(count, dimensions, seed), points(asked, dimensions, seed + 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(herding, "BLOCK", block)
        chosen = herded(doubt, pool, before, cost, count, chance()).tolist()
    assert sorted(chosen) == list(range(count))
    for number, gain in enumerate(gains(doubt, pool, before, chosen)):
        left = [place for place in range(count) if place not in chosen[:number]]
        assert gain[chosen[number]] / cost[chosen[number]] == pytest.approx(max(gain[left] / cost[left]), abs=1e-7)


def test_doubt_near_what_is_asked_counts_by_what_is_not_covered_yet() -> None:
    asked = np.array([[0.0, 0.0], [1.0, 0.0]])
    pool = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    assert radius(asked) == 1.0
    # what is asked covers 1 of the first and exp(-1) of the second; the third lies exp(-4) from the second
    doubt, free = np.array([9.0, 1.0, 0.6]), np.ones(3)
    second = (1 - math.exp(-1)) + 0.6 * (math.exp(-4) - math.exp(-9))
    third = 0.6 * (1 - math.exp(-9))  # nothing of the second: exp(-4) of it is less than what is covered
    first = 0.0  # exp(-1) of the second is covered already
    assert second > third > first
    assert herded(doubt, pool, asked, free, 3, chance()).tolist() == [1, 2, 0]
    assert herded(doubt, pool, asked, np.array([1.0, 1.1 * second / third, 1.0]), 1, chance()).tolist() == [2]


def test_a_wide_radius_spreads_a_batch_and_a_narrow_one_goes_by_doubt() -> None:
    pool = np.repeat(np.eye(3), 4, axis=0) + 0.01 * np.arange(12)[:, None]
    doubt = 1 - np.arange(12) / 20
    wide = np.array([[5.0, 0, 0], [5.0, 1.0, 0]])
    assert {place // 4 for place in herded(doubt, pool, wide, np.ones(12), 3, chance())} == {0, 1, 2}
    narrow = np.array([[5.0, 0, 0], [5.0, 0.001, 0]])
    assert herded(doubt, pool, narrow, np.ones(12), 3, chance()).tolist() == [0, 1, 2]


def test_the_radius_is_the_median_distance_to_the_nearest_asked_item() -> None:
    line = np.array([[0.0], [0.1], [1.0], [1.4], [3.4]])  # nearest: 0.1, 0.1, 0.4, 0.4, 2.0
    assert radius(line) == pytest.approx(0.4)
    templated = np.repeat([[0.0], [1.0], [2.0]], 20, axis=0)  # each text again and again: those are the same
    assert radius(templated) == pytest.approx(1.0)
    one = points(1, 4, 0)
    assert radius(np.concatenate([one, one])) == radius(one) == radius(one[:0]) == herding.WIDEST


def test_two_texts_that_are_nearly_the_same_do_not_make_the_radius_vanish() -> None:
    asked = points(60, 8, 3)
    asked[1] = asked[0] + 1e-3
    assert radius(asked) == pytest.approx(radius(asked[1:]), rel=0.05)


def test_a_doubt_that_is_no_number_is_picked_last_and_covers_nothing() -> None:
    doubt = np.array([np.nan, 0.2, np.inf, 0.4, np.nan])
    order = herded(doubt, points(5, 3, 0), NOBODY, np.ones(5), 5, chance()).tolist()
    assert {*order[:2]} == {1, 3}
    assert {*order[2:]} == {0, 2, 4}


def test_items_all_alike_and_all_sure_are_picked_by_chance() -> None:
    for pool, doubt in ((np.ones((30, 3)), np.ones(30)), (points(30, 3, 1), np.zeros(30))):
        orders = [herded(doubt, pool, NOBODY, np.ones(30), 30, chance(seed)).tolist() for seed in (1, 1, 2)]
        assert sorted(orders[0]) == list(range(30))
        assert orders[0] == orders[1] != orders[2]


def test_nothing_to_pick_from_is_no_error() -> None:
    assert herded(np.zeros(0), NOBODY, NOBODY, np.zeros(0), 5, chance()).tolist() == []
    assert herded(np.ones(2), points(2, 3, 0), NOBODY, np.ones(2), 0, chance()).tolist() == []
