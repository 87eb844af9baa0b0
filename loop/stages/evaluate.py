"""EVALUATE: the new student against the old one, and selected items against random ones."""

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache

from loop import evaluation, saving
from loop.config import Config
from loop.errors import StudentError
from loop.ports import Example, Silent
from loop.query.control import control_prefix
from loop.records import Arm, Checkpoint, Part, Query, Round, Shadow, Split, Stage
from loop.stages import figures, measuring
from loop.stages.parts import Parts, id_of, in_force, seed_of, student_of, trained_by
from loop.stages.train import accepted_examples, seed_examples, train_into
from loop.store import checkpoints, decisions, items, pool, reading, rounds, shadows
from loop.store.database import Store

SHADOW = "shadow"
"""Where a shadow student is, while it is looked at."""


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
    student = cache(lambda: student_of(candidate, parts))
    measuring.predict(candidate, student, store, parts, config, seed=seed_of(config, current.number))
    measuring.spoil(candidate, student, store, parts, trained_by(candidate, config))
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
    """Measure what selection saves, or store why not; where a shadow student fails, the round goes on without that."""
    why = ""
    try:
        why = _train_shadows(current, store, parts, config)
        if why and config.evaluation.saving_pairs:
            parts.progress.say(f"  saving: not measured: {why}")
    except StudentError as error:
        shutil.rmtree(parts.folder / SHADOW, ignore_errors=True)
        parts.progress.say(f"  saving: nothing further is measured in this round, as a shadow student failed: {error}")
        why = f"a shadow student failed ({type(error).__name__}); `run` said how, when it did"
    shadows.keep_reason(store, id_of(current), why)


def _train_shadows(current: Round, store: Store, parts: Parts, config: Config) -> str:
    """Train students of the control arm and of selected items for the same dollars; those that are there stay.

    What stands in the way, where something does.
    """
    pairs = config.evaluation.saving_pairs
    if not pairs:
        return "evaluation.saving_pairs = 0"
    dev = [item for item in items.of_split(store, Split.HOLDOUT) if item.part is Part.DEV]
    if not dev:
        return "the holdout has no items in dev; `preceptor ingest FILE --split holdout` takes some in"
    asked = _asked_by_arm(store, config)
    if not asked[Arm.SELECTED]:
        return "nothing was selected so far: all that was asked is random"
    first_seed = seed_of(config, current.number) * pairs
    bought = saving.equal_spend(asked[Arm.CONTROL], asked[Arm.SELECTED], pairs=pairs, seed=first_seed)
    if not all(saving.enough(some) for both in bought for some in both.values()):
        return _too_few(bought, asked)
    by_count = saving.is_counted(*asked.values())
    seeds = seed_examples(store, config.query)
    done = {(each.pair, each.arm) for each in shadows.of_round(store, id_of(current))}
    with parts.progress.bar("shadow students show what selection saves", pairs * len(Arm)) as bar:
        for pair, both in enumerate(bought):
            for arm, some in both.items():
                if (pair, arm) not in done:
                    examples = [each.example for each in some if each.example is not None]
                    trained = train_into(
                        parts.folder / SHADOW, [*seeds, *examples], parts.trainer, first_seed + pair, Silent()
                    )
                    right = evaluation.grade(dev, parts.trainer.student(trained.folder).predict(dev))
                    shutil.rmtree(trained.folder)
                    shadow = Shadow(
                        round_id=id_of(current),
                        pair=pair,
                        arm=arm,
                        asked=len(some),
                        examples=len(examples),
                        micro_usd=sum(each.micro_usd for each in some),
                        by_count=by_count,
                        correct={item.key: correct for item, correct in zip(dev, right, strict=True)},
                    )
                    shadows.keep(store, shadow)
                bar.advance()
    return ""


def _too_few(
    bought: Sequence[Mapping[Arm, Sequence[saving.Asked]]], asked: Mapping[Arm, Sequence[saving.Asked]]
) -> str:
    """How many accepted rationales the students would learn from, and what brings more of them.

    Parts are bought for what the cheapest costs, so what is to grow is the arm that has less.
    """
    control, selected = (min(saving.accepted(both[arm]) for both in bought) for arm in (Arm.CONTROL, Arm.SELECTED))
    by_count = saving.is_counted(*asked.values())
    has = {arm: len(some) if by_count else sum(each.micro_usd for each in some) for arm, some in asked.items()}
    share = "larger" if has[Arm.CONTROL] <= has[Arm.SELECTED] else "smaller"
    return (
        f"fewer than {saving.FEWEST} accepted rationales a student to compare both arms: of {len(bought)} parts for "
        f"the same price the control arm's have at least {control}, the selected ones' {selected}; further rounds, "
        f"larger batches, a {share} query.random_share or fewer evaluation.saving_pairs bring more"
    )


def _asked_by_arm(store: Store, config: Config) -> dict[Arm, list[saving.Asked]]:
    """Asked so far, an item once: the control arm's prefix with all that its items cost, and what was selected.

    What selection asked is in both where it stands in the prefix.
    """
    run = config.run.name
    spent, accepted = reading.spent_by_query(store, run), accepted_examples(store, run)
    earned = {(row.round_id, item.key): accepted.get(item.key) for item, row, _ in decisions.decided(store, run)}
    queries = reading.queries_of(store, run)
    prefix = control_prefix({query.item_key for query in queries}, pool.keys(store, run, config), config.run.seed)
    own = {
        Arm.CONTROL: [query for query in queries if query.item_key in prefix],
        Arm.SELECTED: [query for query in queries if query.probability is None],
    }
    return {arm: _merged(some, spent, earned) for arm, some in own.items()}


def _merged(
    queries: Sequence[Query],
    spent: Mapping[tuple[int, str], int],
    earned: Mapping[tuple[int, str], Example | None],
) -> list[saving.Asked]:
    """What the queries of each item cost together, with the example where one of them brought it."""
    by_item: dict[str, list[tuple[int, str]]] = {}
    for query in queries:
        by_item.setdefault(query.item_key, []).append((query.round_id, query.item_key))
    return [
        saving.Asked(
            sum(spent.get(at, 0) for at in asked),
            next((example for at in asked if (example := earned.get(at)) is not None), None),
        )
        for asked in by_item.values()
    ]


def _on_dev(store: Store, checkpoint: Checkpoint) -> dict[str, bool]:
    """Right or wrong on `dev`, by key."""
    assert checkpoint.id is not None
    return {row.item_key: row.correct for row in checkpoints.predictions(store, checkpoint.id, Part.DEV)}
