"""A reviewer is taken back: what they said counts no longer, what rested on it is reviewed again, nothing is lost."""

import json
import sqlite3
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy import event
from typer.testing import CliRunner

from connectors import campaign, sources
from connectors.cli import app
from connectors.exports import export
from connectors.history import history, history_text
from connectors.progress import RichProgress
from connectors.recalls import recall
from connectors.report_page import page
from connectors.reviewers import review_text
from connectors.reviewing import review_state
from connectors.status import status
from connectors.wiring import Project
from loop.answer import AnswerKind
from loop.config import Config, TaskConfig
from loop.errors import PreceptorError
from loop.records import (
    ADJUDICATION,
    CONTROL,
    Author,
    Decision,
    DecisionKind,
    Flag,
    Rationale,
    ReviewTask,
    Split,
    Verdict,
    VerdictKind,
    role,
)
from loop.stages import review
from loop.store import decisions, items, planted, pool, rationales, reading, reviews, rounds, withdrawals
from loop.store.database import Store
from loop.store.tainted import Grounds
from review.task import Details, board_task
from tests.builders import (
    NOON,
    RUN,
    a_campaign,
    a_reply,
    a_round,
    a_store,
    an_item,
    checked,
    decided,
    id_of,
    queried,
    sent_to_review,
)
from tests.tiny import tiny_project

LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = a_store(tmp_path)
    yield opened
    opened.close()


def say(store: Store, rationale: int, who: str, kind: VerdictKind, slot: int = 0, minute: int = 0) -> None:
    verdict = Verdict(
        board="fake", project=str(slot), annotation=f"{rationale}/{who}/{slot}", rationale_id=rationale, slot=slot,
        updated_at=f"2026-01-01T12:{minute:02}:00.000001Z", reviewer=who, kind=kind, seconds=30.0, raw={},
        pulled_at=NOON,
    )  # fmt: skip
    reviews.RunReviewBook(store, RUN).keep_verdict(verdict)


def reviewed(store: Store, *said: tuple[str, VerdictKind, int], kind: DecisionKind = DecisionKind.GOLD) -> int:
    """An item that was asked, reviewed by these and decided; the rationale's id."""
    items.add(store, [an_item("q1")])
    opened = queried(store, a_round(store), ["q1"])
    number = a_reply(store, opened, "q1", steps=["1 + 1 = 2"], answer=2)
    checked(store, number, 0.5, "odd")
    sent_to_review(store, opened, ["q1"])
    for minute, (who, verdict, slot) in enumerate(said):
        say(store, number, who, verdict, slot, minute)
    decided(store, opened, "q1", kind, number)
    return number


def in_force(store: Store) -> tuple[DecisionKind, str]:
    row = decisions.newest(store, RUN)["q1"]
    return row.kind, row.reason


# --- in the store ----------------------------------------------------------------------------------------------------


