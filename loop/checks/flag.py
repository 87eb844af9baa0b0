"""Runs the enabled checks on one rationale."""

import hashlib
from collections.abc import Mapping

from loop.checks.agreement import disagreement
from loop.checks.answer_form import unusable_answer
from loop.checks.arithmetic import wrong_equations
from loop.checks.conclusion import missing_conclusion
from loop.checks.dissent import dissent
from loop.checks.doubt import Check, Doubt, Doubtful
from loop.checks.quantities import sourceless_quantities
from loop.config import ChecksConfig

__all__ = ["CHECKS", "Check", "Doubt", "Doubtful", "check_set", "doubts"]

VERSION = 1
"""Raised whenever a check or the risk would judge the same rationale differently."""

CHECKS: Mapping[str, Check] = {
    "arithmetic": wrong_equations,
    "answer": unusable_answer,
    "conclusion": missing_conclusion,
    "quantities": sourceless_quantities,
    "dissent": dissent,
    "agreement": disagreement,
}


def doubts(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:
    """All doubts of the enabled checks about one rationale, in the order of the checks."""
    return [doubt for name, check in CHECKS.items() if name in config.enabled for doubt in check(doubtful, config)]


def check_set(config: ChecksConfig) -> str:
    """Name of the enabled checks with their settings and version, by hash."""
    settings = [str(VERSION), *sorted(set(config.enabled)), repr(config.dissent_confidence)]
    return "checks-" + hashlib.sha256("\n".join(settings).encode()).hexdigest()[:12]
