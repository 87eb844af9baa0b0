"""What an answer is: parsing, normalising and comparing answers, and splitting rationales into steps."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from loop.plain import JAPANESE, plain

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


LONGEST_NUMBER = 40
"""Characters of a number that is read."""
LONGEST_ANSWER = 2_000
"""Characters of an answer that are read; a longer one states none."""
DECIMALS = 12
"""Digits after the point up to which a number is written as a decimal; beyond that as a fraction."""
NUMBER = re.compile(
    r"""
    (?P<sign>(?:[-+\u2212\u2013]|\b(?:minus|negative)\b)\s*)?(?:(?:[$€£¥]|\b(?:USD|EUR|GBP|Rs)\b\.?)\s*)?
    (?P<dash>[-\u2212])?
    (?:(?P<whole>[0-9]{1,9})[ ](?=[0-9]{1,6}/[0-9]))?
    (?P<top>[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}(?:\.[0-9]+)?(?![0-9])|[0-9]{1,3}(?:[ ][0-9]{3})+(?![0-9])
        |[0-9]+(?:\.[0-9]+)?|\.[0-9]+)
    (?:[eE](?P<exponent>[-+]?[0-9]{1,2})(?![0-9A-Za-z]))?
    (?:\s?/\s?(?P<bottom>[0-9]+(?:\.[0-9]+)?)(?![0-9/]))?
    """,
    re.VERBOSE | re.IGNORECASE,
)
FRAC = re.compile(r"\\[dt]?frac\s?\{\s?([0-9]{1,18})\s?\}\s?\{\s?([0-9]{1,18})\s?\}")
UNIT_POWER = re.compile(r"(?<=[A-Za-z])(?<![0-9.][eE])\^?\{?[23]\}?(?![0-9.])")
"""The power of a unit, as in `cm^2` and `m2`, which is no number of its own."""
OPERATOR = re.compile(r"([-+*/^\u00d7\u00f7\u2212\u2013]|(?<=[0-9) ])[xX])(\s*)[$€£¥]?\s*$")
"""What makes the number behind it an operand."""
CLOCK = re.compile(r"[0-9]:$")
CONCLUDES = re.compile(r"(?:答え|解答|回答) ?(?:は|[:\uff1a]) ?(?=[^\n。]{1,200}。?\s*\Z)")
"""Stands before the answer where a Japanese rationale ends without the trigger."""
SAYS = re.compile(
    r"(?:\b(?i:answer|choice|option)\b(?:\s+is)?|(?:答え|選択肢)(?:は)?)\s*:?\s*"
    rf"(?:[\[(]([A-Za-z])[\])]|([A-Za-z])(?=$|[.,:;)。{JAPANESE}])|([B-HJ-Z])(?=\s))"
)
LETTER = re.compile(r"^[\[(]?([A-Za-z])(?:[\])][.:,]?|[.:,])?(?=$|\s)(.*)$", re.DOTALL)
BRACKETED = re.compile(r"[\[(]([A-Z])[\])]")
STEP_MARK = re.compile(
    r"^\s*(?:step\s*|ステップ\s*|手順\s*)?\d+\s*(?:[.):]\s+|[\uff0e\uff09\uff1a]\s*)|^\s*[\u2460-\u2473]\s*",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9$(\"'])|(?<=[。\uff01\uff1f])(?![」』\uff09])\s*(?=\S)")
SPAN = re.compile(r"^([0-9]{1,9})\s?-\s?([0-9]{1,9})\s?:\s?(\S.*)$")


def parse_answer(
    text: str, kind: AnswerKind, *, choices: Sequence[str] = (), labels: Sequence[str] | Mapping[str, str] = ()
) -> Answer | None:
    """The answer that the text states, or None where it states none that is allowed."""
    storable = text.encode("utf-8", "replace").decode().replace("\x00", "")
    stripped = storable.strip().strip("*`").strip()
    if not stripped or len(stripped) > LONGEST_ANSWER:
        return None
    value = {
        AnswerKind.CHOICE: lambda: _choice(plain(stripped), [plain(choice) for choice in choices]),
        AnswerKind.LABEL: lambda: _label(stripped, tuple(labels)),
        AnswerKind.NUMBER: lambda: _number(plain(stripped)),
        AnswerKind.TEXT: lambda: _fold(stripped) or None,
        AnswerKind.SPANS: lambda: _spans(stripped),
    }[kind]()
    return None if value is None else Answer(kind=kind, value=value)


def shown(answer: Answer, choices: Sequence[str] = ()) -> str:
    """The answer as a person or a student reads it."""
    if answer.kind is AnswerKind.SPANS:
        return answer.value or "none"
    position = ord(answer.value) - ord("A") if answer.kind is AnswerKind.CHOICE else -1
    return f"({answer.value}) {choices[position]}" if 0 <= position < len(choices) else answer.value


class Span(NamedTuple):
    """A mark on a text: from which character on, up to which, and as what."""

    start: int
    end: int
    label: str


def spans_of(answer: Answer) -> frozenset[Span]:
    """The marks of an answer of spans."""
    found = [SPAN.match(part) for part in answer.value.split(";") if part]
    return frozenset(Span(int(match[1]), int(match[2]), match[3]) for match in found if match)


def place_of(answer: Answer, labels: Sequence[str] | Mapping[str, str]) -> int:
    """Where a label or a choice stands among the allowed ones."""
    return list(labels).index(answer.value) if answer.kind is AnswerKind.LABEL else ord(answer.value) - ord("A")


def marked(some: Iterable[tuple[int, int, str]]) -> Answer:
    """The answer of spans that has these marks."""
    value = ";".join(f"{start}-{end}:{label}" for start, end, label in sorted(set(some)))
    return Answer(kind=AnswerKind.SPANS, value=value)


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
        concludes = CONCLUDES.search(text)
        if concludes is None:
            return split_steps(text), None
        before, after = text[: concludes.start()], text[concludes.end() :]
    answer = after.strip().splitlines()
    return split_steps(before), answer[0] if answer else ""


def _number(text: str) -> str | None:
    """The number that the text ends in, or the one that its last equation states, in exact form.

    A computation without its result (`10 - 3`), a range (`3-5`) and a division by zero state none.
    """
    plain = UNIT_POWER.sub("", FRAC.sub(r"\1/\2", text))
    for side in reversed(plain.split("=")):
        found = list(NUMBER.finditer(side))
        if found and not _is_computed(side, found[-1]):
            value = _value(found[-1])
            exact = "" if value is None else _exact(-value if _is_negative(side, found[-1]) else value)
            return exact if 0 < len(exact) <= LONGEST_NUMBER else None
    return None


def _is_computed(text: str, match: re.Match[str]) -> bool:
    """Whether the number is the last operand of a computation, or the end of a range."""
    before, rest = text[: match.start("top")], text[match.end() :].lstrip()
    if match["whole"]:
        before = text[: match.start("whole")]
    sign = OPERATOR.search(before if match["dash"] is None else text[: match.start("dash")])
    if CLOCK.search(before) or (rest[:1] in ("/", "^") and rest[1:2].isdigit()):
        return True
    if sign is None:
        return False
    operand = before[: sign.start()].rstrip()
    if operand[-1:].isdigit() or operand[-1:] in (")", "%"):
        return True
    apart = sign[1] not in "-+\u2212\u2013" or (sign[2] and before[: sign.start()] != operand)
    return bool(apart and NUMBER.search(operand))


def _value(match: re.Match[str]) -> Fraction | None:
    """The number without its sign."""
    if len(match[0]) > LONGEST_NUMBER:
        return None
    top, bottom = match["top"].replace(",", "").replace(" ", ""), Fraction(match["bottom"] or 1)
    if bottom == 0:
        return None
    scale = Fraction(10) ** int(match["exponent"] or 0)
    return int(match["whole"] or 0) + Fraction(f"0{top}") * scale / bottom


def _is_negative(text: str, match: re.Match[str]) -> bool:
    """Whether a minus stands before the number as its sign, not as the hyphen of a word."""
    if match["dash"]:
        return True
    if not match["sign"] or match["sign"].startswith("+"):
        return False
    start = match.start("sign")
    return start == 0 or not text[start - 1].isalnum()


def _exact(value: Fraction) -> str:
    """Integers and finite decimals in decimal form, everything else as a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    digits = 0
    scaled = value
    while scaled.denominator != 1 and digits < DECIMALS:
        scaled *= 10
        digits += 1
    if scaled.denominator != 1:
        return f"{value.numerator}/{value.denominator}"
    sign = "-" if scaled < 0 else ""
    body = str(abs(scaled.numerator)).rjust(digits + 1, "0")
    return f"{sign}{body[:-digits]}.{body[-digits:]}"


