"""Planted rationales measure checks and reviewers, and the database itself keeps them out of everything else."""

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config as AlembicConfig
from rich.console import Console
from sqlalchemy.exc import IntegrityError
from sqlmodel import text

from connectors import campaign, sources
from connectors.exports import export
from connectors.history import history, history_text
from connectors.progress import RichProgress
from connectors.report_page import page
from connectors.status import planted_text, status
from connectors.wiring import Project
from loop.answer import Answer, AnswerKind
from loop.config import Config
from loop.detection import by_reviewer, detection, sensitivity_specificity
from loop.records import CONTROL, Author, Decision, DecisionKind, Rationale, Split, VerdictKind
from loop.stages import check
from loop.stages.train import accepted_examples
from loop.store import counting, decisions, items, planted, rationales, reading, reviews, rounds
from loop.store.database import MIGRATIONS, Store, _rebuilding
from tests.builders import (
    NOON,
    RUN,
    a_campaign,
    a_number,
    a_reply,
    a_round,
    a_store,
    a_verdict,
    an_item,
    checked,
    decided,
    id_of,
    queried,
    sent_to_review,
)
from tests.tiny import tiny_project

INSERT = (
    "insert into decision "
    "(run, item_key, round_id, rationale_id, kind, certified, reason, version, decided_at{column}) "
    "values ('main', 'q0', 1, {rationale}, 'GOLD', false, 'by hand', 1, '2026-01-01'{value})"
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = a_store(tmp_path)
    yield opened
    opened.close()


def a_planted(store: Store, source: Rationale, kind: str = "arithmetic", risk: float = 0.9) -> int:
    """A planted and checked rationale in the newest round, made from a good one; its id."""
    current = rounds.current(store, RUN)
    assert current is not None
    row = Rationale(
        item_key=source.item_key, round_id=id_of(current), author=Author.TEACHER, answer=source.answer,
        steps=["1 + 1 = 3", *source.steps[1:]], stated=source.stated, planted=kind, planted_from=source.id,
    )  # fmt: skip
    planted.keep(store, [row])
    assert row.id is not None
    checked(store, row.id, risk, "1 + 1 = 3")
    wanted = [reviews.Wanted(row, "planted", f"{RUN}/{current.number}/{row.item_key}/{row.id}")]
    reviews.open_tasks(store, RUN, id_of(current), wanted, 1_500_000)
    return row.id


def a_good_one(store: Store) -> Rationale:
    """A teacher's rationale that people accepted in the first round, while the second is open."""
    items.add(store, [an_item("q0"), an_item("q1")])
    first = queried(store, a_round(store), ["q0"], audits=["q0"])
    number = a_reply(store, first, "q0", steps=["1 + 1 = 2", "So it is 2."], answer=2)
    checked(store, number, 0.1)
    sent_to_review(store, first, ["q0"])
    a_verdict(store, number, VerdictKind.ACCEPT)
    decided(store, first, "q0", DecisionKind.GOLD, number)
    queried(store, a_round(store), ["q1"])
    return rationales.of_round(store, id_of(first))[0]


def run_sql(store: Store, statement: str) -> None:
    with store.writing() as session:
        session.execute(text(statement))


# --- the constraint -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["arithmetic", "unit", "premise", "quantity", CONTROL])
@pytest.mark.parametrize(("column", "value"), [("", ""), (", planted", ", '{kind}'"), (", planted", ", ''")])
def test_no_decision_about_a_planted_rationale_can_be_inserted(
    store: Store, kind: str, column: str, value: str
) -> None:
    number = a_planted(store, a_good_one(store), kind)
    with pytest.raises(IntegrityError):
        run_sql(store, INSERT.format(rationale=number, column=column, value=value.format(kind=kind)))


def test_the_same_decision_about_its_good_original_can_be_inserted(store: Store) -> None:
    run_sql(store, INSERT.format(rationale=a_good_one(store).id, column="", value=""))
    assert len(reading.decisions_of(store, RUN)) == 2


def test_the_stores_own_function_cannot_decide_about_a_planted_one_either(store: Store) -> None:
    number = a_planted(store, a_good_one(store))
    row = Decision(
        run=RUN, item_key="q0", round_id=2, rationale_id=number, kind=DecisionKind.GOLD, reason="", decided_at=NOON
    )
    with pytest.raises(IntegrityError):
        decisions.keep(store, [row])


def test_a_decision_cannot_be_turned_to_a_planted_rationale(store: Store) -> None:
    number = a_planted(store, a_good_one(store))
    with pytest.raises(IntegrityError):
        run_sql(store, f"update decision set rationale_id = {number}")


def test_the_mark_of_a_planted_rationale_cannot_be_wiped_off(store: Store) -> None:
    number = a_planted(store, a_good_one(store))
    with pytest.raises(IntegrityError):
        run_sql(store, f"update rationale set planted = '' where id = {number}")


def test_a_correction_of_a_planted_rationale_is_planted_too(store: Store) -> None:
    source = a_good_one(store)
    number = a_planted(store, source)
    original = next(each for each in planted.of_round(store, 2) if each.id == number)
    corrected = rationales.keep_correction(
        store, original, steps=["1 + 1 = 2"], answer=Answer(kind=AnswerKind.NUMBER, value="2")
    )
    assert (corrected.planted, corrected.planted_from) == ("arithmetic", source.id)
    with pytest.raises(IntegrityError):
        run_sql(store, INSERT.format(rationale=corrected.id, column="", value=""))


def test_a_correction_of_a_planted_rationale_cannot_be_inserted_unmarked(store: Store) -> None:
    number = a_planted(store, a_good_one(store))
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        run_sql(
            store,
            "insert into rationale (item_key, round_id, author, sample, steps, answer, stated, version, supersedes) "
            f"values ('q0', 2, 'HUMAN', 0, '[]', '{a_number(2)}', '2', 2, {number})",
        )


@pytest.mark.sqlite("there tables are made anew with a constraint")
def test_an_older_database_gets_the_constraint_and_keeps_its_rows(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    a_campaign(store)
    before = export(store, RUN, tmp_path / "before").examples, status(store, RUN, Config())
    settings = AlembicConfig()
    settings.set_main_option("script_location", str(MIGRATIONS))
    with _rebuilding(store._writer) as connection:
        settings.attributes["connection"] = connection
        command.downgrade(settings, "0005-1")
    with store.reading() as session:
        assert "planted" not in set(session.execute(text("select * from decision")).keys())
    store.migrate()
    assert (export(store, RUN, tmp_path / "after").examples, status(store, RUN, Config())) == before
    with store.reading() as session:
        assert session.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
        assert session.execute(text("PRAGMA foreign_key_check")).all() == []
    number = a_planted(store, rationales.of_round(store, 1)[0])
    with pytest.raises(IntegrityError):
        run_sql(store, INSERT.format(rationale=number, column="", value=""))
    store.close()


# --- kept out of everything ------------------------------------------------------------------------------------------


def test_planted_rows_reach_no_list_count_export_or_page(store: Store, tmp_path: Path) -> None:
    a_campaign(store)

    def all_of_it(folder: str) -> dict[str, Any]:
        export(store, RUN, tmp_path / folder)
        later = NOON.replace(year=2027)
        state = status(store, RUN, Config())
        return {
            "export": {file.name: file.read_bytes() for file in sorted((tmp_path / folder).iterdir())},
            "items": state["items"],
            "rounds": [each | {"minutes": 0} for each in state["rounds"]],
            "decided": [row.id for _, _, row in decisions.decided(store, RUN)],
            "examples": accepted_examples(store, RUN),
            "judged": [each.rationale.id for each in rationales.judged(store, RUN, later)],
            "of the rounds": [[row.id for row in rationales.of_round(store, number)] for number in (1, 2)],
            "unchecked": [row.id for row in rationales.unchecked(store, 2)],
            "rationales": [row.id for row in reading.rationales_of(store, RUN)],
            "flags": counting.flags(store, RUN),
            "audited": counting.audited(store, RUN),
            "risks": reading.risks_of(store, RUN),
            "verdicts": [verdict.annotation for _, verdict in reading.verdicts_of(store, RUN)],
        }

    before = all_of_it("before")
    source = rationales.of_round(store, 1)[0]
    for kind in ("arithmetic", CONTROL):
        a_verdict(store, a_planted(store, source, kind), VerdictKind.ACCEPT)
    assert len(planted.shown(store, RUN)) == 2
    assert all_of_it("after") == before


def test_siblings_of_a_planted_rationale_are_those_of_the_good_one(store: Store) -> None:
    source = a_good_one(store)
    with store.writing() as session:
        other = Rationale(item_key="q0", round_id=1, author=Author.TEACHER, sample=1, steps=["two"], stated="2")
        session.add(other)
    a_planted(store, source)
    (bad,) = planted.of_round(store, 2)
    assert [each.id for each in rationales.siblings(store, bad)] == [other.id]
    assert [each.id for each in rationales.siblings(store, source)] == [other.id]


def test_errors_are_planted_only_in_what_people_accepted_of_the_teachers_words(store: Store) -> None:
    a_campaign(store)
    last = queried(store, a_round(store), ["q6"])
    number = a_reply(store, last, "q6", steps=["1 + 1 = 2"], answer=2)
    decided(store, last, "q6", DecisionKind.GOLD, number)
    assert [(each.id, audited, used) for each, audited, used in planted.good(store, RUN)] == [(number, False, 0)]


def test_nothing_is_planted_in_the_holdout(store: Store) -> None:
    source = a_good_one(store)
    assert [each.id for each, _, _ in planted.good(store, RUN)] == [source.id]
    run_sql(store, "update item set split = 'HOLDOUT' where key = 'q0'")
    assert planted.good(store, RUN) == []


def test_the_history_of_an_item_says_what_was_planted(store: Store) -> None:
    a_planted(store, a_good_one(store))
    console = Console(width=200)
    with console.capture() as captured:
        console.print(history_text(history(store, RUN, "q0")))
    assert "round 2: teacher, version 1, planted to measure reviewers (arithmetic)" in captured.get()


# --- measuring -------------------------------------------------------------------------------------------------------


def test_recall_counts_errors_and_controls_apart(store: Store) -> None:
    source = a_good_one(store)
    for kind, risk, verdict in (
        ("arithmetic", 0.9, VerdictKind.EDIT),
        ("arithmetic", 0.3, VerdictKind.ACCEPT),
        ("unit", 0.1, VerdictKind.REJECT),
        (CONTROL, 0.1, VerdictKind.ACCEPT),
        (CONTROL, 0.5, VerdictKind.ACCEPT),
    ):
        a_verdict(store, a_planted(store, source, kind, risk), verdict, simulated=True)
    a_planted(store, source, "premise", 0.1)
    found = detection(store, RUN)
    assert (found.errors, found.controls) == (4, 2)
    assert found.recall is not None
    assert (found.recall.found, found.recall.n, found.recall.share) == (2, 4, 0.5)
    assert found.recall.low < 0.5 < found.recall.high
    assert {kind: (each.found, each.n) for kind, each in found.kinds.items()} == {
        "arithmetic": (2, 2), "premise": (0, 1), "unit": (0, 1)
    }  # fmt: skip
    assert found.false_alarms is not None
    assert (found.false_alarms.found, found.false_alarms.n) == (1, 2)
    sensitivity, specificity = sensitivity_specificity(store, RUN)
    assert sensitivity is not None
    assert specificity is not None
    assert (sensitivity.found, sensitivity.n, specificity.found, specificity.n) == (2, 3, 2, 2)
    (reviewer,) = by_reviewer(store, RUN)
    assert (reviewer.simulated, reviewer.sensitivity) == (True, sensitivity)


def test_people_and_simulated_reviewers_of_one_name_are_counted_apart(store: Store) -> None:
    source = a_good_one(store)
    a_verdict(store, a_planted(store, source), VerdictKind.ACCEPT, simulated=False)
    a_verdict(store, a_planted(store, source), VerdictKind.REJECT, simulated=True)
    found = {each.simulated: each.sensitivity for each in by_reviewer(store, RUN)}
    assert {simulated: each and each.found for simulated, each in found.items()} == {False: 0, True: 1}


def test_where_nothing_was_planted_nothing_is_claimed(store: Store) -> None:
    a_campaign(store)
    assert sensitivity_specificity(store, RUN) == (None, None)
    assert status(store, RUN, Config())["planted"] is None
    assert "Planted errors" not in page(store, RUN, Config())


def test_verdicts_on_planted_rows_are_paid_and_stored_raw(store: Store) -> None:
    number = a_planted(store, a_good_one(store))
    before = status(store, RUN, Config())["budget"]["minutes"]
    a_verdict(store, number, VerdictKind.REJECT)
    after = status(store, RUN, Config())["budget"]["minutes"]
    assert after["spent"] == before["spent"] + 0.5
    assert after["reserved"] == before["reserved"] - 1.5
    assert reviews.verdicts(store, [number])[number][0].raw == {"completed_by": "ann@example.org"}


# --- a whole campaign ------------------------------------------------------------------------------------------------


def a_finished(folder: Path, share: float) -> Project:
    """The tiny project run over two rounds, everything reviewed."""
    file = tiny_project(folder, rounds=2, sums=18)
    file.write_text(
        file.read_text().replace("audit_share = 0.2", f"audit_share = 1.0\nplanted_share = {share}"), encoding="utf-8"
    )
    project = Project(file, RichProgress(Console(quiet=True)))
    for split in (Split.POOL, Split.HOLDOUT):
        sources.ingest(
            [folder / f"{split.value}.jsonl"], project.store, split=split, pool=project.config.pool,
            task=project.config.task, progress=project.progress,
        )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        campaign.run(project, rounds_wanted=2, wait=False)
    return project


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = a_finished(tmp_path_factory.mktemp("planted"), 0.6)
    yield project
    project.store.close()


def drawn(project: Project) -> list[tuple[str, str, tuple[str, ...]]]:
    return [
        (each.rationale.item_key, each.rationale.planted, tuple(each.rationale.steps))
        for each in planted.shown(project.store, project.config.run.name)
    ]


def test_a_round_plants_its_share_of_the_reviews_half_of_it_controls(finished: Project) -> None:
    shown = planted.shown(finished.store, "tiny")
    assert {each.rationale.round_id for each in shown} == {2}
    assert Counter(each.is_control for each in shown) == {False: 2, True: 2}
    first = {row.id: row for row in rationales.of_round(finished.store, 1)}
    for each in shown:
        source = first[each.rationale.planted_from]
        assert (source.item_key, source.stated) == (each.rationale.item_key, each.rationale.stated)
        assert (source.steps == each.rationale.steps) == each.is_control


def test_checks_and_the_simulated_reviewer_find_every_planted_sum(finished: Project) -> None:
    found = status(finished.store, "tiny", finished.config)["planted"]
    json.dumps(found)
    assert [(found[name]["found"], found[name]["n"]) for name in ("recall", "sensitivity", "specificity")] == [
        (2, 2)
    ] * 3
    assert (found["reviewers"][0]["reviewer"], found["reviewers"][0]["simulated"]) == ("reviewer-1", True)
    assert "2 errors, 2 controls" in planted_text(found)
    assert "Planted errors" in page(finished.store, "tiny", finished.config)


def test_the_board_does_not_tell_what_is_planted(finished: Project) -> None:
    board = json.loads(next(finished.folder.parent.rglob("*.json")).read_text())["tasks"]
    tasks = {task.uid: task.reason for task in reading.tasks_of(finished.store, "tiny") if task.round_id == 2}
    shown = [(tasks[uid] == "planted", board[uid]["data"]) for uid in board if uid in tasks]
    bad, real = ([data for is_bad, data in shown if is_bad is which] for which in (True, False))
    assert len(bad) == 4
    for data in bad:
        assert data["uid"] == f"tiny/2/{data['item_key']}"
        assert data.keys() == real[0].keys()
        assert not any(word in json.dumps(data) for word in ("planted", CONTROL))
    assert {bool(data["student"]) for data in bad} <= {bool(data["student"]) for data in real}
    assert [is_bad for is_bad, _ in shown] not in ([False] * 6 + [True] * 4, [True] * 4 + [False] * 6)


def test_decisions_and_students_are_those_of_a_campaign_without_planted_rows(finished: Project, tmp_path: Path) -> None:
    plain = a_finished(tmp_path / "plain", 0.0)
    assert drawn(plain) == []

    def outcome(project: Project) -> list[Any]:
        with project.store.reading() as session:
            decided = session.execute(text("select item_key, kind, reason, round_id from decision order by id")).all()
            answers = session.execute(text("select * from prediction order by checkpoint_id, item_key")).all()
        return [decided, answers]

    assert outcome(plain) == outcome(finished)
    plain.store.close()


def test_the_same_seed_plants_the_same(finished: Project, tmp_path: Path) -> None:
    again = a_finished(tmp_path / "again", 0.6)
    assert drawn(again) == drawn(finished)
    again.store.close()


def test_a_check_stage_that_was_cut_off_plants_nothing_twice(finished: Project) -> None:
    current = rounds.current(finished.store, "tiny")
    assert current is not None
    before = drawn(finished)
    check._plant(current, finished.store, None, finished.config_of(current))
    assert drawn(finished) == before
