"""Charges and balances. Amounts are integers: micro-dollars, or micro-minutes of reviewers."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel


class Currency(StrEnum):
    """What is spent."""

    USD = "usd"
    MINUTES = "minutes"


class ChargeState(StrEnum):
    """Where a charge stands."""

    RESERVED = "reserved"
    SETTLED = "settled"
    RELEASED = "released"


class Charge(SQLModel, table=True):
    """One entry in the ledger: reserved at worst case, then settled or released."""

    id: int | None = Field(default=None, primary_key=True)
    run: str = Field(index=True)
    currency: Currency
    purpose: str
    """What it pays for, e.g. `ask/3/item-17/0/0`: round, item, sample (of `judge`: step), attempt."""
    reserved: int = Field(sa_type=BigInteger)
    settled: int = Field(default=0, sa_type=BigInteger)
    state: ChargeState = Field(default=ChargeState.RESERVED, index=True)
    assumed: bool = False
    """Charged at worst case because the reply never arrived."""
    owner: str = ""
    """`host:pid:process start` of who reserved it, so that holds of the dead can be closed."""
    created_at: datetime
    closed_at: datetime | None = None


class Balance(SQLModel, table=True):
    """The one counter row of a run and currency; `spent + reserved <= limit` at all times."""

    run: str = Field(primary_key=True)
    currency: Currency = Field(primary_key=True)
    limit: int = Field(sa_type=BigInteger)
    spent: int = Field(default=0, sa_type=BigInteger)
    reserved: int = Field(default=0, sa_type=BigInteger)
