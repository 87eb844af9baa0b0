"""A server writes and scores what torch would: greedy texts, samples, answers, steps; and another model is found out.

The server is our own, on loopback; `tests/test_real_endpoint.py` asks foreign ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connectors.doctor import diagnose
from connectors.served_student import ServedStudent
from connectors.student_server import StudentServer, a_server, application
from connectors.wiring import Project
from loop.answer import AnswerKind
from loop.config import Config, StudentConfig, TaskConfig
from loop.errors import BadConfig, StudentError
from loop.ports import Example, Student
from loop.records import Item
from loop.student.decoder import Decoder
from loop.student.served import ServedDecoder
from loop.student.trainer import Students
from tests.served import served
from tests.test_openvino import ADAPTERS, chance_that_alike, greedy, written
from tests.test_openvino import a_number as number
from tests.test_student import NUMBERS, QUIET, items, sums
from tests.tiny import tiny_model, tiny_project
from tests.whole_campaign import lived

LABELS = TaskConfig(answer=AnswerKind.LABEL, labels={"3": "three", "20": "twenty", "1 2": "both"})
Load = Callable[[Path], Student]


def made(folder: Path, task: TaskConfig = NUMBERS, served: Mapping[str, Any] | None = None, **changes: Any) -> Students:
    """What makes students on torch, or on a server where one is told of."""
    how = {"model": str(folder / "model"), "dtype": "float32", **ADAPTERS, **changes}
    if served is not None:
        how |= {"engine": "openai", "served": {"model": "untrained", "attempts": 1, **served}}
    return Students(StudentConfig.model_validate(how), task, folder / "cache", ServedStudent)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that adds, and adapters of two rounds with which it subtracts, from 20 and from 30."""
    folder = tmp_path_factory.mktemp("served")
    tiny_model(folder / "untrained")
    made(folder, model=str(folder / "untrained"), lora_rank=0, epochs=40).train(
        sums(8), seed=1, folder=folder / "model", progress=QUIET
    )
    for name, start in (("one", 20), ("two", 30)):
        taken = [
            Example(each.item, (f"{start} . {n} = {start - n} .",), number(start - n)) for n, each in enumerate(sums(8))
        ]
        made(folder).train(taken, seed=1, folder=folder / name, progress=QUIET)
    made(folder, lora_rank=0, epochs=3).train(taken, seed=1, folder=folder / "whole", progress=QUIET)
    return folder


@contextmanager
def serving(folder: Path, load: Load | None = None, token: str | None = None) -> Iterator[str]:
    """The address of our own server, which holds the untrained student; `load` gives the others."""
    load = load or made(folder).student
    server = StudentServer(made(folder).student(None), "untrained", Config(), token, load)
    with served(application(server)) as url:
        yield f"{url}/v1"


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving(folder) as found:
        yield found


def test_greedy_explanations_are_those_of_torch_with_and_without_adapters(folder: Path, address: str) -> None:
    asked, texts = items(sums(8)), []
    for checkpoint in (None, folder / "one", folder / "two"):
        there, here = (made(folder, served=how).student(checkpoint) for how in ({"base_url": address}, None))
        assert isinstance(there, ServedDecoder)
        texts.append(greedy(there, asked))
        assert texts[-1] == greedy(here, asked)
        assert there.predict(asked) == here.predict(asked)
        assert there.go_on(asked, [["20 ."]] * 8) == here.go_on(asked, [["20 ."]] * 8)
        how = {"copies": [0], "temperature": 1.0, "top_p": 1.0, "seed": 1}
        assert there.write(asked[0], **how) == here.write(asked[0], **how)
    assert all(len(set(three)) == 3 for three in zip(*texts, strict=True))


PARTS = [[(), ("20 .",), ("20 .", "1 + 20 = 21 .")]] * 4


def test_answers_steps_and_doubts_are_those_of_torch(folder: Path, address: str) -> None:
    asked = items(sums(4))
    for task in (NUMBERS, LABELS):
        there, here = (made(folder, task, served=how).student(folder / "one") for how in ({"base_url": address}, None))
        for found, wanted in zip(there.answers_after(asked, PARTS), here.answers_after(asked, PARTS), strict=True):
            assert [each.answer for each in found] == [each.answer for each in wanted]
            for one, other in zip(found, wanted, strict=True):
                assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        assert [len(each) for each in there.probabilities(asked)] == [3 * (task is LABELS)] * 4
        np.testing.assert_allclose(there.doubt(asked), here.doubt(asked), atol=1e-5)
        np.testing.assert_allclose(there.embed(asked), here.embed(asked), atol=1e-6)
    steps = [["20 .", "1 + 20 ."], [], ["3 ."], ["20 ."]]
    for found, wanted in zip(there.step_likelihoods(asked, steps), here.step_likelihoods(asked, steps), strict=True):
        assert found == pytest.approx(wanted, abs=1e-4)