def test_verdicts_are_read_of_more_rationales_than_a_statement_takes(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    items.add(store, [an_item("q1")])
    number = a_reply(store, queried(store, a_round(store), ["q1"]), "q1", steps=["one"], answer=1)
    say(store, number, "ann", VerdictKind.ACCEPT)
    assert [*reviews.verdicts(store, range(1, 260_000))] == [number]


def test_a_decision_that_rested_on_a_withdrawn_verdict_goes_back_to_undecided(store: Store) -> None:
    number = reviewed(store, ("bad", VerdictKind.ACCEPT, 0))
    withdrawals.withdraw(store, RUN, Grounds("bad", since=LONG_AGO), "never looked")
    kind, reason = in_force(store)
    assert kind is DecisionKind.UNDECIDED
    assert "recall 1" in reason
    assert "never looked" in reason
    assert reviews.verdicts(store, [number]) == {}
    assert reading.verdicts_of(store, RUN) == []
    assert [each.reviewer for each in reviews.versions(store, RUN)] == ["bad"]
    assert [row.kind for row in reading.decisions_of(store, RUN)] == [DecisionKind.GOLD, DecisionKind.UNDECIDED]


def test_what_others_said_stays(store: Store) -> None:
    number = reviewed(store, ("bad", VerdictKind.ACCEPT, 0), ("good", VerdictKind.EDIT, 1))
    withdrawals.withdraw(store, RUN, Grounds("bad", since=LONG_AGO), "")
    assert [each.reviewer for each in reviews.verdicts(store, [number])[number]] == ["good"]


def test_a_decision_that_somebody_else_made_in_adjudication_stays(store: Store) -> None:
    reviewed(
        store,
        ("bad", VerdictKind.ACCEPT, 0),
        ("good", VerdictKind.EDIT, 1),
        ("judge", VerdictKind.ACCEPT, ADJUDICATION),
    )
    assert withdrawals.withdraw(store, RUN, Grounds("bad", since=LONG_AGO), "").decisions == ()
    assert in_force(store)[0] is DecisionKind.GOLD


def test_verdicts_before_the_date_still_count(store: Store) -> None:
    number = reviewed(store, ("bad", VerdictKind.ACCEPT, 0))
    found = withdrawals.withdraw(store, RUN, Grounds("bad", since=NOON.replace(hour=13)), "")
    assert found.verdicts == ()
    assert reviews.verdicts(store, [number])
    assert in_force(store)[0] is DecisionKind.GOLD


def test_what_was_accepted_unreviewed_rests_on_no_verdict(store: Store) -> None:
    reviewed(store, ("bad", VerdictKind.ACCEPT, 0), kind=DecisionKind.SILVER)
    assert withdrawals.withdraw(store, RUN, Grounds("bad", since=LONG_AGO), "").decisions == ()


@pytest.mark.sqlite("it limits the values of a statement")
def test_more_decisions_than_one_statement_can_name_are_looked_up(store: Store) -> None:
    number = reviewed(store, ("bad", VerdictKind.ACCEPT, 0))
    event.listen(store._engine, "checkout", lambda raw, *_: raw.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999))
    many = [Decision(rationale_id=number + each) for each in range(2000)]
    assert list(withdrawals.with_queries(store, many)) == ["q1"]


def test_a_recalled_item_waits_for_its_review_and_is_not_asked_meanwhile(store: Store) -> None:
    number = reviewed(store, ("bad", VerdictKind.REJECT, 0), kind=DecisionKind.REJECTED)
    assert [*pool.keys(store, RUN, Config())] == ["q1"]
    withdrawals.withdraw(store, RUN, Grounds("bad", since=LONG_AGO), "")
    assert pool.count(store, RUN, Config()) == 0
    assert [(row.id, task.slot) for row, task in withdrawals.to_review_again(store, RUN)] == [(number, 0)]


def test_a_review_that_was_made_again_is_not_wanted_a_third_time(store: Store) -> None:
    number = reviewed(store, ("bad", VerdictKind.ACCEPT, 0), ("good", VerdictKind.ACCEPT, 1))
    withdrawals.withdraw(store, RUN, Grounds("bad", since=LONG_AGO), "")
    opened = a_round(store)
    ((rationale, task),) = withdrawals.to_review_again(store, RUN)
    wanted = [reviews.Wanted(rationale, "risk", f"{task.uid}/again", task.slot + 3)]
    assert len(reviews.open_tasks(store, RUN, id_of(opened), wanted, 1_000)) == 1
    assert withdrawals.to_review_again(store, RUN) == []
    say(store, number, "worse", VerdictKind.ACCEPT, slot=3, minute=30)
    assert role(3) == 0
    withdrawals.withdraw(store, RUN, Grounds("worse", since=LONG_AGO), "")
    assert [again.slot for _, again in withdrawals.to_review_again(store, RUN)] == [3]


def test_what_a_reviewer_says_after_the_recall_counts(store: Store) -> None:
    number = reviewed(store, ("bad", VerdictKind.ACCEPT, 0))
    withdrawals.withdraw(store, RUN, Grounds("bad", since=LONG_AGO), "")
    say(store, number, "bad", VerdictKind.EDIT, slot=0, minute=50)
    assert [each.kind for each in reviews.verdicts(store, [number])[number]] == [VerdictKind.EDIT]


def test_withdrawn_verdicts_teach_the_checks_nothing(store: Store) -> None:
    reviewed(store, ("bad", VerdictKind.REJECT, 0))
    later = NOON.replace(year=2027)
    assert [each.wrong for each in rationales.judged(store, RUN, later)] == [True]
    withdrawals.withdraw(store, RUN, Grounds("bad", since=LONG_AGO), "")
    assert rationales.judged(store, RUN, later) == []


