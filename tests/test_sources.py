"""Items and existing replies are taken in from files."""

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.recorded_teacher import read_recordings
from connectors.rows import text_hash
from connectors.sources import Ingested, ingest, ingest_rationales, is_holdout
from loop.answer import AnswerKind
from loop.config import PoolConfig, TaskConfig
from loop.errors import BadRow
from loop.records import Item, Part, Split
from loop.store import items
from loop.store.database import Store
from tests.builders import a_number, a_store

NUMBER = TaskConfig()
LABEL = TaskConfig(answer=AnswerKind.LABEL, labels={"yes": "it does", "no": "it does not"})
CHOICE = TaskConfig(answer=AnswerKind.CHOICE)
MARKED = ("3-6:place", "3-6:city", "0-2:place;3-7:place", "none")
"""Marks on a text of six characters."""
Row = dict[str, Any]


@dataclass
class SilentBar:
    def advance(self, steps: int = 1) -> None:
        pass


@dataclass
class Silent:
    said: list[str] = field(default_factory=list)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[SilentBar]:
        yield SilentBar()

    def say(self, text: str) -> None:
        self.said.append(text)


Take = Callable[..., Ingested]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_store(tmp_path)


@pytest.fixture
def take(store: Store) -> Take:
    def taken(*paths: Path, split: Split | None = None, task: TaskConfig = NUMBER, share: float = 0.2) -> Ingested:
        pool = PoolConfig(holdout_share=share)
        return ingest(paths, store, split=split, pool=pool, task=task, progress=Silent())

    return taken


