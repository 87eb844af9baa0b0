"""Runs the enabled checks on one rationale, the cheapest first."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

from loop.checks import (
    agreement,
    answer_form,
    arithmetic,
    conclusion,
    dissent,
    first_error,
    instructions,
    label_noise,
    neighbours,
    quantities,
    reader,
    verifier,
)
from loop.checks.doubt import Check, Doubt, Doubtful, Need
from loop.config import ChecksConfig

__all__ = ["CHECKS", "Check", "Doubt", "Doubtful", "check_set", "doubts"]

VERSION = 6
"""Raised whenever a check or the risk would judge the same rationale differently."""

CHECKS: Mapping[str, Check] = {
    module.CHECK.name: module.CHECK
    for module in (
        instructions,
        arithmetic,
        answer_form,
        conclusion,
        quantities,
        dissent,
        agreement,
        neighbours,
        reader,
        first_error,
        verifier,
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
        Need.VERIFIER: doubtful.after is not None,
        Need.VERDICTS: any((doubtful.decided, doubtful.reader, doubtful.first_error)),
    }
    return {need for need, met in there.items() if met}


def check_set(config: ChecksConfig) -> str:
    """Name of the enabled checks with their settings and version, by hash."""
    settings = [str(VERSION), *sorted(set(config.enabled)), repr(config.dissent_confidence)]
    return "checks-" + hashlib.sha256("\n".join(settings).encode()).hexdigest()[:12]
