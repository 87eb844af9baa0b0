"""Looks for pool and seed items that read like holdout items, in the store."""

import hashlib
from collections.abc import Iterable

from sqlmodel import Session, col, select

from loop.records import Contamination, Item, Split
from loop.store.database import Store, add_missing

Texts = Iterable[tuple[str, str]]
"""Keys and hashes of texts, by key."""


def look(store: Store, similarity: float, split: Split = Split.POOL) -> Contamination | None:
    """The look at a split and the holdout as they are now, where there was one."""
    with store.reading() as session:
        return look_in(session, similarity, _texts(session, split))


def look_in(session: Session, similarity: float, texts: Texts) -> Contamination | None:
    """As `look`, within a transaction that has read the split."""
    return session.get(Contamination, _digest(similarity, texts, _texts(session, Split.HOLDOUT)))


def keep(store: Store, row: Contamination) -> None:
    """Store a look."""
    with store.writing() as session:
        add_missing(session, Contamination, **row.model_dump())


def digest(similarity: float, *splits: Iterable[Item]) -> str:
    """Names the items of two splits, by key, their texts, and how like they must be."""
    return _digest(similarity, *([(item.key, item.text_hash) for item in some] for some in splits))


def _digest(similarity: float, *splits: Texts) -> str:
    found = hashlib.sha256(repr(similarity).encode())
    for texts in splits:
        for key, text_hash in texts:
            found.update(f"{key}\0{text_hash}\n".encode())
        found.update(b"\0\0")
    return found.hexdigest()


def _texts(session: Session, split: Split) -> Texts:
    return session.exec(select(Item.key, Item.text_hash).where(Item.split == split).order_by(col(Item.key)))
