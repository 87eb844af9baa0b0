"""A student whose folder was lost is trained again, and the campaign goes on without a backup."""

import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from connectors.cli import app
from connectors.handover import export_student
from connectors.retraining import retrain
from connectors.students import loaded, trained
from connectors.wiring import Project
from loop.config import StudentConfig
from loop.errors import StudentError
from loop.stages.parts import in_force, student_in_force
from loop.store import checkpoints
from tests.test_student import weights
from tests.test_training import Told
from tests.test_training_rounds import KEYS, RUN, a_project, a_round_of, closed, the_parts
from tests.tiny import tiny_model
from tests.trained import QUIET

TAUGHT = "lora_rank = 0\nlearning_rate = 0.01\nepochs = 2\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def a_student(folder: Path, model: Path, settings: str = TAUGHT) -> Project:
    project = a_project(folder, model, settings)
    closed(project, a_round_of(project, KEYS[:6]), Told())
    return project


def retrained(project: Project, *more: str) -> str:
    words = ["student", "retrain", *more, "--config", str(project.path)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_lost_student_is_trained_to_the_same_weights_whatever_came_since(model: Path, tmp_path: Path) -> None:
    project = a_student(tmp_path, model)
    folder = project.folder / "checkpoints" / "round-1"
    before = weights(folder)
    closed(project, a_round_of(project, KEYS[6:], rejected=["i2"]), Told())
    now = a_project(tmp_path, model, "lora_rank = 8\nepochs = 1\n")  # the settings of the file, since
    shutil.rmtree(folder)
    assert "trained round-1 again on the same examples" in retrained(now, "--round", "1")
    after = weights(folder)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_campaign_that_cannot_load_its_student_names_the_command_and_then_goes_on(
    model: Path, tmp_path: Path
) -> None:
    project = a_student(tmp_path, model)
    opened = a_round_of(project, KEYS[6:])
    [weight] = (project.folder / "checkpoints" / "round-1").glob("*.safetensors")
    weight.write_bytes(weight.read_bytes()[:100])
    cure = r"train it again from what was decided then: `preceptor student retrain --round 1`"
    with pytest.raises(StudentError, match=cure):
        student_in_force(opened, project.store, the_parts(project, Told()))
    with pytest.raises(StudentError, match=cure):
        loaded(project, trained(project))
    retrained(project)
    assert student_in_force(opened, project.store, the_parts(project, Told())) is not None
    closed(project, opened, Told())


def test_a_student_of_a_warm_start_begins_at_the_base_model_and_its_card_says_so(model: Path, tmp_path: Path) -> None:
    project = a_student(tmp_path, model)
    warm = a_project(tmp_path, model, f'{TAUGHT}start = "warm"\n')
    closed(warm, a_round_of(warm, KEYS[6:]), Told())
    shutil.rmtree(warm.folder / "checkpoints" / "round-2")
    expected = "on other examples than then (a warm start, other domains lag, or some were taken back since)"
    assert expected in retrained(warm)
    student = in_force(warm.store, RUN)
    assert student is not None
    assert (student.card["examples"], student.card["started_from"]) == (10, None)
    again = Project(project.path, QUIET)
    export_student(again, trained(again), tmp_path / "home", "transformers")
    assert "Its weights were lost and trained again on 20" in (tmp_path / "home" / "README.md").read_text()


def test_a_student_whose_examples_were_not_noted_is_refused(model: Path, tmp_path: Path) -> None:
    project = a_student(tmp_path, model)
    checkpoints.keep_again(project.store, trained(project).checkpoint, {"epochs": 2})
    shutil.rmtree(project.folder / "checkpoints" / "round-1")
    done = CliRunner().invoke(app, ["student", "retrain", "--config", str(project.path)])
    assert done.exit_code == 1
    assert "round-1 is of a version that did not note its examples; copy it from a backup" in str(done.exception)


def test_a_student_that_can_be_loaded_is_left_alone(model: Path, tmp_path: Path) -> None:
    project = a_student(tmp_path, model)
    done = CliRunner().invoke(app, ["student", "retrain", "--config", str(project.path)])
    assert done.exit_code == 1
    assert "round-1 is there and can be loaded; to train it again, move its folder away first" in str(done.exception)
    done = CliRunner().invoke(app, ["student", "retrain", "--round", "7", "--config", str(project.path)])
    assert done.exit_code == 1
    assert "round 7 trained no student; there is one of round 1" in str(done.exception)


def test_adapters_stay_where_only_the_model_below_them_is_missing(model: Path, tmp_path: Path) -> None:
    project = a_student(tmp_path, model, "lora_rank = 8\nepochs = 1\n")
    folder = project.folder / "checkpoints" / "round-1"
    before = weights(folder)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    monkeypatched = CliRunner(env={"HF_HUB_OFFLINE": "1"})
    done = monkeypatched.invoke(app, ["student", "retrain", "--config", str(project.path)])
    assert done.exit_code == 1
    assert "cannot be loaded" in str(done.exception)
    after = weights(folder)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_left_of_a_student_stays_where_the_training_fails(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = a_student(tmp_path, model)
    folder = project.folder / "checkpoints" / "round-1"
    (folder / "model.safetensors").write_bytes(b"damaged")

    def fails(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("loop.student.trainer.Students.train", fails)
        with pytest.raises(KeyboardInterrupt):
            retrain(project)
    assert (folder / "model.safetensors").read_bytes() == b"damaged"
    assert (folder / "card.json").exists()
    retrain(project)
    assert loaded(project, trained(project)) is not None
    assert [each.name for each in folder.parent.iterdir()] == ["round-1"]


def test_a_student_of_a_server_is_trained_again_here(model: Path, tmp_path: Path) -> None:
    project = a_student(tmp_path, model)
    student = in_force(project.store, RUN)
    assert student is not None
    served = {"base_url": "http://127.0.0.1:9/v1", "model": "base"}
    config = StudentConfig.model_validate({"lora_rank": 8, "engine": "openai", "served": served})
    then = student.card["student"] | {"engine": "openai", "served": config.model_dump(mode="json")["served"]}
    checkpoints.keep_again(project.store, student, {**student.card, "student": then})
    shutil.rmtree(project.folder / "checkpoints" / "round-1")
    assert "trained round-1 again" in retrain(project)
