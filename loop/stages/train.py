"""TRAIN: the student learns from all decided examples."""

import json
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from loop.config import Config, QueryConfig
from loop.errors import NothingToLearn
from loop.events import happened
from loop.ports import Example, Progress, Trained, Trainer
from loop.query import domains
from loop.records import Checkpoint, DataVersion, DecisionKind, Round, Split, Stage
from loop.stages.contamination import seeds_left_out
from loop.stages.lagging import domain_shares
from loop.stages.parts import Parts, id_of, seed_of
from loop.stages.warming import warm_start
from loop.store import checkpoints, decisions, items, rationales, reading, rounds, versions
from loop.store.database import Store
from loop.student.validation import marked


def train_student(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    """Train on all decided examples so far, or on from the student in force, and move on to EVALUATE."""
    last = decisions.last_id(store, current.run)  # a decision that comes meanwhile is not learned
    examples = lessons(store, current.run, last, config, parts.progress)
    if not examples:
        parts.progress.say("nothing was accepted yet: the student stays as it is")
        return rounds.enter(store, current, Stage.EVALUATE)
    warm = warm_start(current, store, parts, config, examples)
    wanted = list(examples.values()) if warm is None else warm.examples
    if not wanted:
        parts.progress.say("nothing new was accepted: the student stays as it is")
        return rounds.enter(store, current, Stage.EVALUATE)
    wanted = weighed(wanted, store, current.run, config, parts.progress)
    start = None if warm is None else parts.folder / warm.student.folder
    version = _version(current, store, last)
    try:
        trained = train_into(
            parts.folder / f"round-{current.number}",
            wanted,
            parts.trainer,
            seed_of(config, current.number),
            parts.progress,
            start,
        )
    except NothingToLearn as error:
        parts.progress.say(f"{error}. The student stays as it is")
        return rounds.enter(store, current, Stage.EVALUATE)
    kept = checkpoints.keep(
        store,
        Checkpoint(
            run=current.run,
            round_id=id_of(current),
            folder=trained.folder.name,
            examples=len(examples),
            data_version=version.hash,
            card=json.loads(json.dumps({**trained.card, **_noted(config, last, examples)}, default=str)),
            created_at=datetime.now(UTC),
        ),
    )
    happened("checkpoint_written", folder=kept.folder, examples=kept.examples)
    return rounds.enter(store, current, Stage.EVALUATE, candidate_id=kept.id)


def lessons(
    store: Store, run: str, until: int, config: Config, progress: Progress, seed_keys: Collection[str] | None = None
) -> dict[str, Example]:
    """The seed items, or those that are named, and what was accepted when `until` was the newest decision, by item key;
    each is said to validate or to teach.
    """
    seeds = {each.item.key: each for each in seed_examples(store, config.query)}
    kept = seeds if seed_keys is None else {key: each for key, each in seeds.items() if key in seed_keys}
    examples = kept | accepted_examples(store, run, until)
    if config.student.preference_weight:
        examples = _with_refused(examples, store, run, until, progress)
    return {each.item.key: each for each in marked(list(examples.values()), config.student.validation_share)}


def weighed(
    examples: Sequence[Example], store: Store, run: str, config: Config, progress: Progress
) -> Sequence[Example]:
    """The examples, weighing more in lagging domains where the config wants that."""
    return _mixed(examples, domain_shares(store, run), progress) if config.student.mixture else examples


def _noted(config: Config, last: int, examples: Mapping[str, Example]) -> dict[str, object]:
    """What later rounds ask a student's card: the settings as the config names them, and which examples it knew."""
    seeds = sorted(key for key, each in examples.items() if each.item.split is Split.SEED)
    return {"last_decision": last, "seed_keys": seeds, "student": config.student.model_dump(mode="json")}


def _version(current: Round, store: Store, last: int) -> DataVersion:
    """The version of the dataset that is learned: what was gold or silver when `last` was the newest decision."""
    digest = versions.Digest()
    for item, rationale, decision in sorted(decisions.decided(store, current.run, last), key=lambda row: row[0].key):
        digest.take(versions.content(item, rationale, decision.kind))
    return versions.keep(store, current.run, digest, round_id=id_of(current), last_decision=last)


def seed_examples(store: Store, config: QueryConfig) -> list[Example]:
    """The seed items with their steps, where they came with some; none that reads like a holdout item."""
    out = seeds_left_out(store, config)
    return [
        Example(item=item, steps=tuple(item.steps), answer=item.gold, gold=True)
        for item in items.of_split(store, Split.SEED)
        if item.gold is not None and item.key not in out
    ]


def accepted_examples(store: Store, run: str, until: int | None = None) -> dict[str, Example]:
    """The gold and silver rationales in force, now or when `until` was the newest decision, by item key.

    With what people did to them and with their risks.
    """
    decided, risks = decisions.decided(store, run, until), reading.risks_of(store, run)
    before = rationales.superseded(store, [rationale for _, rationale, _ in decided])
    found = {}
    for item, rationale, row in decided:
        if rationale.parsed is None:
            continue
        gold = row.kind is DecisionKind.GOLD
        found[item.key] = Example(
            item=item,
            steps=tuple(rationale.steps),
            answer=rationale.parsed,
            gold=gold,
            risk=0.0 if gold else risks.get(rationale.id or 0, 0.0),
            repaired=rationales.repaired_steps(rationales.chain(rationale, before)),
        )
    return found


def _with_refused(
    examples: Mapping[str, Example], store: Store, run: str, until: int, progress: Progress
) -> dict[str, Example]:
    """The examples with what people corrected or rejected in their favour."""
    refused = {
        key: (tuple(row.steps), row.parsed)
        for key, row in decisions.refused(store, run, until).items()
        if row.parsed is not None
    }
    alone = refused.keys() - examples.keys()
    if alone:
        progress.say(
            f"  {len(alone)} rejected rationales teach no preference: nothing of their items was accepted to prefer"
        )
    return {key: replace(each, refused=refused.get(key)) for key, each in examples.items()}


def _mixed(examples: Sequence[Example], shares: Mapping[str, float], progress: Progress) -> list[Example]:
    """The examples, weighing as much as gives each domain its share."""
    weights = domains.weights(shares, Counter(each.item.domain for each in examples))
    if shares:
        said = ", ".join(f"{name} {weight:.2f}" for name, weight in sorted(weights.items()))
        progress.say(f"  an example of each domain weighs: {said}")
    return [replace(each, weight=weights[each.item.domain]) for each in examples]


def train_into(
    folder: Path,
    examples: Sequence[Example],
    trainer: Trainer,
    seed: int,
    progress: Progress,
    start: Path | None = None,
) -> Trained:
    """Train into a folder; one left by a run that was cut off is made again."""
    if folder.exists():
        shutil.rmtree(folder)
    return trainer.train(examples, seed=seed, folder=folder, progress=progress, start=start)
