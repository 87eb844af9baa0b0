"""How students are trained: what validates, which epoch is kept, what a kill costs, and what bad input does."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from connectors.progress import RichProgress
from loop.answer import Answer, AnswerKind
from loop.config import StudentConfig
from loop.ports import Example
from loop.records import Item, Split
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


@pytest.fixture(params=["decoder", "encoder"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def trainer(kind: str, request: pytest.FixtureRequest) -> MakesTrainers:
    folder = request.getfixturevalue("model" if kind == "decoder" else "encoder")
    make = a_decoder_trainer if kind == "decoder" else an_encoder_trainer
    return lambda **changes: make(folder, **changes)


@pytest.fixture
def examples(kind: str) -> list[Example]:
    """40 of them."""
    return many(sums(10) if kind == "decoder" else test_encoder.examples(), 40)


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


def test_items_validate_by_their_keys_whatever_else_was_decided() -> None:
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


def test_the_weights_of_the_best_epoch_are_kept_and_the_card_says_why_it_ended(
    trainer: MakesTrainers, examples: list[Example], tmp_path: Path
) -> None:
    """What validates contradicts what is learned, so the loss of the validation part rises sooner or later."""
    held = validating(examples, 0.5)
    wrong = {"decoder": "0", "encoder": "warm"}
    twisted = [
        replace(each, answer=each.answer.model_copy(update={"value": wrong[kind_of(each)]})) if n in held else each
        for n, each in enumerate(examples)
    ]
    settings = {"validation_share": 0.5, "patience": 2, "learning_rate": 1e-2}
    card = trainer(**settings, epochs=30).train(twisted, seed=1, folder=tmp_path / "one", progress=QUIET).card
    losses = card["validation_loss_per_epoch"]
    assert card["epoch"] == 1 + losses.index(min(losses))
    assert len(losses) == len(card["loss_per_epoch"]) == card["epoch"] + 2 < 30
    assert card["stopped"] == "no better for 2 epochs"
    assert card["validation_keys"] == [examples[number].item.key for number in held]
    last = {"validation_share": 0.5, "patience": 30, "learning_rate": 1e-2, "epochs": 30}
    patient = trainer(**last).train(twisted, seed=1, folder=tmp_path / "patient", progress=QUIET).card
    assert patient["stopped"] == "all epochs are done"
    one, same = weights(tmp_path / "one"), weights(tmp_path / "patient")
    assert patient["epoch"] != card["epoch"] or all(torch.equal(one[name], same[name]) for name in one)


def kind_of(example: Example) -> str:
    return "decoder" if example.answer.kind is AnswerKind.NUMBER else "encoder"


def test_what_validates_is_not_learned(trainer: MakesTrainers, examples: list[Example], tmp_path: Path) -> None:
    """Weights are the same whatever the validating examples say, as long as the last epoch is the best."""
    held = validating(examples, 0.5)
    other = [replace(each, steps=(), weight=0.5) if number in held else each for number, each in enumerate(examples)]
    settings = {"validation_share": 0.5, "learning_rate": 1e-5, "patience": 3}
    for name, some in (("one", examples), ("other", other)):
        card = trainer(**settings).train(some, seed=1, folder=tmp_path / name, progress=QUIET).card
        assert card["epoch"] == 3
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
