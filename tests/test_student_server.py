"""The student over the real OpenAI client on loopback: what it supports is real, the rest is refused."""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AuthenticationError, BadRequestError, InternalServerError, NotFoundError, OpenAI

from connectors import student_completions, student_server
from connectors.access import token_for
from connectors.student_requests import Refused, cut
from connectors.student_server import LONGEST_BODY, StudentServer, application
from connectors.students import loaded, trained
from connectors.wiring import Project
from loop.config import Config
from loop.errors import BadConfig, BadRow
from loop.ports import Written
from loop.student import prompts
from loop.student.decoder import Decoder
from loop.student.reading import Sampling
from tests.served import served
from tests.test_encoder import examples as told
from tests.test_encoder import model as encoder  # noqa: F401 - a fixture
from tests.tiny import tiny_model
from tests.trained import a_trained_project, pool_item

QUESTION = "What is 3 + 20 ?"
SUMS = "lora_rank = 0\nepochs = 80\nbatch_size = 4\nlearning_rate = 0.01"
LABELS = 'answer = "label"\n[task.labels]\nwarm = "It is warm."\ncold = "It is cold."'
NAME = "tiny-round-1"
JSON = {"content-type": "application/json"}


@contextmanager
def serving(project: Project, token: str | None = None) -> Iterator[str]:
    """The address of the project's student."""
    which = trained(project)
    app = application(StudentServer(loaded(project, which), which.name, which.config, token))
    with served(app) as url:
        yield f"{url}/v1"


@pytest.fixture(scope="module")
def sums_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("sums")
    tiny_model(folder / "model")
    return a_trained_project(folder, student=SUMS)


@pytest.fixture
def address(sums_project: Project) -> Iterator[str]:
    with serving(sums_project) as found:
        yield found


@pytest.fixture
def client(address: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=address, api_key="any", max_retries=0) as found:
        yield found


def ask(client: OpenAI, content: object = QUESTION, **changes: object) -> object:
    messages = changes.pop("messages", [{"role": "user", "content": content}])
    return client.chat.completions.create(model=changes.pop("model", NAME), messages=messages, **changes)


def test_the_student_is_listed_and_answers_what_it_answers_in_preceptor(client: OpenAI, sums_project: Project) -> None:
    assert [each.id for each in client.models.list()] == [NAME]
    student = loaded(sums_project, trained(sums_project))
    assert isinstance(student, Decoder)
    item = pool_item(QUESTION)
    found = ask(client)
    assert found.choices[0].message.content == student.predict([item])[0].explanation.text
    assert found.choices[0].message.content.endswith("23")
    assert found.choices[0].finish_reason == "stop"
    assert found.choices[0].logprobs is None
    assert found.usage.prompt_tokens == len(student.encoded(prompts.rationale_prompt(item)))
    assert found.usage.completion_tokens == len(student.tokens(found.choices[0].message.content))
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens


def test_context_and_choices_are_read_as_the_student_was_trained(client: OpenAI, sums_project: Project) -> None:
    student = loaded(sums_project, trained(sums_project))
    item = pool_item(QUESTION, context="3 + 1 .\n2 + 2 .", choices=["23", "24"])
    found = ask(client, [{"type": "text", "text": prompts.presented(item)}])
    assert found.usage.prompt_tokens == student.reads(item)[0]
    assert found.choices[0].message.content == student.predict([item])[0].explanation.text
    assert ask(client, f"Question: {QUESTION}").usage == ask(client).usage
    assert ask(client, f"{QUESTION}\n(C) 3").usage.prompt_tokens > ask(client).usage.prompt_tokens


def test_a_stream_has_the_same_texts_and_usage_where_it_is_asked_for(client: OpenAI) -> None:
    whole = ask(client, n=2, temperature=2.0, seed=1)
    texts, reasons, usage = ["", ""], ["", ""], []
    options = {"include_usage": True, "include_obfuscation": False}
    for chunk in ask(client, n=2, temperature=2.0, seed=1, stream=True, stream_options=options):
        assert (chunk.object, chunk.model) == ("chat.completion.chunk", NAME)
        usage += [chunk.usage] if chunk.usage else []
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [each.message.content for each in whole.choices]
    assert reasons == [each.finish_reason for each in whole.choices]
    assert usage == [whole.usage]
    assert all(chunk.usage is None for chunk in ask(client, stream=True))
    with pytest.raises(BadRequestError, match="temperature"):
        ask(client, stream=True, temperature=3.0)


