"""How sure the teacher is, what that is worth, and what happens where it is unsure."""

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from connectors.history import history, history_text
from connectors.openai_teacher import OpenAITeacher
from connectors.recorded_teacher import Fault, RecordedTeacher, Recording, running
from loop.answer import Answer, AnswerKind
from loop.checks.confidence import unsure
from loop.checks.doubt import Doubtful
from loop.checks.flag import doubts
from loop.checks.risk import risk
from loop.config import ChecksConfig, Config, ReviewConfig, TaskConfig, TeacherConfig
from loop.errors import PromptTooLong
from loop.ports import Completion, Request
from loop.records import AGAIN, Author, DecisionKind, Item, Rationale, Reply, Round, VerdictKind
from loop.stages.ask import ask_teacher, trust_of
from loop.store import asking, confidence, items, rationales
from loop.store.database import Store
from loop.teacher.again import better
from loop.teacher.confidence import Fit, Trust, Verdicted, answer_probability, fit
from loop.teacher.prompt import request_for
from loop.teacher.reply import Draft, read, stated_confidence
from tests.builders import NOON, RUN, a_reply, a_round, a_store, a_verdict, an_item, checked, decided, id_of, queried
from tests.builders import sent_to_review as sent
from tests.test_demonstrations import a_world, parts_of

TASK = TaskConfig()


# --- how sure ---------------------------------------------------------------------------------------------------------


def a_completion(text: str, tokens: Sequence[tuple[str, float]] = ()) -> Completion:
    return Completion(text, "m", "stop", 1, 1, tuple(tokens))


@pytest.mark.parametrize(
    ("before", "stated", "after"),
    [
        ('{"steps": ["2 is 12 less 10"], "answer": "', "12", '"}'),
        ('{"steps": ["a"], "answer": ', "12", "}"),
        ("1. 12 things\nAnswer: ", "12", ""),
        ('{"answer": "', "12", '", "steps": ["12"]}'),
    ],
)
def test_the_probability_of_an_answer_is_that_of_its_tokens_and_of_no_others(
    before: str, stated: str, after: str
) -> None:
    tokens = [(before, -3.0), *((digit, math.log(0.5)) for digit in stated), *([(after, -4.0)] if after else [])]
    found = answer_probability(a_completion(before + stated + after, tokens), stated)
    assert found == pytest.approx(0.25)


def test_tokens_that_are_not_the_text_say_nothing() -> None:
    assert answer_probability(a_completion("Answer: 12", [("Answer:", -1.0), ("13", -1.0)]), "12") is None
    assert answer_probability(a_completion("Answer: 12"), "12") is None
    assert answer_probability(a_completion("12", [("12", -1.0)]), "12") is None
    assert answer_probability(a_completion("Answer: twelve", [("Answer: twelve", -1.0)]), "12") is None


@pytest.mark.parametrize("stated", ["120%", "not sure", "90 % ... not 100 %", "85% or 90%", "100 / 85", "sure", "-5%"])
def test_a_confidence_with_no_single_meaning_is_none(stated: str) -> None:
    assert stated_confidence(stated) is None


def test_eighty_five_of_a_hundred_is_not_a_hundred() -> None:
    assert stated_confidence("85 / 100") == stated_confidence("85 %") == 0.85


LOGPROBS = {"content": [{"token": "Answer: ", "logprob": -0.5}, {"token": "7", "logprob": -0.1}]}


@pytest.mark.parametrize(
    ("logprobs", "tokens"),
    [
        (LOGPROBS, (("Answer: ", -0.5), ("7", -0.1))),
        (None, ()),
        ({"content": None}, ()),
        ({"content": [{"token": "a", "logprob": "high"}]}, ()),
        ({"content": [{"token": "a", "logprob": 0.5}]}, ()),
        ({"content": [{"token": "a", "logprob": -1}, 3]}, ()),
        ("none", ()),
    ],
)
def test_log_probabilities_are_taken_as_they_come_or_not_at_all(logprobs: object, tokens: object) -> None:
    body = {"choices": [{"message": {"content": "Answer: 7"}, "logprobs": logprobs}]}
    teacher = OpenAITeacher(TeacherConfig(base_url="http://127.0.0.1:1/v1", model="m"))
    response = httpx_response(json.dumps(body))
    assert teacher._completion(response, Request("m", (), 0.0, 16)).tokens == tokens


