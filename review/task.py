"""What a reviewer is shown for a rationale."""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from string import ascii_lowercase
from typing import Any

from loop.answer import Answer, AnswerKind, number_steps, shown
from loop.config import TaskConfig
from loop.records import Flag, Item, Rationale, ReviewTask, VerdictKind
from review.board import BoardTask, Result

KEYS = "1234567890-="
"""The key that marks each step wrong."""
STEPS = len(KEYS)
"""Step blocks on the page; a longer rationale puts its tail into the last one."""
LETTERS = ascii_lowercase
"""With Shift the key of each answer or label."""
STUDENT_BOX = "student_now"
"""A hidden box that holds the student's answer where Label Studio asks for it. It is no verdict and never read back."""


@dataclass(frozen=True)
class Details:
    """What a reviewer sees beside the rationale."""

    flags: tuple[Flag, ...] = ()
    risk: float = 0.0
    student_steps: tuple[str, ...] = ()
    student_answer: str | None = None
    """Canonical."""
    settled: int = 0
    """So many steps are a reviewer's, and the teacher wrote the rest anew."""


class AnswerForm(StrEnum):
    """How the page takes a corrected answer."""

    CHOICES = "choices"
    MARKS = "marks"
    """Labels drawn on the text."""
    TEXT = "text"


def form_of(task: TaskConfig) -> AnswerForm:
    """The form for this kind of answer; spans without configured labels are typed."""
    if task.answer in (AnswerKind.CHOICE, AnswerKind.LABEL):
        return AnswerForm.CHOICES
    return AnswerForm.MARKS if task.answer is AnswerKind.SPANS and task.labels else AnswerForm.TEXT


def board_task(task: ReviewTask, rationale: Rationale, item: Item, details: Details, asked: TaskConfig) -> BoardTask:
    """The task for one rationale: its steps with evidence, answer and steps prefilled, nothing judged.

    Without evidence the page opens at the first step, as for a rationale that nobody doubts.
    """
    steps = _fitted(rationale.steps)
    flags = () if task.unflagged else details.flags
    evidence = _evidence(flags, len(steps))
    data: dict[str, Any] = {
        "uid": task.uid,
        "item_key": item.key,
        "question": with_choices(item),
        "context": item.context,
        "student": _student(details, item),
        "teacher_answer": rationale.stated or _shown(rationale.answer, item),
        "doubts": "; ".join(flag.evidence for flag in flags if flag.step is None),
        "settled": _settled(details.settled),
    }
    for place in range(STEPS):
        data[f"steptext_{place}"] = steps[place] if place < len(steps) else ""
        data[f"evidence_{place}"] = evidence.get(place, "")
    if form_of(asked) is AnswerForm.CHOICES:
        data["answers"] = _offered(item, asked)
    if form_of(asked) is AnswerForm.MARKS:
        data |= _on_text(rationale, item)
    if task.assignee:
        data["reviewer"] = task.assignee
    prediction = [*_prefilled(rationale, item, asked), _text("rationale", number_steps(rationale.steps))]
    return BoardTask(uid=task.uid, data=data, prediction=prediction, score=task.place or 0.0)


def pre_annotation(shown: BoardTask) -> Result:
    """What Label Studio gets where it asks for a prediction: what is prefilled anyway, and the student's answer."""
    student = str(shown.data["student"])
    return [*shown.prediction, *([_text(STUDENT_BOX, student)] if student else [])]


def result(
    kind: VerdictKind,
    *,
    steps: Sequence[str] = (),
    answer: str = "",
    note: str = "",
    reasons: Sequence[str] = (),
    form: AnswerForm = AnswerForm.TEXT,
) -> Result:
    """The result that the page would submit for a verdict."""
    regions = [_choices("verdict", [kind.value])]
    if kind is VerdictKind.EDIT:
        regions += [*_answered(answer, form), _text("rationale", number_steps(steps))]
    if kind is VerdictKind.CONTINUE:
        regions.append(_text("rationale", number_steps(steps)))
    if kind is VerdictKind.REJECT and reasons:
        regions.append(_choices("reject_reason", list(reasons)))
    return [*regions, _text("reviewer_note", note)] if note else regions


