"""A student behind the OpenAI protocol: `/v1/models` and `/v1/chat/completions`.

What is not supported is refused with 400 and never ignored, so that whoever asks for it knows. The user's message is
the question alone, or the item as the student's prompts write it: `Context: `, `Question: ` and the choices, each on
its line.
"""

import asyncio
import hmac
import re
import secrets
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers

from connectors.access import names_loopback, token_for
from connectors.students import Trained, asked, loaded, refuse_too_long
from connectors.wiring import Project
from loop.config import Config
from loop.errors import BadRow, ItemTooLong, StudentError
from loop.ports import Student, Written
from loop.records import Item
from loop.student.prompts import CONTEXT, QUESTION

LONGEST_BODY = 1 << 20
MOST_CHOICES = 64
"""Texts that one request may ask for."""
MOST_AT_ONCE = 64
"""Requests that wait at a time; further ones are refused with 503."""
CHOICE = re.compile(r"^\(([A-Z])\) (.+)$", re.MULTILINE)
CHOICES = re.compile(r"(?:\n\([A-Z]\) .+)+\s*\Z")


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


class _Refused(Exception):
    """A request that gets an error instead of an answer."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class StudentServer:
    """Answers requests, one at a time."""

    def __init__(self, student: Student, name: str, config: Config, token: str | None) -> None:
        self.name, self.token = name, token
        self._student, self._config = student, config
        self._samples = config.student.kind != "encoder" and config.student.answers_by == "rationale"
        self._lock = threading.Lock()

    def complete(self, raw: bytes) -> dict[str, Any]:
        """The chat completion.

        Raises:
            _Refused: the request cannot be answered as it asks.
        """
        request = _parsed(raw)
        if request.model != self.name:
            raise _Refused(
                404, f"the model `{request.model}` does not exist; this is {self.name}", "model_not_found", "model"
            )
        if not self._samples and (request.temperature > 0 or request.n > 1):
            raise _Refused(400, "this student gives one answer; leave out temperature and n", "unsupported_value")
        try:
            item = _item(request.messages[0].text, self._config)
            with self._lock:  # tokenizers too take one caller at a time
                refuse_too_long(self._student, item, "the question")
                prompt_tokens, _ = self._student.reads(item)
                texts = self._texts(item, request)
        except StudentError as error:
            said = "the memory does not suffice for this answer; ask for less, or end other programs on the server"
            raise _Refused(503, said, "out_of_memory") from error
        except BadRow as error:
            code = "context_length_exceeded" if isinstance(error, ItemTooLong) else "invalid_value"
            raise _Refused(400, str(error), code, "messages") from error
        return _completion(
            self.name, prompt_tokens, [cut(each, request.max_completion_tokens, request.stops) for each in texts]
        )

    def _texts(self, item: Item, request: _ChatRequest) -> list[Written]:
        """At temperature 0 all texts are the same one."""
        copies = range(1, request.n + 1) if request.temperature > 0 else [0]
        texts = self._student.write(
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


def serve(project: Project, which: Trained, *, host: str, port: int, token_env: str) -> None:
    """Answer until the process is interrupted.

    Raises:
        BadConfig: others could reach the server, and no token is set.
    """
    token = token_for(host, token_env)
    server = StudentServer(loaded(project, which), which.name, which.config, token)
    project.progress.say(f"  {which.name} answers at http://{host}:{port}/v1 (Ctrl-C ends it)")
    settings = uvicorn.Config(
        application(server),
        host=host,
        port=port,
        log_level="warning",
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        limit_concurrency=MOST_AT_ONCE,
    )
    uvicorn.Server(settings).run()


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
            "data": [{"id": server.name, "object": "model", "created": 0, "owned_by": "preceptor"}],
        }

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> dict[str, Any]:
        server.refuse_stranger(request.headers)
        server.refuse_form(request.headers)
        return await asyncio.to_thread(server.complete, await _body(request))

    return app


async def _body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_BODY:
            raise _Refused(413, f"the body is longer than {LONGEST_BODY} bytes", "request_too_large")
    return body


def _parsed(raw: bytes) -> _ChatRequest:
    """The request; what it asks for and cannot have is named."""
    try:
        return _ChatRequest.model_validate_json(raw)
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
            said = f"`{place}`: {first['msg']}" if place else f"the body is not a chat request: {first['msg']}"
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
