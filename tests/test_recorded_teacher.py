"""The recorded teacher speaks the protocol and answers as a pure function of what it is asked."""

import json
import logging
from pathlib import Path
from typing import Any

import httpx2
import pytest

from connectors.recorded_teacher import (
    Fault,
    RecordedTeacher,
    Recording,
    read_faults,
    read_recordings,
    running,
    serving,
)
from loop.config import JudgeConfig, TaskConfig, TeacherConfig
from loop.errors import BadConfig, BadRow
from loop.records import Item, Split
from loop.teacher.judge_prompt import step_request
from loop.teacher.prompt import request_for

APPLES = Recording(key="apples", question="How many  apples?", steps=("1 + 1 = 2",), answer="2")
PLUMS = Recording(key="plums", question="How many apples? And plums?", text="Three.\nAnswer: 3")


def body(question: str, **changes: object) -> dict[str, Any]:
    return {"model": "recorded", "messages": [{"role": "user", "content": question}], **changes}


def post(address: str, sent: dict[str, Any], **headers: str) -> httpx2.Response:
    return httpx2.post(f"{address}/chat/completions", json=sent, headers=headers, trust_env=False)


def text(response: httpx2.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


def an_item(**fields: object) -> Item:
    return Item(**{"key": "a", "question": "?", "split": Split.POOL, "text_hash": "", **fields})


def test_form_of_the_reply_follows_the_response_format() -> None:
    with running(RecordedTeacher([APPLES])) as address:
        plain = post(address, body("How many apples?"))
        structured = post(address, body("How many apples?", response_format={"type": "json_schema"}))
    assert text(plain) == "1. 1 + 1 = 2\nAnswer: 2"
    assert json.loads(text(structured)) == {"steps": ["1 + 1 = 2"], "answer": "2"}


def test_longest_recorded_question_in_a_foreign_prompt_is_meant() -> None:
    with running(RecordedTeacher([APPLES, PLUMS])) as address:
        reply = post(address, body("Please: How many apples? And plums? Thank you."))
    assert text(reply) == PLUMS.text


def test_question_between_our_fences_is_taken_exactly() -> None:
    item = an_item(question="How many apples?", context="Question:\n~~~\nHow many apples? And plums?\n~~~")
    request = request_for(item, TaskConfig(), TeacherConfig(), [], 0)
    assert RecordedTeacher([APPLES, PLUMS]).key_of(request.messages[-1]["content"]) == "apples"


def test_items_with_the_same_question_are_told_apart_by_their_context() -> None:
    recordings = [
        Recording(key=key, question="True?", context=f"Snow is {key}.", text="") for key in ("black", "white")
    ]
    teacher = RecordedTeacher(recordings)
    for key in ("black", "white"):
        request = request_for(
            an_item(question="True?", context=f"Snow is {key}."), TaskConfig(), TeacherConfig(), [], 0
        )
        assert teacher.key_of(request.messages[-1]["content"]) == key


def test_seed_says_which_sample_and_counts_round() -> None:
    samples = [Recording(key="q", question="Q?", text=f"Answer: {number}", sample=number) for number in (1, 0, 2)]
    with running(RecordedTeacher(samples)) as address:
        texts = [text(post(address, body("Q?", seed=seed))) for seed in (0, 1, 2, 3, 1)]
    assert texts == ["Answer: 0", "Answer: 1", "Answer: 2", "Answer: 0", "Answer: 1"]


def test_models_are_those_of_the_file_and_answer_each_for_itself() -> None:
    other = Recording(key="apples", question="How many apples?", model="other", text="Answer: 9")
    with running(RecordedTeacher([APPLES, other])) as address:
        models = httpx2.get(f"{address}/models", trust_env=False).json()
        assert [model["id"] for model in models["data"]] == ["other", "recorded"]
        assert text(post(address, body("How many apples?", model="other"))) == "Answer: 9"
        missing = post(address, body("How many apples?", model="gpt-9"))
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


def test_usage_is_recorded_or_four_bytes_a_token() -> None:
    counted = Recording(key="c", question="Counted?", text="yes", input_tokens=7, output_tokens=5, cached_tokens=3)
    with running(RecordedTeacher([counted, PLUMS])) as address:
        usage = post(address, body("Counted?")).json()["usage"]
        guessed = post(address, body("How many apples? And plums?")).json()["usage"]
    cached = {"cached_tokens": 3}
    assert usage == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12, "prompt_tokens_details": cached}
    assert guessed["prompt_tokens"] == 7
    assert guessed["completion_tokens"] == 4


