"""The pages of `preceptor serve`: what a run does and did, to be read only.

On loopback anybody may look who reaches it by a name of loopback, so that no web page can by a name of its own.
Elsewhere a token is asked for once, and remembered in a cookie that no script reads, that comes along from no other
site, and that does not hold the token.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, unquote, urlencode

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connectors.access import names_loopback
from connectors.history import history, history_lines
from connectors.metrics import exposition
from connectors.pages import STATIC, common, html
from connectors.side_by_side import comparisons
from connectors.views import PAGES, Views
from loop.config import Config
from loop.records import DecisionKind
from loop.store import browsing, counting, items, rounds
from loop.store.database import Store

COOKIE = "preceptor"
REMEMBERED_SECONDS = 30 * 24 * 3600
OPEN = ("/login", "/static/")
"""What is answered to who has no token yet."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOOK_SECONDS = 1.0
"""How often the database is looked at while somebody watches."""
LONGEST_BODY = 1 << 12
PAGE_SIZE = 50
MOST_NAMES = 100
"""Domains that are offered while one is typed."""


SLOW_SECONDS = 0.2
KEPT_TIMES = 10
"""A page that takes that long to make is kept for so many times as long, so that a large run can be watched by many."""


@dataclass(frozen=True)
class _Made:
    """A page as it was made, where the run stood then, and until when it is shown."""

    at: object
    until: float
    text: str


class NotHere(Exception):
    """There is no such run, page or item."""


class Dashboard:
    """The runs of one database. The project's own run has its config; another one that of its newest round."""

    def __init__(self, store: Store, config: Config) -> None:
        self.store, self.config = store, config
        self._kept: dict[tuple[str, str], tuple[object, Any]] = {}
        self._pages: dict[tuple[str, str], _Made] = {}

    def runs(self) -> list[str]:
        """The names of all runs, the project's own first."""
        own = self.config.run.name
        return [own, *(name for name in counting.runs(self.store) if name != own)]

    def views(self, run: str) -> Views:
        """What is known of a run.

        Raises:
            NotHere: there is none of this name.
        """
        if run == self.config.run.name:
            return Views(self.store, run, self.config, partial(self._keep, run))
        current = rounds.current(self.store, run)
        if current is None:
            raise NotHere(f"There is no run {run}.")
        config = Config.model_validate(rounds.config_of(self.store, current), strict=False)
        return Views(self.store, run, config, partial(self._keep, run))

    def _keep(self, run: str, name: str, find: Callable[[], Any]) -> Any:
        """What rests on verdicts and takes long: found anew only once something about reviews has changed."""
        stamp = counting.review_stamp(self.store)
        kept = self._kept.get((run, name))
        if kept is None or kept[0] != stamp:
            kept = self._kept[run, name] = stamp, find()
        return kept[1]

    def page(self, run: str, name: str) -> str:
        """A page of a run; one that takes long is made anew once it is old, or the run has moved on.

        Raises:
            NotHere: there is no such run or page.
        """
        shown = next((each for each in PAGES if each.name == name), None)
        if shown is None:
            raise NotHere(f"There is no page {name}.")
        views, current, started = self.views(run), rounds.current(self.store, run), time.monotonic()
        at = None if current is None else (current.id, current.stage)
        made = self._pages.get((run, name))
        if made is not None and made.at == at and started < made.until:
            return made.text
        text = html(
            "page.html.j2", **self._frame(run, shown.name, shown.title), **common(views), view=shown.view(views)
        )
        took = time.monotonic() - started
        if took >= SLOW_SECONDS:
            self._pages[run, name] = _Made(at, time.monotonic() + KEPT_TIMES * took, text)
        return text

    def item(self, run: str, key: str) -> str:
        """Everything about one item.

        Raises:
            NotHere: there is no such run or item.
        """
        views = self.views(run)
        if items.get(self.store, key) is None:
            raise NotHere(f"There is no item {key}.")
        found = _unplanted(history(self.store, run, key))
        return html(
            "item.html.j2",
            **self._frame(run, "items", key),
            pages=PAGES,
            run=views.run,
            found=found,
            comparisons=comparisons(found),
            events=history_lines(found),
        )

    def items(self, run: str, wanted: browsing.Wanted) -> str:
        """A page of items.

        Raises:
            NotHere: there is no such run.
        """
        views = self.views(run)
        found = browsing.found(self.store, run, wanted, PAGE_SIZE + 1)
        asked = {"text": wanted.text, "decision": wanted.decision or "", "domain": wanted.domain}
        asked = {name: value for name, value in asked.items() if value} | ({"flagged": "1"} if wanted.flagged else {})
        more = len(found) > PAGE_SIZE
        return html(
            "items.html.j2",
            **self._frame(run, "items", "Items"),
            pages=PAGES,
            run=views.run,
            rows=found[:PAGE_SIZE],
            wanted=wanted,
            searched=bool(asked),
            kinds=list(DecisionKind),
            domains=browsing.domains(self.store, MOST_NAMES),
            size=PAGE_SIZE,
            first=urlencode(asked),
            following=urlencode(asked | {"after": found[PAGE_SIZE - 1].key}) if more else "",
        )

    def live(self, run: str) -> dict[str, str]:
        """How far the present stage of a run is: as a piece of the page, and where it stands.

        Raises:
            NotHere: there is no such run.
        """
        live = self.views(run).live()
        return {"html": html("live.html.j2", live=live), "place": f"round {live['round']}, {live['stage']}"}

    def metrics(self) -> bytes:
        """The figures of all runs for Prometheus."""
        return exposition(self.store, {run: self.views(run).config for run in self.runs()})

    def _frame(self, run: str, here: str, title: str) -> dict[str, Any]:
        return {"home": f"/runs/{run}", "here": here, "title": title, "runs": self.runs()}


