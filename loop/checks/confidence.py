"""How sure did the teacher say it was?

A stated confidence is coarse and mostly high; what it is worth is learned from verdicts, as of every check.
"""

import math

from loop.checks.doubt import Check, Doubt, Doubtful
from loop.config import ChecksConfig

WEIGHT = 0.3
"""Of a teacher that says 0 %, less in proportion above; of stated confidence there is no data to measure it on."""
HIGH = 0.9
"""From here on nothing is doubted."""


def unsure(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt, the heavier the less sure the teacher said it was; none where it said nothing."""
    confidence = doubtful.rationale.confidence
    if confidence is None or not math.isfinite(confidence) or confidence >= HIGH:
        return []
    return [Doubt("confidence", None, f"the teacher is {confidence:.0%} sure", WEIGHT * (1 - max(confidence, 0.0)))]


CHECK = Check("confidence", unsure, milliseconds=0.01)
