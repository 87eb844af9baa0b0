"""The client of the teacher: prompts, prices, and every way an endpoint can fail, in the loop's words."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.openai_teacher import OpenAITeacher, is_loopback
from connectors.recorded_teacher import Fault, RecordedTeacher, Recording, running
from loop.answer import Answer, AnswerKind
from loop.config import TaskConfig, TeacherConfig
from loop.errors import BadConfig, ItemRefused, TeacherBusy, TeacherRefused, UnknownPrice
from loop.ports import Completion, Request
from loop.records import Item, Split
from loop.teacher.prompt import most_input_tokens, presented_parts, prompt_of, request_for, worst_case

TASK = TaskConfig()
REPLY = Recording(
    key="a", question="How many?", steps=("two",), answer="2", input_tokens=11, output_tokens=4, cached_tokens=8
)


def an_item(**fields: object) -> Item:
    return Item(**{"key": "a", "question": "How many?", "split": Split.POOL, "text_hash": "", **fields})


def a_config(address: str | None, **changes: object) -> TeacherConfig:
    return TeacherConfig(**{"base_url": address, "model": "recorded", "timeout": 5.0, **changes})


def a_request(config: TeacherConfig, **fields: object) -> Request:
    return request_for(an_item(**fields), TASK, config, (), 0)


def completed(address: str, **changes: object) -> Completion:
    config = a_config(address, **changes)
    return asyncio.run(OpenAITeacher(config).complete(a_request(config)))


@contextmanager
def faulty(kind: str, seconds: float = 0.0) -> Iterator[str]:
    """A recorded teacher that always misbehaves so."""
    fault = Fault.model_validate({"kind": kind, "seconds": seconds, "times": 99})
    with running(RecordedTeacher([REPLY], [fault])) as address:
        yield address


@contextmanager
def answering(raw: bytes) -> Iterator[str]:
    """An endpoint that gives these bytes to whoever connects, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(raw)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        thread.join(5)


def http(body: str, kind: str = "application/json", status: str = "200 OK", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body.encode())}\r\n{headers}"
    return f"{head}Connection: close\r\n\r\n{body}".encode()


# --- complete -------------------------------------------------------------------------------------------------------


def test_completion_comes_back_with_its_usage() -> None:
    with running(RecordedTeacher([REPLY])) as address:
        assert completed(address) == Completion(
            text='{"steps": ["two"], "answer": "2"}',
            model="recorded",
            finish_reason="stop",
            input_tokens=11,
            output_tokens=4,
            cached_tokens=8,
        )


def test_one_teacher_serves_several_event_loops() -> None:
    async def twice(teacher: OpenAITeacher, request: Request) -> list[str]:
        async with teacher:
            return [(await teacher.complete(request)).text for _ in range(2)]

    with running(RecordedTeacher([REPLY])) as address:
        config = a_config(address)
        teacher = OpenAITeacher(config)
        texts = [asyncio.run(twice(teacher, a_request(config))) for _ in range(2)]
    assert len({text for pair in texts for text in pair}) == 1


def test_missing_usage_is_not_made_up() -> None:
    with faulty("no_usage") as address:
        result = completed(address)
    assert (result.input_tokens, result.output_tokens) == (None, None)


def test_cut_off_reply_says_so() -> None:
    with faulty("cut_off") as address:
        assert completed(address).finish_reason == "length"


@pytest.mark.parametrize(
    ("kind", "sent", "retry_after"), [("429", False, 3.0), ("500", True, None), ("not_json", True, None)]
)
def test_failure_that_may_pass_is_busy(kind: str, sent: bool, retry_after: float | None) -> None:
    with faulty(kind, 3.0) as address, pytest.raises(TeacherBusy) as caught:
        completed(address)
    assert caught.value.sent is sent
    assert caught.value.retry_after == retry_after


