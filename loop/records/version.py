"""Versions of the dataset: what was gold or silver at a moment, by a hash of what it says, and names for them."""

from datetime import datetime
from typing import Any

from sqlmodel import JSON, Field, ForeignKeyConstraint, SQLModel


class DataVersion(SQLModel, table=True):
    """The rows that were gold or silver when `last_decision` was the newest decision. No text is kept: that follows.

    `hash` is the SHA-256 of what the rows say, in order (see `loop.store.versions.Digest`). `recorded_at` is when it
    was first seen, in `round_id`: at a training, an export, or when it was named.
    """

    run: str = Field(primary_key=True)
    hash: str = Field(primary_key=True)
    round_id: int = Field(foreign_key="round.id")
    last_decision: int
    gold: int
    silver: int
    recorded_at: datetime

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.gold + self.silver


class VersionName(SQLModel, table=True):
    """A name of a version, which never moves to another one, and what was known of its rows when it was named.

    `last_decision`, `named_at` and `config_hash` say what the store held; `facts` are the figures that an export's card
    states, `digest` is the SHA-256 of the rows with everything that stands beside them.
    """

    __table_args__ = (
        ForeignKeyConstraint(["run", "hash"], ["dataversion.run", "dataversion.hash"], name="fk_versionname_version"),
    )

    run: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    hash: str
    round_id: int = Field(foreign_key="round.id")
    config_hash: str = Field(foreign_key="configrow.hash")
    last_decision: int
    named_at: datetime
    facts: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    digest: str
