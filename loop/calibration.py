"""How far stated chances lie from what came, and the one temperature that brings a student's closer to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

Floats = NDArray[np.float64]

BINS = 10
"""Equal parts of the unit interval in which chances are set against what came."""
DRAWS = 1000
"""Samples drawn to find the calibration error of perfect chances."""
LEVEL = 0.95
LEAST = 1e-6
"""Probabilities are taken to be at least so large."""
FEWEST = 20
"""Answers below which no temperature is fitted."""
COLDEST, HOTTEST = 0.05, 20.0
SPREAD = 0.5
"""Standard deviation of the logarithm of a temperature before anything is seen, about that of 1."""


@dataclass(frozen=True)
class Calibration:
    """How far chances lie from what was found: the expected calibration error over equal parts of the unit interval.

    `by_chance` is what perfect chances would stay under in 95 % of such samples: small ones have an error of their own,
    and an error below it says nothing. There is no interval: a bootstrap adds that error a second time.
    """

    error: float
    by_chance: float
    n: int


@dataclass(frozen=True)
class Belief:
    """How probable a student holds each answer that may be given, which of them it gave, and which is right."""

    probabilities: Sequence[float]
    given: int
    right: int

    @property
    def is_right(self) -> bool:
        """Whether it gave the right one."""
        return self.given == self.right


def calibration_error(
    chances: Floats, right: NDArray[np.bool_], weights: Floats | None = None, *, bins: int = BINS
) -> float:
    """The expected calibration error (Naeini and others, AAAI 2015)."""
    counted = np.ones(len(chances)) if weights is None else weights
    part = np.minimum((chances * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(part, counted * (chances - right), bins)).sum() / counted.sum())


def calibration(chances: Sequence[float], right: Sequence[bool], *, bins: int = BINS) -> Calibration | None:
    """The calibration error beside that of perfect chances; None without any chance."""
    if not len(chances):
        return None
    stated, came, chance = np.array(chances, np.float64), np.array(right, np.bool_), np.random.default_rng(0)
    perfect = [calibration_error(stated, each, bins=bins) for each in chance.random((DRAWS, len(stated))) < stated]
    error = calibration_error(stated, came, bins=bins)
    return Calibration(error, float(np.quantile(perfect, LEVEL)), len(stated))


def fit_temperature(beliefs: Sequence[Belief]) -> float | None:
    """The temperature under which the right answers are the most probable (Guo and others, ICML 2017), held near 1.

    Where all of a few answers are right, they alone would make it 0; so its logarithm is normal around 0 beforehand
    (maximum a posteriori). None where there are too few answers to fit it.
    """
    if len(beliefs) < FEWEST:
        return None
    logs = _logs([each.probabilities for each in beliefs])
    right = logs[np.arange(len(beliefs)), [each.right for each in beliefs]]

    def surprise(log_temperature: float) -> float:
        heat = np.exp(log_temperature)
        fit = np.sum(logsumexp(logs / heat, axis=1) - right / heat)
        return float(fit + (log_temperature / SPREAD) ** 2 / 2)

    found = minimize_scalar(surprise, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def tempered(probabilities: Sequence[float], temperature: float) -> list[float]:
    """Probabilities at another temperature: above 1 they move towards each other, and their order stays."""
    logs = _logs([probabilities])[0] / temperature
    return [float(each) for each in np.exp(logs - logsumexp(logs))]


def confidences(beliefs: Sequence[Belief], temperature: float = 1.0) -> list[float]:
    """How sure the student is of each answer that it gave."""
    return [tempered(each.probabilities, temperature)[each.given] for each in beliefs]


def _logs(rows: Sequence[Sequence[float]]) -> Floats:
    """Logarithms of probabilities, each row filled up with impossible answers."""
    logs = np.full((len(rows), max(map(len, rows))), -np.inf)
    for place, row in enumerate(rows):
        logs[place, : len(row)] = np.log(np.maximum(row, LEAST))
    return logs
