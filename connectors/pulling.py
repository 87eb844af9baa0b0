"""Takes verdicts from the board into the store, and lets decisions follow them."""

from dataclasses import dataclass

from connectors.wiring import Project
from loop.errors import AlreadyWorking
from loop.events import about, happened
from loop.stages.redecide import redecide


@dataclass(frozen=True)
class Pulled:
    """How many verdicts came, changed or were deleted, and how many decisions changed; None: left to a live run."""

    verdicts: int
    redecided: int | None

    def __str__(self) -> str:
        revised = f"; {self.redecided} earlier decisions follow them" if self.redecided else ""
        left = "; the run that is at work decides about them" if self.redecided is None and self.verdicts else ""
        return f"{self.verdicts} new, changed or deleted verdicts{revised}{left}"


def pull(project: Project, *, whole: bool = False) -> Pulled:
    """Pull once. Decisions belong to whoever holds the run, so a run that is at work is left to make them."""
    store, run = project.store, project.config.run.name
    with about(run=run):
        verdicts = project.desk().pull(whole=whole)
        happened("verdicts_pulled", count=verdicts)
    try:
        with project.held():
            return Pulled(verdicts, redecide(store, run, project.config))
    except AlreadyWorking:
        return Pulled(verdicts, None)
