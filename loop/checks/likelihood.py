"""Which step surprises a student that reads the rationale?

The mean log-probability of a token of each step, given the item and the steps before. A step that falls far below the
others is one that the student would hardly have written there.
"""

import math
import statistics

from loop.checks.doubt import Check, Doubt, Doubtful, Need
from loop.config import ChecksConfig

WEIGHT = 0.1
MOST_STEPS = 64
"""Longer rationales are not read."""
FEWEST_STEPS = 3
FALL = 1.0
"""How far, in nats a token, the likelihood of a step must lie below the median of the others."""


def surprising_step(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt at the least likely step, where it is much less likely than the others."""
    if doubtful.likelihoods is None or not FEWEST_STEPS <= len(doubtful.rationale.steps) <= MOST_STEPS:
        return []
    found = doubtful.likelihoods()
    if len(found) < FEWEST_STEPS or not all(map(math.isfinite, found)):
        return []
    step = min(range(len(found)), key=found.__getitem__)
    usual = statistics.median([*found[:step], *found[step + 1 :]])
    if usual - found[step] < FALL:
        return []
    evidence = (
        f"to the student a token of this step has probability {math.exp(found[step]):.0%} in the mean, of the others "
    )
    return [Doubt("likelihood", step, f"{evidence}{math.exp(usual):.0%}", WEIGHT)]


CHECK = Check("likelihood", surprising_step, milliseconds=1000, needs=frozenset({Need.VERIFIER}))
