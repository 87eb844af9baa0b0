"""How likely a rationale is wrong, from the doubts about it, learned from what people said of others.

The risk is a logistic model. Each check adds the log-odds by which its heaviest doubt raises the base rate, times a
weight. Before any verdict every weight is 1, so that a single doubt gives exactly the share of wrong rationales that
was measured for it. Verdicts move weights and base rate; no weight falls below 0, so no doubt ever raises trust.
The judge's weight is learned last, with all else as it is without a judge: its silence raises no trust either.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from loop.checks.doubt import Doubt

BASE = 0.1
"""Taken as wrong among rationales without any doubt; with one sample of a weak teacher it is more."""
SURE = 0.999
"""A doubt of more weight than this counts as of this."""
HOSTILE = 0.98
"""Least risk of a rationale that speaks to its graders or hides something: nothing that is learned makes up for it."""
WEIGHT_SPREAD = 0.5
"""Standard deviation of the prior of a weight around 1."""
BASE_SPREAD = 1.5
"""Standard deviation of the prior of the base rate's log-odds."""
FOLDS = 5
LAST = frozenset({"judge"})
"""Checks that read what a text says of itself and may be talked round by it."""
Floats = NDArray[np.float64]


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


@dataclass(frozen=True)
class RiskModel:
    """From evidence to risk: the base rate in log-odds and a weight for each check, 1 for those it does not name."""

    base: float = _logit(BASE)
    weights: Mapping[str, float] = field(default_factory=dict)
    reviewed: int = 0
    """How many verdicts it was fitted on."""

    def __call__(self, evidence: Mapping[str, float]) -> float:
        """The probability in (0, 1) that a rationale with such evidence is wrong."""
        odds = self.base + sum(self.weights.get(name, 1.0) * each for name, each in evidence.items())
        return max(float(expit(odds)), HOSTILE if "instructions" in evidence else 0.0)


PRIOR = RiskModel()
"""What is believed before any verdict."""


@dataclass(frozen=True)
class Reviewed:
    """Evidence about a rationale that people judged. `weight` is 1 / its chance of being reviewed, at random or not."""

    evidence: Mapping[str, float]
    wrong: bool
    weight: float = 1.0


def evidence(doubts: Sequence[Doubt]) -> dict[str, float]:
    """For each check, the log-odds by which its heaviest doubt alone raises the base rate."""
    heaviest: dict[str, float] = {}
    for doubt in doubts:
        heaviest[doubt.check] = max(heaviest.get(doubt.check, 0.0), doubt.weight)
    return {name: _logit(1 - (1 - BASE) * (1 - min(weight, SURE))) - _logit(BASE) for name, weight in heaviest.items()}


def risk(doubts: Sequence[Doubt], model: RiskModel = PRIOR) -> float:
    """The probability in (0, 1) that a rationale with these doubts is wrong."""
    return model(evidence(doubts))


def fit(cases: Sequence[Reviewed]) -> RiskModel:
    """The most probable model after these verdicts; the prior where there are none.

    Maximum a posteriori under Gaussian priors around the model before any verdict, weights bounded below by 0. The
    weights of the cases are scaled to a mean of 1.
    """
    if not cases:
        return PRIOR
    seen = {name for case in cases for name in case.evidence}
    names, last = sorted(seen - LAST), sorted(seen & LAST)
    table = np.column_stack([np.ones(len(cases)), _table(cases, names)])
    base, *weights = _most_probable(cases, table, np.zeros(len(cases)), PRIOR.base)
    odds = table @ np.array([base, *weights])
    weights += _most_probable(cases, _table(cases, last), odds, None) if last else []
    return RiskModel(base, dict(zip([*names, *last], weights, strict=True)), len(cases))


def _table(cases: Sequence[Reviewed], names: Sequence[str]) -> Floats:
    """The evidence by case and check; (cases, names)."""
    rows = [[case.evidence.get(name, 0.0) for name in names] for case in cases]
    return np.array(rows, dtype=np.float64).reshape(len(cases), len(names))


def _most_probable(cases: Sequence[Reviewed], seen: Floats, odds: Floats, base: float | None) -> list[float]:
    """What each column of evidence adds to the given log-odds; the first is the base rate where one is given."""
    wrong = np.array([case.wrong for case in cases], dtype=np.float64)
    each = np.array([case.weight for case in cases], dtype=np.float64)
    each /= each.mean()
    start, spread = np.ones(seen.shape[1]), np.full(seen.shape[1], WEIGHT_SPREAD)
    bounds: list[tuple[float | None, float | None]] = [(0.0, None)] * seen.shape[1]
    if base is not None:
        start[0], spread[0], bounds[0] = base, BASE_SPREAD, (None, None)

    def loss(now: Floats) -> tuple[float, Floats]:
        reached = odds + seen @ now
        surprise = each * (np.logaddexp(0, reached) - wrong * reached)
        away = (now - start) / spread
        gradient = (each * (expit(reached) - wrong)) @ seen + away / spread
        return float(surprise.sum() + 0.5 * away @ away), gradient

    return [float(found) for found in minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x]


def cross_fitted(cases: Sequence[Reviewed], *, seed: int) -> list[float]:
    """The risk of each case from a model that was fitted without it (5 folds)."""
    fold = np.random.default_rng(seed).permutation(np.arange(len(cases)) % FOLDS)
    models = [fit([case for case, at in zip(cases, fold, strict=True) if at != number]) for number in range(FOLDS)]
    return [models[at](case.evidence) for case, at in zip(cases, fold, strict=True)]
