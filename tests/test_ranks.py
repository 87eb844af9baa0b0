"""Several processes train the student that one process trains; where one is killed, they end where they would have."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from loop.config import StudentConfig
from loop.errors import Diverged, StudentError
from loop.student import launching
from tests.forked import FORK
from tests.killed_rank import KILLED_AT
from tests.test_encoder import model as encoder  # noqa: F401 - a fixture
from tests.test_families import a_folder
from tests.test_served_student import made
from tests.test_student import model, sums, weights  # noqa: F401 - a fixture
from tests.test_training import Told, many
from tests.two_ranks import FAMILIES, GONE_ON, KINDS, take_part, trained


def without_dropout(source: Path, folder: Path) -> Path:
    """The same model; what is dropped is drawn by each process for its own rows, so that no two trainings are alike."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    changed = config | {name: 0.0 for name in config if "dropout" in name and name != "classifier_dropout"}
    (folder / "config.json").write_text(json.dumps(changed))
    return folder


@pytest.fixture(scope="module")
def models(model: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:  # noqa: F811
    folder = tmp_path_factory.mktemp("ranks")
    still = without_dropout(encoder, folder / "encoder")
    return {kind: still if kind in {"encoder", "tagger"} else model for kind in KINDS}


@pytest.fixture(scope="module")
def by_two(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of students that two processes trained."""
    return trained_by_two(models, tmp_path_factory.mktemp("two"))


def trained_by_two(models: Mapping[str, Path], folder: Path) -> Path:
    processes = [FORK.Process(target=take_part, args=(models, folder, rank)) for rank in range(2)]
    for each in processes:
        each.start()
    for each in processes:
        each.join(600)
    assert [each.exitcode for each in processes] == [0, 0]
    return folder


@pytest.fixture(scope="module")
def by_one(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The student of a kind that one process trains."""
    folder = tmp_path_factory.mktemp("one")

    def of(kind: str) -> Path:
        if not (folder / kind).exists():
            trained(kind, models[kind], folder / kind)
        return folder / kind

    return of


@pytest.mark.parametrize("slices", ["", "-in-slices"], ids=["each whole", "in slices"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_what_one_learns(
    kind: str, slices: str, by_one: Callable[[str], Path], by_two: Path
) -> None:
    """Texts of unlike lengths, batches of an odd size: a mean of the processes' means would be another loss."""
    alone, shared = by_one(kind), by_two / f"{kind}{slices}"
    one, two = (json.loads((folder / "card.json").read_text()) for folder in (alone, shared))
    for curve in ("loss_per_epoch", "validation_loss_per_epoch"):
        assert len(two[curve]) == 2
        assert two[curve] == pytest.approx(one[curve], abs=2e-4)
    assert two["epoch"] == one["epoch"]
    assert furthest(alone, shared) < 1e-5
    assert norms(shared) == pytest.approx(norms(alone), rel=1e-3)  # Adam would not tell a sum from a mean


def norms(folder: Path) -> list[float]:
    """Of the gradients of each step."""
    found: list[float] = json.loads(folder.with_name(f"{folder.name}.norms.json").read_text())
    return found


def furthest(one: Path, other: Path) -> float:
    """How far two students' weights are apart, at most."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def test_a_training_in_slices_that_was_cut_off_ends_with_the_same_bits(by_two: Path) -> None:
    assert furthest(by_two / f"{GONE_ON}-in-slices", by_two / f"{GONE_ON}-gone-on") == 0


@pytest.mark.slow
def test_other_models_learn_in_slices_what_one_process_learns(tmp_path: Path) -> None:
    """Tied embeddings, an encoder with a decoder, a bias that all blocks of a stack share."""
    models = {name: a_folder(name, tmp_path / name) for name in FAMILIES}
    by_two = trained_by_two(models, tmp_path)
    for name, model in models.items():  # noqa: F402 - the fixture
        trained(name, model, tmp_path / f"{name}-alone")
        alone, shared = tmp_path / f"{name}-alone", by_two / f"{name}-in-slices"
        assert norms(shared) == pytest.approx(norms(alone), rel=1e-4)
        assert furthest(alone, shared) < 2e-4  # no gradient but roundings has BART's key bias, and Adam magnifies it


@pytest.mark.parametrize("name", [*(f"{kind}-in-slices" for kind in KINDS), f"{GONE_ON}-gone-on"])
def test_a_process_of_two_holds_half_of_weights_and_optimiser(name: str, by_two: Path) -> None:
    for rank in range(2):
        held = json.loads((by_two / f"{name}.{rank}.json").read_text())
        for mine, all_of_it in held.values():
            assert all_of_it > 0
            assert mine == pytest.approx(all_of_it / 2, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_that_was_learned_in_slices_has_the_files_of_any_other(
    kind: str, by_one: Callable[[str], Path], by_two: Path
) -> None:
    alone, shared = by_one(kind), by_two / f"{kind}-in-slices"
    assert {file.name for file in shared.iterdir()} == {file.name for file in alone.iterdir()}
    if kind != "adapters":  # whose layers are a set
        assert (shared / "config.json").read_text() == (alone / "config.json").read_text()


def test_a_student_is_sliced_for_several_processes_alone() -> None:
    with pytest.raises(ValueError, match=r"sharded = true .* set processes"):
        StudentConfig.model_validate({"sharded": True})


@pytest.mark.parametrize(
    "wrong", [{"white_box": {"teacher": "t"}}, {"dtype": "nf4"}], ids=["a local teacher", "four bits"]
)
def test_what_one_process_must_learn_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="set processes = 1"):
        StudentConfig.model_validate({"processes": 2, **wrong})


SLOWLY = {"dtype": "float32", "learning_rate": 1e-3, "epochs": 3, "batch_size": 3}


@pytest.mark.slow
@pytest.mark.parametrize("slices", [False, True], ids=["each whole", "in slices"])
def test_a_killed_process_costs_what_was_not_on_the_disk_and_nothing_else(
    slices: bool,
    model: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "model").symlink_to(model)
    examples = many(sums(10), 40)
    for name, module in (("whole", launching.MODULE), ("killed", "tests.killed_rank")):
        told = Told()
        monkeypatch.setattr(launching, "MODULE", module)
        trainer = made(tmp_path, **SLOWLY, processes=2, sharded=slices)
        trainer.train(examples, seed=1, folder=tmp_path / name, progress=told)
        assert not list(tmp_path.glob(f".{name}*"))
    assert told.lines == [
        "  a process of the training ended: all start again (1 of at most 3 times)",
        f"  the training that was cut off goes on at step {KILLED_AT}",
    ]
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


@pytest.mark.slow
def test_an_error_of_the_processes_is_raised_as_one_of_this_process(model: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "model").symlink_to(model)
    with pytest.raises(Diverged, match=r"batch of items .* lower student\.learning_rate"):
        made(tmp_path, **{**SLOWLY, "learning_rate": 1e30}, lora_rank=0, processes=2).train(
            many(sums(10), 40), seed=1, folder=tmp_path / "one", progress=Told()
        )
    assert not (tmp_path / "one").exists()


def test_processes_that_end_again_and_again_are_said_with_their_log(
    model: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "model").symlink_to(model)
    monkeypatch.setattr(launching, "command", lambda *_: [sys.executable, "-c", "import sys; sys.exit('no room')"])
    with pytest.raises(StudentError, match=r"ended 4 times .* \S+\.one\.job/log\. With student\.processes = 1"):
        made(tmp_path, processes=2).train(sums(4), seed=1, folder=tmp_path / "one", progress=Told())
    assert [file.name for file in (tmp_path / ".one.job").iterdir()] == ["log"]  # and no text of an item
    assert "no room" in (tmp_path / ".one.job" / "log").read_text()
