"""How students are trained: what validates, which epoch is kept, what a kill costs, and what bad input does."""

import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from connectors.progress import RichProgress
from loop.answer import Answer, AnswerKind
from loop.config import StudentConfig
from loop.errors import Diverged, StudentError
from loop.ports import Example, Progress, Silent
from loop.records import Item, Split
from loop.student import fitting, state
from loop.student.fitting import Lesson
from loop.student.prompts import rationale_prompt
from loop.student.state import TrainingState
from loop.student.trainer import DecoderTrainer, EncoderTrainer
from loop.student.validation import FEWEST, validating
from tests import test_encoder
from tests.test_encoder import model as encoder  # noqa: F401 - a fixture
from tests.test_student import NUMBERS, model, sums, weights  # noqa: F401 - a fixture

MakesTrainers = Callable[..., DecoderTrainer | EncoderTrainer]
QUIET = RichProgress(Console(quiet=True))
SMALL = {"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, "max_new_tokens": 16}


def a_decoder_trainer(folder: Path, **changes: object) -> DecoderTrainer:
    settings = {"model": str(folder), "lora_rank": 0, **SMALL, **changes}
    return DecoderTrainer(StudentConfig.model_validate(settings), NUMBERS, folder.parent / "cache")


def an_encoder_trainer(folder: Path, **changes: object) -> EncoderTrainer:
    settings = {"kind": "encoder", "model": str(folder), **SMALL, **changes}
    return EncoderTrainer(StudentConfig.model_validate(settings), test_encoder.TASK, folder.parent / "cache")


TRAINERS = {"decoder": a_decoder_trainer, "encoder": an_encoder_trainer}
VALIDATING = {"validation_share": 0.5, "epochs": 6, "patience": 6}


class Told(Silent):
    """Progress that remembers what it said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Stops(Told):
    """Progress that ends the training behind so many steps, as a kill does."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def bar(self, title: str, total: int) -> AbstractContextManager["Stops"]:
        return nullcontext(self)

    def advance(self, steps: int = 1) -> None:
        self.left -= steps
        if self.left <= 0:
            raise KeyboardInterrupt


def examples_for(kind: str) -> list[Example]:
    """40 of them."""
    return many(test_encoder.examples() if kind == "encoder" else sums(10), 40)


@pytest.fixture(params=TRAINERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def trainer(kind: str, request: pytest.FixtureRequest) -> MakesTrainers:
    folder = request.getfixturevalue("encoder" if kind == "encoder" else "model")
    return lambda **changes: TRAINERS[kind](folder, **changes)


@pytest.fixture
def examples(kind: str) -> list[Example]:
    return examples_for(kind)


def many(some: Sequence[Example], count: int) -> list[Example]:
    """So many examples with keys of their own, the given ones again and again."""
    return [
        replace(each, item=each.item.model_copy(update={"key": f"k{number}"}))
        for number, each in ((number, some[number % len(some)]) for number in range(count))
    ]


def labelled(labels: Sequence[str]) -> list[Example]:
    return [
        Example(
            Item(key=f"k{number}", question="?", split=Split.POOL, text_hash=""),
            (),
            Answer(kind=AnswerKind.LABEL, value=label),
        )
        for number, label in enumerate(labels)
    ]


def test_items_validate_by_their_keys_where_enough_were_decided() -> None:
    some = labelled(["a"] * 1000)
    chosen = {some[number].item.key for number in validating(some, 0.1)}
    assert 70 <= len(chosen) <= 130
    fewer = some[::-1][:500]
    assert {fewer[number].item.key for number in validating(fewer, 0.1)} == chosen & {each.item.key for each in fewer}


def test_there_is_no_validation_part_where_it_would_be_small() -> None:
    some = labelled(["a"] * 10 * FEWEST)
    assert validating(some, 0.1)
    assert validating(some[1:], 0.1) == []
    assert validating(some, 0.0) == []


def test_of_every_label_an_example_is_left_to_learn_from() -> None:
    some = labelled([f"label {number % 150}" for number in range(300)])
    held = validating(some, 0.5)
    learned = Counter(each.answer.value for number, each in enumerate(some) if number not in held)
    assert len(learned) == 150
    assert len(held) > 80
    alone = labelled([f"label {number}" for number in range(300)])
    assert validating(alone, 0.5) == []


def test_training_ends_behind_the_best_epoch_and_the_card_says_why(
    trainer: MakesTrainers, examples: list[Example], tmp_path: Path
) -> None:
    held, twisted = validating(examples, 0.5), contradicted(examples)
    settings = {"validation_share": 0.5, "patience": 2, "learning_rate": 1e-2}
    card = trainer(**settings, epochs=20).train(twisted, seed=1, folder=tmp_path / "one", progress=QUIET).card
    losses = card["validation_loss_per_epoch"]
    assert card["epoch"] == 1 + losses.index(min(losses))
    assert len(losses) == len(card["loss_per_epoch"]) == card["epoch"] + 2 < 20
    assert card["stopped"] == "no better for 2 epochs"
    assert card["validation_keys"] == [examples[number].item.key for number in held]


def test_the_weights_that_are_kept_are_those_at_the_end_of_the_best_epoch(
    trainer: MakesTrainers, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same training, killed behind the best epoch, has kept the weights that the whole one ends with."""
    settings = {"validation_share": 0.5, "patience": 2, "learning_rate": 1e-2, "epochs": 20}
    card = trainer(**settings).train(contradicted(examples), seed=1, folder=tmp_path / "one", progress=QUIET).card
    assert 1 <= card["epoch"] < len(card["loss_per_epoch"])
    learned = len(examples) - len(card["validation_keys"])
    monkeypatch.setattr(state, "EVERY", 0.0)
    monkeypatch.setattr(state, "SHARE", 1e9)
    with pytest.raises(KeyboardInterrupt):
        trainer(**settings).train(
            contradicted(examples), seed=1, folder=tmp_path / "cut", progress=Stops(card["epoch"] * -(-learned // 8))
        )
    one, then = weights(tmp_path / "one"), load_file(tmp_path / ".cut.training")
    same = {name for name in one if f"weight/{name}" in then}
    assert len(same) > 5
    assert all(torch.equal(one[name], then[f"weight/{name}"]) for name in same)


def contradicted(examples: Sequence[Example]) -> list[Example]:
    """What validates contradicts what is learned, so the loss of the validation part rises sooner or later."""
    held, wrong = validating(examples, 0.5), {"decoder": "0", "encoder": "warm"}
    return [
        replace(each, answer=each.answer.model_copy(update={"value": wrong[kind_of(each)]})) if n in held else each
        for n, each in enumerate(examples)
    ]


def kind_of(example: Example) -> str:
    return "decoder" if example.answer.kind is AnswerKind.NUMBER else "encoder"


def test_what_validates_is_not_learned(trainer: MakesTrainers, examples: list[Example], tmp_path: Path) -> None:
    """Weights of the same epoch are the same whatever the validating examples say."""
    held = validating(examples, 0.5)
    other = [replace(each, steps=(), weight=0.5) if number in held else each for number, each in enumerate(examples)]
    for name, some in (("one", examples), ("other", other)):
        trainer(validation_share=0.5, epochs=1).train(some, seed=1, folder=tmp_path / name, progress=QUIET)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "other")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_without_a_validation_part_everything_is_learned_as_before(
    trainer: MakesTrainers, examples: list[Example], tmp_path: Path
) -> None:
    asked = trainer(validation_share=0.1).train(examples, seed=1, folder=tmp_path / "asked", progress=QUIET).card
    plain = trainer().train(examples, seed=1, folder=tmp_path / "plain", progress=QUIET).card
    assert asked["validation_keys"] == plain["validation_keys"] == []
    assert (asked["epoch"], asked["stopped"]) == (3, "all epochs are done")
    one, two = weights(tmp_path / "asked"), weights(tmp_path / "plain")
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def killed(model: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A folder of trainings that were killed in mid-epoch."""
    folder = tmp_path_factory.mktemp("killed")
    wanted = [f"{kind}={encoder if kind == 'encoder' else model}" for kind in TRAINERS]
    root = Path(__file__).parents[1]
    words = [sys.executable, "-m", "tests.killed_training", str(folder), *wanted]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(
    trainer: MakesTrainers, kind: str, examples: list[Example], killed: Path, tmp_path: Path
) -> None:
    told = Told()
    resumed = trainer(**VALIDATING).train(examples, seed=1, folder=killed / kind, progress=told).card
    assert told.lines == ["  the training that was cut off goes on at step 6"]
    assert not list(killed.glob(f".{kind}*"))
    whole = trainer(**VALIDATING).train(examples, seed=1, folder=tmp_path / kind, progress=told).card
    assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    [one], [other] = ((folder / kind).glob("*.safetensors") for folder in (killed, tmp_path))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("rank", [0, 8])
def test_what_is_kept_is_all_that_decides_how_it_goes_on(
    model: Path,  # noqa: F811
    rank: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A training that ends behind each step and is taken up by another one ends like one in a single piece."""
    monkeypatch.setattr(state, "EVERY", 0.0)
    monkeypatch.setattr(state, "SHARE", 1e9)
    examples = examples_for("decoder")[:24]

    class StopsSoon(Told):
        def bar(self, title: str, total: int) -> AbstractContextManager["StopsSoon"]:
            self.left = 2
            return nullcontext(self)

        def advance(self, steps: int = 1) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    def train(folder: Path, progress: Told) -> None:
        a_decoder_trainer(model, lora_rank=rank).train(examples, seed=1, folder=folder, progress=progress)

    for _ in range(8):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "pieces", StopsSoon())
    train(tmp_path / "pieces", Told())
    train(tmp_path / "whole", Told())
    pieces, whole = (weights(tmp_path / name) for name in ("pieces", "whole"))
    assert all(torch.equal(pieces[name], whole[name]) for name in whole)


def test_a_damaged_state_and_that_of_another_training_are_said_and_left(
    model: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "EVERY", 0.0)
    monkeypatch.setattr(TrainingState, "remove", lambda self: None)
    trainer, examples, file = a_decoder_trainer(model), examples_for("decoder"), tmp_path / ".one.training"
    trainer.train(examples, seed=1, folder=tmp_path / "one", progress=Silent())
    expected, kept = weights(tmp_path / "one"), file.read_bytes()
    for broken, said in (
        (kept[: len(kept) // 2], "damaged"),
        (kept[:5], "damaged"),
        (b"", "damaged"),
        (kept[:8] + b"no header" + kept[17:], "damaged"),
    ):
        file.write_bytes(broken)
        shutil.rmtree(tmp_path / "one")
        told = Told()
        trainer.train(examples, seed=1, folder=tmp_path / "one", progress=told)
        [line] = told.lines
        assert said in line
        assert "starts anew" in line
        assert all(torch.equal(each, expected[name]) for name, each in weights(tmp_path / "one").items())
    told = Told()
    shutil.rmtree(tmp_path / "one")
    trainer.train(examples[1:], seed=1, folder=tmp_path / "one", progress=told)
    assert told.lines == ["  what was cut off had other examples, settings, versions or threads: it starts anew"]


def test_a_state_that_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    told = Told()
    kept = TrainingState(tmp_path / "one", "a fingerprint", told.say)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        kept.write({"weight": torch.zeros(10_000)}, {"losses": []})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    [line] = told.lines
    assert "if the training is killed it starts anew" in line
    assert list(tmp_path.iterdir()) == []


def an_item(question: str, **fields: object) -> Item:
    return Item(key=f"odd {len(question)}", question=question, split=Split.POOL, text_hash="", **fields)


def test_one_example_is_enough(trainer: MakesTrainers, examples: list[Example], tmp_path: Path) -> None:
    made = trainer(validation_share=0.5, epochs=2).train(examples[:1], seed=1, folder=tmp_path / "one", progress=QUIET)
    assert (made.card["examples"], made.card["validation_keys"]) == (1, [])
    assert trainer().student(tmp_path / "one").predict([examples[0].item])


def test_a_long_question_is_cut_and_a_rationale_without_room_is_left_out(model: Path, tmp_path: Path) -> None:  # noqa: F811
    told, [plain] = Told(), sums(1)
    long = replace(plain, item=an_item("1 + " * 50 + "2 ?"))
    wordy = replace(plain, item=an_item("What is 2 + 20 ?"), steps=("1 + 1 = 2 .",) * 30)
    slow = replace(plain, item=an_item("What is 12 + 20 ?"), steps=("1 + 1 = 2 .",) * 4)
    trainer = a_decoder_trainer(model, max_prompt_tokens=32)
    card = trainer.train([plain, long, wordy, slow], seed=1, folder=tmp_path / "one", progress=told).card
    assert card["problems"] == {"cut": 1, "crowded": 1, "long": 1}
    assert card["examples"] == 3
    assert (
        f"  1 of 4 examples are longer than the student reads (student.max_prompt_tokens), and are cut: {long.item.key}"
        in told.lines
    )
    with pytest.raises(StudentError, match="nothing can be learned: 1 of 1 examples are left out: what is to be"):
        trainer.train([wordy], seed=1, folder=tmp_path / "two", progress=told)


def test_a_cut_leaves_the_frame_of_a_chat_template_whole(model: Path) -> None:  # noqa: F811
    student = a_decoder_trainer(model, max_prompt_tokens=32, chat_template=False).student(None)
    student.tokenizer.chat_template = "= = {{ messages[0]['content'] | trim }} . ."
    student.student = student.student.model_copy(update={"chat_template": True})
    frame = student.tokens("= ="), student.tokens(". .")
    ids = student.encoded(rationale_prompt(an_item("1 + " * 50 + "2 ?")))
    assert (ids[:2], ids[-2:], len(ids)) == (*frame, 32)
    assert student.tokenizer.decode(ids[2:-2]).endswith("2 ? \n Explain step by step .")


def test_a_long_context_is_cut_before_the_question(encoder: Path, tmp_path: Path) -> None:  # noqa: F811
    trainer, [plain, *_] = an_encoder_trainer(encoder), test_encoder.examples()
    asked = an_item("the sun burns", context="snow falls on the hill today and " * 20)
    text = trainer.student(None).read(asked)
    assert text.endswith(" and \nthe sun burns")
    assert len(trainer.student(None).tokenizer(text)["input_ids"]) == 64
    told = Told()
    card = trainer.train([plain, replace(plain, item=asked)], seed=1, folder=tmp_path / "one", progress=told).card
    assert card["problems"] == {"cut": 1}


def test_who_has_no_steps_teaches_the_answer_and_not_to_explain_nothing(model: Path, tmp_path: Path) -> None:  # noqa: F811
    told = Told()
    some = [replace(each, steps=()) if number % 2 else each for number, each in enumerate(sums(8))]
    trainer = a_decoder_trainer(model, epochs=80, batch_size=4, learning_rate=1e-2)
    card = trainer.train(some, seed=1, folder=tmp_path / "one", progress=told).card
    assert card["problems"] == {"silent": 4}
    assert told.lines == ["  4 of 8 examples have no steps, and teach the answer alone: i1, i3, i5, i7"]
    student = trainer.student(tmp_path / "one")
    assert all(each.explanation.steps for each in student.predict([each.item for each in some]))
    assert [each.answer for [each] in student.answers_after([each.item for each in some], [[()]] * 8)] == [
        each.answer for each in some
    ]


def test_where_only_rationales_are_learned_who_has_none_is_left_out(
    trainer: MakesTrainers, examples: list[Example], tmp_path: Path
) -> None:
    some = [replace(examples[0], steps=()), *examples[1:8]]
    card = trainer(rationale_weight=1.0).train(some, seed=1, folder=tmp_path / "one", progress=QUIET).card
    assert (card["examples"], card["problems"]) == (7, {"empty": 1})


def test_labels_that_the_task_does_not_know_and_labels_that_nobody_has_are_said(
    encoder: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    told, warm = Told(), [each for each in test_encoder.examples() if each.answer.value == "warm"]
    hot = replace(warm[0], answer=Answer(kind=AnswerKind.LABEL, value="hot"))
    trainer = an_encoder_trainer(encoder)
    card = trainer.train([hot, *warm[1:]], seed=1, folder=tmp_path / "one", progress=told).card
    assert (card["examples"], card["problems"], card["unseen_labels"]) == (5, {"unknown": 1}, ["cold"])
    assert told.lines == [
        "  1 of 6 examples have an answer that the task does not allow, and are left out: warm0",
        "  no example has the label cold: the student will never give it; add seed items that do, or take it out of "
        "task.labels",
    ]
    with pytest.raises(StudentError, match="nothing can be learned: 1 of 1 examples have an answer"):
        trainer.train([hot], seed=1, folder=tmp_path / "two", progress=told)


def test_a_loss_that_is_no_number_names_the_items_of_its_batch(
    trainer: MakesTrainers, examples: list[Example], tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match=r"the loss is (nan|inf) on the batch of items 'k\d', 'k\d'; lower"):
        trainer(learning_rate=1e30, batch_size=2).train(examples[:4], seed=1, folder=tmp_path / "one", progress=QUIET)
    assert list(tmp_path.iterdir()) == []


def a_lesson(losses: Callable[[torch.nn.Parameter, Sequence[int]], torch.Tensor]) -> Lesson:
    """Of four rows, one to a batch, by a model of two weights."""
    line = torch.nn.Linear(2, 1, bias=False)
    return Lesson(many(sums(4), 4), line, lambda batch, _: iter([losses(line.weight, batch)]), [1, 2, 3, 4])


def fitted(lesson: Lesson, folder: Path, progress: Progress | None = None, **settings: object) -> None:
    config = StudentConfig.model_validate({"epochs": 1, "batch_size": 1, "learning_rate": 0.1, **settings})
    kept = TrainingState(folder / "one", "a fingerprint", lambda _: None)
    fitting.fit(lesson, config, seed=1, progress=progress or Silent(), state=kept)


def test_a_gradient_that_is_no_number_names_its_own_batch(tmp_path: Path) -> None:
    """The loss of the third row is 0, and its gradient is no number."""
    lesson = a_lesson(lambda weight, batch: (weight * (batch[0] != 2)).square().sum().sqrt())
    with pytest.raises(Diverged, match=r"the gradient is nan on the batch of items 'k2'; lower student.learning_rate"):
        fitted(lesson, tmp_path)
    assert lesson.model.weight.isfinite().all()


def test_weights_that_the_last_step_ruins_are_not_taken(tmp_path: Path) -> None:
    steep = a_lesson(lambda weight, batch: weight.sum().exp())
    with pytest.raises(Diverged, match=r"the (weight that was learned|loss) is (nan|inf) on the batch of items 'k\d'"):
        fitted(steep, tmp_path, epochs=0.25, learning_rate=1e39)


def test_one_step_of_a_far_too_high_rate_leaves_no_student(
    trainer: MakesTrainers, examples: list[Example], tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match=r"on the batch of items 'k0'"):
        trainer(learning_rate=1e30, epochs=1).train(examples[:1], seed=1, folder=tmp_path / "one", progress=QUIET)
    assert list(tmp_path.iterdir()) == []


def test_dropout_on_a_gpu_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is here: torch's functions for one are stood in for, but not for torch's own optimiser."""
    taken: list[torch.Tensor] = []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.tensor([1, 2, 3], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", taken.append)
    monkeypatch.setattr(state, "EVERY", 0.0)
    monkeypatch.setattr(state, "SHARE", 1e9)
    lesson = a_lesson(lambda weight, batch: (weight * (1 + batch[0])).square().sum())
    with pytest.raises(KeyboardInterrupt):
        fitted(lesson, tmp_path, progress=Stops(2))
    assert taken == []
    fitted(lesson, tmp_path)
    assert [each.tolist() for each in taken] == [[1, 2, 3]]


def test_a_training_starts_anew_where_the_model_was_replaced_under_its_name(
    trainer: MakesTrainers, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "EVERY", 0.0)
    monkeypatch.setattr(state, "SHARE", 1e9)
    base = tmp_path / "base"
    shutil.copytree(trainer().config.model, base)
    for changed, said in ((False, "  the training that was cut off goes on at step 2"), (True, "it starts anew")):
        told = Told()
        with pytest.raises(KeyboardInterrupt):
            trainer(model=str(base)).train(examples, seed=1, folder=tmp_path / "one", progress=Stops(2))
        if changed:
            os.utime(base / "model.safetensors", (1, 1))
        trainer(model=str(base)).train(examples, seed=1, folder=tmp_path / "one", progress=told)
        assert told.lines[0].endswith(said)
        shutil.rmtree(tmp_path / "one")


def test_what_only_validates_and_what_is_left_out_is_told_apart_from_what_was_learned(
    model: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    wordy = replace(sums(1)[0], item=an_item("What is 2 + 20 ?"), steps=("1 + 1 = 2 .",) * 30)
    trainer = a_decoder_trainer(model, validation_share=0.5, epochs=1)
    card = trainer.train([*examples_for("decoder"), wordy], seed=1, folder=tmp_path / "one", progress=QUIET).card
    held = len(card["validation_keys"])
    assert (card["examples"], card["left_out"]) == (40, [wordy.item.key])
    said = " ".join((tmp_path / "one" / "README.md").read_text().split())
    assert f"Trained on {40 - held} decided rationales; {held} more only validated, 1 could not be learned" in said
