"""Trained students and how they did."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlmodel import JSON, BigInteger, Field, SQLModel, UniqueConstraint

from loop.records.item import Part


class Checkpoint(SQLModel, table=True):
    """A trained student on disk. `folder` is relative to the run's folder; `card` names data, config and figures.

    `examples` are all that were decided for it or for the student that it went on from, and the seed items; the card
    says which of them only validated and which could not be learned.
    """

    id: int | None = Field(default=None, primary_key=True)
    run: str = Field(index=True)
    round_id: int | None = Field(default=None, foreign_key="round.id", index=True)
    folder: str
    examples: int
    data_version: str = ""
    """The hash of the gold and silver rows that it has learned (see `DataVersion`); seed items are beside them."""
    card: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    created_at: datetime
    exported_at: datetime | None = None
    """When it last went home; its weights then stay."""
    removed_at: datetime | None = None
    """When its weights were removed, if they were; its card and predictions stay."""


class Prediction(SQLModel, table=True):
    """A checkpoint's answer to a holdout item.

    `probabilities` are of the allowed answers, in their order; where any answer is allowed, of the one that was given,
    by the share of sampled explanations that agree, and in equal shares of others. Empty where nobody looked.
    """

    checkpoint_id: int = Field(foreign_key="checkpoint.id", primary_key=True)
    item_key: str = Field(foreign_key="item.key", primary_key=True)
    part: Part
    answer: str | None = None
    correct: bool
    steps: list[str] = Field(default_factory=list, sa_type=JSON)
    probabilities: list[float] = Field(default_factory=list, sa_type=JSON)


class Doubt(SQLModel, table=True):
    """How unsure a checkpoint's direct answer to a pool item is: what the sieve goes by, kept for its next pass."""

    checkpoint_id: int = Field(foreign_key="checkpoint.id", primary_key=True)
    item_key: str = Field(foreign_key="item.key", primary_key=True)
    value: float


class Harm(StrEnum):
    """What was done to a rationale to see whether its answer changes."""

    NUMBER = "number"
    WORD = "word"
    SHUFFLED = "shuffled"
    OTHER = "other"


class Corruption(SQLModel, table=True):
    """A checkpoint's own rationale on a `dev` item, spoiled: the answer that follows the whole one, `before`, and the
    one that follows these steps.
    """

    checkpoint_id: int = Field(foreign_key="checkpoint.id", primary_key=True)
    item_key: str = Field(foreign_key="item.key", primary_key=True)
    harm: Harm = Field(primary_key=True)
    steps: list[str] = Field(sa_type=JSON)
    before: str
    answer: str | None = None

    @property
    def changed(self) -> bool:
        """Whether another answer followed, or none that can be read."""
        return self.answer != self.before


class Evaluation(SQLModel, table=True):
    """What was measured of a checkpoint when its round closed, over its predictions and corruptions.

    `temperature` is what its probabilities are divided by, as logarithms, before anybody is told how sure it is.
    """

    checkpoint_id: int = Field(foreign_key="checkpoint.id", primary_key=True)
    temperature: float | None = None
    figures: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)


class Arm(StrEnum):
    """How the items that a shadow student learned from came to be asked."""

    CONTROL = "control"
    SELECTED = "selected"


class Shadow(SQLModel, table=True):
    """A student trained only to see what selection saves; its weights are not kept.

    `pair` joins the student of the control arm with the one of selected items for the same dollars, `asked` counts the
    items that were paid for, `examples` those that were accepted, `correct` says which items of `dev` it got right.
    With `by_count` both were asked equally many items instead, since some cost nothing.
    """

    __table_args__ = (UniqueConstraint("round_id", "pair", "arm"),)

    id: int | None = Field(default=None, primary_key=True)
    round_id: int = Field(foreign_key="round.id", index=True)
    pair: int
    arm: Arm
    asked: int
    examples: int
    micro_usd: int = Field(sa_type=BigInteger)
    by_count: bool = False
    correct: dict[str, bool] = Field(default_factory=dict, sa_type=JSON)
