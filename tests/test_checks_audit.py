"""The audit says which checks read the steps and which only the answer."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from connectors.checks_audit import as_json, as_text, of_file, of_run, run_audit
from connectors.cli import app
from connectors.progress import RichProgress
from connectors.wiring import Project
from loop.answer import Answer, AnswerKind, parse_answer
from loop.checks.audit import Known, Reads, Variant, audit, auroc, forced, removed, restated
from loop.checks.doubt import Doubtful
from loop.config import ChecksConfig, TaskConfig
from loop.errors import BadRow, PreceptorError
from loop.records import Author, DecisionKind, Rationale, VerdictKind
from loop.store import items, rationales
from tests.builders import (
    a_number,
    a_reply,
    a_round,
    a_verdict,
    an_item,
    checked,
    decided,
    id_of,
    queried,
    sent_to_review,
    spent,
)

QUIET = RichProgress(Console(quiet=True))
NUMBERS = TaskConfig(answer=AnswerKind.NUMBER)


def number(value: object) -> Answer:
    return Answer(kind=AnswerKind.NUMBER, value=str(value))


def a_rationale(*steps: str, answer: object, key: str = "q") -> Rationale:
    return Rationale(
        item_key=key, round_id=1, author=Author.TEACHER, steps=list(steps), answer=a_number(answer), stated=str(answer)
    )


# --- forcing and removing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "forced_step"),
    [
        ("The answer is 18.", "The answer is 20."),
        ("She has $18.00 left, 18 in all.", "She has $20 left, 20 in all."),
        ("So 9 * $2 = $18.", "So 9 * $2 = $18."),
        ("18 = 9 * 2", "18 = 9 * 2"),
        ("9 + 9 = 18, so the answer is 18", "9 + 9 = 18, so the answer is 20"),
        ("That leaves 18 - 0 or 180.", "That leaves 18 - 0 or 180."),
        ("No number at all.", "No number at all."),
    ],
)
def test_a_number_is_replaced_where_it_is_stated_and_stays_where_it_is_computed(step: str, forced_step: str) -> None:
    assert restated(step, number(18), "20") == forced_step


def test_choices_and_labels_are_replaced_by_name_and_letter() -> None:
    names = ["red car", "blue car"]
    choice = parse_answer("B", AnswerKind.CHOICE, choices=names)
    label = parse_answer("not_true", AnswerKind.LABEL, labels=("not_true", "true"))
    assert choice is not None
    assert label is not None
    assert (
        restated("It is the Blue car, so the answer is (b).", choice, "X", choices=names)
        == "It is the X, so the answer is X."
    )
    assert restated("So it is Not true; not_true.", label, "true") == "So it is true; true."


def test_forcing_and_removing_touch_the_answer_and_the_last_step_alone() -> None:
    item = an_item("q")
    given = a_rationale("He has 18 apples.", "The answer is 18.", answer=18)
    given.id = 7
    right = forced(given, item, number(20))
    assert (right.steps, right.answer, right.stated, right.id) == (
        ["He has 18 apples.", "The answer is 20."], a_number(20), "20", 7
    )  # fmt: skip
    without = removed(given, item)
    assert (without.steps, without.answer, without.stated) == (["He has 18 apples.", "The answer is ___."], None, "")
    assert given.steps[-1] == "The answer is 18."


def test_a_right_answer_that_is_forced_stays_as_it_is() -> None:
    given = a_rationale("The answer is 18.", answer=18)
    assert forced(given, an_item("q"), number(18)).steps == given.steps


@given(st.text(max_size=200), st.integers(0, 99))
def test_no_text_breaks_it(step: str, value: int) -> None:
    assert isinstance(restated(f"{step} {value} {step}", number(value), "___"), str)


# --- what is read ----------------------------------------------------------------------------------------------------


def some_known(n: int, *, sum_is_wrong: bool, others_disagree: bool) -> list[Known]:
    """Rationales of which every second is wrong: in a sum, in that other samples end elsewhere, or in both."""

    def one(place: int) -> Known:
        wrong, truth = place % 2 == 1, 10 + place
        told = truth + 1 if wrong else truth
        result = truth + 2 if wrong and sum_is_wrong else truth
        own = a_rationale(f"10 + {place} = {result}", f"The answer is {told}.", answer=told)
        siblings = [a_rationale("so", answer=truth if others_disagree else told) for _ in range(3)]
        case = Doubtful(an_item(f"q{place}", question=f"What is 10 and {place}?"), own, NUMBERS, siblings)
        return Known(case, number(truth), wrong, look=lambda changed: replace(case, rationale=changed))

    return [one(place) for place in range(n)]


def reads(known: Sequence[Known], *checks: str) -> dict[str, Reads]:
    config = ChecksConfig(enabled=checks)
    return {each.check: each.reads for each in audit(known, config, seed=0, step=lambda: None)}


def test_a_check_of_sums_reads_the_steps_and_one_of_the_other_samples_the_answer() -> None:
    known = some_known(60, sum_is_wrong=True, others_disagree=True)
    found = reads(known, "arithmetic", "agreement", "label_noise")
    assert (found["arithmetic"], found["agreement"], found["label_noise"]) == (Reads.STEPS, Reads.ANSWER, Reads.SILENT)


def test_a_check_that_tells_nothing_is_not_said_to_read_the_answer() -> None:
    known = some_known(60, sum_is_wrong=False, others_disagree=False)
    shuffled = [replace(each, wrong=place % 4 < 2) for place, each in enumerate(known)]
    for each in shuffled:
        each.case.rationale.steps[0] = "1 + 1 = 3"
    assert reads(shuffled, "arithmetic")["arithmetic"] is Reads.CHANCE


def test_the_audit_counts_flags_and_gives_every_auroc_its_interval() -> None:
    known = some_known(40, sum_is_wrong=True, others_disagree=False)
    arithmetic, risk = audit(known, ChecksConfig(enabled=("arithmetic",)), seed=0, step=lambda: None)
    assert (arithmetic.raised_on_wrong, arithmetic.raised_on_right) == (1.0, 0.0)
    assert {variant: each.value for variant, each in arithmetic.aurocs.items()} == dict.fromkeys(Variant, 1.0)
    assert risk.check == "risk"


def test_an_auroc_has_delongs_interval() -> None:
    chance = np.random.default_rng(0)
    wrong, right = chance.normal(1, 1, 300), chance.normal(0, 1, 300)
    found = auroc(wrong, right)
    assert found.value == pytest.approx(0.76, abs=0.03)
    assert 0.6 < found.low < found.value < found.high < 0.85
    assert found.above_chance
    assert not auroc(right[:20], right[20:40]).above_chance
    assert auroc(np.zeros(9), np.zeros(9)) == auroc(np.ones(5), np.ones(7))
    assert (auroc(np.zeros(9), np.zeros(9)).value, auroc(np.zeros(9), np.zeros(9)).above_chance) == (0.5, False)


# --- from a file -----------------------------------------------------------------------------------------------------


def a_row(place: int, **changes: object) -> dict[str, object]:
    wrong = place % 2 == 1
    told = place + 3 if wrong else place + 2
    said = {"model": "m", "rationale": f"{place} + 2 = {told}. The answer is {told}.", "answer": str(told)}
    other = {"model": "n", "rationale": "so", "answer": place + 2, "correct": True}
    row = {"question": f"What is {place} + 2?", "choices": None, "gold": str(place + 2)}
    return {**row, "teacher": [{**said, "correct": not wrong}, other], **changes}


def a_file(path: Path, rows: Sequence[object]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def test_a_file_is_audited_without_a_campaign(tmp_path: Path) -> None:
    file = a_file(tmp_path / "said.jsonl.gz", [a_row(place) for place in range(40)])
    done = CliRunner().invoke(app, ["checks", "audit", "--data", str(file), "--teacher", "m", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["rationales"], found["wrong"]) == (40, 20)
    by_name = {each["check"]: each for each in found["checks"]}
    assert by_name["arithmetic"]["reads"] == "steps"
    assert by_name["agreement"]["reads"] == "answer"
    assert by_name["agreement"]["as_is"]["auroc"] == 1.0
    assert by_name["agreement"]["forced"]["auroc"] == by_name["agreement"]["removed"]["auroc"] == 0.5


def test_the_table_names_what_only_reads_the_answer(tmp_path: Path) -> None:
    known, bad = of_file(a_file(tmp_path / "a.jsonl.gz", [a_row(n) for n in range(40)]), teacher="m", limit=400)
    assert bad == []
    found = run_audit(known, ChecksConfig(enabled=("arithmetic", "agreement", "dissent")), QUIET)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(as_text(known, found))
    text = captured.get()
    assert "only reading the answer: agreement" in text
    assert "silent, maybe for want of what they need: dissent (student)" in text
    assert [each["check"] for each in as_json(known, found)["checks"]] == ["arithmetic", "agreement", "dissent", "risk"]


def test_bad_rows_are_named_and_good_ones_beside_them_survive(tmp_path: Path) -> None:
    rows = [a_row(0), {"question": "no gold"}, [1], a_row(1, teacher=[{"rationale": "x"}]), a_row(2)]
    known, bad = of_file(a_file(tmp_path / "a.jsonl.gz", rows), teacher=None, limit=400)
    assert len(known) == 2
    assert [line.split(": ")[0].rsplit(":", 1)[1] for line in bad] == ["2", "3", "4"]
    assert "`gold`: Field required" in bad[0]
    assert "`teacher.0.correct`" in bad[2]


def test_an_unknown_teacher_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadRow, match="no rationale by gpt-9; there are: m, n"):
        of_file(a_file(tmp_path / "a.jsonl.gz", [a_row(0)]), teacher="gpt-9", limit=400)


def test_too_few_of_a_kind_are_refused_with_the_cure(tmp_path: Path) -> None:
    known, _ = of_file(a_file(tmp_path / "a.jsonl.gz", [a_row(n) for n in range(12)]), teacher="m", limit=400)
    with pytest.raises(PreceptorError, match=r"6 rationales are known to be wrong and 6 .*review\.audit_share"):
        run_audit(known, ChecksConfig(), QUIET)


@pytest.mark.parametrize(
    ("choices", "gold", "kind"),
    [
        ([["yes", "no"], ["yes", "no"]], ["yes", "no"], AnswerKind.LABEL),
        ([["yes", "no"], ["red", "blue"]], ["A", "blue"], AnswerKind.CHOICE),
        ([None, None], ["12", 7], AnswerKind.NUMBER),
        ([None, None], ["Paris", "Rome"], AnswerKind.TEXT),
    ],
)
def test_the_kind_of_answer_is_read_off_the_file(
    tmp_path: Path, choices: list[object], gold: list[object], kind: AnswerKind
) -> None:
    rows = [a_row(place, choices=choices[place], gold=gold[place]) for place in range(2)]
    known, _ = of_file(a_file(tmp_path / "a.jsonl.gz", rows), teacher=None, limit=400)
    assert {each.case.task.answer for each in known} == {kind}
    assert len(known) == 2


def test_real_rationales_give_a_whole_table(shared_data: Path) -> None:
    known, bad = of_file(shared_data / "rationales" / "svamp.jsonl.gz", teacher=None, limit=80)
    assert bad == []
    found = {each.check: each for each in run_audit(known, ChecksConfig(), QUIET)}
    assert found["agreement"].reads in (Reads.ANSWER, Reads.FIT)
    assert found["agreement"].aurocs[Variant.AS_IS].value > 0.8
    assert found["agreement"].aurocs[Variant.REMOVED].value == 0.5


# --- from a run ------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Project:
    file = tmp_path / "config.toml"
    file.write_text('[run]\nname = "main"\n[task]\nanswer = "number"\n', encoding="utf-8")
    return Project(file, QUIET)


def judged(project: Project, n: int) -> None:
    """A round in which people accepted every second reply and corrected the others."""
    store = project.store
    keys = [f"q{place}" for place in range(n)]
    items.add(store, [an_item(key) for key in keys])
    opened = queried(store, a_round(store, project.config), keys)
    ids = {}
    for place, key in enumerate(keys):
        told = place + 3 if place % 2 else place + 2
        ids[key] = a_reply(store, opened, key, steps=[f"{place} + 2 = {told}", f"The answer is {told}."], answer=told)
        checked(store, ids[key], 0.5)
    sent_to_review(store, opened, keys)
    rows = {each.item_key: each for each in rationales.of_round(store, id_of(opened))}
    for place, key in enumerate(keys):
        a_verdict(store, ids[key], VerdictKind.EDIT if place % 2 else VerdictKind.ACCEPT)
        kept = ids[key]
        if place % 2:
            steps = [f"{place} + 2 = {place + 2}"]
            kept = rationales.keep_correction(store, rows[key], steps=steps, answer=number(place + 2)).id or 0
        decided(store, opened, key, DecisionKind.GOLD, kept)


def test_a_run_is_audited_on_what_people_settled_and_nothing_is_spent(project: Project) -> None:
    judged(project, 30)
    before = spent(project.store)
    known = of_run(project, limit=400)
    assert [each.wrong for each in known] == [False, True] * 15
    assert known[1].truth == number(3)
    found = {each.check: each for each in run_audit(known, ChecksConfig(enabled=("arithmetic", "dissent")), QUIET)}
    assert found["arithmetic"].reads is Reads.STEPS
    assert spent(project.store) == before
    assert len(of_run(project, limit=7)) == 7
    project.store.close()


def test_rationales_on_items_without_a_settled_answer_are_left_out(project: Project) -> None:
    judged(project, 4)
    opened = queried(project.store, a_round(project.store, project.config), [])
    items.add(project.store, [an_item("open")])
    number_of = a_reply(project.store, opened, "open", steps=["so"], answer=1)
    checked(project.store, number_of, 0.9)
    sent_to_review(project.store, opened, ["open"])
    a_verdict(project.store, number_of, VerdictKind.REJECT)
    assert len(of_run(project, limit=400)) == 4
    project.store.close()
