"""Does the last step lead to the answer?"""

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from loop.answer import Answer, AnswerKind, mentions, shown
from loop.checks.doubt import Check, Doubt, Doubtful, excerpt
from loop.checks.numbers import numerals, results, spoken
from loop.config import ChecksConfig

WEIGHT = 0.7
WORD = re.compile(r"\w+")
SHORTEST_NAME = 2
"""Characters of a choice or label below which a mention says nothing."""


def missing_conclusion(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt where the steps end somewhere else than in the answer.

    A number must stand in the last step that has numbers; a label or choice is doubted where the last step names only
    others; some word of a text must stand in some step.
    """
    answer = doubtful.rationale.parsed
    steps = [step for step in doubtful.rationale.steps if step.strip()]
    if answer is None or not steps:
        return []
    evidence = CONCLUSIONS[answer.kind](doubtful, answer, steps)
    return [] if evidence is None else [Doubt("conclusion", len(doubtful.rationale.steps) - 1, evidence, WEIGHT)]


def _number(doubtful: Doubtful, answer: Answer, steps: Sequence[str]) -> str | None:  # noqa: ARG001 - the table's signature
    value = Fraction(answer.value)
    for step in reversed(steps):
        digits = {token.value for token in numerals(step)}
        if value in digits | spoken(step) | results(step) or any(_is_rounded(value, each) for each in digits):
            return None
        if digits:
            return f"the answer is {answer.value}, but the last numbers are in “{excerpt(step)}”"
    return f"the answer is {answer.value}, but no step contains a number"


def _is_rounded(value: Fraction, reached: Fraction) -> bool:
    """Whether the answer is what was reached, rounded to whole units or cents."""
    return value in (round(reached), round(reached, 2), abs(reached))


def _named(doubtful: Doubtful, answer: Answer, steps: Sequence[str]) -> str | None:
    names = list(doubtful.task.labels) if answer.kind is AnswerKind.LABEL else list(doubtful.item.choices)
    right = answer.value if answer.kind is AnswerKind.LABEL else shown(answer, names).partition(") ")[2]
    mentioned = mentions(steps[-1], [name for name in names if len(name) >= SHORTEST_NAME])
    if not mentioned or right in mentioned:
        return None
    return f"the last step names “{excerpt(mentioned[0])}”, the answer is “{excerpt(right)}”"


def _text(doubtful: Doubtful, answer: Answer, steps: Sequence[str]) -> str | None:  # noqa: ARG001 - the table's signature
    words = set(WORD.findall(" ".join(steps).casefold()))
    if words.isdisjoint(WORD.findall(answer.value)) and WORD.search(answer.value):
        return f"no step contains a word of the answer “{excerpt(answer.value)}”"
    return None


def _nothing(doubtful: Doubtful, answer: Answer, steps: Sequence[str]) -> str | None:  # noqa: ARG001 - the table's signature
    return None


CONCLUSIONS: Mapping[AnswerKind, Callable[[Doubtful, Answer, Sequence[str]], str | None]] = {
    AnswerKind.NUMBER: _number,
    AnswerKind.LABEL: _named,
    AnswerKind.CHOICE: _named,
    AnswerKind.TEXT: _text,
    AnswerKind.SPANS: _nothing,
}
"""What is missing in the steps, by kind of answer."""


CHECK = Check("conclusion", missing_conclusion, milliseconds=0.2)
