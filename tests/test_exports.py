"""The cleaned dataset and its card."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from connectors.exports import Wanted, export
from loop.config import Config, TeacherConfig
from loop.errors import PreceptorError
from loop.records import DecisionKind, Verdict, VerdictKind
from loop.store import dataset, items, reading, reviews
from loop.store.database import Store, now
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
    sent_to_review,
    trained,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_store(tmp_path)


def examples_of(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["key"]: row for row in map(json.loads, lines)}


def test_every_row_says_where_it_comes_from(tmp_path: Path, store: Store) -> None:
    a_campaign(store)
    exported = export(store, RUN, tmp_path / "out")
    assert (exported.examples, exported.decisions, exported.simulated) == (4, {"gold": 2, "silver": 2}, 2)
    rows = examples_of(tmp_path / "out")
    assert list(rows) == ["q0", "q1", "q3", "q4"]
    silver, gold = rows["q0"], rows["q1"]
    assert (silver["decision"], silver["certified"], silver["authors"]) == ("silver", False, ["teacher"])
    assert (silver["steps"], silver["answer"], silver["answer_kind"]) == (["1 + 1 = 2", "So it is 2."], "2", "number")
    assert (silver["round"], silver["risk"], silver["verdicts"], silver["parents"]) == (1, 0.1, [], [])
    assert (gold["decision"], gold["authors"], gold["steps"], gold["answer"]) == (
        "gold", ["teacher", "human"], ["1 + 2 = 3"], "3"
    )  # fmt: skip
    assert gold["risk"] == 0.5
    assert gold["parents"] == [{"author": "teacher", "steps": ["1 + 1 = 2", "So it is 2."], "stated": "2"}]
    assert (gold["teacher_model"], len(gold["prompt_hash"])) == ("panel", 64)
    (verdict,) = gold["verdicts"]
    assert (verdict["verdict"], verdict["reviewer"], verdict["simulated"]) == ("edit", "reviewer-1", True)


def test_no_person_and_nothing_of_the_holdout_is_in_it(tmp_path: Path, store: Store) -> None:
    a_campaign(store)
    export(store, RUN, tmp_path / "out")
    written = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "out").iterdir())
    assert "ann@example.org" not in written
    assert "987654" not in written
    assert "What is h0?" not in written


def test_the_same_state_gives_the_same_bytes(tmp_path: Path, store: Store) -> None:
    a_campaign(store)
    for name in ("one", "two", "two"):
        export(store, RUN, tmp_path / name)
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert set(one) == {"examples.jsonl", "README.md", "manifest.json"}


def test_the_manifest_vouches_for_the_files(tmp_path: Path, store: Store) -> None:
    closed = a_campaign(store)
    export(store, RUN, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["run"], manifest["round"], manifest["config_hash"]) == (RUN, 2, closed.config_hash)
    for name in ("examples.jsonl", "README.md"):
        content = (tmp_path / "out" / name).read_bytes()
        assert manifest["files"][name] == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_the_card_says_what_is_simulated_and_what_is_not_certified(tmp_path: Path, store: Store) -> None:
    closed = a_campaign(store)
    export(store, RUN, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "**Simulated:** 2 of the 2 verdicts" in card
    assert "2 of 2 silver examples are **not certified**" in card
    assert closed.config_hash in card
    assert "| 1 | 3 | 2 | 1 | 1 | 1 | 0 |" in card
    assert r"| sums \& \<b\>parts\</b\> | 2 | 2 |" in card
    assert "panel" in card


def test_the_card_says_where_the_teacher_was_a_recording(tmp_path: Path, store: Store) -> None:
    a_campaign(store)
    export(store, RUN, tmp_path / "one")
    trained(store, a_round(store, Config(teacher=TeacherConfig(recorded=Path("r.jsonl")))), examples=0, right=0)
    export(store, RUN, tmp_path / "two")
    cards = [(tmp_path / name / "README.md").read_text(encoding="utf-8") for name in ("one", "two")]
    assert ["come from a recording" in card for card in cards] == [False, True]


def test_the_card_of_people_s_work_speaks_of_no_simulation(tmp_path: Path, store: Store) -> None:
    a_campaign(store, simulated=False)
    said = export(store, RUN, tmp_path / "out").summary()
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "imulated" not in card + said


def test_the_newest_decision_of_an_item_counts(tmp_path: Path, store: Store) -> None:
    items.add(store, [an_item("q1")])
    for number, kind in ((1, DecisionKind.SILVER), (2, DecisionKind.REJECTED)):
        opened = queried(store, a_round(store), ["q1"])
        rationale = a_reply(store, opened, "q1", steps=[f"round {number}"], answer=1)
        checked(store, rationale, 0.1)
        decided(store, opened, "q1", kind, rationale)
        trained(store, opened, examples=1, right=0)
        export(store, RUN, tmp_path / str(number))
    assert examples_of(tmp_path / "1").keys() == {"q1"}
    assert examples_of(tmp_path / "2") == {}


def test_a_pseudonym_stays_with_its_reviewer(tmp_path: Path, store: Store) -> None:
    items.add(store, [an_item("q1"), an_item("q2")])
    opened = queried(store, a_round(store), ["q1", "q2"])
    ids = [a_reply(store, opened, key, steps=["one"], answer=1) for key in ("q1", "q2")]
    for rationale in ids:
        checked(store, rationale, 0.9)
    sent_to_review(store, opened, ["q1", "q2"])
    for minute, (rationale, key, reviewer) in enumerate(zip(ids, ("q1", "q2"), ("zoe", "ann"), strict=True)):
        a_verdict(store, rationale, VerdictKind.ACCEPT, reviewer=reviewer, minute=minute)
        decided(store, opened, key, DecisionKind.GOLD, rationale)
    export(store, RUN, tmp_path / "out")
    a_verdict(store, ids[0], VerdictKind.REJECT, reviewer="zoe", minute=9)
    export(store, RUN, tmp_path / "later")
    for folder in ("out", "later"):
        rows = examples_of(tmp_path / folder)
        assert [rows[key]["verdicts"][0]["reviewer"] for key in ("q1", "q2")] == ["reviewer-1", "reviewer-2"]
    assert [each["verdict"] for each in examples_of(tmp_path / "later")["q1"]["verdicts"]] == ["reject"]


def test_a_new_reviewer_s_first_verdict_that_comes_meanwhile_waits_for_the_next_export(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_campaign(store, simulated=False)
    begin = dataset.origins

    def late(*given: Any, **how: Any) -> Any:
        number = next(each.id or 0 for each in reading.rationales_of(store, RUN) if each.item_key == "q1")
        verdict = Verdict(
            board="fake", project="2", annotation="new", updated_at="2026-06-01T12:00:00.000001Z", slot=1, raw={},
            rationale_id=number, reviewer="zoe", kind=VerdictKind.ACCEPT, seconds=9.0, pulled_at=now(),
        )  # fmt: skip
        reviews.RunReviewBook(store, RUN).keep_verdict(verdict)
        return begin(*given, **how)

    monkeypatch.setattr(dataset, "origins", late)
    export(store, RUN, tmp_path / "out")
    assert [each["reviewer"] for each in examples_of(tmp_path / "out")["q1"]["verdicts"]] == ["reviewer-1"]
    export(store, RUN, tmp_path / "out")
    assert len(examples_of(tmp_path / "out")["q1"]["verdicts"]) == 2


def test_an_export_that_was_cut_off_is_made_again(tmp_path: Path, store: Store) -> None:
    a_campaign(store)
    export(store, RUN, tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    (tmp_path / "out" / ".preceptor-partial").mkdir()
    (tmp_path / "out" / "README.md").rename(tmp_path / "out" / ".preceptor-partial" / "README.md")
    assert export(store, RUN, tmp_path / "out").examples == 4
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"examples.jsonl", "README.md", "manifest.json"}


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, store: Store) -> None:
    a_campaign(store)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(PreceptorError, match="name an empty folder"):
        export(store, RUN, tmp_path / "home")
    assert (tmp_path / "home" / "README.md").read_text(encoding="utf-8") == "mine"


def test_a_file_in_the_way_is_named(tmp_path: Path, store: Store) -> None:
    a_campaign(store)
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    with pytest.raises(PreceptorError, match="taken: a file is in the way"):
        export(store, RUN, tmp_path / "taken")


def test_an_unknown_format_and_an_unknown_run_are_named(tmp_path: Path, store: Store) -> None:
    with pytest.raises(PreceptorError, match="xml: unknown format; known: jsonl"):
        export(store, RUN, tmp_path / "out", Wanted("xml"))
    with pytest.raises(PreceptorError, match="run nothing has no round yet"):
        export(store, "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()
