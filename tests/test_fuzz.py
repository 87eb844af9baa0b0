"""Whatever comes from outside is read or refused in words of ours: no other error, and none takes long.

Hypothesis makes the texts up. A longer search stands behind the `slow` marker: the same properties, more examples.
"""

import gzip
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import httpx2
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.conditions import condition
from connectors.files import Raw, reader_of
from connectors.openai_batches import _lines, _state
from connectors.openai_teacher import OpenAITeacher, completion_of
from connectors.recorded_teacher import read_faults, read_recordings
from connectors.rows import allowed_answer, checked, item_of
from connectors.served_student import ServedStudent, _continued
from loop.answer import AnswerKind, parse_answer, shown, spans_of, split_rationale
from loop.checks.flag import CHECKS, Doubtful, doubts
from loop.config import ChecksConfig, Config, ServedConfig, TaskConfig, TeacherConfig, load
from loop.errors import PreceptorError
from loop.ports import Completion, Request
from loop.records import Author, Item, Rationale, ReviewTask
from loop.teacher.conclusion import without_conclusion
from loop.teacher.judge_prompt import presented_step, read_verdict
from loop.teacher.prompt import presented_parts
from loop.teacher.reply import Draft, Unreadable, read
from loop.teacher.revision_prompt import read_check, read_whole
from review.board import RawVerdict
from review.simulated import read_truth
from review.task import Details, board_task
from review.verdict import MARKS, interpret
from tests.builders import an_item
from tests.test_checks import CHOICE, LABEL, NUMBER, TEXT
from tests.tiny import CONFIG

REQUEST = Request(model="m", messages=(), temperature=0.0, max_completion_tokens=9, item_key="a")
SECONDS = 5.0
"""Longer than this nothing of this size may take, on a busy machine too."""
QUICK, LONG = 30, 2000
SPANS = TaskConfig(answer=AnswerKind.SPANS, labels={"person": "", "place": ""})
TASKS = [NUMBER, CHOICE, LABEL, TEXT, SPANS]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
"""Anything that JSON can say, with halves of characters and numbers that are none."""
MATHS = st.text(alphabet="0123456789 +-*/=%$€^().,:\u00d7\u00f7\u2248\u00bd九万kmgh²分の\n\\{}", max_size=80)
WORDS = st.sampled_from(
    [
        "5 km",
        "3 hours",
        "20% of",
        "is",
        "half of",
        "per",
        "km/h",
        "m^2",
        "1/0",
        "\\frac{1}{0}",
        "9**9**9",
        "of 12",
        "$",
        "=",
        "an increase of",
        "万",
        "から",
        "Answer:",
        "Bob",
        "not",
        "(A)",
        "1e99",
        "-",
        "0.1 + 0.2 = 0.3",
        "¥",
        "1,000",
        "℃",
    ]
)
STEPS = st.lists(st.one_of(MATHS, st.lists(WORDS, max_size=12).map(" ".join), st.text(max_size=40)), max_size=4)


def fuzzed(**strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The test with made-up arguments: a few where all tests run, many behind the `slow` marker."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @pytest.mark.parametrize("examples", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)])
        def fuzz(examples: int) -> None:
            run(test, examples, **strategies)

        fuzz.__name__ = test.__name__
        return fuzz

    return decorate


def run(test: Callable[..., None], examples: int, **strategies: Any) -> None:
    """The same for a test that has other parameters too."""
    settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))(given(**strategies)(test))()


@contextmanager
def soon() -> Iterator[None]:
    """Within the block nothing goes wrong but in our words, and not after long."""
    started = time.process_time()
    with suppress(PreceptorError):
        yield
    assert time.process_time() - started < SECONDS


# --- files ------------------------------------------------------------------------------------------------------------


