"""How far each step of a training goes: the schedule of the learning rate, and gradients that are too long."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from loop.config import StudentConfig
from loop.ports import Example
from loop.student.fitting import Beside, Lesson, fit
from loop.student.state import TrainingState
from tests.test_student import sums
from tests.trained import QUIET

RATE = 0.01


class Weight(torch.nn.Module):
    """A model of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(5.0))


def moved(folder: Path, gradients: Sequence[float], *, beside: float | None = None) -> tuple[list[float], list[float]]:
    """How far a model of one number, and the one beside it, went in each step; step by step, one example each."""
    model, other = Weight(), Weight()
    seen: list[tuple[float, float]] = []
    left = iter(gradients)

    def losses(rows: Sequence[int], batch: Sequence[int] | None = None) -> Iterator[torch.Tensor]:
        seen.append((model.value.item(), other.value.item()))
        yield next(left, 0.0) * (model.value + other.value)

    examples: list[Example] = (sums(8) * len(gradients))[: len(gradients)]
    lesson = Lesson(
        examples, model, losses, [1] * len(examples), beside=None if beside is None else Beside(other, beside)
    )
    config = StudentConfig(batch_size=1, epochs=1, learning_rate=RATE)
    fit(lesson, config, seed=1, progress=QUIET, state=TrainingState(folder / "one", "", print))
    seen.append((model.value.item(), other.value.item()))
    steps = list(itertools.pairwise(seen))[: len(gradients)]
    return [a[0] - b[0] for a, b in steps], [a[1] - b[1] for a, b in steps]


def test_the_rate_rises_over_a_twentieth_of_the_steps_and_falls_to_nothing(tmp_path: Path) -> None:
    """Adam divides a gradient that never changes by itself, so that each step is as long as the rate says."""
    steps, _ = moved(tmp_path, [0.5] * 100)
    assert steps[:5] == pytest.approx([RATE * part / 5 for part in (1, 2, 3, 4, 5)], rel=0.01)
    assert steps[5:] == pytest.approx([RATE * (100 - step) / 95 for step in range(5, 100)], rel=0.01)


def test_a_gradient_longer_than_one_is_cut_to_one(tmp_path: Path) -> None:
    gradients = [0.5, 100.0, 0.25, 3.0, 1.0, 0.75]
    weight, scale = torch.nn.Parameter(torch.tensor(5.0)), moved(tmp_path, [0.5] * 6)[0]
    adam = torch.optim.AdamW([weight], lr=1.0, weight_decay=0.0)
    wanted = []
    for gradient, rate in zip(gradients, scale, strict=True):
        before = weight.item()
        adam.param_groups[0]["lr"] = rate
        weight.grad = torch.tensor(min(1.0, gradient))
        adam.step()
        wanted.append(before - weight.item())
    assert moved(tmp_path, gradients)[0] == pytest.approx(wanted, rel=0.01)


def test_what_learns_beside_the_model_has_a_rate_of_its_own(tmp_path: Path) -> None:
    steps, beside = moved(tmp_path, [0.5] * 20, beside=RATE / 8)
    assert [one / other for one, other in zip(steps, beside, strict=True)] == pytest.approx([8.0] * 20, rel=0.01)