def test_a_control_made_from_what_a_recall_made_doubtful_measures_nobody(store: Store) -> None:
    number = reviewed(store, ("bad", VerdictKind.ACCEPT, 0))
    current = a_round(store)
    row = Rationale(
        item_key="q1", round_id=id_of(current), author=Author.TEACHER, steps=["1 + 1 = 2"], planted=CONTROL,
        planted_from=number,
    )  # fmt: skip
    planted.keep(store, [row])
    assert len(planted.shown(store, RUN)) == 1
    withdrawals.withdraw(store, RUN, Grounds("bad", since=LONG_AGO), "")
    assert planted.shown(store, RUN) == []


def test_the_history_says_when_and_why_a_verdict_stopped_to_count(store: Store) -> None:
    reviewed(store, ("bad", VerdictKind.ACCEPT, 0))
    withdrawals.withdraw(store, RUN, Grounds("bad", since=LONG_AGO), "never looked")
    console = Console(width=200)
    with console.capture() as captured:
        console.print(history_text(history(store, RUN, "q1")))
    assert "accept by reviewer-1, 30 s; no longer counts since" in captured.get()
    assert "(never looked)" in captured.get()


def test_students_that_learnt_before_the_recall_are_still_said_to_have(store: Store) -> None:
    a_campaign(store, simulated=False)
    before = history(store, RUN, "q1")["trained_in"]
    withdrawals.withdraw(store, RUN, Grounds("ann@example.org", since=LONG_AGO), "")
    assert [each["round"] for each in before] == [1, 2]
    assert history(store, RUN, "q1")["trained_in"] == before


def test_a_recall_moves_an_item_from_gold_to_undecided_in_the_counts(store: Store) -> None:
    a_campaign(store, simulated=False)
    withdrawals.withdraw(store, RUN, Grounds("ann@example.org", since=LONG_AGO), "")
    found = status(store, RUN, Config())
    assert {kind: found["items"][kind] for kind in ("gold", "silver", "rejected", "undecided")} == {
        "gold": 0, "silver": 2, "rejected": 0, "undecided": 4
    }  # fmt: skip
    assert [(each["gold"], each["undecided"]) for each in found["rounds"]] == [(0, 2), (0, 2)]
    assert found["review"]["recalls"][0]["verdicts"] == 4
    text = page(store, RUN, Config())
    assert "4 verdicts of reviewer-1 since 2025-01-01" in text
    assert "ann@example.org" not in text


# --- what is told of reviewers ---------------------------------------------------------------------------------------


def test_status_holds_each_reviewers_work_and_their_agreement(store: Store) -> None:
    a_campaign(store, simulated=False)
    found = json.loads(json.dumps(status(store, RUN, Config())))["review"]
    (ann,) = found["reviewers"]
    assert (ann["reviewer"], ann["simulated"], ann["done"], ann["accused"]) == ("reviewer-1", False, 4, False)
    assert ann["edits"]["edits"] == 2
    assert ann["sensitivity"] is None
    assert found["simulated"] is None
    assert {each["value"] for each in found["people"]["agreement"]} == {None}
    assert found["people"]["agreement"][0]["why"] == "no two reviewers judged the same"
    assert found["people"]["anchoring"]["verdict"].startswith("undecided")


def test_simulated_reviewers_are_never_counted_with_people(store: Store) -> None:
    a_campaign(store, simulated=True)
    found = status(store, RUN, Config())["review"]
    assert found["people"] is None
    assert found["simulated"]["agreement"]
    assert [each["simulated"] for each in found["reviewers"]] == [True]