def test_time_out_may_have_been_served() -> None:
    with (
        faulty("slow", 2.0) as address,
        pytest.raises(TeacherBusy, match=r"within 0.2 s \(teacher.timeout\)") as caught,
    ):
        completed(address, timeout=0.2)
    assert caught.value.sent


def test_refused_connection_reached_nobody() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with pytest.raises(TeacherBusy, match="is the teacher running") as caught:
        completed(address)
    assert not caught.value.sent


def test_connection_lost_in_mid_answer_may_have_been_served() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{") as address, pytest.raises(TeacherBusy) as caught:
        completed(address)
    assert caught.value.sent


def test_retry_after_may_be_a_date() -> None:
    dates = "Date: Wed, 21 Oct 2026 07:28:00 GMT\r\nRetry-After: Wed, 21 Oct 2026 07:28:42 GMT\r\n"
    with answering(http("{}", status="429 Too Many", headers=dates)) as address, pytest.raises(TeacherBusy) as caught:
        completed(address)
    assert caught.value.retry_after == 42


@pytest.mark.parametrize("value", ["soon", "nan", "-1", "inf"])
def test_retry_after_that_says_nothing_is_ignored(value: str) -> None:
    raw = http("{}", status="429 Too Many", headers=f"Retry-After: {value}\r\n")
    with answering(raw) as address, pytest.raises(TeacherBusy) as caught:
        completed(address)
    assert caught.value.retry_after is None


def test_exhausted_account_is_refused_although_it_is_a_429() -> None:
    body = json.dumps({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}})
    with answering(http(body, status="429 Too Many")) as address, pytest.raises(TeacherRefused, match="no credit left"):
        completed(address)


@pytest.mark.parametrize(
    ("status", "message", "cure"),
    [
        ("403 Forbidden", "no", "environment variable OPENAI_API_KEY"),
        ("404 Not Found", "no", 'teacher.model = "recorded"'),
        ("400 Bad", "response_format json_schema is not supported", 'teacher.format = "plain"'),
        ("400 Bad", "temperature must be 1", r"temperature must be 1; check the settings in \[teacher\]"),
    ],
)
def test_refusal_names_its_cure(status: str, message: str, cure: str) -> None:
    body = json.dumps({"error": {"message": message}})
    with answering(http(body, status=status)) as address, pytest.raises(TeacherRefused, match=cure) as caught:
        completed(address)
    assert not isinstance(caught.value, ItemRefused)


def test_request_that_is_too_long_is_refused_for_itself_only() -> None:
    with faulty("too_long") as address, pytest.raises(ItemRefused, match="maximum context length"):
        completed(address)


def test_address_that_is_no_chat_endpoint_is_refused() -> None:
    page = http("<html>Welcome</html>", kind="text/html")
    with answering(page) as address, pytest.raises(TeacherRefused, match=r"check teacher\.base_url"):
        completed(address)


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        '{"choices": []}',
        '{"choices": null, "usage": null}',
        '{"choices": [{"message": null}]}',
        '{"choices": [{}], "usage": {}}',
        '{"choices": [{"message": {"content": null, "role": "assistant"}}], "usage": {"prompt_tokens": "many"}}',
        '{"choices": [{"message": {"content": null}}], "usage": {"prompt_tokens": -5, "completion_tokens": 1.5}}',
        '{"choices": [3], "usage": 7}',
        '{"choices": "none"}',
        '{"choices": {"0": 1}}',
        '{"choices": [{"message": {"content": ["a"]}}], "model": 3}',
    ],
)
def test_answer_with_parts_missing_is_empty_not_an_error(body: str) -> None:
    with answering(http(body)) as address:
        result = completed(address)
    assert result.text == ""
    assert result.model == "recorded"
    assert (result.input_tokens, result.output_tokens) == (None, None)


@pytest.mark.parametrize("body", ["[]", "3", "null", '"text"'])
def test_json_that_is_no_completion_is_refused(body: str) -> None:
    with answering(http(body)) as address, pytest.raises(TeacherRefused, match="chat endpoint"):
        completed(address)


