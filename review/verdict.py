"""What the result of the page means: a verdict as it was given, and what of it can be read."""

import math
from datetime import UTC, datetime
from typing import Any

from loop.answer import parse_answer, split_steps
from loop.config import TaskConfig
from loop.plain import storable
from loop.records import Item, Rationale, Verdict, VerdictKind
from review.board import RawVerdict, Result
from review.task import STEPS, AnswerForm, form_of

SIMULATED = "simulated reviewer"
MARKS = frozenset({"ok", "wrong", "unsupported", "hallucinated", "redundant"})
"""What the page marks steps as."""
LONGEST_REVIEW = 3600.0
"""Seconds; more than this is a page left open, not work."""


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
        marks=_marked_steps(values, rationale),
        reasons=list(values.get("reject_reason") or []),
        seconds=min(max(raw.seconds, 0.0), LONGEST_REVIEW) if math.isfinite(raw.seconds) else 0.0,
        simulated=values.get("reviewer_note") == SIMULATED,
        raw=raw.raw,
        pulled_at=datetime.now(UTC),
    )
    if item is not None:
        _take_correction(verdict, values, rationale, item, task, prefilled=raw.prefilled)
    return verdict


def _marked_steps(values: dict[str, Any], rationale: Rationale | None) -> dict[str, str]:
    """The marks by step. Keys reach blocks that are not shown; what they mark there is no step."""
    last = STEPS if rationale is None else min(len(rationale.steps), STEPS)
    marks = {place: values.get(f"step_{place}") for place in range(last)}
    return {str(place): mark for place, mark in marks.items() if isinstance(mark, str) and mark in MARKS}


def _take_correction(
    verdict: Verdict,
    values: dict[str, Any],
    rationale: Rationale | None,
    item: Item,
    task: TaskConfig,
    *,
    prefilled: bool,
) -> None:
    """Give an edit its answer and steps, a continue its steps. Marks on the text that were changed make an edit of an
    accept.
    """
    marks = form_of(task) is AnswerForm.MARKS
    stated = str(values.get("answer", "none" if marks else ""))
    parsed = parse_answer(stated, task.answer, choices=item.choices, labels=tuple(task.labels))
    answer = None if parsed is None else parsed.canonical
    if verdict.kind is VerdictKind.EDIT:
        verdict.steps, verdict.answer = split_steps(str(values.get("rationale", ""))), answer
    elif verdict.kind is VerdictKind.CONTINUE:
        verdict.steps = split_steps(str(values.get("rationale", "")))
    elif verdict.kind is VerdictKind.ACCEPT and marks and rationale and answer != rationale.answer:
        if "answer" not in values and (rationale.answer is None or not prefilled):
            return  # there were no marks to take off
        verdict.kind, verdict.steps, verdict.answer = VerdictKind.EDIT, list(rationale.steps), answer


def values_of(regions: Result) -> dict[str, Any]:
    """The page's controls by name; regions that are not of the page's form are passed over.

    Whoever may call Label Studio's API may leave anything there, so every value is made text that can be stored.
    """
    found: dict[str, Any] = {}
    for region in regions if isinstance(regions, list) else ():
        value = region.get("value") if isinstance(region, dict) else None
        if not isinstance(value, dict):
            continue
        name, choices, text = str(region.get("from_name")), value.get("choices"), value.get("text")
        if isinstance(choices, list) and choices:
            chosen = [storable(str(each)) for each in choices]
            found[name] = chosen if name == "reject_reason" else chosen[0]
        elif isinstance(text, list) and region.get("type") == "textarea":
            found[name] = storable("\n".join(str(line) for line in text))
        elif name == "answer" and isinstance(value.get("labels"), list):
            mark = storable(";".join(f"{value.get('start')}-{value.get('end')}:{label}" for label in value["labels"]))
            found[name] = f"{found[name]};{mark}" if name in found else mark
    return found


def _kind(value: object) -> VerdictKind | None:
    return VerdictKind(value) if isinstance(value, str) and value in set(VerdictKind) else None
