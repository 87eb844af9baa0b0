"""A teacher, or a judge, that answers the OpenAI chat protocol on loopback from a file of recorded completions.

Each line of the file is a JSON object:

    {"key": "q1", "question": "...", "model": "palm-540b", "text": "raw reply"}
    {"key": "q1", "question": "...", "model": "palm-540b", "steps": ["...", "..."], "answer": "12", "sample": 1}

    {"key": "q1", "question": "...", "model": "judge", "step": "2 + 3 = 6", "verdict": "wrong", "evidence": "it is 5"}

`context` tells apart items with the same question; `input_tokens`, `output_tokens` and `cached_tokens` (of the input)
may be recorded too, otherwise a token is taken as four bytes of UTF-8 and none is cached. `text` is given back as it
is; `steps` and `answer` are written as JSON where structured output is asked for, and as numbered lines where not.
Several lines for one key and model are its samples; the request's `seed` says which one is meant, counted round. So a
reply is a pure function of item, prompt, model and sample, cut off where it is longer than `max_completion_tokens`. A
line with `after`, a step, goes on from steps that end with it: its `steps` follow. A line with a `step` answers the
judge's prompt about that step of the item, with a `verdict` or with `text`, and where it is revised with what is
`corrected`. A line that is `whole` answers a check of all steps at once: `first_wrong` is the number of a step, from
which `steps` and `answer` take the place of the others.
Where nothing is recorded for a question or step, the reply says so and cannot be read.

It answers batches too. On request it misbehaves: a file with a JSON list of faults, see `Fault`.
"""

import asyncio
import json
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from connectors.listening import listening
from connectors.recorded_batches import RecordedBatches, routes_of
from loop.errors import BadConfig, BadRow
from loop.teacher.continuation import settled_steps
from loop.teacher.judge_prompt import presented_step
from loop.teacher.prompt import presented_parts, written

HOST = "127.0.0.1"
BYTES_PER_TOKEN = 4
NOTHING_RECORDED = "No completion is recorded for this question."
START_SECONDS = 20.0
WHOLE = "\n"
"""Stands for all steps where one step is named; no step is only that."""
BATCH_KINDS = frozenset({"upload_500", "batch_invalid", "batch_expired", "foreign_line"})


class Recording(BaseModel):
    """One recorded completion."""

    model_config = ConfigDict(frozen=True)

    key: str
    question: str
    context: str | None = None
    model: str = "recorded"
    served_by: str | None = None
    """The model that wrote the completion, where it is not the one that is asked for (a panel, a router)."""
    text: str | None = None
    steps: tuple[str, ...] | None = None
    answer: str | None = None
    after: str | None = None
    step: str | None = None
    verdict: str | None = None
    corrected: str | None = None
    evidence: str = ""
    confidence: int = 90
    whole: bool = False
    first_wrong: int | None = None
    sample: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0

    @model_validator(mode="after")
    def _says_something(self) -> "Recording":
        if self.text is None and self.step is None and (self.steps is None or self.answer is None):
            raise ValueError("needs `text`, or `steps` and `answer`")
        if self.text is None and self.step is not None and self.verdict is None:
            raise ValueError("needs `text` or `verdict` beside `step`")
        return self


