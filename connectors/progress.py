"""Progress bars and lines on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


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
