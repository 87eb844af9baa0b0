"""Whether a campaign is worth a further round, and why not. Pure; what is undecided never ends one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loop.interval import Interval, wilson

Floats = NDArray[np.float64]

LEVEL = 0.9
"""Level of every interval that a campaign is ended by."""
FEWEST_POINTS = 3
"""Rounds with a student below which no learning curve is fitted: it has three parameters."""
STARTS, CEILINGS, EXPONENTS = 40, 41, 16
"""Values of each parameter of the learning curve that are weighed."""
SLOWEST, FASTEST = 0.05, 1.0
"""Exponents between which learning curves are believed to lie; those that were measured do (Hestness and others, arXiv
1712.00409). A faster one is expected to bring more than it does, so that a campaign ends late."""
FAR = 0.9999
"""Level of the interval that the start of the curve is looked for in."""
DRAWS = 1000
"""Samples of the candidates that are drawn for an interval."""


class State(StrEnum):
    """What a ground says."""

    STOP = "stop"
    GO_ON = "go on"
    UNDECIDED = "undecided"
    OFF = "off"


@dataclass(frozen=True)
class Ground:
    """One thing that may end a campaign: what it says, in words with its numbers, and the numbers."""

    name: str
    state: State
    text: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """What had been spent by a round, and how many of the items of `dev` its student answered right."""

    usd: float
    right: int
    n: int


@dataclass(frozen=True)
class Gain:
    """What so many further dollars are expected to add to dev accuracy, with its interval, and the curve's ceiling."""

    expected: float
    low: float
    high: float
    ceiling: float


def expected_gain(points: Sequence[Point], usd: float, *, level: float = LEVEL) -> Gain | None:
    """The gain by a power law with a ceiling, `c - (c - s) (x / x1)^-b`, fitted to accuracy against dollars x.

    Every curve of a grid of starts s, ceilings c and exponents b is weighed by how well it explains the counts
    (binomial likelihood; s, c and log b are taken to be equally likely anywhere), so the interval holds what the points
    leave open. None with fewer than three points, or where nothing was spent by the first.
    """
    if len(points) < FEWEST_POINTS or points[0].usd <= 0:
        return None
    start = np.linspace(*_starts(points), STARTS)[:, None, None]
    ceiling = start + (1 - start) * np.linspace(0, 1, CEILINGS)[None, :, None]
    exponent = np.geomspace(SLOWEST, FASTEST, EXPONENTS)[None, None, :]

    def accuracy(spent: float) -> Floats:
        return np.asarray(ceiling - (ceiling - start) * (spent / points[0].usd) ** -exponent)

    weight = np.zeros((STARTS, CEILINGS, EXPONENTS))
    for point in points:
        share = np.clip(accuracy(point.usd), 1e-9, 1 - 1e-9)
        weight += point.right * np.log(share) + (point.n - point.right) * np.log1p(-share)
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    gain = accuracy(points[-1].usd + usd) - accuracy(points[-1].usd)
    low, high = _quantiles(gain, weight, level)
    whole = np.broadcast_to(ceiling, weight.shape)
    return Gain(float((gain * weight).sum()), low, high, float((whole * weight).sum()))


def money(left: float, request: float) -> Ground:
    """Whether a further request fits the dollars that are left."""
    figures = {"left": left, "request": request}
    if left < request:
        said = f"${left:.6f} left, one request may cost ${request:.6f}; raise budget.usd to go on"
        return Ground("money", State.STOP, said, figures)
    return Ground("money", State.GO_ON, f"${left:.4f} left", figures)


def minutes(limit: float, left: float, review: float) -> Ground:
    """Whether reviewers have time for a further rationale."""
    figures = {"limit": limit, "left": left, "review": review}
    if not limit:
        return Ground("minutes", State.OFF, "budget.minutes is 0: nobody reviews", figures)
    if left < review:
        said = f"{left:.1f} of {limit:.0f} minutes left, one review takes {review:.1f}; raise budget.minutes to go on"
        return Ground("minutes", State.STOP, said, figures)
    return Ground("minutes", State.GO_ON, f"{left:.1f} of {limit:.0f} minutes left", figures)


def pool(left: int, *, domains: bool = False) -> Ground:
    """Whether there is anything left to ask; where `domains` have budgets of their own, these may be what is spent."""
    if not left:
        said = "no pool item is left to ask" + (
            "; some domains' own budgets are spent (budget.domains)" if domains else ""
        )
        return Ground("pool", State.STOP, said, {"left": 0})
    return Ground("pool", State.GO_ON, f"{left} items left to ask", {"left": left})


