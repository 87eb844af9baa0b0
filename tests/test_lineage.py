"""What a doubted model, prompt or moment touched is found from the row to the student, and can be put back."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from sqlmodel import col, select
from typer.testing import CliRunner

from connectors import versions
from connectors.cli import app
from connectors.exports import Wanted, export
from connectors.forget import Forgetting
from connectors.history import history, history_text
from connectors.progress import RichProgress
from connectors.recalls import Recalled, recall, recall_summary
from connectors.status import status, status_text
from connectors.wiring import Project
from loop.config import Config, TeacherConfig
from loop.errors import PreceptorError
from loop.records import Checkpoint, DecisionKind, Prompt, Rationale, Reply, VerdictKind
from loop.stages.redecide import redecide
from loop.store import decisions, pool, reading, withdrawals
from loop.store.asking import RoundAskBook
from loop.store.database import Store
from loop.store.tainted import Grounds
from tests.builders import (
    NOON,
    RUN,
    a_campaign,
    a_number,
    a_reply,
    a_round,
    a_store,
    a_verdict,
    checked,
    decided,
    decided_kinds,
    id_of,
    queried,
    sent_to_review,
    trained,
)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a campaign that two people reviewed, with replies of the model `panel`, to be copied."""
    folder = tmp_path_factory.mktemp("campaign")
    made = a_store(folder)
    a_campaign(made, simulated=False)
    made.close()
    return folder / "store.db"


@pytest.fixture
def project(tmp_path: Path, campaign: Path) -> Iterator[Project]:
    """A project whose campaign was made in its store."""
    file, database = tmp_path / "config.toml", shutil.copy(campaign, tmp_path)
    run = f'[run]\nname = "main"\ndatabase = "sqlite:///{database}"\n'
    file.write_text(run + '[review]\nboard = "fake"\n', encoding="utf-8")
    opened = Project(file, RichProgress(Console(quiet=True)))
    yield opened
    opened.store.close()


def other_model(store: Store, key: str, kind: DecisionKind, model: str = "newcomer", when: datetime = NOON) -> str:
    """A third round in which another model is asked; the hash of its prompt."""
    opened = queried(store, a_round(store), [key])
    book = RoundAskBook(store, RUN, id_of(opened), TeacherConfig(model=model))
    prompt = Prompt(hash=f"{opened.number:064x}", body={"messages": [key, model]})
    charge = book.reserve(f"ask/{opened.id}/{key}/0/1", 2000)
    reply = Reply(
        round_id=id_of(opened), item_key=key, prompt_hash=prompt.hash, teacher=model, model=f"{model}-2026",
        text="raw", finish_reason="stop", input_tokens=1, output_tokens=1, created_at=when,
    )  # fmt: skip
    row = Rationale(
        item_key=key, round_id=id_of(opened), author="teacher", steps=["Newly said."], answer=a_number(7), stated="7",
        teacher=model,
    )  # fmt: skip
    book.keep(charge, 1000, prompt, reply, row)
    number = reading.rationales_of(store, RUN)[-1].id
    checked(store, number or 0, 0.1)
    decided(store, opened, key, kind, number)
    trained(store, opened, examples=5, right=3)
    return prompt.hash


def looked_at(project: Project, grounds: Grounds) -> Recalled:
    return recall(project, grounds, reason=None, sure=False)


def rows_of(found: Recalled) -> list[str]:
    return sorted(each.item_key for each in found.touched.decisions)


# --- what is touched --------------------------------------------------------------------------------------------------


def test_a_model_is_followed_to_rows_versions_students_and_exports(project: Project, tmp_path: Path) -> None:
    store = project.store
    versions.name(store, RUN, "before")
    other_model(store, "q7", DecisionKind.SILVER)
    export(store, RUN, tmp_path / "out")
    versions.name(store, RUN, "after")
    found = looked_at(project, Grounds(teacher_model="newcomer"))
    assert rows_of(found) == ["q7"]
    assert [each.partition("(")[2] for each in found.versions] == ["after): 1 of 5"]
    assert found.students == ("round-3",)
    assert found.exports == (str(tmp_path / "out"),)
    assert looked_at(project, Grounds(teacher_model="newcomer-2026")).touched.decisions == found.touched.decisions
    first = looked_at(project, Grounds(teacher_model="panel"))
    assert rows_of(first) == ["q0", "q1", "q2", "q3", "q4", "q5"]  # q1 and q4 as people corrected them
    assert [each.partition("(")[2] for each in first.versions] == ["before): 4 of 4", "after): 4 of 5"]
    assert first.students == ("round-1", "round-2", "round-3")


