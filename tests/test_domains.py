"""Domains in which the student lags get more of the batch: DDK's reference values, quotas, and bad input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.query.domains import gap, quotas, shares
from loop.query.select import Past, compose
from loop.records import Item, Split
from tests.test_select import a_config, keys, whole


def test_shares_have_the_reference_values() -> None:
    first, second = {"a": 1.2, "b": 1.5, "c": 2.0}, {"a": 1.15, "b": 1.4, "c": 1.7}
    assert list(shares([first]).values()) == pytest.approx([0.218560, 0.295025, 0.486415], abs=1e-6)
    assert list(shares([first, second]).values()) == pytest.approx([0.242531, 0.298159, 0.459309], abs=1e-6)


def test_every_domain_keeps_a_floor_and_one_that_was_not_seen_is_average() -> None:
    lopsided = shares([{"a": 4.0, "b": 0.5, "c": 0.5}] * 20)
    assert min(lopsided.values()) >= 1 / 6
    assert sum(lopsided.values()) == pytest.approx(1)
    later = shares([{"a": 1.0, "b": 3.0}, {"a": 1.0, "b": 3.0, "c": 2.0}])
    assert later["a"] < later["c"] < later["b"]
    assert shares([]) == {}


def test_a_domain_that_dev_has_no_items_of_is_average_and_gets_its_places() -> None:
    found = shares([{"a": 1.0, "b": 3.0}] * 3, {"a", "rare"})
    assert found["a"] < found["rare"] < found["b"]
    assert quotas(found, 10, {"a": 9, "b": 9, "rare": 9})["rare"] > 0
    assert shares([{}], {"a"}) == {}


def test_gap_is_the_ratio_of_error_rates_within_bounds() -> None:
    assert gap([True] * 3 + [False], [True] * 1 + [False] * 9) == pytest.approx((4 / 6) / (2 / 12))
    assert gap([True] * 99, [False] * 99) == 4.0
    assert gap([False] * 99, [True] * 99) == 0.5
    assert gap([], []) == 1.0


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9), min_size=1),
    st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1)),
    st.integers(0, 40),
)
def test_quotas_fill_the_size_and_never_pass_what_there_is(
    available: dict[str, int], share: dict[str, float], size: int
) -> None:
    given_places = quotas(share, size, available)
    assert sum(given_places.values()) == min(size, sum(available.values()))
    assert all(0 <= given_places[name] <= available[name] for name in available)


def test_lagging_domains_come_first_and_the_rest_follows_the_ranking() -> None:
    pool = [
        Item(key=f"{domain}{n}", question=f"{domain} {n}", split=Split.POOL, text_hash="", domain=domain)
        for domain in "ab"
        for n in range(10)
    ]
    config = a_config(batch_size=8, domain_share=0.5)
    picked = keys(compose(1, pool, whole(pool), config, seed=0, past=Past(shares={"a": 0.25, "b": 0.75})))
    assert sorted(picked) == ["a0", "a1", "a2", "a3", "a4", "b0", "b1", "b2"]
    alone = a_config(batch_size=8, domain_share=0.0)
    assert keys(compose(1, pool, whole(pool), alone, seed=0, past=Past(shares={"b": 1.0}))) == [
        f"a{n}" for n in range(8)
    ]
    assert keys(compose(1, pool, whole(pool), config, seed=0, past=Past(shares={}))) == [f"a{n}" for n in range(8)]
