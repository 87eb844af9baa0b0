"""What was shown to reviewers and what they said."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlmodel import JSON, Field, SQLModel

SECOND, ADJUDICATION = 1, 2
"""Slots of a blind second review, and of the one that decides where the first two disagree."""


class VerdictKind(StrEnum):
    """A reviewer's judgement on one rationale."""

    ACCEPT = "accept"
    EDIT = "edit"
    REJECT = "reject"


class ReviewTask(SQLModel, table=True):
    """A rationale that stands (or is about to stand) on a board. `uid` is our own key in the board's task data.

    Slot 0 is the first review, 1 a blind second one, 2 adjudicates; each slot has a project of its own.
    """

    rationale_id: int = Field(foreign_key="rationale.id", primary_key=True)
    slot: int = Field(default=0, primary_key=True)
    round_id: int = Field(foreign_key="round.id", index=True)
    uid: str = Field(unique=True)
    reason: str
    """`audit`, `risk`, `disagreement` or `planted`; reviewers never see it."""
    charge_id: int | None = Field(default=None, foreign_key="charge.id")
    board: str = ""
    project: str = ""
    task: str = ""
    """The board's own ids, empty until pushed."""
    pushed_at: datetime | None = None


class Verdict(SQLModel, table=True):
    """A verdict, stored raw as it came and then interpreted. A changed annotation is a new row.

    `marks` maps 0-based step numbers (as text) to `ok`, `wrong`, `unsupported`, `hallucinated` or `redundant`.
    """

    board: str = Field(primary_key=True)
    project: str = Field(primary_key=True)
    annotation: str = Field(primary_key=True)
    updated_at: str = Field(primary_key=True)
    rationale_id: int | None = Field(default=None, foreign_key="rationale.id", index=True)
    slot: int = 0
    """The review task's."""
    reviewer: str
    kind: VerdictKind | None = None
    """None where the raw result cannot be interpreted; it is kept all the same."""
    marks: dict[str, str] = Field(default_factory=dict, sa_type=JSON)
    steps: list[str] = Field(default_factory=list, sa_type=JSON)
    """The corrected steps of an `edit`."""
    answer: str | None = None
    """The corrected answer of an `edit`, canonical."""
    reasons: list[str] = Field(default_factory=list, sa_type=JSON)
    seconds: float = 0.0
    simulated: bool = False
    raw: dict[str, Any] = Field(sa_type=JSON)
    pulled_at: datetime
    deleted_at: datetime | None = None
    """When its annotation was found deleted (or skipped) on the board: it is kept, and no longer counts."""


class Listing(SQLModel, table=True):
    """When a project of a board is to be listed whole again, by our clock; all else goes by the board's clock."""

    board: str = Field(primary_key=True)
    project: str = Field(primary_key=True)
    due_at: datetime


def once(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The newest verdict of each reviewer in each slot: a server that saves one answer twice makes it two."""
    newest: dict[tuple[int, str], Verdict] = {}
    for each in sorted(verdicts, key=lambda verdict: (verdict.updated_at, verdict.annotation)):
        newest[each.slot, each.reviewer or f"annotation {each.board} {each.project} {each.annotation}"] = each
    return list(newest.values())


def deciding(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The verdicts that can be read and count: those that adjudicate, where there are any."""
    read = [verdict for verdict in verdicts if verdict.kind is not None]
    return [verdict for verdict in read if verdict.slot == ADJUDICATION] or read


def found_wrong(verdicts: Iterable[Verdict]) -> bool | None:
    """Whether reviewers found a rationale wrong: unless most verdicts accept it. None without a verdict."""
    accepts = [verdict.kind is VerdictKind.ACCEPT for verdict in deciding(verdicts)]
    return 2 * sum(accepts) <= len(accepts) if accepts else None


def audited_wrong(verdicts: Sequence[Verdict]) -> bool:
    """Whether a certifying audit counts as wrong: if reviewers found it so, or if either blind verdict is missing."""
    blind = {verdict.slot for verdict in verdicts if verdict.kind is not None} >= {0, SECOND}
    return not blind or found_wrong(verdicts) is not False
