"""A student behind the OpenAI protocol: `/v1/models`, `/v1/chat/completions` and `/v1/completions`.

As vLLM does, it takes further checkpoints at `/v1/load_lora_adapter`, those of its own run. What is not supported is
refused with 400 and never ignored, so that whoever asks for it knows. The user's message is the question alone, or the
item as the student's prompts write it: `Context: `, `Question: ` and the choices, each on its line.
"""

import asyncio
import hmac
import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers

from connectors.access import names_loopback, token_for
from connectors.listening import listening
from connectors.students import Trained, asked, loaded, refuse_too_long
from connectors.wiring import Project
from loop.config import Config
from loop.errors import BadRow, ItemTooLong, StudentError
from loop.ports import Student, Written
from loop.records import Item
from loop.student.prompts import CONTEXT, QUESTION

LONGEST_BODY = 1 << 20
FULL = "the memory does not suffice for this answer; ask for less, or end other programs on the server"
UNTRAINED = "untrained"
"""Name of the student that no round has trained."""
MOST_CHOICES = 64
"""Texts that one request may ask for."""
MOST_AT_ONCE = 64
"""Requests that wait at a time; further ones are refused with 503."""
CHOICE = re.compile(r"^\(([A-Z])\) (.+)$", re.MULTILINE)
CHOICES = re.compile(r"(?:\n\([A-Z]\) .+)+\s*\Z")


Asked = TypeVar("Asked", bound=BaseModel)


