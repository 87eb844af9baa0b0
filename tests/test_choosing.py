"""Settings that a short trial chooses: what is tried, what it is measured on, and that a kill costs next to nothing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loop.answer import Answer, AnswerKind
from loop.config import StudentConfig
from loop.errors import Diverged
from loop.ports import Example, Silent
from loop.student import checkpoint, choosing, state
from loop.student.validation import FEWEST, validating
from tests.test_student import a_trainer, model, sums, weights  # noqa: F401 - a fixture
from tests.test_training import Stops, Told, many

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


def test_what_was_chosen_before_stays_where_nothing_can_be_tried(model: Path, tmp_path: Path) -> None:  # noqa: F811
    fixed = {**TRIED, "epochs": 1, "gold_weight": 4.0, "targets": "rationale_then_answer"}
    a_trainer(model, **fixed).train(sums(8), seed=1, folder=tmp_path / "before", progress=Silent())
    trainer = a_trainer(model, **{**TRIED, "epochs": 1}, targets="validated")
    told, before = Told(), tmp_path / "before"
    found = trainer.train(sums(8), seed=1, folder=tmp_path / "after", progress=told, start=before).card["settings"]
    assert (found["gold_weight"], found["targets"]) == (4.0, "rationale_then_answer")
    assert told.lines[1].startswith("  gold_weight = 4.0: fewer than")
    anew = trainer.train(sums(8), seed=1, folder=tmp_path / "anew", progress=Silent()).card["settings"]
    assert (anew["gold_weight"], anew["targets"]) == (1.0, "two_tasks")


def test_gold_that_cannot_be_learned_is_not_counted_for_a_trial(model: Path, tmp_path: Path) -> None:  # noqa: F811
    """All of it is without steps, and the one target needs some."""
    examples = [replace(each, steps=()) if each.gold else each for each in contradicted()]
    trainer = a_trainer(model, **{**TRIED, "epochs": 1}, targets="rationale_then_answer")
    card = trainer.train(examples, seed=1, folder=tmp_path / "one", progress=Silent()).card
    assert (card["trials"], card["settings"]["gold_weight"]) == ({}, 1.0)


def test_trials_are_measured_without_a_teacher(
    model: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded, load = [], checkpoint.load_teacher
    monkeypatch.setattr(checkpoint, "load_teacher", lambda *of: loaded.append(of) or load(*of))
    box = {"teacher": str(model), "objective": "jsd"}
    trainer = a_trainer(model, **{**TRIED, "epochs": 1, "white_box": box})
    card = trainer.train(contradicted(), seed=1, folder=tmp_path / "one", progress=Silent()).card
    assert list(card["trials"]["gold_weight"]) == ["1.0", "2.0", "4.0"]
    assert len(loaded) == 3 + 1


def test_a_trial_that_diverges_is_not_chosen_and_the_others_go_on(model: Path) -> None:  # noqa: F811
    def loss_of(name: str, *_: StudentConfig) -> float:
        if name == "gold_weight-1.0":
            raise Diverged("the loss is nan")
        return {"gold_weight-2.0": 2.0, "gold_weight-4.0": 3.0}[name]

    told = Told()
    config, found = choosing.chosen(a_trainer(model, **TRIED).config, {}, FEWEST, loss_of, told.say)
    assert config.gold_weight == 2.0
    assert found == {"gold_weight": {"1.0": None, "2.0": 2.0, "4.0": 3.0}}
    assert told.lines[0].endswith("(1.0: no number, 2.0: 2.0, 4.0: 3.0)")


def test_a_killed_trial_leaves_nothing_behind_where_nothing_is_tried_any_more(
    model: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "EVERY", 0.0)
    monkeypatch.setattr(state, "SHARE", 1e9)
    with pytest.raises(KeyboardInterrupt):
        a_trainer(model, **TRIED).train(contradicted(), seed=1, folder=tmp_path / "one", progress=Stops(3))
    assert names(tmp_path) == [".one.gold_weight-1.0.training"]
    fixed = {**TRIED, "gold_weight": 2.0, "epochs": 1}
    a_trainer(model, **fixed).train(contradicted(), seed=1, folder=tmp_path / "one", progress=Silent())
    assert names(tmp_path) == ["one"]


@pytest.mark.parametrize("after", [12, pytest.param(26, marks=pytest.mark.slow)])
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
