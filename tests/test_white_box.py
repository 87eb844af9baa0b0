"""A causal student learns from the logits of a teacher on this disk, as reliably as it learns from texts."""

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from connectors.doctor import diagnose
from connectors.handover import export_student
from connectors.students import trained
from connectors.wiring import Project
from loop.config import load
from loop.errors import BadConfig, StudentError
from loop.ports import Silent
from loop.student import distill_step_by_step, state
from loop.student.objectives.comparing import Pair, compared, said
from loop.student.trainer import DecoderTrainer
from loop.student.white_box import OBJECTIVES, WhiteBox
from tests.test_student import a_trainer, sums, weights
from tests.test_training import Told, many
from tests.test_training_rounds import KEYS, a_project, a_round_of, candidate, closed
from tests.tiny import tiny_model, tiny_tokenizer
from tests.trained import QUIET, a_trained_project


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def teacher(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that can do sums."""
    folder = tmp_path_factory.mktemp("teacher") / "teacher"
    a_trainer(model, epochs=60).train(sums(8), seed=9, folder=folder, progress=QUIET)
    return folder


@pytest.fixture(scope="module")
def beginner(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that writes sums, most of them wrong."""
    folder = tmp_path_factory.mktemp("beginner") / "beginner"
    a_trainer(model, epochs=16).train(sums(8), seed=3, folder=folder, progress=QUIET)
    return folder


def a_box(teacher: Path | str, objective: str = "gkd", **changes: object) -> dict[str, object]:
    return {"teacher": str(teacher), "objective": objective, **changes}


def taught(
    model: Path, teacher: Path, objective: str, box: dict[str, object] | None = None, **changes: object
) -> DecoderTrainer:
    return a_trainer(model, white_box=a_box(teacher, objective, **(box or {})), **changes)


def apart(trainer: DecoderTrainer, student: Path, teacher: Path) -> float:
    """How far a student is from the teacher on the decided texts, in nats a token."""
    own, other = trainer.on_torch(student), trainer.on_torch(teacher)
    [_, (_, rows, own_weights)] = distill_step_by_step.by_rows(distill_step_by_step.tasks(own, sums(8), own.student))
    settings = trainer.config.white_box
    assert settings is not None
    pair = Pair(own.model, other.model, settings, own.pad, own.end, 16, own.tokenizer)
    with torch.no_grad():
        by_student = said(own.model, rows, own_weights, own.pad)
        return OBJECTIVES["jsd"].loss(compared(pair, by_student, rows, sampled=False)).item()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_student_comes_to_what_its_teacher_says_by_every_objective(
    model: Path,
    teacher: Path,
    beginner: Path,
    objective: str,
    tmp_path: Path,
) -> None:
    """Without any hard targets, but for the objective that cannot do without."""
    weight = 0.8 if objective == "mgsr" else 1.0
    trainer = taught(model, teacher, objective, {"weight": weight}, epochs=15, learning_rate=3e-3)
    card = trainer.train(sums(8), seed=1, folder=tmp_path / "one", progress=QUIET, start=beginner).card
    assert apart(trainer, tmp_path / "one", teacher) < 0.8 * apart(trainer, beginner, teacher)
    assert card["objective"] == json.loads((tmp_path / "one" / "card.json").read_text())["objective"] == objective
    assert card["settings"]["white_box"]["teacher"] == str(teacher)  # type: ignore[index]


def test_the_card_of_others_says_that_they_learned_texts_alone(model: Path, tmp_path: Path) -> None:
    card = a_trainer(model, epochs=1).train(sums(4), seed=1, folder=tmp_path / "one", progress=QUIET).card
    assert (card["objective"], card["settings"]["white_box"]) == ("cross-entropy", None)  # type: ignore[index]


def test_same_seed_gives_the_same_weights_and_another_seed_others(
    model: Path,
    teacher: Path,
    tmp_path: Path,
) -> None:
    trainer = taught(model, teacher, "mgsr", epochs=2)
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        trainer.train(sums(8), seed=seed, folder=tmp_path / name, progress=QUIET)
    one, same, other = (weights(tmp_path / name) for name in ("one", "same", "other"))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_adapters_of_online_kd_learn_at_their_own_rate(model: Path, teacher: Path, tmp_path: Path) -> None:
    for name, rate in (("still", 1e-9), ("quick", 1e-2)):
        trainer = taught(model, teacher, "online_kd", {"online_learning_rate": rate}, epochs=3)
        trainer.train(sums(8), seed=1, folder=tmp_path / name, progress=QUIET)
    still, quick = (weights(tmp_path / name) for name in ("still", "quick"))
    assert not all(torch.equal(still[name], quick[name]) for name in still)


class Stops(Told):
    """Ends the training behind every step."""

    def bar(self, title: str, total: int) -> AbstractContextManager["Stops"]:
        self.left = 2
        return nullcontext(self)

    def advance(self, steps: int = 1) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("objective", "rank"), [("gkd", 0), pytest.param("minillm", 8, marks=pytest.mark.slow), ("online_kd", 8)]
)
def test_a_training_in_pieces_ends_like_one_in_a_single_piece(
    model: Path,
    teacher: Path,
    objective: str,
    rank: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With what the student writes meanwhile, and the adapters on the teacher; in mid-epoch, two batches each."""
    monkeypatch.setattr(state, "EVERY", 0.0)
    monkeypatch.setattr(state, "SHARE", 1e9)
    trainer = taught(model, teacher, objective, lora_rank=rank, epochs=3)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            trainer.train(sums(8), seed=1, folder=tmp_path / "pieces", progress=Stops())
    told = Told()
    trainer.train(sums(8), seed=1, folder=tmp_path / "pieces", progress=told)
    assert told.lines == ["  the training that was cut off goes on at step 5"]
    trainer.train(sums(8), seed=1, folder=tmp_path / "whole", progress=QUIET)
    pieces, whole = (weights(tmp_path / name) for name in ("pieces", "whole"))
    assert all(torch.equal(pieces[name], whole[name]) for name in whole)
    assert not any("beside" in name for name in whole)


def test_what_validates_is_looked_at_by_its_texts_whatever_the_objective(
    model: Path,
    teacher: Path,
    tmp_path: Path,
) -> None:
    examples, settings = many(sums(10), 40), {"validation_share": 0.5, "epochs": 2, "learning_rate": 1e-12}
    plain = a_trainer(model, **settings).train(examples, seed=1, folder=tmp_path / "plain", progress=QUIET).card
    trainer = taught(model, teacher, "gkd", **settings)
    card = trainer.train(examples, seed=1, folder=tmp_path / "gkd", progress=QUIET).card
    assert card["validation_loss_per_epoch"] == plain["validation_loss_per_epoch"]
    assert card["loss_per_epoch"] != plain["loss_per_epoch"]


def test_gold_that_weighs_more_validates_as_it_does_without_a_teacher(
    model: Path, teacher: Path, tmp_path: Path
) -> None:
    """Batches of gold and silver, and some of more gold than others."""
    examples = [replace(each, gold=number % 3 == 0) for number, each in enumerate(many(sums(10), 40))]
    common = {"validation_share": 0.5, "epochs": 1, "learning_rate": 1e-12, "gold_weight": 3.0}
    plain = a_trainer(model, **common).train(examples, seed=1, folder=tmp_path / "plain", progress=QUIET).card
    card = taught(model, teacher, "jsd", **common).train(examples, seed=1, folder=tmp_path / "jsd", progress=QUIET).card
    assert card["validation_loss_per_epoch"] == pytest.approx(plain["validation_loss_per_epoch"], abs=1e-4)


@pytest.mark.parametrize(("objective", "parts"), [("jsd", [1, 1]), ("gkd", [1, 2])])
def test_a_tasks_loss_is_a_mixture_of_its_hard_targets_and_the_objective(
    model: Path,
    teacher: Path,
    objective: str,
    parts: list[int],
) -> None:
    def losses(weight: float) -> list[float]:
        trainer = taught(model, teacher, objective, {"weight": weight, "student_share": 1.0})
        base = trainer.base(None)
        tasks = distill_step_by_step.by_rows(distill_step_by_step.tasks(base, sums(4), base.student))
        settings = trainer.config.white_box
        assert settings is not None
        box = WhiteBox(base, base.model, tasks, settings, trainer.cache)
        base.model.train()
        torch.manual_seed(3)
        return [each.item() for each in box.losses([0, 2, 3])]

    soft, half = losses(1.0), losses(0.25)
    trainer = a_trainer(model)
    base = trainer.base(None)
    tasks = distill_step_by_step.tasks(base, sums(4), base.student)
    of_rows = partial(distill_step_by_step.one_by_one, of_tokens=trainer.token_losses(base))
    hard = [each.item() for each in distill_step_by_step.losses(base.model, tasks, [0, 2, 3], of_rows)]
    assert (len(soft), len(half)) == (2, sum(parts))
    assert sum(half) == pytest.approx(0.25 * sum(soft) + 0.75 * sum(hard), abs=1e-5)
    assert half[0] == pytest.approx(0.25 * soft[0] + 0.75 * hard[0], abs=1e-5)


def test_direct_answers_are_never_the_students_own(model: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setitem(
        OBJECTIVES,  # type: ignore[arg-type]
        "gkd",
        type(OBJECTIVES["gkd"])(OBJECTIVES["gkd"].loss, lambda _, rows: seen.append(rows) or rows),
    )
    trainer = taught(model, teacher, "gkd")
    base = trainer.base(None)
    tasks = distill_step_by_step.by_rows(distill_step_by_step.tasks(base, sums(4), base.student))
    assert trainer.config.white_box is not None
    box = WhiteBox(base, base.model, tasks, trainer.config.white_box, trainer.cache)
    base.model.train()
    list(box.losses([0, 2]))
    assert seen == [[tasks[1][1][0], tasks[1][1][2]]]


def test_a_target_of_two_parts_is_no_task_of_one(model: Path) -> None:
    trainer = a_trainer(model, targets="rationale_then_answer")
    mixed = distill_step_by_step.tasks(trainer.base(None), sums(2), trainer.config)
    with pytest.raises(ValueError, match="too many values"):
        distill_step_by_step.by_rows(mixed)


# --- what is refused ------------------------------------------------------------------------------------------------


def refused(model: Path, teacher: Path | str, **changes: object) -> str:
    with pytest.raises(StudentError) as caught:
        a_trainer(model, white_box=a_box(teacher), **changes).train(
            sums(2), seed=1, folder=model.parent / "none", progress=Silent()
        )
    return str(caught.value)


def another(folder: Path, teacher: Path, *more: str, **changes: str) -> Path:
    """The same teacher with another tokenizer."""
    folder.mkdir()
    for file in teacher.iterdir():
        if "token" not in file.name:
            (folder / file.name).symlink_to(file)
    tiny_tokenizer(*more, **changes).save_pretrained(folder)
    return folder


def test_a_teacher_that_is_not_on_this_disk_is_refused(model: Path, tmp_path: Path) -> None:
    for name in (tmp_path / "nowhere", "nobody/has-downloaded-this"):
        text = refused(model, name)
        assert text.startswith(f"student.white_box.teacher = '{name}': cannot be loaded")
        assert "on this disk already: a directory (relative to the config file)" in text
    assert "cannot be loaded (no such directory)" in refused(model, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "cannot be loaded" in refused(model, tmp_path / "empty")


def test_a_teacher_of_other_tokens_is_refused(model: Path, teacher: Path, tmp_path: Path) -> None:
    text = refused(model, another(tmp_path / "other", teacher, "pears"))
    assert "has other tokens (59, 1 of either differ) than" in text
    assert "take both of one family" in text
    text = refused(model, another(tmp_path / "ends", teacher, eos_token="?"))
    assert "ends a text with '?'," in text
    assert "set eos_token in the teacher's tokenizer_config.json" in text


def reading(folder: Path, teacher: Path, positions: int) -> Path:
    """The same teacher with so many positions."""
    folder.mkdir()
    for file in teacher.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": positions}))
    return folder


def test_a_teacher_that_reads_less_than_the_longest_text_is_refused(model: Path, teacher: Path, tmp_path: Path) -> None:
    short = reading(tmp_path / "short", teacher, 64)
    trainer = taught(model, short, "jsd", epochs=1)
    trainer.train(sums(2), seed=1, folder=tmp_path / "one", progress=QUIET)
    wide = [each.item.model_copy(update={"question": f"{'1 + ' * 30}{each.item.question}"}) for each in sums(2)]
    long = [replace(each, item=item) for each, item in zip(sums(2), wide, strict=True)]
    base = trainer.base(None)
    [_, task] = distill_step_by_step.tasks(base, long, trainer.config)
    context, target = max(task.rows, key=lambda row: len(row[0] + row[1]))
    with pytest.raises(StudentError) as caught:
        trainer.train(long, seed=1, folder=tmp_path / "two", progress=QUIET)
    assert f"reads 64 tokens, the longest question and rationale have {len(context + target)}; take" in str(
        caught.value
    )
    assert f"set student.max_prompt_tokens to {64 - len(target)}" in str(caught.value)
    wordy = [replace(each, steps=each.steps * 8) for each in sums(2)]
    with pytest.raises(StudentError, match=r"take a teacher that reads as much$"):  # no setting leaves room
        trainer.train(wordy, seed=1, folder=tmp_path / "three", progress=QUIET)


def test_a_teacher_that_reads_less_than_what_the_student_may_write_is_refused(
    model: Path, teacher: Path, tmp_path: Path
) -> None:
    short = reading(tmp_path / "short", teacher, 30)
    taught(model, short, "jsd", epochs=1).train(sums(2), seed=1, folder=tmp_path / "one", progress=QUIET)
    assert "reads 30 tokens, the longest question and rationale have" in refused(model, short)


@pytest.mark.parametrize(
    ("student", "told"),
    [
        ('kind = "seq2seq"', r'student: white_box is for kind = "causal", not \'seq2seq\'.* take a causal student'),
        ('kind = "encoder"', r'student: white_box is for kind = "causal", not \'encoder\''),
        (
            '[student.white_box]\nobjective = "mgsr"\nweight = 1.0',
            r"student\.white_box: objective = \"mgsr\" .* set weight below 1",
        ),
        ("rationale_weight = 0.0", r"student: white_box\.objective = 'gkd' .* set rationale_weight above 0"),
    ],
)
def test_a_student_that_cannot_learn_so_is_refused_with_the_config(tmp_path: Path, student: str, told: str) -> None:
    file = tmp_path / "config.toml"
    table = "" if "white_box" in student else "[student.white_box]\n"
    file.write_text(f'[student]\n{student}\n{table}teacher = "t"\n')
    with pytest.raises(BadConfig, match=told):
        load(file)


def test_a_misspelt_key_and_a_missing_teacher_are_named(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[student.white_box]\nobjectve = "jsd"\n')
    with pytest.raises(BadConfig) as caught:
        load(file)
    assert "student.white_box.teacher: Field required" in str(caught.value)
    assert "student.white_box.objectve: unknown key; did you mean `objective`?" in str(caught.value)


# --- in a campaign --------------------------------------------------------------------------------------------------

TABLE = 'lora_rank = 0\nepochs = 2\n[student.white_box]\nteacher = "teacher"\nobjective = "mgsr"\n'


def test_a_round_trains_by_the_table(model: Path, teacher: Path, tmp_path: Path) -> None:
    project = a_project(tmp_path, model, TABLE)
    (tmp_path / "teacher").symlink_to(teacher)
    project.examine_white_box()
    done = closed(project, a_round_of(project, KEYS[:6]), Told())
    assert candidate(project, done).card["objective"] == "mgsr"
    [student] = [each for each in diagnose(project.path, lambda: project) if each.part == "student"]
    learns = "model loads; it learns from the logits of teacher (mgsr)"
    assert (student.fine, student.text) == (True, f"{learns}; so does round-1, the student in force")


def test_a_missing_teacher_is_said_before_anything_is_spent(model: Path, tmp_path: Path) -> None:
    project = a_project(tmp_path, model, TABLE)
    with (
        pytest.raises(StudentError, match=r"student\.white_box\.teacher = 'teacher': cannot be loaded"),
        project.parts(),
    ):
        raise AssertionError
    [student] = [each for each in diagnose(project.path, lambda: project) if each.part == "student"]
    assert not student.fine


def test_who_takes_the_student_home_reads_who_taught_it(teacher: Path, tmp_path: Path) -> None:
    tiny_model(tmp_path / "model")
    (tmp_path / "teacher").symlink_to(teacher)
    project: Project = a_trained_project(tmp_path, student=TABLE.replace("mgsr", "jsd"))
    export_student(project, trained(project), tmp_path / "home", "transformers")
    said_of_it = (tmp_path / "home" / "README.md").read_text()
    assert "- learned from the logits of teacher too (`jsd`); the terms of its maker hold" in said_of_it
