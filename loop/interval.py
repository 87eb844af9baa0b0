"""Intervals around measured shares, so that no figure stands without its uncertainty."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import beta, binomtest, t


class Interval(NamedTuple):
    """From `low` to `high`, both included."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.3f} to {self.high:.3f}"


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share; everything is possible where nothing was counted."""
    if n == 0:
        return Interval(0.0, 1.0)
    found = binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    return Interval(float(found.low), float(found.high))


@dataclass(frozen=True)
class Share:
    """So many of `n`, as a share with its 95 % interval."""

    found: int
    n: int
    share: float
    low: float
    high: float


def share(found: Iterable[bool]) -> Share | None:
    """The share of those found, with its Wilson interval; None where there are none to find."""
    given = list(found)
    if not given:
        return None
    low, high = wilson(sum(given), len(given))
    return Share(sum(given), len(given), sum(given) / len(given), low, high)


class Sampled(NamedTuple):
    """Rows of which some were drawn at random: of `n` that were looked at `found` have something.

    `weight` rows are spoken of. Of `unseen` more that were drawn nobody knows.
    """

    weight: int
    found: int
    n: int
    unseen: int = 0


def stratified(strata: Sequence[Sampled], level: float = 0.95) -> tuple[float, Interval] | None:
    """The share of all rows that have something, by samples of each stratum; None where none was looked at.

    The interval joins the Wilson limits of the strata by square-and-add (Zou and Donner, Statistics in Medicine 27,
    2008); of one stratum it is Wilson's. Its far ends take what nobody looked at for the one and for the other; a
    stratum of which nothing was looked at may have it in all rows or in none. The share itself is of the others.
    """
    known = [each for each in strata if each.weight and each.n]
    rows, total = sum(each.weight for each in known), sum(each.weight for each in strata)
    if not known:
        return None
    least, most, down, up, value = 0.0, 0.0, 0.0, 0.0, 0.0
    for weight, found, n, unseen in known:
        part, drawn = weight / total, n + unseen
        (low, _), (_, high) = wilson(found, drawn, level), wilson(found + unseen, drawn, level)
        value += weight / rows * found / n
        least, most = least + part * found / drawn, most + part * (found + unseen) / drawn
        down += (part * (found / drawn - low)) ** 2
        up += (part * (high - (found + unseen) / drawn)) ** 2
    return value, Interval(max(0.0, least - math.sqrt(down)), min(1.0, most + math.sqrt(up) + 1 - rows / total))


def clopper_pearson_upper(successes: int, n: int, level: float = 0.95) -> float:
    """The exact one-sided upper bound of a share."""
    return 1.0 if successes >= n else float(beta.ppf(level, successes + 1, n - successes))


def clopper_pearson_lower(successes: int, n: int, level: float = 0.95) -> float:
    """The exact one-sided lower bound of a share."""
    return 0.0 if successes == 0 else float(beta.ppf(1 - level, successes, n - successes + 1))


def paired_difference(before: Sequence[bool], after: Sequence[bool], level: float = 0.9) -> Interval:
    """Interval of the share right after minus the share right before, on the same items in the same order.

    Newcombe's square-and-add interval for paired proportions (Statistics in Medicine 17, 1998, 2635-2650, method 10):
    the Wilson limits of both shares, joined with the correlation of the pairs.

    Raises:
        ValueError: the lists differ in length.
    """
    n = len(before)
    both, gained, lost, neither = _table(before, after)
    if n == 0:
        return Interval(-1.0, 1.0)
    share_after, share_before = (both + gained) / n, (both + lost) / n
    low_after, high_after = wilson(both + gained, n, level)
    low_before, high_before = wilson(both + lost, n, level)
    phi = _correlation(both, gained, lost, neither)
    down = _joined(share_after - low_after, high_before - share_before, phi)
    up = _joined(high_after - share_after, share_before - low_before, phi)
    difference = share_after - share_before
    return Interval(max(-1.0, difference - down), min(1.0, difference + up))


def _table(before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int, int, int]:
    """How many were right both times, only after, only before, never."""
    pairs = list(zip(before, after, strict=True))
    return (
        sum(old and new for old, new in pairs),
        sum(new and not old for old, new in pairs),
        sum(old and not new for old, new in pairs),
        sum(not old and not new for old, new in pairs),
    )


def _correlation(both: int, gained: int, lost: int, neither: int) -> float:
    """Newcombe's correlation of the pairs, towards zero where it is positive; zero where a margin is empty."""
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if margins == 0:
        return 0.0
    cross = float(both * neither - gained * lost)
    if cross > 0:
        cross = max(cross - (both + gained + lost + neither) / 2, 0)
    return cross / math.sqrt(margins)


def _joined(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(0.0, first**2 - 2 * phi * first * second + second**2))


def of_mean(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's interval for the mean of at least two values, such as gains by seed.

    A bootstrap of so few is too narrow: of three normal values it holds the true mean in 76 % of cases.
    """
    reach = float(t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Interval(float(np.mean(values)) - reach, float(np.mean(values)) + reach)
