"""A student behind the OpenAI protocol: `/v1/models`, `/v1/chat/completions` and `/v1/completions`.

As vLLM does, it takes further checkpoints at `/v1/load_lora_adapter`, those of its own run. What is not supported is
refused with 400 and never ignored, so that whoever asks for it knows. The user's message is the question alone, or the
item as the student's prompts write it: `Context: `, `Question: ` and the choices, each on its line.
"""

import asyncio
import hmac
import json
import re
import secrets
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from connectors.access import names_loopback, token_for
from connectors.listening import listening
from connectors.student_requests import ChatRequest, LoadRequest, Refused, cut, parsed
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
MOST_AT_ONCE = 64
"""Requests that wait at a time; further ones are refused with 503."""
MOST_LOADED = 3
"""Checkpoints that are held beside the student that was there from the start: a round asks the one in force and its
candidate."""
HEALTH = "/health"
BODY_SECONDS = 60.0
"""Longest that the body of a request may take to come."""
CHOICE = re.compile(r"^\(([A-Z])\) (.+)$", re.MULTILINE)
CHOICES = re.compile(r"(?:\n\([A-Z]\) .+){1,26}\Z")


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

    def complete(self, request: ChatRequest) -> dict[str, Any]:
        """The chat completion.

        Raises:
            Refused: the request cannot be answered as it asks.
        """
        student, longest = self.student(request.model), request.longest
        if not self._samples and (request.temperature > 0 or request.n > 1):
            raise Refused(400, "this student gives one answer; leave out temperature and n", "unsupported_value")
        try:
            item = _item(request.messages[0].text, self._config)
            with self._lock:  # tokenizers too take one caller at a time
                refuse_too_long(student, item, "the question")
                prompt_tokens, _ = student.reads(item)
                texts = self._texts(student, item, request)
        except StudentError as error:
            raise Refused(503, FULL, "out_of_memory") from error
        except BadRow as error:
            code = "context_length_exceeded" if isinstance(error, ItemTooLong) else "invalid_value"
            raise Refused(400, str(error), code, "messages") from error
        return _completion(request.model, prompt_tokens, [cut(each, longest, request.stop) for each in texts])

    def go_on(self, raw: bytes) -> dict[str, Any]:
        """The completion of a prompt as it stands, tokens or text.

        Raises:
            Refused: the request cannot be answered as it asks, or the student writes nothing of its own.
        """
        from connectors import student_completions as completions  # noqa: PLC0415 - loads torch
        from loop.student.decoder import Decoder  # noqa: PLC0415 - as above
        from loop.student.halving import is_full  # noqa: PLC0415 - as above

        request = parsed(raw, completions.CompletionRequest)
        student = self.student(request.model)
        if not isinstance(student, Decoder):
            raise Refused(400, "this student is no causal model; ask /v1/chat/completions", "unsupported_value")
        seed = secrets.randbits(32) if request.seed is None else request.seed
        with self._lock:
            try:
                prompt = completions.prompt_of(student, request)
            except ValueError as error:
                raise Refused(400, str(error), "invalid_value", "prompt") from error
            try:
                return completions.completed(student, prompt, request, seed)
            except (MemoryError, RuntimeError) as error:
                if not is_full(error):
                    raise
                raise Refused(503, FULL, "out_of_memory") from error

    def load(self, raw: bytes) -> None:
        """Have a further checkpoint answer under a name; where there are many, the oldest one makes room.

        Raises:
            Refused: it cannot be loaded.
        """
        request = parsed(raw, LoadRequest)
        if request.lora_name in self._students:
            raise Refused(400, f"`{request.lora_name}` has already been loaded", "invalid_value", "lora_name")
        try:
            if self._load is None:
                raise StudentError("this server loads no checkpoints")
            with self._lock:
                self._students[request.lora_name] = self._load(Path(request.lora_path))
                for name in self.names[1:-MOST_LOADED]:
                    del self._students[name]
        except StudentError as error:
            raise Refused(400, str(error), "invalid_value", "lora_path") from error

    def student(self, name: str) -> Student:
        """The student of that name.

        Raises:
            Refused: there is none.
        """
        if name not in self._students:
            said = f"the model `{name}` does not exist; this is {self.name}"
            raise Refused(404, said, "model_not_found", "model")
        return self._students[name]

    def _texts(self, student: Student, item: Item, request: ChatRequest) -> list[Written]:
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
            Refused: the headers hold no token, or name this machine by a name that a page may have given it.
        """
        shown = headers.get("authorization", "")
        if self.token is None:
            if not names_loopback(headers.get("host", "")):
                raise Refused(421, "ask it as http://127.0.0.1 or localhost", "wrong_host")
        elif not hmac.compare_digest(shown.encode(), f"Bearer {self.token}".encode()):
            raise Refused(401, "wrong or missing API key", "invalid_api_key")

    def refuse_form(self, headers: Headers) -> None:
        """Where no token is set a body must be named JSON, which a web page of elsewhere may not send here.

        Raises:
            Refused: it is named something else, or nothing.
        """
        if self.token is None and headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Refused(415, "send it with the header `Content-Type: application/json`", "wrong_content_type")


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


class _InTurn:
    """Lets so many requests wait, and refuses further ones."""

    def __init__(self) -> None:
        self._waiting = 0

    async def __call__(self, request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.url.path == HEALTH:  # which says that the server is there, however busy
            return await answer(request)
        if self._waiting >= MOST_AT_ONCE:
            said = f"{MOST_AT_ONCE} requests wait already; ask again later"
            return _told(Refused(503, said, "overloaded"), {"retry-after": "1"})
        self._waiting += 1
        try:
            return await answer(request)
        finally:
            self._waiting -= 1


def application(server: StudentServer) -> FastAPI:
    """The web application."""
    app = FastAPI(title="Student", openapi_url=None)
    app.middleware("http")(_InTurn())

    @app.api_route(HEALTH, methods=["GET", "HEAD"])
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        again = {} if error.status < 500 else {"x-should-retry": "false"}  # the same request would end the same way
        return _told(error, again)

    @app.exception_handler(HTTPException)
    async def elsewhere(request: Request, error: HTTPException) -> JSONResponse:
        said = f"{request.method} {request.url.path} is not served here"
        code = "unknown_url" if error.status_code == 404 else "method_not_allowed"
        return _told(Refused(error.status_code, said, code), error.headers)

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        server.refuse_stranger(request.headers)
        return {"object": "list", "data": [_model(name) for name in server.names]}

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> dict[str, Any]:
        server.refuse_stranger(request.headers)
        server.student(name)
        return _model(name)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(request: Request) -> dict[str, Any] | StreamingResponse:
        server.refuse_stranger(request.headers)
        server.refuse_form(request.headers)
        wanted = parsed(await _body(request), ChatRequest)
        whole = await asyncio.to_thread(server.complete, wanted)
        if not wanted.stream:
            return whole
        return StreamingResponse(_events(whole, wanted.stream_options.include_usage), media_type="text/event-stream")

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


def _told(error: Refused, headers: Mapping[str, str] | None) -> JSONResponse:
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    body = {"message": str(error), "type": kind, "param": error.param, "code": error.code}
    return JSONResponse({"error": body}, status_code=error.status, headers=headers)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "preceptor"}


async def _body(request: Request) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > LONGEST_BODY:
                    raise Refused(413, f"the body is longer than {LONGEST_BODY} bytes", "request_too_large")
    except TimeoutError as error:
        raise Refused(408, f"the body did not come within {BODY_SECONDS:g} seconds", "request_timeout") from error
    return body


def _item(text: str, config: Config) -> Item:
    """The item of a message: the question, or context, question and choices as the student's prompts write them."""
    text, context = text.lstrip(), ""
    if text.startswith(CONTEXT) and f"\n{QUESTION}" in text:
        context, _, text = text.removeprefix(CONTEXT).rpartition(f"\n{QUESTION}")
    text = text.removeprefix(QUESTION)
    found = CHOICES.search(text.rstrip())  # no blanks at its end, over which both ends of the pattern would argue
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


def _events(whole: Mapping[str, Any], with_usage: bool) -> Iterator[str]:
    """A chat completion as a stream: each text in one piece, as all of it is there before any is sent."""
    frame = {name: whole[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    end: dict[str, Any] = {"usage": None} if with_usage else {}
    for each in whole["choices"]:
        for delta, reason in ((each["message"], None), ({}, each["finish_reason"])):
            choice = {"index": each["index"], "delta": delta, "finish_reason": reason, "logprobs": None}
            yield _event(frame | end | {"choices": [choice]})
    if with_usage:
        yield _event(frame | {"choices": [], "usage": whole["usage"]})
    yield "data: [DONE]\n\n"


def _event(said: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(said, ensure_ascii=False)}\n\n"