class _Part(BaseModel):
    """A piece of a message; pictures and sound are refused."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class _Message(BaseModel):
    """The question; a system message or an earlier turn is nothing that the student was trained with."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["user"]
    content: str | list[_Part]

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class _ChatRequest(BaseModel):
    """What is read of a request; `temperature` is 0 where it is left out, and `user` changes nothing anywhere."""

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: Annotated[list[_Message], Field(min_length=1, max_length=1)]
    n: int = Field(default=1, ge=1, le=MOST_CHOICES)
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = None
    stop: (
        Annotated[str, Field(min_length=1)] | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=4)]
    ) = []
    stream: Literal[False] = False
    user: str = ""

    @property
    def stops(self) -> list[str]:
        """The texts that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop


class _LoadRequest(BaseModel):
    """A checkpoint, and the name by which it will be asked."""

    model_config = ConfigDict(extra="forbid")

    lora_name: str = Field(min_length=1, max_length=200)
    lora_path: str


class _Refused(Exception):
    """A request that gets an error instead of an answer."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class StudentServer:
    """Answers requests, one at a time."""

    def __init__(
        self,
        student: Student,
        name: str,
        config: Config,
        token: str | None,
        load: Callable[[Path], Student] | None = None,
    ) -> None:
        """Serve a student; `load` gives that of another checkpoint of the run, or raises `StudentError`."""
        self.name, self.token = name, token
        self._students = {name: student}
        self._config, self._load = config, load
        self._samples = config.student.kind != "encoder" and config.student.answers_by == "rationale"
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """Of the student and of the checkpoints that were loaded beside it."""
        return list(self._students)

    def complete(self, raw: bytes) -> dict[str, Any]:
        """The chat completion.

        Raises:
            _Refused: the request cannot be answered as it asks.
        """
        request = _parsed(raw, _ChatRequest)
        student = self._student(request.model)
        if not self._samples and (request.temperature > 0 or request.n > 1):
            raise _Refused(400, "this student gives one answer; leave out temperature and n", "unsupported_value")
        try:
            item = _item(request.messages[0].text, self._config)
            with self._lock:  # tokenizers too take one caller at a time
                refuse_too_long(student, item, "the question")
                prompt_tokens, _ = student.reads(item)
                texts = self._texts(student, item, request)
        except StudentError as error:
            raise _Refused(503, FULL, "out_of_memory") from error
        except BadRow as error:
            code = "context_length_exceeded" if isinstance(error, ItemTooLong) else "invalid_value"
            raise _Refused(400, str(error), code, "messages") from error
        return _completion(
            request.model, prompt_tokens, [cut(each, request.max_completion_tokens, request.stops) for each in texts]
        )

    def go_on(self, raw: bytes) -> dict[str, Any]:
        """The completion of a prompt as it stands, tokens or text.

        Raises:
            _Refused: the request cannot be answered as it asks, or the student writes nothing of its own.
        """
        from connectors import student_completions as completions  # noqa: PLC0415 - loads torch
        from loop.student.decoder import Decoder  # noqa: PLC0415 - as above

        request = _parsed(raw, completions.CompletionRequest)
        student = self._student(request.model)
        if not isinstance(student, Decoder):
            raise _Refused(400, "this student is no causal model; ask /v1/chat/completions", "unsupported_value")
        seed = secrets.randbits(32) if request.seed is None else request.seed
        with self._lock:
            try:
                prompt = completions.prompt_of(student, request)
            except ValueError as error:
                raise _Refused(400, str(error), "invalid_value", "prompt") from error
            return completions.completed(student, prompt, request, seed)

    def load(self, raw: bytes) -> None:
        """Have a further checkpoint answer under a name.

        Raises:
            _Refused: it cannot be loaded.
        """
        request = _parsed(raw, _LoadRequest)
        if request.lora_name in self._students:
            raise _Refused(400, f"`{request.lora_name}` has already been loaded", "invalid_value", "lora_name")
        try:
            if self._load is None:
                raise StudentError("this server loads no checkpoints")
            with self._lock:
                self._students[request.lora_name] = self._load(Path(request.lora_path))
        except StudentError as error:
            raise _Refused(400, str(error), "invalid_value", "lora_path") from error

    def _student(self, name: str) -> Student:
        if name not in self._students:
            said = f"the model `{name}` does not exist; this is {self.name}"
            raise _Refused(404, said, "model_not_found", "model")
        return self._students[name]

    def _texts(self, student: Student, item: Item, request: _ChatRequest) -> list[Written]:
        """At temperature 0 all texts are the same one."""
        copies = range(1, request.n + 1) if request.temperature > 0 else [0]
        texts = student.write(
            item,
            copies=copies,
            temperature=request.temperature or 1.0,
            top_p=request.top_p,
            seed=secrets.randbits(32) if request.seed is None else request.seed,
        )
        return texts if request.temperature > 0 else texts * request.n

    def refuse_stranger(self, headers: Headers) -> None:
        """Where a token is set, only who knows it is answered; elsewhere no web page that a browser here shows.

        Raises:
            _Refused: the headers hold no token, or name this machine by a name that a page may have given it.
        """
        shown = headers.get("authorization", "")
        if self.token is None:
            if not names_loopback(headers.get("host", "")):
                raise _Refused(421, "ask it as http://127.0.0.1 or localhost", "wrong_host")
        elif not hmac.compare_digest(shown.encode(), f"Bearer {self.token}".encode()):
            raise _Refused(401, "wrong or missing API key", "invalid_api_key")

    def refuse_form(self, headers: Headers) -> None:
        """Where no token is set a body must be named JSON, which a web page of elsewhere may not send here.

        Raises:
            _Refused: it is named something else, or nothing.
        """
        if self.token is None and headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise _Refused(415, "send it with the header `Content-Type: application/json`", "wrong_content_type")


def cut(written: Written, longest: int | None, stops: Sequence[str]) -> tuple[str, int, str]:
    """The text up to its longest or to a stop text, how many tokens were written for it, and why it ends."""
    pieces = written.pieces if longest is None else written.pieces[:longest]
    for number, piece in enumerate(pieces, start=1):
        found = [piece.index(stop) for stop in stops if stop in piece]
        if found:
            return piece[: min(found)], number, "stop"
    ended = written.ended and len(pieces) == len(written.pieces)
    return pieces[-1] if pieces else "", len(pieces), "stop" if ended else "length"


def serve(project: Project, which: Trained | None, *, host: str, port: int, token_env: str) -> None:
    """Answer until the process is interrupted, with a trained student or the untrained one.

    Raises:
        BadConfig: others could reach the server, and no token is set.
        PreceptorError: the port is taken.
    """
    token = token_for(host, token_env)
    with listening(host, port) as (listener, address):
        server = a_server(project, which, token)
        project.progress.say(f"  {server.name} answers at {address}/v1 (Ctrl-C ends it)")
        settings = uvicorn.Config(
            application(server),
            log_level="warning",
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            limit_concurrency=MOST_AT_ONCE,
        )
        uvicorn.Server(settings).run(sockets=[listener])


