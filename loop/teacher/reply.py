"""What the teacher's raw reply says: steps and an answer, or why it cannot be used.

The text is untrusted. Structured and plain replies are both understood whatever was asked for, because endpoints drop
parameters silently.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from loop.answer import STEP_MARK, Answer, parse_answer, split_rationale
from loop.config import TaskConfig
from loop.plain import plain, storable
from loop.ports import Completion
from loop.records import Item

LONGEST_REPLY = 200_000
"""Longer replies, in characters, are not read."""
LONGEST_ANSWER = 2_000
"""Longer answers, in characters, state none that is allowed."""
MOST_OBJECTS = 20
"""JSON objects that are looked for between prose."""
DECODER = json.JSONDecoder()
FENCED = re.compile(r"```[\w-]*\n(.*?)```", re.DOTALL)
THOUGHTS_END = "</think>"
"""Some endpoints leave the model's private thoughts in the text, before this mark."""


CONFIDENCE_LINE = re.compile(
    r"^[ \t]*(?:confidence|確信度|自信)[ \t]*[:\uff1a][ \t]*([^\n]{1,40})\n?", re.IGNORECASE | re.MULTILINE
)
CONFIDENCE = re.compile(
    r"(?:about |approximately |around |~ ?|約 ?)?(?P<number>[0-9]{1,3}(?:\.[0-9]{1,6})?) ?"
    r"(?P<unit>%|percent|per cent|/ ?100|out of 100|/ ?10|out of 10)?[.。]?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Draft:
    """A readable reply. `answer` is None where the stated answer is not an allowed one."""

    steps: tuple[str, ...]
    answer: Answer | None
    stated: str
    confidence: float | None = None
    """In [0, 1], as the teacher stated it; None where it stated none that can be understood."""


@dataclass(frozen=True)
class Unreadable:
    """A reply that cannot be used, and why."""

    problem: str


def read(completion: Completion, item: Item, task: TaskConfig, *, prefix: Sequence[str] = ()) -> Draft | Unreadable:
    """The rationale in a reply, behind the prefix that it goes on from; never raises, whatever the text."""
    problem = incomplete(completion, "teacher")
    if problem:
        return Unreadable(problem)
    text = storable(completion.text).rpartition(THOUGHTS_END)[2].strip()
    try:
        body = _json_object(text)
    except _TwoAnswers:
        return Unreadable("the reply holds several JSON objects that answer differently")
    stated = _from_plain(CONFIDENCE_LINE.sub("", text)) if body is None else _from_json(body)
    if isinstance(stated, Unreadable):
        return stated
    steps = _limited((*prefix, *_behind(prefix, _lines(stated[0]))), task.max_steps)
    if not steps:
        return Unreadable("the reply has no steps")
    sure = _last_line(text) if body is None else body.get("confidence")
    return Draft(
        steps=steps, answer=_parsed(stated[1], item, task), stated=stated[1], confidence=stated_confidence(sure)
    )


def stated_confidence(stated: object) -> float | None:
    """How sure somebody says to be, in [0, 1]; None where it is not one number with one meaning.

    `85%`, `85 / 100`, `85`, `0.85` and `8.5 out of 10` are the same. What is out of range, denied or in words, and a
    bare 1, which may be 1 % or all, is not understood.
    """
    if isinstance(stated, bool) or not isinstance(stated, str | int | float):
        return None
    match = CONFIDENCE.fullmatch(plain(str(stated)[:40]).strip(" \t*`\"'"))
    if match is None or (match["number"] == "1" and not match["unit"]):
        return None
    number = float(match["number"])
    whole = 10 if (match["unit"] or "").endswith("10") else 1 if not match["unit"] and number <= 1 else 100
    return number / whole if number <= whole else None


def _last_line(text: str) -> str | None:
    """What the last line about confidence says."""
    found: list[str] = CONFIDENCE_LINE.findall(text)
    return found[-1] if found else None


def incomplete(completion: Completion, table: str) -> str | None:
    """Why the text is not worth reading, if so."""
    if len(completion.text) > LONGEST_REPLY:
        return f"the reply is longer than {LONGEST_REPLY} characters"
    if completion.finish_reason == "length":
        return f"the reply was cut off; raise {table}.max_completion_tokens"
    if completion.finish_reason == "content_filter":
        return "the endpoint's content filter stopped the reply"
    return None if completion.text.strip() else "the reply is empty"


def _json_object(text: str) -> dict[str, object] | None:
    """The JSON object that the text is, or the only one that answers in code fences or between prose."""
    whole = _loaded(text)
    if whole is not None:
        return whole
    fenced = [_loaded(part) for part in FENCED.findall(text)[:MOST_OBJECTS]]
    between = [_loaded(text[text.find("{") : text.rfind("}") + 1]), *_objects(text)]
    found = [body for body in (*fenced, *between) if body is not None and body.keys() & {"steps", "answer"}]
    if len({repr(body.get("answer")) for body in found}) > 1:
        raise _TwoAnswers
    return found[0] if found else None


def _loaded(text: str) -> dict[str, object] | None:
    """The object that a text is."""
    if not text.strip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _objects(text: str) -> list[dict[str, object]]:
    """The objects that stand in a text one after another."""
    found: list[dict[str, object]] = []
    start = text.find("{")
    for _ in range(MOST_OBJECTS):
        if start < 0:
            break
        try:
            value, end = DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            found += [value] if isinstance(value, dict) else []
        start = text.find("{", end)
    return found


class _TwoAnswers(Exception):
    """Several objects answer, and not the same."""


def _from_json(body: dict[str, object]) -> tuple[list[str], str] | Unreadable:
    """Steps and stated answer of a structured reply."""
    steps, answer = body.get("steps"), body.get("answer")
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        return Unreadable("`steps` of the reply is not a list of strings")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        return Unreadable("`answer` of the reply is missing or not a string")
    return [storable(step) for step in steps], _line(storable(str(answer)))


def _from_plain(text: str) -> tuple[list[str], str] | Unreadable:
    """Steps and stated answer of a plain reply."""
    if text.startswith(("{", "[", "```")):
        return Unreadable("the reply is not valid JSON")
    steps, answer = split_rationale(text)
    if answer is None:
        return Unreadable("the reply states no answer")
    return steps, _line(answer)


def _lines(raw: Sequence[str]) -> list[str]:
    """One line a step, without numbers and empty ones."""
    lines = [STEP_MARK.sub("", _line(step)) for step in raw]
    return [line for line in lines if any(character.isalnum() for character in line)]


def _behind(prefix: Sequence[str], steps: Sequence[str]) -> Sequence[str]:
    """The steps without those that repeat the prefix: all of it, changed or not, or its end."""
    before, after = ([" ".join(step.split()).casefold() for step in some] for some in (prefix, steps))
    if before and after[:1] == before[:1]:
        return steps[len(before) :]
    repeated = (number for number in range(min(len(before), len(after)), 0, -1) if after[:number] == before[-number:])
    return steps[next(repeated, 0) :]


def _limited(steps: Sequence[str], most: int) -> tuple[str, ...]:
    """The steps; what is too many stands in the last."""
    return tuple(steps) if len(steps) <= most else (*steps[: most - 1], " ".join(steps[most - 1 :]))


def _line(text: str) -> str:
    return " ".join(text.split())


def _parsed(stated: str, item: Item, task: TaskConfig) -> Answer | None:
    """The stated answer as a value, if it is an allowed one."""
    if len(stated) > LONGEST_ANSWER:
        return None
    return parse_answer(stated, task.answer, choices=item.choices, labels=task.labels)
