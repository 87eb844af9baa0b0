"""Which items a batch takes: pure functions of seed and scores, a control arm, audits drawn beforehand."""

import random
from collections import Counter
from collections.abc import Sequence
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.config import QueryConfig
from loop.query.select import candidates, chunks, final_scores, random_batch, score_chunk, select_batch
from loop.records import Item, Query, Score, Split
from tests.test_divergence import WrittenStudent, numbers


def a_pool(size: int) -> list[Item]:
    return [Item(key=f"k{n:03}", question=f"question {n}", split=Split.POOL, text_hash="") for n in range(size)]


def scored(pool: Sequence[Item], intra: Sequence[float], inter: Sequence[float] | None = None) -> list[Score]:
    both = zip(pool, intra, inter or intra, strict=True)
    return [
        Score(round_id=1, item_key=item.key, chunk=0, score=0.0, parts={"intra": one, "inter": other})
        for item, one, other in both
    ]


def keys(batch: Sequence[Query], arm: str | None = None) -> list[str]:
    return [query.item_key for query in batch if arm in (None, query.arm)]


def test_candidates_and_chunks_do_not_depend_on_the_order_of_the_pool() -> None:
    pool = a_pool(50)
    mixed = random.Random(1).sample(pool, 50)
    assert candidates(pool, size=20, seed=3) == candidates(mixed, size=20, seed=3)
    assert candidates(pool, size=20, seed=3) != candidates(pool, size=20, seed=4)
    assert chunks(pool, 7) == chunks(mixed, 7)
    assert [len(chunk) for chunk in chunks(pool, 7)] == [7] * 7 + [1]
    assert [item.key for chunk in chunks(mixed, 7) for item in chunk] == [item.key for item in pool]


def test_a_small_pool_is_scored_whole() -> None:
    assert len(candidates(a_pool(5), size=20, seed=0)) == 5


def test_the_largest_divergences_are_picked_in_their_order() -> None:
    pool = a_pool(20)
    config = QueryConfig(batch_size=5, random_share=0.0)
    batch = select_batch(1, scored(pool, [n / 20 for n in range(20)]), pool, config, seed=0, audit_share=0.1)
    assert keys(batch) == ["k019", "k018", "k017", "k016", "k015"]
    assert {(query.arm, query.probability) for query in batch} == {("divergence", None)}
    assert [query.position for query in batch] == [0, 1, 2, 3, 4]


def test_the_weight_says_which_part_counts() -> None:
    pool = a_pool(3)
    rows = scored(pool, [0.9, 0.5, 0.1], [0.1, 0.2, 0.3])
    assert final_scores(rows, QueryConfig(intra_weight=1.0)) == {"k000": 1.0, "k001": 0.5, "k002": 0.0}
    assert final_scores(rows, QueryConfig(intra_weight=0.0)) == {"k000": 0.0, "k001": 0.5, "k002": 1.0}
    assert set(final_scores(rows, QueryConfig(intra_weight=0.5)).values()) == {0.5}


def test_the_control_arm_is_drawn_from_the_whole_pool_with_its_probability() -> None:
    pool = a_pool(40)
    config = QueryConfig(batch_size=10, random_share=0.2)
    seen: Counter[str] = Counter()
    for seed in range(2_000):
        batch = select_batch(1, scored(pool[:20], [0.5] * 20), pool, config, seed=seed, audit_share=0.0)
        assert len(set(keys(batch))) == 10
        assert {query.probability for query in batch if query.arm == "random"} == {2 / 40}
        seen.update(keys(batch, "random"))
    assert len(seen) == 40
    assert max(abs(count / 2_000 - 2 / 40) for count in seen.values()) < 0.02


def test_the_batch_does_not_depend_on_the_order_of_the_scores() -> None:
    pool = a_pool(30)
    rows = scored(pool, [n % 3 / 3 for n in range(30)])
    config = QueryConfig(batch_size=10)
    one = select_batch(1, rows, pool, config, seed=5, audit_share=0.3)
    other = select_batch(1, rows[::-1], pool[::-1], config, seed=5, audit_share=0.3)
    assert [query.model_dump() for query in one] == [query.model_dump() for query in other]


def test_ties_are_broken_by_the_seed_not_by_place() -> None:
    pool = a_pool(20)
    config = QueryConfig(batch_size=4, random_share=0.0)
    seen: Counter[str] = Counter()
    for seed in range(2_000):
        seen.update(keys(select_batch(1, scored(pool, [0.5] * 20), pool, config, seed=seed, audit_share=0.0)))
    assert len(seen) == 20
    assert max(abs(count / 2_000 - 4 / 20) for count in seen.values()) < 0.04


