"""Promises about what passes unreviewed, from audits that were drawn at random before anybody looked.

Two promises. *Of an export*: an upper bound on the wrong rows among those that were accepted unreviewed. Its
population is finite and already there, so it holds whatever became of student and prompt. *Of a threshold*: the share
of wrong rationales below a risk stays under alpha in the next rounds, as long as nothing that makes them changes.
Wrong always means: as reviewers judge.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from loop.interval import clopper_pearson_upper

MOST_WAYS = 4_000_000_000
"""Steps of arithmetic up to which the bound over several strata is exact."""
STEPS = 20
"""Thresholds that are tested one after another."""
MOST_AUDITS = 10**9
"""Audits beyond which nobody looks for a number that is enough."""
SPARE = 1.1
"""Audits below the strictest threshold, over those that it needs."""


@dataclass(frozen=True)
class Stratum:
    """Rows accepted unreviewed or by certifying audit alone, drawn into the audit with one probability.

    `population` counts both, `audited` those that were audited, `wrong` those of them that reviewers found wrong.
    """

    population: int
    audited: int
    wrong: int

    def __post_init__(self) -> None:
        if not 0 <= self.wrong <= self.audited <= self.population:
            raise ValueError(f"{self.wrong} wrong of {self.audited} audited of {self.population} rows is impossible")

    @property
    def most(self) -> int:
        """The most rows that can be wrong after what the audit found."""
        return self.population - (self.audited - self.wrong)


def most_wrong(stratum: Stratum, level: float) -> int:
    """The upper `level` confidence bound on the wrong rows of a stratum, those that the audit found included.

    The largest number under which so few wrong rows in the sample had a chance of more than 1 - level (exact inversion
    of the hypergeometric distribution; Buonaccorsi, The American Statistician 41, 1987).
    """

    def too_many(wrong: int) -> bool:
        return bool(hypergeom.cdf(stratum.wrong, stratum.population, wrong, stratum.audited) <= 1 - level)

    return bisect_left(range(stratum.most + 1), True, key=too_many) - 1


def wrong_rows_bound(strata: Sequence[Stratum], delta: float) -> tuple[int, float]:
    """With confidence 1 - delta at most so many of the unaudited rows are wrong: their number, and their share.

    The largest number of wrong rows under which, however they lie over the strata, so few in the samples had a chance
    of more than delta. That also holds where later strata depend on what earlier samples showed. Of strata too large
    to try every way, each gets an even part of delta instead. Of a stratum without audits every row may be wrong. The
    share is 0 where nothing is unaudited.
    """
    unaudited = sum(each.population - each.audited for each in strata)
    unseen = sum(each.population for each in strata if not each.audited)
    strata = [each for each in strata if each.audited]
    found = sum(each.wrong for each in strata)
    ways = sum(each.population for each in strata) * sum(each.most for each in strata) * (found + 1) ** 2
    if ways <= MOST_WAYS:
        wrong = _most_wrong_in_all(strata, found, delta) - found
    else:
        wrong = sum(most_wrong(each, 1 - delta / len(strata)) - each.wrong for each in strata)
    return wrong + unseen, (wrong + unseen) / unaudited if unaudited else 0.0


def _most_wrong_in_all(strata: Sequence[Stratum], found: int, delta: float) -> int:
    """The bound on all wrong rows of the strata, by dynamic programming over where they lie.

    `chance[m, t]` is the largest chance, over all ways in which m wrong rows can lie in the strata from one on, that
    their samples hold at most t of them.
    """
    chance = np.ones((1, found + 1))
    for each in reversed(strata):
        wrong = np.arange(each.wrong, each.most + 1)
        seen: NDArray[np.float64] = np.array(
            hypergeom.pmf(np.arange(found + 1)[None, :], each.population, wrong[:, None], each.audited)
        )
        wider = np.zeros((len(chance) + each.most, found + 1))
        for m, share in zip(wrong, seen, strict=True):
            reached = np.zeros_like(chance)
            for x in range(found + 1):
                reached[:, x:] += share[x] * chance[:, : found + 1 - x]
            here = wider[m : m + len(chance)]
            np.maximum(here, reached, out=here)
        chance = wider
    return int(np.flatnonzero(chance[:, found] > delta).max())


def audits_needed(alpha: float, delta: float, wrong: int = 0) -> int:
    """How many audits certify a threshold at alpha where so many of them are wrong; 45 for 0.05, 0.1 and none."""

    def enough(audits: int) -> bool:
        return clopper_pearson_upper(wrong, audits, 1 - delta) <= alpha

    return bisect_left(range(MOST_AUDITS), True, key=enough)


def look_delta(delta: float, look: int) -> float:
    """The chance of error that look number 1, 2, ... may use, so that all looks together use at most delta."""
    return 6 * delta / (math.pi**2 * look**2)


def testable(thresholds: Sequence[float], risks: Sequence[float], *, alpha: float, delta: float) -> list[float]:
    """The thresholds below which enough audits lie to certify them if none is wrong, the strictest first."""
    needed = audits_needed(alpha, delta)
    return [each for each in sorted(thresholds) if sum(risk < each for risk in risks) >= needed]


def thresholds_to_test(risks: Sequence[float], audits: int, *, alpha: float, delta: float) -> list[float]:
    """Thresholds that are fixed before the audits are read, from strict to loose: quantiles of the risks of all.

    Below the strictest so many audits are expected as certify alpha in spite of one that is wrong: where fewer are,
    even a good threshold fails and ends the sequence. With fewer audits than that in all, as many as certify alpha if
    none is wrong. Empty where there are not even these.
    """
    least = SPARE * audits_needed(alpha, delta, wrong=1) / max(1, audits)
    if least > 1:
        least = audits_needed(alpha, delta) / max(1, audits)
    if least > 1 or not risks:
        return []
    ranked = sorted(risks)
    places = {round((least + (1 - least) * step / STEPS) * len(ranked)) for step in range(STEPS)}
    return sorted({ranked[place] for place in places if place < len(ranked)} | {math.inf})


def certified_threshold(
    thresholds: Sequence[float], audited: Sequence[tuple[float, bool]], *, alpha: float, delta: float
) -> float | None:
    """The loosest threshold below which at most alpha of the rationales are wrong; None where even the strictest fails.

    Fixed-sequence testing (Angelopoulos and others, Learn then Test, arXiv 2110.01052): from strict to loose, up to the
    first threshold whose one-sided Clopper-Pearson bound is above alpha. `thresholds` must be fixed before the audits
    are read; `audited` has the risk of each, and whether it was wrong. Which thresholds are tested depends on risks
    alone: those below which too few audits lie to certify anything are passed over.
    """
    last = None
    for threshold in testable(thresholds, [risk for risk, _ in audited], alpha=alpha, delta=delta):
        below = [wrong for risk, wrong in audited if risk < threshold]
        if clopper_pearson_upper(sum(below), len(below), 1 - delta) > alpha:
            break
        last = threshold
    return last


def corrected_share(found: float, *, sensitivity: float, specificity: float) -> float:
    """The share of wrong rationales behind the share that reviewers found (Rogan and Gladen 1978), within [0, 1].

    Raises:
        ValueError: reviewers are no better than chance, so that nothing can be said.
    """
    better = sensitivity + specificity - 1
    if better <= 0:
        raise ValueError("sensitivity and specificity together must be above 1")
    return min(1.0, max(0.0, (found + specificity - 1) / better))
