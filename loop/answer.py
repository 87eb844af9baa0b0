"""What an answer is: parsing, normalising and comparing answers, and splitting rationales into steps."""

import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from fractions import Fraction

from pydantic import BaseModel, ConfigDict

TRIGGER = "Answer:"
"""Stands before the answer wherever one is written in plain text."""


class AnswerKind(StrEnum):
    """How an answer looks."""

    CHOICE = "choice"
    LABEL = "label"
    NUMBER = "number"
    TEXT = "text"
    SPANS = "spans"


class Answer(BaseModel):
    """A normalised answer; equal answers have equal `canonical` text.

    `value` is a capital letter (`choice`), a label as configured (`label`), an exact number such as `12`, `0.5` or
    `7/3` (`number`), folded text (`text`), or sorted `start-end:label` marks joined by `;` (`spans`).
    """

    model_config = ConfigDict(frozen=True)

    kind: AnswerKind
    value: str

    @property
    def canonical(self) -> str:
        """The answer as canonical JSON."""
        return json.dumps({"kind": self.kind.value, "value": self.value}, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_canonical(cls, text: str) -> "Answer":
        """The answer that `canonical` wrote."""
        return cls.model_validate_json(text)


NUMBER = re.compile(r"[-−+]?\s*[$€£]?\s*(\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s*/\s*(\d[\d,]*))?")
STEP_MARK = re.compile(r"^\s*(?:step\s*)?\d+\s*[.):]\s+", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9$(\"'])")
SPAN = re.compile(r"^(\d+)-(\d+):(.+)$")


def parse_answer(
    text: str, kind: AnswerKind, *, choices: Sequence[str] = (), labels: Sequence[str] | Mapping[str, str] = ()
) -> Answer | None:
    """The answer that the text states, or None where it states none that is allowed."""
    stripped = text.strip().strip("*`").strip()
    if not stripped:
        return None
    value = {
        AnswerKind.CHOICE: lambda: _choice(stripped, choices),
        AnswerKind.LABEL: lambda: _label(stripped, tuple(labels)),
        AnswerKind.NUMBER: lambda: _number(stripped),
        AnswerKind.TEXT: lambda: _fold(stripped) or None,
        AnswerKind.SPANS: lambda: _spans(stripped),
    }[kind]()
    return None if value is None else Answer(kind=kind, value=value)


def shown(answer: Answer, choices: Sequence[str] = ()) -> str:
    """The answer as a person or a student reads it."""
    position = ord(answer.value) - ord("A") if answer.kind is AnswerKind.CHOICE else -1
    return f"({answer.value}) {choices[position]}" if 0 <= position < len(choices) else answer.value


def split_steps(text: str) -> list[str]:
    """The numbered lines of a rationale without their numbers; sentences where nothing is numbered."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) <= 1 and not (lines and STEP_MARK.match(lines[0])):
        return [part.strip() for part in SENTENCE_END.split(text.strip()) if part.strip()]
    return [step for line in lines if (step := STEP_MARK.sub("", line).strip())]


def number_steps(steps: Sequence[str]) -> str:
    """Steps as numbered lines, the form that `split_steps` reads back."""
    return "\n".join(f"{number}. {' '.join(step.split())}" for number, step in enumerate(steps, start=1))


def split_rationale(text: str) -> tuple[list[str], str | None]:
    """Steps and the text after the last answer trigger, or None where there is no trigger."""
    before, trigger, after = text.rpartition(TRIGGER)
    if not trigger:
        return split_steps(text), None
    answer = after.strip().splitlines()
    return split_steps(before), answer[0] if answer else ""


def _number(text: str) -> str | None:
    """The only number, or the last one, in exact form."""
    found = list(NUMBER.finditer(text))
    if not found:
        return None
    match = found[-1]
    value = Fraction(match[1].replace(",", "") if not match[1].startswith(".") else f"0{match[1]}")
    if match[2]:
        divisor = Fraction(match[2].replace(",", ""))
        if divisor == 0:
            return None
        value /= divisor
    start = match[0].lstrip()
    return _exact(-value if start[:1] in "-−" and _is_sign(text, match.start()) else value)


def _is_sign(text: str, start: int) -> bool:
    """Whether the dash at `start` is a sign, not a hyphen or a subtraction between two numbers."""
    return start == 0 or not (text[start - 1].isalnum() or text[start - 1] == ")")


def _exact(value: Fraction) -> str:
    """Integers and finite decimals in decimal form, everything else as a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    digits = 0
    scaled = value
    while scaled.denominator != 1 and digits < 12:
        scaled *= 10
        digits += 1
    if scaled.denominator != 1:
        return f"{value.numerator}/{value.denominator}"
    sign = "-" if scaled < 0 else ""
    body = str(abs(scaled.numerator)).rjust(digits + 1, "0")
    return f"{sign}{body[:-digits]}.{body[-digits:]}"


def _choice(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the choice that is named by letter or by its text."""
    letters = [chr(ord("A") + position) for position in range(len(choices))]
    folded = [_fold(choice) for choice in choices]
    if _fold(text) in folded:
        return letters[folded.index(_fold(text))]
    named = re.match(r"^\(?([A-Za-z])\)?(?:[\s.):,-]|$)", text)
    if named and named[1].upper() in letters:
        return named[1].upper()
    return None


def _label(text: str, labels: Sequence[str]) -> str | None:
    """The label that the text is, or the only one that it names."""
    folded = _fold(text)
    for label in labels:
        if _fold(label) == folded:
            return label
    named = [label for label in labels if re.search(rf"\b{re.escape(_fold(label))}\b", folded)]
    return named[0] if len(named) == 1 else None


def _spans(text: str) -> str | None:
    marks = [part.strip() for part in text.split(";") if part.strip()]
    if text.casefold() == "none":
        return ""
    if not all(SPAN.match(mark) for mark in marks):
        return None
    return ";".join(sorted(set(marks)))


def _fold(text: str) -> str:
    """Lower case, single blanks, no articles and no punctuation at the ends."""
    words = re.sub(r"\s+", " ", text.casefold()).strip().strip(".,;:!?\"'()[]").strip()
    return re.sub(r"^(?:the|a|an) ", "", words)
