"""What a row of an input file means: its types are checked here, once, and it is trusted from here on."""

import hashlib
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from connectors.files import Raw
from loop.answer import Answer, AnswerKind, parse_answer, spans_of, split_rationale
from loop.config import TaskConfig
from loop.errors import BadRow
from loop.records import Item

LONGEST_TEXT = 50_000
"""Characters that question, context and choices may have together."""
LONGEST_KEY = 200
MOST_CHOICES = 26
MOST_NAMED = 10_000
"""Refused rows that are named; further ones are counted."""
MARKS = r"?;\"'`\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb\u00bf\u00a1\u2026"
SENTENCE_MARKS = re.compile(rf"[{MARKS}!.,:](?:(?<=[{MARKS}])|(?<=!)(?<!\d!)|(?<=[.,:])(?!\d))")
"""One class first, then what stands around it: an alternation of the same is looked for three times as long."""
DASHES = re.compile("[\u2010\u2011\u2013\u2014\u2212]")


class Refused(list[str]):
    """What is wrong with rows, a sentence each, and how many there were in all."""

    total = 0

    def append(self, said: str) -> None:
        """Count one, and keep what is said of it unless too much is kept already."""
        self.total += 1
        if len(self) < MOST_NAMED:
            super().append(said)

    def add(self, others: "Refused") -> None:
        """Count others too, and keep what is said of them as far as there is room."""
        self.total += others.total
        super().extend(others[: MOST_NAMED - len(self)])


@dataclass(frozen=True)
class Row:
    """A row whose types are right. `answer` is text as it was written, empty where there is none."""

    key: str
    question: str
    context: str
    choices: tuple[str, ...]
    domain: str
    answer: str
    steps: tuple[str, ...]
    model: str
    text_hash: str


def checked(raw: Raw) -> Row:
    """The row with its types checked.

    Raises:
        BadRow: it cannot be used; the text names file, line, field and what was expected.
    """
    if raw.problem is not None:
        raise BadRow(f"{raw.place}: {raw.problem}")
    question = _text(raw, "question")
    if not question:
        raise BadRow(f"{raw.place}: `question` is missing or empty")
    context, choices = _text(raw, "context"), tuple(_texts(raw, "choices"))
    if sum(map(len, (question, context, *choices))) > LONGEST_TEXT:
        raise BadRow(f"{raw.place}: the text is longer than {LONGEST_TEXT} characters; shorten the context")
    _check_choices(raw, choices)
    hashed = text_hash(question, context, choices)
    return Row(
        key=_key(raw) or key_of(hashed),
        question=question,
        context=context,
        choices=choices,
        domain=_text(raw, "domain") or "default",
        answer=_answer(raw),
        steps=_steps(raw),
        model=_text(raw, "model"),
        text_hash=hashed,
    )


def item_of(row: Row, raw: Raw, task: TaskConfig, **fields: Any) -> Item:
    """The item of a checked row, with what the row does not say.

    Raises:
        BadRow: the task needs choices and the row has none.
    """
    require_choices(row, raw, task)
    return Item(
        key=row.key,
        question=row.question,
        context=row.context,
        choices=list(row.choices),
        domain=row.domain,
        text_hash=row.text_hash,
        **fields,
    )


def require_choices(row: Row, raw: Raw, task: TaskConfig) -> None:
    """Refuse a row without choices where the task needs them.

    Raises:
        BadRow: it has none.
    """
    if task.answer is AnswerKind.CHOICE and not row.choices:
        raise BadRow(f"{raw.place}: no `choices`, which task.answer = choice needs")


def allowed_answer(row: Row, raw: Raw, task: TaskConfig) -> Answer:
    """The row's answer as a value.

    Raises:
        BadRow: there is none, or it is not one that the task allows or the text holds.
    """
    if not row.answer:
        raise BadRow(f"{raw.place}: no `answer`; holdout and seed items and existing replies need one")
    parsed = parse_answer(row.answer, task.answer, choices=row.choices, labels=task.labels)
    if parsed is None:
        allowed = {
            AnswerKind.CHOICE: "the letter or the text of a choice",
            AnswerKind.LABEL: f"one of {', '.join(task.labels)}",
            AnswerKind.NUMBER: "a number",
            AnswerKind.TEXT: "a text",
            AnswerKind.SPANS: "`start-end:label` marks joined by `;`, or `none`",
        }[task.answer]
        raise BadRow(f"{raw.place}: `answer` {row.answer[:60]!r} is not allowed; expected {allowed}")
    if parsed.kind is AnswerKind.SPANS:
        _refuse_marks(parsed, row, raw, task)
    return parsed


