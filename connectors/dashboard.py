"""The pages of `preceptor serve`: what a run does and did. Who may look is the matter of `connectors.door`."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from connectors.door import Visitor
from connectors.history import history, history_lines
from connectors.metrics import exposition
from connectors.pages import common, html
from connectors.side_by_side import comparisons
from connectors.views import PAGES, Page, Views
from connectors.wiring import Project
from loop.certification import lapsed
from loop.config import Config
from loop.errors import StoreUnusable
from loop.records import DecisionKind
from loop.store import browsing, counting, items, rounds
from loop.store.database import Store

PAGE_SIZE = 50
MOST_NAMES = 100
"""Domains that are offered while one is typed."""
SLOW_SECONDS = 0.2
KEPT_TIMES = 10
"""A page that takes that long to make is kept for so many times as long, so that a large run can be watched by many."""
STALE_SECONDS = 60.0
"""So much longer it is shown while it is made anew for the next look, so that nobody waits for it."""


@dataclass(frozen=True)
class _Made:
    """What a page shows, where the run stood when it was found, and until when it is shown."""

    at: object
    until: float
    values: dict[str, Any]


class NotHere(Exception):
    """There is no such run, page or item."""


class Dashboard:
    """The runs of one database. The project's own run has its config; another one that of its newest round."""

    def __init__(self, store: Store, config: Config, fresh: Callable[[], Project] | None = None) -> None:
        """`fresh`: the project anew, with connections of its own, for what people do on the pages of its own run."""
        self.store, self.config, self.fresh = store, config, fresh
        self._kept: dict[tuple[str, str], tuple[object, Any]] = {}
        self._pages: dict[tuple[str, str], _Made] = {}
        self._renewed: set[tuple[str, str]] = set()
        """Pages that are being made anew."""

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

    def page(self, visitor: Visitor, run: str, name: str) -> str:
        """A page of a run; what takes long is found anew once it is old, or the run has moved on.

        Raises:
            NotHere: there is no such run or page.
        """
        shown = next((each for each in PAGES if each.name == name), None)
        if shown is None:
            raise NotHere(f"There is no page {name}.")
        acts = self.fresh is not None and run == self.config.run.name
        values = self._kept_page(run, shown).values
        return html("page.html.j2", **self.frame(visitor, shown.name, shown.title, run) | values, acts=acts)

    def look_ahead(self) -> None:
        """Make the pages of the project's own run, so that who looks first need not wait."""
        for each in PAGES:
            self._make(self.config.run.name, each)

    def moved_on(self) -> None:
        """Forget what was made: somebody changed what it shows."""
        self._pages.clear()

    def _kept_page(self, run: str, page: Page) -> _Made:
        """A page as it was made lately, or made now; one that is getting old is made anew behind it."""
        made, now = self._pages.get((run, page.name)), time.monotonic()
        if made is None or made.at != self._place(run) or now >= made.until + STALE_SECONDS:
            return self._make(run, page)
        if now >= made.until and (run, page.name) not in self._renewed:
            self._renewed.add((run, page.name))
            threading.Thread(target=self._renew, args=(run, page), daemon=True).start()
        return made

    def _renew(self, run: str, page: Page) -> None:
        """Make a page for the next look, which finds out by itself where the database cannot be read."""
        try:
            with suppress(StoreUnusable):
                self._make(run, page)
        finally:
            self._renewed.discard((run, page.name))

    def _make(self, run: str, page: Page) -> _Made:
        """Find what a page shows; it is kept if that takes long."""
        at, started = self._place(run), time.monotonic()
        views = self.views(run)
        values = common(views) | {"view": page.view(views)}
        took = time.monotonic() - started
        made = _Made(at, time.monotonic() + KEPT_TIMES * took, values)
        if took >= SLOW_SECONDS:
            self._pages[run, page.name] = made
        return made

    def _place(self, run: str) -> object:
        """Where a run stands; None before its first round."""
        current = rounds.current(self.store, run)
        return None if current is None else (current.id, current.stage)

    def item(self, visitor: Visitor, run: str, key: str) -> str:
        """Everything about one item.

        Raises:
            NotHere: there is no such run or item.
        """
        self.views(run)
        if items.get(self.store, key) is None:
            raise NotHere(f"There is no item {key}.")
        found = _unplanted(history(self.store, run, key))
        return html(
            "item.html.j2",
            **self.frame(visitor, "items", key, run),
            found=found,
            comparisons=comparisons(found),
            events=history_lines(found),
        )

    def items(self, visitor: Visitor, run: str, wanted: browsing.Wanted) -> str:
        """A page of items.

        Raises:
            NotHere: there is no such run.
        """
        self.views(run)
        found = browsing.found(self.store, run, wanted, PAGE_SIZE + 1, lapsed(self.store, run))
        asked = {"text": wanted.text, "decision": wanted.decision or "", "domain": wanted.domain}
        asked = {name: value for name, value in asked.items() if value} | ({"flagged": "1"} if wanted.flagged else {})
        more = len(found) > PAGE_SIZE
        return html(
            "items.html.j2",
            **self.frame(visitor, "items", "Items", run),
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

    def frame(self, visitor: Visitor, here: str, title: str, run: str | None = None) -> dict[str, Any]:
        """What stands around every page; `run` is the project's own unless another is named."""
        run = run or self.config.run.name
        around = {"visitor": visitor, "home": f"/runs/{run}", "here": here, "title": title}
        return around | {"run": run, "runs": self.runs(), "pages": PAGES}


def _unplanted(found: dict[str, Any]) -> dict[str, Any]:
    """An item's history without what is planted, for reviewers may look on."""
    hidden = {each["id"] for each in found["rationales"] if each["planted"]}
    about = ("verdicts", "tasks", "flags", "risks", "judgements")
    shown = {name: [each for each in found[name] if each["rationale_id"] not in hidden] for name in about}
    sent = (*found["replies"], *found["trials"], *found["revision_replies"], *shown["judgements"])
    asked = {each["prompt_hash"] for each in sent}
    return (
        found
        | shown
        | {
            "rationales": [each for each in found["rationales"] if each["id"] not in hidden],
            "prompts": [each for each in found["prompts"] if each["hash"] in asked],
            "scores": [each for each in found["scores"] if each["chunk"] >= 0],
        }
    )
