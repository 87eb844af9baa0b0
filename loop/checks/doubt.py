"""What a check looks at, what it raises, and what it says of itself."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loop.config import ChecksConfig, TaskConfig
from loop.ports import Forced
from loop.records import Item, Rationale

if TYPE_CHECKING:
    from loop.checks.first_error import FirstError
    from loop.checks.neighbours import Decided
    from loop.checks.reader import Reader

MOST_STEPS = 200
"""Steps of a rationale that are looked at; a longer one is doubted for that."""


QUOTED = re.compile("“([^”]+)”")


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
    after: Callable[[], Sequence[Forced]] | None = None
    """The answers that a trained student gives after 0, 1, ... steps of the rationale."""
    likelihoods: Callable[[], Sequence[float]] | None = None
    """Mean log-probability of a token of each step, by a trained student that writes steps."""
    probabilities: Callable[[], Sequence[float]] | None = None
    """Of the allowed answers, in their order, by a trained student that sees the item alone."""
    beside: Sequence["Doubtful"] = ()
    """What the teacher said of other items with the same context."""
    embed: Callable[[Sequence[str]], NDArray[np.float32]] | None = None
    """Texts as vectors of length 1, (texts, dimensions)."""
    decided: "Decided | None" = None
    """What people settled on for other items."""
    reader: "Reader | None" = None
    """What learned from verdicts on other rationales."""
    first_error: "FirstError | None" = None
    """What learned from the steps that people marked."""


@dataclass(frozen=True)
class Doubt:
    """A flag before it is stored.

    `weight` in (0, 1] is the share of wrong rationales measured among those so doubted. `step` is 0-based, None where
    the doubt concerns the whole; `span` says from which to which character of that step.
    """

    check: str
    step: int | None
    evidence: str
    weight: float
    span: tuple[int, int] | None = None

    def within(self, steps: Sequence[str]) -> tuple[int, int] | None:
        """Which characters of its step are doubted: its span, else the passage of the step that it quotes first."""
        if self.span is not None or self.step is None:
            return self.span
        quoted = QUOTED.search(self.evidence)
        start = -1 if quoted is None else steps[self.step].find(quoted[1].removesuffix("…"))
        return None if quoted is None or start < 0 else (start, start + len(quoted[1].removesuffix("…")))


class Need(StrEnum):
    """What a check cannot do without; where it is missing, the check is not run."""

    SAMPLES = "samples"
    STUDENT = "student"
    VERIFIER = "verifier"
    EMBEDDER = "embedder"
    VERDICTS = "verdicts"


@dataclass(frozen=True)
class Check:
    """One check. `find` is pure, and no text may break it or hold it up; `milliseconds` is its usual time for one."""

    name: str
    find: Callable[[Doubtful, ChecksConfig], list[Doubt]]
    milliseconds: float
    needs: frozenset[Need] = frozenset()


def excerpt(text: str, length: int = 80) -> str:
    """The text on one line, cut to a length a person reads at a glance."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
