"""The rules of money that need no store: units and rounding, the limits within a run, the hold for a reply."""

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal

from loop.config import BudgetConfig

MICRO = 1_000_000
HOLD_LEVEL = 0.98
"""Chance that a reply fits its learned hold. So many must have come that one in fifty can be told: 49."""
ROOM = 8
"""Tokens added to a learned hold: endpoints differ in whether they count a reply's end."""


def to_micro(amount: float) -> int:
    """Dollars or minutes in millionths, rounded up so that a hold is never too small."""
    return int((Decimal(str(amount)) * MICRO).to_integral_value(rounding=ROUND_CEILING))


def caps(budget: BudgetConfig, round_id: int) -> dict[str, int]:
    """The limits within the run that the config asks for, in micro-dollars by scope (see `loop.records.scopes`)."""
    found = {f"domain/{name}": to_micro(usd) for name, usd in budget.domains.items()}
    return found if budget.usd_per_round is None else found | {f"round/{round_id}": to_micro(budget.usd_per_round)}


def discounted(micro_usd: int, discount: float) -> int:
    """A price less a share of it, in whole micro-dollars, rounded up."""
    return math.ceil(micro_usd * (1 - Decimal(str(discount))))


def longest_reply(lengths: Sequence[int], most: int) -> int:
    """Tokens to hold for the next reply, and to allow it, given the lengths of past ones; `most` until enough came.

    The split-conformal upper quantile: the ceil((n + 1) * level)-th smallest of n lengths is passed by the next one
    with a chance of at most 1 - level, whatever their distribution, if it is exchangeable with them.
    """
    rank = math.ceil((len(lengths) + 1) * HOLD_LEVEL)
    return most if rank > len(lengths) else min(most, sorted(lengths)[rank - 1] + ROOM)
