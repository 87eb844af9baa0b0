"""Looks for pool items that read like holdout items, in the store."""

import hashlib

from sqlmodel import Session, col, select

from loop.records import Contamination, Item, Split
from loop.store.database import Store


def look(store: Store, similarity: float) -> Contamination | None:
    """The look at the pool and the holdout as they are now, where there was one."""
    with store.reading() as session:
        return look_in(session, similarity)


def look_in(session: Session, similarity: float) -> Contamination | None:
    """As `look`, within a transaction."""
    return session.get(Contamination, digest_in(session, similarity))


def keep(store: Store, row: Contamination) -> None:
    """Store a look."""
    with store.writing() as session:
        session.merge(row)


def digest(store: Store, similarity: float) -> str:
    """Names the items of the pool and the holdout, their texts, and how like they must be."""
    with store.reading() as session:
        return digest_in(session, similarity)


def digest_in(session: Session, similarity: float) -> str:
    """As `digest`, within a transaction."""
    found = hashlib.sha256(repr(similarity).encode())
    for split in (Split.POOL, Split.HOLDOUT):
        rows = session.exec(select(Item.key, Item.text_hash).where(Item.split == split).order_by(col(Item.key)))
        for key, text_hash in rows:
            found.update(f"{split}\0{key}\0{text_hash}\n".encode())
    return found.hexdigest()
