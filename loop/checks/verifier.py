"""Does the student, reading the teacher's steps one after another, end in the teacher's answer?

The probability of the teacher's answer after each part of its rationale should rise; the step behind which it falls
most is the one to look at (as in process supervision by outcome, Math-Shepherd, arXiv 2312.08935, with one forced
answer instead of rollouts).
"""

import itertools
from collections.abc import Sequence

from loop.answer import Answer, shown
from loop.checks.doubt import Check, Doubt, Doubtful, Need, excerpt
from loop.config import ChecksConfig
from loop.ports import Forced

WEIGHT = 0.4
"""Where the student, having read all, is sure of another answer; less in proportion below. Not measured."""
MOST_STEPS = 64
"""Longer rationales are not read."""
FALL = 0.2
"""How far the probability must fall behind a step for that step to be named."""


def unconvinced(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt where the student that has read all steps answers otherwise, at the step of the largest fall."""
    given = doubtful.rationale.parsed
    if given is None or doubtful.after is None or not 0 < len(doubtful.rationale.steps) <= MOST_STEPS:
        return []
    forced = doubtful.after()
    if forced[-1].answer is None or forced[-1].answer == given:
        return []
    believed = [_belief(each, given, doubtful) for each in forced]
    falls = [before - after for before, after in itertools.pairwise(believed)]
    step = max(range(len(falls)), key=falls.__getitem__)
    other = excerpt(shown(forced[-1].answer, doubtful.item.choices))
    evidence = f"having read all steps, the student answers “{other}”"
    if falls[step] >= FALL:
        evidence += f"; behind this step its belief in the teacher's answer falls from {believed[step]:.0%}"
        evidence += f" to {believed[step + 1]:.0%}"
    return [Doubt("verifier", step if falls[step] >= FALL else None, evidence, WEIGHT * (1 - believed[-1]))]


def _belief(forced: Forced, given: Answer, doubtful: Doubtful) -> float:
    """The probability of the given answer; 0 or 1 where the student writes a single one."""
    if not forced.probabilities:
        return float(forced.answer == given)
    names: Sequence[str] = list(doubtful.task.labels) or [
        chr(ord("A") + at) for at in range(len(doubtful.item.choices))
    ]
    return forced.probabilities[names.index(given.value)] if given.value in names else 0.0


CHECK = Check("verifier", unconvinced, milliseconds=100, needs=frozenset({Need.VERIFIER}))