def _unplanted(found: dict[str, Any]) -> dict[str, Any]:
    """An item's history without what is planted, for reviewers may look on."""
    hidden = {each["id"] for each in found["rationales"] if each["planted"]}
    return found | {
        "rationales": [each for each in found["rationales"] if each["id"] not in hidden],
        "verdicts": [each for each in found["verdicts"] if each["rationale_id"] not in hidden],
    }


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


class _Guard:
    """Lets pass who may look, and says to every browser what a page of ours may do: nothing but ours."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token
        self._cookie = "" if token is None else remembered(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await (self._refusal(Request(scope)) or self._app)(scope, receive, sent)

    def _refusal(self, request: Request) -> Response | None:
        """What is said to who may not look, or asks for what no database holds."""
        if "\x00" in unquote(f"{request.url.path}?{request.url.query}"):
            return Response("there is nothing of that name", 400)
        if self._token is None:
            known = names_loopback(request.headers.get("host", ""))
            return None if known else Response("open it as http://127.0.0.1 or localhost", 421)
        if request.url.path.startswith(OPEN) or self._knows(request):
            return None
        return RedirectResponse("/login", 303) if request.method == "GET" else Response(status_code=401)

    def _knows(self, request: Request) -> bool:
        bearer = f"Bearer {self._token}".encode()
        shown = hmac.compare_digest(request.headers.get("authorization", "").encode(), bearer)
        return shown | hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), self._cookie.encode())


def remembered(token: str) -> str:
    """What the cookie holds: nothing from which the token could be found."""
    return hmac.new(token.encode(), b"preceptor dashboard", hashlib.sha256).hexdigest()


async def told(
    dashboard: Dashboard, run: str, ending: Callable[[], bool], *, every: float = LOOK_SECONDS
) -> AsyncIterator[dict[str, str]]:
    """How far the run's stage is: now, and again whenever that changes, until the server ends."""
    last: dict[str, str] = {}
    while not ending():
        now = await asyncio.to_thread(dashboard.live, run)
        if now != last:
            last = now
            yield now
        await asyncio.sleep(every)


def application(dashboard: Dashboard, token: str | None, ending: Callable[[], bool] = lambda: False) -> ASGIApp:
    """The web application; with a token only who shows it is answered. `ending`: does the server want to end?"""
    app = FastAPI(title="Preceptor", openapi_url=None)
    app.mount("/static", StaticFiles(directory=STATIC))
    _pages(app, dashboard, ending)
    if token is not None:
        _login(app, token)

    @app.exception_handler(NotHere)
    async def missing(_: Request, error: NotHere) -> Response:
        return HTMLResponse(html("message.html.j2", title="Not here", text=str(error), form=False), 404)

    @app.exception_handler(404)
    async def unknown(_: Request, _error: Exception) -> Response:
        return HTMLResponse(html("message.html.j2", title="Not here", text="There is no such page.", form=False), 404)

    return _Guard(app, token)


def _login(app: FastAPI, token: str) -> None:
    """Where the token is asked for."""

    @app.get("/login", response_class=HTMLResponse)
    def ask(wrong: bool = False) -> str:
        said = "This dashboard is shown to who knows its token."
        return html("message.html.j2", title="Preceptor", text=said, form=True, wrong=wrong)

    @app.post("/login")
    async def log_in(request: Request) -> Response:
        body = await _body(request)
        given = parse_qs(body.decode(errors="replace")).get("token", [""])[0]
        if not hmac.compare_digest(given.encode(), token.encode()):
            return RedirectResponse("/login?wrong=true", 303)
        answer = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(
            COOKIE, remembered(token), max_age=REMEMBERED_SECONDS, httponly=True, samesite="strict", secure=secure
        )
        return answer


async def _body(request: Request) -> bytes:
    """What was sent, cut off where it is too long to be a token."""
    received = b""
    async for piece in request.stream():
        received += piece
        if len(received) > LONGEST_BODY:
            break
    return received


def _pages(app: FastAPI, dashboard: Dashboard, ending: Callable[[], bool]) -> None:
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
    def overview(run: str) -> str:
        return dashboard.page(run, "overview")

    @app.get("/runs/{run}/items", response_class=HTMLResponse)
    def browse(run: str, search: Annotated[_Search, Query()]) -> str:
        return dashboard.items(run, search.wanted())

    @app.get("/runs/{run}/item", response_class=HTMLResponse)
    def item(run: str, key: str) -> str:
        return dashboard.item(run, key)

    @app.get("/runs/{run}/live", response_class=EventSourceResponse, dependencies=[Depends(known)])
    async def live(run: str) -> AsyncIterable[ServerSentEvent]:
        async for each in told(dashboard, run, ending):
            yield ServerSentEvent(event="progress", data=each)

    @app.get("/runs/{run}/{name}", response_class=HTMLResponse)
    def page(run: str, name: str) -> str:
        return dashboard.page(run, name)
