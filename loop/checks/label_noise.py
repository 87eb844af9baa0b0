"""Does the label look like noise to a student that never saw it?

The label quality of confident learning (Northcutt and others, JAIR 2021), through `cleanlab`: the probability of the
label given the item alone, from a student trained on other items, against that of the likeliest other label.
"""

import numpy as np
from cleanlab.rank import get_label_quality_scores

from loop.answer import Answer, AnswerKind, shown
from loop.checks.doubt import Check, Doubt, Doubtful, Need, excerpt
from loop.config import ChecksConfig

WEIGHT = 0.4
"""At quality 0; it falls to nothing at 0.5, where another label is as likely. Not measured with trained students."""


def noisy_label(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt where the student, given the item alone, finds another label likelier."""
    given = doubtful.rationale.parsed
    if given is None or given.kind is not AnswerKind.LABEL or doubtful.probabilities is None:
        return []
    labels, shares = list(doubtful.task.labels), np.array(doubtful.probabilities())
    if len(shares) != len(labels) or given.value not in labels:
        return []
    quality = float(
        get_label_quality_scores(np.array([labels.index(given.value)]), shares[None], method="normalized_margin")[0]
    )
    if quality >= 0.5:
        return []
    other = excerpt(shown(Answer(kind=AnswerKind.LABEL, value=labels[int(shares.argmax())])))
    evidence = f"given the item alone, the student finds “{other}” likelier ({shares.max():.0%}); "
    evidence += f"label quality {quality:.2f}"
    return [Doubt("label_noise", None, evidence, WEIGHT * (1 - 2 * quality))]


CHECK = Check("label_noise", noisy_label, milliseconds=20, needs=frozenset({Need.STUDENT}))