def test_an_item_that_left_the_pool_is_not_picked() -> None:
    pool = a_pool(10)
    config = QueryConfig(batch_size=3, random_share=0.0)
    batch = select_batch(1, scored(pool, [n / 10 for n in range(10)]), pool[:8], config, seed=0, audit_share=0.0)
    assert keys(batch) == ["k007", "k006", "k005"]


@settings(max_examples=60)
@given(st.integers(0, 30), st.integers(1, 12), st.floats(0, 1), st.integers(0, 99))
def test_a_batch_names_distinct_pool_items_and_is_full_where_the_pool_allows(
    size: int, wanted: int, share: float, seed: int
) -> None:
    pool = a_pool(size)
    config = QueryConfig(batch_size=wanted, random_share=share, candidates=1)
    chosen = candidates(pool, size=wanted, seed=seed)
    rows = scored(chosen, [0.1] * len(chosen))
    batch = select_batch(1, rows, pool, config, seed=seed, audit_share=0.5)
    assert len(set(keys(batch))) == len(batch) == min(size, wanted)
    assert set(keys(batch)) <= {item.key for item in pool}
    assert len(keys(batch, "random")) == round(share * min(size, wanted))


def test_shuffled_scores_pick_like_chance() -> None:
    pool = a_pool(30)
    config = QueryConfig(batch_size=6, random_share=0.0)
    values = [n / 30 for n in range(30)]
    by_shuffled: Counter[str] = Counter()
    by_chance: Counter[str] = Counter()
    for seed in range(3_000):
        shuffled = random.Random(seed).sample(values, 30)
        by_shuffled.update(keys(select_batch(1, scored(pool, shuffled), pool, config, seed=seed, audit_share=0.0)))
        by_chance.update(keys(random_batch(1, pool, config, seed=seed, audit_share=0.0, arm="random")))
    expected = 3_000 * 6 / 30
    for seen in (by_shuffled, by_chance):
        chi_square = sum((seen[item.key] - expected) ** 2 / expected for item in pool)
        assert chi_square < 58.3  # the 99.9th percentile with 29 degrees of freedom; seeds are fixed


def test_an_oracle_finds_more_of_what_is_wrong_than_chance() -> None:
    pool = a_pool(60)
    wrong = {item.key for item in pool[::4]}
    oracle = scored(pool, [float(item.key in wrong) for item in pool])
    config = QueryConfig(batch_size=12, random_share=0.1)
    found = mean(
        len(wrong & set(keys(select_batch(1, oracle, pool, config, seed=seed, audit_share=0)))) for seed in range(50)
    )
    lucky = mean(
        len(wrong & set(keys(random_batch(1, pool, config, seed=seed, audit_share=0, arm="random"))))
        for seed in range(50)
    )
    assert lucky == pytest.approx(3, abs=0.6)
    assert found > 11


def test_a_random_batch_says_its_arm_and_probability() -> None:
    batch = random_batch(1, a_pool(40), QueryConfig(batch_size=10), seed=0, audit_share=0.0, arm="cold start")
    assert {(query.arm, query.probability) for query in batch} == {("cold start", 0.25)}
    assert len(set(keys(batch))) == 10
    again = random_batch(1, a_pool(40)[::-1], QueryConfig(batch_size=10), seed=0, audit_share=0.0, arm="cold start")
    assert keys(batch) == keys(again)


def test_audits_are_drawn_with_their_stored_probability_whatever_the_score() -> None:
    pool = a_pool(40)
    config = QueryConfig(batch_size=20, random_share=0.1)
    rows = scored(pool, [n / 40 for n in range(40)])
    batches = [select_batch(1, rows, pool, config, seed=seed, audit_share=0.25) for seed in range(500)]
    everyone = [query for batch in batches for query in batch]
    assert {query.audit_probability for query in everyone} == {0.25}
    for some in (everyone, [query for query in everyone if query.position == 0]):
        assert mean(query.audit for query in some) == pytest.approx(0.25, abs=0.06)
    assert not any(query.audit for query in select_batch(1, rows, pool, config, seed=0, audit_share=0.0))
    assert all(query.audit for query in select_batch(1, rows, pool, config, seed=0, audit_share=1.0))


def test_a_chunk_is_scored_with_its_parts_and_a_provisional_mean() -> None:
    pool = a_pool(2)
    student = WrittenStudent(
        {"k000": (numbers(1, 2), numbers(1, 2)), "k001": (numbers(3, 3), numbers(3, 3))},
    )
    config = QueryConfig(samples=2, intra_weight=0.25)
    rows = score_chunk(7, 4, pool, student, config, seed=0)
    assert [(row.round_id, row.item_key, row.chunk) for row in rows] == [(7, "k000", 4), (7, "k001", 4)]
    assert [row.score for row in rows] == [pytest.approx(1.0), 0.0]
    assert rows[0].parts["forced_answers"][0] == numbers(1)[0].canonical  # type: ignore[union-attr]
