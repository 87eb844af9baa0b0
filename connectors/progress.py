"""Progress bars and lines on the terminal."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.segment import Segment

STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys instead of showing it."""


class Terminal(Console):
    """A terminal that no text of an item, a teacher or a person steers: what would is spelled out."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is shown, piece by piece; the console's own commands are pieces of another kind."""
        for each in super().render(renderable, options):
            yield each if each.control else Segment(spelled(each.text), each.style)


def spelled(text: str) -> str:
    """The text with what would steer a terminal as JSON spells it."""
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@dataclass(frozen=True)
class RichBar:
    """One bar on the terminal."""

    progress: Progress
    task: TaskID

    def advance(self, steps: int = 1) -> None:
        """Move on."""
        self.progress.advance(self.task, steps)


@dataclass(frozen=True)
class RichProgress:
    """Bars where a person watches; where nobody does, a line when a bar is done."""

    console: Console

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[RichBar]:
        """A bar for the duration of the block."""
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            yield RichBar(progress, progress.add_task(title, total=total))

    def say(self, text: str) -> None:
        """A line for the user."""
        self.console.print(text, markup=False, highlight=False)