def test_samples_depend_on_seed_and_item_and_not_on_the_company(folder: Path, address: str) -> None:
    student, asked = made(folder, served={"base_url": address}).student(folder / "one"), items(sums(4))

    def explained(some: Sequence[Item], seed: int, copies: Sequence[int]) -> dict[str, list[str]]:
        rows = student.explain(some, copies=copies, temperature=2.0, top_p=1.0, seed=seed)
        return {item.key: [each.text for each in row] for item, row in zip(some, rows, strict=True)}

    everyone = explained(asked, 7, range(4))
    assert explained(asked[::-1], 7, range(4)) == everyone
    assert explained(asked[1:3], 7, [2, 3]) == {item.key: everyone[item.key][2:] for item in asked[1:3]}
    assert len({text for texts in everyone.values() for text in texts[1:]}) > 4
    other = explained(asked, 8, range(4))
    assert [texts[0] for texts in other.values()] == [texts[0] for texts in everyone.values()]
    assert [texts[1:] for texts in other.values()] != [texts[1:] for texts in everyone.values()]


def test_samples_follow_the_distribution_of_torch(folder: Path, address: str) -> None:
    there, here = (
        made(folder, served=how).student(folder / "one") for how in ({"base_url": address, "concurrency": 2}, None)
    )
    assert isinstance(there, Decoder)
    assert isinstance(here, Decoder)
    found = written(there, temperature=1.7, top_p=0.8, seed=3, count=150)
    assert len(found) > 2
    assert chance_that_alike(found, written(here, temperature=1.7, top_p=0.8, seed=4)) > 0.001
    assert chance_that_alike(found, written(here, temperature=2 * 1.7, top_p=0.8, seed=5)) < 0.001


@pytest.mark.parametrize("held", [None, "two"])
@pytest.mark.parametrize("prompts", ["tokens", "text"])
def test_a_server_that_holds_another_checkpoint_is_found_out(folder: Path, held: str | None, prompts: str) -> None:
    """One that leaves adapters out, and one that has those of another round."""
    wrong = made(folder).student(None if held is None else folder / held)
    with serving(folder, load=lambda _: wrong) as url, pytest.raises(StudentError, match="runs another model than pre"):
        made(folder, served={"base_url": url, "prompts": prompts}).student(folder / "one")
    with serving(folder) as url:
        made(folder, served={"base_url": url, "prompts": prompts}).student(folder / "one")


