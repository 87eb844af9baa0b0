"""What a reviewer is shown for a rationale, and what the result of the page means."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loop.answer import Answer, number_steps, parse_answer, shown, split_steps
from loop.config import TaskConfig
from loop.records import Flag, Item, Rationale, ReviewTask, Verdict, VerdictKind
from review.board import BoardTask, RawVerdict, Result

STEPS = 12
"""Step blocks on the page; a longer rationale puts its tail into the last one."""
STEP_BLOCK = re.compile(r"<!-- step -->\n(.*?)<!-- end of step -->", re.DOTALL)
DOUBTED = frozenset({"wrong", "unsupported", "hallucinated"})
SIMULATED = "simulated reviewer"
LONGEST_REVIEW = 3600.0
"""Seconds; more than this is a page left open, not work."""


@dataclass(frozen=True)
class Details:
    """What a reviewer sees beside the rationale."""

    flags: tuple[Flag, ...] = ()
    risk: float = 0.0
    student_steps: tuple[str, ...] = ()
    student_answer: str | None = None
    """Canonical."""


def interface() -> str:
    """The labelling page with all its step blocks."""
    page = Path(__file__).with_name("interface.xml").read_text(encoding="utf-8")
    block = STEP_BLOCK.search(page)
    assert block is not None
    blocks = [block[1].replace("{i}", str(place)).replace("{number}", str(place + 1)) for place in range(STEPS)]
    return page[: block.start()] + "".join(blocks) + page[block.end() :]


def board_task(task: ReviewTask, rationale: Rationale, item: Item, details: Details) -> BoardTask:
    """The task for one rationale: its steps with evidence, prefilled but without a verdict."""
    steps = _fitted(rationale.steps)
    evidence = _evidence(details.flags, len(steps))
    data = {
        "uid": task.uid,
        "item_key": item.key,
        "question": with_choices(item),
        "context": item.context,
        "student_answer": _shown(details.student_answer, item),
        "student_rationale": number_steps(details.student_steps),
        "teacher_answer": rationale.stated or _shown(rationale.answer, item),
        "doubts": "; ".join(flag.evidence for flag in details.flags if flag.step is None),
    }
    for place in range(STEPS):
        data[f"steptext_{place}"] = steps[place] if place < len(steps) else ""
        data[f"evidence_{place}"] = evidence.get(place, "")
    return BoardTask(
        uid=task.uid, data=data, prediction=_prediction(rationale, item, steps, evidence), score=details.risk
    )


def interpret(
    raw: RawVerdict, board: str, rationale: Rationale | None, item: Item | None, task: TaskConfig, slot: int = 0
) -> Verdict:
    """A verdict row from what came; `kind` is None where it cannot be read, the raw result is kept all the same."""
    values = values_of(raw.result)
    kind = _kind(values.get("verdict"))
    verdict = Verdict(
        board=board,
        project=raw.project,
        annotation=raw.annotation,
        updated_at=raw.updated_at,
        rationale_id=None if rationale is None else rationale.id,
        slot=slot,
        reviewer=raw.reviewer,
        kind=kind,
        marks={name[5:]: str(value) for name, value in values.items() if re.fullmatch(r"step_\d+", name)},
        reasons=[str(reason) for reason in values.get("reject_reason") or []],
        seconds=min(max(raw.seconds, 0.0), LONGEST_REVIEW),
        simulated=values.get("reviewer_note") == SIMULATED,
        raw=raw.raw,
        pulled_at=datetime.now(UTC),
    )
    if kind is VerdictKind.EDIT and item is not None:
        answer = parse_answer(
            str(values.get("answer", "")), task.answer, choices=item.choices, labels=tuple(task.labels)
        )
        verdict.steps = split_steps(str(values.get("rationale", "")))
        verdict.answer = None if answer is None else answer.canonical
    return verdict


def result(
    kind: VerdictKind, *, steps: Sequence[str] = (), answer: str = "", note: str = "", reasons: Sequence[str] = ()
) -> Result:
    """The result that the page would submit for a verdict."""
    regions = [_choices("verdict", [kind.value])]
    if kind is VerdictKind.EDIT:
        regions += [_text("answer", answer), _text("rationale", number_steps(steps))]
    if kind is VerdictKind.REJECT and reasons:
        regions.append(_choices("reject_reason", list(reasons)))
    return [*regions, _text("reviewer_note", note)] if note else regions


def _prediction(rationale: Rationale, item: Item, steps: Sequence[str], evidence: dict[int, str]) -> Result:
    """Marks for the steps and the text boxes of an edit; nothing is predicted for the verdict."""
    marks: Result = [
        {
            "id": f"step-{place}",
            "from_name": f"step_{place}",
            "to_name": f"steptext_{place}",
            "type": "choices",
            "value": {"choices": ["wrong" if place in evidence else "ok"]},
        }
        for place in range(len(steps))
    ]
    answer = rationale.stated or _shown(rationale.answer, item)
    return [*marks, _text("answer", answer), _text("rationale", number_steps(rationale.steps))]


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


def with_choices(item: Item) -> str:
    """The question with its choices by letter."""
    letters = [f"({chr(ord('A') + place)}) {choice}" for place, choice in enumerate(item.choices)]
    return "\n".join([item.question, *letters])


def _shown(canonical: str | None, item: Item) -> str:
    return "none" if canonical is None else shown(Answer.from_canonical(canonical), item.choices)


def values_of(regions: Result) -> dict[str, Any]:
    """The page's controls by name; regions that are not of the page's form are passed over."""
    found: dict[str, Any] = {}
    for region in regions:
        value = region.get("value") if isinstance(region, dict) else None
        if not isinstance(value, dict):
            continue
        name, choices, text = str(region.get("from_name")), value.get("choices"), value.get("text")
        if isinstance(choices, list) and choices:
            found[name] = choices if name == "reject_reason" else choices[0]
        elif isinstance(text, list) and region.get("type") == "textarea":
            found[name] = "\n".join(str(line) for line in text)
    return found


def _kind(value: object) -> VerdictKind | None:
    return VerdictKind(str(value)) if value in set(VerdictKind) else None