def edited(valid: bytes) -> st.SearchStrategy[bytes]:
    """A file of which some bytes are others, or the end is missing."""
    edit = st.tuples(st.integers(0, len(valid)), st.binary(max_size=4), st.integers(0, 4))

    def apply(edits: list[tuple[int, bytes, int]], keep: int) -> bytes:
        data = valid
        for at, other, cut in edits:
            data = data[:at] + other + data[at + cut :]
        return data[:keep]

    return st.builds(apply, st.lists(edit, max_size=4), st.integers(len(valid) // 2, len(valid) + 10))


ROWS: list[dict[str, Any]] = [
    {"key": "a", "question": "How many?", "choices": ["1", "2"], "answer": "1", "rationale": ["one"], "domain": "d"},
    {"key": 7, "question": "Why?", "context": "Because.", "choices": None, "answer": "B", "rationale": ["x", "y"]},
]


def made(write: Callable[[Path], object]) -> bytes:
    """The bytes of a file that was written well."""
    with TemporaryDirectory() as folder:
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


def a_table() -> pa.Table:
    return pa.Table.from_pylist([row | {"key": str(row["key"])} for row in ROWS])


JSONL = b"".join(orjson.dumps(row) + b"\n" for row in ROWS)
FILES: Mapping[str, bytes] = {
    "a.jsonl": JSONL,
    "a.jsonl.gz": gzip.compress(JSONL, mtime=0),
    "a.csv": b'key,question,choices,answer\na,How many?,"[""1"", ""2""]",1\nb,"Why, ""so""?",x|y,2\n',
    "a.parquet": made(lambda path: pq.write_table(a_table(), path)),
}


def taken(path: Path) -> None:
    """All that is looked at in the rows of a file."""
    for raw in reader_of(path)(path):
        with soon():
            used(raw)


def used(raw: Raw) -> None:
    row = checked(raw)
    for task in TASKS:
        with soon():
            item = item_of(row, raw, task)
            allowed_answer(row, raw, task)
            "".join((item.key, item.question, item.context, *item.choices, item.domain, *row.steps, row.model)).encode()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("examples", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)])
def test_a_damaged_file_is_read_or_refused(name: str, examples: int) -> None:
    def read_it(data: bytes) -> None:
        with TemporaryDirectory() as folder, soon():
            path = Path(folder) / name
            path.write_bytes(data)
            taken(path)

    run(read_it, examples, data=edited(FILES[name]) | st.binary(max_size=200))


@fuzzed(rows=st.lists(st.dictionaries(st.sampled_from(list(ROWS[0])), JSON, max_size=6) | JSON, max_size=4))
def test_rows_of_any_values_are_read_or_refused(rows: list[object]) -> None:
    with TemporaryDirectory() as folder, soon():
        path = Path(folder) / "a.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        taken(path)


COLUMNS = [
    pa.string(),
    pa.large_string(),
    pa.int64(),
    pa.float64(),
    pa.bool_(),
    pa.null(),
    pa.binary(),
    pa.date32(),
    pa.timestamp("us"),
    pa.timestamp("ns", "UTC"),
    pa.time64("ns"),
    pa.duration("s"),
    pa.decimal128(20, 3),
    pa.list_(pa.string()),
    pa.list_(pa.int32()),
    pa.list_(pa.list_(pa.string())),
    pa.struct([("a", pa.string())]),
    pa.map_(pa.string(), pa.int64()),
    pa.dictionary(pa.int32(), pa.string()),
    pa.list_(pa.string(), 2),
    pa.string_view(),
]
TYPED: Mapping[str, object] = {"int64": 2**62, "timestamp[us]": 2**62, "double": math.nan, "date32[day]": 2**30}


@pytest.mark.parametrize("kind", COLUMNS, ids=str)
@pytest.mark.parametrize("name", ["key", "question", "choices", "answer", "rationale"])
def test_a_column_of_any_type_is_read_or_refused(kind: pa.DataType, name: str, tmp_path: Path) -> None:
    values = pa.nulls(2, kind)
    if str(kind) in TYPED:
        base = pa.int32() if kind == pa.date32() else pa.float64() if kind == pa.float64() else pa.int64()
        values = (
            pa.array([TYPED[str(kind)], 1], base).cast(kind, safe=False)
            if kind != pa.date32()
            else pa.array([TYPED[str(kind)], 1], base).view(kind)
        )
    table = pa.table({"question": ["a", "b"], "key": ["k", "l"]})
    at = table.schema.get_field_index(name)
    table = table.set_column(at, name, values) if at >= 0 else table.append_column(name, values)
    try:
        pq.write_table(table, tmp_path / "a.parquet")
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        pytest.skip("no Parquet file holds such a column")
    with soon():
        taken(tmp_path / "a.parquet")


