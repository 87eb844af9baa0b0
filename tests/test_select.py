"""Which items a batch takes: pure functions of seed and scores, a control arm, audits drawn beforehand."""

import random
from collections import Counter
from collections.abc import Sequence
from statistics import mean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.config import Config, QueryConfig
from loop.query.acquisition import ACQUISITIONS, HERDED
from loop.query.control import control_arm, control_prefix, first_keys
from loop.query.select import (
    Past,
    Pool,
    best,
    candidates,
    chunks,
    compose,
    is_herded,
    known,
    random_batch,
    score_chunk,
)
from loop.records import Item, Query, Split
from tests.builders import an_item
from tests.test_divergence import WrittenStudent, numbers

NONE = np.zeros((0, 0))


def a_pool(size: int) -> list[Item]:
    return [Item(key=f"k{n:03}", question=f"question {n}", split=Split.POOL, text_hash="") for n in range(size)]


def whole(pool: Sequence[Item]) -> Pool:
    return Pool(len(pool), pool)


def a_config(seed: int = 0, audit_share: float = 0.0, **query: object) -> Config:
    return Config.model_validate(
        {
            "run": {"seed": seed},
            "query": {"random_share": 0.0, "duplicate_similarity": 1.0, "diversity": 1, **query},
            "review": {"audit_share": audit_share},
        }
    )


def parts(values: Sequence[float], inter: Sequence[float] | None = None) -> list[dict[str, float]]:
    return [{"intra": one, "inter": other} for one, other in zip(values, inter or values, strict=True)]


def ranked(pool: Sequence[Item], values: Sequence[float], config: Config, seed: int = 0) -> list[Item]:
    found = known(parts(values), NONE, NONE, np.zeros(0), np.ones(len(values)), config.query)
    return best(pool, found, config.query, seed=seed)


def chosen(pool: Sequence[Item], values: Sequence[float], config: Config, seed: int = 0) -> list[Query]:
    return compose(1, ranked(pool, values, config, seed), whole(pool), config, seed=seed)


def keys(batch: Sequence[Query], arm: str | None = None) -> list[str]:
    return [query.item_key for query in batch if arm in (None, query.arm)]


def drawn(keys: Sequence[str], size: int, seed: int) -> list[str]:
    return [*candidates(iter(keys), len(keys), size=size, seed=seed)]


def test_candidates_that_stream_by_are_those_of_a_draw_from_the_whole_pool() -> None:
    ordered = [f"k{n:03}" for n in range(50)]
    for size, seed in ((20, 3), (20, 4), (1, 0), (49, 1), (50, 2)):
        chosen = random.Random(f"candidates/{seed}").sample(ordered, size)
        assert drawn(ordered, size, seed) == sorted(chosen)
    assert drawn(ordered, 20, 3) != drawn(ordered, 20, 4)
    assert drawn(ordered, 51, 0) == ordered


def test_the_first_of_the_control_arm_are_found_in_whatever_order_keys_stream_by() -> None:
    pool = a_pool(60)
    whole = [item.key for item in control_arm(pool, 60, 7)]
    for size in (0, 1, 7, 60, 99):
        keys = random.Random(size).sample([item.key for item in pool], 60)
        assert first_keys(iter(keys), size, 7) == whole[:size]


def test_chunks_do_not_depend_on_the_order_of_the_pool() -> None:
    pool = a_pool(50)
    mixed = random.Random(1).sample(pool, 50)
    assert chunks(pool, 7) == chunks(mixed, 7)
    assert [len(chunk) for chunk in chunks(pool, 7)] == [7] * 7 + [1]
    assert [item.key for chunk in chunks(mixed, 7) for item in chunk] == [item.key for item in pool]


def test_the_largest_divergences_are_picked_in_their_order() -> None:
    batch = chosen(a_pool(20), [n / 20 for n in range(20)], a_config(batch_size=5))
    assert keys(batch) == ["k019", "k018", "k017", "k016", "k015"]
    assert {(query.arm, query.probability) for query in batch} == {("divergence", None)}
    assert [query.position for query in batch] == [0, 1, 2, 3, 4]


def test_the_weight_says_which_part_counts() -> None:
    rows = parts([0.9, 0.5, 0.1], [0.1, 0.2, 0.3])
    for weight, expected in ((1.0, [1, 0.5, 0]), (0.0, [0, 0.5, 1]), (0.5, [0.5, 0.5, 0.5])):
        found = known(rows, NONE, NONE, np.zeros(0), np.ones(len(rows)), QueryConfig(intra_weight=weight))
        assert found.divergence.tolist() == expected