def jsonl(path: Path, *rows: Row | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_pool_rows_come_in_without_their_answers(tmp_path: Path, store: Store, take: Take) -> None:
    file = jsonl(tmp_path / "a.jsonl", {"key": "a", "question": "What is 1 + 1?", "answer": 2, "rationale": ["x"]})
    report = take(file, split=Split.POOL)
    assert report.added == {Split.POOL: 1}
    assert report.bad == []
    item = items.existing(store, ["a"])["a"]
    assert (item.question, item.answer, item.steps, item.source) == ("What is 1 + 1?", None, [], "a.jsonl:1")


def test_holdout_rows_keep_gold_and_are_parted_by_the_hash_of_their_key(
    tmp_path: Path, store: Store, take: Take
) -> None:
    rows = [{"key": f"k{number}", "question": f"What is {number}?", "answer": str(number)} for number in range(40)]
    take(jsonl(tmp_path / "a.jsonl", *rows), split=Split.HOLDOUT)
    dev, test = (items.of_split(store, Split.HOLDOUT, part) for part in Part)
    assert len(dev) + len(test) == 40
    assert min(len(dev), len(test)) > 8
    assert items.existing(store, ["k7"])["k7"].answer == a_number(7)


def test_without_a_split_answers_make_a_holdout_and_the_rest_the_pool(tmp_path: Path, store: Store, take: Take) -> None:
    answered = [{"key": f"a{number}", "question": f"What is {number}?", "answer": number} for number in range(100)]
    plain = [{"key": f"p{number}", "question": f"Who is {number}?"} for number in range(10)]
    report = take(jsonl(tmp_path / "a.jsonl", *answered, *plain), share=0.3)
    held = {item.key for item in items.of_split(store, Split.HOLDOUT)}
    assert held == {row["key"] for row in answered if is_holdout(str(row["key"]), 0.3)}
    assert 15 < len(held) < 45
    assert report.added[Split.POOL] == 110 - len(held)
    assert all(item.answer is None for item in items.of_split(store, Split.POOL))


def test_seed_items_keep_answer_and_steps(tmp_path: Path, store: Store, take: Take) -> None:
    row = {"question": "1 + 1?", "answer": "2", "rationale": "1. One and one.\n2. That is 2.\nAnswer: 2"}
    take(jsonl(tmp_path / "a.jsonl", row), split=Split.SEED)
    (item,) = items.of_split(store, Split.SEED)
    assert (item.answer, item.steps) == (a_number(2), ["One and one.", "That is 2."])


def test_steps_above_the_limit_stand_in_the_last(tmp_path: Path, store: Store, take: Take) -> None:
    row = {"question": "1 + 1?", "answer": "2", "rationale": ["a", "b", "c", "d"]}
    take(jsonl(tmp_path / "a.jsonl", row), split=Split.SEED, task=TaskConfig(max_steps=2))
    assert items.of_split(store, Split.SEED)[0].steps == ["a", "b c d"]


def test_a_missing_key_is_made_of_the_normalised_text(tmp_path: Path, store: Store, take: Take) -> None:
    take(jsonl(tmp_path / "a.jsonl", {"question": "What is one?"}), split=Split.POOL)
    report = take(jsonl(tmp_path / "b.jsonl", {"question": "  what IS\none"}), split=Split.POOL)
    assert (report.known, report.added.total()) == (1, 0)
    assert [item.key for item in items.of_split(store, Split.POOL)] == [text_hash("What is one?")[:16]]


BAD_ROWS = [
    ('{"question": "broken', "not valid JSON"),
    ("[1, 2]", "a JSON list, but one object a line is expected"),
    ("[" * 100_000, "not valid JSON"),
    ('{"question": "  "}', "`question` is missing or empty"),
    ('{"answer": 2}', "`question` is missing or empty"),
    ('{"question": 7}', "`question` is a int, but text is expected"),
    ('{"question": "a?", "key": 1.5}', "`key` is a float, but text is expected"),
    ('{"question": "a?", "key": "a\\nb"}', "control characters"),
    ('{"question": "a?", "choices": "a|b"}', "`choices` is a str, but a list of texts is expected"),
    ('{"question": "a?", "choices": ["a"]}', "`choices` needs 2 to 26 texts"),
    ('{"question": "a?", "choices": ["a", "a"]}', "the same text twice"),
    ('{"question": "a\\u0000?"}', "NUL character"),
    ('{"question": "a\\ud800?"}', "not valid UTF-8"),
    ('{"question": "a?", "answer": true}', "`answer` is a bool"),
    ('{"question": "a?", "answer": NaN}', "a finite number is expected"),
    ('{"question": "a?"}', "no `answer`"),
    ('{"question": "a?", "answer": "many"}', "`answer` 'many' is not allowed; expected a number"),
    (json.dumps({"question": "a" * 60_000, "answer": 1}), "longer than 50000 characters"),
    (json.dumps({"question": "a" * 5_000_000}), "longer than 4194304 bytes"),
]


@pytest.mark.parametrize(("line", "said"), BAD_ROWS, ids=[said for _, said in BAD_ROWS])
def test_a_bad_row_is_named_and_its_neighbours_survive(
    line: str, said: str, tmp_path: Path, store: Store, take: Take
) -> None:
    good = {"key": "good", "question": "What is 1?", "answer": 1}
    file = jsonl(tmp_path / "a.jsonl", {**good, "key": "first", "question": "0?"}, line, good)
    report = take(file, split=Split.HOLDOUT)
    assert len(report.bad) == 1
    assert report.bad[0].startswith(f"{file}:2: ")
    assert said in report.bad[0]
    assert items.existing(store, ["first", "good"]).keys() == {"first", "good"}


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path, take: Take) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"question": "a?"}\n{"question": "\xff\xfe"}\n\n{"question": "b?"}')
    report = take(file)
    assert report.bad == [f"{file}:2: not UTF-8; save the file as UTF-8"]
    assert report.added[Split.POOL] == 2


def test_bad_rows_are_named_once_where_the_split_is_by_hash(tmp_path: Path, take: Take) -> None:
    rows = [{"question": f"{number}?", "answer": "none at all"} for number in range(30)]
    report = take(jsonl(tmp_path / "a.jsonl", "{", *rows), share=0.5)
    assert sum("not valid JSON" in line for line in report.bad) == 1
    assert len(report.bad) == len(set(report.bad))
    assert len(report.bad) - 1 + report.added[Split.POOL] == 30


