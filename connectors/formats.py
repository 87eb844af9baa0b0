"""The forms in which a dataset is written: one function each, which takes examples one after another.

None holds more than a piece of the examples in memory. Where a form has no room for where a row comes from, a second
file says it, line by line.
"""

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from connectors.croissant import described
from loop.answer import Answer, shown
from loop.config import TaskConfig
from loop.records import Author, Item, Rationale, ReviewTask, Split, Verdict, VerdictKind, found_wrong
from loop.store.dataset import Origin, Version
from loop.store.versions import TEACHING
from loop.student.prompts import forced
from review.task import Details, board_task, form_of, result

Row = dict[str, Any]
Shaped = tuple[Row, Row]
"""A row as a form has it, and the fields in which it comes from elsewhere than the rationale in force."""
SAME: Row = {}
PIECE = 1000
"""Rows that are in memory at once."""
ROW_GROUP = 5 * PIECE
"""Rows of a group in Parquet."""
PROVENANCE = "provenance.jsonl"
ASKED = ("key", "question", "context", "choices")
"""What is read of an item."""
CONTENT = ("question", "context", "choices", "steps", "answer", "answer_kind", "parents")
"""What a row says; the rest is where it comes from."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the start of a formula, in Japanese ones also at full width (OWASP, CSV injection)."""
NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")
LONGEST_CELL = 2**31 - 1
"""Characters of a cell that is read again: lists in one may be long."""
RATINGS: Mapping[str, int] = {"ok": 1, "redundant": 0, "wrong": -1, "unsupported": -1, "hallucinated": -1}
"""What PRM800K calls positive, neutral and negative, by the mark on the review page."""


class Other(NamedTuple):
    """A rationale of an item that is not the one in force, and where it comes from, in fields that rows have."""

    version: Version
    row: Row


class Example(NamedTuple):
    """A row of the dataset, and what it was made of."""

    row: Row
    origin: Origin
    names: Mapping[str, str]
    """Pseudonyms of the reviewers."""
    line: bytes
    """The row as a line of JSON."""
    others: Sequence[Other] = ()
    """What the form writes beside the rationale in force, or in its place."""


@dataclass(frozen=True)
class About:
    """What a form says of the whole dataset."""

    task: TaskConfig
    name: str
    date: str
    licence: Callable[[], str]
    """Of the rows that went by."""


class Format(NamedTuple):
    """A form: the file with its rows, what writes it into a folder and says how many rows, and what reads it back."""

    file: str
    write: Callable[[Iterable[Example], About, Path], int]
    read: Callable[[Path], Iterator[Row]]
    others: Callable[[Origin], Sequence[Version]] | None = None
    """The rationales of an item, beside the one in force, that its rows are made of; without one it has no row."""
    in_place: bool = False
    """Whether these stand in place of the one in force."""


def line(row: Row) -> bytes:
    """A row as a line of JSON."""
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def jsonl(examples: Iterable[Example], _about: About, folder: Path) -> int:
    """A line of JSON each."""
    count = 0
    with (folder / "examples.jsonl").open("wb") as file:
        for count, example in enumerate(examples, start=1):  # noqa: B007 - the last number is the answer
            file.write(example.line)
    return count


def parquet(examples: Iterable[Example], _about: About, folder: Path) -> int:
    """A Parquet file with typed columns."""
    return _table(examples, folder / "examples.parquet")


def dataset_folder(examples: Iterable[Example], _about: About, folder: Path) -> int:
    """What `datasets.load_dataset(folder)` opens; the card names the file."""
    (folder / "data").mkdir(exist_ok=True)
    return _table(examples, folder / "data" / "train-00000-of-00001.parquet")


