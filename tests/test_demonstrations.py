"""What is shown to the teacher: only what people decided, the same for like items, and only sets that do no harm."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from sqlmodel import select

from connectors.history import history
from connectors.inspection import show_prompt
from connectors.openai_teacher import OpenAITeacher
from connectors.progress import RichProgress
from connectors.recorded_teacher import RecordedTeacher, Recording, running
from connectors.wiring import Project
from loop.answer import Answer, AnswerKind
from loop.certification import fingerprint
from loop.config import Config, TaskConfig, TeacherConfig
from loop.errors import PromptTooLong
from loop.ports import Completion, Example, Request, Silent, Teacher
from loop.records import Author, Certificate, DecisionKind, Promise, Prompt, Query, Rationale, RiskFit, Round, Split
from loop.stages.ask import ask_teacher
from loop.stages.demonstrating import Demonstrating
from loop.stages.parts import Parts
from loop.store import certificates, items, planted, rationales, rounds
from loop.store import demonstrations as store_of
from loop.store.database import Store
from loop.teacher.demonstrations import (
    by_words,
    dev_slice,
    grouped,
    is_no_worse,
    may_be_shown,
    nearest,
    nearest_group,
    set_hash,
)
from loop.teacher.trial import recover
from tests.builders import NOON, RUN, a_number, a_reply, a_round, a_store, an_item, decided, id_of, queried, spent
from tests.judging import Nobody, NoStudent
from tests.tiny import tiny_project

TASK = TaskConfig()
TEXTS = ("The dog has 3 bones", "The ship has 9 sails", "The cat has 2 mice", "A tram has 4 doors", "The bus is 7 m")


def worked(key: str, question: str = "", answer: object = 1, split: Split = Split.POOL) -> Example:
    item = an_item(key, split, question=question or f"What is {key}?")
    return Example(item, (f"step of {key}",), Answer(kind=AnswerKind.NUMBER, value=str(answer)))


def vectors_of(some: Sequence[Example]) -> np.ndarray:
    return np.asarray(by_words([each.item for each in some])([each.item for each in some]), dtype=np.float64)


# --- what is chosen ---------------------------------------------------------------------------------------------------


def test_the_nearest_shares_rare_words_stands_last_and_is_never_of_the_holdout() -> None:
    known = [worked(f"k{number}", text) for number, text in enumerate(TEXTS)]
    known.append(worked("gold", "A dog buries bones", split=Split.HOLDOUT))
    embed = by_words([each.item for each in known])
    asked = an_item(question="A dog buries 5 bones")
    assert [each.item.key for each in nearest(asked, known, embed, 2)][-1] == "k0"
    assert len(nearest(asked, known, embed, 99)) == 5
    assert nearest(asked, known[::-1], embed, 3) == nearest(asked, known, embed, 3)
    assert nearest(asked, known, embed, 0) == nearest(asked, [], embed, 2) == []


def test_an_item_never_sees_itself_nor_one_with_the_same_text() -> None:
    known = [worked("a", "What is it?"), worked("b", "What is it?"), worked("c", "And this?")]
    assert [each.item.key for each in may_be_shown(known, known[0].item)] == ["c"]


def test_alike_items_share_a_group_in_one_order() -> None:
    known = [worked(f"{kind}{number}", f"{kind} number {number}") for kind in ("dog", "ship") for number in range(12)]
    groups = grouped(known, vectors_of(known), {}, 3, seed=0)
    embed = by_words([each.item for each in known])
    asked = [an_item(f"n{n}", question=f"dog number {n + 40}") for n in range(5)]
    assert len({set_hash([nearest_group(item, groups, embed)]) for item in asked}) == 1
    for group in groups:
        assert [each.item.key for each in group] == sorted(each.item.key for each in group)
        assert len({each.item.key[:3] for each in group}) == 1


def test_a_group_has_different_answers_and_of_each_the_items_that_the_student_is_unsure_of() -> None:
    known = [worked(f"k{number}", "always the same words", number % 2) for number in range(6)]
    margins = {"k0": 0.9, "k2": 0.1, "k4": 0.5, "k1": 0.7, "k3": 0.2, "k5": 0.8}
    [group] = grouped(known, vectors_of(known), margins, 2, seed=0)
    assert [each.item.key for each in group] == ["k2", "k3"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab", min_size=1, max_size=6), unique=True, max_size=30), st.integers(0, 9), st.integers(1, 5))
def test_what_measures_a_set_is_not_in_it_and_stays_as_more_is_decided(keys: list[str], size: int, k: int) -> None:
    known = [worked(key) for key in keys]
    dev, rest = dev_slice(known, size)
    assert len(dev) <= len(known) // 2
    assert {each.item.key for each in dev} | {each.item.key for each in rest} == set(keys)
    groups = grouped(rest, vectors_of(rest) if rest else np.zeros((0, 1)), {}, k, seed=0)
    shown = {each.item.key for group in groups for each in group}
    assert not shown & {each.item.key for each in dev}
    again, _ = dev_slice([*known, worked("zz" * 4)], size)
    assert len({each.item.key for each in dev} - {each.item.key for each in again}) <= 1


def test_a_set_that_lowers_the_teacher_is_not_taken() -> None:
    assert is_no_worse([True, False], [False, True])
    assert not is_no_worse([True, False], [True, True])


def test_the_hash_changes_with_order_and_steps() -> None:
    one, two = worked("a"), worked("b")
    other = Example(one.item, ("another step",), one.answer)
    assert len({set_hash(groups) for groups in ([[one, two]], [[two, one]], [[one], [two]], [[other, two]])}) == 4


# --- what the store gives ---------------------------------------------------------------------------------------------


SECRET = "SECRET"
FATES = ("gold", "silver", "rejected", "undecided", "certify", "released", "holdout", "planted", "seed", "other run")
ALLOWED = {"gold", "seed"}


def a_world(store: Store, fates: Sequence[str]) -> Round:
    """A closed round in which items met these fates; all that must never be shown says so in question and steps."""
    for number, fate in enumerate(fates):
        mark = "" if fate in ALLOWED else SECRET
        split = {"holdout": Split.HOLDOUT, "seed": Split.SEED}.get(fate, Split.POOL)
        gold = {"answer": a_number(number), "steps": [f"{mark} seen {number}"]} if split is not Split.POOL else {}
        question = f"{mark if fate != 'planted' else ''} what is {number}?"
        items.add(store, [an_item(f"q{number}", split, question=question, **gold)])
    pool = [f"q{number}" for number, fate in enumerate(fates) if fate not in ("holdout", "seed", "other run")]
    opened = queried(store, a_round(store), pool)
    certifying = [key for key in pool if fates[int(key[1:])] in ("certify", "released")]
    other = queried(
        store, a_round(store, run="other"), [f"q{n}" for n, fate in enumerate(fates) if fate == "other run"]
    )
    with store.writing() as session:
        for key in certifying:
            query = session.get_one(Query, (id_of(opened), key))
            query.certify = query.audit = True
    for number, fate in enumerate(fates):
        _met(store, other if fate == "other run" else opened, f"q{number}", fate)
    return opened


def _met(store: Store, opened: Round, key: str, fate: str) -> None:
    if fate in ("holdout", "seed"):
        return
    mark = "" if fate in (*ALLOWED, "planted") else SECRET
    number = a_reply(store, opened, key, steps=[f"{mark} step of {key}"], answer=1)
    kinds = {"gold": DecisionKind.GOLD, "released": DecisionKind.GOLD, "planted": DecisionKind.GOLD}
    kinds |= {"other run": DecisionKind.GOLD, "silver": DecisionKind.SILVER, "rejected": DecisionKind.REJECTED}
    if fate != "certify":
        decided(store, opened, key, kinds.get(fate, DecisionKind.UNDECIDED), number)
    if fate == "planted":
        bad = Rationale(
            item_key=key, round_id=id_of(opened), author=Author.TEACHER, steps=[f"{SECRET} planted"],
            answer=a_number(1), planted="arithmetic", planted_from=number,
        )  # fmt: skip
        planted.keep(store, [bad])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=14))
def test_nothing_but_what_people_decided_may_ever_be_shown(
    fates: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = a_store(tmp_path_factory.mktemp("world"))
    a_world(store, fates)
    known = store_of.people_decided(store, RUN)
    assert SECRET not in str([(each.item.question, each.steps) for each in known])
    allowed = {f"q{number}" for number, fate in enumerate(fates) if fate in (*ALLOWED, "planted")}
    assert {each.item.key for each in known} == allowed
    store.close()


# --- whole rounds -----------------------------------------------------------------------------------------------------


@dataclass
class Scripted:
    """A teacher that answers by what it is shown; it remembers every request."""

    right: str = "1"
    when_shown: str = "1"
    """What it answers where demonstrations are shown."""
    explains: str = "1"
    """The answer to which its explanation of a known answer leads."""
    sent: list[Request] = field(default_factory=list)

    async def complete(self, request: Request) -> Completion:
        self.sent.append(request)
        last, shown = request.messages[-1]["content"], len(request.messages) > 2
        answer = self.explains if "Reasoning:" in last else self.when_shown if shown else self.right
        text = json.dumps({"steps": ["half of it and half again"], "answer": answer})
        return Completion(text, "scripted", "stop", 10, 5)

    def price(self, request: Request, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        return 10


@dataclass
class Narrow(Scripted):
    """A teacher that cannot read prompts with demonstrations about these items."""

    unread: set[str] = field(default_factory=set)

    async def complete(self, request: Request) -> Completion:
        if request.item_key in self.unread and len(request.messages) > 2:
            raise PromptTooLong("the prompt is too long")
        return await super().complete(request)


def parts_of(teacher: Teacher, folder: Path) -> Parts:
    return Parts(NoStudent(), teacher, Nobody(), Quiet(), folder)


class Quiet(Silent):
    """Nothing is shown."""

    def bar(self, title: str, total: int) -> AbstractContextManager["Quiet"]:
        return nullcontext(self)


def config_with(**teacher: object) -> Config:
    return Config(teacher=TeacherConfig(**{"model": "scripted", "dev_items": 2, **teacher}))


def asked(store: Store, teacher: Teacher, folder: Path, config: Config, keys: Sequence[str] = ("new",)) -> Round:
    items.add(store, [an_item(key, question=f"What is {key}, the new one?") for key in keys])
    opened = queried(store, a_round(store, config), keys)
    return ask_teacher(opened, store, parts_of(teacher, folder), config)


@pytest.mark.parametrize("by", ["nearest", "group"])
def test_no_secret_ever_stands_in_a_prompt_that_is_sent(by: str, tmp_path: Path) -> None:
    store = a_store(tmp_path)
    a_world(store, [*FATES * 2, *["gold"] * 6])
    rows = [Recording(key="new", question="What is new, the new one?", steps=("one",), answer="1")]
    with running(RecordedTeacher(rows)) as address:
        config = config_with(
            base_url=address, model="recorded", input_price=1.0, output_price=1.0, demonstrations_by=by
        )
        asked(store, OpenAITeacher(config.teacher), tmp_path, config)
    with store.reading() as session:
        prompts = [row.body for row in session.exec(select(Prompt)) if len(row.body["messages"]) > 1]
    assert len(prompts) > 2
    assert any(len(body["messages"]) > 2 for body in prompts)
    assert SECRET not in json.dumps(prompts)
    store.close()


def test_the_first_set_is_tried_and_shown_and_says_what_it_was_worth(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    a_world(store, ["gold"] * 6)
    teacher = Scripted(right="0", when_shown="1")
    asked(store, teacher, tmp_path, config_with(demonstrations_by="group"), ["new", "newer"])
    [row] = store_of.sets(store, RUN)
    assert (row.taken, row.dev_items, row.dev_right, row.dev_before) == (True, 2, 2, 0)
    first, second = [request.messages for request in teacher.sent[-2:]]
    assert len(first) == 6
    assert first[:-1] == second[:-1], "like items share the prefix"
    past = history(store, RUN, json.loads(json.dumps(row.groups))[0][0]["key"])
    assert past["trials"] == []
    store.close()


def test_each_item_is_shown_those_of_the_set_that_are_nearest_to_it(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    texts = ["a dog has bones", "a ship has sails", "a dog has paws", "a ship has masts", "a cat", "a tram"]
    items.add(store, [an_item(f"q{number}", question=text) for number, text in enumerate(texts)])
    opened = queried(store, a_round(store), [f"q{number}" for number in range(6)])
    for number in range(6):
        key = f"q{number}"
        decided(store, opened, key, DecisionKind.GOLD, a_reply(store, opened, key, steps=["so"], answer=number))
    shown = Demonstrating(store, RUN, NoStudent, config_with(dev_items=0))
    shown.prepare(opened, parts_of(Scripted(), tmp_path))
    [row] = store_of.sets(store, RUN)
    assert [len(group) for group in row.groups] == [6]
    for kind, near in (("dog", {"q0", "q2"}), ("ship", {"q1", "q3"})):
        item = an_item(kind, question=f"which {kind}?")
        assert {each.item.key for each in shown.shown(item)} == near
        assert {each.item.key for each in shown.more(item)[-2:]} == near
        assert len(shown.more(item)) == 4
    store.close()


def test_a_set_that_lowers_the_teacher_is_kept_on_record_and_not_shown(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    a_world(store, ["gold"] * 6)
    teacher = Scripted(right="1", when_shown="0")
    asked(store, teacher, tmp_path, config_with())
    [row] = store_of.sets(store, RUN)
    assert not row.taken
    assert "not taken: with it the teacher answers 0 of 2" in row.reason
    assert len(teacher.sent[-1].messages) == 2
    store.close()


def test_an_unchanged_set_is_not_tried_again(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    a_world(store, ["gold"] * 6)
    asked(store, Scripted(), tmp_path, config_with())
    teacher = Scripted()
    asked(store, teacher, tmp_path, config_with(), ["later"])
    assert len(teacher.sent) == 1
    assert len(store_of.sets(store, RUN)) == 1
    store.close()


def dev_keys(store: Store, size: int = 2) -> list[str]:
    return [each.item.key for each in dev_slice(store_of.people_decided(store, RUN), size)[0]]


def test_an_item_without_a_reply_says_nothing_of_a_set(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    a_world(store, ["gold"] * 6)
    asked(store, Narrow(unread={dev_keys(store)[0]}), tmp_path, config_with())
    [row] = store_of.sets(store, RUN)
    assert (row.taken, row.dev_items, row.dev_right, row.dev_before) == (True, 1, 1, 1)
    store.close()


def test_a_set_that_nothing_measured_is_not_taken_and_is_tried_again_in_the_next_round(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    a_world(store, ["gold"] * 6)
    asked(store, Narrow(unread=set(dev_keys(store))), tmp_path, config_with())
    asked(store, Scripted(), tmp_path, config_with(), ["later"])
    lost, again = store_of.sets(store, RUN)
    assert (lost.taken, lost.dev_items) == (False, 0)
    assert "no item was answered" in lost.reason
    assert (again.hash, again.taken, again.dev_items) == (lost.hash, True, 2)
    store.close()


def test_without_money_for_the_trial_the_set_is_not_taken_and_the_round_goes_on(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    a_world(store, ["gold"] * 6)
    config = config_with()
    items.add(store, [an_item("new")])
    opened = queried(store, a_round(store, config, budget=6025), ["new"])
    ask_teacher(opened, store, parts_of(Scripted(), tmp_path), config)
    [row] = store_of.sets(store, RUN)
    assert not row.taken
    assert "does not suffice" in row.reason
    asked(store, Scripted(), tmp_path, config, ["later"])
    assert [each.taken for each in store_of.sets(store, RUN)] == [False, True], "with more money it is tried"
    store.close()


@pytest.mark.parametrize(("explains", "shown"), [("7", True), ("8", False)])
def test_an_explanation_of_a_known_answer_is_shown_only_if_its_steps_lead_back_to_it(
    explains: str, shown: bool, tmp_path: Path
) -> None:
    store = a_store(tmp_path)
    seed = an_item("s", Split.SEED, question="What is half of 14?", answer=a_number(7))
    items.add(store, [seed])
    teacher = Scripted(right="7", explains=explains)
    asked(store, teacher, tmp_path, config_with(dev_items=0))
    kinds = [row.kind.value for row in store_of.trials(store, RUN).values()]
    assert sorted(kinds) == ["explain", "recover"]
    blind = next(request for request in teacher.sent if "Reasoning:" in request.messages[-1]["content"])
    assert "half of 14" not in str(blind.messages)
    assert ("half of it and half again" in str(teacher.sent[-1].messages[:-1])) is shown
    later = Scripted(right="7", explains=explains)
    asked(store, later, tmp_path, config_with(dev_items=0), ["later"])
    assert len(later.sent) == 1, "explanations and failures are remembered"
    store.close()


def test_steps_that_only_state_the_answer_lead_to_nothing() -> None:
    item = an_item(question="What is half of 14?")
    seven = Answer(kind=AnswerKind.NUMBER, value="7")
    assert recover(item, ["So the answer is 7."], seven, TASK, TeacherConfig()) is None
    assert recover(item, ["Half of 14 is 14 / 2 = 7."], seven, TASK, TeacherConfig()) is not None


def test_a_member_that_people_no_longer_accept_is_shown_no_more(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    a_world(store, ["gold"] * 3)
    config = config_with(dev_items=0)
    asked(store, Scripted(), tmp_path, config)
    before = Demonstrating(store, RUN, NoStudent().student, config)  # type: ignore[arg-type] # never called
    asked_about = an_item("x", question="anything else")
    gone = before.shown(asked_about)[0].item.key
    later = rounds.open_round(store, RUN, config.model_dump(mode="json"))
    decided(store, later, gone, DecisionKind.REJECTED, None)
    after = Demonstrating(store, RUN, NoStudent().student, config)  # type: ignore[arg-type]
    assert gone not in {each.item.key for each in after.shown(asked_about)}
    store.close()


def test_trials_are_paid_out_of_the_same_budget_and_told_in_the_history(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    a_world(store, ["gold"] * 6)
    asked(store, Scripted(), tmp_path, config_with())
    dev = {row.item_key for row in store_of.trials(store, RUN).values()}
    past = history(store, RUN, min(dev))
    assert [each["charge"]["state"] for each in past["trials"]] == ["settled", "settled"]
    store.close()


def test_under_a_certified_threshold_the_teacher_stays_as_it_was(tmp_path: Path) -> None:
    store, config = a_store(tmp_path), config_with()
    first = a_world(store, ["gold"] * 6)
    found = rationales.keep_risk_fit(
        store, RiskFit(round_id=id_of(first), base=-2.0, weights={}, reviewed=0, fitted_at=NOON)
    )
    row = Certificate(
        run=RUN, round_id=id_of(first), promise=Promise.THRESHOLD, look=1, alpha=0.05, delta=0.1, audited=60, wrong=0,
        bound=0.04, threshold=0.3, fingerprint=fingerprint(config, found), issued_at=NOON,
    )  # fmt: skip
    certificates.keep(store, row, [])
    teacher = Scripted()
    asked(store, teacher, tmp_path, config)
    assert len(teacher.sent) == 1
    assert store_of.sets(store, RUN) == []
    store.close()


def test_the_prompt_command_shows_what_would_be_sent_and_spends_nothing(tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    project = Project(config, RichProgress(Console(quiet=True)), run=RUN)
    a_world(project.store, ["gold"] * 6)
    items.add(project.store, [an_item("shown")])
    before = show_prompt(project, "shown")
    assert before["demonstrations"]["shown"] == []
    assert before["demonstrations"]["new_set_to_be_tried_first"] is not None
    asked(project.store, Scripted(), tmp_path, project.config)
    spent_before = spent(project.store)
    after = show_prompt(project, "shown")
    assert after["demonstrations"]["new_set_to_be_tried_first"] is None
    assert len(after["demonstrations"]["shown"]) == 2
    assert len(after["request"]["messages"]) == 6
    assert len(after["demonstrations"]["when_asked_again"]) == 4
    assert spent(project.store) == spent_before
    project.store.close()
