"""Checkpoints and their predictions in the store."""

from collections.abc import Sequence

from sqlmodel import col, select

from loop.records import Checkpoint, Part, Prediction
from loop.store.database import Store


def keep(store: Store, checkpoint: Checkpoint) -> Checkpoint:
    """Store a checkpoint; the one of the same round where it was stored before a crash."""
    with store.writing() as session:
        known = session.exec(select(Checkpoint).where(Checkpoint.round_id == checkpoint.round_id)).first()
        if known is None or checkpoint.round_id is None:
            session.add(checkpoint)
            return checkpoint
        known.card, known.examples, known.created_at = checkpoint.card, checkpoint.examples, checkpoint.created_at
        session.add(known)
        return known


def get(store: Store, checkpoint_id: int) -> Checkpoint:
    """A checkpoint by id."""
    with store.reading() as session:
        return session.exec(select(Checkpoint).where(Checkpoint.id == checkpoint_id)).one()


def keep_predictions(store: Store, predictions: Sequence[Prediction]) -> None:
    """Store one piece of a checkpoint's answers to the holdout."""
    with store.writing() as session:
        session.add_all(predictions)


def predictions(store: Store, checkpoint_id: int, part: Part | None = None) -> list[Prediction]:
    """A checkpoint's answers, by item key."""
    query = select(Prediction).where(Prediction.checkpoint_id == checkpoint_id).order_by(col(Prediction.item_key))
    with store.reading() as session:
        return list(session.exec(query if part is None else query.where(Prediction.part == part)))
