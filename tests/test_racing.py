"""Racing: what all samples will show is foreseen, who stops early, and that little is lost by it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from loop.answer import Answer, AnswerKind
from loop.config import QueryConfig
from loop.ports import Explanation
from loop.query.divergence import rank_average, vote_entropy
from loop.query.racing import chances, foresee, undecided
from loop.query.select import after_race, race_chunk
from loop.records import Item, Score, Split

SAMPLED = st.lists(st.none() | st.sampled_from("abc"), min_size=1, max_size=5)


def left_open(parts: list[dict[str, Any]], taken: int, config: QueryConfig) -> NDArray[np.bool_]:
    """Which items need another sample where all cost the same."""
    return undecided(parts, taken, np.ones(len(parts)), config)


def part(greedy: str | None, *sampled: str | None, intra: float = 0.5) -> dict[str, Any]:
    return {"intra": intra, "inter": 0.0, "answer": greedy, "sampled_answers": list(sampled)}


def answers(sampled: Sequence[str | None]) -> list[Answer | None]:
    return [None if each is None else Answer(kind=AnswerKind.TEXT, value=each) for each in sampled]


@given(st.lists(st.tuples(st.none() | st.sampled_from("abc"), SAMPLED), min_size=1, max_size=6))
def test_what_is_foreseen_is_an_entropy_and_the_one_that_is_there(rows: list[tuple[str | None, list[str]]]) -> None:
    seen = foresee([part(greedy, *sampled) for greedy, sampled in rows], QueryConfig(samples=5))
    assert (seen >= 0).all()
    assert (seen <= 1 + 1e-9).all()
    for place, (_, sampled) in enumerate(rows):
        if len(sampled) == 5:
            assert seen[place] == pytest.approx(vote_entropy(answers(sampled)), abs=1e-9)


def test_what_is_foreseen_is_the_urn_s_mean() -> None:
    # Two items, one differs: a new answer weighs (2 / 4) / (1 - 2 / 4) = 1, as the greedy one and each sample do.
    # After (a; a) the next is a with 2/3, and the entropy of two unlike votes is 1.
    assert foresee([part("a", "a"), part("a", "b")], QueryConfig(samples=2)).tolist() == pytest.approx([1 / 3, 2 / 3])


@given(st.lists(st.tuples(st.none() | st.sampled_from("abc"), SAMPLED), min_size=3, max_size=9), st.integers(1, 3))
def test_chances_share_the_places_of_the_batch(rows: list[tuple[str | None, list[str]]], size: int) -> None:
    parts = [part(greedy, *sampled) for greedy, sampled in rows]
    found = chances(parts, np.ones(len(parts)), QueryConfig(samples=5, batch_size=size), seed=0)
    assert found.sum() == pytest.approx(size)
    assert ((found >= 0) & (found <= 1)).all()


def test_chances_are_certain_where_all_samples_are_there_and_the_cheaper_of_two_alike_comes_first() -> None:
    parts = [part("a", "b", "c"), part("a", "a", "a"), part("a", "b", "c")]
    config = QueryConfig(samples=2, batch_size=1)
    assert chances(parts, np.ones(3), config, seed=0).tolist() == [0.5, 0, 0.5]
    assert chances(parts, np.array([1.0, 1.0, 2.0]), config, seed=0).tolist() == [1, 0, 0]


def test_more_confidence_takes_more_samples() -> None:
    parts = world(100, seed=3, taken=1)
    still = [
        left_open(parts, 1, QueryConfig(batch_size=20, racing_confidence=each)).sum() for each in (0.6, 0.85, 0.99)
    ]
    assert still == sorted(still)
    assert still[0] < still[-1]


def test_items_that_cannot_reach_the_batch_are_sampled_no_more() -> None:
    config = QueryConfig(samples=4, batch_size=2)
    parts = [part("a", "a", "a", intra=0.0)] * 20 + [part("a", "b", "c", intra=1.0)] * 2
    assert not left_open(parts, 2, config).any()


def test_a_pool_no_larger_than_the_batch_is_not_raced() -> None:
    assert not left_open([part("a", "b")] * 3, 1, QueryConfig(samples=4, batch_size=3)).any()


def test_items_all_alike_are_raced_to_the_end() -> None:
    config = QueryConfig(samples=3, batch_size=2)
    assert left_open([part("a", "b")] * 5, 1, config).all()
    assert left_open([part("a", "b", "b")] * 5, 2, config).all()
    assert not left_open([part("a", "b", "b", "c")] * 5, 3, config).any()


def test_a_race_that_was_cut_off_goes_on_as_it_would_have() -> None:
    config = QueryConfig(samples=4, batch_size=2)
    before = world(40, seed=1, taken=1)
    still = left_open(before, 1, config)
    full = world(40, seed=1, taken=2)
    half = [full[place] if still[place] and place % 2 else each for place, each in enumerate(before)]
    assert left_open(half, 1, config).tolist() == still.tolist()


def world(count: int, *, seed: int, taken: int) -> list[dict[str, Any]]:
    """Items whose samples differ from the greedy answer with a probability of their own."""
    chance = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        apart = chance.beta(0.6, 1.2)
        drawn = ["a" if chance.random() > apart else str(chance.choice(list("bcd"))) for _ in range(8)]
        rows.append(part("a", *drawn[:taken], intra=float(np.clip(apart + chance.normal(0, 0.3), 0, 1))))
    return rows


def race(rows: list[dict[str, Any]], config: QueryConfig) -> tuple[set[int], float]:
    """The batch after a race over known samples, and the share of samples that it looked at."""
    seen = [{**each, "sampled_answers": each["sampled_answers"][:1]} for each in rows]
    for taken in range(1, config.samples):
        for place, wanted in enumerate(left_open(seen, taken, config)):
            if wanted:
                seen[place] = {**seen[place], "sampled_answers": rows[place]["sampled_answers"][: taken + 1]}
    looked = sum(len(each["sampled_answers"]) for each in seen) / (len(rows) * config.samples)
    return top([each["intra"] for each in rows], foresee(seen, config).tolist(), config), looked


def top(intra: list[float], inter: list[float], config: QueryConfig) -> set[int]:
    order = np.argsort(-rank_average(intra, inter, config.intra_weight), kind="stable")
    return set(order[: config.batch_size].tolist())


def test_racing_looks_at_fewer_samples_and_finds_nearly_the_same_batch() -> None:
    config = QueryConfig(samples=4, batch_size=40)
    overlaps, ceilings, looked = [], [], []
    for seed in range(10):
        whole = world(200, seed=seed, taken=4)
        again = [
            {**each, "sampled_answers": other["sampled_answers"][4:]}
            for each, other in zip(whole, world(200, seed=seed, taken=8), strict=True)
        ]
        intra = [each["intra"] for each in whole]
        full, independent = (
            top(intra, [vote_entropy(answers(each["sampled_answers"])) for each in rows], config)
            for rows in (whole, again)
        )
        raced, share = race(whole, config)
        overlaps.append(len(raced & full) / 40)
        ceilings.append(len(independent & full) / 40)
        looked.append(share)
    assert np.mean(overlaps) >= 0.95 * np.mean(ceilings)
    assert np.mean(looked) < 0.45


class Repeating:
    """A student that always samples the same answer."""

    def explain(self, items: Sequence[Item], *, copies: Sequence[int], **_: object) -> list[list[Explanation]]:
        self.copies = list(copies)
        return [[Explanation((), Answer(kind=AnswerKind.NUMBER, value="7"))] for _ in items]


def test_a_raced_chunk_gets_one_more_sample_and_then_the_expected_divergence() -> None:
    item = Item(key="k", question="?", split=Split.POOL, text_hash="")
    seven = Answer(kind=AnswerKind.NUMBER, value="7").canonical
    row = Score(round_id=1, item_key="k", chunk=0, score=0.1, parts=part(seven, seven, intra=0.2))
    student = Repeating()
    config = QueryConfig(samples=3)
    [after] = race_chunk([row], {"k": item}, student, config, seed=0)  # type: ignore[arg-type]
    assert student.copies == [2]
    assert after.parts["sampled_answers"] == [seven, seven]
    [done] = after_race([after], config)
    # One of one item agrees, so a new answer weighs (1 / 3) / (2 / 3) = 1/2 against 3 for the old one.
    two_to_one = (2 / 3 * math.log(3 / 2) + 1 / 3 * math.log(3)) / math.log(3)
    assert done.parts["inter"] == pytest.approx(0.5 / 3.5 * two_to_one)
    assert done.score == pytest.approx((0.2 + done.parts["inter"]) / 2)