@pytest.mark.parametrize("file", ["dataset_info.json", "state.json", "data-00000-of-00001.arrow"])
@pytest.mark.parametrize("examples", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)])
def test_a_damaged_dataset_folder_is_read_or_refused(file: str, examples: int, tmp_path: Path) -> None:
    rows = [{name: row.get(name) for name in ("question", "choices", "answer")} for row in ROWS]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "given")
    valid = (tmp_path / "given" / file).read_bytes()

    def read_it(data: bytes) -> None:
        (tmp_path / "given" / file).write_bytes(data)
        with soon():
            taken(tmp_path / "given")

    run(read_it, examples // 3, data=edited(valid) if file.endswith("json") else damaged(valid))


def damaged(valid: bytes) -> st.SearchStrategy[bytes]:
    """A file of equal length in which some bytes are others."""
    edit = st.tuples(st.integers(0, len(valid) - 1), st.integers(0, 255))

    def apply(edits: list[tuple[int, int]]) -> bytes:
        data = bytearray(valid)
        for at, other in edits:
            data[at] = other
        return bytes(data)

    return st.builds(apply, st.lists(edit, min_size=1, max_size=3))


SETTINGS = CONFIG.format(rounds=1, usd=1.0, board="fake")
KEYS = [(name, key) for name, field in Config.model_fields.items() for key in [*field.annotation.model_fields, "odd"]]  # type: ignore[union-attr]
TOML = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=True).map(repr),
    st.booleans().map(lambda each: str(each).lower()),
    st.text(max_size=10).map(json.dumps),
    st.lists(st.text(max_size=5)).map(json.dumps),
    st.just("{a = 1, b = {c = []}}"),
    st.just("1979-05-27T07:32:00Z"),
    st.just("9" * 5000),
    st.just("[" * 2000),
    st.just("{ model = 1 }"),
    st.just("[{}, 1]"),
    st.text(max_size=10),
)


@fuzzed(
    lines=st.lists(st.tuples(st.sampled_from(KEYS), TOML), max_size=4),
    data=edited(SETTINGS.encode()),
    whole=st.booleans(),
)
def test_a_config_is_right_or_refused(lines: list[tuple[tuple[str, str], str]], data: bytes, whole: bool) -> None:
    text = "".join(f"[{table}]\n{key} = {value}\n" for (table, key), value in lines)
    with TemporaryDirectory() as folder, soon():
        path = Path(folder) / "config.toml"
        path.write_bytes(data if whole else text.encode("utf-8", "surrogatepass"))
        load(path)


RECORDED = b'{"key": "i0", "question": "How?", "model": "m", "steps": ["1 + 1 = 2"], "answer": "2"}\n'
TRUTH = b'{"key": "i0", "answer": "2", "steps": ["1 + 1 = 2"], "wrong": []}\n'
FAULTS = b'[{"kind": "429", "times": 1}]'


@pytest.mark.parametrize(
    ("valid", "reader"),
    [(RECORDED, read_recordings), (TRUTH, read_truth), (FAULTS, read_faults)],
    ids=["replies", "truth", "faults"],
)
@pytest.mark.parametrize("examples", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)])
def test_files_of_replies_truths_and_faults_are_read_or_refused(
    valid: bytes, reader: Callable[[Path], object], examples: int
) -> None:
    def read_it(data: bytes) -> None:
        with TemporaryDirectory() as folder, soon():
            path = Path(folder) / "file"
            path.write_bytes(data)
            reader(path)

    several = JSON.map(lambda each: json.dumps(each).encode())
    run(read_it, examples, data=edited(valid * 2) | several | st.binary(max_size=50) | st.just(b"[" * 100_000))


# --- replies ----------------------------------------------------------------------------------------------------------

REPLY = st.one_of(
    st.text(st.characters(), max_size=80),
    JSON.map(json.dumps),
    st.builds(
        json.dumps,
        st.dictionaries(
            st.sampled_from(["steps", "answer", "verdict", "evidence", "confidence", "corrected_step", "first_wrong"]),
            JSON | STEPS | st.sampled_from(["ok", "wrong"]),
        ),
    ),
    STEPS.map("\n".join),
    st.builds(lambda one, two: f"{one}</think>{two}", MATHS, MATHS),
    st.just("{" * 50_000),
    st.just('{"a":' * 30_000),
    st.just("```" * 20_000),
)


