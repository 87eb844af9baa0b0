"""What selection saves: students of selected items against students of as many dollars' worth of the control arm.

The control arm is a prefix of one random order of the pool, so a student of it shows what random asking would have
bought. Pure; the round trains the students and stores what they got right.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from loop.ports import Example
from loop.records import Arm, Shadow

FEWEST = 10
"""With fewer accepted rationales on either side, nothing is trained to compare them."""
RESAMPLES = 2_000


@dataclass(frozen=True)
class Asked:
    """An item that was asked, what its replies cost in micro-dollars, and what was accepted of them, if anything."""

    micro_usd: int
    example: Example | None


class Verdict(StrEnum):
    """What an interval of a difference says."""

    SAVES = "saves"
    UNDECIDED = "undecided"
    LOSES = "loses"


@dataclass(frozen=True)
class Saving:
    """Accuracy of selected items' students minus that of the control arm's, at equal spend, with its interval.

    `control` and `selected` are mean accuracies over `pairs` students each, on the same `n` items of `dev`.
    """

    gain: float
    low: float
    high: float
    control: float
    selected: float
    usd: float
    control_examples: float
    selected_examples: float
    pairs: int
    n: int

    @property
    def verdict(self) -> Verdict:
        """Undecided where the interval holds zero."""
        if self.low > 0:
            return Verdict.SAVES
        return Verdict.LOSES if self.high < 0 else Verdict.UNDECIDED


def equal_spend(control: Sequence[Asked], selected: Sequence[Asked], *, seed: int) -> dict[Arm, list[Asked]]:
    """The longest prefix of the control arm and a random subset of the selected items that cost no more than the other.

    Both are bought for what the cheaper side cost in all.
    """
    level = min(sum(each.micro_usd for each in side) for side in (control, selected))
    shuffled = random.Random(f"saving/{seed}").sample(list(selected), len(selected))
    return {Arm.CONTROL: _bought(control, level), Arm.SELECTED: _bought(shuffled, level)}


def enough(bought: Sequence[Asked]) -> bool:
    """Whether enough was accepted to train on."""
    return sum(each.example is not None for each in bought) >= FEWEST


def saving(shadows: Sequence[Shadow], *, level: float = 0.95, seed: int = 0) -> Saving | None:
    """The difference that the pairs of students show; None while no pair is complete.

    The interval is a paired bootstrap over the items of `dev` and over the pairs, so it holds what the items, the
    subsets and the students' own seeds make of it.
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
    differences = right[:, 1] - right[:, 0]
    low, high = np.quantile(_resampled(differences, np.random.default_rng(seed)), [(1 - level) / 2, (1 + level) / 2])
    flat = [each for pair in pairs for each in pair]
    examples = {arm: float(np.mean([each.examples for each in flat if each.arm is arm])) for arm in Arm}
    return Saving(
        gain=float(selected - control),
        low=float(low),
        high=float(high),
        control=float(control),
        selected=float(selected),
        usd=float(np.mean([each.micro_usd for each in flat])) / 1e6,
        control_examples=examples[Arm.CONTROL],
        selected_examples=examples[Arm.SELECTED],
        pairs=len(pairs),
        n=len(keys),
    )


def loses(savings: Sequence[Saving | None], rounds: int) -> bool:
    """Whether selection did worse than the control arm in each of the last rounds, beyond doubt."""
    last = savings[-rounds:]
    return len(last) == rounds and all(each is not None and each.verdict is Verdict.LOSES for each in last)


def _bought(asked: Sequence[Asked], level: int) -> list[Asked]:
    """As many of the first as the money buys."""
    spent = np.cumsum([each.micro_usd for each in asked])
    return list(asked[: int(np.searchsorted(spent, level, side="right"))])


def _resampled(differences: NDArray[np.float64], chance: np.random.Generator) -> list[float]:
    """Means of (pairs, items) differences over pairs and items drawn with replacement."""
    pairs, items = differences.shape
    return [
        float(differences[np.ix_(chance.integers(pairs, size=pairs), chance.integers(items, size=items))].mean())
        for _ in range(RESAMPLES)
    ]
