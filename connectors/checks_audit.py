"""Audits the checks on rationales of known outcome, from a run or from a file: do they read the steps or the answer?"""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from rich.console import Group
from rich.table import Table
from rich.text import Text

from connectors.files import Raw, json_lines
from connectors.wiring import Project
from loop.answer import AnswerKind, parse_answer, split_steps
from loop.checks.audit import Audited, Auroc, Known, Reads, Variant, audit
from loop.checks.doubt import Doubtful
from loop.checks.flag import CHECKS
from loop.config import ChecksConfig, TaskConfig
from loop.errors import BadRow, PreceptorError
from loop.ports import Progress
from loop.records import Author, DecisionKind, Item, Rationale, Round, Split
from loop.stages.looking import Looking, student_before
from loop.stages.parts import trained_by
from loop.store import decisions, rationales, rounds

FEWEST = 10
"""Wrong rationales, and as many right ones, below which an audit says nothing."""
MOST_LABELS = 100
Row = dict[str, Any]
Drawn = TypeVar("Drawn")


class Said(BaseModel):
    """One teacher's recorded rationale."""

    rationale: str
    answer: str | int | float | None = None
    correct: bool
    model: str = ""


class Recorded(BaseModel):
    """A row of a file of recorded rationales."""

    question: str
    choices: list[str] | None = None
    gold: str | int | float
    teacher: list[Said]


def of_run(project: Project, *, limit: int) -> list[Known]:
    """Judged rationales of a run on items for which people settled on an answer, at most so many, drawn at random.

    Students look as they were when the rationales were new. Nothing is asked and nothing is stored.
    """
    store, run = project.store, project.config.run.name
    truth = {
        item.key: rationale.parsed
        for item, rationale, decision in decisions.decided(store, run)
        if decision.kind is DecisionKind.GOLD and rationale.parsed is not None
    }
    judged = [each for each in rationales.judged(store, run, datetime.now(UTC)) if each.item.key in truth]
    past = _drawn(judged, limit)
    wanted = {each.rationale.round_id for each in past}
    looking = {each.id: _looking(project, each) for each in rounds.all_rounds(store, run) if each.id in wanted}
    return [
        Known(
            case=looking[each.rationale.round_id]([each.rationale])[0],
            truth=truth[each.item.key],
            wrong=each.wrong,
            look=lambda changed: looking[changed.round_id]([changed])[0],
            steps=not each.wrong or bool(each.wrong_steps),
            first_error=min(each.wrong_steps, default=None),
        )
        for each in past
    ]


def _looking(project: Project, current: Round) -> Looking:
    """As the checks looked at a round's rationales: with the student that was in force then."""
    before = student_before(current, project.store)
    if before is None:
        return Looking(current, project.store, None, project.config)
    student = project.trainer().student(project.folder / "checkpoints" / before.folder)
    return Looking(current, project.store, student, trained_by(before, project.config))


def of_file(path: Path, *, teacher: str | None, limit: int) -> tuple[list[Known], list[str]]:
    """One rationale of each row of a file, the row's others beside it as further samples; and what is wrong with rows.

    Raises:
        BadRow: no row has a rationale by the teacher.
    """
    rows, bad = [], []
    for raw in json_lines(path):
        try:
            rows.append(_row(raw))
        except BadRow as error:
            bad.append(str(error))
    places = [[at for at, said in enumerate(row.teacher) if teacher in (None, said.model)] for row in rows]
    if not any(places):
        models = sorted({said.model for row in rows for said in row.teacher})
        raise BadRow(f"{path}: no rationale by {teacher or 'any teacher'}; there are: {', '.join(models) or 'none'}")
    task, chance = _task(rows), random.Random(0)
    known = [_known(row, chance.choice(some), task) for row, some in zip(rows, places, strict=True) if some]
    return _drawn([each for each in known if each is not None], limit), bad


def run_audit(known: Sequence[Known], config: ChecksConfig, progress: Progress) -> list[Audited]:
    """Audit the checks.

    Raises:
        PreceptorError: too few rationales are known to be wrong or right.
    """
    wrong = sum(each.wrong for each in known)
    if min(wrong, len(known) - wrong) < FEWEST:
        raise PreceptorError(
            f"{wrong} rationales are known to be wrong and {len(known) - wrong} to be right, but an audit takes "
            f"{FEWEST} of each: review more of them (review.audit_share), or audit a file with --data"
        )
    with progress.bar("checks look three times", len(known)) as bar:
        return audit(known, config, seed=0, step=bar.advance)


def as_json(known: Sequence[Known], found: Sequence[Audited]) -> Row:
    """The audit for programs."""
    checks = [
        {
            "check": each.check,
            "raised_on_wrong": each.raised_on_wrong if each.check in CHECKS else None,
            "raised_on_right": each.raised_on_right if each.check in CHECKS else None,
            **{variant.value: _figures(each.aurocs[variant]) for variant in Variant},
            "reads": each.reads.name.lower(),
        }
        for each in found
    ]
    return {"rationales": len(known), "wrong": sum(each.wrong for each in known), "checks": checks}


