"""Trains a lost student again, from what was decided when it was trained."""

import json
from datetime import UTC, datetime
from pathlib import Path

from loop.config import Config
from loop.errors import NothingToLearn
from loop.ports import Progress, Trainer
from loop.records import Checkpoint, Round
from loop.stages.parts import seed_of
from loop.stages.train import lessons, train_into, weighed
from loop.store import checkpoints
from loop.store.database import Store

AGAIN = "trained_again"
"""Where a card says when that was; its figures are those of the lost weights."""


def retrain(  # noqa: PLR0913 - what a training needs
    lost: Checkpoint,
    made_in: Round,
    store: Store,
    trainer: Trainer,
    folder: Path,
    config: Config,
    *,
    progress: Progress,
) -> Checkpoint:
    """Train into the folder of a lost student, by its settings, its seed and its examples.

    One that went on from another student begins at the base model, with all that both of them learned.

    Raises:
        NothingToLearn: nothing is left of its examples.
    """
    card = lost.card
    found = lessons(store, lost.run, int(card["last_decision"]), config, progress, card.get("seed_keys", ()))
    if not found:
        raise NothingToLearn(f"nothing is left of what {lost.folder} learned")
    wanted = weighed(list(found.values()), store, lost.run, config, progress)
    trained = train_into(folder, wanted, trainer, seed_of(config, made_in.number), progress)
    noted = {**card, **trained.card, AGAIN: datetime.now(UTC).date()}
    return checkpoints.keep_again(store, lost, json.loads(json.dumps(noted, default=str)))
