"""Does the answer parse, and is it an allowed one?"""

from collections.abc import Mapping

from loop.answer import AnswerKind
from loop.checks.doubt import Check, Doubt, Doubtful, excerpt
from loop.config import ChecksConfig

WEIGHT = 0.9
EXPECTED: Mapping[AnswerKind, str] = {
    AnswerKind.CHOICE: "one of the choices",
    AnswerKind.LABEL: "one of the labels",
    AnswerKind.NUMBER: "a number",
    AnswerKind.TEXT: "a text",
    AnswerKind.SPANS: "a list of spans",
}


def unusable_answer(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt where the stated answer is not an allowed one."""
    if doubtful.rationale.answer is not None:
        return []
    stated = excerpt(doubtful.rationale.stated)
    evidence = f"the answer “{stated}” is not {EXPECTED[doubtful.task.answer]}" if stated else "no answer is stated"
    return [Doubt("answer", None, evidence, WEIGHT)]


CHECK = Check("answer", unusable_answer, milliseconds=0.01)