def test_a_body_that_does_not_come_is_given_up(sums_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student_server, "BODY_SECONDS", 0.2)

    def slowly() -> Iterator[bytes]:
        yield b"{"
        time.sleep(1.0)
        yield b"}"

    with serving(sums_project) as url:
        refused = httpx.post(f"{url}/chat/completions", content=slowly(), headers=JSON)
    assert refused.status_code == 408
    assert refused.json()["error"]["code"] == "request_timeout"


def test_a_probe_learns_that_the_server_is_there(address: str) -> None:
    assert httpx.get(address.replace("/v1", "/health")).json() == {"status": "ok"}


def test_more_than_it_takes_are_refused_in_the_form_of_the_protocol(
    sums_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(student_server, "MOST_AT_ONCE", 2)
    monkeypatch.setattr(StudentServer, "complete", lambda *_: goes_on.wait(20) and {})
    with serving(sums_project) as url, ThreadPoolExecutor(2) as pool:
        body = {"model": NAME, "messages": [{"role": "user", "content": QUESTION}]}
        waiting = [pool.submit(httpx.post, f"{url}/chat/completions", json=body, timeout=30) for _ in range(2)]
        try:
            for _ in range(200):
                refused = httpx.get(f"{url}/models")
                if refused.status_code == 503:
                    break
                time.sleep(0.05)
            health = httpx.head(url.replace("/v1", "/health"))
        finally:
            goes_on.set()
        assert health.status_code == 200
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["code"] == "overloaded"
        assert [each.result().status_code for each in waiting] == [200, 200]
        assert httpx.get(f"{url}/models").status_code == 200


def test_n_temperature_and_seed_are_real(client: OpenAI) -> None:
    def texts(**changes: object) -> list[str]:
        return [choice.message.content for choice in ask(client, **changes).choices]

    greedy = texts()
    assert texts(n=3) == greedy * 3
    wild = texts(n=4, temperature=2.0, seed=1)
    assert len(set(wild)) > 1
    assert texts(n=4, temperature=2.0, seed=1) == wild
    assert texts(n=2, temperature=2.0, seed=1) == wild[:2]
    assert texts(n=4, temperature=2.0, seed=2) != wild
    assert texts(n=2, temperature=2.0, top_p=1e-9, seed=1) == greedy * 2


def test_requests_that_come_at_once_get_the_answers_they_get_alone(client: OpenAI) -> None:
    questions = [f"What is {n} + 20 ?" for n in range(8)] + ["3 + " * 60] * 4

    def told(question: str) -> str:
        try:
            return ask(client, question, temperature=1.0, seed=3).choices[0].message.content
        except BadRequestError as error:
            return error.message

    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(told, questions))
    assert together == [told(question) for question in questions]


def test_an_answer_is_cut_at_its_longest_and_before_a_stop(client: OpenAI) -> None:
    short = ask(client, max_completion_tokens=3)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)
    assert ask(client).choices[0].message.content.startswith(short.choices[0].message.content)
    stopped = ask(client, stop=["Answer", "never"])
    assert stopped.choices[0].finish_reason == "stop"
    assert "Answer" not in stopped.choices[0].message.content
    assert stopped.usage.completion_tokens < ask(client).usage.completion_tokens