@fuzzed(text=REPLY, task=st.sampled_from(TASKS), reason=st.sampled_from(["stop", "length", "", "content_filter"]))
def test_a_reply_is_read_or_says_why_not(text: str, task: TaskConfig, reason: str) -> None:
    item = an_item(choices=["red", "blue"])
    completion = Completion(text, "m", reason, None, None)
    with soon():
        found = read(completion, item, task, prefix=("Before.",))
        if isinstance(found, Draft):
            assert 1 <= len(found.steps) <= task.max_steps
            "".join((*found.steps, found.stated)).encode()
    for other in (
        read_verdict(completion),
        read_check(completion, "A step."),
        read_whole(completion, item, ["One.", "Two."], task),
    ):
        assert not isinstance(other, Unreadable) or other.problem
    presented_parts(text)
    presented_step(text)


BODY = st.dictionaries(
    st.sampled_from(["choices", "usage", "model", "status", "errors", "request_counts", "error"]), JSON
) | st.builds(
    lambda message, usage, probable: {"choices": [{"message": message, "logprobs": probable}], "usage": usage},
    JSON | st.dictionaries(st.sampled_from(["content", "refusal"]), JSON),
    JSON | st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens", "prompt_tokens_details"]), JSON),
    JSON
    | st.builds(
        lambda some: {"content": some}, st.lists(JSON | st.dictionaries(st.sampled_from(["token", "logprob"]), JSON))
    ),
)


@fuzzed(body=BODY, text=st.text(max_size=60) | JSON.map(json.dumps))
def test_an_endpoint_s_answer_of_any_shape_is_read(body: dict[str, Any], text: str) -> None:
    found = completion_of(body)
    assert isinstance(found.text, str)
    assert found.input_tokens is None or found.input_tokens >= 0
    _state(body)
    list(_lines(text))


CHOICE = st.dictionaries(
    st.sampled_from(["text", "token_ids", "logprobs", "finish_reason", "prompt_logprobs"]),
    JSON | st.just("a") | st.lists(st.none() | st.dictionaries(st.sampled_from(["1", "2"]), JSON), max_size=3),
)


@fuzzed(body=BODY | st.builds(lambda some, usage: {"choices": some, "usage": usage}, st.lists(CHOICE), JSON))
def test_what_a_student_s_server_sends_is_read_or_refused(body: dict[str, Any]) -> None:
    host = ServedStudent(ServedConfig(base_url="http://127.0.0.1:9/v1", model="m"))
    with suppress(PreceptorError):
        found = host._completed(body, "m")
        written = _continued(found)
        assert isinstance(written.text, str)
        assert written.tokens is None or all(type(each) is int for each in written.tokens)
        assert len(host._prompt_scores(found, [3, 1, 2])) == 2


@fuzzed(
    raw=JSON.map(lambda each: json.dumps(each).encode()) | st.binary(max_size=80),
    status=st.integers(200, 599),
    kind=st.sampled_from(["application/json", "text/html", ""]),
)
def test_an_endpoint_s_bytes_are_read_or_refused(raw: bytes, status: int, kind: str) -> None:
    teacher = OpenAITeacher(TeacherConfig(model="m", base_url="http://127.0.0.1:9/v1"))
    response = httpx2.Response(200, content=raw, headers={"content-type": kind, "retry-after": str(status)})
    with soon():
        teacher._completion(response, REQUEST)


@fuzzed(text=MATHS | st.text(max_size=60) | STEPS.map(" ".join), task=st.sampled_from(TASKS))
def test_an_answer_is_parsed_or_is_none(text: str, task: TaskConfig) -> None:
    with soon():
        found = parse_answer(text, task.answer, choices=["red", "blue (A)"], labels=task.labels)
        steps, stated = split_rationale(text)
        without_conclusion(steps, found, stated or "", ["red", "blue"])
        if found is not None:
            assert type(found).from_canonical(found.canonical) == found
            spans_of(found)
            shown(found, ["red", "blue"])
            again = parse_answer(found.value or "none", task.answer, choices=["red", "blue (A)"], labels=task.labels)
            assert again == found or task.answer is AnswerKind.TEXT