def _refuse_marks(answer: Answer, row: Row, raw: Raw, task: TaskConfig) -> None:
    """Refuse marks that no student could get right.

    Raises:
        BadRow: one has a label that the task does not have, or reaches beyond the text.
    """
    length = len(row.context or row.question)
    for mark in sorted(spans_of(answer)):
        said = f"{raw.place}: `answer` marks {mark.start}-{mark.end}:{mark.label}"
        if task.labels and mark.label not in task.labels:
            raise BadRow(f"{said}, but labels are {', '.join(task.labels)}; correct it or add the label to task.labels")
        if mark.end > length:
            raise BadRow(f"{said}, but the text ends at {length}; marks count characters of it from 0")


def at_most(steps: Sequence[str], most: int) -> tuple[str, ...]:
    """No more steps than `most`; what is too many stands in the last."""
    return tuple(steps) if len(steps) <= most else (*steps[: most - 1], " ".join(steps[most - 1 :]))


def _text(raw: Raw, name: str) -> str:
    value = raw.fields.get(name)
    if value is None:
        return ""
    return _clean(raw, name, value)


def _clean(raw: Raw, name: str, value: Any) -> str:
    """Text that every database and endpoint can hold."""
    if not isinstance(value, str):
        raise BadRow(f"{raw.place}: `{name}` is a {type(value).__name__}, but text is expected")
    if "\x00" in value:
        raise BadRow(f"{raw.place}: `{name}` holds a NUL character; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"{raw.place}: `{name}` is not valid UTF-8; save the file as UTF-8") from error
    return value.strip()


def _texts(raw: Raw, name: str) -> list[str]:
    value = raw.fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRow(f"{raw.place}: `{name}` is a {type(value).__name__}, but a list of texts is expected")
    return [_clean(raw, name, part) for part in value]


def _key(raw: Raw) -> str:
    value = raw.fields.get("key")
    whole = isinstance(value, int) and not isinstance(value, bool)
    key = str(value) if whole else _text(raw, "key")
    if len(key) > LONGEST_KEY or not key.isprintable():
        raise BadRow(f"{raw.place}: `key` is longer than {LONGEST_KEY} characters or holds control characters")
    return key


def _check_choices(raw: Raw, choices: Sequence[str]) -> None:
    if not choices:
        return
    if not 2 <= len(choices) <= MOST_CHOICES or not all(choices):
        raise BadRow(f"{raw.place}: `choices` needs 2 to {MOST_CHOICES} texts, none of them empty")
    if len(set(choices)) < len(choices):
        raise BadRow(f"{raw.place}: `choices` holds the same text twice")


def _answer(raw: Raw) -> str:
    """The answer as text; a number is written out in full."""
    value = raw.fields.get("answer")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return _text(raw, "answer")
    if not isinstance(value, int) and not math.isfinite(value):
        raise BadRow(f"{raw.place}: `answer` is {value}, but a finite number is expected")
    return format(Decimal(str(value)), "f")


def _steps(raw: Raw) -> tuple[str, ...]:
    """The rationale's steps, from a list or from text."""
    value = raw.fields.get("rationale")
    steps = split_rationale(_text(raw, "rationale"))[0] if isinstance(value, str) else _texts(raw, "rationale")
    if sum(map(len, steps)) > LONGEST_TEXT:
        raise BadRow(f"{raw.place}: `rationale` is longer than {LONGEST_TEXT} characters")
    return tuple(line for step in steps if (line := " ".join(step.split())))


def text_hash(question: str, context: str = "", choices: Sequence[str] = ()) -> str:
    """Hash of an item's text without case, blanks and sentence marks; texts that read alike have one hash."""
    return hashlib.sha256("\x1f".join([_plain(part) for part in (question, context, *choices)]).encode()).hexdigest()


def key_of(hashed: str) -> str:
    """The key of an item that came without one."""
    return hashed[:16]


def _plain(text: str) -> str:
    """Folded text without sentence marks; marks that numbers and formulas need stay."""
    if not text:
        return text
    plain = text if text.isascii() else DASHES.sub("-", unicodedata.normalize("NFKC", text))
    folded = plain.casefold()
    return " ".join(SENTENCE_MARKS.sub(" ", folded).split()) or folded
