"""One fit of a model, whatever it is: batches, schedule, clipping, progress, and the card of what was done."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version

import torch

from loop.config import StudentConfig
from loop.errors import StudentError
from loop.ports import Example, Progress

WARM_UP = 0.05
LONGEST_NORM = 1.0
ALIKE = 16
"""Batches whose rows are sorted by length together."""


def fit(
    model: torch.nn.Module,
    backward: Callable[[Sequence[int]], float],
    lengths: Sequence[int],
    config: StudentConfig,
    *,
    seed: int,
    progress: Progress,
) -> list[float]:
    """Mean loss of each epoch.

    Args:
        model: What is trained; weights that need no gradient stay.
        backward: Leaves the gradients of the examples of these numbers in the model and gives their loss.
        lengths: Of each example; those of like length share a batch.
        config: Epochs, batch size, learning rate.
        seed: Decides the batches and their order.
        progress: Shows a bar.

    Raises:
        StudentError: the loss is no number.
    """
    order = list(batches(lengths, config.batch_size, config.epochs, seed))
    optimiser = torch.optim.AdamW(
        [each for each in model.parameters() if each.requires_grad],
        lr=config.learning_rate,
        weight_decay=0.0,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _warm_up_and_decay(len(order)))
    losses: list[float] = []
    model.train()
    with progress.bar(f"student learns from {len(lengths)} rationales", len(order)) as bar:
        for batch in order:
            losses.append(backward(batch))
            if not math.isfinite(losses[-1]):
                raise StudentError(f"the loss is {losses[-1]} after {len(losses)} steps; lower student.learning_rate")
            torch.nn.utils.clip_grad_norm_(model.parameters(), LONGEST_NORM)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            bar.advance()
    model.train(False)
    per_epoch = math.ceil(len(lengths) / config.batch_size)
    epochs = [losses[start : start + per_epoch] for start in range(0, len(losses), per_epoch)]
    return [round(sum(each) / len(each), 4) for each in epochs]


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
