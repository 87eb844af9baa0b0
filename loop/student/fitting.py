"""One fit of a model, whatever it is: batches, schedule, clipping, validation, progress, and the card of what was done.

Where some rows validate, their loss is taken after each epoch; training stops when it got no better for some epochs,
and ends with the weights of the epoch at which it was least.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import torch

from loop.config import StudentConfig
from loop.errors import StudentError
from loop.ports import Bar, Example, Progress
from loop.student.validation import validating

WARM_UP = 0.05
LONGEST_NORM = 1.0
ALIKE = 16
"""Batches whose rows are sorted by length together."""

Weights = Mapping[str, torch.Tensor]
"""Weights by their names."""


@dataclass(frozen=True)
class Lesson:
    """What is learned, and by what: one row an example."""

    examples: Sequence[Example]
    model: torch.nn.Module
    """Weights that need no gradient stay as they are."""
    losses: Callable[[Sequence[int]], Iterator[torch.Tensor]]
    """The loss of the rows of these numbers, task by task; a task is looked at when its loss is asked for."""
    lengths: Sequence[int]
    """Of each row; those of like length share a batch."""

    @property
    def trained(self) -> Weights:
        """The weights that learn."""
        return {name: each for name, each in self.model.named_parameters() if each.requires_grad}


@dataclass
class Course:
    """How a training went so far."""

    losses: list[float] = field(default_factory=list)
    """Of each step."""
    validation: list[float] = field(default_factory=list)
    """Of each epoch, where some rows validate."""

    @property
    def best(self) -> int:
        """The epoch with the least validation loss, counted from 1; the first of several."""
        return 1 + min(range(len(self.validation)), key=self.validation.__getitem__)

    def stopped(self, patience: int) -> bool:
        """Whether the last epochs were no better than the best one, as many as one is patient."""
        return bool(self.validation) and len(self.validation) - self.best >= patience


def fit(lesson: Lesson, config: StudentConfig, *, seed: int, progress: Progress) -> dict[str, object]:
    """Train the lesson's model; the figures of how it went, for the card.

    The seed decides the batches and their order.

    Raises:
        StudentError: the loss is no number.
    """
    held = validating(lesson.examples, config.validation_share)
    learned = sorted(set(range(len(lesson.examples))).difference(held))
    lengths = [lesson.lengths[number] for number in learned]
    order = [[learned[place] for place in batch] for batch in batches(lengths, config.batch_size, config.epochs, seed)]
    per_epoch = math.ceil(len(learned) / config.batch_size)
    if config.validation_share and not held:
        progress.say(f"  {len(learned)} decided rationales are too few to spare some for validation; all are learned")
    lesson.model.train()
    with progress.bar(f"student learns from {len(learned)} rationales", len(order)) as bar:
        course = _learn(lesson, order, per_epoch, held, config, bar)
    lesson.model.train(False)
    return _figures(course, lesson, held, per_epoch, stopped=course.stopped(config.patience))


def _learn(
    lesson: Lesson, order: Sequence[Sequence[int]], per_epoch: int, held: Sequence[int], config: StudentConfig, bar: Bar
) -> Course:
    """Take the steps in their order; the model is left with the weights of the best epoch."""
    weights, course, best = lesson.trained, Course(), dict[str, torch.Tensor]()
    optimiser = torch.optim.AdamW(weights.values(), lr=config.learning_rate, weight_decay=0.0, fused=True)
    rate = _warm_up_and_decay(len(order))
    for step, batch in enumerate(order, start=1):
        optimiser.param_groups[0]["lr"] = config.learning_rate * rate(step - 1)
        course.losses.append(_checked(_backward(lesson, batch), lesson, batch))
        torch.nn.utils.clip_grad_norm_(lesson.model.parameters(), LONGEST_NORM)
        optimiser.step()
        optimiser.zero_grad()
        bar.advance()
        if held and (step % per_epoch == 0 or step == len(order)):
            course.validation.append(_validated(lesson, held, config.batch_size))
            if course.best == len(course.validation):
                best = {name: each.detach().clone() for name, each in weights.items()}
            if course.stopped(config.patience):
                break
    for name, each in best.items():
        weights[name].data.copy_(each)
    return course


def _backward(lesson: Lesson, batch: Sequence[int]) -> float:
    """Leave the gradients of a batch in the model, one task after the other; the batch's loss."""
    total = 0.0
    for loss in lesson.losses(batch):
        torch.autograd.backward(loss)
        total += loss.item()
    return total


