"""Preferences from corrections: what people wrote becomes likelier beside what they corrected."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loop.answer import Answer, AnswerKind
from loop.config import StudentConfig
from loop.ports import Example, Silent
from loop.records import DecisionKind, VerdictKind
from loop.stages.train import train_student
from loop.store import decisions, rationales
from loop.student import dpo
from loop.student.distill_step_by_step import token_losses
from tests import builders
from tests.builders import a_reply, decided, id_of, queried
from tests.test_student import a_trainer, model, sums, weights  # noqa: F401 - a fixture
from tests.test_training import Told
from tests.test_training_rounds import RUN, a_project, closed, the_parts

WRONG = Answer(kind=AnswerKind.NUMBER, value="7")


def corrected(count: int) -> list[Example]:
    """Sums, every second one of which the teacher had got wrong."""
    return [
        replace(each, refused=(("1 + 20 = 7 .",), WRONG)) if number % 2 else each
        for number, each in enumerate(sums(count))
    ]


def leads(student, examples: list[Example]) -> torch.Tensor:  # noqa: ANN001 - a decoder
    found = dpo.pairs(student, examples)
    with torch.no_grad():
        return dpo._leads(student.model, list(found.values()), lambda *of: token_losses(*of, student.pad))


def test_the_loss_is_that_of_the_paper_and_log_2_at_the_reference(model: Path) -> None:  # noqa: F811
    student = a_trainer(model).student(None)

    def of_tokens(*of: object) -> tuple[torch.Tensor, torch.Tensor]:
        return token_losses(*of, student.pad)  # type: ignore[arg-type]

    found = dpo.pairs(student, corrected(6))
    assert sorted(found) == [1, 3, 5]
    before = dpo.reference(student.model, found, of_tokens)
    some = list(found.values())
    assert dpo.loss(student.model, some, list(before.values()), of_tokens).item() / 3 == pytest.approx(
        0.693147, abs=1e-5
    )
    total = 0.0
    for (context, chosen), (_, refused) in some:
        said = []
        for target in (chosen, refused):
            logits = student.model(input_ids=torch.tensor([context + target])).logits[0].log_softmax(dim=-1)
            said.append(sum(logits[len(context) - 1 + at, token].item() for at, token in enumerate(target)))
        margin = dpo.BETA * (said[0] - said[1] - 2.0)
        total -= torch.nn.functional.logsigmoid(torch.tensor(margin)).item()
    assert dpo.loss(student.model, some, [2.0] * 3, of_tokens).item() == pytest.approx(total, abs=1e-5)


@torch.no_grad()
def test_a_pair_weighs_as_much_whoever_shares_its_batch(model: Path) -> None:  # noqa: F811
    """Beside rows without a pair it gets no more than beside other pairs."""
    trainer = a_trainer(model, preference_weight=0.5)
    base = trainer.base(None)
    lesson = trainer.lesson(base, base.model, corrected(8))
    alone, together = [list(lesson.losses(batch))[-1].item() for batch in ([0, 1, 2, 4], [1, 3, 5, 7])]
    assert together == pytest.approx(0.5 * 0.693147, abs=1e-4)
    assert alone == pytest.approx(together / 4, abs=1e-4)


def test_a_refused_rationale_without_room_is_named(model: Path, tmp_path: Path) -> None:  # noqa: F811
    told, trainer = Told(), a_trainer(model, epochs=1, preference_weight=0.5)
    wordy = replace(sums(1)[0], refused=(("1 + 20 = 7 .",) * 40, WRONG))
    card = trainer.train([wordy, *sums(3)[1:]], seed=1, folder=tmp_path / "one", progress=told).card
    assert (card["problems"], card["preference_pairs"], card["examples"]) == ({"unpaired": 1}, 0, 3)
    assert told.lines[0].startswith("  1 of 3 examples teach no preference: what was corrected or rejected does not")


@pytest.mark.parametrize("rank", [0, 8])
def test_what_people_wrote_leads_by_more_where_preferences_are_learned(model: Path, rank: int, tmp_path: Path) -> None:  # noqa: F811
    found = []
    for name, weight in (("without", 0.0), ("with", 1.0)):
        trainer = a_trainer(model, epochs=4, lora_rank=rank, preference_weight=weight, dtype="float32")
        card = trainer.train(corrected(8), seed=1, folder=tmp_path / name, progress=Silent()).card
        assert card["preference_pairs"] == (4 if weight else 0)
        found.append(leads(trainer.student(tmp_path / name), corrected(8)))
    assert (found[1] > found[0]).all()


def test_without_a_weight_what_was_refused_changes_nothing(model: Path, tmp_path: Path) -> None:  # noqa: F811
    trainer = a_trainer(model, epochs=2)
    trainer.train(sums(8), seed=1, folder=tmp_path / "plain", progress=Silent())
    trainer.train(corrected(8), seed=1, folder=tmp_path / "corrected", progress=Silent())
    one, other = weights(tmp_path / "plain"), weights(tmp_path / "corrected")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_encoder_has_no_preferences() -> None:
    with pytest.raises(ValueError, match="preference_weight is for students that write"):
        StudentConfig(kind="encoder", preference_weight=0.5)


def test_a_round_learns_from_what_people_corrected_and_rejected(model: Path, tmp_path: Path) -> None:  # noqa: F811
    project = a_project(tmp_path, model, "lora_rank = 0\nepochs = 1\npreference_weight = 0.5")
    store, examples = project.store, {each.item.key: each for each in sums(10)}
    opened = queried(store, builders.a_round(store, project.config, run=RUN), ["i1", "i2", "i3"])
    for key in ("i1", "i2", "i3"):
        a_reply(store, opened, key, steps=["1 = 7 ."], answer=7)
    original = {each.item_key: each for each in rationales.of_round(store, id_of(opened))}
    mended = rationales.keep_correction(store, original["i1"], steps=["1 + 20 = 21 ."], answer=examples["i1"].answer)
    builders.a_verdict(store, original["i1"].id or 0, VerdictKind.EDIT)
    builders.a_verdict(store, original["i2"].id or 0, VerdictKind.REJECT)
    decided(store, opened, "i1", DecisionKind.GOLD, mended.id)
    decided(store, opened, "i2", DecisionKind.REJECTED, original["i2"].id)
    decided(store, opened, "i3", DecisionKind.SILVER, original["i3"].id)
    refused = decisions.refused(store, RUN)
    assert {key: row.steps for key, row in refused.items()} == {"i1": ["1 = 7 ."], "i2": ["1 = 7 ."]}
    current = builders.rounds.enter(store, opened, builders.Stage.TRAIN)
    done = train_student(current, store, the_parts(project, Told()), project.config)
    card = builders.checkpoints.get(store, done.candidate_id or 0).card
    assert (card["examples"], card["preference_pairs"]) == (2, 1)
    assert closed(project, done, Told()).student_id == done.candidate_id