def test_what_was_decided_anew_is_still_found_in_what_was_made_before(project: Project) -> None:
    versions.name(project.store, RUN, "v1")
    other_model(project.store, "q0", DecisionKind.SILVER)
    versions.name(project.store, RUN, "v2")
    found = looked_at(project, Grounds(teacher_model="panel"))
    assert "q0" not in rows_of(found)
    assert [each.partition("(")[2] for each in found.versions] == ["v1): 4 of 4", "v2): 3 of 4"]
    newer = looked_at(project, Grounds(teacher_model="newcomer"))
    assert (rows_of(newer), newer.students) == (["q0"], ("round-3",))


def test_what_was_refused_is_found_where_rows_were_chosen_so_or_steps_were_labelled(
    project: Project, tmp_path: Path
) -> None:
    store, forms = (
        project.store,
        {"all": Wanted(), "refused": Wanted(where=("decision=rejected",)), "prm": Wanted("prm")},
    )
    a_verdict(store, 3, VerdictKind.REJECT, minute=6, marks={"1": "redundant"})
    for name, wanted in forms.items():
        export(store, RUN, tmp_path / name, wanted)

    def told(key: str) -> list[set[str]]:
        row = next(each for each in history(store, RUN, key)["prompts"])
        found = (
            [each["folder"] for each in history(store, RUN, key)["exports"]],
            looked_at(project, Grounds(prompt=row["hash"])).exports,
            Forgetting(project, key).plan.exports,
        )
        return [{Path(folder).name for folder in each} for each in found]

    assert told("q2") == [{"refused", "prm"}] * 3
    assert told("q1") == [{"all", "prm"}] * 3


def test_pairs_and_step_labels_hold_what_was_rejected_before(project: Project, tmp_path: Path) -> None:
    other_model(project.store, "q2", DecisionKind.SILVER)
    a_verdict(project.store, 3, VerdictKind.REJECT, minute=6, marks={"1": "redundant"})
    for form in ("dpo", "prm", "chat"):
        export(project.store, RUN, tmp_path / form, Wanted(form, where=("key=q2",)))
    prompt = history(project.store, RUN, "q2")["replies"][0]["prompt_hash"]
    for grounds in (Grounds(prompt=prompt), Grounds(reviewer="reviewer-1", prompt=prompt)):
        assert {Path(each).name for each in looked_at(project, grounds).exports} == {"dpo", "prm"}
    newer = history(project.store, RUN, "q2")["replies"][1]["prompt_hash"]
    assert {Path(each).name for each in looked_at(project, Grounds(prompt=newer)).exports} == {"dpo", "prm", "chat"}


def test_a_student_of_pairs_learned_what_was_rejected_before(project: Project) -> None:
    other_model(project.store, "q2", DecisionKind.SILVER)
    prompt = history(project.store, RUN, "q2")["replies"][0]["prompt_hash"]
    assert looked_at(project, Grounds(prompt=prompt)).students == ()
    with project.store.writing() as session:
        newest = session.exec(select(Checkpoint).order_by(col(Checkpoint.id).desc())).first()
        assert newest is not None
        newest.card = {"preference_pairs": 1, "last_decision": decisions.last_id(project.store, RUN)}
        session.add(newest)
    assert looked_at(project, Grounds(prompt=prompt)).students == (newest.folder,)


def test_a_student_knows_what_its_card_says_whatever_the_clock_said(project: Project) -> None:
    store = project.store
    last = decisions.last_id(store, RUN)
    with store.writing() as session:
        for each in session.exec(select(Checkpoint)):
            each.card = {"last_decision": last - 1 if each.folder == "round-2" else 0}
    assert [each["round"] for each in history(store, RUN, "q4")["trained_in"]] == [2]
    assert history(store, RUN, "q1")["trained_in"][0]["round"] == 2
    assert looked_at(project, Grounds(teacher_model="panel")).students == ("round-2",)


def test_a_prompt_is_meant_by_the_beginning_of_its_hash(project: Project) -> None:
    row = history(project.store, RUN, "q3")["prompts"][0]["hash"]
    assert rows_of(looked_at(project, Grounds(prompt=row[:8]))) == ["q3"]


def test_what_several_name_is_doubted_only_where_all_hold(project: Project) -> None:
    later = NOON + timedelta(days=30)
    prompt = other_model(project.store, "q7", DecisionKind.SILVER, model="panel", when=later)
    since = Grounds(teacher_model="panel", since=NOON + timedelta(days=1))
    assert rows_of(looked_at(project, since)) == ["q7"]
    with pytest.raises(PreceptorError, match="no decision rests on that since 2026-03"):
        looked_at(project, Grounds(prompt=prompt, since=datetime(2026, 3, 1, tzinfo=UTC)))
    of_q1 = history(project.store, RUN, "q1")["prompts"][0]["hash"]
    verdicts = looked_at(project, Grounds(reviewer="reviewer-1", prompt=of_q1)).touched.verdicts
    assert len(verdicts) == 1
    with pytest.raises(PreceptorError, match="reviewer-1 gave no verdict on such replies that still counts"):
        looked_at(project, Grounds(reviewer="reviewer-1", prompt=prompt))


