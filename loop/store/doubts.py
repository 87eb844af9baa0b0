"""How unsure checkpoints are of pool items: the sieve's scores."""

from collections.abc import Mapping, Sequence

from sqlmodel import col, delete, select

from loop.records import Checkpoint, Doubt
from loop.store.database import Store, insert_all
from loop.store.pieces import among


def of_items(store: Store, checkpoint_id: int, keys: Sequence[str]) -> dict[str, float]:
    """What is known of these items."""
    query = select(Doubt.item_key, Doubt.value).where(Doubt.checkpoint_id == checkpoint_id)
    with store.reading() as session:
        return dict(session.exec(query.where(among(session, col(Doubt.item_key), keys))).all())


def keep(store: Store, checkpoint_id: int, values: Mapping[str, float]) -> None:
    """Store what was not known yet."""
    rows = [(checkpoint_id, key, value) for key, value in sorted(values.items())]
    with store.writing() as session:
        insert_all(session, Doubt, ("checkpoint_id", "item_key", "value"), rows)


def drop_older(store: Store, run: str, checkpoint_id: int) -> None:
    """Remove what earlier students of the run said."""
    older = select(Checkpoint.id).where(Checkpoint.run == run, Checkpoint.id != checkpoint_id)
    with store.writing() as session:
        session.exec(delete(Doubt).where(col(Doubt.checkpoint_id).in_(older)))