@fuzzed(steps=STEPS, question=MATHS | st.text(max_size=40), task=st.sampled_from(TASKS), stated=MATHS)
def test_every_check_looks_at_any_text(steps: list[str], question: str, task: TaskConfig, stated: str) -> None:
    item = an_item(question=question or "?", choices=["red", "blue"])
    answer = parse_answer(stated, task.answer, choices=item.choices, labels=task.labels)
    row = Rationale(
        id=1,
        item_key="q1",
        round_id=1,
        author=Author.TEACHER,
        steps=steps,
        stated=stated,
        answer=None if answer is None else answer.canonical,
    )
    every = ChecksConfig(enabled=tuple(CHECKS))  # type: ignore[arg-type]
    with soon():
        for doubt in doubts(Doubtful(item, row, task), every):
            assert 0 < doubt.weight <= 1
            assert doubt.step is None or 0 <= doubt.step < max(1, len(steps))


# --- people -----------------------------------------------------------------------------------------------------------

NAMES = ["verdict", "answer", "rationale", "reject_reason", "reviewer_note", *(f"step_{place}" for place in range(13))]
VALUE = st.one_of(
    JSON, st.sampled_from(["accept", "edit", "reject", "continue", "wrong", "ok", "redundant", "1. One.\n2. Two."])
)
REGION = st.fixed_dictionaries(
    {},
    optional={
        "from_name": st.sampled_from(NAMES) | JSON,
        "type": st.sampled_from(["choices", "textarea", "labels"]) | JSON,
        "value": st.dictionaries(
            st.sampled_from(["choices", "text", "labels", "start", "end"]), st.lists(VALUE, max_size=3) | VALUE
        )
        | JSON,
    },
)


@fuzzed(
    result=st.lists(REGION | JSON, max_size=6) | JSON,
    task=st.sampled_from(TASKS),
    seconds=st.floats(),
    known=st.booleans(),
)
def test_what_a_person_or_a_program_leaves_on_the_board_is_a_verdict_or_none(
    result: Any, task: TaskConfig, seconds: float, known: bool
) -> None:
    raw = RawVerdict("uid", "1", "2", "2026-01-01T00:00:00.000000Z", "3", seconds, result, {})
    row = Rationale(id=1, item_key="q1", round_id=1, author=Author.TEACHER, steps=["One.", "Two."], stated="2")
    item: Item | None = an_item(choices=["red", "blue"]) if known else None
    with soon():
        verdict = interpret(raw, "board", row if known else None, item, task)
    assert verdict.kind is None or verdict.kind.value in {"accept", "edit", "reject", "continue"}
    assert set(verdict.marks.values()) <= MARKS
    assert 0 <= verdict.seconds <= 3600
    "".join((*verdict.steps, *verdict.reasons, verdict.answer or "")).encode()


@fuzzed(steps=STEPS, text=st.text(max_size=40), task=st.sampled_from(TASKS))
def test_any_rationale_can_be_shown_to_people(steps: list[str], text: str, task: TaskConfig) -> None:
    row = Rationale(id=1, item_key="q1", round_id=1, author=Author.TEACHER, steps=steps, stated=text)
    answer = parse_answer(text, task.answer, choices=["red", text], labels=task.labels)
    row.answer = None if answer is None else answer.canonical
    asked = ReviewTask(rationale_id=1, round_id=1, uid="u", reason="")
    with soon():
        json.dumps(board_task(asked, row, an_item(choices=["red", text], context=text), Details(), task).data)


WRITTEN = st.builds(
    "{}{}{}".format,
    st.sampled_from(["risk", "key", " risk ", "other"]),
    st.sampled_from(["<=", "=", "!=", ""]),
    st.text(),
)
FIELD = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@fuzzed(text=st.text(max_size=30) | WRITTEN, found=FIELD | st.lists(st.text()))
def test_a_condition_holds_or_not_or_is_refused(text: str, found: object) -> None:
    with soon():
        condition(text, ["risk", "key"]).holds(found)