class Fault(BaseModel):
    """A misbehaviour: for one item's key, for every n-th request, or for all; `times` times, then never again.

    `seconds` is how long `slow` takes and what `429` gives as Retry-After. The last four are of batches: an upload
    fails, a batch is refused by its form, one expires half done, a result is under another `custom_id`. Other kinds
    befall the lines of a batch as they do single requests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal[
        "429", "500", "too_long", "slow", "cut_off", "malformed", "wrong_schema", "no_usage", "not_json",
        "upload_500", "batch_invalid", "batch_expired", "foreign_line",
    ]  # fmt: skip
    key: str | None = None
    every: int = 1
    times: int = 1
    seconds: float = 0.0


class _Message(BaseModel):
    """One message of a chat request."""

    role: str
    content: str | list[Any] | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else json.dumps(self.content)


class _ChatRequest(BaseModel):
    """What is read of a chat request; everything else is accepted and ignored."""

    model: str
    messages: list[_Message] = Field(min_length=1)
    seed: int | None = None
    max_completion_tokens: int | None = None
    response_format: dict[str, Any] | None = None

    @property
    def last_user_message(self) -> str:
        return next((message.text for message in reversed(self.messages) if message.role == "user"), "")


class Limit:
    """Requests per minute, as a bucket that fills evenly and holds ten seconds' worth; it starts empty."""

    def __init__(self, requests_per_minute: int) -> None:
        self.refused = 0
        self.passed: list[float] = []
        """When requests passed, by the monotonic clock."""
        self._rate = requests_per_minute / 60
        self._left = 0.0
        self._filled_at = time.monotonic()

    def take(self) -> float:
        """0 where a request may pass, else the seconds until one may."""
        now = time.monotonic()
        self._left = min(10 * self._rate, self._left + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._left < 1:
            self.refused += 1
            return (1 - self._left) / self._rate
        self._left -= 1
        self.passed.append(now)
        return 0.0


class RecordedTeacher:
    """What the server knows and what it did."""

    def __init__(
        self,
        recordings: Sequence[Recording],
        faults: Sequence[Fault] = (),
        api_key: str | None = None,
        limit: "Limit | None" = None,
    ) -> None:
        self.api_key = api_key
        self.limit = limit
        self.requests = 0
        self.batches = RecordedBatches(lambda raw: _answered(self, raw), self.batch_fault)
        self.served: list[tuple[str, str, int]] = []
        """Key, model and sample of every completion that was sent."""
        self._faults = tuple(faults)
        self._fired: dict[int, int] = defaultdict(int)
        self._samples: dict[tuple[str, str, str, str], list[Recording]] = defaultdict(list)
        self._keys: dict[str, dict[str, str | None]] = defaultdict(dict)
        for recording in recordings:
            said = WHOLE if recording.whole else _folded(recording.step or ""), _folded(recording.after or "")
            self._samples[recording.key, recording.model, *said].append(recording)
            context = None if recording.context is None else _folded(recording.context)
            self._keys[_folded(recording.question)].setdefault(recording.key, context)
        for samples in self._samples.values():
            samples.sort(key=lambda recording: recording.sample or 0)
        self._longest_first = sorted(self._keys, key=lambda question: (-len(question), question))

    @property
    def models(self) -> list[str]:
        """The models that something is recorded of."""
        return sorted({model for _, model, *_ in self._samples})

    def key_of(self, message: str) -> str | None:
        """The item that a user message is about."""
        parts = presented_step(message) or presented_parts(message)
        said = _folded(message)
        question = _folded(parts.get("question", ""))
        if question not in self._keys:
            question = next((each for each in self._longest_first if each and each in said), "")
        context = _folded(parts.get("context", ""))
        keys = self._keys.get(question, {})
        fitting = [key for key, own in keys.items() if own and (own == context if parts else own in said)]
        fitting = fitting or [key for key, own in keys.items() if not own]
        return min(fitting, default=None)

    def recording(self, key: str | None, model: str, seed: int, *, step: str = "", after: str = "") -> Recording | None:
        """The recorded sample that the seed means: of the rationale, of what follows a step, or of the judge."""
        samples = self._samples.get((key or "", model, step if step == WHOLE else _folded(step), _folded(after)))
        return samples[seed % len(samples)] if samples else None

    def knows(self, message: str, model: str) -> bool:
        """Whether a reply to a user message about an item is recorded of a model."""
        return self.recording(self.key_of(message), model, 0) is not None

    def fault(self, key: str | None) -> Fault | None:
        """The misbehaviour that is due now; it counts as shown."""
        self.requests += 1
        for number, fault in enumerate(self._faults):
            if fault.kind in BATCH_KINDS:
                continue
            due = fault.key in (None, key) and self.requests % fault.every == 0
            if due and self._fired[number] < fault.times:
                self._fired[number] += 1
                return fault
        return None

    def batch_fault(self, kind: str) -> bool:
        """Whether this misbehaviour of batches is due now; it counts as shown."""
        for number, fault in enumerate(self._faults):
            if fault.kind == kind and self._fired[number] < fault.times:
                self._fired[number] += 1
                return True
        return False


def read_recordings(file: Path) -> list[Recording]:
    """All lines of the file.

    Raises:
        BadRow: a line cannot be used; the text names file and line.
    """
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise BadRow(f"{file}: cannot be read: {error}") from error
    recordings = [_recording(f"{file}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not recordings:
        raise BadRow(f"{file}: no completion is recorded in it")
    return recordings


def _recording(place: str, line: bytes) -> Recording:
    """The completion that a line holds."""
    try:
        return Recording.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise BadRow(f"{place}: {where + ': ' if where else ''}{problem['msg']}") from error


def read_faults(file: Path | None) -> list[Fault]:
    """The faults of a JSON file; none without one.

    Raises:
        BadConfig: the file is not a JSON list of faults.
    """
    if file is None:
        return []
    try:
        return [Fault.model_validate(fault) for fault in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BadConfig(f"{file}: not a JSON list of faults: {error}") from error


def application(teacher: RecordedTeacher) -> FastAPI:
    """The web application."""
    app = FastAPI(title="Recorded teacher", openapi_url=None)

    @app.get("/v1/models")
    async def models(request: Request) -> JSONResponse:
        refused = _wrong_key(request, teacher)
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "recorded"} for name in teacher.models]
        return refused or JSONResponse({"object": "list", "data": data})

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> JSONResponse:
        refused = _wrong_key(request, teacher)
        return refused or await _complete(teacher, await request.body())

    app.include_router(routes_of(teacher.batches, lambda request: _wrong_key(request, teacher), teacher.batch_fault))
    return app


@contextmanager
def serving(file: Path, *, faults: Path | None = None, api_key: str | None = None) -> Iterator[str]:
    """The base URL of a recorded teacher that runs while the block lasts."""
    with running(RecordedTeacher(read_recordings(file), read_faults(faults), api_key)) as address:
        yield address


@contextmanager
def running(teacher: RecordedTeacher) -> Iterator[str]:
    """The base URL of this teacher, served by a thread on loopback while the block lasts."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        server = uvicorn.Server(_server_config(teacher))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        _wait_until(lambda: server.started or not thread.is_alive())
        try:
            yield f"http://{HOST}:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join(START_SECONDS)


def serve(
    file: Path,
    *,
    port: int = 8098,
    faults: Path | None = None,
    api_key: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Answer on loopback until the process is interrupted.

    Raises:
        PreceptorError: the port is taken.
    """
    with listening(HOST, port) as (listener, address):
        teacher = RecordedTeacher(read_recordings(file), read_faults(faults), api_key)
        say(f"recorded teacher: {address}/v1 (Ctrl-C ends it)")
        uvicorn.Server(_server_config(teacher)).run(sockets=[listener])


def _server_config(teacher: RecordedTeacher) -> uvicorn.Config:
    return uvicorn.Config(
        application(teacher),
        log_level="warning",
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=2,
    )


def _wait_until(done: Callable[[], bool]) -> None:
    """Wait for the server's thread.

    Raises:
        BadConfig: it did not start.
    """
    pause = threading.Event()
    for _ in range(int(START_SECONDS / 0.01)):
        if done():
            return
        pause.wait(0.01)
    raise BadConfig("the recorded teacher did not start")


async def _complete(teacher: RecordedTeacher, raw: bytes) -> JSONResponse:
    """The answer to a chat request, or the misbehaviour that is due."""
    wait = 0.0 if teacher.limit is None else teacher.limit.take()
    if wait:
        return _error(429, "Rate limit reached", "rate_limit_exceeded", {"Retry-After": f"{wait:.3f}"})
    return await _answered(teacher, raw)


async def _answered(teacher: RecordedTeacher, raw: bytes) -> JSONResponse:
    """The answer to a chat request that no limit holds up."""
    try:
        asked = _ChatRequest.model_validate_json(raw)
    except ValidationError:
        return _error(400, "the body is not a chat request", "invalid_request_error")
    model, seed = asked.model, asked.seed or 0
    if model not in teacher.models:
        known = ", ".join(teacher.models)
        return _error(404, f"The model `{model}` does not exist; recorded models: {known}", "model_not_found")
    key = teacher.key_of(asked.last_user_message)
    about, settled = presented_step(asked.last_user_message), settled_steps(asked.last_user_message)
    step = WHOLE if about.get("steps") else about.get("step", "")
    recording = teacher.recording(key, model, seed, step=step, after=settled[-1] if settled else "")
    fault = teacher.fault(key)
    failure = await _failed(fault)
    if failure is not None:
        return failure
    teacher.served.append((key or "", model, seed))
    return _faulty(_answer(recording, asked), fault)


def _answer(recording: Recording | None, asked: _ChatRequest) -> dict[str, Any]:
    """A chat completion as the protocol has it."""
    structured = (asked.response_format or {}).get("type") in {"json_schema", "json_object"}
    text = _reply_text(recording, structured)
    used = (
        recording.input_tokens
        if recording and recording.input_tokens is not None
        else _tokens("".join(message.text for message in asked.messages))
    )
    made = recording.output_tokens if recording and recording.output_tokens is not None else _tokens(text)
    most, ends = asked.max_completion_tokens or made, "stop"
    if made > most:
        text, made, ends = text[: len(text) * most // made], most, "length"
    return {
        "id": f"recorded-{recording.key if recording else 'unknown'}",
        "object": "chat.completion",
        "created": 0,
        "model": (recording and recording.served_by) or asked.model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": ends}],
        "usage": {
            "prompt_tokens": used,
            "completion_tokens": made,
            "total_tokens": used + made,
            "prompt_tokens_details": {"cached_tokens": recording.cached_tokens if recording else 0},
        },
    }


def _reply_text(recording: Recording | None, structured: bool) -> str:
    if recording is None:
        return NOTHING_RECORDED
    if recording.text is not None:
        return recording.text
    if recording.verdict is not None:
        said = {name: getattr(recording, name) for name in ("evidence", "verdict", "confidence")}
        said |= {} if recording.corrected is None else {"corrected_step": recording.corrected}
        return json.dumps(said, ensure_ascii=False)
    if recording.whole:
        said = {name: getattr(recording, name) for name in ("evidence", "first_wrong", "steps", "answer")}
        return json.dumps(said, ensure_ascii=False)
    return written(recording.steps or (), recording.answer or "", structured=structured)


async def _failed(fault: Fault | None) -> JSONResponse | None:
    """The error that a fault gives instead of a completion; slowness only waits."""
    if fault is None:
        return None
    if fault.kind == "429":
        headers = {"Retry-After": f"{fault.seconds:g}"}
        return _error(429, "Rate limit reached", "rate_limit_exceeded", headers)
    if fault.kind == "500":
        return _error(500, "The server had an error", "server_error")
    if fault.kind == "too_long":
        return _error(400, "This model's maximum context length is 8 tokens", "context_length_exceeded")
    if fault.kind == "slow":
        await asyncio.sleep(fault.seconds)
    return None


def _faulty(answer: dict[str, Any], fault: Fault | None) -> JSONResponse:
    """The completion, spoilt by the fault that is due."""
    kind = fault.kind if fault else None
    choice = answer["choices"][0]
    text = choice["message"]["content"]
    if kind == "cut_off":
        choice["message"]["content"], choice["finish_reason"] = text[: len(text) // 2], "length"
    elif kind == "malformed":
        choice["message"]["content"] = '{"steps": ["' + text[: len(text) // 2]
    elif kind == "wrong_schema":
        choice["message"]["content"] = json.dumps({"reasoning": text, "steps": {"1": text}})
    elif kind == "no_usage":
        del answer["usage"]
    elif kind == "not_json":
        return _Broken("{" + json.dumps(answer))
    return JSONResponse(answer)


class _Broken(JSONResponse):
    """A body that claims to be JSON and is not."""

    def render(self, content: Any) -> bytes:
        """The content as it is."""
        return str(content).encode()


def _error(status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error in OpenAI's format."""
    body = {"error": {"message": message, "type": code, "param": None, "code": code}}
    return JSONResponse(body, status_code=status, headers=headers)


def _wrong_key(request: Request, teacher: RecordedTeacher) -> JSONResponse | None:
    given = request.headers.get("authorization", "")
    if teacher.api_key is None or given == f"Bearer {teacher.api_key}":
        return None
    return _error(401, "Incorrect API key provided", "invalid_api_key")


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _tokens(text: str) -> int:
    return max(1, -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN))