def _validated(lesson: Lesson, held: Sequence[int], size: int) -> float:
    """The mean loss of the rows that validate, in batches that never change."""
    ordered = sorted(held, key=lambda number: lesson.lengths[number])
    lesson.model.train(False)
    total = 0.0
    with torch.no_grad():
        for batch in (ordered[start : start + size] for start in range(0, len(ordered), size)):
            loss = sum(each.item() for each in lesson.losses(batch))
            total += _checked(loss, lesson, batch) * len(batch)
    lesson.model.train()
    return total / len(ordered)


def _checked(loss: float, lesson: Lesson, batch: Sequence[int]) -> float:
    """The loss.

    Raises:
        StudentError: it is no number.
    """
    if not math.isfinite(loss):
        keys = ", ".join(repr(lesson.examples[number].item.key) for number in batch)
        raise StudentError(
            f"the loss is {loss} on the batch of items {keys}; lower student.learning_rate, or look at these items "
            "with `preceptor history KEY`. The student stays as it was"
        )
    return loss


def _figures(
    course: Course, lesson: Lesson, held: Sequence[int], per_epoch: int, *, stopped: bool
) -> dict[str, object]:
    """Losses of both parts, the epoch that was taken and why no further one came."""
    epochs = [course.losses[start : start + per_epoch] for start in range(0, len(course.losses), per_epoch)]
    since = len(course.validation) - course.best if held else 0
    return {
        "loss_per_epoch": [round(sum(each) / len(each), 4) for each in epochs],
        "validation_loss_per_epoch": [round(each, 4) for each in course.validation],
        "validation_keys": [lesson.examples[number].item.key for number in held],
        "epoch": course.best if held else len(epochs),
        "stopped": f"no better for {since} epochs" if stopped else "all epochs are done",
    }


def batches(lengths: Sequence[int], size: int, epochs: float, seed: int) -> Iterator[list[int]]:
    """Numbers of the rows in each step: shuffled, rows of like length together, a pure function of the seed."""
    chance = torch.Generator().manual_seed(seed)
    steps = max(1, round(epochs * math.ceil(len(lengths) / size)))
    while steps:
        order = torch.randperm(len(lengths), generator=chance).tolist()
        pools = [order[start : start + ALIKE * size] for start in range(0, len(order), ALIKE * size)]
        sorted_pools = [sorted(pool, key=lambda number: lengths[number]) for pool in pools]
        found = [pool[start : start + size] for pool in sorted_pools for start in range(0, len(pool), size)]
        for place in torch.randperm(len(found), generator=chance).tolist()[:steps]:
            yield found[place]
        steps -= min(steps, len(found))


def card(examples: Sequence[Example], config: StudentConfig, model: torch.nn.Module, *, seed: int) -> dict[str, object]:
    """What a checkpoint says of itself: data, settings, versions."""
    weight = next(model.parameters())
    return {
        "examples": len(examples),
        "examples_sha256": _digest(examples),
        "base": config.model,
        "seed": seed,
        "settings": config.model_dump(mode="json"),
        "device": str(weight.device),
        "dtype": str(weight.dtype),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "safetensors")},
        "threads": torch.get_num_threads(),
    }


def computes_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 in hardware."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or torch.cuda.is_available())


def _warm_up_and_decay(steps: int) -> Callable[[int], float]:
    """Factor of the learning rate at each step: linear up, then linear down."""
    warm_up = max(1, round(WARM_UP * steps))
    return lambda step: min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))


def _digest(examples: Sequence[Example]) -> str:
    """A hash of everything that is trained on."""
    lines = [
        json.dumps([each.item.key, each.item.text, each.steps, each.answer.canonical, each.weight]) for each in examples
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
