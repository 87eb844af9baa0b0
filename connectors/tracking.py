"""Sends the figures of each closed round to where `[tracking]` says: numbers alone, no text, prompt or key.

What was sent is noted in the run's folder round by round, so that a round which a crash, or a tracker that was down,
left out is sent with the next one. One that was half sent is sent again, to the same run, at the same step.
"""

import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from connectors import atomic
from connectors.sinks import Place, Sink, mlflow, tensorboard
from connectors.status import round_figures
from loop.config import TrackingConfig
from loop.errors import BadConfig, TrackerDown
from loop.ports import Progress
from loop.records import Stage
from loop.store import counting
from loop.store.database import Store

SINKS: Mapping[str, Sink] = {
    "tensorboard": tensorboard.opened,
    "mlflow": mlflow.opened,
}
"""For each value of `tracking.to`, which is also the name of the package that it needs, what opens it."""


def check(tracking: TrackingConfig) -> None:
    """Look whether the package is there, before anything is spent.

    Raises:
        BadConfig: it is missing, and the extra is named.
    """
    if tracking.to != "none" and importlib.util.find_spec(tracking.to) is None:
        raise BadConfig(
            f'tracking.to = "{tracking.to}" needs the package of that name: pip install "preceptor[{tracking.to}]"'
        )


def catch_up(store: Store, run: str, tracking: TrackingConfig, folder: Path, progress: Progress) -> None:
    """Send the closed rounds that were not sent yet; a tracker that is down is told and tried again next time."""
    if tracking.to == "none":
        return
    noted = folder / "tracked.json"
    notes: dict[str, Any] = json.loads(noted.read_text(encoding="utf-8")) if noted.is_file() else {}
    place = f"{tracking.to} {tracking.url or ''}".strip()
    sent, known = notes.get(place, (0, None))
    new = {number: found for number, found in closed_rounds(store, run).items() if number > sent}
    if not new:
        return
    try:
        with SINKS[tracking.to](Place(run, folder, tracking.url, known)) as (known, take):
            _note(noted, notes | {place: (sent, known)})  # or what comes next is sent to yet another run
            for number, found in new.items():
                take(number, found)
                _note(noted, notes | {place: (number, known)})
    except TrackerDown as error:
        progress.say(f"  tracking: {error}; tried again when the next round closes, or by the next `run`")


def _note(file: Path, notes: Mapping[str, Any]) -> None:
    """Write down by place how many rounds were sent there, and what it calls the run."""
    atomic.write_text(file, json.dumps(notes))


def closed_rounds(store: Store, run: str) -> dict[int, dict[str, float]]:
    """The figures of each closed round by its number, as they are now."""
    every = round_figures(store, run, counting.verdicts(store, run))
    return {each["round"]: dict(_numbers(each)) for each in every if each["stage"] == Stage.CLOSED.value}


def _numbers(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """All numbers by their path. Domains are left out: their names come from the data."""
    for name, value in found.items():
        if isinstance(value, Mapping) and name != "domains":
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)
