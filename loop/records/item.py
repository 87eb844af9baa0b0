"""Items: what is explained and answered."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlmodel import JSON, Field, Index, SQLModel

from loop.answer import Answer


class Split(StrEnum):
    """What an item may be used for."""

    POOL = "pool"
    HOLDOUT = "holdout"
    SEED = "seed"


class Part(StrEnum):
    """Which half of the holdout: `dev` gates, stops and saves; `test` is only reported."""

    DEV = "dev"
    TEST = "test"


class Item(SQLModel, table=True):
    """One thing to be explained and answered.

    `answer` (canonical JSON) and `steps` are gold; they are set for holdout and seed items only.
    `text_hash` is a hash of the normalised question, context and choices.
    """

    __table_args__ = (Index("ix_item_split_arrival", "split", "arrival"),)

    key: str = Field(primary_key=True)
    question: str
    context: str = ""
    choices: list[str] = Field(default_factory=list, sa_type=JSON)
    domain: str = "default"
    split: Split
    part: Part | None = None
    answer: str | None = None
    steps: list[str] = Field(default_factory=list, sa_type=JSON)
    text_hash: str = Field(index=True)
    source: str = ""
    arrival: int = 0
    """Which addition brought it: later ones have larger numbers, so that what is new since a look can be told."""

    @property
    def gold(self) -> Answer | None:
        """The trusted answer."""
        return None if self.answer is None else Answer.from_canonical(self.answer)

    @property
    def passage(self) -> str:
        """The text that spans are counted in: the context, or the question where there is none."""
        return self.context or self.question

    @property
    def text(self) -> str:
        """Everything the item says."""
        return text_of(self.question, self.context, self.choices)


def text_of(question: str, context: str, choices: Iterable[str]) -> str:
    """Everything that an item of these parts says."""
    return "\n".join(part for part in (context, question, *choices) if part)


class Forgotten(SQLModel, table=True):
    """An item that was removed from everywhere, by a digest of its key: so that it is not taken in again."""

    digest: str = Field(primary_key=True)
    forgotten_at: datetime
    taught: bool
    """Whether a student had learned it: no training goes on from one that was trained before."""


class Contamination(SQLModel, table=True):
    """A look for items of a split, pool or seed, that read like holdout items; `digest` names split and similarity.

    `through` is the newest arrival that it has seen of either: what came later was not looked at. `pairs` holds for
    each such item the holdout item that it is most like, and how much (Jaccard index); `pool` is how many were looked
    at.
    """

    digest: str = Field(primary_key=True)
    similarity: float
    through: int = 0
    pool: int
    holdout: int
    pairs: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    looked_at: datetime