def test_cutting_keeps_count() -> None:
    pieces = ("a", "a b", "a b c")
    assert cut(Written(pieces, ended=True), None, []) == ("a b c", 3, "stop")
    assert cut(Written(pieces, ended=False), None, []) == ("a b c", 3, "length")
    assert cut(Written(pieces, ended=True), 3, []) == ("a b c", 3, "stop")
    assert cut(Written(pieces, ended=True), 2, []) == ("a b", 2, "length")
    assert cut(Written(pieces, ended=True), 2, ["c", " b"]) == ("a", 2, "stop")
    assert cut(Written((), ended=True), 2, ["c"]) == ("", 0, "stop")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stream_options": {"every": 2}}, "`stream_options.every` is not supported"),
        ({"logprobs": True}, "`logprobs` is not supported"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "`tools` is not supported"),
        ({"tool_choice": "auto"}, "`tool_choice` is not supported"),
        ({"store": True}, "`store` is not supported"),
        ({"metadata": {"a": "b"}}, "`metadata` is not supported"),
        ({"logit_bias": {"5": 1}}, "`logit_bias` is not supported"),
        ({"frequency_penalty": -1}, "`frequency_penalty` is not supported"),
        ({"response_format": {"type": "json_object"}}, "`response_format` is not supported"),
        ({"presence_penalty": 1.0}, "`presence_penalty` is not supported"),
        ({"extra_body": {"colour": None}}, "`colour` is not supported"),
        ({"max_tokens": 0}, "`max_tokens`: Input should be greater than or equal to 1"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "`max_tokens` is the older name of `max_completion_tokens`"),
        ({"stop": ""}, "`stop`: String should have at least 1 character"),
        ({"stop": ["a", ""]}, "`stop`: String should have at least 1 character"),
        ({"stop": ["a"] * 5}, "`stop`: List should have at most 4 items"),
        ({"n": 0}, "`n`: Input should be greater than or equal to 1"),
        ({"temperature": 3.0}, "`temperature`: Input should be less than or equal to 2"),
        ({"messages": []}, "`messages`"),
        ({"messages": [{"role": "system", "content": "Be kind."}]}, "send one user message"),
        ({"messages": [{"role": "user", "content": "a"}] * 2}, "send one user message"),
        ({"content": [{"type": "image_url", "image_url": {"url": "data:"}}]}, "send one user message of text"),
        (
            {"messages": [{"role": "user", "content": "a", "tool_calls": []}]},
            "`messages.0.tool_calls` is not supported",
        ),
        ({"content": " "}, "`question` is missing or empty"),
        ({"content": "Context: 3 .\nQuestion: "}, "`question` is missing or empty"),
    ],
)
def test_what_is_not_supported_is_refused_and_not_ignored(
    changes: dict[str, object], said: str, client: OpenAI
) -> None:
    with pytest.raises(BadRequestError) as caught:
        ask(client, **changes)
    assert said in caught.value.message
    assert not re.search(r"constrained|\[_|\.str", f"{caught.value.message} {caught.value.param}")


@pytest.mark.parametrize(
    "changes",
    [
        dict.fromkeys(("n", "stop", "temperature", "top_p", "seed", "user", "stream", "max_tokens", "tools", "store")),
        {"logprobs": False, "presence_penalty": 0, "frequency_penalty": 0.0, "response_format": {"type": "text"}},
        {"tools": [], "tool_choice": "none", "store": False, "metadata": {}, "logit_bias": {}},
        {"messages": [{"role": "user", "content": QUESTION, "name": "ann"}]},
    ],
)
def test_what_changes_nothing_may_be_sent(changes: dict[str, object], client: OpenAI) -> None:
    plain, found = ask(client), ask(client, **changes)
    assert (found.choices, found.usage) == (plain.choices, plain.usage)


def test_the_older_name_of_the_longest_answer_is_read(client: OpenAI) -> None:
    short = ask(client, max_completion_tokens=3)
    assert ask(client, max_tokens=3).choices == short.choices
    assert ask(client, max_tokens=3, max_completion_tokens=3).choices == short.choices


def test_a_model_is_shown_by_its_name(client: OpenAI) -> None:
    [listed] = client.models.list()
    assert client.models.retrieve(NAME) == listed
    with pytest.raises(NotFoundError, match="the model `some/other` does not exist; this is tiny-round-1") as caught:
        client.models.retrieve("some/other")
    assert (caught.value.code, caught.value.type) == ("model_not_found", "invalid_request_error")


def test_what_is_not_there_is_told_in_the_form_of_the_protocol(client: OpenAI, address: str) -> None:
    with pytest.raises(NotFoundError, match="POST /v1/embeddings is not served here") as caught:
        client.embeddings.create(model=NAME, input="a")
    assert (caught.value.code, caught.value.type) == ("unknown_url", "invalid_request_error")
    answer = httpx.get(f"{address}/chat/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["code"] == "method_not_allowed"


def test_a_token_that_no_model_has_is_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="`stop_token_ids`: Input should be less than"):
        client.completions.create(model=NAME, prompt=QUESTION, extra_body={"stop_token_ids": [1 << 63]})


