"""How sure the teacher is of an answer, and how far that is believed.

The probability that the endpoint gives to the answer's tokens goes before what the teacher says of itself. Both are
coarse and mostly high, so verdicts of people, where there are enough, say what they are worth (Platt scaling).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loop.answer import TRIGGER
from loop.calibration import calibration_error
from loop.ports import Completion
from loop.teacher.reply import Draft

LOGPROBS, STATED, VOTES = "logprobs", "stated", "votes"
FEWEST, FEWEST_EACH = 30, 5
"""Verdicts from which on confidence is calibrated, and how many of them must say right, and wrong."""
LEAST = 0.005
"""Confidence is taken to be at least so far from 0 and from 1."""
FOLDS = 5
ANSWER_FIELD = re.compile(r'"answer"\s*:\s*"?')
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Verdicted:
    """A reply's confidence and whether people found its rationale right. `weight` is 1 / its chance of a review."""

    confidence: float
    right: bool
    weight: float = 1.0


@dataclass(frozen=True)
class Fit:
    """From confidence to the chance of being right."""

    slope: float
    intercept: float
    reviewed: int
    ece: float

    def __call__(self, confidence: float) -> float:
        """The chance, in (0, 1)."""
        return float(_chance(np.array([self.slope, self.intercept]), np.array([confidence]))[0])


@dataclass(frozen=True)
class Trust:
    """How far confidence of each source is believed, and below what a reply is asked for once more (0: never)."""

    fits: Mapping[str, Fit] = field(default_factory=dict)
    reprompt_below: float = 0.0

    def calibrated(self, confidence: float | None, source: str) -> float | None:
        """The chance of being right; None where verdicts are too few to know."""
        fit = self.fits.get(source)
        return None if confidence is None or fit is None else fit(confidence)

    def believed(self, confidence: float | None, source: str) -> float | None:
        """The calibrated chance, or before there is one the confidence as it came."""
        known = self.calibrated(confidence, source)
        return confidence if known is None else known

    def is_low(self, confidence: float | None, source: str) -> bool:
        """Whether to ask once more; never where nothing says how sure the teacher is."""
        believed = self.believed(confidence, source)
        return believed is not None and believed < self.reprompt_below


def confidence_of(completion: Completion, draft: Draft) -> tuple[float | None, str]:
    """How sure the teacher is of its answer, and where that is from."""
    probable = answer_probability(completion, draft.stated)
    if probable is not None:
        return probable, LOGPROBS
    return draft.confidence, "" if draft.confidence is None else STATED


def answer_probability(completion: Completion, stated: str) -> float | None:
    """The probability of the tokens that spell the stated answer; None where they cannot be found among the tokens."""
    text = "".join(token for token, _ in completion.tokens)
    if text != completion.text or not stated:
        return None
    start = _start_of_answer(text)
    begin = text.find(stated, start) if start is not None else -1
    if begin < 0:
        return None
    total, at = 0.0, 0
    for token, logprob in completion.tokens:
        if at < begin + len(stated) and at + len(token) > begin:
            total += logprob
        at += len(token)
    return math.exp(total)


def fit(verdicts: Sequence[Verdicted], *, seed: int) -> Fit | None:
    """Platt scaling on the log-odds of confidence; None where verdicts are too few, or nearly all say the same.

    A confidence that is no sign of being right gets slope 0: then the share of right ones is all that is believed.
    """
    right = np.array([each.right for each in verdicts], dtype=bool)
    if len(verdicts) < FEWEST or min(right.sum(), (~right).sum()) < FEWEST_EACH:
        return None
    sure = np.array([each.confidence for each in verdicts], dtype=np.float64)
    weights = np.array([each.weight for each in verdicts], dtype=np.float64)
    fold = np.random.default_rng(seed).permutation(np.arange(len(verdicts)) % FOLDS)
    unseen = np.zeros(len(verdicts))
    for number in range(FOLDS):
        left = fold != number
        unseen[~left] = _chance(_scaled(sure[left], right[left], weights[left]), sure[~left])
    slope, intercept = _scaled(sure, right, weights)
    return Fit(float(slope), float(intercept), len(verdicts), calibration_error(unseen, right, weights))


def _scaled(sure: Floats, right: NDArray[np.bool_], weights: Floats) -> Floats:
    """Slope and intercept; where one of both is missing, or surer replies are no righter, the share alone."""
    share = float(np.clip(np.average(right, weights=weights), LEAST, 1 - LEAST))
    if right.all() or not right.any():
        return np.array([0.0, math.log(share / (1 - share))])
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - a second, and not for every command

    model = LogisticRegression(C=1.0).fit(_log_odds(sure)[:, None], right, sample_weight=weights / weights.mean())
    slope = float(model.coef_[0, 0])
    if slope <= 0:
        return np.array([0.0, math.log(share / (1 - share))])
    return np.array([slope, float(model.intercept_[0])])


def _chance(line: Floats, sure: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-(line[0] * _log_odds(sure) + line[1]))))


def _log_odds(shares: Floats) -> Floats:
    kept = np.clip(shares, LEAST, 1 - LEAST)
    return np.asarray(np.log(kept / (1 - kept)))


def _start_of_answer(text: str) -> int | None:
    """Where the answer begins in a structured or plain reply."""
    fields = list(ANSWER_FIELD.finditer(text))
    if fields:
        return fields[-1].end()
    before, trigger, _ = text.rpartition(TRIGGER)
    return len(before) + len(TRIGGER) if trigger else None
