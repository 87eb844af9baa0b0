"""Which review comes first: what a minute of it is worth.

A minute is worth the chance that the rationale is wrong, times what putting it right teaches the student, divided by
the minutes that a rationale of this length takes. What it teaches is the chance that a wrong one is corrected instead
of rejected, since only then an example comes of it, times how unsure the student is about the item; half of that is
granted to every item, since examples on which student and teacher agree teach a little too.

Audits and planted rationales stand at random places between the others, whatever they are worth. So their place says
nothing, and those that are still open when the stage closes are missing by chance.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

BELIEVED = 10
"""So many verdicts of the expected length weigh as much as what was believed before any."""
OUTLIER = 10.0
"""So many times the median is the longest review that is believed; more is a page left open."""
SHORTEST = 0.2
"""No rationale is expected to take less than this part of the mean, and no saving makes a review cheaper than that."""
STEP = 1.2
"""What differs in worth by less than this factor shares a place, so that places rest while verdicts come in."""
SURE = 0.5
"""What an item teaches of which the student is sure, in parts of one of which it knows nothing."""


@dataclass(frozen=True)
class Need:
    """What is known of a rationale before its review."""

    risk: float
    doubt: float
    """How unsure the student is about the item, in the unit interval: its acquisition score."""
    correctable: float
    """The chance that it is corrected, and not rejected, if it is wrong."""
    length: int
    """Characters of its steps."""


def pace(past: Sequence[tuple[int, float]], fallback: float) -> Callable[[int], float]:
    """Expected minutes of a review by length in characters, from lengths and minutes of past ones.

    A line through the means, drawn to the fallback and to "length does not matter" as by `BELIEVED` verdicts.
    """
    if not past:
        return lambda _length: fallback
    lengths, minutes = np.array(past, dtype=np.float64).T
    minutes = np.minimum(minutes, OUTLIER * np.median(minutes))
    mean = max(1.0, float(lengths.mean()))
    seen = np.column_stack([np.ones(len(past)), lengths / mean - 1])
    believed = math.sqrt(BELIEVED) * np.diag([1.0, seen[:, 1].std()])
    level, slope = np.linalg.lstsq(
        np.vstack([seen, believed]), np.append(minutes, believed @ [fallback, 0.0]), rcond=None
    )[0]
    return lambda length: max(SHORTEST * float(level), float(level + slope * (length / mean - 1)))


def worth(need: Need, minutes: float, saved: float = 0.0) -> float:
    """What a minute of its review is worth, in examples of an item of which the student knows nothing.

    `saved` is what a correction saves, since the teacher is not asked again, in minutes at the price of an hour.
    """
    teaches = need.correctable * (SURE + (1 - SURE) * need.doubt)
    spent = max(SHORTEST * minutes, minutes - need.risk * need.correctable * saved)
    return need.risk * teaches / spent


def places(worths: Mapping[str, float], by_chance: Mapping[str, str]) -> dict[str, float]:
    """The place of each review in the unit interval, the lowest first; what a minute is worth most comes first.

    `by_chance` has those that stand at a place drawn by their seed from the places of the others.
    """
    ranked = {uid: value for uid, value in worths.items() if uid not in by_chance}
    logs = [math.log(value) for value in ranked.values() if value > 0]
    typical = sum(logs) / len(logs) if logs else 0.0
    found = {uid: 1 / (1 + _step(value, typical)) for uid, value in ranked.items()}
    taken = sorted(found.values())
    for uid, seed in by_chance.items():
        drawn = random.Random(f"place/{seed}").random()
        found[uid] = taken[int(drawn * len(taken))] if taken else drawn
    return found


def _step(value: float, typical: float) -> float:
    """How many times the typical worth a worth is, in steps, so that what moves all alike moves nobody."""
    return 0.0 if value <= 0 else float(STEP ** round((math.log(value) - typical) / math.log(STEP)))
