"""What a check looks at and what it raises."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loop.config import ChecksConfig, TaskConfig
from loop.records import Item, Rationale


@dataclass(frozen=True)
class Doubtful:
    """A rationale with all that a check may compare it with."""

    item: Item
    rationale: Rationale
    task: TaskConfig
    siblings: Sequence[Rationale] = ()
    """The teacher's other samples on the item."""
    student: Mapping[str, Any] | None = None
    """`Score.parts` of the item, where a trained student has explained it."""


@dataclass(frozen=True)
class Doubt:
    """A flag before it is stored. `step` is 0-based, None where it concerns the whole; `weight` in (0, 1]."""

    check: str
    step: int | None
    evidence: str
    weight: float


Check = Callable[[Doubtful, ChecksConfig], list[Doubt]]
"""The doubts of one check about one rationale; pure, and no text may break it or hold it up."""


def excerpt(text: str, length: int = 80) -> str:
    """The text on one line, cut to a length a person reads at a glance."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