def test_a_label_that_the_task_does_not_know_is_named(tmp_path: Path, take: Take) -> None:
    file = jsonl(tmp_path / "a.jsonl", {"question": "a?", "answer": "perhaps"}, {"question": "b?", "answer": "Yes"})
    report = take(file, split=Split.HOLDOUT, task=LABEL)
    assert report.bad == [f"{file}:1: `answer` 'perhaps' is not allowed; expected one of yes, no"]
    assert report.added[Split.HOLDOUT] == 1


def test_marks_that_no_student_could_get_right_are_named(tmp_path: Path, store: Store, take: Take) -> None:
    task = TaskConfig(answer=AnswerKind.SPANS, labels={"place": "where it is"})
    rows = [{"key": f"k{number}", "question": f"{number}: Ulm", "answer": said} for number, said in enumerate(MARKED)]
    file = jsonl(tmp_path / "h.jsonl", *rows)
    report = take(file, split=Split.HOLDOUT, task=task)
    assert report.bad == [
        f"{file}:2: `answer` marks 3-6:city, but labels are place; correct it or add the label to task.labels",
        f"{file}:3: `answer` marks 3-7:place, but the text ends at 6; marks count characters of it from 0",
    ]
    assert {item.key for item in items.of_split(store, Split.HOLDOUT)} == {"k0", "k3"}


def test_marks_of_existing_replies_are_counted_in_the_text_of_their_item(
    tmp_path: Path, store: Store, take: Take
) -> None:
    task = TaskConfig(answer=AnswerKind.SPANS)
    take(jsonl(tmp_path / "p.jsonl", {"key": "a", "question": "Where?", "context": "in Ulm"}), task=task)
    for end, bad in ((6, 0), (7, 1)):
        file = jsonl(tmp_path / "r.jsonl", {"key": "a", "rationale": "a town", "answer": f"3-{end}:any"})
        assert len(ingest_rationales([file], store, task=task, folder=tmp_path).bad) == bad


def test_choices_are_needed_where_the_answer_is_a_choice(tmp_path: Path, store: Store, take: Take) -> None:
    file = jsonl(tmp_path / "a.jsonl", {"question": "a?"}, {"question": "b?", "choices": ["x", "y"]})
    report = take(file, task=CHOICE)
    assert report.bad == [f"{file}:1: no `choices`, which task.answer = choice needs"]
    assert items.of_split(store, Split.POOL)[0].choices == ["x", "y"]


def test_a_choice_is_read_by_its_text(tmp_path: Path, store: Store, take: Take) -> None:
    take(jsonl(tmp_path / "a.jsonl", {"question": "b?", "choices": ["x", "y"], "answer": "y"}), split=Split.SEED,
         task=CHOICE)  # fmt: skip
    gold = items.of_split(store, Split.SEED)[0].gold
    assert gold is not None
    assert gold.value == "B"


@pytest.mark.parametrize(("given", "value"), [(12, "12"), (0.5, "0.5"), (1e22, "1" + "0" * 22), ("7/3", "7/3")])
def test_numbers_are_written_out(given: object, value: str, tmp_path: Path, store: Store, take: Take) -> None:
    take(jsonl(tmp_path / "a.jsonl", {"key": "a", "question": "a?", "answer": given}), split=Split.SEED)
    assert items.existing(store, ["a"])["a"].answer == a_number(value)


def test_nothing_is_taken_twice(tmp_path: Path, store: Store, take: Take) -> None:
    file = jsonl(tmp_path / "a.jsonl", {"key": "a", "question": "One?"}, {"key": "a", "question": "One?"})
    assert take(file).known == 1
    again = take(file)
    assert (again.added.total(), again.known, again.bad) == (0, 2, [])
    assert items.count(store) == {Split.POOL: 1}