def a_server(project: Project, which: Trained | None, token: str | None) -> StudentServer:
    """A trained student of a project, or the untrained one; it runs here, wherever the run's own students do.

    Raises:
        StudentError: the student cannot be loaded.
    """
    config, checkpoints = project.config, (project.folder / "checkpoints").resolve()
    engine = "torch" if config.student.engine == "openai" else config.student.engine
    here = config.model_copy(update={"student": config.student.model_copy(update={"engine": engine})})

    def load(folder: Path) -> Student:
        if folder.resolve().parent != checkpoints:
            raise StudentError(f"{folder}: is no checkpoint of {checkpoints}")
        return project.trainer(here).student(folder.resolve())

    if which is None:
        return StudentServer(project.trainer(here).student(None), UNTRAINED, config, token, load)
    return StudentServer(loaded(project, which, engine=engine), which.name, which.config, token, load)


def application(server: StudentServer) -> FastAPI:
    """The web application."""
    app = FastAPI(title="Student", openapi_url=None)

    @app.exception_handler(_Refused)
    async def refused(_: Request, error: _Refused) -> JSONResponse:
        kind = "invalid_request_error" if error.status < 500 else "server_error"
        body = {"message": str(error), "type": kind, "param": error.param, "code": error.code}
        again = {} if error.status < 500 else {"x-should-retry": "false"}  # the same request would end the same way
        return JSONResponse({"error": body}, status_code=error.status, headers=again)

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        server.refuse_stranger(request.headers)
        return {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 0, "owned_by": "preceptor"} for name in server.names],
        }

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> dict[str, Any]:
        server.refuse_stranger(request.headers)
        server.refuse_form(request.headers)
        return await asyncio.to_thread(server.complete, await _body(request))

    @app.post("/v1/completions")
    async def completions(request: Request) -> dict[str, Any]:
        server.refuse_stranger(request.headers)
        server.refuse_form(request.headers)
        return await asyncio.to_thread(server.go_on, await _body(request))

    @app.post("/v1/load_lora_adapter")
    async def load(request: Request) -> dict[str, Any]:
        server.refuse_stranger(request.headers)
        server.refuse_form(request.headers)
        await asyncio.to_thread(server.load, await _body(request))
        return {"object": "model"}

    return app


async def _body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_BODY:
            raise _Refused(413, f"the body is longer than {LONGEST_BODY} bytes", "request_too_large")
    return body


def _parsed(raw: bytes, kind: type[Asked]) -> Asked:
    """The request; what it asks for and cannot have is named."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            said = f"`{place}` is not supported; leave it out"
        elif first["loc"][:1] == ("messages",) and first["type"] in ("too_long", "literal_error"):
            said = "the student answers one question: send one user message of text, without system message or history"
        elif place == "stream":
            said = "`stream` is not supported; leave it out"
        else:
            said = f"`{place}`: {first['msg']}" if place else f"the body is no such request: {first['msg']}"
        raise _Refused(400, said, "invalid_value", place or None) from error


def _item(text: str, config: Config) -> Item:
    """The item of a message: the question, or context, question and choices as the student's prompts write them."""
    text, context = text.lstrip(), ""
    if text.startswith(CONTEXT) and f"\n{QUESTION}" in text:
        context, _, text = text.removeprefix(CONTEXT).rpartition(f"\n{QUESTION}")
    text = text.removeprefix(QUESTION)
    found = CHOICES.search(text)
    choices = CHOICE.findall(found[0]) if found else []
    if [letter for letter, _ in choices] != [chr(ord("A") + number) for number in range(len(choices))]:
        found, choices = None, []
    question = text[: found.start()] if found else text
    return asked(question, config.task, context, [choice for _, choice in choices])


def _completion(name: str, prompt_tokens: int, texts: Sequence[tuple[str, int, str]]) -> dict[str, Any]:
    """A chat completion as the protocol has it."""
    made = sum(tokens for _, tokens, _ in texts)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": name,
        "choices": [
            {
                "index": number,
                "message": {"role": "assistant", "content": text},
                "finish_reason": reason,
                "logprobs": None,
            }
            for number, (text, _, reason) in enumerate(texts)
        ],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": made, "total_tokens": prompt_tokens + made},
    }