def test_a_completion_ends_before_a_stop(client: OpenAI) -> None:
    prompt = prompts.rationale_prompt(pool_item(QUESTION))

    def complete(**changes: object) -> Any:
        return client.completions.create(model=NAME, prompt=prompt, max_tokens=20, **changes)

    whole, stop = complete().choices[0].text, "Answer"
    assert whole.index(stop) > 0
    for said in (stop, ["never", stop]):
        found = complete(stop=said, extra_body={"return_token_ids": True}, logprobs=1)
        assert (found.choices[0].text, found.choices[0].finish_reason) == (whole[: whole.index(stop)], "stop")
        assert found.usage.completion_tokens < complete().usage.completion_tokens
        assert found.usage.completion_tokens == len(found.choices[0].token_ids) == len(found.choices[0].logprobs.tokens)
    assert complete(stop="never").choices[0].text == whole
    assert complete(**dict.fromkeys(("n", "stop", "temperature", "seed", "logprobs"))).choices[0].text == whole


def test_an_item_longer_than_the_context_has_the_protocol_s_code(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="the student reads 40; shorten its context") as caught:
        ask(client, "3 + " * 60)
    assert caught.value.code == "context_length_exceeded"


def test_another_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="this is tiny-round-1"):
        ask(client, model="gpt")


def test_bodies_that_are_no_requests_are_refused(address: str) -> None:
    url = f"{address}/chat/completions"
    for body in (b"", b"{", b"[]", b"\xff", json.dumps({"model": NAME}).encode()):
        assert httpx.post(url, content=body, headers=JSON).status_code == 400
    assert httpx.post(url, content=b" " * (LONGEST_BODY + 1), headers=JSON).status_code == 413


