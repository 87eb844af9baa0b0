"""The figures of a run, each with the number of things it was counted over. Pure; nothing here knows the store."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from loop.interval import wilson
from loop.records import Prediction, Said, VerdictKind, found_wrong

RISK_BINS = 5
"""Equal parts of the unit interval in which risk is set against what reviewers found."""


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers with its 95 % interval."""

    accuracy: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, right: int, n: int) -> "Accuracy":
        """That of `right` answers out of `n`."""
        return cls(right / n, *wilson(right, n), n)


@dataclass(frozen=True)
class RiskBin:
    """Reviewed rationales whose risk lies from `low` to `high`, and how many of them reviewers did not accept."""

    low: float
    high: float
    reviewed: int
    wrong: int
    expected: float
    """Mean risk of the reviewed ones."""


class Judged(Said, Protocol):
    """What the figures need of a verdict."""

    @property
    def rationale_id(self) -> int | None:
        """On which rationale it is."""

    @property
    def seconds(self) -> float:
        """How long it took."""


@dataclass(frozen=True)
class ReviewerFigures:
    """What one reviewer did, under a pseudonym."""

    name: str
    verdicts: Mapping[VerdictKind, int]
    minutes: float
    simulated: bool


def accuracy(predictions: Sequence[Prediction]) -> Accuracy | None:
    """Accuracy over predictions; None without any."""
    n = len(predictions)
    return Accuracy.of(sum(prediction.correct for prediction in predictions), n) if n else None


def pseudonyms(reviewers: Sequence[str]) -> dict[str, str]:
    """A name for each reviewer that says nothing about the person."""
    return {reviewer: f"reviewer-{number}" for number, reviewer in enumerate(reviewers, start=1)}


def reviewer_figures(verdicts: Sequence[Judged], names: Mapping[str, str]) -> list[ReviewerFigures]:
    """What each reviewer did; people and simulated ones are never counted together."""
    found = []
    for reviewer, name in names.items():
        for simulated in (False, True):
            own = [each for each in verdicts if each.reviewer == reviewer and each.simulated == simulated]
            kinds = Counter(each.kind for each in own if each.kind is not None)
            if own:
                found.append(ReviewerFigures(name, kinds, sum(each.seconds for each in own) / 60, simulated))
    return found


def wrong_by_rationale(verdicts: Sequence[Judged]) -> dict[int, bool]:
    """Whether reviewers found a rationale wrong, for each with an interpreted verdict."""
    given: dict[int, list[Judged]] = {}
    for verdict in verdicts:
        if verdict.rationale_id is not None:
            given.setdefault(verdict.rationale_id, []).append(verdict)
    found = {rationale: found_wrong(each) for rationale, each in given.items()}
    return {rationale: wrong for rationale, wrong in found.items() if wrong is not None}


def risk_bins(risks: Mapping[int, float], verdicts: Sequence[Judged]) -> list[RiskBin]:
    """Risk against what reviewers found, in equal parts of the unit interval."""
    wrong = wrong_by_rationale(verdicts)
    bins: list[list[int]] = [[] for _ in range(RISK_BINS)]
    for reviewed in wrong.keys() & risks.keys():
        bins[min(int(risks[reviewed] * RISK_BINS), RISK_BINS - 1)].append(reviewed)
    return [
        RiskBin(
            low=number / RISK_BINS,
            high=(number + 1) / RISK_BINS,
            reviewed=len(members),
            wrong=sum(wrong[each] for each in members),
            expected=sum(risks[each] for each in members) / max(1, len(members)),
        )
        for number, members in enumerate(bins)
    ]
