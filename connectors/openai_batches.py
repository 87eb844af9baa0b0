"""The Batch API of an endpoint that speaks the OpenAI protocol: requests go up as a file, results come down as files.

The SDK does not validate what it parses, so what the endpoint says is read by hand.
"""

import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import httpx2
from openai import APIConnectionError, APIError, APIStatusError, AsyncOpenAI, NotFoundError

from connectors.openai_teacher import OpenAITeacher, at, body_of, completion_of
from loop.errors import TeacherBusy, TeacherError, TeacherRefused
from loop.ports import BatchState, Completion, Request

T = TypeVar("T")
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
NAME = "preceptor"
"""The key of a batch's metadata under which its name stands."""


class OpenAIBatches:
    """Batches of a teacher's endpoint."""

    def __init__(self, teacher: OpenAITeacher) -> None:
        self._teacher = teacher

    async def find(self, name: str, since: datetime) -> str | None:
        """The id of the batch of that name made since then, if the endpoint has it; it lists the newest first."""

        async def look(client: AsyncOpenAI) -> str | None:
            async for each in client.batches.list(limit=100):
                if at(each.to_dict(), "metadata", NAME) == name:
                    return each.id
                if isinstance(each.created_at, int) and each.created_at < since.timestamp():
                    break
            return None

        return await self._call(look)

    async def create(self, name: str, requests: Mapping[str, Request]) -> str:
        """Hand over a batch of requests by their custom ids; its id."""
        content = "".join(json.dumps(_line(each, request)) + "\n" for each, request in requests.items())

        async def hand_over(client: AsyncOpenAI) -> str:
            file = await client.files.create(file=(f"{name}.jsonl", content.encode()), purpose="batch")
            made = await client.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={NAME: name},
            )
            return made.id

        made = await self._call(hand_over)
        if not isinstance(made, str) or not made:
            raise TeacherRefused("the endpoint made a batch without an id; set teacher.batch = false")
        return made

    async def state(self, remote_id: str) -> BatchState | None:
        """How far it is; None where the endpoint does not know it."""

        async def look(client: AsyncOpenAI) -> BatchState | None:
            try:
                return _state((await client.batches.retrieve(remote_id)).to_dict())
            except NotFoundError:
                return None

        return await self._call(look)

    async def results(self, remote_id: str) -> Sequence[tuple[str, Completion | TeacherError]]:
        """Custom ids with what came of them, in any order; lines that cannot be read, or are gone, are left out."""

        async def fetch(client: AsyncOpenAI) -> list[str]:
            batch = (await client.batches.retrieve(remote_id)).to_dict()
            texts = []
            for file in (batch.get(name) for name in ("output_file_id", "error_file_id")):
                if isinstance(file, str) and file:
                    with contextlib.suppress(NotFoundError):  # endpoints keep them for a while
                        texts.append((await client.files.content(file)).text)
            return texts

        texts = await self._call(fetch)
        return [
            (custom_id, self._result(line))
            for text in texts
            for line in _lines(text)
            if isinstance(custom_id := line.get("custom_id"), str)
        ]

    def _result(self, line: Mapping[str, Any]) -> Completion | TeacherError:
        """What a line says came of its request."""
        status, body = at(line, "response", "status_code"), at(line, "response", "body")
        if status == 200 and isinstance(body, Mapping) and at(body, "choices", 0) is not None:
            return completion_of(body)
        if isinstance(status, int) and status >= 400:
            request = httpx2.Request("POST", "/v1/chat/completions")
            answer = httpx2.Response(status, json=body, request=request)
            return self._teacher.refusal(APIStatusError("a line failed", response=answer, body=at(body, "error")))
        return TeacherBusy(f"{at(line, 'error', 'code')}: {at(line, 'error', 'message')}")

    async def _call(self, call: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        """What a call gives, or what went wrong in the loop's words."""
        try:
            async with self._teacher.open() as client:
                return await call(client)
        except APIStatusError as error:
            raise self._teacher.refusal(error) from error
        except APIConnectionError as error:
            raise self._teacher.lost(error) from error
        except APIError as error:
            raise TeacherBusy(error.message) from error


def _line(custom_id: str, request: Request) -> dict[str, Any]:
    """A request as a line of the file."""
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body_of(request)}


def _state(batch: Mapping[str, Any]) -> BatchState:
    """What a batch object says of its progress; a batch of which no line was run has a problem."""
    status = batch.get("status")
    counts = [at(batch, "request_counts", name) for name in ("completed", "failed")]
    done = sum(each for each in counts if isinstance(each, int))
    if status != "failed":
        return BatchState(isinstance(status, str) and status in ENDED, done)
    message, line = (at(batch, "errors", "data", 0, name) for name in ("message", "line"))
    place = f"line {line}: " if isinstance(line, int) else ""
    return BatchState(True, done, f"{place}{message or 'the endpoint does not say why'}")


def _lines(text: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSONL file."""
    for line in text.split("\n"):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, Mapping):
            yield found
