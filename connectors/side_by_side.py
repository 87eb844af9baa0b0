"""The student's, the teacher's and the corrected steps of one item side by side, with what differs marked."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from loop.records import Author

WORDS = re.compile(r"\s+|\w+|[^\w\s]")
ALIKE = 0.5
"""Steps that share less of their words are marked as a whole: single words would only confuse."""
LONGEST = 1_000_000
"""Pairs of words: longer steps are compared as a whole, which takes no time."""
STUDENT, TEACHER, CORRECTED = "student", "teacher", "corrected"


@dataclass(frozen=True)
class Piece:
    """Some words of a step; whether the step beside it lacks them."""

    text: str
    differs: bool


@dataclass(frozen=True)
class Cell:
    """A step with its number, the doubts about it, and what reviewers called it."""

    number: int
    pieces: Sequence[Piece]
    flags: Sequence[Mapping[str, Any]] = ()
    marks: Sequence[str] = ()


@dataclass(frozen=True)
class Column:
    """One author's steps and answer in a round."""

    name: str
    by: str
    steps: Sequence[str]
    answer: str
    risk: float | None = None
    flags: Sequence[Mapping[str, Any]] = ()
    """Doubts about the whole."""


@dataclass(frozen=True)
class Comparison:
    """What was said of an item in one round: columns, and rows of steps that belong together."""

    round: int
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell | None]] = field(default_factory=list)

    def differs(self, column: Column) -> bool:
        """Whether a column ends in another answer than the one that it is set against."""
        return column.answer != self.columns[_against(self.columns)[self.columns.index(column)]].answer


def comparisons(found: Mapping[str, Any]) -> list[Comparison]:
    """The rounds of an item's history in which something was said, the newest first. What is planted stays hidden."""
    numbers = sorted({each["round"] for each in (*found["rationales"], *found["scores"])}, reverse=True)
    return [each for number in numbers if (each := _compared(found, number)).columns]


def _compared(found: Mapping[str, Any], number: int) -> Comparison:
    rationales = [each for each in found["rationales"] if each["round"] == number and not each["planted"]]
    teacher = next((each for each in rationales if _is_reply(each)), None)
    later = [each for each in rationales if each["supersedes"] is not None]
    columns = [
        _student(found, number, rationales),
        None if teacher is None else _column(TEACHER, teacher, found),
        _column(CORRECTED, later[-1], found) if later else None,
    ]
    there = [each for each in columns if each is not None]
    return Comparison(number, there, _rows(there, teacher, found) if there else [])


def _is_reply(each: Mapping[str, Any]) -> bool:
    return each["author"] == Author.TEACHER.value and each["sample"] == 0 and each["supersedes"] is None


def _student(found: Mapping[str, Any], number: int, rationales: Sequence[Mapping[str, Any]]) -> Column | None:
    """What the student explained when the item was looked at: as it was revised, or as it was scored."""
    own = next((each for each in rationales if each["author"] == Author.STUDENT.value), None)
    if own is not None:
        return _column(STUDENT, own, found)
    parts: Mapping[str, Any] = next((each["parts"] for each in found["scores"] if each["round"] == number), {})
    if not parts.get("steps"):
        return None
    return Column(STUDENT, "when it was looked at", parts["steps"], _value(parts.get("answer")))


def _column(name: str, rationale: Mapping[str, Any], found: Mapping[str, Any]) -> Column:
    by = {"human": "a reviewer"}.get(rationale["author"], rationale["teacher"] or rationale["author"])
    risk = next((each["value"] for each in found["risks"] if each["rationale_id"] == rationale["id"]), None)
    whole = [each for each in _flags(found, rationale["id"]) if each["step"] is None]
    return Column(name, by, rationale["steps"], rationale["stated"] or _value(rationale["answer"]), risk, whole)


def _flags(found: Mapping[str, Any], rationale_id: int) -> list[Mapping[str, Any]]:
    return [each for each in found["flags"] if each["rationale_id"] == rationale_id]


def _value(answer: object) -> str:
    """The value of a canonical answer."""
    return str(json.loads(answer)["value"]) if isinstance(answer, str) and answer else "no allowed answer"


def _base(columns: Sequence[Column]) -> int:
    """The teacher's column, by which the others are aligned."""
    return next((place for place, each in enumerate(columns) if each.name == TEACHER), 0)


