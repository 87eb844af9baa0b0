"""Exports in the store: which datasets were written when, and from which decisions."""

from pathlib import Path

from sqlmodel import col, func, select

from loop.records import Decision, Export
from loop.store.database import Store, now


def keep(store: Store, run: str, folder: Path, form: str) -> None:
    """Note that a dataset was written from the decisions in force."""
    with store.writing() as session:
        last = session.exec(select(func.max(Decision.id)).where(Decision.run == run)).one()
        session.add(
            Export(run=run, folder=str(folder.resolve()), format=form, last_decision=last or 0, exported_at=now())
        )  # fmt: skip


def of_run(store: Store, run: str) -> list[Export]:
    """The exports of a run, oldest first."""
    with store.reading() as session:
        return list(session.exec(select(Export).where(Export.run == run).order_by(col(Export.id))))
