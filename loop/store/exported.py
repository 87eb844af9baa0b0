"""Exports in the store: which datasets were written, and of which state."""

from sqlmodel import col, select

from loop.records import Export
from loop.store.database import Store


def keep(store: Store, written: Export) -> None:
    """Note that a dataset was written."""
    with store.writing() as session:
        session.add(written)


def of_run(store: Store, run: str) -> list[Export]:
    """The exports of a run, oldest first."""
    with store.reading() as session:
        return list(session.exec(select(Export).where(Export.run == run).order_by(col(Export.id))))
