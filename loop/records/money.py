"""Charges, balances and the pace of requests. Amounts are integers: micro-dollars, or micro-minutes of reviewers."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

NO_CAP = 2**62
"""The limit of a part of a run that has none of its own."""

BATCHED = "batch/"
"""How the owner of a hold begins that belongs to a batch at the endpoint and to no process; its name follows."""


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
    round_id: int | None = None
    domain: str = ""
    """The parts of the run whose counters it moves besides the run's own; None and empty where there is none."""
    model: str = ""
    """The model that is paid, by the name that it was asked by; empty for minutes."""
    prompt_type: str = Field(default="", index=True)
    """What the requests have in common whose replies should be about as long."""
    output_tokens: int | None = None
    """Length of the reply; None where none came, or one that a learned hold cut off."""
    created_at: datetime
    closed_at: datetime | None = None

    @property
    def scopes(self) -> tuple[str, ...]:
        """The counters that it moves, in the one order in which everybody locks them."""
        return scopes(self.round_id, self.domain)


class Balance(SQLModel, table=True):
    """The one counter row of a scope: a run, a round or a domain of it. `spent + reserved <= limit` at all times."""

    run: str = Field(primary_key=True)
    currency: Currency = Field(primary_key=True)
    scope: str = Field(default="", primary_key=True)
    """Empty for the whole run; see `scopes`."""
    limit: int = Field(sa_type=BigInteger)
    spent: int = Field(default=0, sa_type=BigInteger)
    reserved: int = Field(default=0, sa_type=BigInteger)


class Pace(SQLModel, table=True):
    """How far an endpoint's limits are used up, in seconds since the epoch; every process of the database sees it."""

    endpoint: str = Field(primary_key=True)
    requests_at: float = 0.0
    """When the requests so far are paid off at the allowed rate."""
    tokens_at: float = 0.0
    """The same for tokens."""
    closed_until: float = 0.0
    """The endpoint asked to be left alone until then."""


def scopes(round_id: int | None, domain: str) -> tuple[str, ...]:
    """The scopes of a charge in fixed order, so that no two transactions wait for each other."""
    return ("", *([f"domain/{domain}"] if domain else []), *([] if round_id is None else [f"round/{round_id}"]))
