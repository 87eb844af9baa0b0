"""The web server of `preceptor serve`: the dashboard, and what Label Studio calls when an annotation changes.

A call is a hint and no more: nothing is taken from it but that something changed. It is answered at once, because
Label Studio makes its annotators wait for the answer. Calls get lost, so verdicts are also pulled without one.

Where the config asks for it, Label Studio may also ask for predictions (its ML backend protocol). With `/setup` it
hands over the access token of whoever made the project: that body is thrown away unread.
"""

import asyncio
import base64
import contextlib
import hmac
import os
import socket
import threading
from collections.abc import Callable

import uvicorn
from pydantic import ValidationError
from rich.console import Console
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from connectors import site
from connectors.access import is_loopback, token_for
from connectors.dashboard import Dashboard
from connectors.listening import listening
from connectors.prediction_backend import PredictionBackend, PredictRequest
from connectors.progress import RichProgress
from connectors.pulling import pull
from connectors.wiring import Project
from loop.errors import BadConfig, BoardError, StoreUnusable, extra
from loop.store import accounts
from loop.store.database import Store

HEADER = "X-Preceptor-Secret"
PATH = "/label-studio"
LONG_TOKEN = 16
"""Characters of a token that nobody guesses."""
LONGEST_BODY = 1 << 16
"""Bytes. A call without payload has fifty."""
LONGEST_ASKED = 1 << 26
"""Bytes of the tasks that predictions are asked for; as many as somebody picks in Label Studio come at once."""
USER = "preceptor"
"""As whom Label Studio logs in to ask for predictions; the password is the secret."""
SETTLE_SECONDS = 1.0
"""Calls that come within this time are one pull."""


def serve(project: Project, *, host: str, port: int, registers: bool = False, url: str | None = None) -> None:
    """Answer until the process is interrupted. Where it registers, Label Studio is told to call this server, by `url`.

    Without the webhook's secret only the dashboard is there, and nothing is pulled.

    Raises:
        BadConfig: others could reach the server and there is neither a token nor an account, or the secret is not set
            and Label Studio is to call, or there is no Label Studio to register with.
        PreceptorError: the port is taken.
    """
    token = token_for(host, project.config.serve.token_env, guarded=accounts.are_there(project.store))
    if token is not None and len(token) < LONG_TOKEN:
        project.progress.say(
            f"  {project.config.serve.token_env} has {len(token)} characters, and programs may guess as often as they "
            f"like: put a long random word into it (`openssl rand -hex 16`)"
        )
    with listening(host, port) as (listener, here):
        dashboard = Dashboard(project.store, project.config, lambda: _anew(project))
        shown = site.application(dashboard, token, lambda: server.should_exit, local=is_loopback(host))
        threading.Thread(target=dashboard.look_ahead, daemon=True).start()
        project.progress.say(f"  the dashboard is at {here} (Ctrl-C ends it)")
        changed = asyncio.Event()
        if not registers and not os.environ.get(project.config.review.webhook_secret_env):
            name = project.config.review.webhook_secret_env
            project.progress.say(f"  verdicts are not pulled here: {name} is not set, so Label Studio cannot call")
            app, work = shown, None
        else:
            secret = webhook_secret(project)
            backend = PredictionBackend(project) if project.config.review.student_answers else None
            app = application(secret, changed, backend, shown)
            work = _work(project, (url or here) if registers else None, secret, backend)
            project.progress.say(f"  waits for Label Studio at {here}{PATH}")
        settings = uvicorn.Config(
            watched(app, project.store), log_level="warning", log_config=None, access_log=False,
            lifespan="off", ws="none", timeout_graceful_shutdown=3,
        )  # fmt: skip
        server = uvicorn.Server(settings)
        asyncio.run(_serve(server, listener, work, changed, every=project.config.review.poll_seconds))


def _anew(project: Project) -> Project:
    """The project as a command would have it, which tells the terminal of the server nothing."""
    return Project(project.path, RichProgress(Console(quiet=True)), run=project.config.run.name)


def _work(project: Project, address: str | None, secret: str, backend: PredictionBackend | None) -> Callable[[], None]:
    """What is done after each call, and now and then without one."""

    def work() -> None:
        try:
            if address is not None:
                register(project, address, secret)
            pulled = pull(project)
            shown = 0 if backend is None else backend.refresh()
        except BoardError as error:
            project.progress.say(f"  {error}")
        else:
            if pulled.verdicts or pulled.redecided:
                project.progress.say(f"  {pulled}")
            if shown:
                project.progress.say(f"  {shown} open reviews show what the student answers now")

    return work


