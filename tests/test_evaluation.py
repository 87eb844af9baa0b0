"""Students are graded on gold answers, with intervals that match published values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.answer import Answer, AnswerKind
from loop.evaluation import figures, grade, passes_gate
from loop.interval import Interval, clopper_pearson_upper, paired_difference, wilson
from loop.ports import Explanation, StudentPrediction
from tests.builders import a_number, an_item


def answered(value: str | None) -> StudentPrediction:
    answer = None if value is None else Answer(kind=AnswerKind.NUMBER, value=value)
    return StudentPrediction(answer=answer, explanation=Explanation(steps=(), answer=answer))


def pairs(both: int, only_first: int, only_second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Two runs over the same items with these counts."""
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return first, second


def test_an_answer_is_right_where_it_equals_gold() -> None:
    items = [an_item(f"h{number}", answer=a_number(5)) for number in range(3)]
    assert grade(items, [answered("5"), answered("6"), answered(None)]) == [True, False, False]


def test_an_item_without_gold_is_never_right() -> None:
    assert grade([an_item(), an_item("q2")], [answered("5"), answered(None)]) == [False, False]


def test_items_and_predictions_must_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        grade([an_item()], [])


def test_figures_are_accuracy_with_its_interval() -> None:
    found = figures([True] * 8 + [False] * 2)
    assert found["accuracy"] == 0.8
    assert found["n"] == 10
    assert (found["low"], found["high"]) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert figures([]) == {"accuracy": 0.0, "low": 0.0, "high": 1.0, "n": 0}


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]
)
def test_wilson_intervals_are_the_published_ones(successes: int, n: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("successes", "n", "bound"),
    [(0, 50, 0.0582), (2, 50, 0.1206), (5, 100, 0.1023), (10, 200, 0.0833), (0, 0, 1), (3, 3, 1)],
)
def test_upper_bounds_are_exact(successes: int, n: int, bound: float) -> None:
    assert clopper_pearson_upper(successes, n) == pytest.approx(bound, abs=5e-5)


def test_the_paired_interval_is_the_published_one() -> None:
    """Airway data of Bentur 2009 in Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014), 2850-2875."""
    before_treatment, after_treatment = pairs(1, 1, 7, 12)
    interval = paired_difference(after_treatment, before_treatment, 0.95)
    assert interval == pytest.approx((-0.507, -0.026), abs=5e-4)


def test_the_paired_interval_of_equal_runs_holds_zero() -> None:
    low, high = paired_difference([True, False] * 20, [True, False] * 20)
    assert low < 0 < high
    assert paired_difference([], []) == Interval(-1.0, 1.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_paired_interval_holds_the_difference_and_mirrors(outcomes: list[tuple[bool, bool]]) -> None:
    before, after = [old for old, _ in outcomes], [new for _, new in outcomes]
    low, high = paired_difference(before, after)
    assert -1 <= low <= (sum(after) - sum(before)) / len(outcomes) + 1e-9
    assert low <= high <= 1
    assert paired_difference(after, before) == pytest.approx((-high, -low))


def test_a_student_that_is_surely_worse_is_refused() -> None:
    before, after = pairs(20, 20, 1, 10)
    passed, interval = passes_gate(before, after, 0.9)
    assert not passed
    assert interval.high < 0


@pytest.mark.parametrize("counts", [(20, 1, 20, 10), (20, 5, 5, 10), (20, 4, 2, 10), (0, 0, 0, 0), (0, 0, 0, 5)])
def test_a_student_that_may_be_as_good_replaces_the_old(counts: tuple[int, int, int, int]) -> None:
    passed, interval = passes_gate(*pairs(*counts), 0.9)
    assert passed
    assert interval.high >= 0


def test_an_interval_says_itself() -> None:
    assert str(Interval(-0.1, 0.25)) == "-0.100 to 0.250"
