"""What planted rationales say of checks and reviewers: how many errors they find, and what they doubt in vain."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from loop.interval import Share, share
from loop.records import CONTROL, found_wrong
from loop.store import planted, rounds
from loop.store.database import Store
from loop.store.planted import Shown


@dataclass(frozen=True)
class Detection:
    """What became of planted rationales; each part is None where there is nothing to count."""

    errors: int
    controls: int
    recall: Share | None
    """Of the checks: errors whose risk was at or above the review threshold of their round."""
    false_alarms: Share | None
    """Of the checks: controls whose risk was at or above it."""
    kinds: Mapping[str, Share]
    """The checks' recall by kind of error."""
    sensitivity: Share | None
    """Of the reviewers: errors that they did not accept."""
    specificity: Share | None
    """Of the reviewers: controls that they accepted."""


@dataclass(frozen=True)
class ReviewerDetection:
    """What one reviewer found; people and simulated ones are never counted together."""

    reviewer: str
    simulated: bool
    sensitivity: Share | None
    specificity: Share | None


def detection(store: Store, run: str) -> Detection:
    """What checks and reviewers made of everything that was planted in a run."""
    every = rounds.all_rounds(store, run)
    threshold = {each.id: rounds.config_of(store, each)["review"]["risk_threshold"] for each in every}
    shown = planted.shown(store, run)
    doubted: defaultdict[str, list[bool]] = defaultdict(list)
    for each in shown:
        if each.risk is not None:
            doubted[each.rationale.planted].append(each.risk >= threshold[each.rationale.round_id])
    alarms = doubted.pop(CONTROL, [])
    kinds = {kind: found for kind in sorted(doubted) if (found := share(doubted[kind])) is not None}
    sensitivity, specificity = _judged(shown)
    return Detection(
        errors=sum(not each.is_control for each in shown),
        controls=sum(each.is_control for each in shown),
        recall=share(chain.from_iterable(doubted.values())),
        false_alarms=share(alarms),
        kinds=kinds,
        sensitivity=sensitivity,
        specificity=specificity,
    )


def sensitivity_specificity(store: Store, run: str) -> tuple[Share | None, Share | None]:
    """Of planted errors the share that reviewers found wrong, and of controls the share that they accepted."""
    return _judged(planted.shown(store, run))


def by_reviewer(store: Store, run: str) -> list[ReviewerDetection]:
    """What each reviewer made of the planted rationales that came to them."""
    shown = planted.shown(store, run)
    who = sorted({(verdict.reviewer, verdict.simulated) for each in shown for verdict in each.verdicts})
    return [
        ReviewerDetection(reviewer, simulated, *_judged(_only(shown, reviewer, simulated=simulated)))
        for reviewer, simulated in who
    ]


def _judged(shown: Sequence[Shown]) -> tuple[Share | None, Share | None]:
    """Sensitivity and specificity of the verdicts, of those that got one."""
    judged = [(each, wrong) for each in shown if (wrong := found_wrong(each.verdicts)) is not None]
    return (
        share(wrong for each, wrong in judged if not each.is_control),
        share(not wrong for each, wrong in judged if each.is_control),
    )


def _only(shown: Sequence[Shown], reviewer: str, *, simulated: bool) -> list[Shown]:
    """The same with this reviewer's verdicts alone."""
    return [
        replace(
            each, verdicts=[own for own in each.verdicts if own.reviewer == reviewer and own.simulated == simulated]
        )
        for each in shown
    ]
