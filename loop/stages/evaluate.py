"""EVALUATE: the new student against the old one, and selected items against random ones."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

from loop import evaluation, saving
from loop.config import Config
from loop.ports import Silent
from loop.records import Arm, Checkpoint, Part, Round, Shadow, Split, Stage
from loop.stages import figures, measuring
from loop.stages.parts import Parts, id_of, in_force, seed_of
from loop.stages.train import accepted_examples, seed_examples, train_into
from loop.store import checkpoints, items, reading, rounds, shadows
from loop.store.database import Store


def evaluate_student(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    """Answer the holdout, let the new student replace the old unless it is worse, and close the round."""
    incumbent = in_force(store, current.run)
    if current.candidate_id is None:
        return rounds.enter(
            store,
            current,
            Stage.CLOSED,
            closed_at=datetime.now(UTC),
            student_id=None if incumbent is None else incumbent.id,
        )
    candidate = checkpoints.get(store, current.candidate_id)
    student = cache(lambda: parts.trainer.student(parts.folder / candidate.folder))
    measuring.predict(candidate, student, store, parts, config, seed=seed_of(config, current.number))
    measuring.spoil(candidate, student, store, parts, config)
    found = figures.measured(candidate, incumbent, store, config)
    student_id = candidate.id
    if incumbent is not None:
        old, new = (_on_dev(store, each) for each in (incumbent, candidate))
        common = sorted(old.keys() & new.keys())
        before, after = [old[key] for key in common], [new[key] for key in common]
        passed, interval = evaluation.passes_gate(before, after, config.evaluation.gate_level)
        if not passed:
            parts.progress.say(f"the new student is worse on dev (difference within {interval}): the old one stays")
            student_id = incumbent.id
    return rounds.enter(store, current, Stage.CLOSED, [found], closed_at=datetime.now(UTC), student_id=student_id)


def compare_arms(current: Round, store: Store, parts: Parts, config: Config) -> None:
    """Train students of the control arm and of selected items for the same dollars; those that are there stay."""
    dev = [item for item in items.of_split(store, Split.HOLDOUT) if item.part is Part.DEV]
    asked = _asked_by_arm(store, current.run)
    pairs = config.evaluation.saving_pairs if dev and asked[Arm.SELECTED] else 0
    if not pairs:
        return
    quiet = replace(parts, progress=Silent())
    seeds, done = seed_examples(store), {(each.pair, each.arm) for each in shadows.of_round(store, id_of(current))}
    with parts.progress.bar("shadow students show what selection saves", pairs * len(Arm)) as bar:
        for pair in range(pairs):
            seed = seed_of(config, current.number) * pairs + pair
            bought = saving.equal_spend(asked[Arm.CONTROL], asked[Arm.SELECTED], seed=seed)
            if not all(map(saving.enough, bought.values())):
                parts.progress.say(
                    f"  saving: fewer than {saving.FEWEST} accepted rationales to compare on either side"
                )
                return
            for arm, some in bought.items():
                if (pair, arm) not in done:
                    examples = [each.example for each in some if each.example is not None]
                    trained = train_into("shadow", [*seeds, *examples], quiet, seed)
                    right = evaluation.grade(dev, parts.trainer.student(trained.folder).predict(dev))
                    shutil.rmtree(trained.folder)
                    shadow = Shadow(
                        round_id=id_of(current),
                        pair=pair,
                        arm=arm,
                        asked=len(some),
                        examples=len(examples),
                        micro_usd=sum(each.micro_usd for each in some),
                        correct={item.key: correct for item, correct in zip(dev, right, strict=True)},
                    )
                    shadows.keep(store, shadow)
                bar.advance()


def _asked_by_arm(store: Store, run: str) -> dict[Arm, list[saving.Asked]]:
    """What was asked so far, in its order: items of the control arm have a probability."""
    spent, accepted = reading.spent_by_query(store, run), accepted_examples(store, run)
    asked: dict[Arm, list[saving.Asked]] = {arm: [] for arm in Arm}
    for query in reading.queries_of(store, run):
        arm = Arm.SELECTED if query.probability is None else Arm.CONTROL
        paid = spent.get((query.round_id, query.item_key), 0)
        asked[arm].append(saving.Asked(paid, accepted.get(query.item_key)))
    return asked


def _on_dev(store: Store, checkpoint: Checkpoint) -> dict[str, bool]:
    """Right or wrong on `dev`, by key."""
    assert checkpoint.id is not None
    return {row.item_key: row.correct for row in checkpoints.predictions(store, checkpoint.id, Part.DEV)}
