"""Do the student's explanations agree on another answer than the teacher's?"""

from collections import Counter

from loop.answer import Answer, shown
from loop.checks.doubt import Check, Doubt, Doubtful, Need, excerpt
from loop.config import ChecksConfig

WEIGHT = 0.4
"""At full agreement; less in proportion below."""
FEWEST = 3
"""Explanations with a readable answer below which their agreement says nothing."""


def dissent(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:
    """A doubt where a confident student ends in another answer; none where no trained student has explained."""
    given = doubtful.rationale.answer
    answers = _readable(doubtful)
    if given is None or len(answers) < FEWEST:
        return []
    favourite, count = Counter(answers).most_common(1)[0]
    share = count / len(answers)
    if favourite == given or share < config.dissent_confidence:
        return []
    other = excerpt(shown(Answer.from_canonical(favourite), doubtful.item.choices))
    evidence = f"{count} of {len(answers)} explanations of the student end in “{other}”"
    return [Doubt("dissent", None, evidence, WEIGHT * share)]


def _readable(doubtful: Doubtful) -> list[str]:
    """The readable answers of the student's explanations, the greedy one first."""
    parts = doubtful.student or {}
    answers = [parts.get("answer"), *(parts.get("sampled_answers") or ())]
    return [answer for answer in answers if isinstance(answer, str)]


CHECK = Check("dissent", dissent, milliseconds=0.02, needs=frozenset({Need.STUDENT}))
