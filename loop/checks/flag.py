"""Runs the enabled checks on one rationale, the cheapest first."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

from loop.checks import (
    agreement,
    answer_form,
    arithmetic,
    conclusion,
    confidence,
    contradiction,
    dissent,
    first_error,
    instructions,
    label_noise,
    likelihood,
    likeness,
    names,
    neighbours,
    percentages,
    quantities,
    reader,
    support,
    units,
    verifier,
)
from loop.checks.doubt import Check, Doubt, Doubtful, Need
from loop.config import ChecksConfig

__all__ = ["CHECKS", "SHOWN", "Check", "Doubt", "Doubtful", "check_set", "doubts"]

SHOWN = 0.1
"""Weight below which a doubt counts, but is no flag that anybody is shown."""
VERSION = 10
"""Raised whenever a check or the risk would judge the same rationale differently."""

CHECKS: Mapping[str, Check] = {
    module.CHECK.name: module.CHECK
    for module in (
        instructions,
        arithmetic,
        answer_form,
        conclusion,
        quantities,
        units,
        percentages,
        names,
        contradiction,
        confidence,
        dissent,
        agreement,
        support,
        likeness,
        neighbours,
        reader,
        first_error,
        verifier,
        likelihood,
        label_noise,
    )
}


def doubts(
    doubtful: Doubtful, config: ChecksConfig, *, settled: Callable[[Sequence[Doubt]], bool] | None = None
) -> list[Doubt]:
    """The doubts of the enabled checks that have what they need, cheapest first, until they settle the risk."""
    met = _met(doubtful)
    found: list[Doubt] = []
    for check in sorted(CHECKS.values(), key=lambda check: check.milliseconds):
        if check.name in config.enabled and check.needs <= met:
            if settled is not None and settled(found):
                break
            found += check.find(doubtful, config)
    return found


def _met(doubtful: Doubtful) -> set[Need]:
    """What is there for checks to stand on."""
    there = {
        Need.SAMPLES: bool(doubtful.siblings),
        Need.STUDENT: doubtful.student is not None or doubtful.probabilities is not None,
        Need.VERIFIER: doubtful.after is not None or doubtful.likelihoods is not None,
        Need.EMBEDDER: doubtful.embed is not None,
        Need.VERDICTS: any((doubtful.decided, doubtful.reader, doubtful.first_error)),
    }
    return {need for need, met in there.items() if met}


def check_set(config: ChecksConfig, *more: str) -> str:
    """Name of the enabled checks with their settings and version, and of what else is asked or looked at, by hash."""
    settings = [str(VERSION), *sorted(set(config.enabled)), repr(config.dissent_confidence), *filter(None, more)]
    return "checks-" + hashlib.sha256("\n".join(settings).encode()).hexdigest()[:12]