def test_the_control_arm_follows_one_order_of_the_pool() -> None:
    pool = a_pool(40)
    whole = [item.key for item in control_arm(pool, 40, 7)]
    assert sorted(whole) == [item.key for item in pool]
    assert [item.key for item in control_arm(pool[::-1], 5, 7)] == whole[:5]
    later = [item for item in pool if item.key not in whole[:5]]
    assert [item.key for item in control_arm(later, 5, 7)] == whole[5:10]
    assert [item.key for item in control_arm(pool, 40, 8)] != whole


def test_the_control_arm_s_prefix_is_all_of_the_order_up_to_where_it_goes_on() -> None:
    pool = a_pool(40)
    order = [item.key for item in control_arm(pool, 40, 7)]
    asked, may_be = {*order[:5], order[6], order[20]}, {*order[5:]} - {order[6]}
    assert control_prefix(asked, may_be, 7) == {*order[:5]}
    by_selection = {*asked, order[5]}
    assert control_prefix(by_selection, may_be, 7) == {*order[:7]}
    assert control_prefix(asked, may_be - {order[5]}, 7) == {*order[:5], order[6]}  # nobody may ask that one
    new = Item(key="new0", question="?", split=Split.POOL, text_hash="")
    place = control_arm([*pool, new], 41, 7).index(new)
    grown = control_prefix({*order}, {"new0"}, 7)
    assert grown == {*order[:place]}  # a hole that the next round's control arm fills first
    assert control_arm([new], 1, 7) == [new]


def test_small_batches_get_their_share_of_the_control_arm_over_the_rounds() -> None:
    config, left, picks = a_config(batch_size=4, random_share=0.1), a_pool(80), []
    drawn = 0
    for seed in range(15):
        batch = compose(1, left, whole(left), config, seed=seed, past=Past(picks))
        drawn += len(keys(batch, "random"))
        assert abs(drawn - 0.1 * (len(picks) + 4)) <= 0.5
        picks += [item for item in left if item.key in keys(batch)]
        left = [item for item in left if item not in picks]
    assert drawn == 6


def test_near_duplicates_of_the_control_arm_and_of_what_was_asked_before_are_passed_over() -> None:
    twins = [Item(key=f"t{n}", question="Why is the sky so blue?", split=Split.POOL, text_hash="") for n in range(2)]
    pool, config = [*a_pool(8), *twins], a_config(batch_size=4, random_share=0.25, duplicate_similarity=0.9)
    wanted = [*twins, *a_pool(8)]
    seed = next(seed for seed in range(99) if control_arm(pool, 1, seed) == [twins[0]])
    batch = compose(
        1, wanted, whole(pool), config.model_copy(update={"run": config.run.model_copy(update={"seed": seed})}), seed=0
    )
    assert keys(batch, "random") == ["t0"]
    assert "t1" not in keys(batch)
    plain = a_config(batch_size=2, duplicate_similarity=0.9)
    assert keys(compose(1, wanted, whole(pool), plain, seed=0)) == ["t0", "k000"]
    assert keys(compose(1, wanted[1:], whole(pool[:-2] + twins[1:]), plain, seed=0, past=Past(twins[:1]))) == [
        "k000",
        "k001",
    ]
    again = compose(1, wanted, whole(pool), plain, seed=0, past=Past(twins[:1]))
    assert keys(again) == ["t0", "k000"]  # what is asked once more does not resemble itself


def test_the_control_arm_is_drawn_from_the_whole_pool_with_its_probability() -> None:
    pool = a_pool(40)
    seen: Counter[str] = Counter()
    for seed in range(2_000):
        config = a_config(seed, batch_size=10, random_share=0.2)
        batch = compose(1, pool[:20], whole(pool), config, seed=seed)
        assert len(set(keys(batch))) == 10
        assert {query.probability for query in batch if query.arm == "random"} == {2 / 40}
        seen.update(keys(batch, "random"))
    assert len(seen) == 40
    assert max(abs(count / 2_000 - 2 / 40) for count in seen.values()) < 0.02


def test_the_batch_does_not_depend_on_the_order_of_the_pool() -> None:
    pool, config = a_pool(30), a_config(batch_size=10, random_share=0.3, audit_share=0.3)
    wanted = ranked(pool, [n % 3 / 3 for n in range(30)], config)
    one, other = (compose(1, wanted, whole(some), config, seed=5) for some in (pool, pool[::-1]))
    assert [query.model_dump() for query in one] == [query.model_dump() for query in other]


def test_ties_are_broken_by_the_seed_not_by_place() -> None:
    pool, config = a_pool(20), a_config(batch_size=4)
    seen: Counter[str] = Counter()
    for seed in range(2_000):
        seen.update(keys(chosen(pool, [0.5] * 20, config, seed)))
    assert len(seen) == 20
    assert max(abs(count / 2_000 - 4 / 20) for count in seen.values()) < 0.04


