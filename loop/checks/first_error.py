"""Which step is the first wrong one, learned from the steps that people marked.

A hazard model: logistic regression gives, for each step, the probability that it is wrong where all before it are
right. The rationale has a wrong step where the chances add up to more than a threshold, which is chosen on the
verdicts themselves to find the right step, or none, as often as possible (the F1 of ProcessBench, arXiv 2412.06559).
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from loop.checks import arithmetic, quantities
from loop.checks.doubt import Check, Doubt, Doubtful, Need
from loop.checks.features import MOST_CHARACTERS, NUMBER, WORD
from loop.config import ChecksConfig

FOLDS = 5
FEWEST = 20
"""Marked rationales, and of each kind a quarter of it, below which nothing is learned."""
SHRINKAGE = 0.05
MOST_STEPS = 200
"""Steps that are looked at."""
THRESHOLDS = np.linspace(0.2, 0.95, 31)
SURE = 0.99
Floats = NDArray[np.float64]


class FirstError:
    """Says where to look first."""

    def __init__(self, cases: Sequence[Doubtful], first: Sequence[int | None], *, seed: int) -> None:
        order = [*KFold(FOLDS, shuffle=True, random_state=seed).split(first)] if len(cases) >= FOLDS else []
        counted = [_steps(case) for case in cases]
        self._hazard = _Hazard(counted, first)
        unseen: list[Floats] = [np.zeros(0)] * len(cases)
        for learn, test in order:
            part = _Hazard([counted[at] for at in learn], [first[at] for at in learn])
            for at in test:
                unseen[at] = part(counted[at])
        self.unseen_wrong = [_any(each) for each in unseen]
        """For each case the probability of a wrong step by a model that did not see its marks."""
        scores = [_f1([_decided(each, threshold) for each in unseen], first) for threshold in THRESHOLDS]
        self.threshold = float(THRESHOLDS[int(np.argmax(scores))])

    def steps(self, case: Doubtful) -> Floats:
        """For each step the probability that it is the first wrong one; (steps,)."""
        return _first(self._hazard(_steps(case)))

    def wrong(self, case: Doubtful) -> float:
        """The probability that some step is wrong."""
        return _any(self._hazard(_steps(case)))

    def first_error(self, case: Doubtful) -> int | None:
        """The likeliest first wrong step, 0-based; None where all are taken for right."""
        return _decided(self._hazard(_steps(case)), self.threshold)


def fit(cases: Sequence[Doubtful], first: Sequence[int | None], *, seed: int) -> FirstError | None:
    """What was learned from marked rationales; None where they are too few."""
    usable = [(case, at) for case, at in zip(cases, first, strict=True) if at is None or at < MOST_STEPS]
    wrong = sum(at is not None for _, at in usable)
    if len(usable) < FEWEST or not FEWEST // 4 <= wrong <= len(usable) - FEWEST // 4 or len(usable) < len(cases):
        return None
    return FirstError([case for case, _ in usable], [at for _, at in usable], seed=seed)


def suspicious_step(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt at the likeliest first wrong step, as heavy as some step is likely to be wrong."""
    model = doubtful.first_error
    if model is None or not any(step.strip() for step in doubtful.rationale.steps):
        return []
    shares = model.steps(doubtful)
    wrong, step = model.wrong(doubtful), int(shares.argmax())
    evidence = (
        f"reviewers found the first wrong step in steps like this one ({shares[step]:.0%}; some step {wrong:.0%})"
    )
    return [Doubt("first_error", step, evidence, max(wrong, 1e-6))]


class _Hazard:
    """From the counts of each step to the probability that it is wrong where those before are right."""

    def __init__(self, counted: Sequence[Sequence[dict[str, float]]], first: Sequence[int | None]) -> None:
        rows = [
            (step, at == place)
            for steps, place in zip(counted, first, strict=True)
            for at, step in enumerate(steps[: None if place is None else place + 1])
        ]
        self._names = DictVectorizer(sparse=False)
        self._model = make_pipeline(StandardScaler(), LogisticRegression(C=SHRINKAGE, max_iter=1000))
        self._model.fit(self._names.fit_transform([step for step, _ in rows]), [wrong for _, wrong in rows])

    def __call__(self, counted: Sequence[dict[str, float]]) -> Floats:
        if not counted:
            return np.zeros(1)
        return np.asarray(self._model.predict_proba(self._names.transform(counted))[:, 1]).clip(0, SURE)


def _first(hazard: Floats) -> Floats:
    return np.asarray(hazard * np.concatenate([[1.0], np.cumprod(1 - hazard)[:-1]]))


def _any(hazard: Floats) -> float:
    return float(1 - np.prod(1 - hazard))


def _decided(hazard: Floats, threshold: float) -> int | None:
    return int(_first(hazard).argmax()) if _any(hazard) > threshold else None


def _f1(said: Sequence[int | None], first: Sequence[int | None]) -> float:
    """ProcessBench's: the harmonic mean of the shares that are right among wrong and among right rationales."""
    found = [one == other for one, other in zip(said, first, strict=True) if other is not None]
    spared = [one is None for one, other in zip(said, first, strict=True) if other is None]
    both = (sum(found) / max(1, len(found)), sum(spared) / max(1, len(spared)))
    return 2 * both[0] * both[1] / sum(both) if sum(both) else 0.0


def _steps(case: Doubtful) -> list[dict[str, float]]:
    """What can be counted in each step."""
    steps = [step[:MOST_CHARACTERS] for step in case.rationale.steps[:MOST_STEPS]]
    config = ChecksConfig()
    found = [*arithmetic.CHECK.find(case, config), *quantities.CHECK.find(case, config)]
    raised = Counter((doubt.check, doubt.step) for doubt in found)
    item = case.item.text[:MOST_CHARACTERS]
    asked, numbers, words = _numbers(item), _numbers(item), set(_words(item))
    counted, failed = [], 0
    for at, step in enumerate(steps):
        own, own_words = _numbers(step), set(_words(step))
        counted.append(
            {
                "false equations": raised["arithmetic", at],
                "false equations before": failed,
                "quantities without source": raised["quantities", at],
                "place": at / max(1, len(steps) - 1),
                "steps before": math.log1p(at),
                "steps": math.log1p(len(steps)),
                "first": at == 0,
                "last": at == len(steps) - 1,
                "last but one": at == len(steps) - 2,
                "length": math.log1p(len(step)),
                "length of the item": math.log1p(len(item)),
                "equations": math.log1p(step.count("=")),
                "formulas": math.log1p(step.count("\\")),
                "numbers": math.log1p(len(own)),
                "new numbers": math.log1p(len(own - numbers)),
                "share of new numbers": len(own - numbers) / max(1, len(own)),
                "item's numbers used": len(own & asked) / max(1, len(asked)),
                "item's numbers unused so far": len(asked - numbers) / max(1, len(asked)),
                "share of new words": len(own_words - words) / max(1, len(own_words)),
                "longest number": max(map(len, own), default=0),
                "fractions": sum("." in number for number in own) + step.count("frac"),
                "minus": "-" in step,
                "per cent": "%" in step,
                **{word: word in own_words for word in ("half", "since", "must", "let", "however", "only", "each")},
            }
        )
        failed += raised["arithmetic", at]
        numbers |= own
        words |= own_words
    return counted


def _numbers(text: str) -> set[str]:
    return {found for found in NUMBER.findall(text) if len(found) < 16}


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


CHECK = Check("first_error", suspicious_step, milliseconds=6, needs=frozenset({Need.VERDICTS}))
