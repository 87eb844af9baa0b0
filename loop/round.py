"""One round, top to bottom: the only place that knows the order of the stages."""

from collections.abc import Mapping

from loop.config import Config, written_down
from loop.errors import BadConfig, PoolEmpty
from loop.records import Round, Stage
from loop.stages import accept, ask, check, evaluate, pruning, redecide, review, select, train
from loop.stages.parts import Parts, id_of
from loop.store import pool, reviews, rounds, withdrawals
from loop.store.database import Store

FROZEN = ("task.", "pool.", "run.seed", "acceptance.alpha", "acceptance.delta", "acceptance.thresholds")
"""Settings that a run keeps."""


def advance(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    """Carry a round on until it closes or waits for people; call it again to go on, or to tidy up behind it.

    Long stages store each piece of their work as it is made; the last piece and the move to the next stage share a
    transaction. A round that was cut off does only what the store lacks.

    Raises:
        StageMoved: another process carried the round on meanwhile.
    """
    if current.stage is Stage.SELECT:
        current = select.select_batch(current, store, parts, config)

    if current.stage is Stage.ASK:
        current = ask.ask_teacher(current, store, parts, config)

    if current.stage is Stage.CHECK:
        current = check.check_rationales(current, store, parts, config)

    if current.stage is Stage.REVIEW:
        if not review.is_reviewed(current, store, parts, config):
            return current
        reviews.release_open(store, id_of(current))
        current = rounds.enter(store, current, Stage.ACCEPT)

    if current.stage is Stage.ACCEPT:
        current = accept.decide(current, store, parts, config)
        redecide.redecide(store, current.run, config)

    if current.stage is Stage.TRAIN:
        current = train.train_student(current, store, parts, config)

    if current.stage is Stage.EVALUATE:
        evaluate.compare_arms(current, store, parts, config)
        current = evaluate.evaluate_student(current, store, parts, config)

    if current.stage is Stage.CLOSED:
        pruning.remove_old_weights(current, store, parts, config.checkpoints.keep)

    return current


def open_next(store: Store, config: Config) -> tuple[Round, list[str]]:
    """Open the next round; also the settings that changed since the last one, as `table.key: old -> new`.

    Raises:
        BadConfig: task, split or seed changed in mid-campaign.
        PoolEmpty: no item may be asked any more, and none is to be reviewed again.
    """
    name = config.run.name
    if not pool.count(store, name, config) and not withdrawals.awaiting(store, name):
        raise PoolEmpty("no pool item is left to ask; ingest more items or raise query.max_asks")
    body = written_down(config)
    last = rounds.current(store, config.run.name)
    changed = _permitted_changes(store, last, body) if last else []
    return rounds.open_round(store, config.run.name, body), changed


def resume(store: Store, current: Round, config: Config) -> tuple[Round, list[str]]:
    """Give a round that was cut off today's settings; also those that changed, as `table.key: old -> new`.

    What was drawn when the round began stays: its queries and audits.

    Raises:
        BadConfig: task, split or seed changed in mid-campaign.
    """
    past = rounds.config_of(store, current)
    body = written_down(config)
    body["query"] = past["query"]
    for name in ("audit_share", "certify_share"):
        body["review"][name] = past["review"].get(name, body["review"][name])
    changed = _permitted_changes(store, current, body)
    return (rounds.take_config(store, current, body) if changed else current), changed


def _permitted_changes(store: Store, last: Round, body: Mapping[str, object]) -> list[str]:
    """Settings that differ from those of the last round."""
    changed = _changes(rounds.config_of(store, last), body)
    frozen = [line for line in changed if line.startswith(FROZEN)]
    if frozen:
        raise BadConfig(
            "task, split, seed and what certificates promise cannot change within a run; "
            "change them back or start a new run.name:\n" + "\n".join(frozen)
        )
    return changed


def _changes(before: Mapping[str, object], after: Mapping[str, object], prefix: str = "") -> list[str]:
    """Settings that differ, as `table.key: old -> new`."""
    lines: list[str] = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += _changes(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {old} -> {new}")
    return lines
