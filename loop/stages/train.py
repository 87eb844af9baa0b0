"""TRAIN: the student learns from all decided examples."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from loop.config import Config
from loop.events import happened
from loop.ports import Example, Trained
from loop.records import Checkpoint, DataVersion, Round, Split, Stage
from loop.stages.parts import Parts, id_of, seed_of
from loop.stages.warming import warm_start
from loop.store import checkpoints, decisions, items, rounds, versions
from loop.store.database import Store


def train_student(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    """Train on all decided examples so far, or on from the student in force, and move on to EVALUATE."""
    last = decisions.last_id(store, current.run)  # a decision that comes meanwhile is not learned
    examples = {each.item.key: each for each in seed_examples(store)} | accepted_examples(store, current.run, last)
    if config.student.preference_weight:
        examples = _with_refused(examples, store, current.run)
    if not examples:
        parts.progress.say("nothing was accepted yet: the student stays as it is")
        return rounds.enter(store, current, Stage.EVALUATE)
    warm = warm_start(current, store, parts, config, examples)
    wanted = list(examples.values()) if warm is None else warm.examples
    if not wanted:
        parts.progress.say("nothing new was accepted: the student stays as it is")
        return rounds.enter(store, current, Stage.EVALUATE)
    start = None if warm is None else parts.folder / warm.student.folder
    version = _version(current, store, last)
    trained = train_into(f"round-{current.number}", wanted, parts, seed_of(config, current.number), start)
    kept = checkpoints.keep(
        store,
        Checkpoint(
            run=current.run,
            round_id=id_of(current),
            folder=trained.folder.name,
            examples=len(examples),
            data_version=version.hash,
            card=json.loads(json.dumps({**trained.card, "last_decision": last}, default=str)),
            created_at=datetime.now(UTC),
        ),
    )
    happened("checkpoint_written", folder=kept.folder, examples=kept.examples)
    return rounds.enter(store, current, Stage.EVALUATE, candidate_id=kept.id)


def _version(current: Round, store: Store, last: int) -> DataVersion:
    """The version of the dataset that is learned: what was gold or silver when `last` was the newest decision."""
    digest = versions.Digest()
    for item, rationale, decision in sorted(decisions.decided(store, current.run, last), key=lambda row: row[0].key):
        digest.take(versions.content(item, rationale, decision.kind))
    return versions.keep(store, current.run, digest, round_id=id_of(current), last_decision=last)


def seed_examples(store: Store) -> list[Example]:
    """The seed items with their steps."""
    return [
        Example(item=item, steps=tuple(item.steps), answer=item.gold)
        for item in items.of_split(store, Split.SEED)
        if item.gold is not None and item.steps
    ]


def accepted_examples(store: Store, run: str, until: int | None = None) -> dict[str, Example]:
    """The gold and silver rationales in force, now or when `until` was the newest decision, by item key."""
    return {
        item.key: Example(item=item, steps=tuple(rationale.steps), answer=rationale.parsed)
        for item, rationale, _ in decisions.decided(store, run, until)
        if rationale.parsed is not None
    }


def _with_refused(examples: Mapping[str, Example], store: Store, run: str) -> dict[str, Example]:
    """The examples with what people corrected or rejected in their favour."""
    refused = {
        key: (tuple(row.steps), row.parsed)
        for key, row in decisions.refused(store, run).items()
        if row.parsed is not None
    }
    return {key: replace(each, refused=refused.get(key)) for key, each in examples.items()}


def train_into(name: str, examples: Sequence[Example], parts: Parts, seed: int, start: Path | None = None) -> Trained:
    """Train into a folder of that name; one left by a run that was cut off is made again."""
    folder = parts.folder / name
    if folder.exists():
        shutil.rmtree(folder)
    return parts.trainer.train(examples, seed=seed, folder=folder, progress=parts.progress, start=start)
