"""What was shown to reviewers and what they said."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import takewhile
from typing import Any, Protocol, TypeVar

from sqlmodel import JSON, Field, ForeignKeyConstraint, SQLModel

from loop.records.rationale import Rationale

SECOND, ADJUDICATION = 1, 2
"""Slots of a blind second review, and of the one that decides where the first two disagree."""
ROLES = 3
"""A review that is made again because its verdict was withdrawn stands so many slots higher (see `role`)."""


class VerdictKind(StrEnum):
    """A reviewer's judgement on one rationale."""

    ACCEPT = "accept"
    EDIT = "edit"
    REJECT = "reject"
    CONTINUE = "continue"
    """The steps are put right up to a place, and the teacher is to go on from there."""


class ReviewTask(SQLModel, table=True):
    """A rationale that stands (or is about to stand) on a board. `uid` is our own key in the board's task data.

    Slot 0 is the first review, 1 a blind second one, 2 adjudicates, 3 to 5 are the same again after the verdict was
    withdrawn, and so on; each slot has a project of its own.
    """

    rationale_id: int = Field(foreign_key="rationale.id", primary_key=True)
    slot: int = Field(default=0, primary_key=True)
    round_id: int = Field(foreign_key="round.id", index=True)
    uid: str = Field(unique=True)
    reason: str
    """`audit`, `risk`, `disagreement`, `planted` or `continued`; reviewers never see it."""
    charge_id: int | None = Field(default=None, foreign_key="charge.id")
    board: str = ""
    project: str = ""
    task: str = ""
    """The board's own ids, empty until pushed."""
    pushed_at: datetime | None = None
    assignee: str = ""
    """Whose review it is, by the name in the config; empty: whoever comes first."""
    assigned_at: datetime | None = None
    place: float | None = None
    """Where it stands in the queue of its project, the lowest first."""
    unflagged: bool = False
    """Whether the reviewer is shown no doubt, to see how far doubts sway verdicts; drawn by seed and uid."""


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
    """Who gave it, as the board names people."""
    assignee: str = ""
    """Who was to give it, as the board names people; empty: nobody in particular, or somebody unknown to the board."""
    kind: VerdictKind | None = None
    """None where the raw result cannot be interpreted; it is kept all the same."""
    marks: dict[str, str] = Field(default_factory=dict, sa_type=JSON)
    steps: list[str] = Field(default_factory=list, sa_type=JSON)
    """The corrected steps of an `edit`, those of a `continue` up to where the teacher goes on."""
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


class Said(Protocol):
    """What counting needs of a verdict."""

    @property
    def kind(self) -> VerdictKind | None:
        """The judgement, where it can be read."""

    @property
    def slot(self) -> int:
        """The review task's."""

    @property
    def reviewer(self) -> str:
        """Who gave it."""

    @property
    def simulated(self) -> bool:
        """Whether that is no person."""

    @property
    def board(self) -> str:
        """Where it was given."""

    @property
    def project(self) -> str:
        """Where on the board."""

    @property
    def annotation(self) -> str:
        """Its id there."""

    @property
    def updated_at(self) -> str:
        """Its version."""


AnySaid = TypeVar("AnySaid", bound=Said)


def once(verdicts: Iterable[AnySaid]) -> list[AnySaid]:
    """The newest verdict of each reviewer in each slot: a server that saves one answer twice makes it two."""
    newest: dict[tuple[int, str], AnySaid] = {}
    for each in sorted(verdicts, key=lambda verdict: (verdict.updated_at, verdict.annotation)):
        newest[each.slot, each.reviewer or f"annotation {each.board} {each.project} {each.annotation}"] = each
    return list(newest.values())


def board_uid(uid: str, copy: int) -> str:
    """What the board knows a task by that was put there anew so often. A uid begins with a run's name: no ~."""
    return f"{copy}~{uid}" if copy else uid


def own_uid(board_uid: str) -> str:
    """The task's uid, whichever of its copies on the board is meant."""
    return re.sub(r"^\d+~", "", board_uid)


def counted(verdicts: Iterable[AnySaid]) -> list[AnySaid]:
    """The verdicts that can be read and count: what one person says in several slots is one review, in the first.

    A simulated reviewer works with one account and stands for several people, so all that it says counts.
    """
    read = [verdict for verdict in verdicts if verdict.kind is not None]
    first: dict[str, int] = {}
    for verdict in read:
        if not verdict.simulated:
            first[verdict.reviewer] = min(verdict.slot, first.get(verdict.reviewer, verdict.slot))
    return [each for each in read if each.simulated or not each.reviewer or each.slot == first[each.reviewer]]


class Withdrawal(SQLModel, table=True):
    """A recall: what a reviewer said, a model replied or was decided no longer counts. Nothing is deleted.

    Where several of `reviewer`, `teacher_model`, `prompt_hash` and `since` are named, all of them have to hold.
    """

    id: int | None = Field(default=None, primary_key=True)
    run: str = Field(index=True)
    reviewer: str = ""
    teacher_model: str = ""
    prompt_hash: str = ""
    since: datetime | None = None
    reason: str
    withdrawn_at: datetime


class WithdrawnVerdict(SQLModel, table=True):
    """A version of a verdict that no longer counts, and by which recall."""

    __table_args__ = (
        ForeignKeyConstraint(
            ["board", "project", "annotation", "updated_at"],
            ["verdict.board", "verdict.project", "verdict.annotation", "verdict.updated_at"],
            name="fk_withdrawnverdict_verdict",
        ),
    )

    board: str = Field(primary_key=True)
    project: str = Field(primary_key=True)
    annotation: str = Field(primary_key=True)
    updated_at: str = Field(primary_key=True)
    withdrawal_id: int = Field(foreign_key="withdrawal.id", index=True)


class Reopened(SQLModel, table=True):
    """A decision back to undecided because of a recall. While it is the newest, and a reviewer was recalled, its item
    is to be reviewed again; where replies were doubted, it may be asked again, and its round decides nothing more: so a
    decision of such a round is among them that was not in force, and stays as it was.
    """

    decision_id: int = Field(foreign_key="decision.id", primary_key=True)
    withdrawal_id: int = Field(foreign_key="withdrawal.id", index=True)


def role(slot: int) -> int:
    """What a review in this slot is for: 0 first, `SECOND` or `ADJUDICATION`, also where it is made again."""
    return slot % ROLES


def deciding(verdicts: Iterable[AnySaid]) -> list[AnySaid]:
    """The verdicts that can be read and count: those that adjudicate, where there are any."""
    read = counted(verdicts)
    return [verdict for verdict in read if role(verdict.slot) == ADJUDICATION] or read


def found_wrong(verdicts: Iterable[Said]) -> bool | None:
    """Whether reviewers found a rationale wrong: unless most verdicts accept it. None without a verdict."""
    accepts = [verdict.kind is VerdictKind.ACCEPT for verdict in deciding(verdicts)]
    return 2 * sum(accepts) <= len(accepts) if accepts else None


def audited_wrong(verdicts: Sequence[Verdict]) -> bool:
    """Whether a certifying audit counts as wrong: if reviewers found it so, or if either blind verdict is missing."""
    blind = {role(verdict.slot) for verdict in counted(verdicts)} >= {0, SECOND}
    return not blind or found_wrong(verdicts) is not False


def changed_step(rationale: Rationale, verdict: Verdict) -> int | None:
    """The first step that a corrected prefix changes or leaves out, 0-based; None where it changes none."""
    given = [" ".join(step.split()) for step in rationale.steps]
    kept = [" ".join(step.split()) for step in verdict.steps]
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(given, kept, strict=False)))
    return same if same < len(given) else None
