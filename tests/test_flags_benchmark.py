"""The scores of the flags benchmark, with rows counted several times, are those of the rows repeated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks import flags

ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 8), st.integers(0, 3)), min_size=4, max_size=30)


@settings(deadline=None)
@given(ROWS)
def test_scores_of_counted_rows_are_those_of_repeated_rows(rows: list[tuple[bool, int, int]]) -> None:
    wrong, scores, times = (np.array(each) for each in zip(*rows, strict=True))
    scores = scores / 8
    again = np.repeat(np.arange(len(rows)), times)
    if 0 < wrong[again].sum() < len(again):
        assert flags._auroc(wrong, scores, times) == pytest.approx(roc_auc_score(wrong[again], scores[again]))
        expected = average_precision_score(wrong[again], scores[again])
        assert flags._average_precision(wrong, scores, times) == pytest.approx(expected)
        one = np.ones(len(again))
        assert flags._ece(wrong, scores, times) == pytest.approx(flags._ece(wrong[again], scores[again], one))
        recalls = flags._recall(wrong, scores, times, 0.3), flags._recall(wrong[again], scores[again], one, 0.3)
        assert recalls[0] == pytest.approx(recalls[1])


def test_recall_is_divided_by_what_is_possible() -> None:
    wrong, one = np.array([True] * 5 + [False] * 5), np.ones(10)
    best = np.linspace(1, 0, 10)
    assert flags._recall(wrong, best, one, 0.2) == pytest.approx(1)
    assert flags._recall(wrong, -best, one, 0.2) == 0
    assert flags._recall(wrong, best, one, 0.8) == pytest.approx(1)


def test_the_first_error_counts_where_it_is_found_and_where_nothing_is_to_be_found() -> None:
    first, one = [0, 2, None, None], np.ones(4)
    assert flags._first_error_f1(first, first, one) == 100
    assert flags._first_error_f1([None] * 4, first, one) == 0
    assert flags._first_error_f1([0, 1, None, None], first, one) == pytest.approx(200 * 0.5 / 1.5)