def _prefilled(rationale: Rationale, item: Item, asked: TaskConfig) -> Result:
    """The teacher's answer in the page's control; left open where it gave none, or none that is offered."""
    form = form_of(asked)
    if rationale.is_prefix:
        return []
    if form is AnswerForm.TEXT:
        return _answered(rationale.stated or _shown(rationale.answer, item), form)
    return [] if rationale.answer is None else _answered(_shown(rationale.answer, item), form)


def _answered(answer: str, form: AnswerForm) -> Result:
    """The page's control for the answer, filled."""
    if form is AnswerForm.TEXT:
        return [_text("answer", answer)]
    if form is AnswerForm.CHOICES:
        return [_choices("answer", [answer])]
    return [
        {
            "id": f"answer-{start}-{end}",
            "from_name": "answer",
            "to_name": "passage",
            "type": "labels",
            "value": {"start": start, "end": end, "labels": [label]},
        }
        for start, end, label in _marks(answer)
    ]


def _offered(item: Item, task: TaskConfig) -> list[dict[str, str]]:
    """The allowed answers. Label Studio fills in `$` in a value, so the text stands in `alias` and, escaped, `html`."""
    canonical = [Answer(kind=task.answer, value=chr(ord("A") + place)) for place in range(len(item.choices))]
    texts = [shown(answer, item.choices) for answer in canonical] or list(task.labels)
    offered = [
        {"value": f"answer {place}", "alias": text, "html": html.escape(text)} for place, text in enumerate(texts)
    ]
    for each, letter in zip(offered, LETTERS, strict=False):
        each["hotkey"] = f"shift+{letter}"
    return offered


def _on_text(rationale: Rationale, item: Item) -> dict[str, str]:
    """The text that spans are counted in: the context, or the question where there is none."""
    text = item.context or item.question
    marks = [f"{text[start:end]}: {label}" for start, end, label in _marks(_shown(rationale.answer, item))]
    return {
        "asked": item.question if item.context else "",
        "passage": text.replace("\r", " "),
        "marked": "\n".join(marks) or rationale.stated or "none",
    }


def _marks(answer: str) -> Iterator[tuple[int, int, str]]:
    """The marks of an answer of spans."""
    for mark in re.finditer(r"(\d+)-(\d+):([^;]+)", answer):
        yield int(mark[1]), int(mark[2]), mark[3]


def _choices(name: str, values: list[str]) -> dict[str, Any]:
    return {"id": name, "from_name": name, "to_name": "question", "type": "choices", "value": {"choices": values}}


def _text(name: str, text: str) -> dict[str, Any]:
    return {"id": name, "from_name": name, "to_name": "question", "type": "textarea", "value": {"text": [text]}}


def _fitted(steps: Sequence[str]) -> list[str]:
    return [*steps[: STEPS - 1], " ".join(steps[STEPS - 1 :])] if len(steps) > STEPS else list(steps)


def _evidence(flags: Sequence[Flag], steps: int) -> dict[int, str]:
    """What is doubted at each step of the page, in words."""
    found: dict[int, list[str]] = {}
    for flag in flags:
        if flag.step is not None:
            found.setdefault(min(flag.step, steps - 1), []).append(flag.evidence)
    return {place: "; ".join(texts) for place, texts in found.items()}


def _settled(steps: int) -> str:
    """Which steps need no second look."""
    which = "Step 1 is" if steps == 1 else f"Steps 1 to {steps} are"
    return f"{which} as corrected; the teacher wrote the rest anew" if steps else ""


def with_choices(item: Item) -> str:
    """The question with its choices by letter."""
    letters = [f"({chr(ord('A') + place)}) {choice}" for place, choice in enumerate(item.choices)]
    return "\n".join([item.question, *letters])


def _shown(canonical: str | None, item: Item) -> str:
    return "none" if canonical is None else shown(Answer.from_canonical(canonical), item.choices)


def _student(details: Details, item: Item) -> str:
    """The student's answer, and its steps below."""
    answer = "" if details.student_answer is None else _shown(details.student_answer, item)
    return "\n".join(part for part in (answer, number_steps(details.student_steps)) if part)
