"""After a round closed: the weights of old students are removed; their cards and predictions stay."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from loop.records import Checkpoint, Round
from loop.stages.looking import behind_the_threshold
from loop.stages.parts import OF_SEEDS, Parts, in_force
from loop.store import checkpoints, reading
from loop.store.database import Store

STAYS = ("card.json", "README.md")
"""What is left of a checkpoint's folder."""


def remove_old_weights(current: Round, store: Store, parts: Parts, keep: int) -> None:
    """Remove the weights of all checkpoints but the newest ones, so many, and those that are needed; 0 removes none.

    The one that was trained on seed items alone has served its turn once there is another.
    """
    if in_force(store, current.run) is not None:
        shutil.rmtree(parts.folder / OF_SEEDS, ignore_errors=True)
    if not keep:
        return
    known = reading.checkpoints_of(store, current.run)
    needed = {*sorted(known)[-keep:], checkpoints.best(store, current.run)}
    needed |= {each.id for each in (in_force(store, current.run), behind_the_threshold(store, current.run)) if each}
    old = {
        number: row
        for number, row in known.items()
        if number not in needed and row.exported_at is None and row.removed_at is None
    }
    if not old:
        return
    _remove(store, old, parts.folder)
    names = ", ".join(row.folder for row in old.values())
    parts.progress.say(f"  the weights of {names} were removed (checkpoints.keep = {keep}); cards and predictions stay")


def remove_all_weights(store: Store, run: str, folder: Path) -> None:
    """Remove the weights of all checkpoints of a run whose students nobody needs any more."""
    shutil.rmtree(folder / OF_SEEDS, ignore_errors=True)
    known = reading.checkpoints_of(store, run)
    _remove(store, {number: row for number, row in known.items() if row.removed_at is None}, folder)


def _remove(store: Store, old: Mapping[int, Checkpoint], folder: Path) -> None:
    for row in old.values():
        _strip(folder / row.folder)
    checkpoints.mark_removed(store, old.keys())


def _strip(folder: Path) -> None:
    """Leave the card alone."""
    for each in folder.iterdir() if folder.is_dir() else ():
        if each.is_dir():
            shutil.rmtree(each)
        elif each.name not in STAYS:
            each.unlink()