def _figures(found: Auroc) -> Row:
    return {"auroc": found.value, "low": found.low, "high": found.high, "above_chance": found.above_chance}


def as_text(known: Sequence[Known], found: Sequence[Audited]) -> Group:
    """The audit for people."""
    wrong = sum(each.wrong for each in known)
    head = f"{len(known)} rationales, {wrong} of them wrong; AUROC with its 95 % interval, 0.5 is chance"
    columns = ("check", "flags wrong / right", "as it is", "answer forced", "answer removed", "reads")
    table = Table(*columns, box=None, header_style="dim", pad_edge=False)
    for each in found:
        raised = f"{each.raised_on_wrong:.0%} / {each.raised_on_right:.0%}" if each.check in CHECKS else "-"
        shown = ["-"] * 3 if each.reads is Reads.SILENT else [_text(each.aurocs[variant]) for variant in Variant]
        table.add_row(_name(each), raised, *shown, each.reads.value)
    only, fit = ([_name(each) for each in found if each.reads is reads] for reads in (Reads.ANSWER, Reads.FIT))
    said = f"only reading the answer: {', '.join(only) or 'none'}"
    if fit:
        said += f"; telling nothing without one: {', '.join(fit)}"
    silent = [each.check for each in found if each.reads is Reads.SILENT and each.check in CHECKS]
    lacking = [f"{name} ({', '.join(sorted(CHECKS[name].needs))})" for name in silent if CHECKS[name].needs]
    lines = [Text(said, style="bold")]
    if lacking:
        lines.append(Text(f"silent, maybe for want of what they need: {', '.join(lacking)}", style="dim"))
    return Group(Text(head), table, *lines)


def _name(found: Audited) -> str:
    return found.check if found.check in CHECKS else "all together"


def _text(found: Auroc) -> str:
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _drawn(some: Sequence[Drawn], limit: int) -> list[Drawn]:
    """At most so many, drawn at random, in their order."""
    return [some[at] for at in sorted(random.Random(0).sample(range(len(some)), min(limit, len(some))))]


# --- files ----------------------------------------------------------------------------------------------------------


def _row(raw: Raw) -> Recorded:
    if raw.problem is not None:
        raise BadRow(f"{raw.place}: {raw.problem}")
    try:
        return Recorded.model_validate(raw.fields)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise BadRow(
            f"{raw.place}: `{where}`: {problem['msg']}; expected question, choices, gold and teacher, a list of "
            "objects with rationale, answer and correct"
        ) from error


def _task(rows: Sequence[Recorded]) -> TaskConfig:
    """What kind of answer a file has: its choices say so, or its gold answers."""
    gold = [str(row.gold) for row in rows]
    choices = {tuple(row.choices or ()) for row in rows}
    if choices != {()}:
        if len(choices) == 1:
            return TaskConfig(answer=AnswerKind.LABEL, labels=dict.fromkeys(next(iter(choices)), ""))
        return TaskConfig(answer=AnswerKind.CHOICE)
    if all(parse_answer(each, AnswerKind.NUMBER) is not None and len(each) < 12 for each in gold):
        return TaskConfig(answer=AnswerKind.NUMBER)
    labels = sorted(set(gold))
    if 2 <= len(labels) <= min(MOST_LABELS, len(gold) // 5):
        return TaskConfig(answer=AnswerKind.LABEL, labels=dict.fromkeys(labels, ""))
    return TaskConfig(answer=AnswerKind.TEXT)


def _known(row: Recorded, place: int, task: TaskConfig) -> Known | None:
    """The rationale at a place of the row; None where the gold answer is not an allowed one."""
    choices = list(row.choices or ()) if task.answer is AnswerKind.CHOICE else []
    item = Item(key=row.question, question=row.question, choices=choices, split=Split.POOL, text_hash="")
    truth = parse_answer(str(row.gold), task.answer, choices=choices, labels=tuple(task.labels))
    if truth is None:
        return None
    said = [_rationale(each, at, item, task) for at, each in enumerate(row.teacher)]
    case = Doubtful(item, said[place], task, siblings=[each for at, each in enumerate(said) if at != place])
    return Known(case, truth, not row.teacher[place].correct, look=lambda changed: replace(case, rationale=changed))


def _rationale(said: Said, sample: int, item: Item, task: TaskConfig) -> Rationale:
    stated = "" if said.answer is None else str(said.answer)
    answer = parse_answer(stated, task.answer, choices=item.choices, labels=tuple(task.labels))
    return Rationale(
        item_key=item.key,
        round_id=0,
        author=Author.TEACHER,
        sample=sample,
        steps=split_steps(said.rationale),
        answer=None if answer is None else answer.canonical,
        stated=stated,
    )