def test_near_duplicates_of_a_pick_are_passed_over_unless_the_batch_needs_them() -> None:
    story = "Anna walks to the market early and buys twelve red apples for her mother and three pears for her aunt {}"
    twins = [
        Item(key=f"t{n}", question=story.format(name), split=Split.POOL, text_hash="")
        for n, name in enumerate(("today", "tonight", "again"))
    ]
    pool = [*twins, *a_pool(5)]
    values = [0.9, 0.8, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1]
    some = keys(chosen(pool, values, a_config(batch_size=3, duplicate_similarity=0.7)))
    assert some[0] == "t0"
    assert not {"t1", "t2"} & set(some)
    assert keys(chosen(pool, values, a_config(batch_size=3, duplicate_similarity=1.0))) == ["t0", "t1", "t2"]
    everything = keys(chosen(pool, values, a_config(batch_size=8, duplicate_similarity=0.7)))
    assert everything[-2:] == ["t1", "t2"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(1, 12), st.floats(0, 1), st.integers(0, 99))
def test_a_batch_names_distinct_pool_items_and_is_full_where_the_pool_allows(
    size: int, wanted: int, share: float, seed: int
) -> None:
    pool = a_pool(size)
    config = a_config(seed, batch_size=wanted, random_share=share, candidates=1)
    by_key = {item.key: item for item in pool}
    some = [by_key[key] for key in drawn([*by_key], wanted, seed)]
    batch = compose(1, ranked(some, [0.1] * len(some), config), whole(pool), config, seed=seed)
    assert len(set(keys(batch))) == len(batch)
    assert len(batch) >= min(size, wanted) - round(share * wanted)
    assert set(keys(batch)) <= {item.key for item in pool}
    assert len(keys(batch, "random")) == round(share * min(size, wanted))


def test_shuffled_scores_pick_like_chance() -> None:
    pool = a_pool(30)
    values = [n / 30 for n in range(30)]
    by_shuffled: Counter[str] = Counter()
    by_chance: Counter[str] = Counter()
    for seed in range(2_000):
        config = a_config(seed, batch_size=6)
        by_shuffled.update(keys(chosen(pool, random.Random(seed).sample(values, 30), config, seed)))
        by_chance.update(keys(random_batch(1, whole(pool), config, seed=seed, arm="random")))
    expected = 2_000 * 6 / 30
    for seen in (by_shuffled, by_chance):
        chi_square = sum((seen[item.key] - expected) ** 2 / expected for item in pool)
        assert chi_square < 58.3  # the 99.9th percentile with 29 degrees of freedom; seeds are fixed


def test_an_oracle_finds_more_of_what_is_wrong_than_chance() -> None:
    pool = a_pool(60)
    wrong = {item.key for item in pool[::4]}
    oracle = [float(item.key in wrong) for item in pool]
    found, lucky = [], []
    for seed in range(50):
        config = a_config(seed, batch_size=12, random_share=0.1)
        found.append(len(wrong & set(keys(chosen(pool, oracle, config, seed)))))
        lucky.append(len(wrong & set(keys(random_batch(1, whole(pool), config, seed=seed, arm="random")))))
    assert mean(lucky) == pytest.approx(3, abs=0.6)
    assert mean(found) > 11


def by_default(seed: int, **query: object) -> Config:
    """As a batch is composed by default, but for its size: it covers what is doubted, and near-duplicates wait."""
    return Config.model_validate({"run": {"seed": seed}, "query": {"batch_size": 12, **query}})


def herded_batch(
    pool: Sequence[Item], doubt: Sequence[float], points: np.ndarray, config: Config, seed: int
) -> set[str]:
    """The keys of a batch that covers these doubts, nothing having been asked before."""
    assert is_herded(config.query)
    nothing = np.zeros((0, points.shape[1]))
    found = known(parts(doubt), points, nothing, np.zeros(0), np.ones(len(pool)), config.query)
    return {*keys(compose(1, best(pool, found, config.query, seed=seed), whole(pool), config, seed=seed))}


def placed(chance: np.random.Generator, count: int) -> np.ndarray:
    """Vectors of length one, some of which lie in heaps."""
    heaps = chance.normal(size=(5, 8))
    points = heaps[chance.integers(5, size=count)] + 0.5 * chance.normal(size=(count, 8))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_shuffled_scores_pick_like_chance_by_default_too() -> None:
    """Where items lie is drawn anew each time, so that no item has a better place than another."""
    pool = a_pool(30)
    values = [n / 30 for n in range(30)]
    seen: Counter[str] = Counter()
    for seed in range(300):
        config, points = by_default(seed, batch_size=6), placed(np.random.default_rng(seed), 30)
        seen.update(herded_batch(pool, random.Random(seed).sample(values, 30), points, config, seed))
    expected = 300 * 6 / 30
    chi_square = sum((seen[item.key] - expected) ** 2 / expected for item in pool)
    assert chi_square < 58.3  # the 99.9th percentile with 29 degrees of freedom; seeds are fixed


