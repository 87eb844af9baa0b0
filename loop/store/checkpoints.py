"""Checkpoints and their predictions in the store."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlmodel import case, col, func, select

from loop.records import Checkpoint, Part, Prediction
from loop.store.database import Store, now, values


def keep(store: Store, checkpoint: Checkpoint) -> Checkpoint:
    """Store a checkpoint; the one of the same round where it was stored before a crash."""
    with store.writing() as session:
        known = session.exec(select(Checkpoint).where(Checkpoint.round_id == checkpoint.round_id)).first()
        if known is None or checkpoint.round_id is None:
            session.add(checkpoint)
            return checkpoint
        for name in ("card", "examples", "data_version", "created_at"):
            setattr(known, name, getattr(checkpoint, name))
        session.add(known)
        return known


def keep_again(store: Store, lost: Checkpoint, card: dict[str, Any]) -> Checkpoint:
    """Store the card of a student that was trained again, and that its weights are there."""
    with store.writing() as session:
        known = session.exec(select(Checkpoint).where(Checkpoint.id == lost.id)).one()
        known.card, known.removed_at = card, None
        session.add(known)
        return known


def get(store: Store, checkpoint_id: int) -> Checkpoint:
    """A checkpoint by id."""
    with store.reading() as session:
        return session.exec(select(Checkpoint).where(Checkpoint.id == checkpoint_id)).one()


def best(store: Store, run: str) -> int | None:
    """The id of the checkpoint that answered most of `dev` right, the newest of several; None without a `dev`."""
    right = func.avg(case((col(Prediction.correct), 1.0), else_=0.0))
    query = (
        select(Prediction.checkpoint_id)
        .join(Checkpoint, col(Checkpoint.id) == Prediction.checkpoint_id)
        .where(Checkpoint.run == run, Prediction.part == Part.DEV)
        .group_by(col(Prediction.checkpoint_id))
        .order_by(right.desc(), col(Prediction.checkpoint_id).desc())
    )
    with store.reading() as session:
        return session.exec(query).first()


def mark_exported(store: Store, checkpoint_id: int) -> None:
    """Note that a student went home."""
    with store.writing() as session:
        session.execute(values(Checkpoint, col(Checkpoint.id) == checkpoint_id).values(exported_at=now()))


def mark_removed(store: Store, ids: Collection[int]) -> None:
    """Note that the weights of some checkpoints are no longer there."""
    with store.writing() as session:
        session.execute(values(Checkpoint, col(Checkpoint.id).in_(ids)).values(removed_at=now()))


def keep_predictions(store: Store, predictions: Sequence[Prediction]) -> None:
    """Store one piece of a checkpoint's answers to the holdout."""
    with store.writing() as session:
        session.add_all(predictions)


def predictions(store: Store, checkpoint_id: int, part: Part | None = None) -> list[Prediction]:
    """A checkpoint's answers, by item key."""
    query = select(Prediction).where(Prediction.checkpoint_id == checkpoint_id).order_by(col(Prediction.item_key))
    with store.reading() as session:
        return list(session.exec(query if part is None else query.where(Prediction.part == part)))