def _against(columns: Sequence[Column]) -> list[int]:
    """Which column each is set against: the teacher's against the corrected one, the others against the teacher's."""
    base = _base(columns)
    against = [base] * len(columns)
    if columns[-1].name == CORRECTED:
        against[base] = len(columns) - 1
    return against


def _rows(
    columns: Sequence[Column], teacher: Mapping[str, Any] | None, found: Mapping[str, Any]
) -> Sequence[Sequence[Cell | None]]:
    """Steps that belong together in a row."""
    base, against = _base(columns), _against(columns)
    aligned = {place: align(columns[base].steps, each.steps) for place, each in enumerate(columns) if place != base}
    rows = [
        [_cell(columns, place, steps, against[place]) for place in range(len(columns))]
        for steps in _places(len(columns[base].steps), base, aligned)
    ]
    return rows if teacher is None else _with_doubts(rows, base, teacher, found)


def _cell(columns: Sequence[Column], place: int, steps: Mapping[int, int | None], other: int) -> Cell | None:
    own, beside = steps[place], steps[other]
    if own is None:
        return None
    text = columns[place].steps[own]
    if other == place:
        return Cell(own, [Piece(text, False)])
    return Cell(own, [Piece(text, True)] if beside is None else differing(text, columns[other].steps[beside]))


def _places(
    steps: int, base: int, aligned: Mapping[int, Sequence[tuple[int | None, int | None]]]
) -> list[dict[int, int | None]]:
    """The rows, each with the step of every column. Steps that the base lacks stand before its next one."""
    extra: dict[int, dict[int, list[int | None]]] = {place: {} for place in aligned}
    for place, pairs in aligned.items():
        before = 0
        for ours, theirs in pairs:
            if ours is None:
                extra[place].setdefault(before, []).append(theirs)
            else:
                before = ours + 1
    rows: list[dict[int, int | None]] = []
    for step in range(steps + 1):
        for some in zip_longest(*(extra[place].get(step, []) for place in aligned)):
            rows.append({base: None, **dict(zip(aligned, some, strict=True))})
        if step < steps:
            rows.append({base: step, **{place: dict(pairs).get(step) for place, pairs in aligned.items()}})
    return rows


def _with_doubts(
    rows: Sequence[Sequence[Cell | None]], base: int, teacher: Mapping[str, Any], found: Mapping[str, Any]
) -> list[list[Cell | None]]:
    """The teacher's cells with the doubts about the step and what reviewers called it."""
    flags = _flags(found, teacher["id"])
    said = [each["marks"] for each in found["verdicts"] if each["rationale_id"] == teacher["id"]]
    shown = []
    for row in rows:
        cells = list(row)
        cell = cells[base]
        if cell is not None:
            marks = [marks[str(cell.number)] for marks in said if marks.get(str(cell.number), "ok") != "ok"]
            own = [each for each in flags if each["step"] == cell.number]
            cells[base] = Cell(cell.number, cell.pieces, own, marks)
        shown.append(cells)
    return shown


def align(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """Pairs of steps that belong together, in order; what has no counterpart is paired with None."""
    first_ones, second_ones = ([" ".join(step.split()).casefold() for step in steps] for steps in (ours, theirs))
    matcher = difflib.SequenceMatcher(None, first_ones, second_ones, autojunk=False)
    pairs: list[tuple[int | None, int | None]] = []
    for _, first, second, third, fourth in matcher.get_opcodes():
        pairs += zip_longest(range(first, second), range(third, fourth))
    return pairs


def differing(text: str, beside: str) -> list[Piece]:
    """A step in pieces: the words that the step beside it lacks differ; all of it where little is alike."""
    own, other = WORDS.findall(text), WORDS.findall(beside)
    if len(own) * len(other) > LONGEST:
        return [Piece(text, text != beside)]
    matcher = difflib.SequenceMatcher(None, own, other, autojunk=False)
    if matcher.ratio() < ALIKE:
        return [Piece(text, True)]
    pieces = [
        Piece("".join(own[first:second]), kind != "equal")
        for kind, first, second, _, _ in matcher.get_opcodes()
        if second > first
    ]
    return pieces or [Piece(text, False)]
