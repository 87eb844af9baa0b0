"""The control arm: the pool in one random order that holds for the whole campaign.

What is asked of it goes on where the order is not yet asked; what selection asked before stands there already.
"""

import hashlib
import heapq
from collections.abc import Collection, Iterable, Sequence

from loop.records import Item


def control_arm(pool: Sequence[Item], size: int, run_seed: int) -> list[Item]:
    """The next items of the order: the first of those that may still be asked."""
    return heapq.nsmallest(size, pool, key=lambda item: _place(item.key, run_seed))


def first_keys(keys: Iterable[str], size: int, run_seed: int) -> list[str]:
    """The same of keys that stream by in whatever order; memory holds the first so far."""
    return heapq.nsmallest(size, keys, key=lambda key: _place(key, run_seed))


def control_share(share: float, size: int, before: int) -> int:
    """How many picks of a batch are the control arm's after so many picks: what rounding left out is carried on."""
    return round(share * (before + size)) - round(share * before)


def control_prefix(asked: Collection[str], may_be_asked: Iterable[str], run_seed: int) -> set[str]:
    """The keys of the asked items up to where the order goes on: to the first that is to be asked.

    These are what a campaign without selection would have asked of today's pool, whoever asked them here. Items that
    may not be asked at all are passed over. Keys that may be asked stream by.
    """
    end = min((_place(key, run_seed) for key in may_be_asked if key not in asked), default=None)
    return {key for key in asked if end is None or _place(key, run_seed) < end}


def _place(key: str, run_seed: int) -> bytes:
    return hashlib.sha256(f"control/{run_seed}/{key}".encode()).digest()
