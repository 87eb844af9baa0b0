"""Whatever an endpoint sends back is read or refused, paid for once, and never made up."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from connectors.openai_teacher import OpenAITeacher
from connectors.recorded_teacher import RecordedTeacher, Recording, running
from loop.config import TeacherConfig
from loop.errors import TeacherRefused
from loop.records.teacher import ReplyState
from loop.teacher.prompt import most_input_tokens, request_for
from tests.endpoint import Endpoint, serving
from tests.test_ask import TASK, Book, an_item, asking
from tests.test_teacher import answering, http

USAGE = {"prompt_tokens": 20, "completion_tokens": 5}
ITEM = an_item(1)


@dataclass
class Odd(Endpoint):
    """An endpoint that always sends the same body."""

    body: Any = None

    def answer(self, asked: dict[str, Any]) -> tuple[int, Any]:
        self.requests.append(asked)
        return 200, self.body


def saying(text: str, **more: object) -> dict[str, Any]:
    """A body with one choice."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return {"model": "small", "choices": [choice | {"logprobs": None}], "usage": USAGE} | more


def a_config(address: str) -> TeacherConfig:
    return TeacherConfig(
        base_url=address, model="small", input_price=1.0, output_price=2.0, timeout=5.0, max_completion_tokens=100
    )


def asked(body: object) -> Book:
    """The book after one item was asked, with a schema, and this came back."""
    book = Book()
    with serving(Odd(body=body)) as address:
        asyncio.run(asking([ITEM], a_config(address), book))
    return book


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("1. One and one are two.\nAnswer: 2", "2"),
        ('Sure:\n```json\n{"steps": ["One and one are two."], "answer": 2}\n```', "2"),
        ('{"steps": ["One and one are two."], "answer": "2", "mood": "good"}', "2"),
        ('{"steps": ["Uno y uno son dos."], "answer": "2"}', "2"),
        ("1. 一足す一は二です。\n答え: 2", "2"),
    ],
)
def test_reply_that_does_not_hold_its_schema_is_read_all_the_same(text: str, answer: str) -> None:
    book = asked(saying(text))
    assert book.rationales["q1", 0].stated == answer
    assert book.replies["q1", 0].state is ReplyState.READABLE


@pytest.mark.parametrize(
    "text",
    [
        '{"steps": ["It is two."], "answer": "2"}\n{"steps": ["It is three."], "answer": "3"}',
        'Either {"steps": ["It is two."], "answer": "2"} or {"steps": ["It is three."], "answer": "3"}',
        '{"steps": ["It is two."]}',
        '{"steps": {"1": "It is two."}, "answer": "2"}',
        '{"steps": ["It is two."], "answer": {"value": "2"}}',
        '{"steps": ["It is',
        "これは数学の問題です。",
        "Je ne peux pas répondre.",
    ],
)
def test_reply_that_says_too_much_or_too_little_is_kept_and_not_guessed_at(text: str) -> None:
    book = asked(saying(text))
    assert book.rationales == {}
    assert book.replies["q1", 0].text == text
    assert book.problems["q1"] == book.replies["q1", 0].problem
    assert book.spent == 30


@pytest.mark.parametrize(
    "choices", [[], None, "none", {}, [None], [{}], [{"message": None}], [{"message": {"content": None}}]]
)
def test_reply_without_a_choice_is_empty_and_paid_for(choices: object) -> None:
    book = asked(saying("", choices=choices))
    assert book.replies["q1", 0].problem == "the reply is empty"
    assert book.spent == 30


@pytest.mark.parametrize("usage", [None, {}, [], {"prompt_tokens": None, "completion_tokens": "5"}])
def test_reply_without_usage_is_charged_at_its_bound(usage: object) -> None:
    book = asked(saying("1. It is two.\nAnswer: 2", usage=usage))
    request = request_for(ITEM, TASK, a_config("http://127.0.0.1:9/v1"), (), 0)
    assert book.spent == book.charges[0].reserved == most_input_tokens(request) + 2 * 100
    assert book.rationales["q1", 0].stated == "2"


@pytest.mark.parametrize(("given", "kept"), [("small-2026-01", "small-2026-01"), (None, "small"), (7, "small")])
def test_reply_keeps_the_model_that_the_endpoint_names(given: object, kept: str) -> None:
    assert asked(saying("1. It is two.\nAnswer: 2", model=given)).replies["q1", 0].model == kept


def test_more_choices_than_were_asked_for_are_not_mixed() -> None:
    two = [saying(f"1. It is {word}.\nAnswer: {number}")["choices"][0] for word, number in (("two", 2), ("three", 3))]
    assert asked(saying("", choices=two)).rationales["q1", 0].stated == "2"


def test_page_instead_of_a_completion_is_refused_and_costs_nothing() -> None:
    book = Book()
    with (
        answering(http("<html><body>Please log in</body></html>", kind="text/html")) as address,
        pytest.raises(TeacherRefused, match=r"does not answer as a chat endpoint; check teacher\.base_url"),
    ):
        asyncio.run(asking([ITEM], a_config(address), book))
    assert book.states() == ["released"]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_redirect_is_not_followed_with_prompt_and_key(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    other = RecordedTeacher([Recording(key="a", question="How many?", text="two", model="small")])
    book = Book()
    with running(other) as elsewhere:
        place = f"Location: {elsewhere}/chat/completions\r\n"
        with (
            answering(http(json.dumps(saying("two")), status=status, headers=place)) as address,
            pytest.raises(
                TeacherRefused, match=r"points to http.*nothing was sent there: set teacher\.base_url"
            ) as caught,
        ):
            asyncio.run(asking([ITEM], a_config(address), book))
    assert other.requests == 0
    assert "s3cret" not in str(caught.value)
    assert book.states() == ["released"]


def test_nothing_is_sent_elsewhere_by_looking_for_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    with answering(http("{}", status="302 Found", headers="Location: http://127.0.0.1:9/v1/batches\r\n")) as address:
        assert not asyncio.run(OpenAITeacher(a_config(address)).lists_batches())
