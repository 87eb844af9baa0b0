"""Trains a student again whose folder was lost or damaged, so that the campaign can go on without a backup."""

from pathlib import Path

from connectors.students import listed
from connectors.wiring import Project
from loop.errors import PreceptorError, StudentError
from loop.ports import Trainer
from loop.records import Checkpoint, Round
from loop.stages import retrain as stage
from loop.stages.parts import trained_by
from loop.store import reading, rounds


def retrain(project: Project, number: int | None = None) -> str:
    """Train a lost student again, by default the newest one; what came of it.

    Raises:
        PreceptorError: no student was trained then, or its weights are there and can be loaded.
        StudentError: the model that it was trained from cannot be loaded.
        AlreadyWorking: `preceptor run` is at work.
        NothingToLearn: nothing is left of its examples.
    """
    store, run = project.store, project.config.run.name
    with project.held():
        lost, made_in = _lost(project, number)
        folder = project.folder / "checkpoints" / lost.folder
        then = trained_by(lost, project.config_of(made_in))
        # A student is trained on torch, whatever runs it.
        here = {"engine": "torch", "served": None, "trust_remote_code": project.config.student.trust_remote_code}
        config = then.model_copy(update={"student": then.student.model_copy(update=here)})
        trainer = project.trainer(config)
        trainer.student(None)  # where its base model is what cannot be loaded, the folder may be whole
        if _loads(trainer, folder):
            raise PreceptorError(
                f"run {run}: {lost.folder} is there and can be loaded; to train it again, move its folder away first"
            )
        before = lost.card.get("examples_sha256")
        kept = stage.retrain(lost, made_in, store, trainer, folder, config, progress=project.progress)
    same = kept.card.get("examples_sha256") == before
    others = "other examples than then (a warm start, other domains lag, or some were taken back since)"
    what = "the same examples" if same else others
    return (
        f"trained {kept.folder} again on {what}, with its seed and settings. On another machine, or with other "
        "versions or threads, its weights differ a little; the figures of its evaluation are those of the lost ones"
    )


def _lost(project: Project, number: int | None) -> tuple[Checkpoint, Round]:
    """The student that a round trained, or the newest one, and its round."""
    store, run = project.store, project.config.run.name
    rounds_by_id = {each.id: each for each in rounds.all_rounds(store, run)}
    made = {
        rounds_by_id[each.round_id].number: each
        for each in reading.checkpoints_of(store, run).values()
        if each.round_id in rounds_by_id
    }
    if not made:
        raise PreceptorError(f"run {run}: no student was trained yet; `preceptor run` trains one")
    if number is not None and number not in made:
        raise PreceptorError(f"run {run}: round {number} trained no student; there is one of {listed(made)}")
    lost = made[max(made) if number is None else number]
    return lost, rounds_by_id[lost.round_id]


def _loads(trainer: Trainer, folder: Path) -> bool:
    try:
        trainer.student(folder)
    except StudentError:
        return False
    return True