def croissant(examples: Iterable[Example], about: About, folder: Path) -> int:
    """A Parquet file with a description that machines read (MLCommons Croissant 1.0)."""
    data = folder / "examples.parquet"
    count = _table(examples, data)
    with data.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    said = described(about.name, about.licence(), about.date, {data.name: digest}, COLUMNS)
    (folder / "croissant.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return count


def chat(examples: Iterable[Example], about: About, folder: Path) -> int:
    """OpenAI's file for fine-tuning a chat model."""

    def shape(example: Example) -> Iterator[Shaped]:
        system = {"role": "system", "content": about.task.instructions}
        yield {"messages": [system, *_prompt(example), *_said(_answered(example, example.origin.chain[-1]))]}, SAME

    return _lean(examples, folder / "chat.jsonl", shape)


def prompt_completion(examples: Iterable[Example], _about: About, folder: Path) -> int:
    """Prompt and completion as TRL's SFTTrainer takes them."""

    def shape(example: Example) -> Iterator[Shaped]:
        yield {"prompt": _prompt(example), "completion": _said(_answered(example, example.origin.chain[-1]))}, SAME

    return _lean(examples, folder / "prompt-completion.jsonl", shape)


def pairs(examples: Iterable[Example], _about: About, folder: Path) -> int:
    """Preference pairs as TRL's DPOTrainer takes them: what people corrected or rejected, and what took its place."""

    def shape(example: Example) -> Iterator[Shaped]:
        chosen = _answered(example, example.origin.chain[-1])
        for refused, whence in example.others:
            rejected = _answered(example, refused)
            if rejected != chosen:
                pair = {"prompt": _prompt(example), "chosen": _said(chosen), "rejected": _said(rejected)}
                yield pair, {"rejected": whence}

    return _lean(examples, folder / "pairs.jsonl", shape)


def step_labels(examples: Iterable[Example], _about: About, folder: Path) -> int:
    """People's marks on steps in the form of PRM800K, a line a review: up to the first wrong step, as there."""

    def shape(example: Example) -> Iterator[Shaped]:
        for version, whence in example.others:
            for verdict in example.origin.verdicts[version.id]:
                if _labels(verdict):
                    yield _labelled(example, version, verdict), whence

    return _lean(examples, folder / "steps.jsonl", shape)


def sharegpt(examples: Iterable[Example], about: About, folder: Path) -> int:
    """Conversations as LLaMA-Factory takes them, with its dataset_info.json."""

    def shape(example: Example) -> Iterator[Shaped]:
        turns = [*_prompt(example), *_said(_answered(example, example.origin.chain[-1]))]
        names = {"user": "human", "assistant": "gpt"}
        said = [{"from": names[each["role"]], "value": each["content"]} for each in turns]
        yield {"conversations": said, "system": about.task.instructions}, SAME

    info = {
        "preceptor": {
            "file_name": "sharegpt.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "system": "system"},
        }
    }
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    return _lean(examples, folder / "sharegpt.jsonl", shape)


def label_studio(examples: Iterable[Example], about: About, folder: Path) -> int:
    """Tasks to import into Label Studio, with what was decided as an annotation for the review page's controls."""
    count, page = 0, _Page(about.task)
    with (folder / "tasks.json").open("wb") as file:
        for count, example in enumerate(examples, start=1):
            file.write((b",\n" if count > 1 else b"[\n") + orjson.dumps(page.task(example)))
        file.write(b"\n]\n" if count else b"[]\n")
    return count


def table(examples: Iterable[Example], _about: About, folder: Path) -> int:
    """A table for spreadsheets; lists are JSON, and what would start a formula starts with an apostrophe."""
    count = 0
    with (folder / "examples.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for count, example in enumerate(examples, start=1):  # noqa: B007 - the last number is the answer
            writer.writerow([_cell(example.row[name]) for name in COLUMNS])
    return count


def replaced(origin: Origin) -> list[Version]:
    """The teacher's rationales of an item that people did not accept and whose place something gold or silver took."""
    if origin.decided.kind not in TEACHING:
        return []
    before = [*origin.rejected, *(each.after(origin.chain[0]) for each in origin.chain[:-1])]
    return [each for each in before if each.answer is not None and found_wrong(origin.verdicts.get(each.id, ()))]


def labelled(origin: Origin) -> list[Version]:
    """The rationales of an item on whose steps people put labels."""
    return [each for each in origin.judged if each.steps and any(map(_labels, origin.verdicts.get(each.id, ())))]


# --- shapes -----------------------------------------------------------------------------------------------------------


def _prompt(example: Example) -> list[Row]:
    return [{"role": "user", "content": _asked(example.row)}]


def _said(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text}]


def _asked(row: Row) -> str:
    """The item as a model reads it."""
    letters = [f"({chr(ord('A') + place)}) {choice}" for place, choice in enumerate(row["choices"])]
    return "\n".join(part for part in (row["context"], row["question"], *letters) if part)


def _answered(example: Example, version: Version) -> str:
    """Steps and answer as a model writes them."""
    if version.answer is None:
        return forced(version.steps)
    return f"{forced(version.steps)} {shown(Answer.from_canonical(version.answer), example.row['choices'])}"


def _labels(verdict: Verdict) -> bool:
    """Whether a verdict says of each step if it is right."""
    return bool(verdict.marks) or verdict.kind is VerdictKind.ACCEPT


def _labelled(example: Example, version: Version, verdict: Verdict) -> Row:
    """A review as a row of PRM800K."""
    row, steps = example.row, []
    for place, text in enumerate(version.steps):
        rating = RATINGS[verdict.marks.get(str(place), "ok")]
        steps.append(
            {
                "completions": [{"text": text, "rating": rating, "flagged": None}],
                "human_completion": _mended(verdict, place) if rating < 0 else None,
                "chosen_completion": 0 if rating >= 0 else None,
            }
        )
        if rating < 0:
            break
    wrong = steps[-1]["chosen_completion"] is None
    stated = version.answer and Answer.from_canonical(version.answer).value
    return {
        "labeler": example.names[verdict.reviewer],
        "simulated": verdict.simulated,
        "generation": version.round,
        "is_quality_control_question": False,
        "is_initial_screening_question": False,
        "question": {
            "problem": _asked(row),
            "ground_truth_answer": row["answer"] if row["decision"] == "gold" else None,
            "pre_generated_steps": version.steps,
            "pre_generated_answer": stated,
        },
        "label": {
            "steps": steps,
            "total_time": round(1000 * verdict.seconds),
            "finish_reason": "found_error" if wrong else "solution",
        },
    }


def _mended(verdict: Verdict, place: int) -> Row | None:
    """What the reviewer wrote in place of a wrong step."""
    if place >= len(verdict.steps):
        return None
    return {"text": verdict.steps[place], "rating": None, "source": "human", "flagged": False}


class _Page:
    """Makes tasks of the review page, decided.

    The records that the page is made of are filled anew for each, for making them takes longer than all else.
    """

    def __init__(self, asked: TaskConfig) -> None:
        self._asked, self._form = asked, form_of(asked)
        self._item = Item(key="", question="", split=Split.POOL, text_hash="")
        self._rationale = Rationale(item_key="", round_id=0, author=Author.TEACHER, steps=[])
        self._blank = ReviewTask(rationale_id=0, round_id=0, uid="", reason="")

    def task(self, example: Example) -> Row:
        """The task of one example."""
        row, last, item, rationale = example.row, example.origin.chain[-1], self._item, self._rationale
        item.key, item.question, item.context, item.choices = (row[name] for name in ASKED)
        rationale.steps, rationale.answer, rationale.stated = last.steps, last.answer, last.stated
        page = board_task(self._blank, rationale, item, Details(), self._asked)
        answer = "none" if last.answer is None else shown(Answer.from_canonical(last.answer), row["choices"])
        decided = result(VerdictKind.EDIT, steps=last.steps, answer=answer, form=self._form)
        return {
            "data": {name: value for name, value in page.data.items() if name != "uid"},
            "annotations": [{"result": decided}],
            "meta": {name: value for name, value in row.items() if name not in (*CONTENT, "key")},
        }


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula; a plain number stays one."""
    if isinstance(value, list):
        return orjson.dumps(value).decode()
    if isinstance(value, str) and value.startswith(FORMULA) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


# --- files ------------------------------------------------------------------------------------------------------------


def _lean(examples: Iterable[Example], path: Path, shape: Callable[[Example], Iterator[Shaped]]) -> int:
    """Rows that hold the text alone, and beside each where it comes from."""
    count = 0
    with path.open("wb") as file, path.with_name(PROVENANCE).open("wb") as beside:
        for example in examples:
            for row, whence in shape(example):
                file.write(line(row))
                beside.write(line({name: each for name, each in example.row.items() if name not in CONTENT} | whence))
                count += 1
    return count


def _table(examples: Iterable[Example], path: Path) -> int:
    import pyarrow as pa  # noqa: PLC0415 - takes a while to load
    import pyarrow.parquet as pq  # noqa: PLC0415

    schema, count, rows = _schema(), 0, iter(examples)
    with pq.ParquetWriter(path, schema) as writer:
        while piece := [_typed(example.row) for example in islice(rows, ROW_GROUP)]:
            writer.write_batch(pa.RecordBatch.from_pylist(piece, schema))
            count += len(piece)
    return count


def _typed(row: Row) -> Row:
    """A row whose marks are a list, as columns have no free keys."""
    verdicts = [
        each | {"marks": [{"step": int(step), "mark": mark} for step, mark in each["marks"].items()]}
        for each in row["verdicts"]
    ]
    return row | {"verdicts": verdicts} if verdicts else row


def _schema() -> Any:
    """The columns of a table, in their order."""
    import pyarrow as pa  # noqa: PLC0415 - takes a while to load

    texts, text, marks = pa.list_(pa.string()), pa.string(), pa.struct([("step", pa.int64()), ("mark", pa.string())])
    verdict = pa.struct(
        [
            *(("verdict", text), ("reviewer", text), ("simulated", pa.bool_())),
            *(("marks", pa.list_(marks)), ("reasons", texts), ("seconds", pa.float64())),
        ]
    )
    parent = pa.struct([("author", text), ("steps", texts), ("stated", text)])
    kinds = {
        **{"choices": texts, "steps": texts, "authors": texts, "certified": pa.bool_(), "round": pa.int64()},
        **{"risk": pa.float64(), "verdicts": pa.list_(verdict), "parents": pa.list_(parent)},
    }
    return pa.schema([(name, kinds.get(name, text)) for name in COLUMNS])


# --- reading them again -----------------------------------------------------------------------------------------------


def _read_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for text in file:
            yield orjson.loads(text)


def _read_lean(path: Path) -> Iterator[Row]:
    """Rows with where they come from."""
    for row, origin in zip(_read_lines(path), _read_lines(path.with_name(PROVENANCE)), strict=True):
        yield origin | row


def _read_tasks(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for text in file:
            if text.startswith(b"{"):
                row = orjson.loads(text.rstrip(b",\n"))
                yield {"key": row["data"]["item_key"], **row["data"], **row["meta"], "annotations": row["annotations"]}


def _read_csv(path: Path) -> Iterator[Row]:
    """Rows as they were before `_cell`, but for lists and numbers, which stay texts."""
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {name: _bare(text) for name, text in row.items()}


def _bare(cell: Any) -> Any:
    """What a cell holds without the apostrophe that `_cell` put before it."""
    guarded = isinstance(cell, str) and cell.startswith("'") and cell[1:].startswith(FORMULA)
    return cell[1:] if guarded else cell


def _read_table(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - takes a while to load

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=PIECE):
            yield from batch.to_pylist()


COLUMNS: Sequence[str] = (
    "key", "question", "context", "choices", "domain", "source", "steps", "answer", "answer_kind", "decision", "reason",
    "certified", "authors", "round", "risk", "verdicts", "teacher_model", "prompt_hash", "parents",
)  # fmt: skip
"""The columns of a table: what every row holds."""
FORMATS: Mapping[str, Format] = {
    "jsonl": Format("examples.jsonl", jsonl, _read_lines),
    "parquet": Format("examples.parquet", parquet, _read_table),
    "hf": Format("data/train-00000-of-00001.parquet", dataset_folder, _read_table),
    "chat": Format("chat.jsonl", chat, _read_lean),
    "trl": Format("prompt-completion.jsonl", prompt_completion, _read_lean),
    "dpo": Format("pairs.jsonl", pairs, _read_lean, replaced),
    "prm": Format("steps.jsonl", step_labels, _read_lean, labelled, in_place=True),
    "sharegpt": Format("sharegpt.jsonl", sharegpt, _read_lean),
    "label-studio": Format("tasks.json", label_studio, _read_tasks),
    "csv": Format("examples.csv", table, _read_csv),
    "croissant": Format("examples.parquet", croissant, _read_table),
}
"""What writes and reads a dataset, by the name of its form."""
