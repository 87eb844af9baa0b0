"""How sure was the teacher, and did it answer the same when it was asked once more?

A stated confidence is coarse and mostly high; what it is worth is learned from verdicts, as of every check. Where there
were enough of them before the item was asked, the confidence itself is calibrated on them.
"""

import math

from loop.checks.doubt import Check, Doubt, Doubtful, excerpt
from loop.config import ChecksConfig
from loop.records import Rationale

WEIGHT = 0.3
"""Of a teacher that says 0 %, less in proportion above; of stated confidence there is no data to measure it on."""
HIGH = 0.9
"""From here on nothing is doubted."""
CONTRADICTED = 0.5
"""Of two answers to one item at least one is wrong; which is worth a look."""


def unsure(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt, the heavier the less sure the teacher was, and one where it contradicted itself when asked again."""
    return [*_unsure(doubtful.rationale), *_contradicted(doubtful.rationale)]


def _unsure(rationale: Rationale) -> list[Doubt]:
    stated, chance = rationale.confidence, rationale.calibrated
    believed = stated if chance is None else chance
    if stated is None or believed is None or not math.isfinite(believed) or believed >= HIGH:
        return []
    voted = rationale.confidence_by == "votes"
    said = f"{stated:.0%} of the teacher's samples end in this answer" if voted else f"the teacher is {stated:.0%} sure"
    if chance is None:
        return [Doubt("confidence", None, said, WEIGHT * (1 - max(stated, 0.0)))]
    evidence = f"{said}; of replies so sure people found {chance:.0%} right"
    return [Doubt("confidence", None, evidence, 1 - chance)]


def _contradicted(rationale: Rationale) -> list[Doubt]:
    if rationale.other is None or rationale.other == rationale.stated:
        return []
    first, second = excerpt(rationale.stated), excerpt(rationale.other)
    evidence = f"unsure and asked once more, the teacher answered “{second}” too; the surer reply says “{first}”"
    return [Doubt("confidence", None, evidence, CONTRADICTED)]


CHECK = Check("confidence", unsure, milliseconds=0.01)
