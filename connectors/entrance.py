"""The pages on which people log in and out, and change their own password."""

import asyncio
import secrets
from typing import Annotated, Literal, TypedDict

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from connectors.accounts import SHORTEST
from connectors.attempts import TooOften
from connectors.dashboard import Dashboard
from connectors.door import COOKIE, Door, Fields, NotAllowed, Opened, Visitor, fields, form_of, prove, sent, visitor_of
from connectors.pages import html
from loop.errors import PreceptorError
from loop.records import Role

FORM, KNOWN = "preceptor-form", "preceptor-known"
"""The cookies of who is about to log in, and of a browser in which a password was right."""
KNOWN_SECONDS = 365 * 24 * 3600
WRONG = "That is not right."


def logging_in(app: FastAPI, door: Door) -> None:
    """Where people log in and out."""

    @app.get("/login", response_class=HTMLResponse)
    def ask(request: Request, wrong: bool = False) -> Response:
        if request.state.visitor is not None:
            return RedirectResponse("/", 303)
        word = request.cookies.get(FORM) or secrets.token_urlsafe(32)
        answer = _asking(door, form_of(word), WRONG if wrong else "")
        answer.set_cookie(FORM, word, path="/login", **_kept(request))
        return answer

    @app.post("/login")
    async def log_in(request: Request) -> Response:
        given, word = await fields(request), request.cookies.get(FORM, "")
        prove(request, given, form_of(word) if word else "")
        address = request.client.host if request.client else ""
        held = request.cookies.get(COOKIE, ""), request.cookies.get(KNOWN, "")
        try:
            opened = await asyncio.get_running_loop().run_in_executor(door.queue, door.let_in, given, address, *held)
        except TooOften as error:
            return _later(_asking(door, form_of(word), str(error), 429), error)
        return RedirectResponse("/login?wrong=true", 303) if opened is None else _entering(request, opened)

    @app.post("/logout")
    async def log_out(request: Request, _: Annotated[Fields, Depends(sent(Role.VIEWER))]) -> Response:
        await asyncio.to_thread(door.let_out, request.cookies.get(COOKIE, ""), visitor_of(request).name)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, **_kept(request))
        return answer


def own_password(app: FastAPI, door: Door, dashboard: Dashboard) -> None:
    """Where people change their own password."""

    def page(visitor: Visitor, said: str = "", status: int = 200) -> HTMLResponse:
        frame = dashboard.frame(visitor, "password", "Your password")
        return HTMLResponse(html("password.html.j2", **frame, said=said, shortest=SHORTEST), status)

    @app.get("/password", response_class=HTMLResponse)
    def ask(request: Request) -> Response:
        return page(_somebody(request))

    @app.post("/password")
    def change(request: Request, given: Annotated[Fields, Depends(sent(Role.VIEWER))]) -> Response:
        visitor, new = _somebody(request), given.get("new", "")
        if new != given.get("again", ""):
            return page(visitor, "The two new passwords differ; nothing was changed.", 409)
        try:
            opened = door.change_password(visitor.name, given.get("current", ""), new)
        except TooOften as error:
            return _later(page(visitor, str(error), 429), error)
        except PreceptorError as error:
            return page(visitor, f"{error}; nothing was changed.", 409)
        if opened is None:
            return page(visitor, "The current password is not right; nothing was changed.", 409)
        return _entering(request, opened)


def _somebody(request: Request) -> Visitor:
    """Who looks, where they have an account.

    Raises:
        NotAllowed: they have none.
    """
    visitor = visitor_of(request)
    if not visitor.has_password:
        raise NotAllowed("This is for people who have an account.")
    return visitor


class _Kept(TypedDict):
    """How a browser is to keep a cookie."""

    httponly: bool
    samesite: Literal["strict"]
    secure: bool


def _kept(request: Request) -> _Kept:
    return {"httponly": True, "samesite": "strict", "secure": request.url.scheme == "https"}


def _entering(request: Request, opened: Opened) -> Response:
    """What is answered to who was let in."""
    answer = RedirectResponse("/", 303)
    answer.set_cookie(COOKIE, opened.word, max_age=int(opened.seconds), **_kept(request))
    if opened.known:
        answer.set_cookie(KNOWN, opened.known, max_age=KNOWN_SECONDS, path="/login", **_kept(request))
    return answer


def _later(answer: HTMLResponse, error: TooOften) -> HTMLResponse:
    """The answer, which says when to try again."""
    answer.headers["Retry-After"] = str(round(error.seconds) + 1)
    return answer


def _asking(door: Door, form: str, said: str, status: int = 200) -> HTMLResponse:
    """The page that asks who comes."""
    return HTMLResponse(
        html("login.html.j2", title="Preceptor", by_token=door.by_token(), form=form, said=said), status
    )
