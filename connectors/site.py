"""The web application of `preceptor serve`: its addresses, and what is answered where something is wrong."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.types import ASGIApp

from connectors.dashboard import Dashboard, NotHere
from connectors.door import Door, Guard, NotAllowed, Visitor, visitor_of
from connectors.entrance import logging_in, own_password
from connectors.page_actions import leading, owning
from connectors.pages import STATIC, html
from loop.errors import PreceptorError
from loop.records import DecisionKind
from loop.store import browsing

LOOK_SECONDS = 1.0
"""How often the database is looked at while somebody watches."""
WATCHED_SECONDS = 60.0
"""So long progress is sent before the browser has to ask again, and is let in again or not."""
Looking = Annotated[Visitor, Depends(visitor_of)]


def application(
    dashboard: Dashboard, token: str | None, ending: Callable[[], bool] = lambda: False, *, local: bool = True
) -> ASGIApp:
    """The web application. `local`: does it listen on loopback alone? `ending`: does the server want to end?"""
    app = FastAPI(title="Preceptor", openapi_url=None)
    door = Door(dashboard.store, token, local=local, hours=dashboard.config.serve.session_hours)
    app.mount("/static", StaticFiles(directory=STATIC))
    logging_in(app, door)
    own_password(app, door, dashboard)
    leading(app, dashboard)
    owning(app, dashboard)
    pages(app, dashboard, ending)

    @app.exception_handler(NotHere)
    async def missing(_: Request, error: NotHere) -> Response:
        return _said("Not here", str(error), 404)

    @app.exception_handler(404)
    async def unknown(_: Request, _error: Exception) -> Response:
        return _said("Not here", "There is no such page.", 404)

    @app.exception_handler(NotAllowed)
    async def refused(_: Request, error: NotAllowed) -> Response:
        return _said("Not allowed", str(error), 403)

    @app.exception_handler(PreceptorError)
    async def failed(_: Request, error: PreceptorError) -> Response:
        return _said("It was not done", str(error), 409)

    return Guard(app, door)


def _said(title: str, text: str, status: int) -> Response:
    return HTMLResponse(html("message.html.j2", title=title, text=text), status)


def pages(app: FastAPI, dashboard: Dashboard, ending: Callable[[], bool]) -> None:
    """What there is to see."""

    def known(run: str) -> None:
        dashboard.views(run)

    @app.get("/")
    def start() -> Response:
        return RedirectResponse(f"/runs/{dashboard.config.run.name}", 303)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(dashboard.metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @app.get("/runs/{run}", response_class=HTMLResponse)
    def overview(run: str, visitor: Looking) -> str:
        return dashboard.page(visitor, run, "overview")

    @app.get("/runs/{run}/items", response_class=HTMLResponse)
    def browse(run: str, search: Annotated[_Search, Query()], visitor: Looking) -> str:
        return dashboard.items(visitor, run, search.wanted())

    @app.get("/runs/{run}/item", response_class=HTMLResponse)
    def item(run: str, key: str, visitor: Looking) -> str:
        return dashboard.item(visitor, run, key)

    @app.get("/runs/{run}/live", response_class=EventSourceResponse, dependencies=[Depends(known)])
    async def live(run: str) -> AsyncIterable[ServerSentEvent]:
        async for each in told(dashboard, run, ending):
            yield ServerSentEvent(event="progress", data=each)

    @app.get("/runs/{run}/{name}", response_class=HTMLResponse)
    def page(run: str, name: str, visitor: Looking) -> str:
        return dashboard.page(visitor, run, name)


async def told(
    dashboard: Dashboard, run: str, ending: Callable[[], bool], *, every: float = LOOK_SECONDS
) -> AsyncIterator[dict[str, str]]:
    """How far the run's stage is: now, and again whenever that changes, for a while or until the server ends."""
    last: dict[str, str] = {}
    until = time.monotonic() + WATCHED_SECONDS
    while not ending() and time.monotonic() < until:
        now = await asyncio.to_thread(dashboard.live, run)
        if now != last:
            last = now
            yield now
        await asyncio.sleep(every)


class _Search(BaseModel):
    """What is asked of the list of items."""

    text: str = Field(default="", max_length=200)
    decision: DecisionKind | Literal[""] = ""
    domain: str = Field(default="", max_length=200)
    flagged: bool = False
    after: str = ""

    def wanted(self) -> browsing.Wanted:
        """The same for the store."""
        return browsing.Wanted(self.text.strip(), self.decision or None, self.domain, self.flagged, self.after)