async def _serve(
    server: uvicorn.Server,
    listener: socket.socket,
    work: Callable[[], None] | None,
    changed: asyncio.Event,
    *,
    every: float,
) -> None:
    """Answer and work side by side, where there is work; where one fails, both end."""
    if work is None:
        await server.serve(sockets=[listener])
        return
    async with asyncio.TaskGroup() as group:
        worker = group.create_task(_keep_working(server, work, changed, every))
        await server.serve(sockets=[listener])
        worker.cancel()


async def _keep_working(server: uvicorn.Server, work: Callable[[], None], changed: asyncio.Event, every: float) -> None:
    """Work at the start, soon after each call, and `every` so many seconds. Whom we register with calls us at once."""
    while not server.started:
        await asyncio.sleep(0.05)
    while True:
        changed.clear()
        await asyncio.to_thread(work)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), every)
            await asyncio.sleep(SETTLE_SECONDS)


def application(
    secret: str, changed: asyncio.Event, backend: PredictionBackend | None = None, shown: ASGIApp | None = None
) -> Starlette:
    """The web application: predictions are given where there is a backend, all the rest is the dashboard's."""

    async def told(request: Request) -> Response:
        given = request.headers.get(HEADER, "")
        if not hmac.compare_digest(given.encode(), secret.encode()):
            return Response(status_code=403)
        if await _body(request, LONGEST_BODY) is None:
            return Response(status_code=413)
        changed.set()
        return Response(status_code=200)

    routes: list[BaseRoute] = [Route(PATH, told, methods=["POST"])]
    routes += [] if backend is None else _predicting(secret, backend)
    return Starlette(routes=routes if shown is None else [*routes, Mount("/", shown)])


def watched(app: ASGIApp, store: Store) -> Starlette:
    """The application, and what tells anybody whether the process runs, and whether it can work: whether its database
    is there and as this version wants it.
    """

    async def ready(_request: Request) -> Response:
        problem = await asyncio.to_thread(_unready, store)
        said = {"ready": problem is None} | ({} if problem is None else {"problem": problem})
        return JSONResponse(said, status_code=200 if problem is None else 503)

    return Starlette(routes=[Route("/health", _health), Route("/ready", ready), Mount("/", app)])


def _unready(store: Store) -> str | None:
    """Why the database cannot be worked with, in words without its address."""
    try:
        there, wanted = store.revisions()
    except StoreUnusable:
        return "the database cannot be read"
    return None if there == wanted else f"the database is at revision {there}, and this version wants {wanted}"


async def _health(_request: Request) -> Response:
    return JSONResponse({"status": "UP", "model_class": "Preceptor"})


def _predicting(secret: str, backend: PredictionBackend) -> list[Route]:
    """The rest of the ML backend protocol, for whoever knows the secret."""

    async def setup(request: Request) -> Response:
        if not _knows(request, secret):
            return _unknown()
        async for _ in request.stream():
            pass
        return JSONResponse({"model_version": await asyncio.to_thread(lambda: backend.version)})

    async def predict(request: Request) -> Response:
        if not _knows(request, secret):
            return _unknown()
        body = await _body(request, LONGEST_ASKED)
        if body is None:
            return Response(status_code=413)
        try:
            asked = PredictRequest.model_validate_json(body)
        except ValidationError:
            return Response("expected tasks with data", status_code=400)
        return JSONResponse(await asyncio.to_thread(backend.predict, asked))

    return [Route("/setup", setup, methods=["POST"]), Route("/predict", predict, methods=["POST"])]


def _unknown() -> Response:
    return Response(status_code=401, headers={"WWW-Authenticate": 'Basic realm="preceptor"'})


def _knows(request: Request, secret: str) -> bool:
    expected = b"Basic " + base64.b64encode(f"{USER}:{secret}".encode())
    return hmac.compare_digest(request.headers.get("Authorization", "").encode(), expected)


async def _body(request: Request, longest: int) -> bytes | None:
    """What was sent, unless it is too long."""
    received = bytearray()
    async for piece in request.stream():
        received += piece
        if len(received) > longest:
            return None
    return bytes(received)


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


def register(project: Project, address: str, secret: str) -> None:
    """Have the projects with this run's reviews call the address, and ask it for predictions where the config says so.

    Raises:
        BadConfig: the board is not a Label Studio.
        BoardRefused: the server may not call it.
    """
    with extra("label-studio", "Label Studio"):
        from connectors.label_studio import LabelStudioBoard  # noqa: PLC0415 - an extra

    for board in project.open_boards():
        if not isinstance(board, LabelStudioBoard):
            raise BadConfig('review.board = "fake" calls nobody; leave out --register')
        board.register(address + PATH, {HEADER: secret})
        if project.config.review.student_answers:
            board.connect(address, user=USER, password=secret)
