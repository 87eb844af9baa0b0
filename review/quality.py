"""How good a reviewer's work is: time, corrections, and whether verdicts are given without looking. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from statistics import median

from rapidfuzz.distance import Levenshtein

from loop.interval import clopper_pearson_lower
from loop.records import Verdict
from loop.report import RISK_BINS

MISSED = 0.2
"""Share of the wrong rationales that an honest reviewer may accept."""
STAMPED = 0.95
"""Share of all rationales that somebody who does not look accepts."""
FALSE_ACCUSATION = 0.05
"""Chance that an honest reviewer is ever accused."""


@dataclass(frozen=True)
class Look:
    """A verdict on a rationale, in the order in which the reviewer gave them."""

    accepted: bool
    risk: float | None = None
    wrong: bool | None = None
    """Whether an error was planted in it; None where nobody knows."""


@dataclass(frozen=True)
class Suspicion:
    """How much likelier a reviewer's verdicts are of somebody who does not look than of an honest reviewer."""

    ratio: float
    """The largest likelihood ratio that was reached."""
    accused: bool
    after: int | None
    """The verdict with which it was reached."""
    reason: str


def suspicion(own: Sequence[Look], others: Iterable[Look]) -> Suspicion:
    """Whether a reviewer accepts without looking, by a sequential likelihood ratio test.

    Somebody who does not look accepts `STAMPED` of everything. An honest reviewer accepts at most `MISSED` of what is
    wrong; of a rationale of unknown truth that is 1 - (1 - `MISSED`) x, where x, the least share that is wrong at like
    risk, is the exact 95 % lower bound of what other reviewers of the run do not accept there. For whoever is honest in
    this sense the ratio is not expected to grow, whatever is shown in whichever order, so that by Ville's inequality it
    ever reaches 1 / `FALSE_ACCUSATION` with at most that chance. Controls say nothing: both accept them.

    Two planted errors in a row that were accepted are enough. Without others, planted errors alone decide.
    """
    wrong_at = _least_wrong(others)
    ratio = largest = 1.0
    reached = None
    for number, look in enumerate(own, start=1):
        ratio *= _factor(look, wrong_at)
        largest = max(largest, ratio)
        if reached is None and ratio >= 1 / FALSE_ACCUSATION:
            reached = number
    return Suspicion(largest, reached is not None, reached, _reason(own, largest))


def _factor(look: Look, wrong_at: Sequence[float]) -> float:
    """What a verdict says for not looking; 1 where an honest reviewer may accept as much."""
    if look.wrong is not None:
        honest = MISSED if look.wrong else 1.0
    else:
        honest = 1.0 if look.risk is None else 1 - (1 - MISSED) * wrong_at[_band(look.risk)]
    if honest >= STAMPED:
        return 1.0
    return STAMPED / honest if look.accepted else (1 - STAMPED) / (1 - honest)


def _least_wrong(others: Iterable[Look]) -> list[float]:
    """For each band of risk the least share of wrong rationales that others' verdicts admit."""
    refused, seen = [0] * RISK_BINS, [0] * RISK_BINS
    for look in others:
        if look.wrong is None and look.risk is not None:
            seen[_band(look.risk)] += 1
            refused[_band(look.risk)] += not look.accepted
    return [clopper_pearson_lower(*each) for each in zip(refused, seen, strict=True)]


def _band(risk: float) -> int:
    return min(int(risk * RISK_BINS), RISK_BINS - 1)


def _reason(own: Sequence[Look], ratio: float) -> str:
    planted = [look.accepted for look in own if look.wrong]
    real = [look.accepted for look in own if look.wrong is None]
    return (
        f"accepted {sum(planted)} of {len(planted)} planted errors and {sum(real)} of {len(real)} other rationales: "
        f"{ratio:.3g} times likelier of somebody who accepts {STAMPED:.0%} of everything than of one who overlooks "
        f"{MISSED:.0%} of what is wrong"
    )


def active_minutes(versions: Sequence[Verdict]) -> float:
    """Minutes that one reviewer can have worked at most, from every version of their verdicts.

    The page measures how long it was open (`seconds`, which goes on counting when a verdict is changed), and that is no
    work while the reviewer sits at another page. So each submission counts with what the page measured since the last
    one of the same verdict, but never with more than the time since the reviewer's previous submission of any. A break
    in front of an open page is still counted, up to an hour. What a simulated reviewer claims is taken as claimed.
    """
    total, before = 0.0, None
    measured: dict[tuple[str, str, str], float] = {}
    for each in sorted(versions, key=lambda row: (row.updated_at, row.annotation)):
        key, at = (each.board, each.project, each.annotation), datetime.fromisoformat(each.updated_at)
        earlier = measured.get(key, 0.0)
        worked = each.seconds - earlier if each.seconds >= earlier else each.seconds
        if before is not None and not each.simulated:
            worked = min(worked, (at - before).total_seconds())
        total += worked
        measured[key], before = each.seconds, at
    return total / 60


def median_seconds(verdicts: Sequence[Verdict]) -> float | None:
    """Seconds that the page of an average verdict was open."""
    return median(each.seconds for each in verdicts) if verdicts else None


@dataclass(frozen=True)
class Corrections:
    """How much a reviewer's edits change: the median share of characters, 0 where nothing is changed."""

    edits: int
    changed: float


def corrections(edits: Sequence[tuple[Sequence[str], Sequence[str]]]) -> Corrections | None:
    """What edits of steps change, from before to after; None without any.

    The share is Levenshtein's distance over the longer text. Rewriting all for one wrong number is near 1.
    """
    if not edits:
        return None
    return Corrections(len(edits), median(edit_share(before, after) for before, after in edits))


def edit_share(before: Sequence[str], after: Sequence[str]) -> float:
    """The share of characters that differ between two lists of steps."""
    return float(Levenshtein.normalized_distance("\n".join(before), "\n".join(after)))


def by_reviewer(verdicts: Iterable[Verdict]) -> dict[tuple[str, bool], list[Verdict]]:
    """Verdicts by reviewer and whether simulated, each in the order of submission."""
    ordered = sorted(verdicts, key=lambda each: (each.reviewer, each.simulated, each.updated_at, each.annotation))
    return {who: list(own) for who, own in groupby(ordered, key=lambda each: (each.reviewer, each.simulated))}
