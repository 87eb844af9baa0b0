"""The control arm: the pool in one random order that holds for the whole campaign.

What is asked of it goes on where the order is not yet asked; what selection asked before stands there already.
"""

import hashlib
from collections.abc import Collection, Sequence
from itertools import takewhile

from loop.records import Item


def control_arm(pool: Sequence[Item], size: int, run_seed: int) -> list[Item]:
    """The next items of the order: the first of those that may still be asked."""
    return sorted(pool, key=lambda item: _place(item, run_seed))[:size]


def control_share(share: float, size: int, before: int) -> int:
    """How many picks of a batch are the control arm's after so many picks: what rounding left out is carried on."""
    return round(share * (before + size)) - round(share * before)


def control_prefix(pool: Sequence[Item], asked: Collection[str], may_be_asked: Collection[str], seed: int) -> set[str]:
    """The keys of the asked items up to where the order, for the run's seed, goes on: to the first that is to be asked.

    These are what a campaign without selection would have asked of today's pool, whoever asked them here. Items that
    may not be asked at all are passed over.
    """
    ordered = (item.key for item in control_arm(pool, len(pool), seed))
    walked = takewhile(lambda key: key in asked or key not in may_be_asked, ordered)
    return {key for key in walked if key in asked}


def _place(item: Item, run_seed: int) -> bytes:
    return hashlib.sha256(f"control/{run_seed}/{item.key}".encode()).digest()