def test_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadConfig, match="environment variable MY_KEY is empty"):
        OpenAITeacher(a_config(None, api_key_env="MY_KEY"))
    monkeypatch.setenv("MY_KEY", "x")
    OpenAITeacher(a_config(None, api_key_env="MY_KEY"))
    OpenAITeacher(a_config("http://localhost:8000/v1", api_key_env="NO_KEY"))


def test_key_is_sent_and_appears_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret-right")
    with running(RecordedTeacher([REPLY], api_key="s3cret-right")) as address:
        assert completed(address).text
        monkeypatch.setenv("OPENAI_API_KEY", "s3cret-wrong")
        with pytest.raises(TeacherRefused) as caught:
            completed(address)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://localhost/v1", True),
        ("https://api.openai.com/v1", False),
        ("http://127.0.0.1.example.com/v1", False),
        ("http://192.168.1.7/v1", False),
    ],
)
def test_loopback_is_told_from_the_world(address: str, here: bool) -> None:
    assert is_loopback(address) is here


# --- price ----------------------------------------------------------------------------------------------------------


def price(config: TeacherConfig, given: int, made: int, cached: int = 0) -> int:
    teacher = OpenAITeacher(config)
    return teacher.price(a_request(config), input_tokens=given, output_tokens=made, cached_tokens=cached)


def test_configured_price_is_rounded_up_to_whole_micro_dollars() -> None:
    config = a_config("http://localhost/v1", input_price=0.15, output_price=0.6)
    assert price(config, 1, 0) == 1
    assert price(config, 20, 5) == 6
    assert price(config, 1_000_000, 1_000_000) == 750_000
    assert price(config, 0, 0) == 0


def test_cached_tokens_cost_what_the_config_says_or_as_much_as_others() -> None:
    config = a_config("http://localhost/v1", input_price=0.4, output_price=0.6)
    assert price(config, 100, 0, cached=60) == 40
    cheaper = a_config("http://localhost/v1", input_price=0.4, output_price=0.6, cached_input_price=0.1)
    assert price(cheaper, 100, 0, cached=60) == 22
    assert price(cheaper, 100, 10, cached=100) == 16


def test_listed_price_knows_cached_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    assert price(a_config(None, model="gpt-4o-mini"), 1_000_000, 0, cached=500_000) == 112_500


@pytest.mark.parametrize("prices", [{"input_price": 0.1, "cached_input_price": 0.2}, {"cached_input_price": 0.2}])
def test_cached_tokens_dearer_than_a_hold_are_refused(prices: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=r"teacher\.cached_input_price: holds are sized by teacher\.input_price"):
        TeacherConfig(model="m", output_price=0.6, **prices)


def test_known_model_at_its_own_address_has_its_listed_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    assert price(a_config(None, model="gpt-4o-mini"), 1_000_000, 1_000_000) == 750_000
    assert price(a_config(None, model="gpt-4o-mini-2024-07-18"), 1, 1) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "gpt-4o-mini"}, r"teacher\.input_price and teacher\.output_price"),
        ({"input_price": 1.0}, r"both teacher\.input_price and teacher\.output_price"),
    ],
)
def test_unknown_price_names_the_keys_that_give_it(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UnknownPrice, match=said):
        price(a_config("http://localhost/v1", **changes), 1, 1)


def test_unknown_model_has_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    with pytest.raises(UnknownPrice, match=r"the price of my-model at https://api\.openai\.com/v1 is not known"):
        price(a_config(None, model="my-model"), 1, 1)


# --- prompt ---------------------------------------------------------------------------------------------------------


def test_item_stands_verbatim_between_fences_and_can_be_read_back() -> None:
    item = an_item(question='a < b & "c"?\n  two lines', context="Once\n~~~\nupon", choices=["x", "y"])
    message = request_for(item, TASK, TeacherConfig(), (), 0).messages[-1]
    assert message["role"] == "user"
    assert presented_parts(message["content"]) == {
        "question": item.question,
        "context": item.context,
        "choices": "(A) x\n(B) y",
    }


