"""The batch API of the recorded teacher: a batch is answered when it is made, and seen to end a look later."""

import json
from collections.abc import Awaitable, Callable
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse, Response

LOOKS = 1
"""So many times a batch is seen in progress before it has ended."""
Answer = Callable[[bytes], Awaitable[Response]]
Refuse = Callable[[Request], JSONResponse | None]
Due = Callable[[str], bool]
CREATED = 1_900_000_000
"""When all batches were made: they are listed newest first, and none is older than who looks for it."""


class RecordedBatches:
    """Files and batches of one server."""

    def __init__(self, answer: Answer, is_due: Due) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self._answer, self._is_due = answer, is_due
        self._looks: dict[str, int] = {}

    def upload(self, content: bytes) -> str:
        """The id of a new file."""
        name = f"file-{len(self.files) + 1}"
        self.files[name] = content
        return name

    async def make(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A new batch with all that will come of it; the results stand in another order than the requests."""
        name = f"batch_{len(self.batches) + 1}"
        batch = {
            "id": name,
            "object": "batch",
            "endpoint": asked.get("endpoint"),
            "input_file_id": asked.get("input_file_id"),
            "completion_window": asked.get("completion_window"),
            "metadata": asked.get("metadata"),
            "created_at": CREATED,
        }
        lines = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
        self._looks[name] = LOOKS
        if self._is_due("batch_invalid"):
            problem = {"code": "invalid_json_line", "message": "This line is not parseable as valid JSON.", "line": 2}
            ended = {"status": "failed", "errors": {"object": "list", "data": [problem]}}
        else:
            ended = await self._ended(lines)
        self.batches[name] = batch | ended
        return self.shown(name)

    def shown(self, name: str) -> dict[str, Any]:
        """A batch as it is seen now."""
        whole = self.batches[name]
        if not self._looks[name]:
            return whole
        total = whole.get("request_counts", {}).get("total", 0)
        hidden = {"output_file_id": None, "error_file_id": None, "errors": None}
        return whole | hidden | {"status": "in_progress", "request_counts": _counts(total, total // 2, 0)}

    def look(self, name: str) -> dict[str, Any]:
        """A batch as it is seen now; it goes on."""
        found = self.shown(name)
        self._looks[name] = max(0, self._looks[name] - 1)
        return found

    async def _ended(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        expired = self._is_due("batch_expired")
        answered = lines[: len(lines) // 2] if expired else lines
        done = [await self._line(line) for line in answered]
        good = [each for each in reversed(done) if each["response"]["status_code"] == 200]
        bad = [each for each in done if each["response"]["status_code"] != 200]
        late = {"code": "batch_expired", "message": "This request could not be executed before the window ended."}
        bad += [
            {"id": "r", "custom_id": each["custom_id"], "response": None, "error": late} for each in lines if expired
        ][len(answered) :]
        if good and self._is_due("foreign_line"):
            good[0] = good[0] | {"custom_id": "somebody-else"}
        return {
            "status": "expired" if expired else "completed",
            "request_counts": _counts(len(lines), len(good), len(bad)),
            "output_file_id": self._file(good),
            "error_file_id": self._file(bad),
        }

    async def _line(self, line: dict[str, Any]) -> dict[str, Any]:
        answer = await self._answer(json.dumps(line["body"]).encode())
        response = {"status_code": answer.status_code, "request_id": "r", "body": _parsed(bytes(answer.body))}
        return {"id": "r", "custom_id": line["custom_id"], "response": response, "error": None}

    def _file(self, rows: list[dict[str, Any]]) -> str | None:
        return self.upload("".join(json.dumps(row) + "\n" for row in rows).encode()) if rows else None


def routes_of(batches: RecordedBatches, refuse: Refuse, is_due: Due) -> APIRouter:
    """The routes of files and batches, for whoever has the key."""

    def check(request: Request) -> None:
        refused = refuse(request)
        if refused is not None:
            raise HTTPException(refused.status_code)

    routes = APIRouter(dependencies=[Depends(check)])
    routes.include_router(_file_routes(batches, is_due))
    routes.include_router(_batch_routes(batches))
    return routes


def _file_routes(batches: RecordedBatches, is_due: Due) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/files")
    async def upload(request: Request) -> JSONResponse:
        if is_due("upload_500"):
            return _error(500, "The server had an error")
        file = batches.upload(_uploaded(request.headers["content-type"], await request.body()))
        return JSONResponse({"id": file, "object": "file", "purpose": "batch", "bytes": len(batches.files[file])})

    @routes.get("/v1/files/{file}/content")
    async def content(file: str) -> Response:
        if file not in batches.files:
            return _error(404, "No such file")
        return Response(batches.files[file], media_type="application/octet-stream")

    return routes


def _batch_routes(batches: RecordedBatches) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/batches")
    async def make(request: Request) -> JSONResponse:
        asked = await request.json()
        if asked.get("input_file_id") not in batches.files:
            return _error(400, "No such file")
        return JSONResponse(await batches.make(asked))

    @routes.get("/v1/batches/{name}")
    async def look(name: str) -> JSONResponse:
        if name not in batches.batches:
            return _error(404, "No such batch")
        return JSONResponse(batches.look(name))

    @routes.get("/v1/batches")
    async def listed() -> JSONResponse:
        newest_first = [batches.shown(name) for name in reversed(batches.batches)]
        return JSONResponse({"object": "list", "data": newest_first, "has_more": False})

    return routes


def _uploaded(content_type: str, body: bytes) -> bytes:
    """The file in a form that was sent."""
    form = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    parts = [part for part in form.iter_parts() if part.get_filename()]
    found = parts[0].get_payload(decode=True)
    assert isinstance(found, bytes)
    return found


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()


def _counts(total: int, completed: int, failed: int) -> dict[str, int]:
    return {"total": total, "completed": completed, "failed": failed}


def _error(status: int, message: str) -> JSONResponse:
    code = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": code, "param": None, "code": code}}, status_code=status)