def test_a_moment_alone_means_what_was_decided_since(project: Project) -> None:
    assert rows_of(looked_at(project, Grounds(since=NOON))) == ["q0", "q1", "q2", "q3", "q4", "q5"]
    with pytest.raises(PreceptorError, match="no decision rests on that since 2030-01-01"):
        looked_at(project, Grounds(since=datetime(2030, 1, 1, tzinfo=UTC)))


def test_a_reviewer_needs_no_moment(project: Project) -> None:
    found = looked_at(project, Grounds(reviewer="reviewer-1"))
    assert len(found.touched.verdicts) == 4
    assert "4 verdicts of reviewer-1 would no longer count" in recall_summary(found, sure=False)[0]


# --- putting back -----------------------------------------------------------------------------------------------------


def test_nothing_is_changed_unless_it_is_sure(project: Project) -> None:
    before = reading.decisions_of(project.store, RUN)
    said = CliRunner().invoke(app, ["recall", "--config", str(project.path), "--teacher-model", "panel"])
    assert "nothing was changed; --apply does it" in said.output
    assert "rows: q0 (silver), q1 (gold), q2 (rejected)" in said.output
    assert reading.decisions_of(project.store, RUN) == before


def test_rows_of_a_doubted_model_are_undecided_again_and_may_be_asked_again(project: Project) -> None:
    store = project.store
    assert [*pool.keys(store, RUN, Config())] == ["q2", "q5", "q6", "q7"]
    command = ["recall", "--config", str(project.path), "--teacher-model", "panel", "--reason", "bad", "--apply"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    assert "6 rows rest on replies by panel; they are put back (bad)" in said.output
    assert "6 of these items can be asked again" in said.output
    assert set(decided_kinds(store).values()) == {"undecided"}
    assert len([*pool.keys(store, RUN, Config())]) == pool.count(store, RUN, Config()) == 8
    assert "recall 1: what panel replied no longer counts (bad)" in decisions.newest(store, RUN)["q1"].reason
    again = CliRunner().invoke(app, command)
    assert "0 rows rest on replies by panel" in again.output
    found = status(store, RUN, project.config)
    assert found["review"]["recalls"][0]["teacher_model"] == "panel"
    console = Console(width=200)
    with console.capture() as captured:
        console.print(status_text(found))
    assert "what panel replied; 6 decisions put back to undecided (bad)" in captured.get()


def test_what_people_said_of_a_doubted_reply_does_not_bring_it_back(project: Project) -> None:
    store = project.store
    recall(project, Grounds(teacher_model="panel"), reason=None, sure=True)
    assert redecide(store, RUN, Config()) == 0
    number = next(each.id or 0 for each in reading.rationales_of(store, RUN) if each.item_key == "q1")
    a_verdict(store, number, VerdictKind.ACCEPT, minute=30)
    assert redecide(store, RUN, Config()) == 0
    other_model(store, "q1", DecisionKind.SILVER)
    assert redecide(store, RUN, Config()) == 0  # gold goes before what is not, but not such gold
    assert decided_kinds(store)["q1"] == "silver"


def undecided_replies(store: Store, key: str) -> int:
    """A round in which `panel` was asked about an item and nothing was decided; the rationale's id."""
    opened = queried(store, a_round(store), [key])
    number = a_reply(store, opened, key, steps=["again"], answer=1)
    sent_to_review(store, opened, [key])
    decided(store, opened, key, DecisionKind.UNDECIDED, number)
    return number


def test_a_late_word_for_a_doubted_reply_that_was_undecided_decides_nothing(project: Project) -> None:
    number = undecided_replies(project.store, "q7")
    assert "q7" in rows_of(recall(project, Grounds(teacher_model="panel"), reason=None, sure=True))
    a_verdict(project.store, number, VerdictKind.ACCEPT)
    assert redecide(project.store, RUN, Config()) == 0
    assert decided_kinds(project.store)["q7"] == "undecided"
    assert rows_of(looked_at(project, Grounds(teacher_model="panel"))) == []


def test_nor_does_one_for_a_doubted_reply_of_an_earlier_round(project: Project) -> None:
    number = undecided_replies(project.store, "q7")
    other_model(project.store, "q7", DecisionKind.SILVER)
    recall(project, Grounds(teacher_model="panel"), reason="bad", sure=True)
    assert decided_kinds(project.store)["q7"] == "silver"
    a_verdict(project.store, number, VerdictKind.ACCEPT)
    assert redecide(project.store, RUN, Config()) == 0
    assert decided_kinds(project.store)["q7"] == "silver"
    assert status(project.store, RUN, project.config)["review"]["recalls"][0]["decisions"] == 6


def test_nor_one_for_a_reply_that_waited_to_be_reviewed_again(project: Project) -> None:
    recall(project, Grounds(reviewer="reviewer-1"), reason=None, sure=True)
    recall(project, Grounds(teacher_model="panel"), reason=None, sure=True)
    assert withdrawals.awaiting(project.store, RUN) == {}
    number = next(each.id or 0 for each in reading.rationales_of(project.store, RUN) if each.item_key == "q2")
    a_verdict(project.store, number, VerdictKind.ACCEPT, minute=30)
    assert redecide(project.store, RUN, Config()) == 0


def test_verdicts_of_people_stay_said(project: Project) -> None:
    before = len(reading.verdicts_of(project.store, RUN))
    recall(project, Grounds(teacher_model="panel"), reason=None, sure=True)
    assert len(reading.verdicts_of(project.store, RUN)) == before == 4


def test_items_that_were_asked_as_often_as_is_allowed_are_counted(project: Project) -> None:
    opened = queried(project.store, a_round(project.store), ["q0"])
    number = a_reply(project.store, opened, "q0", steps=["again"], answer=1)
    decided(project.store, opened, "q0", DecisionKind.SILVER, number)
    said = recall_summary(looked_at(project, Grounds(teacher_model="panel")), sure=False)
    assert "5 of these items can be asked again, 1 were asked query.max_asks times" in said[1]


def test_what_is_asked_and_not_decided_yet_is_said(project: Project) -> None:
    opened = queried(project.store, a_round(project.store), ["q7"])
    a_reply(project.store, opened, "q7", steps=["again"], answer=1)
    found = looked_at(project, Grounds(teacher_model="panel"))
    assert found.touched.open_items == ("q7",)
    assert "1 more items are not decided yet: recall again once they are" in recall_summary(found, sure=False)[1]


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grounds", "told"),
    [
        (Grounds(), "nothing is doubted; name --reviewer, --teacher-model, --prompt or --since"),
        (Grounds(teacher_model="gpt-9"), "gpt-9: no teacher of the run is called so; known: panel"),
        (Grounds(prompt="abc"), "abc: no prompt of the run has this hash"),
        (Grounds(prompt="zzzzzzzz"), "zzzzzzzz: no prompt of the run has this hash"),
        (Grounds(reviewer="carl"), "carl: no such reviewer; known: reviewer-1"),
    ],
)
def test_what_is_not_known_is_told_with_what_is(project: Project, grounds: Grounds, told: str) -> None:
    with pytest.raises(PreceptorError, match=told):
        recall(project, grounds, reason=None, sure=True)


