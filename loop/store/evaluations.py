"""What was measured of checkpoints, in the store."""

from collections.abc import Sequence

from sqlmodel import col, select

from loop.records import Checkpoint, Corruption, Evaluation
from loop.store.database import Store


def keep_corruptions(store: Store, rows: Sequence[Corruption]) -> None:
    """Store one piece of a checkpoint's spoiled rationales with what followed them."""
    with store.writing() as session:
        session.add_all(rows)


def corruptions(store: Store, checkpoint_id: int) -> list[Corruption]:
    """The spoiled rationales of a checkpoint, by item."""
    query = select(Corruption).where(Corruption.checkpoint_id == checkpoint_id)
    with store.reading() as session:
        return list(session.exec(query.order_by(col(Corruption.item_key), col(Corruption.harm))))


def of_run(store: Store, run: str) -> dict[int, Evaluation]:
    """What was measured of the checkpoints of a run, by their ids."""
    query = select(Evaluation).join(Checkpoint, col(Checkpoint.id) == Evaluation.checkpoint_id)
    with store.reading() as session:
        return {row.checkpoint_id: row for row in session.exec(query.where(Checkpoint.run == run))}


def of(store: Store, checkpoint_id: int) -> Evaluation | None:
    """What was measured of a checkpoint."""
    with store.reading() as session:
        return session.get(Evaluation, checkpoint_id)
