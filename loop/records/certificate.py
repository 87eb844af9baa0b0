"""Promises that were tested, and those that were given."""

from datetime import datetime
from enum import StrEnum

from sqlmodel import Field, SQLModel


class Promise(StrEnum):
    """What is promised."""

    EXPORT = "export"
    """At most so many of the rows accepted unreviewed so far are wrong."""
    THRESHOLD = "threshold"
    """In the next rounds at most a share alpha of the rationales below a risk is wrong."""


class Certificate(SQLModel, table=True):
    """A look at the audits that were held back for certificates, and what it allowed to promise. Append-only.

    `audited` are the audits it rests on, `wrong` those that reviewers found wrong. For a threshold they are those below
    it, or below the strictest one where none could be certified.
    """

    id: int | None = Field(default=None, primary_key=True)
    run: str = Field(index=True)
    round_id: int = Field(foreign_key="round.id")
    promise: Promise
    look: int
    """The how manieth look of its kind in the run, from 1."""
    alpha: float
    delta: float
    """The chance of error of this look alone."""
    audited: int
    wrong: int
    population: int = 0
    """Of an export: the rows it speaks of, the audited ones included."""
    bound: float
    """Of an export: the upper bound on the wrong share of its unaudited rows. Of a threshold: that below it."""
    threshold: float | None = None
    """Certified risk; None where none was."""
    fingerprint: str = ""
    """Of teacher, prompt, checks and risk: a threshold holds while these stay."""
    issued_at: datetime