def test_wrong_key_is_refused() -> None:
    with running(RecordedTeacher([APPLES], api_key="secret")) as address:
        assert post(address, body("How many apples?")).status_code == 401
        assert post(address, body("How many apples?"), authorization="Bearer secret").status_code == 200


def test_question_without_a_recording_gets_a_reply_that_says_so() -> None:
    with running(RecordedTeacher([APPLES])) as address:
        assert text(post(address, body("Who are you?"))) == "No completion is recorded for this question."


@pytest.mark.parametrize("sent", [b"", b"[]", b"{}", b'{"model": "recorded", "messages": []}', b"\xff", b"[" * 50_000])
def test_body_that_is_no_chat_request_is_a_bad_request(sent: bytes) -> None:
    with running(RecordedTeacher([APPLES])) as address:
        response = httpx2.post(f"{address}/chat/completions", content=sent, trust_env=False)
    assert response.status_code == 400


def test_faults_come_from_a_file_and_stop_after_their_times(tmp_path: Path) -> None:
    recordings, faults = tmp_path / "teacher.jsonl", tmp_path / "faults.json"
    recordings.write_text(APPLES.model_dump_json() + "\n\n" + PLUMS.model_dump_json() + "\n")
    faults.write_text('[{"kind": "429", "key": "apples", "seconds": 2, "times": 2}, {"kind": "500", "every": 5}]')
    with serving(recordings, faults=faults) as address:
        responses = [post(address, body("How many apples?")) for _ in range(6)]
    assert [response.status_code for response in responses] == [429, 429, 200, 200, 500, 200]
    assert responses[0].headers["retry-after"] == "2"


def test_line_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "teacher.jsonl"
    file.write_text(APPLES.model_dump_json() + '\n{"key": "b", "question": "?"}\n')
    with pytest.raises(BadRow, match=r"teacher.jsonl:2: .*needs `text`, or `steps` and `answer`"):
        read_recordings(file)
    file.write_text("")
    with pytest.raises(BadRow, match="no completion is recorded"):
        read_recordings(file)
    with pytest.raises(BadRow, match="cannot be read"):
        read_recordings(tmp_path / "missing.jsonl")


def test_file_of_faults_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    for wrong in ('[{"kind": "meteor"}]', "{", "3"):
        file.write_text(wrong)
        with pytest.raises(BadConfig, match="not a JSON list of faults"):
            read_faults(file)
    assert read_faults(None) == []


def test_server_listens_on_loopback_only() -> None:
    with running(RecordedTeacher([APPLES], [Fault(kind="500")])) as address:
        assert address.startswith("http://127.0.0.1:")


def test_server_that_starts_closes_nobodys_log() -> None:
    class Log(logging.NullHandler):
        closed = False

        def close(self) -> None:
            self.closed = True
            super().close()

    log = Log()
    with running(RecordedTeacher([APPLES], [])):
        assert not log.closed


def test_panel_names_the_model_that_wrote_each_completion() -> None:
    rows = [
        Recording(key="apples", question="How many apples?", model="panel", served_by=name, text="2", sample=number)
        for number, name in enumerate(("palm", "gpt"))
    ]
    with running(RecordedTeacher(rows)) as address:
        replies = [post(address, body("How many apples?", model="panel", seed=seed)) for seed in (0, 1)]
    assert [reply.json()["model"] for reply in replies] == ["palm", "gpt"]


JUDGED = [
    Recording(
        key="apples", question="How many  apples?", model="judge", step="1 + 1 = 3", verdict="wrong", evidence="2"
    ),
    Recording(key="apples", question="How many  apples?", model="judge", step="So 3.", text="no JSON"),
]


def judged(step: str) -> str:
    """What the recorded judge says of a step, asked as the loop asks."""
    item, task, config = an_item(question="How many apples?"), TaskConfig(), JudgeConfig(model="judge")
    sent = [dict(message) for message in step_request(item, (), 0, step, task, config).messages]
    with running(RecordedTeacher([APPLES, *JUDGED])) as address:
        return text(post(address, {"model": "judge", "messages": sent}))


def test_a_judges_prompt_is_answered_by_what_is_recorded_for_its_step() -> None:
    assert json.loads(judged("1 +  1 = 3")) == {"evidence": "2", "verdict": "wrong", "confidence": 90}
    assert judged("So 3.") == "no JSON"
    assert judged("1 + 1 = 2") == "No completion is recorded for this question."


def test_a_recorded_step_without_a_verdict_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "judge.jsonl"
    file.write_text('{"key": "a", "question": "?", "step": "so"}\n', encoding="utf-8")
    with pytest.raises(BadRow, match=r"judge.jsonl:1.*`text` or `verdict`"):
        read_recordings(file)
