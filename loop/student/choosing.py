"""Settings that a short trial chooses: those that are "validated".

Each candidate is trained for a part of the epochs on what does not validate, and the one is taken whose loss on the
validating rationales that people decided is least. All candidates are measured alike: every rationale counts the same,
and where the form of the targets is chosen, all by what a student does that explains before it answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf, isfinite
from typing import Any

from loop.config import StudentConfig
from loop.errors import Diverged
from loop.ports import Example
from loop.student.validation import FEWEST

CANDIDATES: Mapping[str, tuple[Any, ...]] = {
    "targets": ("two_tasks", "rationale_then_answer"),
    "gold_weight": (1.0, 2.0, 4.0),
}
"""What is tried for each setting; the first is taken where nothing can be measured and nothing was chosen before."""
PART = 0.25
"""Share of the epochs that a trial takes, one at least."""

Losses = dict[str, dict[str, float | None]]
"""What the trials of each setting found, by candidate; None where the loss came to be no number."""
LossOf = Callable[[str, StudentConfig, StudentConfig], float]
"""The loss of a trial of some name: how it trains, and how it is measured."""


def is_open(config: StudentConfig) -> bool:
    """Whether something is still to be chosen."""
    return any(getattr(config, name) == "validated" for name in CANDIDATES)


def parts(examples: Sequence[Example], config: StudentConfig) -> tuple[list[Example], list[Example]]:
    """The examples that trials learn, and those that they are measured on: that validate and that people decided.

    There are none of the latter while they are too few for a choice that is not luck.
    """
    gold = [replace(each, validates=False) for each in examples if each.validates and each.gold]
    if config.targets == "validated":
        gold = [each for each in gold if each.steps]
    learned = [each for each in examples if not each.validates]
    return learned, gold if len(gold) >= FEWEST else []


def chosen(
    config: StudentConfig, before: Mapping[str, Any], measured_on: int, loss_of: LossOf, say: Callable[[str], None]
) -> tuple[StudentConfig, Losses]:
    """The config with all that was open chosen, one setting after the other, and what the trials found.

    `before` are the settings of the student that the training starts from: they stay where nothing can be tried.
    """
    found: Losses = {}
    for name, candidates in CANDIDATES.items():
        if getattr(config, name) != "validated":
            continue
        best = before.get(name, candidates[0])
        if not measured_on:
            say(f"  {name} = {best}: fewer than {FEWEST} rationales validate that people decided, so nothing is tried")
        else:
            trials = {each: _trial(config, name, each) for each in candidates}
            tried = {each: _loss(loss_of, f"{name}-{each}", how, name) for each, how in trials.items()}
            best = min(tried, key=tried.__getitem__)
            found[name] = {str(each): round(loss, 4) if isfinite(loss) else None for each, loss in tried.items()}
            losses = ", ".join(f"{each}: {'no number' if loss is None else loss}" for each, loss in found[name].items())
            say(f"  {name} = {best} has the least loss on {measured_on} validating gold rationales ({losses})")
        config = config.model_copy(update={name: best})
    return config, found


def _loss(loss_of: LossOf, trial: str, how: StudentConfig, name: str) -> float:
    """The loss of a trial; infinite where it came to be no number."""
    try:
        return loss_of(trial, how, _measure(how, name))
    except Diverged:
        return inf


def _trial(config: StudentConfig, name: str, value: object) -> StudentConfig:
    """How a candidate is tried: for less long, whatever else is still open at its first candidate."""
    settled = {each: some[0] for each, some in CANDIDATES.items() if getattr(config, each) == "validated"}
    short = {"epochs": min(config.epochs, max(1.0, PART * config.epochs)), "validation_share": 0.0}
    return config.model_copy(update={**settled, **short, name: value})


def _measure(how: StudentConfig, name: str) -> StudentConfig:
    """How a trial is measured: with all rationales alike, all forms of targets alike, and by texts alone."""
    alike: dict[str, object] = {"gold_weight": 1.0, "risk_weight": False, "repaired_weight": 1.0, "white_box": None}
    if name == "targets":
        alike["targets"] = "rationale_then_answer"
    return how.model_copy(update={**alike, "preference_weight": 0.0})