def test_one_text_under_two_keys_is_one_item(tmp_path: Path, store: Store, take: Take) -> None:
    rows = [{"key": "a", "question": "What's 5 - 3?"}, {"key": "b", "question": "what\u2019s  5 \u2212 3"}]
    report = take(jsonl(tmp_path / "a.jsonl", *rows))
    assert (report.added[Split.POOL], report.known) == (1, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [("5-3?", "5+3?"), ("3.5?", "35?"), ("(2+3)*4", "2+3*4"), ("3/5", "35"), ("-5", "5"), ("?!", "!?")],
)
def test_texts_that_mean_different_things_stay_apart(one: str, other: str) -> None:
    assert text_hash(one) != text_hash(other)


def test_the_order_of_choices_matters_to_the_text() -> None:
    assert text_hash("q", "", ["a", "b"]) != text_hash("q", "", ["b", "a"])
    assert text_hash("q", "a") != text_hash("q", "", ["a"])


def test_two_rows_of_one_key_with_different_text_are_named(tmp_path: Path, store: Store, take: Take) -> None:
    file = jsonl(tmp_path / "a.jsonl", {"key": "a", "question": "One?"}, {"key": "a", "question": "Two?"})
    report = take(file)
    assert report.bad == [
        "a.jsonl:2: item 'a' has another text than item 'a' (a.jsonl:1) of the pool; give one of them another key"
    ]
    later = take(jsonl(tmp_path / "b.jsonl", {"key": "a", "question": "Three?"}))
    assert "b.jsonl:1: item 'a' has another text than item 'a' (a.jsonl:1)" in later.bad[0]
    assert items.existing(store, ["a"])["a"].question == "One?"


def test_a_contradicting_gold_answer_is_named(tmp_path: Path, take: Take) -> None:
    rows = [{"key": "a", "question": "One?", "answer": 1}, {"key": "b", "question": "one", "answer": 2}]
    report = take(jsonl(tmp_path / "a.jsonl", *rows), split=Split.HOLDOUT)
    assert len(report.bad) == 1
    assert "another answer" in report.bad[0]


def test_what_stands_in_the_holdout_is_refused_from_the_pool(tmp_path: Path, store: Store, take: Take) -> None:
    take(jsonl(tmp_path / "held.jsonl", {"key": "h", "question": "What is 1 + 1?", "answer": 2}), split=Split.HOLDOUT)
    pool = jsonl(tmp_path / "pool.jsonl", {"key": "p", "question": "what is 1 + 1"}, {"key": "q", "question": "Else?"})
    report = take(pool, split=Split.POOL)
    assert report.leaked == ["pool.jsonl:1: item 'p' is item 'h' (held.jsonl:1) of the holdout"]
    assert "refused because they stand in the holdout: 1" in report.summary()
    assert [item.key for item in items.of_split(store, Split.POOL)] == ["q"]
    assert take(pool, split=Split.SEED).bad[0].startswith(f"{pool}:1: no `answer`")


def test_what_stands_in_the_holdout_is_refused_from_the_seed(tmp_path: Path, take: Take) -> None:
    row = {"key": "h", "question": "What is 1 + 1?", "answer": 2}
    take(jsonl(tmp_path / "held.jsonl", row), split=Split.HOLDOUT)
    assert len(take(jsonl(tmp_path / "seed.jsonl", row), split=Split.SEED).leaked) == 1


def test_the_holdout_goes_first_in_whatever_order_the_rows_stand(tmp_path: Path, store: Store, take: Take) -> None:
    held = next(f"h{number}" for number in range(1000) if is_holdout(f"h{number}", 0.2))
    rows = [{"key": "p", "question": "what is 1 + 1"}, {"key": held, "question": "What is 1 + 1?", "answer": 2}]
    report = take(jsonl(tmp_path / "a.jsonl", *rows))
    assert len(report.leaked) == 1
    assert items.count(store) == {Split.HOLDOUT: 1}


