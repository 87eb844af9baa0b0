"""Where a training begins: at the base model with everything, or at the student in force with what is new to it."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loop.config import Config
from loop.ports import Example
from loop.records import Checkpoint, Round, Split
from loop.stages.parts import Parts, in_force, seed_of
from loop.store import decisions, forgetting, rounds
from loop.store.database import Store

SAME = ("kind", "model", "lora_rank")
"""Settings of the student without which its weights cannot be gone on from."""


@dataclass(frozen=True)
class WarmStart:
    """The student to go on from, and the examples to learn; none where nothing is new."""

    student: Checkpoint
    examples: Sequence[Example]


def warm_start(
    current: Round, store: Store, parts: Parts, config: Config, examples: Mapping[str, Example]
) -> WarmStart | None:
    """How the round's training goes on from the student in force; None, with the reason said, where it is fresh.

    `examples` are all there are, by item key, each said to validate or to teach. What validates always does.
    """
    student = in_force(store, current.run)
    if config.student.start == "fresh" or student is None:
        return None
    reason = _why_fresh(student, store, config, examples)
    if reason is not None:
        parts.progress.say(f"  the training starts fresh: {reason}")
        return None
    lessons = {key for key, each in examples.items() if not each.validates}
    new = lessons & _unknown(student, store, examples)
    old = sorted(lessons - new)
    drawn = random.Random(seed_of(config, current.number)).sample(old, round(config.student.replay_share * len(old)))
    wanted = {*new, *drawn, *(examples.keys() - lessons)} if new else set[str]()
    return WarmStart(student, [each for key, each in examples.items() if key in wanted])


def _unknown(student: Checkpoint, store: Store, examples: Mapping[str, Example]) -> set[str]:
    """The keys of what a student has not learned: decided or ingested since, or what validated then."""
    learned, card = int(student.card["last_decision"]), student.card
    decided = {key for key, row in decisions.newest(store, student.run).items() if (row.id or 0) > learned}
    seeds = {key for key, each in examples.items() if each.item.split is Split.SEED}
    return decided | (seeds - set(card.get("seed_keys", seeds))) | set(card.get("validation_keys", ()))


def _learned(student: Checkpoint, store: Store) -> set[str]:
    """The keys of what taught a student, or the one that it went on from."""
    card, then = student.card, decisions.decided(store, student.run, int(student.card["last_decision"]))
    known = {item.key for item, _, _ in then} | set(card.get("seed_keys", ()))
    return known - set(card.get("validation_keys", ())) - set(card.get("left_out", ()))


def _why_fresh(student: Checkpoint, store: Store, config: Config, examples: Mapping[str, Example]) -> str | None:
    """Why a training cannot go on from a student, if so."""
    if "last_decision" not in student.card or student.round_id is None:
        return f"what {student.folder} learned was not noted by the version that trained it"
    then = student.card.get("student") or rounds.config_of(store, rounds.by_id(store, student.round_id))["student"]
    today = config.student.model_dump(mode="json")
    changed = [f"student.{name} is no longer {then.get(name)}" for name in SAME if then.get(name) != today[name]]
    if changed:
        return "; ".join(changed)
    if forgetting.taught_since(store, student.created_at):
        return f"what {student.folder} learned may have been forgotten since"
    taken = decisions.taken_back(store, student.run, int(student.card["last_decision"]))
    taken += [key for key in student.card.get("seed_keys", ()) if key not in examples]
    if taken:
        return f"{student.folder} learned what was taken back since ({_named(taken)})"
    held = _learned(student, store) & {key for key, each in examples.items() if each.validates}
    return f"{student.folder} learned what validates from now on ({_named(sorted(held))})" if held else None


def _named(keys: Sequence[str]) -> str:
    """The first of some keys."""
    return ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
