"""Takes existing replies in: checked against the items, and written as a file for the recorded teacher."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from connectors import atomic
from connectors.files import Raw, reader_of
from connectors.rows import Refused, Row, allowed_answer, at_most, checked, text_hash
from loop.answer import Answer
from loop.config import TaskConfig
from loop.errors import BadRow
from loop.records import Item, Split
from loop.store import items
from loop.store.database import Store

CHUNK = 1000
"""Rows that are looked up at once."""
UNNAMED = "recorded"
"""Model name of replies whose row names none."""


@dataclass(frozen=True)
class Given:
    """An existing reply to a pool item."""

    item: Item
    steps: tuple[str, ...]
    answer: Answer
    model: str


@dataclass
class IngestedRationales:
    """What became of the rows, and the file that the recorded teacher answers from."""

    file: Path
    added: int = 0
    known: int = 0
    models: list[str] = field(default_factory=list)
    bad: Refused = field(default_factory=Refused)

    def summary(self) -> str:
        """What was taken in and what to write into the config so that it is used."""
        counts = f"replies added: {self.added}; known already: {self.known}; bad rows: {self.bad.total}"
        if not self.models:
            return counts
        settings = [f"recorded = {json.dumps(str(self.file))}", f"model = {json.dumps(self.models[0])}"]
        named = f"  # recorded: {', '.join(self.models)}" if len(self.models) > 1 else ""
        lines = [*settings, "input_price = 0.0", "output_price = 0.0"]
        lines[1] += named
        return "\n".join([counts, "to use them without a teacher, write into the config:", "[teacher]", *lines])


def ingest_rationales(paths: Sequence[Path], store: Store, *, task: TaskConfig, folder: Path) -> IngestedRationales:
    """Check existing replies and add them to `recorded.jsonl` in the folder.

    Raises:
        BadRow: a file is missing, cannot be opened, or is of an unknown kind; nothing was written.
    """
    for path in paths:
        reader_of(path)
    report = IngestedRationales(folder / "recorded.jsonl")
    rows = [given for path in paths for given in _given(path, store, task, report)]
    folder.mkdir(parents=True, exist_ok=True)
    report.added = to_recorded(rows, report.file)
    report.known = len(rows) - report.added
    report.models = sorted({given.model for given in rows})
    return report


def to_recorded(rows: Sequence[Given], path: Path) -> int:
    """Add replies to a file of the recorded teacher, each once; how many were new.

    Raises:
        BadRow: the file is there, but was not written by this function.
    """
    try:
        stored = _stored(path)
        there = {_content(recording) for recording in stored}
    except (ValueError, KeyError, TypeError) as error:
        raise BadRow(f"{path}: not a file of ingested replies; move it away ({error!r})") from error
    samples = Counter((recording["key"], recording["model"]) for recording in stored)
    before = len(stored)
    for given in rows:
        recording = _recording(given)
        if _content(recording) not in there:
            there.add(_content(recording))
            stored.append({**recording, "sample": samples[given.item.key, given.model]})
            samples[given.item.key, given.model] += 1
    atomic.write_text(path, "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in stored))
    return len(stored) - before


def _stored(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    return [json.loads(line) for line in lines if line]


def _recording(given: Given) -> dict[str, Any]:
    context = {"context": given.item.context} if given.item.context else {}
    return {
        "key": given.item.key,
        "question": given.item.question,
        **context,
        "model": given.model,
        "steps": list(given.steps),
        "answer": given.answer.value or "none",
    }


def _content(recording: Mapping[str, Any]) -> tuple[object, ...]:
    return (recording["key"], recording["model"], tuple(recording["steps"]), recording["answer"])


def _given(path: Path, store: Store, task: TaskConfig, report: IngestedRationales) -> Iterator[Given]:
    """The usable replies of a file; the others are named."""
    rows = _raws(path, report)
    while chunk := list(islice(rows, CHUNK)):
        by_key = items.existing(store, [str(raw.fields["key"]) for raw in chunk if raw.fields.get("key") is not None])
        found = [_with_question(raw, by_key) for raw in chunk]
        usable = [(raw, row) for raw in found if (row := _checked(raw, report)) is not None]
        by_text = items.by_hash(store, [row.text_hash for _, row in usable])
        for raw, row in usable:
            try:
                yield _reply(raw, row, by_key.get(row.key) or by_text.get(row.text_hash), task)
            except BadRow as error:
                report.bad.append(str(error))


def _raws(path: Path, report: IngestedRationales) -> Iterator[Raw]:
    try:
        yield from reader_of(path)(path)
    except BadRow as error:
        report.bad.append(str(error))


def _with_question(raw: Raw, by_key: Mapping[str, Item]) -> Raw:
    """The row, completed by its item where it only names the key."""
    if raw.problem is not None or raw.fields.get("question"):
        return raw
    key = raw.fields.get("key")
    if key is None:
        return replace(raw, problem="neither `key` nor `question` says which item it is about")
    item = by_key.get(str(key))
    if item is None:
        return replace(raw, problem=f"there is no item {str(key)[:60]!r}; ingest the items first")
    text = {"question": item.question, "context": item.context, "choices": list(item.choices) or None}
    return replace(raw, fields={**raw.fields, **text})


def _checked(raw: Raw, report: IngestedRationales) -> Row | None:
    try:
        return checked(raw)
    except BadRow as error:
        report.bad.append(str(error))
        return None


def _reply(raw: Raw, row: Row, item: Item | None, task: TaskConfig) -> Given:
    """The reply of a row.

    Raises:
        BadRow: its item is not in the pool, it has no steps, or its answer is not allowed.
    """
    if item is None:
        raise BadRow(f"{raw.place}: no item has this question; ingest the items first")
    if item.split is not Split.POOL:
        raise BadRow(f"{raw.place}: item {item.key!r} is in the {item.split}; only pool items have replies")
    if text_hash(item.question) != text_hash(row.question):
        raise BadRow(f"{raw.place}: item {item.key!r} has another text; correct the key or the question")
    if not row.steps:
        raise BadRow(f"{raw.place}: `rationale` is missing or empty")
    shown = replace(row, question=item.question, context=item.context, choices=tuple(item.choices))
    answer = allowed_answer(shown, raw, task)
    return Given(item, at_most(row.steps, task.max_steps), answer, row.model or UNNAMED)
