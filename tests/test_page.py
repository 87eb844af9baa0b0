"""What the page shows for each kind of answer, and what comes back from it."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from connectors.practice import TASK, cases, practice
from connectors.progress import RichProgress
from connectors.wiring import Project
from loop.answer import AnswerKind, parse_answer
from loop.config import TaskConfig
from loop.records import Author, Flag, Item, Rationale, ReviewTask, Split, Verdict, VerdictKind
from review.board import BoardTask, RawVerdict, Result
from review.page import Page, review_page
from review.task import STEPS, AnswerForm, Details, board_task, result
from review.verdict import SIMULATED, interpret, values_of

NUMBER = TaskConfig(answer=AnswerKind.NUMBER)
TEXT = TaskConfig(answer=AnswerKind.TEXT)
CHOICE = TaskConfig(answer=AnswerKind.CHOICE)
LABEL = TaskConfig(answer=AnswerKind.LABEL, labels={"ham": "", "not $uid": ""})
SPANS = TaskConfig(answer=AnswerKind.SPANS, labels={"person": "", "place": ""})
TYPED_SPANS = TaskConfig(answer=AnswerKind.SPANS)
MET = "Ada 🐘 met Bob\r\nin Rome."
ITEMS = [
    (NUMBER, Item(key="i", question="How much?", split=Split.POOL, text_hash=""), "$1,200", "1200"),
    (TEXT, Item(key="i", question="Who?", split=Split.POOL, text_hash=""), "Ada", "ada"),
    (CHOICE, Item(key="i", question="?", choices=["$5", "B", "A"], split=Split.POOL, text_hash=""), "(C) A", "C"),
    (LABEL, Item(key="i", question="?", split=Split.POOL, text_hash=""), "not $uid", "not $uid"),
    (SPANS, Item(key="i", question=MET, split=Split.POOL, text_hash=""), "10-13:person", "10-13:person"),
    (SPANS, Item(key="i", question="?", context=MET, split=Split.POOL, text_hash=""), "none", ""),
    (TYPED_SPANS, Item(key="i", question=MET, split=Split.POOL, text_hash=""), "10-13:x", "10-13:x"),
]


def a_rationale(item: Item, task: TaskConfig, stated: str) -> Rationale:
    answer = parse_answer(stated, task.answer, choices=item.choices, labels=tuple(task.labels))
    return Rationale(
        item_key=item.key, round_id=1, author=Author.TEACHER, steps=["one", "two"], stated=stated,
        answer=None if answer is None else answer.canonical,
    )  # fmt: skip


def shown(item: Item, task: TaskConfig, stated: str, *flags: Flag) -> BoardTask:
    review = ReviewTask(rationale_id=1, round_id=1, uid="u", reason="risk")
    return board_task(review, a_rationale(item, task, stated), item, Details(flags=flags), task)


def read(regions: Result, item: Item, task: TaskConfig, stated: str, *, prefilled: bool = False) -> Verdict:
    raw = RawVerdict("u", "p", "1", "2026-01-01T00:00:00.000000Z", "1", 1.0, regions, {}, prefilled)
    return interpret(raw, "b", a_rationale(item, task, stated), item, task)


@pytest.mark.parametrize(("task", "item", "stated", "expected"), ITEMS)
def test_an_edit_that_changes_nothing_gives_what_the_teacher_said(
    task: TaskConfig, item: Item, stated: str, expected: str
) -> None:
    prefilled = shown(item, task, stated).prediction
    verdict = read([*prefilled, *result(VerdictKind.EDIT)[:1]], item, task, stated)
    assert verdict.kind is VerdictKind.EDIT
    assert verdict.steps == ["one", "two"]
    assert f'"value": "{expected}"' in (verdict.answer or "")


@pytest.mark.parametrize(("task", "item", "stated", "expected"), ITEMS)
def test_nothing_is_predicted_but_what_an_edit_starts_from(
    task: TaskConfig, item: Item, stated: str, expected: str
) -> None:
    flag = Flag(rationale_id=1, check_name="arithmetic", step=1, evidence="no", weight=0.9)
    predicted = {region["from_name"] for region in shown(item, task, stated, flag).prediction}
    assert predicted <= {"answer", "rationale"}


def test_an_answer_that_could_not_be_read_is_left_open_for_the_reviewer() -> None:
    assert "answer" not in values_of(shown(ITEMS[2][1], CHOICE, "cannot say").prediction)


def test_choices_are_offered_by_letter_and_as_they_are_written() -> None:
    offered = shown(ITEMS[2][1], CHOICE, "(C) A").data["answers"]
    assert [each["alias"] for each in offered] == ["(A) $5", "(B) B", "(C) A"]
    assert [each["hotkey"] for each in offered] == ["shift+a", "shift+b", "shift+c"]
    assert "$" not in "".join(each["value"] for each in offered)


def test_markup_in_a_choice_is_text() -> None:
    item = Item(key="i", question="?", choices=["<img src=x onerror=alert(1)>", "b"], split=Split.POOL, text_hash="")
    assert "<" not in shown(item, CHOICE, "B").data["answers"][0]["html"]


def test_marks_that_were_changed_make_an_edit_of_an_accept() -> None:
    task, item, stated, _ = ITEMS[4]
    accept, prefilled = result(VerdictKind.ACCEPT), shown(item, task, stated).prediction
    assert read([*prefilled, *accept], item, task, stated).kind is VerdictKind.ACCEPT
    more = {"from_name": "answer", "type": "labels", "value": {"start": 18, "end": 22, "labels": ["place"]}}
    changed = read([*prefilled, more, *accept], item, task, stated)
    assert changed.kind is VerdictKind.EDIT
    assert changed.steps == ["one", "two"]
    assert '"10-13:person;18-22:place"' in (changed.answer or "")


def test_a_mark_on_a_step_that_is_not_there_is_dropped() -> None:
    marks = [{"from_name": f"step_{place}", "value": {"choices": ["wrong"]}} for place in (1, 2, 99)]
    assert read([*marks, *result(VerdictKind.REJECT)], ITEMS[0][1], NUMBER, "5").marks == {"1": "wrong"}


def test_the_text_for_marks_keeps_its_places() -> None:
    data = shown(ITEMS[4][1], SPANS, "10-13:person").data
    assert data["marked"] == "Bob: person"
    assert data["passage"][10:13] == "Bob"
    assert data["asked"] == ""


def test_a_page_is_another_version_where_labels_or_guidelines_are_others() -> None:
    pages = [review_page(NUMBER), review_page(TEXT), review_page(LABEL), review_page(CHOICE), review_page(SPANS)]
    described = TaskConfig(answer=AnswerKind.LABEL, labels={"ham": "not spam", "not $uid": ""})
    versions = [page.version for page in [*pages, review_page(described), Page(pages[0].config, "v2")]]
    assert len(set(versions)) == len(versions) - 1
    assert versions[0] == versions[1], "numbers and short texts share a page"


def test_every_step_has_its_key() -> None:
    page = review_page(NUMBER).config
    assert all(f'hotkey="shift+{key}"' in page for key in "1234567890-=")
    assert page.count('name="steptext_') == STEPS


def test_practice_tells_each_reviewer_what_was_missed(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[review]\nboard = "fake"\n', encoding="utf-8")
    project = Project(config, RichProgress(Console()))
    assert "nobody has practised yet" in practice(project)
    board = project.practice_board(TASK)
    for task, case in zip(board.open_tasks(), cases(), strict=True):
        right = result(VerdictKind.EDIT, steps=["right"], answer=str(case.answer))
        given = right if case.expected is VerdictKind.EDIT else result(VerdictKind.ACCEPT)
        board.annotate(task.task, given, seconds=1.0, unique_id=task.uid)
    told = practice(project)
    assert "reviewer 1: 4 of 5 as expected" in told
    assert "practice/5: accept, but reject is right" in told


def test_practice_has_a_case_for_each_verdict_without_a_teacher_and_plants_what_it_says() -> None:
    known = cases()
    assert {case.expected for case in known} == {VerdictKind.ACCEPT, VerdictKind.EDIT, VerdictKind.REJECT}
    assert [case.doubt is not None for case in known] == [False, True, True, False, False]


# --- what comes back --------------------------------------------------------------------------------------------------


def judged(regions: Result, seconds: float = 1.0, rationale: Rationale | None = None, **where: int) -> Verdict:
    raw = RawVerdict("u", "p", "7", "2026-01-01T00:00:00.000000Z", "ann", seconds, regions, {"as": "it came"})
    return interpret(raw, "b", rationale, None, NUMBER, **where)


def chosen(name: str, *choices: object) -> dict[str, object]:
    return {"from_name": name, "type": "choices", "value": {"choices": [*choices]}}


def typed(name: str, *lines: object, kind: str = "textarea") -> dict[str, object]:
    return {"from_name": name, "type": kind, "value": {"text": [*lines]}}


@pytest.mark.parametrize(
    ("came", "kept"),
    [(-5.0, 0.0), (0.5, 0.5), (3600.0, 3600.0), (3601.0, 3600.0), (math.inf, 0.0), (-math.inf, 0.0), (math.nan, 0.0)],
)
def test_a_review_took_no_less_than_nothing_and_no_more_than_an_hour(came: float, kept: float) -> None:
    assert judged(result(VerdictKind.ACCEPT), came).seconds == kept


def test_a_verdict_says_who_gave_it_where_and_why() -> None:
    regions = [*result(VerdictKind.REJECT, reasons=["wrong", "unclear"], note=SIMULATED), chosen("step_0", "ok")]
    verdict = judged(regions)
    assert verdict.model_dump(exclude={"pulled_at"}) == {
        "board": "b", "project": "p", "annotation": "7", "updated_at": "2026-01-01T00:00:00.000000Z",
        "rationale_id": None, "slot": 0, "reviewer": "ann", "assignee": "", "kind": VerdictKind.REJECT,
        "marks": {"0": "ok"}, "steps": [], "answer": None, "reasons": ["wrong", "unclear"], "seconds": 1.0,
        "simulated": True, "raw": {"as": "it came"}, "deleted_at": None,
    }  # fmt: skip
    assert judged(regions, slot=4).slot == 4
    assert verdict.pulled_at.tzinfo is not None
    plain = judged(result(VerdictKind.REJECT, note="I am no simulated reviewer"))
    assert (plain.simulated, plain.reasons, plain.marks) == (False, [], {})
    assert judged([chosen("verdict", "maybe")]).kind is judged([chosen("verdict", 3)]).kind is judged([]).kind is None


def test_marks_are_kept_of_the_steps_that_the_page_shows() -> None:
    every = [chosen(f"step_{place}", "wrong") for place in range(STEPS + 2)]
    assert [*judged(every).marks] == [str(place) for place in range(STEPS)]
    for steps in (0, 2, STEPS, STEPS + 5):
        of = Rationale(item_key="i", round_id=1, author=Author.TEACHER, steps=["x"] * steps)
        assert len(judged(every, rationale=of).marks) == min(steps, STEPS)
    assert judged([chosen("step_0", "wicked"), chosen("step_1", "redundant")]).marks == {"1": "redundant"}


def test_the_page_s_controls_are_read_by_name_and_all_else_is_passed_over() -> None:
    assert values_of(
        [
            "no region", {"from_name": "bare"}, {"value": []}, chosen("empty"),
            typed("note", "one", 2, "th\x00ree"), typed("hint", "x", kind="rating"),
            chosen("verdict", "ac\x00cept", "reject"), chosen("reject_reason", "b", 1),
            {"from_name": "answer", "type": "labels", "value": {"start": 1, "end": 3, "labels": ["a", "b"]}},
            {"from_name": "answer", "type": "labels", "value": {"start": 5, "end": 9, "labels": ["c\x00"]}},
            {"from_name": "other", "type": "labels", "value": {"start": 5, "end": 9, "labels": ["c"]}},
            {"from_name": "answer", "type": "labels", "value": {"start": 5, "end": 9, "labels": "c"}},
        ]
    ) == {
        "note": "one\n2\nthree", "verdict": "accept", "reject_reason": ["b", "1"], "answer": "1-3:a;1-3:b;5-9:c"
    }  # fmt: skip
    for other in ({"from_name": "verdict"}, "text", None, 3):
        assert values_of(other) == {}  # type: ignore[arg-type]


def test_an_edit_has_the_answer_and_the_steps_that_stand_on_the_page_a_continue_the_steps() -> None:
    _, item, stated, _ = ITEMS[0]
    edit = read(result(VerdictKind.EDIT, steps=["a", "b"], answer="7"), item, NUMBER, stated)
    assert (edit.steps, edit.answer) == (["a", "b"], parsed("7", NUMBER))
    empty = read(result(VerdictKind.EDIT)[:1], item, NUMBER, stated)
    assert (empty.steps, empty.answer) == ([], None)
    assert read(result(VerdictKind.EDIT)[:1], ITEMS[1][1], TEXT, "Ada").answer is None
    on = read([*result(VerdictKind.CONTINUE, steps=["a"]), typed("answer", "7")], item, NUMBER, stated)
    assert (on.kind, on.steps, on.answer) == (VerdictKind.CONTINUE, ["a"], None)
    assert read(result(VerdictKind.CONTINUE)[:1], item, NUMBER, stated).steps == []
    for kind in (VerdictKind.ACCEPT, VerdictKind.REJECT):
        other = read([*result(kind), typed("answer", "7"), typed("rationale", "z")], item, NUMBER, stated)
        assert (other.kind, other.steps, other.answer) == (kind, [], None)


def test_an_edit_without_marks_says_that_there_are_none_and_only_an_accept_becomes_an_edit() -> None:
    task, item, stated, _ = ITEMS[4]
    assert read(result(VerdictKind.EDIT)[:1], item, task, stated).answer == parsed("none", SPANS)
    mark = {"from_name": "answer", "type": "labels", "value": {"start": 18, "end": 22, "labels": ["place"]}}
    assert read([mark, *result(VerdictKind.REJECT)], item, task, stated).kind is VerdictKind.REJECT
    assert read(result(VerdictKind.ACCEPT), item, task, stated).kind is VerdictKind.ACCEPT
    cleared = read(result(VerdictKind.ACCEPT), item, task, stated, prefilled=True)
    assert (cleared.kind, cleared.steps, cleared.answer) == (VerdictKind.EDIT, ["one", "two"], parsed("none", SPANS))
    for nothing in ("none", "unreadable"):  # there were no marks to take off
        assert read(result(VerdictKind.ACCEPT), item, task, nothing, prefilled=True).kind is VerdictKind.ACCEPT
    bare = RawVerdict("u", "p", "1", "2026", "1", 1.0, [mark, *result(VerdictKind.ACCEPT)], {})
    assert interpret(bare, "b", None, item, task).kind is VerdictKind.ACCEPT
    choice = read(result(VerdictKind.EDIT, answer="(B) B", form=AnswerForm.CHOICES), ITEMS[2][1], CHOICE, "(C) A")
    assert choice.answer == parsed("B", CHOICE, ITEMS[2][1].choices)
    label = read(result(VerdictKind.EDIT, answer="ham", form=AnswerForm.CHOICES), ITEMS[3][1], LABEL, "not $uid")
    assert label.answer == parsed("ham", LABEL)


def parsed(stated: str, task: TaskConfig, choices: Sequence[str] = ()) -> str:
    answer = parse_answer(stated, task.answer, choices=choices, labels=tuple(task.labels))
    assert answer is not None
    return answer.canonical