def httpx_response(body: str) -> "object":
    import httpx2  # noqa: PLC0415 - only here

    return httpx2.Response(200, headers={"content-type": "application/json"}, content=body.encode())


# --- what it is worth -------------------------------------------------------------------------------------------------


def some_verdicts(n: int, worth: float) -> list[Verdicted]:
    """Verdicts where a confidence of c is right with probability worth * c."""
    chance = np.random.default_rng(0)
    sure = chance.choice([0.7, 0.8, 0.9, 1.0], n)
    return [Verdicted(float(each), bool(chance.random() < worth * each**3)) for each in sure]


def test_an_overconfident_teacher_is_believed_less_than_it_says() -> None:
    found = fit(some_verdicts(600, 0.8), seed=0)
    assert found is not None
    assert found(0.9) == pytest.approx(0.8 * 0.9**3, abs=0.15)
    assert found(0.7) < found(0.8) < found(1.0) < 0.9
    assert found.ece < 0.1
    assert found.reviewed == 600


@pytest.mark.parametrize("right", [range(0), range(29), range(26, 30)])
def test_too_few_or_too_alike_verdicts_calibrate_nothing(right: range) -> None:
    total = 29 if len(right) == 29 else 30
    assert fit([Verdicted(0.9, number in right) for number in range(total)], seed=0) is None


def test_a_confidence_that_runs_the_wrong_way_says_no_more_than_the_share() -> None:
    verdicts = [Verdicted(0.9, number % 4 == 0) for number in range(40)]
    verdicts += [Verdicted(0.5, number % 4 != 0) for number in range(40)]
    found = fit(verdicts, seed=0)
    assert found is not None
    assert found.slope == 0
    assert found(0.1) == found(0.99) == pytest.approx(0.5)


def test_before_there_is_a_fit_confidence_counts_as_it_came() -> None:
    trust = Trust({"stated": Fit(1.0, -2.0, 40, 0.1)}, reprompt_below=0.6)
    assert trust.is_low(0.8, "stated")
    assert not trust.is_low(0.8, "logprobs")
    assert trust.is_low(0.5, "logprobs")
    assert not trust.is_low(None, "")
    assert trust.calibrated(0.8, "logprobs") is None


# --- the better of two ------------------------------------------------------------------------------------------------


def a_stored(answer: str, sure: float | None, sample: int = 0, text: str | None = None) -> Reply:
    written = json.dumps({"steps": ["so"], "answer": answer}) if text is None else text
    return Reply(
        id=sample + 7, round_id=1, item_key="q1", sample=sample, prompt_hash="h", model="m", text=written,
        finish_reason="stop", input_tokens=1, output_tokens=1, confidence=sure, confidence_by="stated",
        created_at=NOON,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "kept", "other"),
    [
        (a_stored("1", 0.4), a_stored("2", 0.9, AGAIN), "2", "1"),
        (a_stored("1", 0.4), a_stored("2", 0.3, AGAIN), "1", "2"),
        (a_stored("1", 0.4), a_stored("2", 0.4, AGAIN), "1", "2"),
        (a_stored("1", 0.4), a_stored("1.0", 0.9, AGAIN), "1.0", "1.0"),
        (a_stored("1", 0.4), a_stored("2", None, AGAIN), "1", "2"),
        (a_stored("none", 0.9), a_stored("2", 0.1, AGAIN), "2", "none"),
        (a_stored("1", 0.4), a_stored("", 0.9, AGAIN, text="I refuse."), "1", None),
        (a_stored("1", 0.4), None, "1", None),
    ],
)
def test_the_surer_reply_is_kept_and_knows_what_the_other_said(
    first: Reply, second: Reply | None, kept: str, other: str | None
) -> None:
    _, rationale = better(an_item(), first, second, TASK, Trust())
    assert (rationale.stated, rationale.other, rationale.sample) == (kept, other, 0)


