"""Which domains a batch should favour: those where the student lags behind the teacher (after DDK, arXiv 2407.16154).

DDK compares perplexities. A teacher behind an API gives none, so errors take their place: the student's on dev, and the
teacher's as far as review found them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

SMALLEST_GAP, LARGEST_GAP = 0.5, 4.0
"""Gaps are clipped: one runaway domain would take the whole batch."""
SMOOTHING = 0.5
"""Every domain keeps at least (1 - this) / domains of the whole."""

HEAVIEST = 4.0
"""Most that an example weighs: a domain with one example would have it weigh as much as all others of another."""


def gap(student: Sequence[bool], teacher: Sequence[bool]) -> float:
    """Student's error rate over the teacher's; `True` is an error, and one of each kind is added to both."""
    rates = [(sum(errors) + 1) / (len(errors) + 2) for errors in (student, teacher)]
    return min(LARGEST_GAP, max(SMALLEST_GAP, rates[0] / rates[1]))


def shares(gaps: Sequence[Mapping[str, float]], others: Iterable[str] = ()) -> dict[str, float]:
    """Share of each domain after the gaps of all rounds so far, oldest first: DDK's smoothed multiplicative update.

    A domain that a round has no gap for is taken as average there, and so are the `others` where nothing is measured of
    them. Nothing at all is said before the first gap.
    """
    if not any(gaps):
        return {}
    names = sorted({name for each in gaps for name in each} | {*others})
    now = _softmax(_complete(gaps[0], names), dict.fromkeys(names, 1.0))
    for later in gaps[1:]:
        updated = _softmax(_complete(later, names), now)
        now = {name: SMOOTHING * share + (1 - SMOOTHING) / len(names) for name, share in updated.items()}
    return now


def quotas(share: Mapping[str, float], size: int, available: Mapping[str, int]) -> dict[str, int]:
    """How many picks each domain gets, by largest remainder; never more than are available there."""
    given = dict.fromkeys(available, 0)
    left = min(size, sum(available.values()))
    while left:
        open_names = [name for name in sorted(available) if given[name] < available[name]]
        total = sum(share.get(name, 0.0) for name in open_names)
        exact = {name: left * (share.get(name, 0.0) / total if total else 1 / len(open_names)) for name in open_names}
        step = {name: min(math.floor(exact[name]), available[name] - given[name]) for name in open_names}
        if not any(step.values()):
            best = max(open_names, key=lambda name: (exact[name], name))
            step = {best: 1}
        for name, count in step.items():
            given[name] += count
        left -= sum(step.values())
    return given


def weights(share: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
    """How much an example of each domain weighs, so that domains of so many examples have their shares of the whole.

    Domains without a share keep the weight 1, and the mean over all examples stays 1. Where DDK draws more examples of
    a domain, these count more: in the mean the same, and every example is seen once an epoch. None weighs more than
    `HEAVIEST`: a domain of few examples then has less than its share, and the others have more.
    """
    found = dict.fromkeys(counts, 1.0)
    left = {name for name in counts if name in share}
    mass: float = sum(counts[name] for name in left)
    while left:
        whole = sum(share[name] for name in left)
        now = {name: share[name] / whole * mass / counts[name] for name in left}
        heavy = {name for name in left if now[name] > HEAVIEST}
        found |= now | dict.fromkeys(heavy, HEAVIEST)
        mass -= sum(HEAVIEST * counts[name] for name in heavy)
        left = left - heavy if heavy else set()
    return found


def _complete(gaps: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    average = sum(gaps.values()) / len(gaps) if gaps else 1.0
    return {name: gaps.get(name, average) for name in names}


def _softmax(gaps: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """Proportional to what was before times the exponential of the gap."""
    largest = max(gaps.values())
    weights = {name: before[name] * math.exp(value - largest) for name, value in gaps.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