def test_two_blind_reviews_give_agreement_and_a_consensus(store: Store) -> None:
    items.add(store, [an_item(f"q{number}") for number in range(12)])
    keys = [f"q{number}" for number in range(12)]
    opened = queried(store, a_round(store), keys)
    for at, key in enumerate(keys):
        number = a_reply(store, opened, key, steps=["1 + 1 = 2"], answer=2)
        checked(store, number, 0.5, "odd")
        for slot, who in enumerate(("ann", "ben")):
            kind = VerdictKind.ACCEPT if at % 2 or (at == 0 and slot) else VerdictKind.REJECT
            say(store, number, who, kind, slot, at)
    found = status(store, RUN, Config())["review"]["people"]
    figures = {(each["question"], each["measure"]): each for each in found["agreement"]}
    alpha = figures["verdict", "Krippendorff's alpha"]
    assert 0.7 < alpha["value"] < 0.95
    assert alpha["low"] < alpha["value"] < alpha["high"]
    assert figures["verdict", "Cohen's kappa"]["between"] == ["reviewer-1", "reviewer-2"]
    assert found["consensus"]["n"] == 12
    assert found["consensus"]["confusion"]["reviewer-1"]["accept"]["accept"] > 0.8
    assert "Dawid and Skene" in page(store, RUN, Config())


def test_who_accepts_two_planted_errors_in_a_row_is_accused_in_status_report_and_terminal(store: Store) -> None:
    a_campaign(store, simulated=False)
    source = rationales.of_round(store, 1)[0]
    current = a_round(store)
    for minute in (40, 41):
        row = Rationale(
            item_key=source.item_key, round_id=id_of(current), author=Author.TEACHER, steps=["1 + 1 = 3"],
            planted="arithmetic", planted_from=source.id,
        )  # fmt: skip
        planted.keep(store, [row])
        checked(store, row.id or 0, 0.4)
        say(store, row.id or 0, "stamp", VerdictKind.ACCEPT, minute=minute)
    found = status(store, RUN, Config())["review"]
    (accused,) = [each for each in found["reviewers"] if each["accused"]]
    assert (accused["reviewer"], accused["sensitivity"]["found"], accused["sensitivity"]["n"]) == ("reviewer-2", 0, 2)
    assert "accepted 2 of 2 planted errors" in accused["reason"]
    for line in (" ".join(review_text(found)), page(store, RUN, Config())):
        assert "reviewer-2 seems to accept without looking" in line
        assert "preceptor recall --reviewer reviewer-2 --since DATE" in line


# --- reviews that show no doubts -------------------------------------------------------------------------------------


def test_a_share_of_the_reviews_shows_no_doubts_the_same_for_the_same_seed(store: Store) -> None:
    number = reviewed(store, ("ann", VerdictKind.ACCEPT, 0))
    rationale = next(each for each in rationales.of_round(store, 1) if each.id == number)
    sent = [reviews.Wanted(rationale, "risk", f"main/1/{place}", slot) for place in range(500) for slot in (0, 2)]
    config = Config()
    drawn = review._without_doubts(sent, config)
    assert drawn == review._without_doubts(sent, config)
    assert 30 <= sum(each.unflagged for each in drawn if each.slot == 0) <= 70
    assert not any(each.unflagged for each in drawn if each.slot == ADJUDICATION)
    other = config.model_copy(update={"run": config.run.model_copy(update={"seed": 1})})
    assert drawn != review._without_doubts(sent, other)


def test_a_review_without_doubts_shows_all_but_them() -> None:
    rationale = Rationale(id=1, item_key="q1", round_id=1, author=Author.TEACHER, steps=["1 + 1 = 3"], stated="3")
    flags = (
        Flag(rationale_id=1, check_name="arithmetic", step=0, evidence="it is 2", weight=0.9),
        Flag(rationale_id=1, check_name="dissent", evidence="the student says 2", weight=0.9),
    )
    details, task = Details(flags=flags, risk=0.9, student_answer=None), TaskConfig(answer=AnswerKind.NUMBER)
    shown, unseen = (
        board_task(
            ReviewTask(rationale_id=1, round_id=1, uid="u", reason="risk", unflagged=unflagged),
            rationale, an_item("q1"), details, task,
        ).data
        for unflagged in (False, True)
    )  # fmt: skip
    assert {name for name in shown if shown[name] != unseen[name]} == {"evidence_0", "doubts"}
    assert (unseen["evidence_0"], unseen["doubts"]) == ("", "")


# --- end to end on the fake board ------------------------------------------------------------------------------------