@given(question=st.text(alphabet="~\nQuestion:Context ab", min_size=1), context=st.text(alphabet="~\nQuestion: x"))
def test_no_item_can_end_its_block(question: str, context: str) -> None:
    message = request_for(an_item(question=question, context=context), TASK, TeacherConfig(), (), 0).messages[-1]
    parts = presented_parts(message["content"])
    assert parts["question"] == question
    assert parts.get("context", "") == context


def test_schema_puts_steps_before_the_answer_and_allows_only_known_answers() -> None:
    choice = request_for(an_item(choices=["x", "y", "z"]), TaskConfig(answer=AnswerKind.CHOICE), TeacherConfig(), (), 0)
    labels = TaskConfig(answer=AnswerKind.LABEL, labels={"ham": "wanted mail", "spam": "the rest"})
    label = request_for(an_item(), labels, TeacherConfig(), (), 0)
    assert choice.schema is not None
    assert label.schema is not None
    properties = choice.schema["properties"]
    assert isinstance(properties, dict)
    assert list(properties) == ["steps", "answer"]
    assert '["A", "B", "C"]' in json.dumps(choice.schema)
    assert '["ham", "spam"]' in json.dumps(label.schema)
    assert "- ham: wanted mail" in label.messages[0]["content"]


def test_plain_format_is_told_and_has_no_schema() -> None:
    request = request_for(an_item(), TASK, TeacherConfig(format="plain"), (), 0)
    assert request.schema is None
    assert "`Answer: `" in request.messages[0]["content"]


@pytest.mark.parametrize(
    ("form", "written"),
    [("plain", "1. one\n2. two\nAnswer: 7"), ("json_schema", '{"steps": ["one", "two"], "answer": "7"}')],
)
def test_demonstrations_are_earlier_turns_in_the_asked_form(form: str, written: str) -> None:
    worked = (an_item(key="b", question="How few?"), ("one", "two"), Answer(kind=AnswerKind.NUMBER, value="7"))
    request = request_for(an_item(), TASK, a_config(None, format=form), [worked], 0)
    assert [message["role"] for message in request.messages] == ["system", "user", "assistant", "user"]
    assert request.messages[2]["content"] == written


def test_gold_of_an_item_never_stands_in_its_prompt() -> None:
    item = an_item(answer='{"kind": "number", "value": "98765"}', steps=["secret step"])
    sent = json.dumps(prompt_of(request_for(item, TASK, TeacherConfig(), (), 0)).body)
    assert "98765" not in sent
    assert "secret step" not in sent


def test_prompt_hash_is_of_what_is_sent_not_of_whom_it_is_for() -> None:
    config = TeacherConfig()
    first = request_for(an_item(), TASK, config, (), 0)
    other_key = request_for(an_item(key="b"), TASK, config, (), 0)
    other_sample = request_for(an_item(), TASK, config, (), 1)
    assert prompt_of(first).hash == prompt_of(other_key).hash
    assert prompt_of(first).hash != prompt_of(other_sample).hash
    assert len(prompt_of(first).hash) == 64


@given(question=st.text(min_size=1))
def test_input_bound_counts_every_byte(question: str) -> None:
    request = a_request(TeacherConfig(), question=question * 500)
    sent = "".join(message["content"] for message in request.messages) + json.dumps(request.schema)
    assert most_input_tokens(request) >= len(sent.encode())


def test_worst_case_is_the_price_of_the_bound_and_the_longest_reply() -> None:
    config = a_config("http://localhost/v1", input_price=1.0, output_price=10.0, max_completion_tokens=100)
    request = a_request(config)
    assert worst_case(request, OpenAITeacher(config).price) == most_input_tokens(request) + 1000
