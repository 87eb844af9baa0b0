"""Does the label look like noise to a student that never saw it?

The label quality of confident learning (Northcutt and others, JAIR 2021), through `cleanlab`: the probability of the
label given the item alone, from a student trained on other items, against that of the likeliest other label.
"""

import numpy as np
from cleanlab.rank import get_label_quality_scores

from loop.answer import AnswerKind
from loop.checks.doubt import Check, Doubt, Doubtful, Need, excerpt
from loop.config import ChecksConfig

WEIGHT = 0.4
"""At quality 0, less in proportion above. Measured with MiniLM trained on 1,200 of PaLM's labels of e-SNLI, on 1,000
others: wrong are 47 % at a quality under 0.05, 24 % around 0.5, 8 % above 0.95."""


def noisy_label(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt, the heavier the likelier the student, given the item alone, finds another label."""
    given = doubtful.rationale.parsed
    if given is None or given.kind is not AnswerKind.LABEL or doubtful.probabilities is None:
        return []
    labels, shares = list(doubtful.task.labels), np.array(doubtful.probabilities())
    if len(shares) != len(labels) or given.value not in labels:
        return []
    place = labels.index(given.value)
    quality = float(get_label_quality_scores(np.array([place]), shares[None], method="normalized_margin")[0])
    other = max((at for at in range(len(labels)) if at != place), key=shares.__getitem__)
    evidence = f"given the item alone, the student gives this label {shares[place]:.0%} and “{excerpt(labels[other])}” "
    evidence += f"{shares[other]:.0%}"
    return [Doubt("label_noise", None, evidence, WEIGHT * (1 - quality))] if quality < 1 else []


CHECK = Check("label_noise", noisy_label, milliseconds=20, needs=frozenset({Need.STUDENT}))
