"""Places that take the figures of a campaign; each needs a package of its own, which is loaded when it is used."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

Take = Callable[[int, Mapping[str, float]], object]
"""Takes a round's number and its figures by name."""


@dataclass(frozen=True)
class Place:
    """Where a run's figures go: the run's folder unless a server is named; `known` is what the place calls the run."""

    run: str
    folder: Path
    url: str | None = None
    known: str | None = None


Sink = Callable[[Place], AbstractContextManager[tuple[str | None, Take]]]
"""Opens a place: what it calls the run, and what takes its figures. Raises `TrackerDown` where it takes none now."""
