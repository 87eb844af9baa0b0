"""How far the teacher's confidence was believed, in the store."""

from collections.abc import Sequence

from sqlmodel import col, select

from loop.records import ConfidenceFit, Round
from loop.store.database import Store


def keep(store: Store, rows: Sequence[ConfidenceFit]) -> None:
    """Store what was fitted for a round, once."""
    with store.writing() as session:
        for row in rows:
            if session.get(ConfidenceFit, (row.round_id, row.source)) is None:
                session.add(row)


def of_run(store: Store, run: str) -> list[tuple[int, ConfidenceFit]]:
    """All fits of a run, each with the number of its round, oldest first."""
    query = select(Round.number, ConfidenceFit).join(Round, col(Round.id) == ConfidenceFit.round_id)
    with store.reading() as session:
        rows = session.exec(query.where(Round.run == run).order_by(col(Round.number), col(ConfidenceFit.source)))
        return [(number, row) for number, row in rows]
