"""The trained students of a run: which one is meant, how it is loaded, and what it may be asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from connectors import rows
from connectors.files import Raw
from connectors.wiring import Project
from loop.answer import number_steps, place_of, shown
from loop.calibration import tempered
from loop.config import Config, TaskConfig
from loop.errors import ItemTooLong, PreceptorError, StudentError
from loop.ports import Student
from loop.records import Checkpoint, Item, Round, Split
from loop.stages.measuring import agreement
from loop.stages.parts import or_again, trained_by
from loop.store import checkpoints, evaluations, reading, rounds
from loop.store.database import Store


@dataclass(frozen=True)
class Trained:
    """A student on disk: the round that trained it, the config it was trained by, and where its checkpoint is."""

    checkpoint: Checkpoint
    round: Round
    config: Config
    folder: Path

    @property
    def name(self) -> str:
        """The student's name where it is served."""
        return f"{self.round.run}-round-{self.round.number}"


def trained(project: Project, number: int | None = None) -> Trained:
    """The student in force after a round; without a number, the one in force now.

    Raises:
        PreceptorError: no student was trained yet, or none until then.
    """
    store, run = project.store, project.config.run.name
    known = {each.number: each.student_id for each in rounds.all_rounds(store, run) if each.student_id is not None}
    if not known:
        raise PreceptorError(f"run {run}: no student was trained yet; `preceptor run` trains one")
    if number is not None and number not in known:
        raise PreceptorError(f"run {run}: no student after round {number}; there is one after {listed(known)}")
    found = checkpoints.get(store, known[max(known) if number is None else number] or 0)
    assert found.round_id is not None
    made_in = rounds.by_id(store, found.round_id)
    folder = project.folder / "checkpoints" / found.folder
    if found.removed_at is not None and not any(folder.glob("*.safetensors")):
        raise PreceptorError(_removed(store, run, found, known))
    return Trained(found, made_in, trained_by(found, project.config_of(made_in)), folder)


def _removed(store: Store, run: str, student: Checkpoint, known: Mapping[int, int]) -> str:
    """What to do where the weights were removed."""
    every = reading.checkpoints_of(store, run)
    whole = {number for number, student_id in known.items() if every[student_id].removed_at is None}
    return (
        f"run {run}: the weights of {student.folder} were removed on {student.removed_at:%Y-%m-%d} "
        f"(checkpoints.keep); take the student of another round with --round (there is one after {listed(whole)}), or "
        "copy the folder back from a backup. A higher checkpoints.keep keeps more of them from now on"
        f"{or_again(student)}"
    )


def loaded(project: Project, which: Trained, **changes: object) -> Student:
    """The student as it was trained; today's config says only on which engine and how much side by side.

    Raises:
        StudentError: the checkpoint cannot be loaded.
    """
    today = project.config.student
    how = {name: getattr(today, name) for name in ("engine", "served", "generation_batch", "trust_remote_code")}
    student = which.config.student.model_copy(update=how | changes)
    try:
        return project.trainer(which.config.model_copy(update={"student": student})).student(which.folder)
    except StudentError as error:
        run = project.config.run.name
        known = {each.number for each in rounds.all_rounds(project.store, run) if each.student_id is not None}
        raise StudentError(
            f"{error}. If the folder is incomplete, copy it back from a backup, or take the student of another round "
            f"with --round (there is one after {listed(known)}){or_again(which.checkpoint)}"
        ) from error


def temperature_of(project: Project, which: Trained) -> float:
    """What the student's probabilities are tempered with; 1 where none was fitted."""
    found = evaluations.of(project.store, which.checkpoint.id or 0)
    return 1.0 if found is None or found.temperature is None else found.temperature


def confidence_text(project: Project, which: Trained, shares: Sequence[float], place: int) -> str:
    """How sure the student is of the answer at a place, from what it holds probable, and whether that is calibrated."""
    found = evaluations.of(project.store, which.checkpoint.id or 0)
    said = f"confidence {tempered(shares, temperature_of(project, which))[place]:.2f}"
    return said if found is not None and found.temperature is not None else f"{said}, not calibrated"


def listed(numbers: Mapping[int, object] | set[int]) -> str:
    """The rounds of these numbers, in words."""
    return f"round {', '.join(map(str, sorted(numbers)))}"


def asked(question: str, task: TaskConfig, context: str = "", choices: Sequence[str] = ()) -> Item:
    """An item that somebody asks about.

    Raises:
        BadRow: it cannot be asked; the text names the part and what was expected.
    """
    fields = {"question": question, "context": context, "choices": list(choices)}
    return item_of(Raw("the question", 0, fields), task)


def item_of(raw: Raw, task: TaskConfig) -> Item:
    """The item of a row, for a student to answer.

    Raises:
        BadRow: it cannot be asked; the text names file, line, field and what was expected.
    """
    return rows.item_of(rows.checked(raw), raw, task, split=Split.POOL)


def refuse_too_long(student: Student, item: Item, place: str) -> None:
    """Training cuts what is too long; who asks is told.

    Raises:
        ItemTooLong: the student would see only a part of the item.
    """
    tokens, room = student.reads(item)
    if tokens > room:
        raise ItemTooLong(
            f"{place}: item {item.key!r} takes {tokens} tokens, but the student reads {room}; shorten its context"
        )


def answer_question(project: Project, item: Item, which: Trained) -> str:
    """The student's answer, with its rationale and its agreement with itself.

    Raises:
        ItemTooLong: the item is longer than the student reads.
    """
    student, query = loaded(project, which), which.config.query  # by which its temperature was fitted
    refuse_too_long(student, item, "the question")
    [predicted] = student.predict([item])
    steps = number_steps(predicted.explanation.steps)
    if predicted.answer is None:
        return f"{steps}\n(no answer could be read)"
    [sampled] = student.explain(
        [item],
        copies=range(1, query.samples + 1),
        temperature=query.temperature,
        top_p=query.top_p,
        seed=project.config.run.seed,
    )
    answers = [each.answer for each in sampled]
    [direct] = student.probabilities([item])
    shares, place = (direct, place_of(predicted.answer, which.config.task.labels)) if direct else ((), 0)
    sure = confidence_text(project, which, shares or agreement(predicted.answer, answers), place)
    agreeing = f"{sum(each == predicted.answer for each in answers)} of {len(answers)} sampled explanations agree"
    lines = [*([steps] if steps else []), f"Answer: {shown(predicted.answer, item.choices)}"]
    return "\n".join([*lines, f"({agreeing}; {sure})"])