def _choice(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the choice that is named by its text, by its letter, or by both; none where they contradict."""
    letters = [chr(ord("A") + position) for position in range(len(choices))]
    by_text = dict(zip(reversed([_fold(choice) for choice in choices]), reversed(letters), strict=True))
    if _fold(text) in by_text:
        return by_text[_fold(text)]
    match = LETTER.match(text)
    letter = match[1].upper() if match else ""
    if match and letter in letters and not _is_word(text):
        if len(set(BRACKETED.findall(text))) > 1:
            return None
        return letter if by_text.get(_fold(match[2]), letter) == letter else None
    said = ["".join(found) for found in SAYS.findall(text)]
    return _only(said, letters) or _named(text, by_text) or _only(BRACKETED.findall(text), letters)


def _is_word(text: str) -> bool:
    """Whether the first letter is a word of a sentence, not the name of a choice."""
    return text[:1] in "AaIi" and text[1:2].isspace()


def _only(found: Sequence[str], letters: Sequence[str]) -> str | None:
    """The only letter among those found that names a choice."""
    named = {letter.upper() for letter in found} & set(letters)
    return named.pop() if len(named) == 1 else None


def _label(text: str, labels: Sequence[str]) -> str | None:
    """The label that the text is, or the only one that it names; `_` and `-` stand for blanks."""
    if text in labels:
        return text
    spoken = _spoken(text)
    for label in labels:
        if _spoken(label) == spoken:
            return label
    return _named(spoken, {_spoken(label): label for label in labels})


def _spoken(label: str) -> str:
    return _fold(re.sub(r"[_-]+", " ", plain(label)))


def _named(text: str, names: Mapping[str, str]) -> str | None:
    """What the only name stands for that the text contains; one behind `not`, or within another, no."""
    outer = set(mentions(text, list(names)))
    return names[outer.pop()] if len(outer) == 1 else None


def mentions(text: str, names: Sequence[str]) -> list[str]:
    """Names that stand in a text as whole words and are not denied; a name within a longer one does not count."""
    folded = " ".join(text.casefold().split())
    spans = [(*match.span(), name) for name in names if name for match in _mention(name).finditer(folded)]
    return [
        name
        for start, end, name in spans
        if not any(first <= start and end <= last and last - first > end - start for first, last, _ in spans)
    ]


def _mention(name: str) -> re.Pattern[str]:
    """Finds a name; Japanese writes no blanks around one, and denies it from behind."""
    before = "" if re.match(f"[{JAPANESE}]", name) else r"(?<!\w)"
    after = r"(?! ?(?:では|じゃ)(?:な|あり))" if re.search(f"[{JAPANESE}]$", name) else r"(?!\w)"
    return re.compile(rf"{before}(?<!not )(?<!not a )(?<!not the )(?<!n't ){re.escape(name.casefold())}{after}")


def _spans(text: str) -> str | None:
    if text.casefold() in ("none", "none."):
        return ""
    found = [SPAN.match(part.strip()) for part in text.split(";") if part.strip()]
    read = [(int(match[1]), int(match[2]), match[3].strip()) for match in found if match]
    if not found or not all(found) or any(start >= end for start, end, _ in read):
        return None
    return marked(read).value


def _fold(text: str) -> str:
    """Lower case, single blanks, no articles in front and no punctuation at the ends."""
    before, words = "", " ".join(text.casefold().split())
    while before != words:
        before = words
        words = re.sub(r"^(?:the|a|an) ", "", words.strip(" .,;:!?*`\"'()[]"))
    return words
