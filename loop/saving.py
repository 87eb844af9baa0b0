"""What selection saves: students of selected items against students of as many dollars' worth of the control arm.

The control arm is a prefix of one random order of the pool, so a student of a random part of it shows what random
asking would have bought. Pure; the round trains the students and stores what they got right.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from loop.ports import Example
from loop.records import Arm, Shadow

FEWEST = 10
"""With fewer accepted rationales on either side, nothing is trained to compare them."""
FEWEST_PAIRS = 3
"""With fewer pairs of students the interval holds every difference: two do not tell how far such students differ."""
RESAMPLES = 2_000


@dataclass(frozen=True)
class Asked:
    """An item that was asked, what its replies cost in micro-dollars, and what was accepted of them, if anything."""

    micro_usd: int
    example: Example | None


class Outcome(StrEnum):
    """What an interval of a difference says."""

    SAVES = "saves"
    UNDECIDED = "undecided"
    LOSES = "loses"


@dataclass(frozen=True)
class Saving:
    """Accuracy of selected items' students minus that of the control arm's, at equal spend, with its interval.

    `control` and `selected` are mean accuracies over `pairs` students each, on the same `n` items of `dev`. `asked` is
    the mean number of items that a student was bought; `by_count` says that it is this, not the spend, that is equal.
    """

    gain: float
    low: float
    high: float
    control: float
    selected: float
    usd: float
    asked: float
    by_count: bool
    control_examples: float
    selected_examples: float
    pairs: int
    n: int

    @property
    def verdict(self) -> Outcome:
        """Undecided where the interval holds zero."""
        if self.low > 0:
            return Outcome.SAVES
        return Outcome.LOSES if self.high < 0 else Outcome.UNDECIDED


def is_counted(*sides: Sequence[Asked]) -> bool:
    """Whether something that teaches cost nothing: dollars do not say then how much was asked, so items are counted."""
    return any(each.example is not None and not each.micro_usd for side in sides for each in side)


def equal_spend(
    control: Sequence[Asked], selected: Sequence[Asked], *, pairs: int, seed: int
) -> list[dict[Arm, list[Asked]]]:
    """For each pair of students a random part of both arms; none costs more than the cheapest part that there is.

    No item is in two parts of one arm, so the pairs differ by all that chance does to an arm. Parts hold equally many
    items instead where `is_counted`.
    """
    by_count = is_counted(control, selected)
    dealt = {arm: _dealt(side, pairs, f"saving/{arm}/{seed}") for arm, side in _arms(control, selected)}
    level = min(sum(_price(each, by_count) for each in part) for parts in dealt.values() for part in parts)
    return [{arm: _bought(parts[pair], level, by_count) for arm, parts in dealt.items()} for pair in range(pairs)]


def accepted(bought: Sequence[Asked]) -> int:
    """How many of them teach something."""
    return sum(each.example is not None for each in bought)


def enough(bought: Sequence[Asked]) -> bool:
    """Whether enough was accepted to train on."""
    return accepted(bought) >= FEWEST


def saving(shadows: Sequence[Shadow], *, level: float = 0.95, seed: int = 0) -> Saving | None:
    """The difference that the pairs of students show; None while no pair is complete.

    The interval is a paired bootstrap over the items of `dev` and over the pairs, widened for so few pairs: it holds
    what the items, the parts of both arms and the students' own seeds make of it.
    """
    by_pair: dict[int, dict[Arm, Shadow]] = {}
    for shadow in shadows:
        by_pair.setdefault(shadow.pair, {})[shadow.arm] = shadow
    pairs = [(both[Arm.CONTROL], both[Arm.SELECTED]) for both in by_pair.values() if len(both) == len(Arm)]
    if not pairs:
        return None
    keys = sorted(set.intersection(*(set(each.correct) for pair in pairs for each in pair)))
    if not keys:
        return None
    right = np.array([[[each.correct[key] for key in keys] for each in pair] for pair in pairs], dtype=np.float64)
    control, selected = right.mean(axis=(0, 2))
    low, high = _interval(right[:, 1] - right[:, 0], level, np.random.default_rng(seed))
    flat = [each for pair in pairs for each in pair]
    examples = {arm: float(np.mean([each.examples for each in flat if each.arm is arm])) for arm in Arm}
    return Saving(
        gain=float(selected - control),
        low=low,
        high=high,
        control=float(control),
        selected=float(selected),
        usd=float(np.mean([each.micro_usd for each in flat])) / 1e6,
        asked=float(np.mean([each.asked for each in flat])),
        by_count=any(each.by_count for each in flat),
        control_examples=examples[Arm.CONTROL],
        selected_examples=examples[Arm.SELECTED],
        pairs=len(pairs),
        n=len(keys),
    )


def loses(savings: Sequence[Saving | None], rounds: int) -> bool:
    """Whether selection did worse than the control arm in each of the last rounds, beyond doubt."""
    last = savings[-rounds:]
    return len(last) == rounds and all(each is not None and each.verdict is Outcome.LOSES for each in last)


def _arms(control: Sequence[Asked], selected: Sequence[Asked]) -> tuple[tuple[Arm, Sequence[Asked]], ...]:
    return (Arm.CONTROL, control), (Arm.SELECTED, selected)


def _dealt(asked: Sequence[Asked], parts: int, seed: str) -> list[list[Asked]]:
    """Shuffled and dealt out like cards."""
    shuffled = random.Random(seed).sample(list(asked), len(asked))
    return [shuffled[number::parts] for number in range(parts)]


def _price(asked: Asked, by_count: bool) -> int:
    return 1 if by_count else asked.micro_usd


def _bought(asked: Sequence[Asked], level: int, by_count: bool) -> list[Asked]:
    """As many of the first as that buys."""
    spent = np.cumsum([_price(each, by_count) for each in asked])
    return list(asked[: int(np.searchsorted(spent, level, side="right"))])


def _interval(differences: NDArray[np.float64], level: float, chance: np.random.Generator) -> tuple[float, float]:
    """Of the mean of (pairs, items) differences: everything where too few pairs or items say how far they differ.

    A bootstrap over three pairs is too narrow for the pairs, and counts the chance of single answers several times over
    (Owen 2007, "The pigeonhole bootstrap"); so its distribution is stretched to the width that `_error` says.
    """
    pairs, items = differences.shape
    if pairs < FEWEST_PAIRS or items < 2:
        return -1.0, 1.0
    mean, drawn = float(differences.mean()), _resampled(differences, chance)
    if not np.ptp(drawn):
        return mean, mean
    error, freedom = _error(differences)
    stretch = error * stats.t.ppf((1 + level) / 2, freedom) / (np.std(drawn) * stats.norm.ppf((1 + level) / 2))
    low, high = mean + stretch * (np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) - mean)
    return float(low), float(high)


def _error(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Standard error of the mean of (pairs, items) differences, both drawn by chance, and its degrees of freedom.

    From the mean squares of the two-way layout, as where several readers judge the same cases (Hillis 2007): few pairs
    that differ much leave few degrees of freedom, pairs that hardly differ leave those of the items.
    """
    pairs, items = differences.shape
    mean, by_pair, by_item = differences.mean(), differences.mean(axis=1), differences.mean(axis=0)
    rest = differences - by_pair[:, None] - by_item + mean
    of_pairs = float(items * by_pair.var(ddof=1))
    of_items = float(pairs * by_item.var(ddof=1) - (rest**2).sum() / ((pairs - 1) * (items - 1)))
    whole = of_pairs + max(of_items, 0.0)
    freedom = (pairs - 1) * (whole / of_pairs) ** 2 if of_pairs else math.inf
    return math.sqrt(whole / (pairs * items)), freedom


def _resampled(differences: NDArray[np.float64], chance: np.random.Generator) -> NDArray[np.float64]:
    """Means of (pairs, items) differences over pairs and items drawn with replacement."""
    pairs, items = differences.shape
    return np.array(
        [
            differences[np.ix_(chance.integers(pairs, size=pairs), chance.integers(items, size=items))].mean()
            for _ in range(RESAMPLES)
        ]
    )
