"""The web server of `preceptor serve`: Label Studio calls it when an annotation changes, and verdicts are pulled.

A call is a hint and no more: nothing is taken from it but that something changed. It is answered at once, because
Label Studio makes its annotators wait for the answer. Calls get lost, so verdicts are also pulled without one.
"""

import asyncio
import contextlib
import hmac
import os
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.label_studio import LabelStudioBoard
from connectors.pulling import pull
from connectors.wiring import Project
from loop.errors import BadConfig, BoardError

HEADER = "X-Preceptor-Secret"
PATH = "/label-studio"
LONGEST_BODY = 1 << 16
"""Bytes. A call without payload has fifty."""
SETTLE_SECONDS = 1.0
"""Calls that come within this time are one pull."""


def serve(project: Project, *, host: str, port: int, address: str | None) -> None:
    """Answer until the process is interrupted. Where an address is given, Label Studio is told to call it.

    Raises:
        BadConfig: the secret is not set, or there is no Label Studio to register with.
    """
    secret = webhook_secret(project)

    def work() -> None:
        try:
            if address is not None:
                register(project, address + PATH, secret)
            pulled = pull(project)
        except BoardError as error:
            project.progress.say(f"  {error}")
        else:
            if pulled.verdicts or pulled.revised:
                project.progress.say(f"  {pulled}")

    project.progress.say(f"  waits for Label Studio at http://{host}:{port}{PATH} (Ctrl-C ends it)")
    asyncio.run(_serve(secret, work, host=host, port=port, every=project.config.review.poll_seconds))


async def _serve(secret: str, work: Callable[[], None], *, host: str, port: int, every: float) -> None:
    """Answer and work side by side; where one fails, both end."""
    changed = asyncio.Event()
    app = application(secret, changed)
    server = uvicorn.Server(
        uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False, lifespan="off", ws="none")
    )
    async with asyncio.TaskGroup() as group:
        worker = group.create_task(_keep_working(work, changed, every))
        await server.serve()
        worker.cancel()


async def _keep_working(work: Callable[[], None], changed: asyncio.Event, every: float) -> None:
    """Work at the start, soon after each call, and `every` so many seconds."""
    while True:
        changed.clear()
        await asyncio.to_thread(work)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), every)
            await asyncio.sleep(SETTLE_SECONDS)


def application(secret: str, changed: asyncio.Event) -> Starlette:
    """The web application."""

    async def told(request: Request) -> Response:
        given = request.headers.get(HEADER, "")
        if not hmac.compare_digest(given.encode(), secret.encode()):
            return Response(status_code=403)
        received = 0
        async for piece in request.stream():
            received += len(piece)
            if received > LONGEST_BODY:
                return Response(status_code=413)
        changed.set()
        return Response(status_code=200)

    return Starlette(routes=[Route(PATH, told, methods=["POST"])])


def webhook_secret(project: Project) -> str:
    """The secret that Label Studio proves itself with.

    Raises:
        BadConfig: its variable is not set.
    """
    name = project.config.review.webhook_secret_env
    secret = os.environ.get(name, "")
    if not secret:
        raise BadConfig(
            f"{name} is not set: put a long random word into it (`export {name}=$(openssl rand -hex 16)`), "
            "so that nobody else can wake the pull; review.webhook_secret_env names the variable"
        )
    return secret


def register(project: Project, address: str, secret: str) -> int:
    """Have the projects with this run's reviews call the address; how many did not yet.

    Raises:
        BadConfig: the board is not a Label Studio.
        BoardRefused: the server may not call it.
    """
    boards = project.open_boards()
    if not all(isinstance(board, LabelStudioBoard) for board in boards):
        raise BadConfig('review.board = "fake" calls nobody; leave out --register')
    return sum(board.register(address, {HEADER: secret}) for board in boards if isinstance(board, LabelStudioBoard))
