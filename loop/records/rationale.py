"""Rationales, the doubts about them, and what was decided. All append-only."""

from datetime import datetime
from enum import StrEnum

from sqlmodel import JSON, CheckConstraint, Field, ForeignKeyConstraint, SQLModel, UniqueConstraint

from loop.answer import Answer

CONTROL = "control"
"""A good rationale that is shown again as it was, to see how often it is doubted all the same."""


class Author(StrEnum):
    """Who wrote a rationale."""

    STUDENT = "student"
    TEACHER = "teacher"
    HUMAN = "human"


class Rationale(SQLModel, table=True):
    """Numbered steps and an answer. A correction is a new row that supersedes the old one.

    A planted one only measures checks and reviewers. The database itself forbids a decision about it (see `Decision`),
    and a correction of it is planted as well.
    """

    __table_args__ = (
        UniqueConstraint("id", "planted", name="uq_rationale_planted"),
        ForeignKeyConstraint(
            ["supersedes", "planted"], ["rationale.id", "rationale.planted"], name="fk_rationale_supersedes_planted"
        ),
        CheckConstraint("(planted = '') = (planted_from IS NULL)", name="ck_rationale_planted_from"),
    )

    id: int | None = Field(default=None, primary_key=True)
    item_key: str = Field(foreign_key="item.key", index=True)
    round_id: int = Field(foreign_key="round.id", index=True)
    author: Author
    sample: int = 0
    """Which of the teacher's samples; 0 is the one that is reviewed and trained on."""
    steps: list[str] = Field(sa_type=JSON)
    answer: str | None = None
    """Canonical JSON; None where the stated answer is not an allowed one."""
    stated: str = ""
    """The answer as it was written."""
    teacher: str = ""
    """The teacher that wrote it, by the name that it was asked by."""
    confidence: float | None = None
    """How sure the teacher is, in [0, 1], as it came, or the share of its samples that end in this answer."""
    confidence_by: str = ""
    """Where that is from: `logprobs`, `stated` or `votes`."""
    calibrated: float | None = None
    """The chance that people find it right, by the confidence; None where verdicts are too few to know."""
    other: str | None = None
    """What the teacher stated in its other reply, where it was asked a second time because it was unsure."""
    version: int = 1
    supersedes: int | None = Field(default=None, foreign_key="rationale.id")
    reply_id: int | None = Field(default=None, foreign_key="reply.id")
    planted: str = ""
    """The kind of error that was planted, or `control`; empty for everything that may be decided about."""
    planted_from: int | None = Field(default=None, foreign_key="rationale.id")
    """The good rationale that a planted one was made from."""

    @property
    def is_reply(self) -> bool:
        """Whether it is the teacher's first word on the item, which is reviewed: no further sample, no continuation."""
        return self.author is Author.TEACHER and self.sample == 0 and self.supersedes is None

    @property
    def is_prefix(self) -> bool:
        """Whether it is a corrected beginning that the teacher is to go on from: a person's steps without an answer."""
        return self.author is Author.HUMAN and self.answer is None

    @property
    def is_correction(self) -> bool:
        """Whether a person corrected it to the end."""
        return self.author is Author.HUMAN and self.answer is not None

    @property
    def parsed(self) -> Answer | None:
        """The answer as a value."""
        return None if self.answer is None else Answer.from_canonical(self.answer)


class Flag(SQLModel, table=True):
    """A doubt about a rationale. `step` is 0-based, None where it concerns the whole; `weight` in (0, 1].

    `start` and `end` say which characters of the step are doubted, None where it is the step as such.
    """

    id: int | None = Field(default=None, primary_key=True)
    rationale_id: int = Field(foreign_key="rationale.id", index=True)
    check_name: str
    step: int | None = None
    start: int | None = None
    end: int | None = None
    evidence: str
    weight: float


class Risk(SQLModel, table=True):
    """Probability in [0, 1] that the rationale is wrong, by which set of checks. Its presence says "checked"."""

    rationale_id: int = Field(foreign_key="rationale.id", primary_key=True)
    value: float
    check_set: str
    evidence: dict[str, float] = Field(default_factory=dict, sa_type=JSON)
    """For each check with a doubt, the log-odds by which it alone raises the base rate."""


class RiskFit(SQLModel, table=True):
    """The model from evidence to risk in a round: the base rate in log-odds, and a weight for each check."""

    round_id: int = Field(foreign_key="round.id", primary_key=True)
    base: float
    weights: dict[str, float] = Field(default_factory=dict, sa_type=JSON)
    reviewed: int
    """Rationales of earlier rounds with verdicts that it was fitted on; with none it is the prior."""
    fitted_at: datetime
    """Verdicts that came later did not count."""
    learned_in: int | None = Field(default=None, foreign_key="round.id")
    """The round whose model it is, where a certified threshold holds it fixed; None: its own."""


class DecisionKind(StrEnum):
    """What became of an item."""

    GOLD = "gold"
    SILVER = "silver"
    REJECTED = "rejected"
    UNDECIDED = "undecided"


class Decision(SQLModel, table=True):
    """What was decided about an item in a round. The newest row of an item counts.

    `planted` is always empty and says so to the database: together with `rationale_id` it must name a rationale, so a
    planted one cannot be decided about. No id is used again when an item is forgotten: versions, exports and
    checkpoints are known by the id that was the newest then.
    """

    __table_args__ = (
        CheckConstraint("planted = ''", name="ck_decision_not_planted"),
        ForeignKeyConstraint(
            ["rationale_id", "planted"], ["rationale.id", "rationale.planted"], name="fk_decision_rationale_planted"
        ),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    run: str = Field(index=True)
    item_key: str = Field(foreign_key="item.key", index=True)
    round_id: int = Field(foreign_key="round.id", index=True)
    rationale_id: int | None = Field(default=None, foreign_key="rationale.id")
    kind: DecisionKind
    certified: bool = False
    reason: str
    version: int = 1
    supersedes: int | None = Field(default=None, foreign_key="decision.id")
    decided_at: datetime
    planted: str = ""


class Export(SQLModel, table=True):
    """A dataset that was written, so that a recall can say which ones hold what it takes back."""

    id: int | None = Field(default=None, primary_key=True)
    run: str = Field(index=True)
    folder: str
    format: str
    last_decision: int
    """The id of the newest decision then; what was in force follows from it."""
    data_version: str = ""
    """The hash of all gold and silver rows of that moment (see `DataVersion`)."""
    filters: list[str] = Field(default_factory=list, sa_type=JSON)
    """Which of them were written, as conditions; none: all."""
    exported_at: datetime
