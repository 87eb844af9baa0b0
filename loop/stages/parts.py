"""What every stage of a round is handed, and how rounds are named."""

from dataclasses import dataclass, field
from pathlib import Path

from loop.config import Config, ServedConfig, StudentConfig, WhiteBoxConfig
from loop.errors import StudentError
from loop.ports import Batches, Cluster, InProcess, Progress, Reviewers, Student, Teacher, Trainer
from loop.records import Checkpoint, Round
from loop.store import checkpoints, rounds
from loop.store.database import Store

PIECE = 64
"""Rationales checked, or holdout items predicted, between two commits."""

OF_SEEDS = "seed"
"""The folder of the student that chooses the first batch, trained on the seed items alone."""


@dataclass(frozen=True)
class Parts:
    """What stands behind the ports in this process. `folder` takes the checkpoints; what is None is not there.

    `stronger` holds a teacher for each of `teacher.stronger`.
    """

    trainer: Trainer
    teacher: Teacher
    reviewers: Reviewers
    progress: Progress
    folder: Path
    judge: Teacher | None = None
    stronger: tuple[Teacher, ...] = ()
    batches: Batches | None = None
    """The batch API of the teacher's endpoint."""
    cluster: Cluster = field(default_factory=InProcess)
    """Where the students that `trainer` gives do their work."""


def in_force(store: Store, run: str) -> Checkpoint | None:
    """The checkpoint that answers for the run, if it has trained one."""
    past = [each.student_id for each in rounds.all_rounds(store, run) if each.student_id is not None]
    return checkpoints.get(store, past[-1]) if past else None


def trained_by(student: Checkpoint, config: Config) -> Config:
    """The config with the settings that a student was trained by; as it is where its card names none.

    The round that trained it may have taken up others since.
    """
    if "student" not in student.card:
        return config
    then = {name: value for name, value in student.card["student"].items() if name in StudentConfig.model_fields}
    for name, table in (("white_box", WhiteBoxConfig), ("served", ServedConfig)):
        if then.get(name) is not None:
            then[name] = table.model_validate(then[name], strict=False)
    return config.model_copy(update={"student": StudentConfig().model_copy(update=then)})


def id_of(current: Round) -> int:
    """The id of a stored round."""
    assert current.id is not None
    return current.id


def seed_of(config: Config, number: int) -> int:
    """The seed of a round."""
    return config.run.seed * 100_003 + number


def student_of(student: Checkpoint, parts: Parts) -> Student:
    """A trained student of the run.

    Raises:
        StudentError: it cannot be loaded; the text names the cure.
    """
    try:
        return parts.trainer.student(parts.folder / student.folder)
    except StudentError as error:
        raise StudentError(f"{error}{or_again(student)}") from error


def or_again(student: Checkpoint) -> str:
    """How a student that is lost is trained again."""
    number = student.folder.removeprefix("round-")
    return f". Or train it again from what was decided then: `preceptor student retrain --round {number}`"


def student_in_force(current: Round, store: Store, parts: Parts) -> Student | None:
    """The trained student of the run, None before there is one."""
    incumbent = in_force(store, current.run)
    return None if incumbent is None else student_of(incumbent, parts)
