"""Do shown doubts sway verdicts? Reviews that show none, at random, are set against the others at like risk. Pure."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from loop.interval import Share, share, wilson
from loop.report import RISK_BINS


class Swayed(StrEnum):
    """What the difference says."""

    MORE = "shown doubts make reviewers correct or reject more"
    LESS = "shown doubts make reviewers correct or reject less"
    UNDECIDED = "undecided whether shown doubts sway reviewers"


@dataclass(frozen=True)
class Doubted:
    """A verdict on a rationale that checks doubt, whether the page showed the doubts or not."""

    risk: float
    shown: bool
    accepted: bool


@dataclass(frozen=True)
class Anchoring:
    """Shares that were not accepted with doubts shown and without, and their difference with its 95 % interval.

    The difference is taken within bands of risk. It does not tell help from bias: doubts that point at real errors
    should be followed. Large beside the reviewers' sensitivity, it says how much of that is the checks'.
    """

    shown: Share | None
    unseen: Share | None
    difference: float | None
    low: float | None
    high: float | None
    verdict: Swayed


def anchoring(doubted: Sequence[Doubted]) -> Anchoring:
    """How far verdicts with doubts shown differ from those without, at like risk."""
    shown, unseen = ([not each.accepted for each in doubted if each.shown is which] for which in (True, False))
    difference, low, high = _difference(doubted) or (None, None, None)
    verdict = Swayed.UNDECIDED
    if low is not None and high is not None and (low > 0 or high < 0):
        verdict = Swayed.MORE if low > 0 else Swayed.LESS
    return Anchoring(share(shown), share(unseen), difference, low, high, verdict)


def _difference(doubted: Sequence[Doubted]) -> tuple[float, float, float] | None:
    """The difference of shares over bands of risk with Mantel and Haenszel's weights, and its interval.

    Each share's Wilson interval is carried over by squaring and adding (Zou and Donner, Statistics in Medicine 27,
    2008), so that bands where everybody agrees keep their uncertainty. None where no band holds both kinds.
    """
    n: Counter[tuple[int, bool]] = Counter()
    refused: Counter[tuple[int, bool]] = Counter()
    for each in doubted:
        key = (min(int(each.risk * RISK_BINS), RISK_BINS - 1), each.shown)
        n[key] += 1
        refused[key] += not each.accepted
    weights = {
        band: n[band, True] * n[band, False] / (n[band, True] + n[band, False])
        for band in range(RISK_BINS)
        if n[band, True] and n[band, False]
    }
    if not weights:
        return None
    total = sum(weights.values())
    difference = down = up = 0.0
    for band, weight in weights.items():
        (p1, low1, high1), (p0, low0, high0) = (
            (refused[band, arm] / n[band, arm], *wilson(refused[band, arm], n[band, arm])) for arm in (True, False)
        )
        difference += weight / total * (p1 - p0)
        down += (weight / total) ** 2 * ((p1 - low1) ** 2 + (high0 - p0) ** 2)
        up += (weight / total) ** 2 * ((high1 - p1) ** 2 + (p0 - low0) ** 2)
    return difference, difference - math.sqrt(down), difference + math.sqrt(up)
