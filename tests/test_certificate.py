"""Promises about unreviewed rows hold as often as they say, on populations whose truth is known."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from loop.certificate import (
    Stratum,
    audits_needed,
    certified_threshold,
    corrected_share,
    look_delta,
    most_wrong,
    thresholds_to_test,
    wrong_rows_bound,
)
from loop.interval import clopper_pearson_upper


@pytest.mark.parametrize(
    ("wrong", "n", "bound"), [(0, 50, 0.0582), (2, 50, 0.1206), (5, 100, 0.1023), (10, 200, 0.0833)]
)
def test_bounds_of_shares_have_their_published_values(wrong: int, n: int, bound: float) -> None:
    assert clopper_pearson_upper(wrong, n, 0.95) == pytest.approx(bound, abs=5e-5)


def test_forty_five_audits_without_an_error_certify_five_percent() -> None:
    assert audits_needed(0.05, 0.1) == 45
    assert clopper_pearson_upper(0, 45, 0.9) <= 0.05 < clopper_pearson_upper(0, 44, 0.9)


@given(st.sampled_from([0.02, 0.05, 0.1, 0.3]), st.sampled_from([0.05, 0.1, 0.2]), st.integers(0, 6))
def test_audits_needed_are_just_enough(alpha: float, delta: float, wrong: int) -> None:
    n = audits_needed(alpha, delta, wrong)
    assert clopper_pearson_upper(wrong, n, 1 - delta) <= alpha
    assert n == wrong + 1 or clopper_pearson_upper(wrong, n - 1, 1 - delta) > alpha


@given(st.integers(1, 60), st.data(), st.sampled_from([0.8, 0.9, 0.95]))
def test_the_bound_is_the_largest_number_that_is_not_refuted(
    population: int, data: st.DataObject, level: float
) -> None:
    audited = data.draw(st.integers(0, population))
    wrong = data.draw(st.integers(0, audited))
    believable = [
        number
        for number in range(wrong, population - audited + wrong + 1)
        if hypergeom.cdf(wrong, population, number, audited) > 1 - level
    ]
    assert most_wrong(Stratum(population, audited, wrong), level) == max(believable)


def test_a_whole_audit_leaves_nothing_open_and_none_leaves_everything() -> None:
    assert wrong_rows_bound([Stratum(40, 40, 3)], 0.1) == (0, 0.0)
    assert wrong_rows_bound([Stratum(40, 0, 0)], 0.1) == (40, 1.0)
    assert wrong_rows_bound([], 0.1) == (0, 0.0)


@pytest.mark.parametrize("counts", [(10, 11, 0), (10, 5, 6), (10, 5, -1)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="impossible"):
        Stratum(*counts)


GRID = [0.1, 0.2, 0.3, 0.5]
POPULATIONS = [(0.0, 0.1), (0.0, 0.21), (0.0, 0.35), (0.0, 0.52), (0.0, 1.05), (0.051, 0.0)]
"""Base and steepness; in all but the first one threshold is just too loose, or all are."""
Bound = Callable[[Sequence[Stratum], float], tuple[int, float]]
Certify = Callable[[Sequence[tuple[float, bool]]], float | None]
TRIALS, AUDITS, ALPHA, DELTA = 400, 800, 0.05, 0.1
LEAST = (1 - DELTA) * TRIALS - 2.33 * (TRIALS * DELTA * (1 - DELTA)) ** 0.5
"""Promises kept below which it is refuted, at 1 %, that they are kept as often as they say."""


def exports_kept(bound: Bound, share: float) -> int:
    """How often a bound of the unaudited wrong rows holds, where the truth of two strata is known."""
    chance, kept = np.random.default_rng(7), 0
    for _ in range(TRIALS):
        strata, truth = [], 0
        for population, drawn in ((180, 0.1), (90, 0.3)):  # two shares of audits in one campaign
            wrong = chance.random(population) < share
            audit = chance.random(population) < drawn
            strata.append(Stratum(population, int(audit.sum()), int((wrong & audit).sum())))
            truth += int((wrong & ~audit).sum())
        kept += truth <= bound(strata, DELTA)[0]
    return kept


def test_the_bound_over_strata_is_exact_where_the_wrong_rows_lie_worst() -> None:
    strata, delta = [Stratum(9, 3, 0), Stratum(7, 2, 1), Stratum(5, 0, 0)], 0.1

    def chance(*wrong: int) -> float:
        """That the samples hold at most one wrong row in all."""
        pmf = [hypergeom.pmf([0, 1], each.population, m, each.audited) for each, m in zip(strata, wrong, strict=True)]
        joined = np.convolve(np.convolve(pmf[0], pmf[1]), pmf[2])
        return float(joined[:2].sum())

    believable = [
        first + second + third
        for first in range(7)
        for second in range(1, 7)
        for third in range(6)
        if chance(first, second, third) > delta
    ]
    assert wrong_rows_bound(strata, delta)[0] == max(believable) - 1


def test_audits_spread_over_rounds_say_nearly_as_much_as_those_of_one() -> None:
    assert wrong_rows_bound([Stratum(200, 48, 0)], 0.1)[0] == wrong_rows_bound([Stratum(50, 12, 0)] * 4, 0.1)[0] == 8


def test_the_bound_holds_where_later_rounds_depend_on_what_earlier_audits_showed() -> None:
    chance, held, delta, trials = np.random.default_rng(11), 0, 0.1, 400
    for _ in range(trials):
        strata, truth, share = [], 0, 0.05
        for _ in range(3):
            wrong, audit = chance.random(60) < share, chance.random(60) < 0.15
            strata.append(Stratum(60, int(audit.sum()), int((wrong & audit).sum())))
            truth += int((wrong & ~audit).sum())
            share = 0.3 if not (wrong & audit).any() else 0.0  # the worst: more goes wrong where nothing was found
        held += truth <= wrong_rows_bound(strata, delta)[0]
    assert held >= 0.9 * trials - 2.33 * np.sqrt(trials * 0.09)


def test_large_strata_get_an_even_part_of_the_chance_of_error() -> None:
    strata = [Stratum(40_000, 300, 3)] * 4
    wrong, share = wrong_rows_bound(strata, 0.1)
    assert wrong == sum(most_wrong(each, 1 - 0.1 / 4) - 3 for each in strata)
    assert 0.01 < share < 0.04


def test_thresholds_below_which_too_few_audits_lie_are_passed_over() -> None:
    audited = [(0.12, False)] * 60
    assert certified_threshold([0.05, 0.1, 0.15], audited, alpha=0.05, delta=0.1) == 0.15


def thresholds_kept(certify: Certify, base: float, steepness: float) -> int:
    """How often a certified threshold keeps alpha, where `base + steepness * risk` is the chance of being wrong."""
    chance, kept = np.random.default_rng(3), 0
    for _ in range(TRIALS):
        risk = chance.random(AUDITS)
        wrong = chance.random(AUDITS) < base + steepness * risk
        found = certify(list(zip(risk.tolist(), wrong.tolist(), strict=True)))
        kept += found is None or base + steepness * found / 2 <= ALPHA  # the mean below a threshold of uniform risks
    return kept


def exact(audited: Sequence[tuple[float, bool]]) -> float | None:
    return certified_threshold(GRID, audited, alpha=ALPHA, delta=DELTA)


def as_found(audited: Sequence[tuple[float, bool]]) -> float | None:
    """Too loose: the largest threshold below which the share that was found is at most alpha."""
    found = {limit: [wrong for risk, wrong in audited if risk < limit] for limit in GRID}
    return max((limit for limit, below in found.items() if below and np.mean(below) <= ALPHA), default=None)


def every_threshold_alone(audited: Sequence[tuple[float, bool]]) -> float | None:
    """Too loose: each of many thresholds at delta, as if no other were looked at."""
    found = {limit: [wrong for risk, wrong in audited if risk < limit] for limit in GRID}
    passed = [
        limit for limit, below in found.items() if clopper_pearson_upper(sum(below), len(below), 1 - DELTA) <= ALPHA
    ]
    return max(passed, default=None)


def scaled_up(strata: Sequence[Stratum], delta: float) -> tuple[int, float]:
    """Too loose: as many wrong among the unaudited as the audit says on average."""
    wrong = sum(round(each.wrong / max(1, each.audited) * (each.population - each.audited)) for each in strata)
    return wrong, 0.0


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.2, 0.6])
def test_the_bound_of_an_export_holds_as_often_as_it_says(share: float) -> None:
    assert exports_kept(wrong_rows_bound, share) >= LEAST


@pytest.mark.parametrize(("base", "steepness"), POPULATIONS)
def test_a_threshold_is_kept_as_often_as_it_says(base: float, steepness: float) -> None:
    assert thresholds_kept(exact, base, steepness) >= LEAST


def test_thresholds_from_the_risks_of_all_are_kept_as_often_as_they_say() -> None:
    chance, kept, certified = np.random.default_rng(13), 0, 0
    for _ in range(TRIALS):
        risk = chance.random(1500)
        wrong = chance.random(1500) < 0.2 * risk
        audit = chance.permutation(1500)[:300]
        tested = thresholds_to_test(risk.tolist(), 300, alpha=ALPHA, delta=DELTA)
        audited = list(zip(risk[audit].tolist(), wrong[audit].tolist(), strict=True))
        found = certified_threshold(tested, audited, alpha=ALPHA, delta=DELTA)
        kept += found is None or wrong[risk < found].mean() <= ALPHA
        certified += found is not None
    assert kept >= LEAST
    assert certified > TRIALS / 5


def test_too_few_audits_leave_no_threshold_to_test_and_few_only_loose_ones() -> None:
    assert thresholds_to_test([0.1] * 500, 44, alpha=ALPHA, delta=DELTA) == []
    spread = [number / 1000 for number in range(1000)]
    assert min(thresholds_to_test(spread, 50, alpha=ALPHA, delta=DELTA)) == 0.9
    assert thresholds_to_test([], 300, alpha=ALPHA, delta=DELTA) == []
    assert thresholds_to_test([0.1] * 500, 300, alpha=ALPHA, delta=DELTA) == [0.1, math.inf]


def test_the_loosest_threshold_is_certified_where_nothing_is_wrong() -> None:
    assert exact([(each, False) for each in np.linspace(0, 1, AUDITS).tolist()]) == max(GRID)


def test_in_the_worst_case_a_threshold_is_broken_about_as_often_as_is_allowed() -> None:
    chance, broken, trials = np.random.default_rng(11), 0, 2000
    for _ in range(trials):
        wrong = chance.random(150) < ALPHA + 0.001
        broken += exact([(0.05, bool(each)) for each in wrong]) is not None
    assert 0.03 * trials < broken <= DELTA * trials


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_a_bound_that_is_too_loose_is_found_out(share: float) -> None:
    assert exports_kept(scaled_up, share) < LEAST


@pytest.mark.parametrize("loose", [as_found, every_threshold_alone])
def test_a_threshold_that_is_too_loose_is_found_out(loose: Certify) -> None:
    assert min(thresholds_kept(loose, base, steepness) for base, steepness in POPULATIONS) < LEAST


def test_testing_stops_at_the_first_threshold_that_fails() -> None:
    audited = [(0.05, False)] * 60 + [(0.15, True)] * 20 + [(0.25, False)] * 900
    assert certified_threshold([0.3, 0.1, 0.2], audited, alpha=0.05, delta=0.1) == 0.1
    assert certified_threshold([0.1], audited[:40], alpha=0.05, delta=0.1) is None


def test_all_looks_together_use_no_more_than_delta() -> None:
    assert look_delta(0.1, 1) == pytest.approx(0.0608, abs=1e-4)
    assert sum(look_delta(0.1, look) for look in range(1, 10_000)) < 0.1


def test_reviewers_errors_are_taken_out_of_what_they_found() -> None:
    seen = 0.9 * 0.1 + (1 - 0.95) * 0.9
    assert corrected_share(seen, sensitivity=0.9, specificity=0.95) == pytest.approx(0.1)
    assert corrected_share(0.0, sensitivity=0.9, specificity=0.95) == 0
    with pytest.raises(ValueError, match="above 1"):
        corrected_share(0.2, sensitivity=0.5, specificity=0.5)
