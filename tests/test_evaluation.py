"""Students are graded on gold answers, with intervals that match published values."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.answer import Answer, AnswerKind, Span, spans_of
from loop.evaluation import (
    by_domain,
    figures,
    grade,
    macro_f1,
    mcnemar,
    mean_share,
    paired,
    passes_gate,
    span_f1,
)
from loop.interval import Interval, Sampled, clopper_pearson_upper, paired_difference, stratified, wilson
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


def test_a_share_of_one_stratum_has_wilson_s_interval() -> None:
    assert stratified([Sampled(50, 3, 40)]) == (0.075, pytest.approx(wilson(3, 40)))
    assert stratified([]) is stratified([Sampled(50, 0, 0, unseen=5)]) is None


def test_a_share_of_strata_is_covered_by_its_interval() -> None:
    draw = np.random.default_rng(0)
    weights, sizes, rates = (10, 200, 90), (20, 10, 40), (0.02, 0.1, 0.3)
    true = np.average(rates, weights=weights)
    covered = 0
    for _ in range(1000):
        counts = [int(draw.binomial(n, rate)) for n, rate in zip(sizes, rates, strict=True)]
        found = stratified([Sampled(w, k, n) for w, k, n in zip(weights, counts, sizes, strict=True)])
        assert found is not None
        covered += found[1].low <= true <= found[1].high
    assert 930 <= covered <= 1000


def test_what_was_not_looked_at_may_have_it_or_not() -> None:
    found = stratified([Sampled(10, 0, 10, unseen=10), Sampled(10, 0, 0)])
    assert found is not None
    value, (low, high) = found
    assert (value, low) == (0.0, 0.0)
    assert high == pytest.approx(wilson(10, 20).high / 2 + 0.5)


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


LABELLED = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["a", "b", "c", "d", None])), min_size=1)


@given(LABELLED)
def test_macro_f1_is_that_of_scikit_learn(answers: list[tuple[str, str | None]]) -> None:
    from sklearn.metrics import f1_score  # noqa: PLC0415 - a second

    gold, told = [true for true, _ in answers], [given for _, given in answers]
    labels = sorted({*gold, *(each for each in told if each is not None)})
    reference = f1_score(gold, [each or "unreadable" for each in told], labels=labels, average="macro", zero_division=0)
    found = macro_f1(gold, told)
    assert found is not None
    assert found.value == pytest.approx(reference)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.n == len(answers)


def test_a_rare_label_weighs_as_much_as_a_frequent_one() -> None:
    found = macro_f1(["a"] * 98 + ["b"] * 2, ["a"] * 100)
    assert found is not None
    assert found.value == pytest.approx((2 * 98 / (98 + 100)) / 2)
    assert macro_f1([], []) is None


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_mcnemars_test_is_that_of_statsmodels(outcomes: list[tuple[bool, bool]]) -> None:
    from statsmodels.stats.contingency_tables import mcnemar as reference  # noqa: PLC0415 - a second

    before, after = [old for old, _ in outcomes], [new for _, new in outcomes]
    table = [[0, 0], [0, 0]]
    for old, new in outcomes:
        table[old][new] += 1
    expected = reference(table, exact=True).pvalue if table[0][1] + table[1][0] else 1.0
    assert mcnemar(before, after) == pytest.approx(expected)
    assert mcnemar(after, before) == pytest.approx(mcnemar(before, after))


def test_the_published_mcnemar_value() -> None:
    """Bentur 2009 in Fagerland, Lydersen and Laake, BMC Medical Research Methodology 13 (2013), 91: exact test."""
    assert mcnemar(*pairs(1, 1, 7, 12)) == pytest.approx(0.0703, abs=5e-5)


def test_two_students_are_compared_on_what_both_answered() -> None:
    old = {f"h{n}": n < 5 for n in range(10)} | {"gone": True}
    new = {f"h{n}": n < 7 for n in range(10)} | {"added": True}
    found = paired(old, new, 0.9)
    assert found is not None
    assert (found["before"], found["after"], found["difference"]) == (0.5, 0.7, pytest.approx(0.2))
    assert (found["gained"], found["lost"], found["n"]) == (2, 0, 10)
    assert found["low"] < 0.2 < found["high"]
    assert found["p"] == 0.5
    assert paired({"a": True}, {"b": True}, 0.9) is None


def marks(*told: str) -> frozenset[Span]:
    return spans_of(Answer(kind=AnswerKind.SPANS, value=";".join(told)))


def test_marks_are_counted_exactly_and_where_they_overlap() -> None:
    gold = [marks("0-5:person", "9-14:city"), marks("3-7:city")]
    told = [marks("0-5:person", "10-14:city"), marks("3-7:person", "20-25:city")]
    exact, overlapping = (span_f1(gold, told, overlap=each) for each in (False, True))
    assert exact is not None
    assert overlapping is not None
    assert exact.value == pytest.approx(2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))
    assert overlapping.value == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))
    assert exact.n == 2
    assert exact.low <= exact.value <= exact.high


def test_marks_that_touch_do_not_overlap() -> None:
    found = span_f1([marks("0-5:city")], [marks("5-9:city")], overlap=True)
    assert found is not None
    assert found.value == 0
    assert span_f1([marks()], [marks()], overlap=True) is None
    assert span_f1([], [], overlap=False) is None


@given(st.lists(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5), st.sampled_from("ab")), max_size=4)))
def test_overlapping_marks_are_never_fewer_than_equal_ones(rows: list[list[tuple[int, int, str]]]) -> None:
    sets = [frozenset(Span(start, start + length, label) for start, length, label in row) for row in rows]
    exact, overlapping = (span_f1(sets, sets[::-1], overlap=each) for each in (False, True))
    assert (exact is None) == (overlapping is None)
    if exact is not None and overlapping is not None:
        assert exact.value <= overlapping.value + 1e-9
    whole = span_f1(sets, sets, overlap=False)
    assert whole is None or whole.value == 1


def test_each_domain_has_its_own_interval() -> None:
    found = by_domain(["sets", "sums", "sums"], [True, True, False])
    assert list(found) == ["sets", "sums"]
    assert found["sums"]["accuracy"] == 0.5
    assert found["sums"]["n"] == 2
    assert found["sums"]["low"] < 0.5 < found["sums"]["high"]


def test_what_hangs_together_in_an_item_widens_the_interval() -> None:
    chance = random.Random(0)
    whole = [[chance.random() < 0.7] * 6 for _ in range(40)]
    single = [[each] for row in whole for each in row]
    one, other = mean_share(whole), mean_share(single)
    assert one is not None
    assert other is not None
    assert one.value == pytest.approx(other.value)
    assert one.high - one.low > 1.8 * (other.high - other.low)
    assert mean_share([[], []]) is None
