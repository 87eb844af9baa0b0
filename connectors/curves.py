"""Accuracy against dollars, compared where both sides had spent as much.

A curve goes straight from round to round. It begins with the first round that has a student and says nothing of other
dollars than its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Curve:
    """What one campaign came to, round after round."""

    usd: Sequence[float]
    """US dollars spent after each round; they never fall."""
    accuracy: Sequence[float]

    def at(self, usd: NDArray[np.float64]) -> NDArray[np.float64]:
        """The accuracy at these sums; of rounds that cost nothing the last one counts."""
        return np.interp(usd, self.usd, self.accuracy)

    def mean(self, low: float, high: float) -> float:
        """The mean accuracy along the dollars from one sum to another; the accuracy there where both are one."""
        if low == high:
            return float(self.at(np.array([low]))[0])
        own = np.array(self.usd)
        inside = (own >= low) & (own <= high)
        first, last = self.at(np.array([low, high]))
        places = [low, *own[inside], high]
        return float(np.trapezoid([first, *np.array(self.accuracy)[inside], last], places) / (high - low))


def common(curves: Sequence[Curve]) -> tuple[float, float] | None:
    """The least and the most that all of them had spent with a student, None where there is no such sum."""
    low, high = max(each.usd[0] for each in curves), min(each.usd[-1] for each in curves)
    return (low, high) if low <= high else None


def gain(ours: Curve, theirs: Curve) -> float | None:
    """How far ours is above theirs in the mean over the dollars that both have; None where there are none."""
    both = common([ours, theirs])
    return None if both is None else ours.mean(*both) - theirs.mean(*both)
