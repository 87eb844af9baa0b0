"""Tables are taken in by their columns exactly as they would be a row at a time."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors import files, sources, unpacking
from connectors.files import Piece, Raw, pieces_of
from connectors.sources import Ingested, ingest
from loop.answer import AnswerKind
from loop.config import Config, PoolConfig, TaskConfig
from loop.records import Split
from loop.store import items, pool
from tests.builders import a_store
from tests.test_sources import Silent

ODD = ["", " ", "a", "b?", "B", " b ", "a\x00", "x" * 201, "é" * 30_000, "\x1c", "line\nbreak", "\u2003", "0", "none"]
TEXT = st.none() | st.sampled_from(ODD)
LIST = st.none() | st.lists(st.none() | st.sampled_from(["x", " x", "y", "", "z\x00"]), max_size=4)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"question": TEXT, "context": TEXT, "choices": LIST, "domain": TEXT, "key": TEXT, "answer": TEXT,
         "rationale": LIST}
    ),
    min_size=1,
    max_size=12,
)  # fmt: skip
TYPES = {"choices": pa.list_(pa.string()), "rationale": pa.list_(pa.string())}


def a_table(path: Path, rows: list[dict[str, Any]], **types: pa.DataType) -> Path:
    kinds = {name: types.get(name, TYPES.get(name, pa.string())) for name in rows[0]}
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(kinds.items())), path)
    return path


def taken(file: Path, folder: Path, split: Split | None, task: TaskConfig) -> tuple[Ingested, list[dict[str, Any]]]:
    folder.mkdir(exist_ok=True)
    store = a_store(folder)
    with store.writing() as session:
        session.connection().exec_driver_sql("DELETE FROM item")
    pool = PoolConfig(holdout_share=0.5)
    report = ingest([file], store, split=split, pool=pool, task=task, progress=Silent())
    rows = [item.model_dump() for each in Split for item in items.of_split(store, each)]
    store.close()
    return report, rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.sampled_from([None, *Split]), st.sampled_from(list(AnswerKind)[:3]))
def test_columns_bring_what_rows_bring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], split: Split | None, kind: AnswerKind
) -> None:
    task = TaskConfig(answer=kind, labels={"b": "yes", "a": "no"} if kind is AnswerKind.LABEL else {})
    file = a_table(tmp_path / "a.parquet", rows)
    by_columns = taken(file, tmp_path / "columns", split, task)
    with monkeypatch.context() as patched:
        patched.setattr(sources, "pieces_of", lambda _: None)
        by_rows = taken(file, tmp_path / "rows", split, task)
    assert by_columns == by_rows


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    [
        ("key", pa.int64(), [1, None, -3]),
        ("key", pa.float64(), [1.5, None, 2.0]),
        ("answer", pa.float64(), [0.5, float("nan"), None]),
        ("answer", pa.int32(), [7, None, 8]),
        ("answer", pa.bool_(), [True, None, False]),
        ("context", pa.int8(), [1, None, 2]),
        ("domain", pa.dictionary(pa.int8(), pa.string()), ["a", None, "b\x00"]),
        ("choices", pa.string(), ["a|b", None, ""]),
        ("rationale", pa.string(), ["One. Two.", None, "n\x00"]),
        ("question", pa.large_string(), ["q?", None, "r?"]),
        ("model", pa.null(), [None, None, None]),
    ],
)
@pytest.mark.parametrize("split", [None, Split.POOL, Split.SEED])
def test_columns_of_every_type_bring_what_rows_bring(
    column: str, kind: pa.DataType, values: list[Any], split: Split | None, tmp_path: Path, monkeypatch: Any
) -> None:
    rows = [{"question": f"What is {n}?", "answer": str(n)} | {column: value} for n, value in enumerate(values)]
    file = a_table(tmp_path / "a.parquet", rows, **{column: kind})
    by_columns = taken(file, tmp_path / "columns", split, TaskConfig())
    monkeypatch.setattr(sources, "pieces_of", lambda _: None)
    assert by_columns == taken(file, tmp_path / "rows", split, TaskConfig())


def test_pieces_that_are_cut_bring_the_same_with_the_same_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"question": f"Which is {n}? {'x' * 40}", "choices": ["same", f"other {n % 3}"], "domain": f"d{n % 2}"}
        for n in range(50)
    ]
    rows[20] = {"question": "é" * 30_000, "choices": None, "domain": None}
    file = a_table(tmp_path / "a.parquet", rows)
    whole = taken(file, tmp_path / "whole", Split.POOL, TaskConfig())
    monkeypatch.setattr(files, "LARGEST_PIECE", 200)
    pieces = [each for each in pieces_of(file) or [] if isinstance(each, Piece)]
    assert [piece.first for piece in pieces] == [
        1 + sum(len(each.sizes) for each in pieces[:n]) for n in range(len(pieces))
    ]
    assert len(pieces) > 20
    assert taken(file, tmp_path / "cut", Split.POOL, TaskConfig()) == whole
    assert len(whole[1]) == 50


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_every_text_is_stored_as_it_is(tmp_path: Path, text: str) -> None:
    store = a_store(tmp_path)
    with store.writing() as session:
        session.connection().exec_driver_sql("DELETE FROM item")
    new = ("k", text, text, json.dumps([text, "[1, null]"]), text, None, text, "[]", text, text)
    assert items.take_in(store, Split.SEED, [new]) == (1, [])
    [item] = items.of_split(store, Split.SEED)
    store.close()
    assert (item.question, item.context, item.domain, item.answer, item.source) == (text, text, text, text, text)
    assert (item.choices, item.steps, item.part) == ([text, "[1, null]"], [], None)


def test_what_is_wrong_is_told_in_the_order_of_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "CHUNK", 2)
    monkeypatch.setattr(unpacking, "BATCH", 1)
    asked = ["One?", "", "Two?", "Other?", "", "Three?", "Four?", ""]
    keys = ["a", "b", "c", "a", "d", "e", "f", "g"]
    rows = [{"key": key, "question": question} for key, question in zip(keys, asked, strict=True)]
    report, stored = taken(a_table(tmp_path / "a.parquet", rows), tmp_path, Split.POOL, TaskConfig())
    assert [row["key"] for row in stored] == ["a", "c", "e", "f"]
    assert [said.partition("parquet:")[2][0] for said in report.bad] == ["2", "5", "4", "8"]


def test_only_rows_that_need_it_are_looked_at_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    alone = sources.checked

    def counted(raw: Raw) -> Any:
        looked_at.append(raw.line)
        return alone(raw)

    monkeypatch.setattr(sources, "checked", counted)
    rows = [{"question": None if n % 100 == 7 else f"What is {n}?"} for n in range(400)]
    report, stored = taken(a_table(tmp_path / "a.parquet", rows), tmp_path, Split.POOL, TaskConfig())
    assert looked_at == [8, 108, 208, 308]
    assert (len(stored), report.bad.total) == (396, 4)


def test_a_dataset_folder_comes_in_pieces_too(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value  # noqa: PLC0415 - takes seconds to load

    features = Features({"question": Value("string"), "answer": ClassLabel(names=["no", "yes"])})
    Dataset.from_dict({"question": ["a?", "b?"], "answer": [1, None]}, features).save_to_disk(tmp_path / "set")
    [piece] = pieces_of(tmp_path / "set") or []
    assert isinstance(piece, Piece)
    assert sources.plain_rows(piece) == [None, ("", "b?", "", (), "default", "")]
    assert [raw.fields["answer"] for raw in piece.rows()] == ["yes", None]


def test_a_transaction_that_fails_leaves_nothing_and_the_same_file_is_taken_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "CHUNK", 10)
    monkeypatch.setattr(unpacking, "BATCH", 10)
    file = a_table(tmp_path / "a.parquet", [{"question": f"What is {n}?"} for n in range(35)])
    store, task = a_store(tmp_path), TaskConfig()
    whole, calls = items.insert_texts, 0

    def cut_off(*given: Any, **same: Any) -> None:
        nonlocal calls
        calls += 1
        whole(*given, **same)
        if calls == 3:
            raise KeyboardInterrupt

    def take() -> Ingested:
        return ingest([file], store, split=Split.POOL, pool=PoolConfig(), task=task, progress=Silent())

    with monkeypatch.context() as patched:
        patched.setattr(items, "insert_texts", cut_off)
        with pytest.raises(KeyboardInterrupt):
            take()
    assert items.count(store) == {Split.POOL: 20}
    again = take()
    assert (again.added[Split.POOL], again.known) == (15, 20)
    store.close()


def test_of_twins_within_a_transaction_the_first_stays(tmp_path: Path) -> None:
    rows = [{"key": "a", "question": "One?"}, {"key": "b", "question": "one"}, {"key": "a", "question": "Two?"}]
    report, stored = taken(a_table(tmp_path / "a.parquet", rows), tmp_path, Split.POOL, TaskConfig())
    assert [row["key"] for row in stored] == ["a"]
    assert report.known == 1
    assert report.bad == [
        "a.parquet:3: item 'a' has another text than item 'a' (a.parquet:1) of the pool; give one of them another key"
    ]


def test_the_order_of_the_pool_is_that_of_characters_on_every_database(tmp_path: Path) -> None:
    keys = ["b", "A", "a", "Z", "é", "_", "10", "9"]
    rows = [{"key": key, "question": f"What is {n}?"} for n, key in enumerate(keys)]
    store = a_store(tmp_path)
    file = a_table(tmp_path / "a.parquet", rows)
    ingest([file], store, split=Split.POOL, pool=PoolConfig(), task=TaskConfig(), progress=Silent())
    assert [*pool.keys(store, "x", Config())] == sorted(keys)
    store.close()
