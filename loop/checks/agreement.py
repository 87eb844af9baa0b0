"""Do the teacher's other samples end in the same answer?"""

from collections import Counter

from loop.answer import shown
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
        f"most often “{excerpt(shown(favourite, doubtful.item.choices))}”"
    )
    return [Doubt("agreement", None, evidence, WEIGHT * (len(others) / len(answers)) ** 2)]


CHECK = Check("agreement", disagreement, milliseconds=0.02, needs=frozenset({Need.SAMPLES}))
