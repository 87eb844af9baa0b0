"""Looks for pool and seed items that read like holdout items, in the store."""

from sqlmodel import Session

from loop.records import Contamination, Split
from loop.store.database import Store, put
from loop.store.items import newest_arrival


def look(store: Store, similarity: float, split: Split = Split.POOL) -> Contamination | None:
    """The newest look at a split, where there was one; items may have come since."""
    with store.reading() as session:
        return look_in(session, similarity, split)


def look_in(session: Session, similarity: float, split: Split = Split.POOL) -> Contamination | None:
    """As `look`, within a transaction."""
    return session.get(Contamination, digest(split, similarity))


def digest(split: Split, similarity: float) -> str:
    """What names the look at a split."""
    return f"{split}/{similarity!r}"


def newest(store: Store, split: Split) -> int:
    """The newest arrival of a split."""
    with store.reading() as session:
        return newest_arrival(session, split)


def keep(store: Store, row: Contamination) -> None:
    """Store a look in the place of the one before."""
    with store.writing() as session:
        put(session, Contamination, **row.model_dump())
