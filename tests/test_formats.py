"""The forms of an export: each is opened by whoever it is for, and says the same every time."""

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import datasets
import mlcroissant
import pytest
from sqlalchemy import ColumnElement
from sqlmodel import SQLModel, col, update

from connectors.exports import Wanted, export
from connectors.formats import FORMATS
from loop.answer import Answer, AnswerKind
from loop.config import Config, ExportConfig, TaskConfig
from loop.errors import PreceptorError
from loop.records import DecisionKind, Rationale, Verdict, VerdictKind
from loop.store import dataset, items, rationales, reading, withdrawals
from loop.store.database import Store
from loop.store.tainted import Grounds
from review.page import review_page
from review.verdict import values_of
from tests.builders import (
    RUN,
    a_campaign,
    a_reply,
    a_round,
    a_store,
    a_verdict,
    an_item,
    checked,
    decided,
    queried,
    trained,
)
from tests.test_lineage import other_model

ADDRESS = "ann@example.org"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People corrected one rationale of each round, the first with a mark on its first step."""
    folder = tmp_path_factory.mktemp("campaign")
    made = a_store(folder)
    a_campaign(made, simulated=False)
    a_verdict(made, 2, VerdictKind.EDIT, minute=5, marks={"0": "wrong"}, steps=["1 + 2 = 3"])
    made.close()
    return folder / "store.db"


@pytest.fixture
def store(tmp_path: Path, campaign: Path) -> Store:
    """A copy of the campaign."""
    shutil.copy(campaign, tmp_path / "store.db")
    return Store(f"sqlite:///{tmp_path / 'store.db'}")


@pytest.fixture(autouse=True)
def no_cache_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def written(store: Store, folder: Path, form: str, *where: str) -> Path:
    export(store, RUN, folder, Wanted(form, where))
    return folder / FORMATS[form].file


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change(store: Store, table: type[SQLModel], where: ColumnElement[bool], **values: object) -> None:
    with store.writing() as session:
        session.execute(update(table).where(where).values(**values))


def change_steps(store: Store, rationale_id: int, steps: list[str]) -> None:
    change(store, Rationale, col(Rationale.id) == rationale_id, steps=steps)


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_state_gives_the_same_bytes_in_every_form(tmp_path: Path, store: Store, form: str) -> None:
    for name in ("one", "two", "two"):
        export(store, RUN, tmp_path / name, Wanted(form))
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert FORMATS[form].file in bytes_of(tmp_path / "one")


@pytest.mark.parametrize("form", FORMATS)
def test_no_address_is_in_any_form(tmp_path: Path, store: Store, form: str) -> None:
    answer = Answer(kind=AnswerKind.TEXT, value=f"write to {ADDRESS}").canonical
    change(store, Rationale, col(Rationale.id) == 2, steps=[f"As {ADDRESS.upper()} says, 1 + 1 = 2"], answer=answer)
    change(store, Rationale, col(Rationale.id) == 1, steps=[f"Ask {ADDRESS}: 2"])
    change(store, Rationale, col(Rationale.id) == 6, answer=answer)
    change(store, Verdict, col(Verdict.rationale_id) == 2, steps=[f"1 + 2 = 3, says {ADDRESS}"])
    where = () if form == "prm" else (f"domain!={ADDRESS}",)
    export(store, RUN, tmp_path / "out", Wanted(form, where))
    everything = b"\n".join(bytes_of(tmp_path / "out").values())
    if form in ("parquet", "hf", "croissant"):
        everything += repr(list(FORMATS[form].read(tmp_path / "out" / FORMATS[form].file))).encode()
    assert ADDRESS.encode() not in everything.lower()
    assert b"reviewer-1" in everything


@pytest.mark.parametrize("form", ["chat", "trl", "sharegpt", "label-studio"])
def test_an_answer_that_names_a_reviewer_is_written_with_the_pseudonym(tmp_path: Path, store: Store, form: str) -> None:
    answer = Answer(kind=AnswerKind.TEXT, value=f"write to {ADDRESS}").canonical
    change(store, Rationale, col(Rationale.id) == 1, answer=answer)
    written(store, tmp_path / "out", form)
    everything = b"\n".join(bytes_of(tmp_path / "out").values())
    assert ADDRESS.encode() not in everything
    assert b"write to reviewer-1" in everything


def test_what_cannot_be_written_in_a_corrected_step_is_replaced(tmp_path: Path, store: Store) -> None:
    change(store, Verdict, col(Verdict.rationale_id) == 2, steps=["half \ud800 here"])
    (row,) = lines_of(written(store, tmp_path / "out", "prm"))
    assert row["label"]["steps"][0]["human_completion"]["text"] == "half \ufffd here"


def test_rows_are_named_under_pseudonyms_in_the_figures_too(tmp_path: Path, store: Store) -> None:
    items.add(store, [an_item(ADDRESS, question="What is q0?")])
    opened = queried(store, a_round(store), [ADDRESS])
    decided(store, opened, ADDRESS, DecisionKind.GOLD, a_reply(store, opened, ADDRESS, steps=["one"], answer=1))
    exported = export(store, RUN, tmp_path / "out")
    assert exported.figures["duplicates"].keys == ("q0",)  # the address comes before it
    assert ADDRESS not in exported.summary()


@pytest.mark.parametrize("form", FORMATS)
def test_half_characters_and_nuls_are_replaced_and_counted(tmp_path: Path, store: Store, form: str) -> None:
    change_steps(store, 2, ["nul \x00 here", "half \ud800 here"])
    change_steps(store, 1, ["nul \x00 here", "half \ud800 here"])
    export(store, RUN, tmp_path / "out", Wanted(form))
    rows = repr(list(FORMATS[form].read(tmp_path / "out" / FORMATS[form].file)))
    assert "nul \ufffd here" in rows
    assert "\\x00" not in rows
    assert "\\ud800" not in rows
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["mended"] == (1 if form in ("dpo", "prm") else 2)  # these hold what people spoke of alone


def test_a_dataset_folder_is_opened_by_datasets(tmp_path: Path, store: Store) -> None:
    export(store, RUN, tmp_path / "out", Wanted("hf"))
    loaded = datasets.load_dataset(str(tmp_path / "out"))["train"]
    assert loaded["key"] == ["q0", "q1", "q3", "q4"]
    assert loaded[1]["steps"] == ["1 + 2 = 3"]
    assert loaded[1]["verdicts"][0]["marks"] == [{"step": 0, "mark": "wrong"}]
    assert loaded[1]["parents"][0]["author"] == "teacher"
    assert loaded[0]["risk"] == 0.1


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "label-studio"])
def test_the_card_leads_datasets_to_the_rows(tmp_path: Path, store: Store, form: str) -> None:
    exported = export(store, RUN, tmp_path / "out", Wanted(form))
    assert datasets.load_dataset(str(tmp_path / "out"))["train"].num_rows == exported.rows


def test_parquet_holds_what_jsonl_holds(tmp_path: Path, store: Store) -> None:
    lines = lines_of(written(store, tmp_path / "jsonl", "jsonl"))
    rows = list(FORMATS["parquet"].read(written(store, tmp_path / "parquet", "parquet")))
    for row in rows:
        for verdict in row["verdicts"]:
            verdict["marks"] = {str(each["step"]): each["mark"] for each in verdict["marks"]}
    assert rows == lines


def test_a_chat_row_is_what_openai_takes(tmp_path: Path, store: Store) -> None:
    rows = lines_of(written(store, tmp_path / "out", "chat"))
    assert len(rows) == 4
    for row in rows:
        assert row.keys() == {"messages"}
        assert [each["role"] for each in row["messages"]] == ["system", "user", "assistant"]
    assert rows[1]["messages"][1:] == [
        {"role": "user", "content": "What is q1?"},
        {"role": "assistant", "content": "1. 1 + 2 = 3\nAnswer: 3"},
    ]
    beside = lines_of(tmp_path / "out" / "provenance.jsonl")
    assert [each["key"] for each in beside] == ["q0", "q1", "q3", "q4"]
    assert beside[1]["authors"] == ["teacher", "human"]


def test_trl_gets_prompt_and_completion(tmp_path: Path, store: Store) -> None:
    rows = lines_of(written(store, tmp_path / "out", "trl"))
    assert rows[0] == {
        "prompt": [{"role": "user", "content": "What is q0?"}],
        "completion": [{"role": "assistant", "content": "1. 1 + 1 = 2\n2. So it is 2.\nAnswer: 2"}],
    }


def test_a_pair_is_the_teacher_s_word_and_its_correction(tmp_path: Path, store: Store) -> None:
    rows = lines_of(written(store, tmp_path / "out", "dpo"))
    assert [each["key"] for each in lines_of(tmp_path / "out" / "provenance.jsonl")] == ["q1", "q4"]
    assert rows[0]["chosen"] == [{"role": "assistant", "content": "1. 1 + 2 = 3\nAnswer: 3"}]
    assert rows[0]["rejected"] == [{"role": "assistant", "content": "1. 1 + 1 = 2\n2. So it is 2.\nAnswer: 2"}]


def test_a_rejected_rationale_is_paired_with_what_took_its_place(tmp_path: Path) -> None:
    made = a_store(tmp_path)
    items.add(made, [an_item("q1"), an_item("q2")])
    for number, kind in ((1, DecisionKind.REJECTED), (2, DecisionKind.GOLD)):
        opened = queried(made, a_round(made), ["q1"] if number == 2 else ["q1", "q2"])
        rationale = a_reply(made, opened, "q1", steps=[f"round {number}"], answer=number)
        checked(made, rationale, 0.9)
        a_verdict(made, rationale, VerdictKind.REJECT if number == 1 else VerdictKind.ACCEPT)
        decided(made, opened, "q1", kind, rationale)
        if number == 1:
            unseen = a_reply(made, opened, "q2", steps=["unseen"], answer=1)
            decided(made, opened, "q2", DecisionKind.REJECTED, unseen)
        trained(made, opened, examples=1, right=0)
    (row,) = lines_of(written(made, tmp_path / "out", "dpo"))
    assert row["chosen"][0]["content"] == "1. round 2\nAnswer: 2"
    assert row["rejected"][0]["content"] == "1. round 1\nAnswer: 1"


def test_step_labels_end_with_the_first_wrong_step_and_its_correction(tmp_path: Path, store: Store) -> None:
    a_verdict(store, 3, VerdictKind.REJECT, minute=6, marks={"1": "redundant"})
    first, second = lines_of(written(store, tmp_path / "out", "prm"))
    (step,) = first["label"]["steps"]
    assert step["completions"] == [{"text": "1 + 1 = 2", "rating": -1, "flagged": None}]
    assert step["human_completion"]["text"] == "1 + 2 = 3"
    assert (step["chosen_completion"], first["label"]["finish_reason"]) == (None, "found_error")
    assert (first["labeler"], first["label"]["total_time"]) == ("reviewer-1", 30000)
    assert first["question"]["ground_truth_answer"] == "3"
    ratings = [each["completions"][0]["rating"] for each in second["label"]["steps"]]
    assert (ratings, second["label"]["finish_reason"]) == ([1, 0], "solution")
    assert second["question"]["ground_truth_answer"] is None


def a_reply_that_another_took_the_place_of(store: Store, kind: DecisionKind = DecisionKind.SILVER) -> None:
    """What `panel` wrote in round 1 is rejected with a mark, what `newcomer` wrote in round 2 is decided so."""
    items.add(store, [an_item("q1")])
    opened = queried(store, a_round(store), ["q1"])
    rationale = a_reply(store, opened, "q1", steps=["bad step"], answer=1)
    checked(store, rationale, 0.9)
    a_verdict(store, rationale, VerdictKind.REJECT, marks={"0": "wrong"})
    decided(store, opened, "q1", DecisionKind.REJECTED, rationale)
    trained(store, opened, examples=0, right=0)
    other_model(store, "q1", kind)


def test_step_labels_say_which_reply_they_are_about(tmp_path: Path) -> None:
    made = a_store(tmp_path)
    a_reply_that_another_took_the_place_of(made)
    exported = export(made, RUN, tmp_path / "out", Wanted("prm"))
    (row,) = lines_of(tmp_path / "out" / "steps.jsonl")
    (whence,) = lines_of(tmp_path / "out" / "provenance.jsonl")
    assert row["generation"] == 1
    assert (whence["teacher_model"], whence["round"], whence["risk"]) == ("panel", 1, 0.9)
    assert [each["verdict"] for each in whence["verdicts"]] == ["reject"]
    assert whence["decision"] == "silver"  # of the item
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert [*manifest["terms"]["teachers"]] == ["panel"]
    assert exported.rows == exported.examples == 1


def test_a_pair_says_where_both_its_replies_come_from(tmp_path: Path) -> None:
    made = a_store(tmp_path)
    a_reply_that_another_took_the_place_of(made)
    export(made, RUN, tmp_path / "out", Wanted("dpo"))
    (whence,) = lines_of(tmp_path / "out" / "provenance.jsonl")
    assert (whence["teacher_model"], whence["round"], whence["risk"]) == ("newcomer-2026", 2, 0.1)
    refused = whence["rejected"]
    assert (refused["teacher_model"], refused["round"], refused["risk"]) == ("panel", 1, 0.9)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert [*manifest["terms"]["teachers"]] == ["newcomer-2026", "panel"]


@pytest.mark.parametrize("form", ["prm", "dpo"])
@pytest.mark.parametrize("where", ["teacher_model!=panel", "round=2", "risk<0.5", "reviewer!=reviewer-1"])
def test_a_filter_holds_for_every_reply_that_is_written(tmp_path: Path, form: str, where: str) -> None:
    made = a_store(tmp_path)
    a_reply_that_another_took_the_place_of(made)
    with pytest.raises(PreceptorError, match=f"nothing to write as {form}"):
        export(made, RUN, tmp_path / "out", Wanted(form, (where,)))


def test_labels_stay_though_the_item_was_undecided_and_asked_anew(tmp_path: Path) -> None:
    made = a_store(tmp_path)
    items.add(made, [an_item("q1")])
    for steps, kind in (("bad", DecisionKind.UNDECIDED), ("good", DecisionKind.GOLD)):
        opened = queried(made, a_round(made), ["q1"])
        rationale = a_reply(made, opened, "q1", steps=[steps], answer=1)
        if kind is DecisionKind.GOLD:
            a_verdict(made, rationale, VerdictKind.ACCEPT)
        else:
            a_verdict(made, rationale, VerdictKind.REJECT, marks={"0": "wrong"})
        decided(made, opened, "q1", kind, rationale)
        trained(made, opened, examples=0, right=0)
    rows = lines_of(written(made, tmp_path / "out", "prm"))
    assert [each["question"]["pre_generated_steps"] for each in rows] == [["bad"], ["good"]]
    opened = queried(made, a_round(made), ["q1"])
    decided(made, opened, "q1", DecisionKind.UNDECIDED, None)  # no reply could be read
    assert len(lines_of(written(made, tmp_path / "out", "prm"))) == 2


def test_labels_of_a_recalled_reply_are_not_written(tmp_path: Path) -> None:
    made = a_store(tmp_path)
    a_reply_that_another_took_the_place_of(made)
    withdrawals.withdraw(made, RUN, Grounds(teacher_model="panel"), "bad")
    with pytest.raises(PreceptorError, match="nothing to write as prm"):
        written(made, tmp_path / "out", "prm")


def test_what_was_rejected_is_chosen_in_no_pair(tmp_path: Path) -> None:
    made = a_store(tmp_path)
    a_reply_that_another_took_the_place_of(made, DecisionKind.REJECTED)
    second = reading.rationales_of(made, RUN)[-1].id or 0
    a_verdict(made, second, VerdictKind.REJECT)
    with pytest.raises(PreceptorError, match="nothing to write as dpo"):
        written(made, tmp_path / "out", "dpo", "decision=rejected")


def test_a_reject_without_a_mark_labels_no_step(tmp_path: Path, store: Store) -> None:
    written(store, tmp_path / "out", "prm")
    assert [each["key"] for each in lines_of(tmp_path / "out" / "provenance.jsonl")] == ["q1"]


def test_llama_factory_is_told_how_to_read_sharegpt(tmp_path: Path, store: Store) -> None:
    path = written(store, tmp_path / "out", "sharegpt")
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text(encoding="utf-8"))["preceptor"]
    assert (info["file_name"], info["formatting"]) == (path.name, "sharegpt")
    row = lines_of(path)[1]
    assert set(info["columns"].values()) <= row.keys()
    assert [each["from"] for each in row["conversations"]] == ["human", "gpt"]


def test_label_studio_tasks_fill_the_review_page(tmp_path: Path, store: Store) -> None:
    tasks = json.loads(written(store, tmp_path / "out", "label-studio").read_text(encoding="utf-8"))
    shown = set(re.findall(r'value="\$(\w+)"', review_page(TaskConfig()).config))
    assert len(shown) > 10
    for task in tasks:
        assert shown <= task["data"].keys()
    values = values_of(tasks[1]["annotations"][0]["result"])
    assert (values["verdict"], values["answer"], values["rationale"]) == ("edit", "3", "1. 1 + 2 = 3")
    assert tasks[1]["meta"]["decision"] == "gold"


def test_no_cell_of_a_table_is_a_formula(tmp_path: Path) -> None:
    made = a_store(tmp_path)
    texts = {"q1": "=1+1", "q2": "-5", "q3": "@SUM(A1)", "q4": "\t=1", "q5": "+49 30", "q6": "fine = fine"}
    items.add(made, [an_item(key, question=text, domain="=cmd|' /C calc'!A0") for key, text in texts.items()])
    opened = queried(made, a_round(made), list(texts))
    for key in texts:
        decided(made, opened, key, DecisionKind.GOLD, a_reply(made, opened, key, steps=["=2"], answer=-2))
    path = written(made, tmp_path / "out", "csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["question"] for row in rows] == ["'=1+1", "-5", "'@SUM(A1)", "'\t=1", "'+49 30", "fine = fine"]
    assert {row["domain"] for row in rows} == {"'=cmd|' /C calc'!A0"}
    assert {row["answer"] for row in rows} == {"-2"}
    assert {tuple(json.loads(row["steps"])) for row in rows} == {("=2",)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what mlcroissant calls
def test_croissant_is_valid_and_finds_the_rows(tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    export(store, RUN, tmp_path / "out", Wanted("croissant"))
    described = mlcroissant.Dataset(jsonld=str(tmp_path / "out" / "croissant.json"))
    rows = list(described.records("examples"))
    assert [row["examples/key"] for row in rows] == [b"q0", b"q1", b"q3", b"q4"]
    assert list(rows[1]["examples/steps"]) == [b"1 + 2 = 3"]
    assert "not standard" not in caplog.text
    (file,) = json.loads((tmp_path / "out" / "croissant.json").read_text(encoding="utf-8"))["distribution"]
    assert file["sha256"] == hashlib.sha256((tmp_path / "out" / "examples.parquet").read_bytes()).hexdigest()


def test_choices_and_labels_read_as_a_model_reads_them(tmp_path: Path) -> None:
    made = a_store(tmp_path)
    config = Config(task=TaskConfig(answer=AnswerKind.CHOICE))
    items.add(made, [an_item("q1", choices=["=red", "blue"], context="Two colours.")])
    opened = queried(made, a_round(made, config), ["q1"])
    rationale = a_reply(made, opened, "q1", steps=["Look."], answer=1)
    correction = rationales.keep_correction(
        made,
        next(each for each in rationales.of_round(made, opened.id or 0) if each.id == rationale),
        steps=["Look."],
        answer=Answer(kind=AnswerKind.CHOICE, value="A"),
    )
    decided(made, opened, "q1", DecisionKind.GOLD, correction.id)
    (row,) = lines_of(written(made, tmp_path / "out", "trl"))
    assert row["prompt"][0]["content"] == "Two colours.\nWhat is q1?\n(A) =red\n(B) blue"
    assert row["completion"][0]["content"] == "1. Look.\nAnswer: (A) =red"
    (task,) = json.loads(written(made, tmp_path / "tasks", "label-studio").read_text(encoding="utf-8"))
    assert [each["alias"] for each in task["data"]["answers"]] == ["(A) =red", "(B) blue"]


def test_a_licence_is_said_where_it_is_known_and_unknown_where_not(tmp_path: Path) -> None:
    made = a_store(tmp_path)
    items.add(made, [an_item("q1", source="known.jsonl:3"), an_item("q2", source="other.csv:4")])
    opened = queried(made, a_round(made), ["q1", "q2"])
    for key in ("q1", "q2"):
        decided(made, opened, key, DecisionKind.GOLD, a_reply(made, opened, key, steps=["one"], answer=1))
    known = ExportConfig(sources={"known.jsonl": "MIT"}, teachers={"panel": "no use against its maker"})
    export(made, RUN, tmp_path / "out", Wanted(terms=known))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| questions | known.jsonl | MIT |" in card
    assert "| questions | other.csv | unknown; ask before you pass this on |" in card
    assert "| rationales | panel | no use against its maker |" in card
    terms = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["terms"]
    assert terms["sources"]["known.jsonl"] == "MIT"


def test_croissant_states_the_licence_of_the_rows_that_are_in_it(tmp_path: Path) -> None:
    made = a_store(tmp_path)
    items.add(made, [an_item("q1", source="known.jsonl:3"), an_item("q2", source="other.csv:4")])
    opened = queried(made, a_round(made), ["q1", "q2"])
    for key in ("q1", "q2"):
        decided(made, opened, key, DecisionKind.GOLD, a_reply(made, opened, key, steps=["one"], answer=1))
    known = ExportConfig(sources={"known.jsonl": "MIT"})
    for where, licence in ((("key=q2",), "unknown"), ((), "MIT; unknown"), (("key=q1",), "MIT")):
        export(made, RUN, tmp_path / "out", Wanted("croissant", where, terms=known))
        said = json.loads((tmp_path / "out" / "croissant.json").read_text(encoding="utf-8"))
        assert said["license"] == licence


def test_rows_come_from_many_pieces_in_the_order_of_their_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "PIECE", 2)
    made = a_store(tmp_path)
    keys = ["Z", "a", "é", "B", "_", "\U0001f600", "\uff5e"]
    items.add(made, [an_item(key) for key in keys])
    opened = queried(made, a_round(made), keys)
    for key in keys:
        decided(made, opened, key, DecisionKind.SILVER, a_reply(made, opened, key, steps=["one"], answer=1))
    found = [each["key"] for each in lines_of(written(made, tmp_path / "out", "jsonl"))]
    assert found == sorted(keys)
