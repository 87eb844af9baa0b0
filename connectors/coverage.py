"""How much of the pool a simulation knows: of which items a reply is recorded, and of which the truth is there."""

from dataclasses import dataclass
from pathlib import Path

from connectors.recorded_teacher import RecordedTeacher, read_recordings
from connectors.wiring import Project
from loop.errors import BadConfig, PoolEmpty
from loop.records import Part, Split
from loop.store import items
from loop.teacher.prompt import request_for
from review.simulated import read_truth


@dataclass(frozen=True)
class Coverage:
    """How many pool items there are, and how many of them have no recorded reply, or no truth."""

    items: int
    without_reply: int
    without_truth: int

    def lines(self) -> list[str]:
        """What becomes of these, a sentence each; nothing where all are known."""
        replies = (
            f"{self.without_reply} of {self.items} pool items have no recorded reply: asking about one costs its "
            "dollars, and what comes back cannot be read and teaches nothing"
        )
        truth = (
            f"{self.without_truth} of {self.items} pool items have no truth: a campaign that has one of them reviewed "
            "ends there with an error, unless review.quorum is reached without it"
        )
        return [*([replies] if self.without_reply else []), *([truth] if self.without_truth else [])]


def coverage(project: Project, recorded: Path, truth: Path) -> Coverage:
    """Look up every pool item as the teacher and the reviewer of a campaign do.

    Raises:
        PoolEmpty: nothing was ingested, or nothing into the pool.
        BadConfig: no item has a reply, none has a truth, or the holdout has nothing to test students on.
        BadRow: one of the files cannot be read.
    """
    if not items.count(project.store).get(Split.POOL):
        raise PoolEmpty("nothing to simulate with; `preceptor ingest FILE` takes pool items in")
    if not items.of_split(project.store, Split.HOLDOUT, Part.TEST):
        raise BadConfig(
            "the holdout has no item to test students on, so no campaign could be given an accuracy; "
            "`preceptor ingest FILE --split holdout` takes some in, with their answers"
        )
    config = project.config
    teacher, known = RecordedTeacher(read_recordings(recorded)), read_truth(truth).keys()
    every = without_reply = without_truth = 0
    for item in items.stream(project.store, Split.POOL):
        asked = request_for(item, config.task, config.teacher, (), 0)
        every += 1
        without_reply += not teacher.knows(asked.messages[-1]["content"], asked.model)
        without_truth += item.key not in known
    if without_reply == every:
        raise BadConfig(
            f"{recorded}: no pool item has a reply by teacher.model = {config.teacher.model!r}; models with replies "
            f"there: {', '.join(teacher.models)}. Record replies to the pool's questions, or name another file"
        )
    if without_truth == every:
        raise BadConfig(
            f"{truth}: it has no pool item's key, so nothing could be reviewed; write a line with key, answer and "
            "steps for each item, or name another file"
        )
    return Coverage(every, without_reply, without_truth)
