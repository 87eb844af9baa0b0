"""How far explanations disagree: reference values, bounds, and what a student's explanations are turned into."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from loop.answer import Answer, AnswerKind
from loop.config import QueryConfig
from loop.ports import Explanation, Forced, StudentPrediction
from loop.query.divergence import (
    divergences,
    expected_disagreement,
    expected_flips,
    late_weighted_flips,
    left_out_changes,
    mean_jensen_shannon,
    order_disagreement,
    rank_average,
    vote_entropy,
)
from loop.records import Item, Split


def number(value: int) -> Answer:
    return Answer(kind=AnswerKind.NUMBER, value=str(value))


def numbers(*values: int | None) -> list[Answer | None]:
    return [None if value is None else number(value) for value in values]


ANSWERS = st.lists(st.none() | st.integers(0, 3).map(number), min_size=2, max_size=13)


def test_late_flips_weigh_more_than_early_ones() -> None:
    assert late_weighted_flips(numbers(7, 7, 9, 12, 12)) == pytest.approx(2 / 20 * (2 + 3))
    assert late_weighted_flips(numbers(1, 2, 2, 2)) == pytest.approx(1 / 6)
    assert late_weighted_flips(numbers(1, 1, 1, 2)) == pytest.approx(3 / 6)


def test_an_answer_that_never_changes_does_not_flip() -> None:
    assert late_weighted_flips(numbers(5, 5, 5)) == 0.0


def test_no_steps_are_as_uncertain_as_can_be() -> None:
    assert late_weighted_flips(numbers(5)) == 1.0


def test_unreadable_answers_never_equal_each_other() -> None:
    assert late_weighted_flips(numbers(None, None, None)) == 1.0
    assert late_weighted_flips(numbers(4, None, 4)) == pytest.approx(1.0)
    assert vote_entropy(numbers(None, None, None, None)) == pytest.approx(1.0)
    assert vote_entropy(numbers(3, 3, None, None)) == pytest.approx(vote_entropy(numbers(3, 3, 4, 5)))


def test_jensen_shannon_has_the_known_values() -> None:
    apart = mean_jensen_shannon([(0.7, 0.2, 0.1), (0.1, 0.3, 0.6)])
    assert apart * math.log(2) == pytest.approx(0.230645, abs=1e-6)
    assert mean_jensen_shannon([(1.0, 0.0), (0.0, 1.0)]) == 1.0
    assert mean_jensen_shannon([(0.4, 0.6)] * 3) == 0.0
    assert mean_jensen_shannon([(0.7, 0.2, 0.1), (0.1, 0.3, 0.6), (0.1, 0.3, 0.6)]) == pytest.approx(apart / 2)
    assert mean_jensen_shannon([(0.5, 0.5)]) == 1.0


def test_steps_without_which_the_answer_changes_are_counted() -> None:
    assert left_out_changes(numbers(5, 4, 5, None, 5)) == 0.5
    assert left_out_changes(numbers(5)) == 1.0


def test_three_of_four_prefixes_that_end_elsewhere_are_three_quarters() -> None:
    """The answers after 0 to 3 of 4 steps, against the one after all."""
    assert left_out_changes(numbers(7, 7, 9, 12, 12)) == 0.75


def test_votes_of_three_one_one_have_the_known_entropy() -> None:
    assert vote_entropy(numbers(2, 2, 2, 3, 4)) == pytest.approx(0.590436, abs=1e-6)
    assert vote_entropy(numbers(2, 2, 2, 3, 4)) * math.log(5) == pytest.approx(0.950271, abs=1e-6)


def test_unanimous_votes_have_no_entropy_and_distinct_votes_all_of_it() -> None:
    assert math.copysign(1, vote_entropy(numbers(1, 1, 1))) == 1
    assert vote_entropy(numbers(1, 1, 1)) == 0
    assert vote_entropy(numbers(1, 2, 3, 4, 5)) == pytest.approx(1.0)


@given(ANSWERS)
def test_every_part_lies_in_the_unit_interval(answers: list[Answer | None]) -> None:
    for part in (late_weighted_flips, vote_entropy):
        assert 0 <= part(answers) <= 1 + 1e-9


@given(ANSWERS, st.randoms())
def test_votes_have_no_order(answers: list[Answer | None], chance: object) -> None:
    assert vote_entropy(answers) == pytest.approx(vote_entropy(answers[::-1]))


def test_ranks_are_averaged_over_ties_and_scaled() -> None:
    assert rank_average([0.0, 0.2, 0.9], [5.0, 5.0, 1.0], 0.5).tolist() == [0.375, 0.625, 0.5]
    assert rank_average([0.1, 0.1], [0.3, 0.4], 1.0).tolist() == [0.5, 0.5]
    assert rank_average([0.7], [0.2], 0.5).tolist() == [0.0]
    assert rank_average([], [], 0.5).tolist() == []


def test_a_monotonous_change_of_scale_leaves_the_ranks() -> None:
    intra, inter = [0.1, 0.5, 0.3, 0.3], [0.9, 0.0, 0.4, 0.2]
    squeezed = [math.sqrt(value) / 100 for value in intra]
    assert rank_average(intra, inter, 0.3).tolist() == rank_average(squeezed, inter, 0.3).tolist()


class WrittenStudent:
    """A student that says what was written down for each item: prefix answers, then sampled answers."""

    def __init__(self, said: dict[str, tuple[list[Answer | None], list[Answer | None]]]) -> None:
        self.said = said

    def explain(
        self, items: Sequence[Item], *, copies: Sequence[int], temperature: float, top_p: float, seed: int
    ) -> list[list[Explanation]]:
        rows = []
        for item in items:
            prefixes, sampled = self.said[item.key]
            greedy = Explanation(tuple(f"step {n}" for n in range(1, len(prefixes))), prefixes[-1])
            rows.append([Explanation(("s",), sampled[copy - 1]) if copy else greedy for copy in copies])
        return rows

    def answers_after(self, items: Sequence[Item], parts: Sequence[Sequence[Sequence[str]]]) -> list[list[Forced]]:
        self.asked_after = list(parts)
        return [[Forced(answer) for answer in self.said[item.key][0]] for item in items]

    def probabilities(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        return [()] * len(items)

    def step_likelihoods(self, items: Sequence[Item], steps: Sequence[Sequence[str]]) -> list[list[float]]:
        raise AssertionError("scoring needs no likelihoods")

    def embed(self, items: Sequence[Item]) -> NDArray[np.float32]:
        raise AssertionError("scoring needs no embeddings")

    def predict(self, items: Sequence[Item]) -> list[StudentPrediction]:
        raise AssertionError("scoring needs no predictions")


def test_parts_hold_everything_the_score_was_made_of() -> None:
    student = WrittenStudent(
        {"a": (numbers(1, 2, 2), numbers(2, 2, 2)), "b": (numbers(None), numbers(1, 2, None))},
    )
    items = [Item(key=key, question="?", split=Split.POOL, text_hash="") for key in ("a", "b")]

    first, second = divergences(items, student, QueryConfig(samples=3), seed=0)

    one, two = number(1).canonical, number(2).canonical
    assert first == {
        "intra": pytest.approx(1 / 3),
        "inter": 0.0,
        "steps": ["step 1", "step 2"],
        "answer": two,
        "forced_answers": [one, two, two],
        "sampled_answers": [two, two, two],
    }
    assert second["intra"] == 1.0
    assert second["inter"] == pytest.approx(1.0)
    assert (second["steps"], second["answer"], second["forced_answers"]) == ([], None, [None])
    assert second["sampled_answers"] == [one, two, None]


def test_the_form_says_after_which_parts_of_the_explanation_answers_are_forced() -> None:
    items = [Item(key="a", question="?", split=Split.POOL, text_hash="")]
    student = WrittenStudent({"a": (numbers(1, 2, 2), numbers(2, 2))})
    [flips] = divergences(items, student, QueryConfig(samples=2), seed=0)
    assert student.asked_after == [[(), ("step 1",), ("step 1", "step 2")]]
    [left_out] = divergences(items, student, QueryConfig(samples=2, intra="leave_one_out"), seed=0)
    assert student.asked_after == [[("step 2",), ("step 1",), ("step 1", "step 2")]]
    assert (flips["intra"], left_out["intra"]) == (pytest.approx(1 / 3), 0.5)


def test_with_certain_answers_expected_flips_are_the_counted_ones() -> None:
    for values in ((7, 7, 9, 12, 12), (1, 2, 2, 2), (5, 5, 5), (5,)):
        certain = [tuple(float(value == each) for each in sorted(set(values))) for value in values]
        assert expected_flips(certain) == pytest.approx(late_weighted_flips(numbers(*values)))


def test_unsure_answers_flip_with_the_probability_that_two_of_them_differ() -> None:
    assert expected_flips([(0.5, 0.5), (0.8, 0.2)]) == pytest.approx(0.5)
    # 1/3 of the first step's 0.5 and 2/3 of the second's 1 - 0.8 * 0.9 - 0.2 * 0.1.
    assert expected_flips([(0.5, 0.5), (0.8, 0.2), (0.9, 0.1)]) == pytest.approx((0.5 + 2 * 0.26) / 3)


def test_disagreement_is_the_mean_over_pairs_of_the_probability_to_differ() -> None:
    rows = np.random.default_rng(0).dirichlet([1, 1, 1], size=4)
    pairs = [1 - one @ other for number, one in enumerate(rows) for other in rows[:number]]
    assert expected_disagreement([tuple(row) for row in rows]) == pytest.approx(np.mean(pairs))
    assert expected_disagreement([(1.0, 0.0)] * 3) == 0.0
    assert expected_disagreement([(1.0, 0.0), (0.0, 1.0)]) == 1.0
    assert expected_disagreement([(0.5, 0.5)]) == 0.0


def test_probabilities_are_used_where_the_student_has_them() -> None:
    class Unsure(WrittenStudent):
        def explain(self, items: Sequence[Item], **settings: Any) -> list[list[Explanation]]:
            written = super().explain(items, **settings)
            return [[replace(each, steps=(), probabilities=(0.5, 0.5)) for each in row] for row in written]

        def answers_after(self, items: Sequence[Item], parts: Sequence[Sequence[Sequence[str]]]) -> list[list[Forced]]:
            written = super().answers_after(items, parts)
            return [[replace(each, probabilities=(0.8, 0.2)) for each in row] for row in written]

    items = [Item(key="a", question="?", split=Split.POOL, text_hash="")]
    [parts] = divergences(items, Unsure({"a": (numbers(1, 1), numbers(1, 1))}), QueryConfig(samples=2), seed=0)
    assert (parts["intra"], parts["inter"]) == (pytest.approx(1 - 0.64 - 0.04), pytest.approx(0.5))


def test_evidence_in_the_same_order_does_not_disagree_and_other_evidence_does() -> None:
    assert order_disagreement([("a", "b", "c")] * 3) == 0.0
    assert order_disagreement([("a", "b"), ("c", "d")]) == 1.0
    # Depths 1..3 of (a, b, c) and (b, a, c) share 0/1, 2/2, 3/3.
    assert order_disagreement([("a", "b", "c"), ("b", "a", "c")]) == pytest.approx(1 / 3)


def test_what_comes_first_weighs_most_in_the_order_of_evidence() -> None:
    first = order_disagreement([("a", "b", "c", "d"), ("b", "a", "c", "d")])
    last = order_disagreement([("a", "b", "c", "d"), ("a", "b", "d", "c")])
    assert first > last > 0


def test_a_missing_explanation_shares_no_evidence() -> None:
    assert order_disagreement([(), ()]) == 0.0
    assert order_disagreement([("a",), ("a",), ()]) == pytest.approx(2 / 3)