def test_a_hash_that_two_prompts_begin_with_is_not_guessed(project: Project) -> None:
    for key in ("q6", "q7"):
        other_model(project.store, key, DecisionKind.SILVER, model=f"of {key}")
    with pytest.raises(PreceptorError, match="000000: 2 prompts begin so; name more of the hash"):
        looked_at(project, Grounds(prompt="000000"))


# --- history ----------------------------------------------------------------------------------------------------------


def test_history_goes_from_the_question_to_who_holds_it(project: Project, tmp_path: Path) -> None:
    store = project.store
    named = versions.name(store, RUN, "v1")
    export(store, RUN, tmp_path / "out", None)
    recall(project, Grounds(teacher_model="panel"), reason="bad", sure=True)
    found = json.loads(json.dumps(history(store, RUN, "q1"), default=str))
    assert [each["kind"] for each in found["decisions"]] == ["gold", "undecided"]
    assert [(each["names"], each["decision"]) for each in found["versions"]] == [(["v1"], "gold")]
    assert [each["folder"] for each in found["exports"]] == [str(tmp_path / "out")]
    console = Console(width=250)
    with console.capture() as captured:
        console.print(history_text(found))
    text = captured.get()
    for line in (
        "panel, 0 demonstrations",
        "flag arithmetic, step 1",
        "round 1: risk; not on a board",
        "edit by reviewer-1",
        "round 1: gold (because it is gold)",
        "(recall 1: what panel replied no longer counts (bad))",
        f"version {named.hash[:12]} (v1): gold",
        "checkpoint round-1",
        f"{tmp_path / 'out'} (jsonl of version {named.hash[:12]})",
    ):
        assert line in text, line