def test_an_oracle_finds_more_of_what_is_wrong_than_chance_by_default_and_shuffled_it_does_not() -> None:
    """What is wrong lies anywhere: where items lie says nothing of it."""
    pool, oracle = a_pool(60), [float(number % 4 == 0) for number in range(60)]
    wrong = {item.key for item, doubt in zip(pool, oracle, strict=True) if doubt}
    found, shuffled, lucky = [], [], []
    for seed in range(60):
        config, points = by_default(seed), placed(np.random.default_rng(seed), 60)
        found.append(len(wrong & herded_batch(pool, oracle, points, config, seed)))
        mixed = random.Random(seed).sample(oracle, 60)
        shuffled.append(len(wrong & herded_batch(pool, mixed, points, config, seed)))
        lucky.append(len(wrong & {*keys(random_batch(1, whole(pool), config, seed=seed, arm="random"))}))
    assert mean(lucky) == pytest.approx(3, abs=0.5)
    assert mean(shuffled) == pytest.approx(3, abs=0.5)
    assert mean(found) > 8


def test_a_random_batch_says_its_arm_and_probability() -> None:
    config = a_config(batch_size=10)
    batch = random_batch(1, whole(a_pool(40)), config, seed=0, arm="cold start")
    assert {(query.arm, query.probability) for query in batch} == {("cold start", 0.25)}
    assert len(set(keys(batch))) == 10
    assert keys(batch) == keys(random_batch(1, whole(a_pool(40)[::-1]), config, seed=0, arm="cold start"))


def test_audits_are_drawn_with_their_stored_probability_whatever_the_score() -> None:
    pool, values = a_pool(40), [n / 40 for n in range(40)]
    config = a_config(batch_size=20, random_share=0.1, audit_share=0.25)
    batches = [chosen(pool, values, config, seed) for seed in range(500)]
    everyone = [query for batch in batches for query in batch]
    assert {query.audit_probability for query in everyone} == {0.25}
    for some in (everyone, [query for query in everyone if query.position == 0]):
        assert mean(query.audit for query in some) == pytest.approx(0.25, abs=0.06)
    assert not any(query.audit for query in chosen(pool, values, a_config(audit_share=0.0)))
    assert all(query.audit for query in chosen(pool, values, a_config(audit_share=1.0)))


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


def test_answers_are_scored_by_their_probabilities_or_by_the_votes() -> None:
    pool = a_pool(2)
    student = WrittenStudent(
        {"k000": (numbers(1), numbers(1, 2, 1, None)), "k001": (numbers(3), numbers(3, 3, 3, 3))},
    )
    rows = score_chunk(1, 0, pool, student, QueryConfig(acquisition="margin", samples=4), seed=0)
    assert [row.parts for row in rows] == [{"probabilities": [0.5, 0.25, 0.25]}, {"probabilities": [1.0]}]
    assert [row.score for row in rows] == [0.5, 0.0]


def test_the_best_by_value_are_picked_so_that_they_cover_what_is_doubted() -> None:
    items = [an_item(f"q{number:02}") for number in range(12)]
    groups = np.repeat(np.eye(3), 4, axis=0)
    query = QueryConfig(batch_size=3, diversity=4, random_share=0)
    values = [{"intra": 1 - number / 20, "inter": 0.5} for number in range(12)]
    found = known(values, groups, np.zeros((0, 3)), np.zeros(0), np.ones(12), query)
    order = [item.key for item in best(items, found, query, seed=1)]
    assert [int(key[1:]) // 4 for key in order[:3]] == [0, 1, 2]  # the group with the most doubt first
    assert sorted(order) == [item.key for item in items]
    plain = query.model_copy(update={"diversity": 1})
    assert [item.key for item in best(items, found, plain, seed=1)][:3] == ["q00", "q01", "q02"]
    fewer = query.model_copy(update={"diversity": 2})
    assert {item.key for item in best(items, found, fewer, seed=1)[:6]} == {f"q{number:02}" for number in range(6)}


@pytest.mark.parametrize("name", sorted({*ACQUISITIONS} - HERDED))
def test_what_looks_at_the_whole_set_or_at_chance_is_not_herded(name: str) -> None:
    items = [an_item(f"q{number:02}") for number in range(12)]
    query = QueryConfig.model_validate({"acquisition": name, "batch_size": 3})
    assert not is_herded(query)
    points = np.random.default_rng(2).normal(size=(12, 3))
    seen = [{"probabilities": [0.6, 0.4]}] * 12
    found = known(seen, points, np.zeros((0, 3)), np.zeros(0), np.ones(12), query)
    orders = [
        best(items, found, query.model_copy(update={"diversity": diversity}), seed=1)[:3] for diversity in (1, 3, 4)
    ]
    assert orders[0] == orders[1] == orders[2]