def test_adapters_that_were_trained_anew_in_the_same_folder_are_loaded_anew(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(folder / "model")
    with serving(folder) as url:
        for name in ("one", "two"):
            (tmp_path / "round-1").unlink(missing_ok=True)
            (tmp_path / "round-1").symlink_to(folder / name)
            student = made(tmp_path, served={"base_url": url}).student(tmp_path / "round-1")
            assert greedy(student, items(sums(3))) == greedy(made(folder).student(folder / name), items(sums(3)))  # type: ignore[arg-type]


def plain_server(student: Decoder) -> Starlette:
    """A server like `transformers serve`: it loads the folder that is named, takes texts, and names no tokens."""

    async def complete(request: Request) -> Response:
        asked = await request.json()
        if unknown := set(asked) - {"model", "prompt", "max_tokens", "temperature", "top_p", "seed"}:
            return JSONResponse({"detail": f"Unexpected fields in the request: {unknown}"}, 422)
        ids = student.tokenizer(asked["prompt"])["input_ids"]
        [[tokens]] = Decoder._continued(student, [ids], asked["max_tokens"])
        ended = tokens[-1] == student.end
        choice = {"text": student.decoded([tokens])[0], "finish_reason": "stop" if ended else "length"}
        return JSONResponse({"model": f"{asked['model']}@main", "choices": [choice]})

    return Starlette(routes=[Route("/v1/completions", complete, methods=["POST"])])


def test_a_server_that_takes_texts_alone_writes_and_the_rest_is_done_here(folder: Path) -> None:
    here = made(folder, lora_rank=0).student(folder / "whole")
    assert isinstance(here, Decoder)
    asked, how = items(sums(4)), {"load": "folder", "prompts": "text"}
    with served(plain_server(here)) as url:
        there = made(folder, lora_rank=0, served={"base_url": f"{url}/v1", **how}).student(folder / "whole")
        assert greedy(there, asked) == greedy(here, asked)  # type: ignore[arg-type]
        with pytest.raises(StudentError, match=r'Unexpected fields.* set student\.served\.prompts = "text"'):
            made(folder, lora_rank=0, served={"base_url": f"{url}/v1", "load": "folder"}).student(folder / "whole")
        odd = Item(key="odd", question="What is <unk> § 3 ?", split=asked[0].split, text_hash="")  # no text spells it
        assert greedy(there, [odd, asked[0]]) == greedy(here, [odd, asked[0]])  # type: ignore[arg-type]
    assert there.answers_after(asked, PARTS) == here.answers_after(asked, PARTS)
    np.testing.assert_array_equal(there.doubt(asked), here.doubt(asked))


def test_a_server_that_is_away_or_refuses_says_the_cure_and_never_the_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRECEPTOR_STUDENT_TOKEN", "sesame-123")
    with serving(folder, token="sesame-123") as url:
        made(folder, served={"base_url": url}).student(folder / "one")
        monkeypatch.setenv("PRECEPTOR_STUDENT_TOKEN", "wrong-456")
        with pytest.raises(StudentError, match="variable PRECEPTOR_STUDENT_TOKEN") as refused:
            made(folder, served={"base_url": url}).student(folder / "one")
        assert "wrong-456" not in str(refused.value)
    with pytest.raises(StudentError, match=r"cannot be reached.* start the server of \[student\.served\]"):
        made(folder, served={"base_url": url}).student(folder / "one")


def test_a_checkpoint_that_is_loaded_in_the_other_way_is_refused(folder: Path, address: str) -> None:
    """One from before `lora_rank` was changed."""
    with pytest.raises(StudentError, match=r'whole: is a whole model; set student\.served\.load = "folder"'):
        made(folder, served={"base_url": address}).student(folder / "whole")
    with pytest.raises(StudentError, match=r'one: is adapters alone; set student\.served\.load = "lora"'):
        made(folder, lora_rank=0, served={"base_url": address, "load": "folder"}).student(folder / "one")


def refusing(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Starlette:
    async def answer(request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse({"data": [{"id": "untrained"}]})
        return JSONResponse(dict(body), status, dict(headers or {}))

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])


@pytest.mark.parametrize(
    ("status", "body", "cure"),
    [
        (404, {"detail": "Not Found"}, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        (400, {"error": {"message": "rank 64 is greater than max_lora_rank 16"}}, "--max-lora-rank"),
        (307, {}, "max-lora-rank"),
        (200, {}, "sent no completion; check student.served.base_url"),
    ],
)
def test_what_the_server_lacks_is_named(folder: Path, status: int, body: Mapping[str, Any], cure: str) -> None:
    with served(refusing(status, body)) as url, pytest.raises(StudentError, match=cure):
        made(folder, served={"base_url": f"{url}/v1"}).student(folder / "one")


@contextmanager
def watched(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], Response | None]) -> Iterator[str]:
    """Our own server, of whose completions something is changed, or that gives another answer in their place."""
    app = application(StudentServer(made(folder).student(None), "untrained", Config(), None, made(folder).student))
    [inner] = [each.endpoint for each in app.routes if getattr(each, "path", "") == "/v1/completions"]

    async def complete(request: Request) -> Response:
        asked = await request.json()
        answer: dict[str, Any] = await inner(request)
        return change(asked, answer) or JSONResponse(answer)

    app.router.routes.insert(0, Route("/v1/completions", complete, methods=["POST"]))
    with served(app) as url:
        yield f"{url}/v1"


def test_passing_trouble_is_tried_again(folder: Path) -> None:
    refused = []

    def now_and_then(asked: dict[str, Any], _: dict[str, Any]) -> Response | None:
        refused.append(len(refused) % 3 == 0 and "prompt_logprobs" not in asked)
        return JSONResponse({"error": {"message": "later"}}, 503, {"retry-after": "0.01"}) if refused[-1] else None

    with watched(folder, now_and_then) as url:
        there = made(folder, served={"base_url": url, "attempts": 8}).student(folder / "one")
        assert greedy(there, items(sums(4))) == greedy(made(folder).student(folder / "one"), items(sums(4)))  # type: ignore[arg-type]
    assert sum(refused) > 2


BLOCK = 4
"""Tokens that the simulated cache keeps together; vLLM's blocks are of 16 and more."""