def test_no_web_page_reaches_a_student_that_asks_for_no_token(address: str) -> None:
    """Neither by a name of its own that now means this machine, nor by what a page may send anywhere."""
    url, body = f"{address}/chat/completions", {"model": NAME, "messages": [{"role": "user", "content": QUESTION}]}
    assert httpx.post(url, json=body).status_code == 200
    assert httpx.post(url, json=body, headers={"host": "localhost:8096"}).status_code == 200
    for host in ("evil.example", "evil.example:8096", "127.0.0.1.evil.example", ""):
        for answer in (
            httpx.post(url, json=body, headers={"host": host}),
            httpx.get(f"{address}/models", headers={"host": host}),
        ):
            assert answer.status_code == 421
            assert answer.json()["error"]["message"] == "ask it as http://127.0.0.1 or localhost"
    for form in ({"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}, {}):
        assert httpx.post(url, content=json.dumps(body), headers=form).status_code == 415


def test_a_token_opens_the_student_under_every_name(sums_project: Project) -> None:
    with serving(sums_project, token="long and random") as address:
        headers = {"host": "students.example", "authorization": "Bearer long and random"}
        assert httpx.get(f"{address}/models", headers=headers).status_code == 200


def test_a_full_memory_is_halved_and_told_in_the_form_of_the_protocol(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, most = Decoder._continued, 2

    def short_of_memory(student: Decoder, *given: Any, sampling: Sampling, **settings: Any) -> Any:
        if sampling.draws.shape[1] > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return whole(student, *given, sampling=sampling, **settings)

    free = [choice.message.content for choice in ask(client, n=5, temperature=1.0, seed=1).choices]
    monkeypatch.setattr(Decoder, "_continued", short_of_memory)
    assert [choice.message.content for choice in ask(client, n=5, temperature=1.0, seed=1).choices] == free
    most = 0
    with pytest.raises(
        InternalServerError, match="the memory does not suffice for this answer; ask for less"
    ) as caught:
        ask(client)
    assert (caught.value.status_code, caught.value.type) == (503, "server_error")
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_a_completion_for_which_the_memory_is_too_small_is_told_so(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(student_completions, "continuations", failing)
    with pytest.raises(InternalServerError, match="the memory does not suffice for this answer") as caught:
        client.completions.create(model=NAME, prompt=[5, 6])
    assert caught.value.status_code == 503


def test_the_oldest_of_many_checkpoints_makes_room(sums_project: Project) -> None:
    student = loaded(sums_project, trained(sums_project))
    server = StudentServer(student, NAME, sums_project.config, None, lambda _: student)
    for name in "abcd":
        server.load(json.dumps({"lora_name": name, "lora_path": f"checkpoints/{name}"}).encode())
    assert server.names == [NAME, "b", "c", "d"]
    with pytest.raises(Refused, match="the model `a` does not exist"):
        server.student("a")
    server.load(b'{"lora_name": "a", "lora_path": "checkpoints/a"}')
    assert server.names == [NAME, "c", "d", "a"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Which?\n(A) one\n(B) two\n", ("Which?", ["one", "two"])),
        ("Which?\n(A) one\n(C) two", ("Which?\n(A) one\n(C) two", [])),
        ("Which?\n(B) one", ("Which?\n(B) one", [])),
        ("(B) one\nor\n(A) two\n(B) three", ("(B) one\nor", ["two", "three"])),
        ("Which?\n(A) one\n\n(B) two", ("Which?\n(A) one\n\n(B) two", [])),
    ],
)
def test_choices_are_read_where_they_stand_in_order_at_the_end(said: str, expected: tuple[str, list[str]]) -> None:
    config = Config.model_validate({"task": {"answer": "number"}})
    found = student_server._item(said, config)
    assert (found.question, found.choices) == expected


def test_a_long_message_of_lines_and_blanks_is_read_at_once() -> None:
    config = Config.model_validate({"task": {"answer": "number"}})
    with pytest.raises(BadRow, match="the text is longer than"):  # and not after hours of looking for choices
        student_server._item("Which?" + "\n(A) x" * 1000 + " " * 44_000 + "\n" * 10_000 + "y", config)


def test_a_choice_question_needs_choices_and_gets_one_of_them(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model")
    settings = 'lora_rank = 0\nepochs = 1\nanswers_by = "answer"'
    project = a_trained_project(tmp_path, task='answer = "choice"', student=settings)
    with serving(project) as address, OpenAI(base_url=address, api_key="any", max_retries=0) as client:
        with pytest.raises(BadRequestError, match=r"no `choices`, which task\.answer = choice needs"):
            ask(client, "What is 3 ?")
        found = ask(client, "Question: What is 3 ?\n(A) 3\n(B) 4\n")
        assert found.choices[0].message.content in ("3", "4")
        assert found.choices[0].finish_reason == "stop"


def test_an_encoder_answers_with_its_label_and_samples_nothing(
    encoder: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "model").symlink_to(encoder)
    settings = 'kind = "encoder"\nepochs = 20\nbatch_size = 4\nlearning_rate = 3e-3'
    project = a_trained_project(tmp_path, task=LABELS, student=settings, examples=told())
    with serving(project) as address, OpenAI(base_url=address, api_key="any", max_retries=0) as client:
        said = [ask(client, f"the {what} today").choices[0].message.content for what in ("sun burns", "snow falls")]
        assert said == ["warm", "cold"]
        for changes in ({"temperature": 1.0}, {"n": 2}):
            with pytest.raises(BadRequestError, match="this student gives one answer; leave out temperature and n"):
                ask(client, **changes)


def test_where_a_token_is_set_only_who_knows_it_is_answered(sums_project: Project) -> None:
    with serving(sums_project, token="long and random") as address:
        with OpenAI(base_url=address, api_key="guess", max_retries=0) as stranger:
            with pytest.raises(AuthenticationError, match="wrong or missing API key"):
                ask(stranger)
            with pytest.raises(AuthenticationError):
                stranger.models.list()
        with OpenAI(base_url=address, api_key="long and random", max_retries=0) as known:
            assert ask(known).choices[0].message.content.endswith("23")


def test_others_reach_the_server_only_with_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUDENT", raising=False)
    for host in ("127.0.0.1", "::1", "localhost"):
        assert token_for(host, "STUDENT") is None
    for host in ("0.0.0.0", "192.0.2.1", "example.org"):
        with pytest.raises(BadConfig, match="put a long random word into STUDENT"):
            token_for(host, "STUDENT")
    monkeypatch.setitem(os.environ, "STUDENT", "word")
    assert token_for("0.0.0.0", "STUDENT") == "word"
