"""Settings that a short trial chooses: what is tried, what it is measured on, and that a kill costs next to nothing."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loop.answer import Answer, AnswerKind
from loop.ports import Example, Silent
from loop.student import state
from loop.student.validation import FEWEST, validating
from tests.test_student import a_trainer, model, sums, weights  # noqa: F401 - a fixture
from tests.test_training import Told, many

WRONG = Answer(kind=AnswerKind.NUMBER, value="0")
TRIED = {"gold_weight": "validated", "validation_share": 0.5, "epochs": 8, "patience": 9, "batch_size": 8}


def contradicted() -> list[Example]:
    """Of each sum four examples: two that people decided, and two that nobody looked at and that are wrong."""
    return [
        replace(each, gold=True) if number % 20 < 10 else replace(each, answer=WRONG, steps=("0 + 0 = 0 .",))
        for number, each in enumerate(many(sums(10), 120))
    ]


def test_gold_weighs_more_where_what_nobody_looked_at_contradicts_it(model: Path, tmp_path: Path) -> None:  # noqa: F811
    told, examples = Told(), contradicted()
    card = a_trainer(model, **TRIED).train(examples, seed=1, folder=tmp_path / "one", progress=told).card
    losses = card["trials"]["gold_weight"]
    assert losses["4.0"] < losses["2.0"] < losses["1.0"]
    assert card["settings"]["gold_weight"] == 4.0
    measured = sum(examples[number].gold for number in validating(examples, 0.5))
    assert measured >= FEWEST
    assert told.lines[-1].startswith(f"  gold_weight = 4.0 has the least loss on {measured} validating gold rationales")
    fixed = {**TRIED, "gold_weight": 4.0}
    a_trainer(model, **fixed).train(examples, seed=1, folder=tmp_path / "fixed", progress=Silent())
    one, other = weights(tmp_path / "one"), weights(tmp_path / "fixed")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_nothing_is_tried_where_too_few_validate_that_people_decided(model: Path, tmp_path: Path) -> None:  # noqa: F811
    told = Told()
    examples = [replace(each, gold=number < 30) for number, each in enumerate(contradicted())]
    card = (
        a_trainer(model, **{**TRIED, "epochs": 1}).train(examples, seed=1, folder=tmp_path / "one", progress=told).card
    )
    assert (card["trials"], card["settings"]["gold_weight"]) == ({}, 1.0)
    assert told.lines == [
        f"  gold_weight = 1.0: fewer than {FEWEST} rationales validate that people decided, so nothing is tried"
    ]


def test_the_form_of_the_targets_is_chosen_before_the_weight(model: Path, tmp_path: Path) -> None:  # noqa: F811
    trainer = a_trainer(model, **{**TRIED, "epochs": 4}, targets="validated")
    card = trainer.train(contradicted(), seed=1, folder=tmp_path / "one", progress=Silent()).card
    assert list(card["trials"]) == ["targets", "gold_weight"]
    losses = card["trials"]["targets"]
    assert card["settings"]["targets"] == min(losses, key=losses.__getitem__)
    assert trainer.student(tmp_path / "one").predict([sums(1)[0].item])


def test_trials_teach_nothing_of_what_validates(model: Path, tmp_path: Path) -> None:  # noqa: F811
    """Were it learned, a contradicted silver row that validates would change the losses."""
    found = []
    for name, steps in (("one", ("0 + 0 = 0 .",)), ("other", ("1 + 1 = 2 .",))):
        examples = contradicted()
        held = [number for number in validating(examples, 0.5) if not examples[number].gold]
        some = [replace(each, steps=steps) if number in held else each for number, each in enumerate(examples)]
        trainer = a_trainer(model, **{**TRIED, "epochs": 1})
        found.append(trainer.train(some, seed=1, folder=tmp_path / name, progress=Silent()).card["trials"])
    assert found[0] == found[1]


class Stops(Told):
    """Progress that ends the training behind its so-manieth step in all."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def bar(self, title: str, total: int) -> AbstractContextManager["Stops"]:
        return nullcontext(self)

    def advance(self, steps: int = 1) -> None:
        self.left -= steps
        if self.left <= 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [12, 26])
def test_a_killed_trial_goes_on_and_leaves_nothing_behind(
    model: Path,  # noqa: F811
    after: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "EVERY", 0.0)
    monkeypatch.setattr(state, "SHARE", 1e9)
    trainer, examples = a_trainer(model, **{**TRIED, "epochs": 4}), contradicted()
    with pytest.raises(KeyboardInterrupt):
        trainer.train(examples, seed=1, folder=tmp_path / "one", progress=Stops(after))
    told = Told()
    card = trainer.train(examples, seed=1, folder=tmp_path / "one", progress=told).card
    assert any("goes on at step" in line for line in told.lines)
    whole = trainer.train(examples, seed=1, folder=tmp_path / "whole", progress=Silent()).card
    assert {**card, "seconds": 0} == {**whole, "seconds": 0}
    one, other = weights(tmp_path / "one"), weights(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert names(tmp_path) == ["one", "whole"]


def names(folder: Path) -> Sequence[str]:
    return sorted(each.name for each in folder.iterdir())