def test_a_holdout_that_comes_after_its_pool_item_is_refused(tmp_path: Path, store: Store, take: Take) -> None:
    take(jsonl(tmp_path / "pool.jsonl", {"key": "p", "question": "What is 1 + 1?"}), split=Split.POOL)
    held = jsonl(tmp_path / "held.jsonl", {"key": "h", "question": "What is 1 + 1?", "answer": 2})
    report = take(held, split=Split.HOLDOUT)
    assert "held.jsonl:1: item 'h' is item 'p' (pool.jsonl:1) of the pool already" in report.bad[0]
    assert "ingest the holdout before the pool" in report.bad[0]
    assert items.count(store) == {Split.POOL: 1}


def test_csv_with_lists_in_cells(tmp_path: Path, store: Store, take: Take) -> None:
    file = tmp_path / "a.csv"
    with file.open("w", newline="", encoding="utf-8-sig") as out:
        writer = csv.writer(out)
        writer.writerow(["key", "question", "choices", "answer", "rationale", "other"])
        writer.writerow(["a", "Which,\nof two?", "x|y", "B", '["one", "two"]', "ignored"])
        writer.writerow(["b", "Which else?", '["x|y", "z"]', "z", "First. Then.", ""])
        writer.writerow(["c", "Too few"])
        writer.writerow(["d", "Broken list", '["x', "A", "", ""])
    report = take(file, split=Split.SEED, task=CHOICE)
    found = {item.key: item for item in items.of_split(store, Split.SEED)}
    assert (found["a"].choices, found["a"].steps, found["a"].question) == (
        ["x", "y"],
        ["one", "two"],
        "Which,\nof two?",
    )
    assert (found["b"].choices, found["b"].steps) == (["x|y", "z"], ["First.", "Then."])
    assert [line.split(": ")[0] for line in report.bad] == [f"{file}:5", f"{file}:6"]


def test_csv_that_is_not_utf8_keeps_its_good_rows(tmp_path: Path, take: Take) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"question\nGood?\nB\xe4d?\n")
    report = take(file)
    assert report.bad == [f"{file}:3: `question` is not valid UTF-8; save the file as UTF-8"]
    assert report.added[Split.POOL] == 1


def test_csv_with_a_quote_that_never_closes(tmp_path: Path, take: Take) -> None:
    file = tmp_path / "a.csv"
    file.write_text('question\nGood?\n"never closed\nlost?\n', encoding="utf-8")
    report = take(file)
    assert report.added[Split.POOL] == 1
    assert report.bad[0].startswith(f"{file}:3: not valid CSV")


def test_parquet(tmp_path: Path, store: Store, take: Take) -> None:
    file = tmp_path / "a.parquet"
    table = pa.table(
        {
            "key": [1, 2, 3],
            "question": ["a?", None, "c?"],
            "answer": [1.5, 2.0, None],
            "choices": [["x", "y"], None, None],
        }
    )
    pq.write_table(table, file)
    report = take(file, split=Split.HOLDOUT)
    assert items.existing(store, ["1"])["1"].answer == a_number("1.5")
    assert [line.split(": ")[0] for line in report.bad] == [f"{file}:2", f"{file}:3"]


def test_a_hugging_face_dataset_and_a_dictionary_of_them(tmp_path: Path, store: Store, take: Take) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value  # noqa: PLC0415 - takes seconds to load

    features = Features({"question": Value("string"), "answer": ClassLabel(names=["no", "yes"]), "id": Value("int32")})
    made = [
        Dataset.from_dict({"question": [f"{name} {n}?" for n in (1, 2)], "answer": [1, 0], "id": [1, 2]}, features)
        for name in ("train", "test")
    ]
    DatasetDict({"train": made[0], "test": made[1]}).save_to_disk(tmp_path / "both")
    Dataset.from_dict({"question": ["three?", ""], "answer": ["yes", "yes"]}).save_to_disk(tmp_path / "one")
    report = take(tmp_path / "both", tmp_path / "one", split=Split.HOLDOUT, task=LABEL)
    assert report.added[Split.HOLDOUT] == 5
    assert report.bad == [f"{tmp_path / 'one'}:2: `question` is missing or empty"]
    gold = {item.question: item.gold.value for item in items.of_split(store, Split.HOLDOUT) if item.gold}
    assert (gold["train 1?"], gold["test 2?"]) == ("yes", "no")


