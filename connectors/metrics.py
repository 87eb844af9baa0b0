"""What Prometheus reads of `preceptor serve`: where each run stands, counted in the store when it is asked for."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from connectors.status import counts
from loop.config import Config
from loop.store import counting, reviews, rounds
from loop.store.database import Store


def exposition(store: Store, configs: Mapping[str, Config]) -> bytes:
    """The figures of these runs in Prometheus' text form."""
    shown = _Gauges()
    for run, config in configs.items():
        _show(shown, store, run, config)
    return generate_latest(shown.registry)


class _Gauges:
    """The figures by name; each is registered when it is first set, and has the run as a label."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._known: dict[str, Gauge] = {}

    def set(self, name: str, value: float, explanation: str, **labels: str) -> None:
        """Set a figure."""
        if name not in self._known:
            self._known[name] = Gauge(f"preceptor_{name}", explanation, list(labels), registry=self.registry)
        self._known[name].labels(**labels).set(value)


def _show(shown: _Gauges, store: Store, run: str, config: Config) -> None:
    """The figures of one run."""
    verdicts = counting.verdicts(store, run)
    found = counts(store, run, config, verdicts)
    for currency, amounts in found["budget"].items():
        where = {"run": run, "currency": currency}
        shown.set("spent", amounts["spent"], "Settled charges, in US dollars or minutes of reviewers.", **where)
        shown.set("reserved", amounts["reserved"], "Held at worst case, in the same units.", **where)
        shown.set("limit", amounts["limit"], "The budget, in the same units.", **where)
    for state, number in found["items"].items():
        shown.set("items", number, "Items by state; an item may be in several.", run=run, state=state)
    said = Counter((each.kind.value, "yes" if each.simulated else "no") for each in verdicts if each.kind)
    for (kind, simulated), number in said.items():
        labels = {"run": run, "kind": kind, "simulated": simulated}
        shown.set(
            "verdicts", number, "Verdicts that count, by what they say and whether a program gave them.", **labels
        )
    _show_rounds(shown, store, run, found["rounds"])


def _show_rounds(shown: _Gauges, store: Store, run: str, figures: list[dict[str, Any]]) -> None:
    """The rounds of a run, what waits in the present one, and the student after the last."""
    current = rounds.current(store, run)
    open_reviews = 0 if current is None else len(reviews.pending(store, current.id or 0))
    shown.set("open_reviews", open_reviews, "Reviews of the present round without a verdict.", run=run)
    closed = sum(each["stage"] == "closed" for each in figures)
    shown.set("rounds", len(figures), "Rounds that were opened.", run=run)
    shown.set("rounds_closed", closed, "Rounds that are closed.", run=run)
    student = next((each["student"] for each in reversed(figures) if each["student"]), None)
    if student is not None:
        explanation = "Share of the test part that the student in force answers right, with its 95 % interval."
        for bound in ("accuracy", "low", "high"):
            shown.set("student_accuracy", student[bound], explanation, run=run, bound=bound)
