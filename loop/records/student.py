"""Trained students and how they did."""

from datetime import datetime
from typing import Any

from sqlmodel import JSON, Field, SQLModel

from loop.records.item import Part


class Checkpoint(SQLModel, table=True):
    """A trained student on disk. `folder` is relative to the run's folder; `card` names data, config and figures."""

    id: int | None = Field(default=None, primary_key=True)
    run: str = Field(index=True)
    round_id: int | None = Field(default=None, foreign_key="round.id", index=True)
    folder: str
    examples: int
    card: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    created_at: datetime


class Prediction(SQLModel, table=True):
    """A checkpoint's answer to a holdout item."""

    checkpoint_id: int = Field(foreign_key="checkpoint.id", primary_key=True)
    item_key: str = Field(foreign_key="item.key", primary_key=True)
    part: Part
    answer: str | None = None
    correct: bool
