"""How likely a rationale is wrong, from the doubts about it."""

import math
from collections.abc import Sequence

from loop.checks.doubt import Doubt

BASE = 0.1
"""Taken as wrong among rationales without any doubt; with one sample of a weak teacher it is more."""


def risk(doubts: Sequence[Doubt]) -> float:
    """Noisy-or of the base rate and, for each check, its heaviest doubt: 1 - (1 - base) * prod(1 - weight)."""
    heaviest: dict[str, float] = {}
    for doubt in doubts:
        heaviest[doubt.check] = max(heaviest.get(doubt.check, 0.0), doubt.weight)
    right = (1 - BASE) * math.prod(1 - weight for weight in heaviest.values())
    return min(1.0, max(0.0, 1 - right))