def test_compressed_jsonl_and_where_it_is_cut_off(tmp_path: Path, take: Take) -> None:
    rows = "".join(json.dumps({"question": f"{number}?"}) + "\n" for number in range(20_000)).encode()
    whole, cut = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    whole.write_bytes(gzip.compress(rows[: rows.index(b"\n") + 1]))
    cut.write_bytes(gzip.compress(rows)[:-5000])
    assert take(whole).added[Split.POOL] == 1
    report = take(cut)
    assert report.added[Split.POOL] > 1000
    assert "the file is damaged from here on" in report.bad[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.jsonl", None, "no such file"),
        ("a.xlsx", b"x", "unknown kind of file; known: .jsonl"),
        ("folder", "folder", "holds no Hugging Face dataset"),
    ],
)
def test_a_file_that_cannot_be_used_stops_before_anything_is_stored(
    name: str, content: object, said: str, tmp_path: Path, store: Store, take: Take
) -> None:
    good = jsonl(tmp_path / "good.jsonl", {"question": "a?"})
    bad = tmp_path / name
    if content == "folder":
        bad.mkdir()
    elif isinstance(content, bytes):
        bad.write_bytes(content)
    with pytest.raises(BadRow, match=said) as caught:
        take(good, bad)
    assert str(caught.value).startswith(str(bad))
    assert items.count(store) == {}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"\n\n", "no rows in it"),
        ("a.csv", b"", "no column `question`; its columns are: none"),
        ("a.csv", b"id;question\n1;a?\n", "no column `question`; its columns are: id;question"),
        ("a.parquet", b"not parquet", "not a Parquet file"),
    ],
)
def test_a_file_without_usable_rows_is_named_and_the_next_is_read(
    name: str, content: bytes, said: str, tmp_path: Path, take: Take
) -> None:
    bad = tmp_path / name
    bad.write_bytes(content)
    report = take(bad, jsonl(tmp_path / "good.jsonl", {"question": "a?"}))
    assert len(report.bad) == 1
    assert said in report.bad[0]
    assert report.added[Split.POOL] == 1


def test_an_item_is_split_alike_wherever_it_comes_from(tmp_path: Path, take: Take) -> None:
    rows = [{"key": f"k{number}", "question": f"{number}?", "answer": number} for number in range(50)]
    take(jsonl(tmp_path / "a.jsonl", *rows))
    again = take(jsonl(tmp_path / "b.jsonl", *reversed(rows)))
    assert (again.known, again.bad, again.leaked) == (50, [], [])


# --- existing replies -----------------------------------------------------------------------------------------------


def a_pool(store: Store, take: Take, tmp_path: Path) -> None:
    rows = [{"key": "a", "question": "What is 1 + 1?"}, {"key": "b", "question": "And 2?", "context": "Think."}]
    take(jsonl(tmp_path / "pool.jsonl", *rows), split=Split.POOL)
    take(jsonl(tmp_path / "h.jsonl", {"key": "h", "question": "Held?", "answer": 1}), split=Split.HOLDOUT)