def test_branches_find_what_they_share_read(folder: Path) -> None:
    """By a simulated automatic prefix cache: what a prompt begins with, in whole blocks, is cached by those before."""
    blocks: set[tuple[int, ...]] = set()
    counts = [0, 0]

    def cached(asked: dict[str, Any], answer: dict[str, Any]) -> None:
        starts = [tuple(asked["prompt"][:end]) for end in range(BLOCK, len(asked["prompt"]), BLOCK)]
        found = sum(start in blocks for start in starts) * BLOCK
        blocks.update(starts)
        answer["usage"]["prompt_tokens_details"] = {"cached_tokens": found}
        counts[0], counts[1] = counts[0] + len(asked["prompt"]), counts[1] + found

    with watched(folder, cached) as url:
        student = made(folder, served={"base_url": url, "concurrency": 8}).student(None)
        for ask, least in (
            (lambda: student.explain(items(sums(4)), copies=range(8), temperature=1.0, top_p=1.0, seed=1), 0.7),
            (lambda: student.answers_after(items(sums(4)), PARTS), 0.3),
        ):
            blocks.clear()
            counts[:] = [0, 0]
            ask()
            assert counts[1] / counts[0] > least
        assert isinstance(student, ServedDecoder)
        assert (student.cached_share() or 0) > 0.9


def test_a_server_that_says_no_probabilities_of_prompts_is_refused_with_the_cure(folder: Path) -> None:
    with (
        watched(folder, lambda _, answer: answer["choices"][0].pop("prompt_logprobs", None) and None) as url,
        pytest.raises(StudentError, match=r'`prompt_logprobs`.* set student\.served\.prompts = "text"'),
    ):
        made(folder, served={"base_url": url}).student(None)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"token_ids": [10**9]}, "writes tokens that"),
        ({"token_ids": [], "finish_reason": "length"}, "runs another model"),
    ],
)
def test_a_server_that_sends_what_cannot_be_is_refused(folder: Path, sent: dict[str, Any], said: str) -> None:
    with (
        watched(folder, lambda _, answer: answer["choices"][0].update(sent) or None) as url,
        pytest.raises(StudentError, match=said),
    ):
        made(folder, served={"base_url": url}).student(folder / "one")


def test_a_server_that_answers_by_another_name_is_refused(folder: Path) -> None:
    with (
        watched(folder, lambda _, answer: answer.update(model="untrained") or None) as url,  # type: ignore[func-returns-value]
        pytest.raises(StudentError, match="answers as 'untrained'"),
    ):
        made(folder, served={"base_url": url}).student(folder / "one")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('engine = "openai"', r"needs a table \[student.served\]"),
        ('engine = "openai"\nkind = "seq2seq"\n{}', 'is for kind = "causal"'),
        ('engine = "openai"\nlora_rank = 0\n{}', "is for lora_rank above 0"),
        ('[student.served]\nmodel = "m"\nbase_url = "127.0.0.1:8000"', "must begin with http://"),
        ('[student.served]\nmodel = "m"\nbase_url = "http://me:sesame@gpu:8000/v1"', "api_key_env names the key"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path: Path, text: str, said: str) -> None:
    served = '[student.served]\nmodel = "m"\nbase_url = "http://127.0.0.1:8000/v1"'
    (tmp_path / "config.toml").write_text(f"[student]\n{text.format(served)}", encoding="utf-8")
    with pytest.raises(BadConfig, match=said) as found:
        Project(tmp_path / "config.toml", QUIET)
    assert "sesame" not in str(found.value)


@pytest.mark.slow
def test_a_campaign_has_the_server_load_the_student_of_each_round(tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    text = config.read_text(encoding="utf-8").replace("lora_rank = 0", "lora_rank = 4")
    config.write_text(text, encoding="utf-8")
    server = a_server(Project(config, QUIET), None, None)
    with served(application(server)) as url:
        there = f'engine = "openai"\nserved = {{base_url = "{url}/v1", model = "untrained"}}'
        config.write_text(text.replace("lora_rank = 4", f"lora_rank = 4\n{there}"), encoding="utf-8")
        lived(config)
    assert len(server.names) == 3  # the untrained one, and one of each round
    assert len({name.removeprefix("preceptor-") for name in server.names}) == 3


def test_doctor_says_who_answers_for_the_student(tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    text = config.read_text(encoding="utf-8")
    server = StudentServer(Project(config, QUIET).trainer().student(None), "untrained", Config(), None)
    with served(application(server)) as url:
        there = f'engine = "openai"\nserved = {{base_url = "{url}/v1", model = "untrained"}}'
        config.write_text(text.replace("lora_rank = 0", f"lora_rank = 4\n{there}"), encoding="utf-8")
        found = {each.part: each for each in diagnose(config, lambda: Project(config, QUIET))}
    assert found["student"].fine
    assert found["student"].text == f"model loads; {url}/v1 answers as it does, and says nothing of a prefix cache"
