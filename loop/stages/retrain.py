"""Trains a lost student again, from what was decided when it was trained."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from loop.config import Config
from loop.errors import NothingToLearn
from loop.ports import Progress, Trainer
from loop.records import Checkpoint, Round
from loop.stages.parts import seed_of
from loop.stages.train import lessons, weighed
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

    One that went on from another student begins at the base model, with all that both of them learned. What is in the
    folder stays until there is something to put in its place.

    Raises:
        NothingToLearn: nothing is left of its examples, or they are not known.
    """
    card = lost.card
    if "last_decision" not in card:
        raise NothingToLearn(f"{lost.folder} is of a version that did not note its examples; copy it from a backup")
    found = lessons(store, lost.run, int(card["last_decision"]), config, progress, card.get("seed_keys", ()))
    if not found:
        raise NothingToLearn(f"nothing is left of what {lost.folder} learned")
    wanted = weighed(list(found.values()), store, lost.run, config, progress)
    with _aside(folder):
        trained = trainer.train(wanted, seed=seed_of(config, made_in.number), folder=folder, progress=progress)
    noted = {**card, **trained.card, AGAIN: datetime.now(UTC).date()}
    return checkpoints.keep_again(store, lost, json.loads(json.dumps(noted, default=str)))


@contextmanager
def _aside(folder: Path) -> Iterator[None]:
    """Have a folder out of the way; it is back where nothing came in its place, and gone where something did."""
    old = folder.with_name(f".{folder.name}.lost")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    try:
        yield
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
