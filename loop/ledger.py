"""The rules of money that need no store: units and rounding."""

from decimal import ROUND_CEILING, Decimal

MICRO = 1_000_000


def to_micro(amount: float) -> int:
    """Dollars or minutes in millionths, rounded up so that a hold is never too small."""
    return int((Decimal(str(amount)) * MICRO).to_integral_value(rounding=ROUND_CEILING))
