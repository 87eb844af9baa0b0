"""Do the teacher's other samples end in the same answer?

Equal answers are one meaning, so that their spread is the discrete semantic entropy (Farquhar and others, Nature 2024).
Reviewers are told it; the weight goes by the share that differs, which ranks wrong rationales better.
"""

import math
from collections import Counter
from collections.abc import Sequence

from loop.answer import Answer, shown
from loop.checks.doubt import Check, Doubt, Doubtful, Need, excerpt
from loop.config import ChecksConfig

WEIGHT = 0.78
"""Where every other sample disagrees; it falls with the square of their share, as was measured."""


def disagreement(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt where some of the other samples with a readable answer end in another one, heavier the more they are."""
    given = doubtful.rationale.parsed
    answers = [answer for sibling in doubtful.siblings if (answer := sibling.parsed) is not None]
    others = [answer for answer in answers if answer != given]
    if given is None or not others:
        return []
    favourite = Counter(others).most_common(1)[0][0]
    evidence = (
        f"{len(others)} of {len(answers)} other samples of the teacher end in another answer, "
        f"most often “{excerpt(shown(favourite, doubtful.item.choices))}” "
        f"(semantic entropy {entropy([given, *answers]):.2f})"
    )
    return [Doubt("agreement", None, evidence, WEIGHT * (len(others) / len(answers)) ** 2)]


def entropy(answers: Sequence[Answer]) -> float:
    """Discrete semantic entropy of answers in nats: 0 where all are equal."""
    shares = [count / len(answers) for count in Counter(answers).values()]
    return -sum(share * math.log(share) for share in shares)


CHECK = Check("agreement", disagreement, milliseconds=0.02, needs=frozenset({Need.SAMPLES}))