def a_doubtful(**fields: object) -> Doubtful:
    row = Rationale(item_key="q1", round_id=1, author=Author.TEACHER, steps=["so"], stated="1", **fields)
    return Doubtful(item=an_item(), rationale=row, task=TASK)


def test_two_answers_to_one_item_are_a_doubt_in_words_that_goes_to_review() -> None:
    [doubt] = unsure(a_doubtful(confidence=0.95, other="2"), ChecksConfig())
    assert doubt.evidence == "unsure and asked once more, the teacher answered “2” too; the surer reply says “1”"
    assert risk([doubt]) > ReviewConfig().risk_threshold
    assert unsure(a_doubtful(confidence=0.95, other="1"), ChecksConfig()) == []


def test_a_calibrated_confidence_is_doubted_by_what_people_found() -> None:
    [doubt] = unsure(a_doubtful(confidence=0.95, calibrated=0.4), ChecksConfig())
    assert doubt.evidence == "the teacher is 95% sure; of replies so sure people found 40% right"
    assert doubt.weight == pytest.approx(0.6)
    assert unsure(a_doubtful(confidence=0.5, calibrated=0.95), ChecksConfig()) == []


# --- whole rounds -----------------------------------------------------------------------------------------------------


@dataclass
class Unsure:
    """A teacher whose answer and confidence go by how many demonstrations it is shown."""

    by_shown: dict[int, tuple[str, int]]
    longest: int = 99
    """Demonstrations of a prompt that it can read."""
    sent: list[Request] = field(default_factory=list)

    async def complete(self, request: Request) -> Completion:
        shown = len(request.messages) // 2 - 1
        if shown > self.longest:
            raise PromptTooLong("maximum context length is 8 tokens")
        self.sent.append(request)
        answer, sure = self.by_shown[shown]
        return a_completion(json.dumps({"steps": ["so it is"], "answer": answer, "confidence": sure}))

    def price(self, request: Request, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        return 10


def config_with(**teacher: object) -> Config:
    given = {"model": "m", "dev_items": 0, "confidence": True, "reprompt_below": 0.7, "demonstrations": 1}
    return Config(teacher=TeacherConfig(**{**given, **teacher}))


def a_batch(store: Store, config: Config, keys: Sequence[str] = ("new",), budget: int = 1_000_000) -> Round:
    items.add(store, [an_item(key, question=f"What is {key}, the new one?") for key in keys])
    return queried(store, a_round(store, config, budget=budget), keys)


def of_item(store: Store, opened: Round, key: str = "new") -> Rationale:
    [row] = [each for each in rationales.of_round(store, id_of(opened)) if each.item_key == key]
    return row


@pytest.mark.parametrize("by", ["nearest", "group"])
def test_an_unsure_reply_is_asked_for_once_more_with_more_demonstrations(by: str, tmp_path: Path) -> None:
    store, config = a_store(tmp_path), config_with(demonstrations_by=by)
    a_world(store, ["gold"] * 4)
    opened = a_batch(store, config)
    teacher = Unsure({1: ("1", 40), 2: ("2", 90)})
    ask_teacher(opened, store, parts_of(teacher, tmp_path), config)
    first, second = teacher.sent
    if by == "group":
        assert second.messages[:3] == first.messages[:3], "the longer prompt goes on where the shorter one ended"
    else:
        assert second.messages[3:] == first.messages[1:], "the nearest stands last in both"
    row = of_item(store, opened)
    assert (row.stated, row.other, row.confidence, row.calibrated) == ("2", "1", 0.9, None)
    past = history(store, RUN, "new")
    assert [each["sample"] for each in past["replies"]] == [0, AGAIN]
    told = "\n".join(part.plain for part in history_text(past).renderables)
    assert "sample 0: m, 1 demonstrations, 1 + 1 tokens, $0.000010, readable, 40% sure (stated)" in told
    assert "asked again: m, 2 demonstrations" in told
    assert "answer: 2 (90% sure, not calibrated yet; asked twice, the other reply says 1)" in told
    assert sum(each["charge"]["settled"] for each in past["replies"]) == pytest.approx(20e-6)
    store.close()


def test_a_sure_reply_is_not_asked_for_again(tmp_path: Path) -> None:
    store, config = a_store(tmp_path), config_with()
    a_world(store, ["gold"] * 4)
    opened = a_batch(store, config)
    teacher = Unsure({1: ("1", 90)})
    ask_teacher(opened, store, parts_of(teacher, tmp_path), config)
    assert len(teacher.sent) == 1
    assert of_item(store, opened).other is None
    store.close()


def test_where_no_more_can_be_shown_the_unsure_reply_stands(tmp_path: Path) -> None:
    store, config = a_store(tmp_path), config_with()
    opened = a_batch(store, config)
    teacher = Unsure({0: ("1", 10)})
    ask_teacher(opened, store, parts_of(teacher, tmp_path), config)
    assert len(teacher.sent) == 1
    assert of_item(store, opened).confidence == 0.1
    store.close()


def test_without_money_for_the_second_prompt_the_first_reply_stands(tmp_path: Path) -> None:
    store, config = a_store(tmp_path), config_with()
    a_world(store, ["gold"] * 4)
    opened = a_batch(store, config, budget=4015)
    ask_teacher(opened, store, parts_of(Unsure({1: ("1", 40), 2: ("2", 90)}), tmp_path), config)
    assert of_item(store, opened).stated == "1"
    store.close()


def test_a_round_that_was_cut_off_between_both_replies_asks_only_for_the_second(tmp_path: Path) -> None:
    store, config = a_store(tmp_path), config_with()
    a_world(store, ["gold"] * 4)
    opened = a_batch(store, config)
    broken = Unsure({1: ("1", 40)})
    with pytest.raises(KeyError):
        ask_teacher(opened, store, parts_of(broken, tmp_path), config)
    assert [(item.key, len(replies)) for item, replies in asking.waiting(store, id_of(opened))] == [("new", 1)]
    teacher = Unsure({2: ("2", 90)})
    ask_teacher(opened, store, parts_of(teacher, tmp_path), config)
    assert len(teacher.sent) == 1
    assert of_item(store, opened).stated == "2"
    assert asking.waiting(store, id_of(opened)) == []
    store.close()


def test_verdicts_of_earlier_rounds_calibrate_and_those_that_came_later_do_not(tmp_path: Path) -> None:
    store, config = a_store(tmp_path), config_with()
    keys = [f"q{number:02}" for number in range(40)]
    items.add(store, [an_item(key) for key in keys])
    opened = queried(store, a_round(store, config), keys)
    for number, key in enumerate(keys):
        rationale_id = a_reply(store, opened, key, steps=["so"], answer=1)
        with store.writing() as session:
            row = session.get_one(Rationale, rationale_id)
            row.confidence = 0.95 if number % 2 else 0.6
            row.confidence_by = "stated"
        checked(store, rationale_id, 0.5)
    sent(store, opened, keys)
    later = a_round(store, config)
    assert trust_of(later, store, config).fits == {}
    for number, row in enumerate(rationales.of_round(store, id_of(opened))):
        a_verdict(store, row.id or 0, VerdictKind.ACCEPT if number % 2 or number < 6 else VerdictKind.REJECT)
        decided(store, opened, row.item_key, DecisionKind.UNDECIDED, row.id)
    trust = trust_of(later, store, config)
    assert trust.fits["stated"](0.95) > 0.7
    assert trust.fits["stated"](0.6) < 0.5
    [(number, kept)] = confidence.of_run(store, RUN)
    assert (number, kept.reviewed) == (later.number, 40)
    store.close()


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_prompt_that_is_too_long_loses_one_demonstration_after_the_other(tmp_path: Path) -> None:
    store, config = a_store(tmp_path), config_with(demonstrations=3, reprompt_below=0.0)
    a_world(store, ["gold"] * 5)
    opened = a_batch(store, config)
    teacher = Unsure({1: ("1", 90)}, longest=1)
    ask_teacher(opened, store, parts_of(teacher, tmp_path), config)
    assert len(teacher.sent) == 1
    [reply] = history(store, RUN, "new")["replies"]
    [prompt] = history(store, RUN, "new")["prompts"]
    assert reply["prompt_hash"] == prompt["hash"]
    assert len(prompt["body"]["messages"]) == 4, "what is stored is what was sent"
    store.close()


def test_an_item_that_is_too_long_by_itself_is_given_up_with_the_cure(tmp_path: Path) -> None:
    store, config = a_store(tmp_path), config_with(reprompt_below=0.0)
    a_world(store, ["gold"] * 5)
    opened = a_batch(store, config)
    ask_teacher(opened, store, parts_of(Unsure({}, longest=-1), tmp_path), config)
    [query] = history(store, RUN, "new")["queries"]
    assert "shorten the item, or lower teacher.max_completion_tokens" in query["problem"]
    store.close()


def test_the_real_client_says_that_a_prompt_is_too_long() -> None:
    rows = [Recording(key="a", question="How many?", steps=("one",), answer="1")]
    with running(RecordedTeacher(rows, [Fault(kind="too_long")])) as address:
        config = TeacherConfig(base_url=address, model="recorded")
        request = request_for(an_item("a"), TASK, config, (), 0)
        with pytest.raises(PromptTooLong):
            asyncio.run(OpenAITeacher(config).complete(request))


ONE, TWO = '{"steps": ["2 + 3 = 5"], "answer": "5"}', '{"steps": ["2 * 3 = 6"], "answer": "6"}'


@pytest.mark.parametrize(
    "text", [f"{ONE}\n{TWO}", f"Here: {ONE} or {TWO}.", f"```json\n{ONE}\n```\nor\n```json\n{TWO}\n```"]
)
def test_a_reply_of_two_objects_that_answer_differently_is_not_guessed_about(text: str) -> None:
    found = read(a_completion(text), an_item(), TASK)
    assert not isinstance(found, Draft)
    assert "answer differently" in found.problem


def test_a_reply_that_says_the_same_twice_is_read() -> None:
    found = read(a_completion(f"{ONE}\n\n{ONE}"), an_item(), TASK)
    assert isinstance(found, Draft)
    assert found.stated == "5"


def test_a_reply_in_another_language_is_read_by_its_form() -> None:
    found = read(a_completion('{"steps": ["二と三を足すと五です。"], "answer": "５"}'), an_item(), TASK)
    assert isinstance(found, Draft)
    assert found.answer == Answer(kind=AnswerKind.NUMBER, value="5")
    other = read(a_completion("1. Zwei und drei sind fünf.\nAntwort: 5"), an_item(), TASK)
    assert not isinstance(other, Draft)
    assert "states no answer" in other.problem


def test_an_answer_to_the_previous_question_is_noticed_by_what_it_mentions() -> None:
    asked = Item(key="a", question="Ann has 4 hats and buys 9 more. How many?", split="pool", text_hash="")
    steps = ["Bob has 31 sheep and sells 12 of them.", "31 - 12 = 19"]
    row = Rationale(
        item_key="a", round_id=1, author=Author.TEACHER, steps=steps, stated="19",
        answer=Answer(kind=AnswerKind.NUMBER, value="19").canonical,
    )  # fmt: skip
    found = doubts(Doubtful(item=asked, rationale=row, task=TASK), ChecksConfig())
    assert {"quantities", "names"} & {each.check for each in found}
    assert risk(found) > ReviewConfig().risk_threshold