def test_a_recall_is_shown_first_done_when_sure_and_reviewed_again_in_the_next_round(tmp_path: Path) -> None:
    file = tiny_project(tmp_path, rounds=1, sums=18)
    project = Project(file, RichProgress(Console(quiet=True)))
    for split in (Split.POOL, Split.HOLDOUT):
        sources.ingest(
            [tmp_path / f"{split.value}.jsonl"], project.store, split=split, pool=project.config.pool,
            task=project.config.task, progress=project.progress,
        )  # fmt: skip
    go_on(project, 1)
    export(project.store, "tiny", tmp_path / "out")
    before = decisions.newest(project.store, "tiny")
    rested = {key for key, row in before.items() if row.kind in (DecisionKind.GOLD, DecisionKind.REJECTED)}
    assert rested
    assert "reviewer-1 is 1 on the board" in review_state(project)

    run = CliRunner()
    asked = ["recall", "--config", str(file), "--reviewer", "reviewer-1", "--since", "2020-01-01"]
    shown = run.invoke(app, asked)
    assert shown.exit_code == 0
    assert "nothing was changed; --apply does it" in shown.output
    assert f"{len(rested)} items go to review again" in shown.output
    assert "students that learnt from them: round-1" in shown.output
    assert str(tmp_path / "out") in shown.output.replace("\n", "")
    assert decisions.newest(project.store, "tiny") == before

    done = run.invoke(app, [*asked, "--reason", "too quick", "--apply"])
    assert done.exit_code == 0
    assert "`preceptor run --rounds 2` goes on" in done.output
    after = decisions.newest(project.store, "tiny")
    assert {key for key, row in after.items() if "too quick" in row.reason} == rested
    assert run.invoke(app, asked).exit_code == 1  # nothing of theirs counts any more

    go_on(project, 2)
    again = decisions.newest(project.store, "tiny")
    assert {key: again[key].kind for key in rested} == {key: before[key].kind for key in rested}
    assert {again[key].round_id for key in rested} == {2}
    slots = [task.slot for task in reading.tasks_of(project.store, "tiny") if task.round_id == 2]
    assert slots.count(3) == len(rested)
    assert withdrawals.awaiting(project.store, "tiny") == {}

    for last in range(3, 9):
        go_on(project, last)
    assert pool.count(project.store, "tiny", Config()) == 0
    withdrawals.withdraw(project.store, "tiny", Grounds("1", since=LONG_AGO), "again")
    waiting = withdrawals.awaiting(project.store, "tiny")
    assert waiting
    closed = max(each.number for each in rounds.all_rounds(project.store, "tiny"))
    go_on(project, closed + 1)  # the pool is empty, and yet the reviews are made again
    assert withdrawals.awaiting(project.store, "tiny") == {}
    last_kinds = {key: row.kind for key, row in decisions.newest(project.store, "tiny").items() if key in waiting}
    assert set(last_kinds.values()) <= {DecisionKind.GOLD, DecisionKind.REJECTED}
    project.store.close()


def go_on(project: Project, wanted: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        campaign.run(project, rounds_wanted=wanted, wait=False)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project whose campaign was made in its store by two people."""
    file = tmp_path / "config.toml"
    file.write_text('[run]\nname = "main"\n[review]\nboard = "fake"\n', encoding="utf-8")
    opened = Project(file, RichProgress(Console(quiet=True)))
    a_campaign(opened.store, simulated=False)
    yield opened
    opened.store.close()


def test_an_unknown_reviewer_is_told_who_is_known(project: Project) -> None:
    with pytest.raises(
        PreceptorError, match=r"carl: no such reviewer; known: reviewer-1 \(ann@example.org on the board\)"
    ):
        recall(project, Grounds("carl", since=LONG_AGO), reason=None, sure=False)


def test_a_date_after_the_last_verdict_is_refused(project: Project) -> None:
    with pytest.raises(PreceptorError, match=r"no verdict since 2030-01-01 00:00 UTC .* name an earlier --since"):
        recall(project, Grounds("reviewer-1", since=datetime(2030, 1, 1, tzinfo=UTC)), reason=None, sure=True)


def test_what_is_no_date_is_wrong_usage(project: Project) -> None:
    command = ["recall", "--config", str(project.path), "--reviewer", "reviewer-1", "--since", "yesterday"]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 2
    assert "not a date" in found.output
