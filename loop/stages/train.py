"""TRAIN: the student learns from all decided examples."""

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime

from loop.config import Config
from loop.ports import Example, Trained
from loop.records import Checkpoint, Round, Split, Stage
from loop.stages.parts import Parts, id_of, seed_of
from loop.store import checkpoints, decisions, items, rounds
from loop.store.database import Store


def train_student(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    """Train on all decided examples so far, and move on to EVALUATE."""
    examples = [*seed_examples(store), *accepted_examples(store, current.run).values()]
    if not examples:
        parts.progress.say("nothing was accepted yet: the student stays as it is")
        return rounds.enter(store, current, Stage.EVALUATE)
    trained = train_into(f"round-{current.number}", examples, parts, seed_of(config, current.number))
    kept = checkpoints.keep(
        store,
        Checkpoint(
            run=current.run,
            round_id=id_of(current),
            folder=trained.folder.name,
            examples=len(examples),
            card=json.loads(json.dumps(dict(trained.card), default=str)),
            created_at=datetime.now(UTC),
        ),
    )
    return rounds.enter(store, current, Stage.EVALUATE, candidate_id=kept.id)


def seed_examples(store: Store) -> list[Example]:
    """The seed items with their steps."""
    return [
        Example(item=item, steps=tuple(item.steps), answer=item.gold)
        for item in items.of_split(store, Split.SEED)
        if item.gold is not None and item.steps
    ]


def accepted_examples(store: Store, run: str) -> dict[str, Example]:
    """The gold and silver rationales in force, by item key."""
    return {
        item.key: Example(item=item, steps=tuple(rationale.steps), answer=rationale.parsed)
        for item, rationale, _ in decisions.decided(store, run)
        if rationale.parsed is not None
    }


def train_into(name: str, examples: Sequence[Example], parts: Parts, seed: int) -> Trained:
    """Train into a folder of that name; one left by a run that was cut off is made again."""
    folder = parts.folder / name
    if folder.exists():
        shutil.rmtree(folder)
    return parts.trainer.train(examples, seed=seed, folder=folder, progress=parts.progress)
