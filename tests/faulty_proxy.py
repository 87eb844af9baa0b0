"""Stands on loopback before a real server and fails on request, as networks, proxies and wrong clocks do."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
METHODS = ["GET", "POST", "PATCH", "PUT", "DELETE"]
Kind = Literal["refused", "lost", "broken", "late", "bare", "twice"]


@dataclass
class Fault:
    """What happens to the next requests of a kind.

    `refused`: 500 without doing it; `broken`: done, but 500; `lost`: done, but no reply within `seconds`; `late`: no
    reply within `seconds`, and done only then; `bare`: imported without predictions; `twice`: done two times, as Label
    Studio itself does where its SQLite file was locked halfway.
    """

    kind: Kind
    path: str
    method: str = "POST"
    times: int = 1
    seconds: float = 0.0
    after: int = 0
    """So many requests of the kind pass before."""


@dataclass
class FaultyProxy:
    """Forwards to a server, its faults first. `skew` is how far the server's clock seems to be ahead."""

    target: str
    faults: list[Fault] = field(default_factory=list)
    skew: timedelta = timedelta()
    seen: list[str] = field(default_factory=list)
    address: str = ""

    async def answer(self, request: Request) -> Response:
        """Forward a request, or fail as is due."""
        body = await request.body()
        self.seen.append(f"{request.method} {request.url.path}")
        fault = self._due(request)
        kind = "" if fault is None else fault.kind
        if kind == "refused":
            return Response(status_code=500)
        if fault is not None and kind == "late":
            await asyncio.sleep(fault.seconds)
        if kind == "bare":
            body = json.dumps([{"data": each["data"]} for each in json.loads(body)]).encode()
        if kind == "twice":
            await self._forward(request, body)
        reply = await self._forward(request, body)
        if fault is not None and kind == "lost":
            await asyncio.sleep(fault.seconds)
        return Response(status_code=500) if kind == "broken" else reply

    def _due(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == request.method and fault.path in request.url.path:
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    async def _forward(self, request: Request, body: bytes) -> Response:
        query = {name: self._shifted(value, -self.skew) for name, value in request.query_params.items()}
        headers = {name: value for name, value in request.headers.items() if name in ("authorization", "content-type")}
        async with httpx.AsyncClient(trust_env=False, timeout=300, base_url=self.target) as client:
            try:
                got = await client.request(
                    request.method, request.url.path, params=query, content=body, headers=headers
                )
            except httpx.HTTPError:
                return Response(status_code=502)
        kind = got.headers.get("content-type")
        return Response(self._shifted(got.text, self.skew), status_code=got.status_code, media_type=kind)

    def _shifted(self, text: str, by: timedelta) -> str:
        """The text with its moments moved."""
        if not by:
            return text
        return STAMP.sub(lambda found: (datetime.fromisoformat(found[0]) + by).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), text)


@contextmanager
def standing_before(target: str) -> Iterator[FaultyProxy]:
    """A proxy before a server, for the duration of the block."""
    proxy = FaultyProxy(target)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app = Starlette(routes=[Route("/{path:path}", proxy.answer, methods=METHODS)])
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", log_config=None, lifespan="off", ws="none"))
        server.config.timeout_graceful_shutdown = 1
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        until = time.monotonic() + 20
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        proxy.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            yield proxy
        finally:
            server.should_exit = True
            thread.join(20)
