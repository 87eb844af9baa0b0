"""What people with more than a look at the pages may do there: the same as the commands of these names do."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from connectors.accounts import noted, remove
from connectors.dashboard import Dashboard, NotHere
from connectors.door import Fields, Visitor, needs, sent, visitor_of
from connectors.pages import html
from connectors.pulling import pull
from connectors.recalls import moment, recall, recall_summary
from connectors.reviewing import push_reviews
from connectors.wiring import Project
from loop.errors import PreceptorError
from loop.records import Role
from loop.report import pseudonyms
from loop.store import accounts, reading
from loop.store.tainted import Grounds

Lead = Annotated[Fields, Depends(sent(Role.LEAD))]
Owner = Annotated[Fields, Depends(sent(Role.OWNER))]
MOST_DEEDS = 200
LONGEST_REASON = 500


def leading(app: FastAPI, dashboard: Dashboard) -> None:
    """What a review lead may do: hand reviews out, take verdicts in, take back what a reviewer said."""

    @app.post("/runs/{run}/push", response_class=HTMLResponse)
    def push(run: str, request: Request, _: Lead) -> str:
        with _opened(dashboard, run) as project, _noted(project, request, "review push"):
            said = push_reviews(project)
        return _done(dashboard, request, "queue", [said])

    @app.post("/runs/{run}/pull", response_class=HTMLResponse)
    def take(run: str, request: Request, _: Lead) -> str:
        with _opened(dashboard, run) as project, _noted(project, request, "review pull"):
            said = str(pull(project))
        return _done(dashboard, request, "queue", [said])

    @app.post("/runs/{run}/recall", response_class=HTMLResponse)
    def take_back(run: str, request: Request, given: Lead) -> str:
        with _opened(dashboard, run) as project:
            lines, again = _recalled(project, request, given)
        return _done(dashboard, request, "reviewers", lines, again)


def _recalled(project: Project, request: Request, given: Fields) -> tuple[list[str], Fields]:
    """What a recall touches, or touched where `sure` is among the fields; and the form that does it, else none."""
    shown, sure = given.get("reviewer", ""), "sure" in given
    if shown not in pseudonyms(reading.reviewers_of(project.store, project.config.run.name)).values():
        raise PreceptorError("no such reviewer; choose one from the list")
    since, reason = given.get("since", ""), given.get("reason", "").strip()[:LONGEST_REASON]
    try:
        grounds = Grounds(shown, "", "", moment(since) if since else None)
    except ValueError as error:
        raise PreceptorError(f"{since}: not a date; expected one like 2026-11-25 or 2026-11-25T14:30") from error
    if not sure:
        found = recall(project, grounds, reason=reason or None, sure=False)
        again = {"reviewer": shown, "since": since, "reason": reason, "sure": "yes"}
        return recall_summary(found, sure=False)[:-1], again
    with _noted(project, request, "recall", f"{shown}{f' since {since}' if since else ''}"):
        return recall_summary(recall(project, grounds, reason=reason or None, sure=True), sure=True), {}


def owning(app: FastAPI, dashboard: Dashboard) -> None:
    """What an owner may see and do: who has an account, who did what, and removing an account."""

    @app.get("/users", response_class=HTMLResponse)
    def users(visitor: Annotated[Visitor, Depends(needs(Role.OWNER))]) -> str:
        found = {"people": accounts.every(dashboard.store), "deeds": accounts.deeds(dashboard.store, MOST_DEEDS)}
        return html("users.html.j2", **dashboard.frame(visitor, "users", "People"), **found)

    @app.post("/users/remove")
    def take_away(request: Request, given: Owner) -> Response:
        remove(dashboard.store, given.get("name", ""), by=visitor_of(request).name)
        return RedirectResponse("/users", 303)


@contextmanager
def _opened(dashboard: Dashboard, run: str) -> Iterator[Project]:
    """The project that the server was started for, with connections of its own while the block lasts.

    Raises:
        NotHere: another run is meant, whose board this config need not name.
    """
    if dashboard.fresh is None or run != dashboard.config.run.name:
        raise NotHere(f"Only run {dashboard.config.run.name} is worked on from here.")
    project = dashboard.fresh()
    try:
        yield project
    finally:
        project.store.close()
        dashboard.moved_on()


def _noted(project: Project, request: Request, what: str, about: str = "") -> AbstractContextManager[None]:
    run = project.config.run.name
    return noted(project.store, what, f"run {run}, {about}" if about else f"run {run}", visitor_of(request).name)


def _done(
    dashboard: Dashboard, request: Request, back: str, lines: list[str], again: Fields | None = None
) -> str:  # fmt: skip
    """The page that says what was done, or what would be and how it is."""
    frame = dashboard.frame(visitor_of(request), back, "Shown, not done yet" if again else "Done")
    return html("done.html.j2", **frame, lines=lines, again=again or {})
