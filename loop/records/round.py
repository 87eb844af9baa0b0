"""Rounds, what they scored and queried, and who works on them."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlmodel import JSON, Field, SQLModel, UniqueConstraint


class Stage(StrEnum):
    """Where a round stands."""

    SELECT = "select"
    ASK = "ask"
    CHECK = "check"
    REVIEW = "review"
    ACCEPT = "accept"
    TRAIN = "train"
    EVALUATE = "evaluate"
    CLOSED = "closed"


class ConfigRow(SQLModel, table=True):
    """A resolved config by its hash."""

    hash: str = Field(primary_key=True)
    body: dict[str, Any] = Field(sa_type=JSON)


class Round(SQLModel, table=True):
    """One turn of the loop. `selection` says in words how the batch was chosen (a cold start says so)."""

    __table_args__ = (UniqueConstraint("run", "number"),)

    id: int | None = Field(default=None, primary_key=True)
    run: str = Field(index=True)
    number: int
    stage: Stage = Stage.SELECT
    config_hash: str = Field(foreign_key="configrow.hash")
    selection: str = ""
    unmeasured: str = ""
    """Why nothing, or not all, was measured of what selection saves; empty where all was, or the round is not there."""
    opened_at: datetime
    review_opened_at: datetime | None = None
    closed_at: datetime | None = None
    candidate_id: int | None = None
    """The checkpoint trained in the round (no foreign key: checkpoints point back to rounds)."""
    student_id: int | None = None
    """The checkpoint in force after the round."""


class Score(SQLModel, table=True):
    """An item's acquisition score in a round with the parts it was made of.

    `parts` holds for explanation divergence: `intra`, `inter` (unit interval each), `steps` and `answer` of the greedy
    explanation, `forced_answers` (after 0..m steps) and `sampled_answers` (K); answers as canonical JSON or null. For
    functions of the answer alone: `probabilities`.
    """

    round_id: int = Field(foreign_key="round.id", primary_key=True)
    item_key: str = Field(foreign_key="item.key", primary_key=True)
    chunk: int
    score: float
    parts: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)


NOT_SENT = "budget"
"""So begins a query's problem where money was short for its request."""


class Query(SQLModel, table=True):
    """A pick of a round: by which arm, with which probability where it was random."""

    round_id: int = Field(foreign_key="round.id", primary_key=True)
    item_key: str = Field(foreign_key="item.key", primary_key=True)
    position: int
    arm: str
    """`divergence` or another acquisition function, `random`, or `cold start`."""
    probability: float | None = None
    audit: bool = False
    """Whether people look at it whatever the risk; drawn before anything is asked."""
    audit_probability: float = 0.0
    certify: bool = False
    """Whether the audit serves certificates alone: nothing learns from its verdicts until one is issued."""
    passes: bool = False
    """Whether a certifying audit would have been accepted unreviewed; known once its round has decided."""
    problem: str | None = None
    """Why no readable reply came, where none did."""


class Notice(SQLModel, table=True):
    """That people were told of an event of a round (`reviews_wait`, `money_low`), or that this was tried."""

    round_id: int = Field(foreign_key="round.id", primary_key=True)
    event: str = Field(primary_key=True)
    told_at: datetime


class Claim(SQLModel, table=True):
    """Who works on what. A write that carries an older fence is refused."""

    run: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    owner: str
    host: str
    pid: int
    process_started: float
    lease_seconds: float = 0.0
    lease_until: datetime
    fence: int