def plateau(points: Sequence[Point], price: float, usd: float, usd_per_point: float | None) -> Ground:
    """Whether the points that a further round may bring are surely worth less than it costs.

    `usd` of its `price` goes to the teacher, which is what the curve is drawn against.
    """
    gain = expected_gain(points, usd)
    if gain is None:
        why = f"{len(points)} rounds with a student on dev, {FEWEST_POINTS} are needed, and dollars spent by the first"
        return Ground("plateau", State.UNDECIDED if usd_per_point else State.OFF, why)
    figures = {
        "expected": gain.expected, "low": gain.low, "high": gain.high, "level": LEVEL, "ceiling": gain.ceiling,
        "price": price, "usd_per_point": usd_per_point, "rounds": len(points), "n": points[-1].n,
    }  # fmt: skip
    said = (
        f"a further round costs about ${price:.4f} and is expected to bring {100 * gain.expected:+.2f} points of dev "
        f"accuracy ({100 * gain.low:+.2f} to {100 * gain.high:+.2f}, {len(points)} rounds, n={points[-1].n})"
    )
    if usd_per_point is None:
        return Ground("plateau", State.OFF, f"{said}; budget.usd_per_point says what a point is worth", figures)
    least, most = 100 * gain.low * usd_per_point, 100 * gain.high * usd_per_point
    said += f", worth ${least:.3g} to ${most:.3g} at ${usd_per_point:g} a point"
    if most < price:
        return Ground("plateau", State.STOP, said, figures)
    return Ground("plateau", State.GO_ON if least >= price else State.UNDECIDED, said, figures)


def settled(last: Sequence[float], batch: int, bound: float | None, *, foreseen: int = 0) -> Ground:
    """Whether the student hardly contradicts itself any more even where it does so most: the mean divergence of the
    most divergent candidates, as many as a batch, lies below a bound with its whole interval.

    `foreseen` of the divergences are what racing expects of all samples; the interval takes them as measured.
    """
    if not len(last):
        return _unscored("divergence", bound)
    high = np.array([_mean_of_highest(each, batch) for each in _resampled(np.array(last))])
    interval = Interval(*(float(each) for each in np.quantile(high, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])))
    mean = _mean_of_highest(np.array(last), batch)
    figures = {"mean": mean, "low": interval.low, "high": interval.high, "bound": bound, "n": len(last)}
    said = (
        f"the {min(batch, len(last))} most divergent of {len(last)} candidates have {mean:.3f} on average ({interval})"
    )
    if foreseen:
        said += f", {foreseen} of all by what racing expects of samples that were not drawn"
    if bound is None:
        return Ground("divergence", State.OFF, f"{said}; stopping.divergence_below sets no bound", figures)
    said += f", the bound is {bound:g}"
    if interval.high < bound:
        return Ground("divergence", State.STOP, said, figures)
    return Ground("divergence", State.GO_ON if interval.low >= bound else State.UNDECIDED, said, figures)


def falls(before: Sequence[float], last: Sequence[float], least: float | None) -> Ground:
    """Whether the mean divergence of the candidates surely fell by less than wanted since the round before."""
    if len(before) < 2 or len(last) < 2:
        return _unscored("fall", least)
    fall = float(np.mean(before) - np.mean(last))
    drawn = _resampled(np.array(before)).mean(axis=1) - _resampled(np.array(last), seed=1).mean(axis=1)
    interval = Interval(*(float(each) for each in np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])))
    figures = {"fall": fall, "low": interval.low, "high": interval.high, "least": least, "n": len(last)}
    said = f"mean divergence {_moved(fall, interval)} to {np.mean(last):.3f} over {len(last)} candidates"
    if least is None:
        return Ground("fall", State.OFF, f"{said}; stopping.divergence_fall asks for none", figures)
    said += f", {least:g} is asked for"
    if interval.high < least:
        return Ground("fall", State.STOP, said, figures)
    return Ground("fall", State.GO_ON if interval.low >= least else State.UNDECIDED, said, figures)


def _moved(fall: float, interval: Interval) -> str:
    """A fall in words, or a rise where it is below zero."""
    if fall >= 0:
        return f"fell by {fall:.3f} ({interval})"
    return f"rose by {-fall:.3f} ({Interval(-interval.high, -interval.low)})"


def _unscored(name: str, setting: float | None) -> Ground:
    """Nothing is said before a trained student has looked at candidates."""
    said = "no divergence was measured yet in as many rounds as it takes"
    return Ground(name, State.OFF if setting is None else State.UNDECIDED, said)


def _starts(points: Sequence[Point]) -> tuple[float, float]:
    """Between which accuracies the curve may begin."""
    first = wilson(points[0].right, points[0].n, FAR)
    return min(wilson(each.right, each.n, FAR).low for each in points), first.high


def _quantiles(values: Floats, weights: Floats, level: float) -> tuple[float, float]:
    """The values that cut off as much weight on either side as the level leaves."""
    order = np.argsort(values, axis=None)
    ranked, below = values.ravel()[order], np.cumsum(weights.ravel()[order])
    low, high = np.searchsorted(below, [(1 - level) / 2, (1 + level) / 2])
    return float(ranked[low]), float(ranked[min(high, len(ranked) - 1)])


def _mean_of_highest(values: Floats, count: int) -> float:
    return float(np.sort(values)[-count:].mean())


def _resampled(values: Floats, *, seed: int = 0) -> Floats:
    """The values drawn again with replacement, (draws, n)."""
    return np.asarray(np.random.default_rng(seed).choice(values, (DRAWS, len(values))))
