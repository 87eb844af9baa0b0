"""The training benchmark compares what learns the same: one loss, as many tokens, and figures that can be added up."""

from pathlib import Path

import pytest
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from benchmarks import training
from benchmarks.training import _begin, _begin_alike, _figures, _needed
from loop.student.distill_step_by_step import tasks
from tests.test_student import a_trainer, model, sums  # noqa: F401 - a fixture


def a_cell(way: str, seconds: float, **changes: object) -> dict[str, object]:
    made = {"way": way, "seconds": seconds, "training": seconds, "tokens": 100, "needed": 50.0, "flops": 10.0}
    return {**made, "begin": 4.0, "loss": 3.0, **changes}


def test_the_peer_begins_at_our_loss(model: Path) -> None:  # noqa: F811
    """Two passes and the loss of `transformers` give what one pass of ours gives."""
    trainer = a_trainer(model)
    base = trainer.base(None)
    lesson = trainer.lesson(base, base.model, sums(10))
    assert _begin_alike(trainer, lesson) == pytest.approx(_begin(trainer, lesson), rel=1e-4)


def test_the_peer_has_what_makes_it_quick(
    model: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Trainer] = []
    monkeypatch.setattr(training, "_run", lambda peer, _: made.append(peer))
    training._alike(a_trainer(model, lora_rank=4), sums(10), 0, tmp_path)
    sampler = made[0]._get_train_sampler()
    assert isinstance(sampler, LengthGroupedSampler)
    assert sampler.lengths == [len(row["rationale"]["input_ids"]) for row in made[0].train_dataset]
    assert made[0].model.config._attn_implementation == "eager"


def test_speeds_are_seconds_for_the_same_tokens() -> None:
    cells = [a_cell("ours", 10.0), a_cell("alike", 20.0, loss=3.1), a_cell("trainer", 50.0, loss=1.0)]
    figures = _figures(cells)
    assert figures["speedup_trainer_alike"]["value"] == 2
    assert figures["speedup_trainer"]["value"] == 5
    assert figures["limit_share"]["value"] == 0.5
    assert figures["tokens_per_cpu_second"]["value"] == 10


def test_a_peer_that_learns_something_else_is_no_comparison() -> None:
    for changes in ({"begin": 4.2}, {"loss": 3.5}, {"loss": 3.1, "begin": 3.05}):
        with pytest.raises(AssertionError):
            _figures([a_cell("ours", 10.0), a_cell("alike", 20.0, **changes)])


def test_what_training_needs_counts_each_question_once(model: Path) -> None:  # noqa: F811
    trainer = a_trainer(model)
    base = trainer.base(None)
    mixed = tasks(base, sums(1), trainer.config)
    head = base.model.get_output_embeddings().weight.numel()
    body = sum(each.numel() for each in base.model.parameters()) - head
    [[(one, answer)], [(other, rationale)]] = (task.rows for task in mixed)
    common = next(number for number, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    read = len(one) + len(other) - common + len(answer) + len(rationale)
    assert _needed(base, mixed) == 4 * (body * read + head * (len(answer) + len(rationale)))