def test_existing_replies_become_a_file_of_the_recorded_teacher(tmp_path: Path, store: Store, take: Take) -> None:
    a_pool(store, take, tmp_path)
    file = jsonl(
        tmp_path / "replies.jsonl",
        {"key": "a", "rationale": ["One and one.", "That is 2."], "answer": 2, "model": "palm"},
        {"question": "what is 1 + 1", "rationale": "1. It is 3.\nAnswer: 3", "answer": "3", "model": "palm"},
        {"key": "b", "rationale": "Two stays two.", "answer": "2"},
    )
    report = ingest_rationales([file], store, task=NUMBER, folder=tmp_path / "run")
    assert (report.added, report.known, report.bad, report.models) == (3, 0, [], ["palm", "recorded"])
    first, second, third = read_recordings(report.file)
    assert (first.key, first.model, first.steps, first.answer, first.sample) == (
        "a", "palm", ("One and one.", "That is 2."), "2", 0
    )  # fmt: skip
    assert (second.key, second.steps, second.sample) == ("a", ("It is 3.",), 1)
    assert (third.context, third.model) == ("Think.", "recorded")
    assert 'model = "palm"' in report.summary()


def test_existing_replies_are_added_once(tmp_path: Path, store: Store, take: Take) -> None:
    a_pool(store, take, tmp_path)
    one = jsonl(tmp_path / "one.jsonl", {"key": "a", "rationale": ["x 2"], "answer": 2})
    two = jsonl(tmp_path / "two.jsonl", {"key": "a", "rationale": ["x 2"], "answer": 2},
                {"key": "a", "rationale": ["y 2"], "answer": 2})  # fmt: skip
    ingest_rationales([one], store, task=NUMBER, folder=tmp_path)
    report = ingest_rationales([two], store, task=NUMBER, folder=tmp_path)
    assert (report.added, report.known) == (1, 1)
    assert [each.sample for each in read_recordings(report.file)] == [0, 1]


def test_bad_replies_are_named_and_the_good_ones_kept(tmp_path: Path, store: Store, take: Take) -> None:
    a_pool(store, take, tmp_path)
    file = jsonl(
        tmp_path / "replies.jsonl",
        {"key": "zz", "rationale": ["x"], "answer": 2},
        {"key": "h", "rationale": ["x"], "answer": 2},
        {"question": "Never heard?", "rationale": ["x"], "answer": 2},
        {"key": "a", "question": "Another text?", "rationale": ["x"], "answer": 2},
        {"key": "a", "rationale": [], "answer": 2},
        {"key": "a", "rationale": ["x"], "answer": "many"},
        {"rationale": ["x"], "answer": "2"},
        "{",
        {"key": "a", "rationale": ["good"], "answer": 2},
    )
    report = ingest_rationales([file], store, task=NUMBER, folder=tmp_path)
    assert report.added == 1
    found = {line.removeprefix(f"{file}:").split(":")[0]: line for line in report.bad}
    assert found.keys() == {str(number) for number in range(1, 9)}
    for number, said in enumerate(
        ("there is no item 'zz'", "is in the holdout", "no item has this question", "another text",
         "`rationale` is missing", "not allowed", "neither `key` nor `question`", "not valid JSON"), start=1,
    ):  # fmt: skip
        assert said in found[str(number)]


def test_a_foreign_file_is_not_overwritten_by_replies(tmp_path: Path, store: Store, take: Take) -> None:
    a_pool(store, take, tmp_path)
    (tmp_path / "recorded.jsonl").write_text('{"key": "a", "text": "raw"}\n', encoding="utf-8")
    file = jsonl(tmp_path / "replies.jsonl", {"key": "a", "rationale": ["x"], "answer": 2})
    with pytest.raises(BadRow, match="move it away"):
        ingest_rationales([file], store, task=NUMBER, folder=tmp_path)
    assert "raw" in (tmp_path / "recorded.jsonl").read_text(encoding="utf-8")


def test_items_of_a_large_file_are_all_there(tmp_path: Path, store: Store, take: Take) -> None:
    rows = [{"key": f"k{number}", "question": f"What is {number}?"} for number in range(2500)]
    assert take(jsonl(tmp_path / "a.jsonl", *rows), split=Split.POOL).added[Split.POOL] == 2500
    assert isinstance(items.existing(store, ["k2499"])["k2499"], Item)
