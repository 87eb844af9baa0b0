"""How far confidence lies from being right is measured, and one temperature brings it closer."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax

from loop.calibration import (
    COLDEST,
    FEWEST,
    HOTTEST,
    Belief,
    calibration,
    calibration_error,
    confidences,
    fit_temperature,
    tempered,
)

SHARES = st.lists(st.floats(0.001, 1), min_size=2, max_size=8)


def believed(heat: float, *, n: int, classes: int) -> list[Belief]:
    """Answers of a student whose probabilities are those that answers are drawn from, at another temperature."""
    return believed_of(np.random.default_rng(0).normal(0, 2, (n, classes)), seed=0, heat=heat)


def believed_of(logits: NDArray[np.float64], seed: int, heat: float = 1.0) -> list[Belief]:
    chance = np.random.default_rng(seed)
    right = [int(chance.choice(len(each), p=softmax(each))) for each in logits]
    told = softmax(logits * heat, axis=1)
    return [Belief(shares.tolist(), int(np.argmax(shares)), truth) for shares, truth in zip(told, right, strict=True)]


def log_loss(beliefs: Sequence[Belief], temperature: float) -> float:
    return float(np.mean([-np.log(tempered(each.probabilities, temperature)[each.right]) for each in beliefs]))


def test_the_calibration_error_of_known_samples() -> None:
    assert calibration([], []) is None
    off = calibration([0.1] * 10 + [0.9] * 10, [False] * 20)
    assert off is not None
    assert off.error == pytest.approx((10 * 0.1 + 10 * 0.9) / 20)
    assert off.error > off.by_chance
    right = calibration([0.1] * 100 + [0.9] * 100, [True] * 10 + [False] * 90 + [True] * 90 + [False] * 10)
    assert right is not None
    assert right.error == pytest.approx(0.0, abs=1e-9)
    assert 0 < right.by_chance < 0.1


def test_the_calibration_error_is_the_one_of_its_definition() -> None:
    """Naeini and others, AAAI 2015: the gaps of the bins, weighted by how many fall in each."""
    chance = np.random.default_rng(3)
    stated, right = chance.random(200), chance.random(200) < 0.4
    by_hand = 0.0
    for low in np.arange(0, 1, 0.1):
        inside = (stated >= low) & (stated < low + 0.1)
        if inside.any():
            by_hand += inside.mean() * abs(stated[inside].mean() - right[inside].mean())
    assert calibration_error(stated, right) == pytest.approx(by_hand)


def test_certainty_falls_in_the_last_part() -> None:
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, False])) == pytest.approx(0.5)


@pytest.mark.parametrize("heat", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_what_sharpened_the_probabilities(heat: float) -> None:
    fitted = fit_temperature(believed(heat, n=3000, classes=5))
    assert fitted == pytest.approx(heat, rel=0.1)


def test_an_overconfident_student_is_brought_closer_on_items_that_nothing_was_fitted_on() -> None:
    beliefs = believed(4.0, n=1200, classes=4)
    dev, test = beliefs[:600], beliefs[600:]
    temperature = fit_temperature(dev)
    assert temperature is not None
    right = [each.is_right for each in test]
    before, after = calibration(confidences(test), right), calibration(confidences(test, temperature), right)
    assert before is not None
    assert after is not None
    assert before.error > 2 * before.by_chance
    assert after.error < before.error / 2


def test_no_temperature_is_fitted_on_a_handful() -> None:
    beliefs = believed(2.0, n=FEWEST, classes=3)
    assert fit_temperature(beliefs[1:]) is None
    assert fit_temperature(beliefs) is not None


@pytest.mark.parametrize("right", [0, 1])
def test_answers_that_are_all_right_or_all_wrong_stay_within_bounds(right: int) -> None:
    fitted = fit_temperature([Belief((0.8, 0.2), 0, right)] * FEWEST)
    assert fitted is not None
    assert COLDEST <= fitted <= HOTTEST


def test_a_few_answers_do_not_spoil_a_student_that_was_calibrated() -> None:
    """Without the prior the loss of this student more than doubles."""
    losses = []
    for seed in range(100):
        logits = np.random.default_rng(seed).normal(0, 9, (FEWEST + 200, 3))
        rows = believed_of(logits, seed)
        temperature = fit_temperature(rows[:FEWEST])
        assert temperature is not None
        losses.append([log_loss(rows[FEWEST:], each) for each in (1.0, temperature)])
    before, after = np.mean(losses, axis=0)
    assert after < before * 1.1


def test_confidence_in_answers_that_were_all_right_stays_short_of_certainty() -> None:
    sure = Belief((0.9, 0.06, 0.04), 0, 0)
    temperature = fit_temperature([sure] * 50)
    assert temperature is not None
    assert temperature < 1
    assert confidences([sure], temperature)[0] < 0.999
    assert confidences([Belief((0.4, 0.35, 0.25), 0, 0)], temperature)[0] < 0.6


def test_choices_of_different_number_are_fitted_together() -> None:
    beliefs = [Belief((0.7, 0.3), 0, 0), Belief((0.1, 0.2, 0.7), 2, 1)] * FEWEST
    assert fit_temperature(beliefs) is not None
    assert confidences(beliefs[:2]) == pytest.approx([0.7, 0.7])


@given(SHARES, st.floats(0.1, 10))
def test_tempering_keeps_the_order_and_sums_to_one(shares: list[float], temperature: float) -> None:
    found = tempered(shares, temperature)
    assert sum(found) == pytest.approx(1)
    for one, other in zip(np.argsort(shares, kind="stable"), np.argsort(shares, kind="stable")[1:], strict=False):
        assert found[one] <= found[other] + 1e-12


@given(SHARES)
def test_a_temperature_of_one_changes_nothing(shares: list[float]) -> None:
    total = sum(shares)
    assert tempered([each / total for each in shares], 1.0) == pytest.approx([each / total for each in shares])


def test_an_impossible_answer_is_taken_to_be_barely_possible() -> None:
    assert tempered([1.0, 0.0], 1.0) == pytest.approx([1.0, 1e-6], rel=1e-3)
