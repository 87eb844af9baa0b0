"""Trains a causal language model on decided rationales and keeps its checkpoints."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from loop.config import StudentConfig, TaskConfig
from loop.errors import StudentError
from loop.ports import Example, Progress, Trained
from loop.student import checkpoint, distill_step_by_step
from loop.student.decoder import Decoder
from loop.student.distill_step_by_step import Rows, Tasks

WARM_UP = 0.05
LONGEST_NORM = 1.0
LORA_ALPHA = 2
"""Alpha as a multiple of the rank."""
ALIKE = 16
"""Batches whose rows are sorted by length together."""


class DecoderTrainer:
    """Makes decoder students (`loop.ports.Trainer`): LoRA on a bf16 base where the processor has it, or all weights."""

    def __init__(self, student: StudentConfig, task: TaskConfig, cache: Path) -> None:
        self.config = student
        self.task = task
        self.cache = cache

    def student(self, folder: Path | None) -> Decoder:
        """The student of a checkpoint, or the untrained one.

        Raises:
            StudentError: the model or the checkpoint cannot be loaded.
        """
        model, tokenizer = checkpoint.load(folder, self.config, self.cache, self._dtype())
        return Decoder(model, tokenizer, self.config, self.task)

    def train(self, examples: Sequence[Example], *, seed: int, folder: Path, progress: Progress) -> Trained:
        """Train from the base model on all examples and leave a complete checkpoint in `folder`.

        Raises:
            StudentError: there are no examples, the base cannot be loaded, the loss is no number, or the checkpoint
                cannot be written.
        """
        if not examples:
            raise StudentError("there is nothing to train on; accept some rationales first")
        started = time.monotonic()
        base = self.student(None)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self._trainable(base.model)
            tasks = distill_step_by_step.tasks(base, examples)
            losses = self._fit(model, base, tasks, examples, seed, progress)
        card = {
            "examples": len(examples),
            "examples_sha256": _digest(examples),
            "base": self.config.model,
            "seed": seed,
            "settings": self.config.model_dump(mode="json"),
            "loss_per_epoch": losses,
            "target_tokens": sum(len(target) for _, rows in tasks for _, target in rows),
            "seconds": round(time.monotonic() - started, 1),
            "device": str(base.model.device),
            "dtype": str(base.model.dtype),
            "versions": {name: version(name) for name in ("torch", "transformers", "peft", "safetensors")},
            "threads": torch.get_num_threads(),
        }
        checkpoint.save(model, base.tokenizer, card, folder)
        return Trained(folder=folder, card=card)

    def _dtype(self) -> torch.dtype:
        """bf16 for LoRA where the processor computes in it; all-weights training needs float32."""
        if self.config.dtype != "auto":
            return torch.bfloat16 if self.config.dtype == "bfloat16" else torch.float32
        able = torch.cpu.get_capabilities()
        has_bf16 = able.get("avx512_bf16") or able.get("amx_bf16") or torch.cuda.is_available()
        return torch.bfloat16 if self.config.lora_rank and has_bf16 else torch.float32

    def _trainable(self, model: PreTrainedModel) -> torch.nn.Module:
        rank = self.config.lora_rank
        if rank == 0:
            whole: torch.nn.Module = model
            return whole
        lora = LoraConfig(r=rank, lora_alpha=LORA_ALPHA * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        adapted: torch.nn.Module = get_peft_model(model, lora)
        return adapted

    def _fit(
        self,
        model: torch.nn.Module,
        base: Decoder,
        tasks: Tasks,
        examples: Sequence[Example],
        seed: int,
        progress: Progress,
    ) -> list[float]:
        """Mean loss of each epoch."""
        size = self.config.batch_size
        batches = list(_batches(tasks[-1][1], size, self.config.epochs, seed))
        optimiser = torch.optim.AdamW(
            [each for each in model.parameters() if each.requires_grad], lr=self.config.learning_rate, weight_decay=0.0
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _warm_up_and_decay(len(batches)))
        losses: list[float] = []
        model.train()
        with progress.bar(f"student learns from {len(examples)} rationales", len(batches)) as bar:
            for batch in batches:
                weights = torch.tensor([examples[number].weight for number in batch])
                losses.append(distill_step_by_step.losses(model, base, tasks, batch, weights))
                if not math.isfinite(losses[-1]):
                    raise StudentError(
                        f"the loss is {losses[-1]} after {len(losses)} steps; lower student.learning_rate"
                    )
                torch.nn.utils.clip_grad_norm_(model.parameters(), LONGEST_NORM)
                optimiser.step()
                schedule.step()
                optimiser.zero_grad()
                bar.advance()
        model.train(False)
        per_epoch = math.ceil(len(examples) / size)
        epochs = [losses[start : start + per_epoch] for start in range(0, len(losses), per_epoch)]
        return [round(sum(each) / len(each), 4) for each in epochs]


def _warm_up_and_decay(steps: int) -> Callable[[int], float]:
    """Factor of the learning rate at each step: linear up, then linear down."""
    warm_up = max(1, round(WARM_UP * steps))
    return lambda step: min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))


def _batches(rows: Rows, size: int, epochs: float, seed: int) -> Iterator[list[int]]:
    """Numbers of the rows in each step: shuffled, rows of like length together, a pure function of the seed."""
    chance = torch.Generator().manual_seed(seed)
    steps = max(1, round(epochs * math.ceil(len(rows) / size)))
    while steps:
        order = torch.randperm(len(rows), generator=chance).tolist()
        pools = [order[start : start + ALIKE * size] for start in range(0, len(order), ALIKE * size)]
        sorted_pools = [sorted(pool, key=lambda number: len(rows[number][0] + rows[number][1])) for pool in pools]
        batches = [pool[start : start + size] for pool in sorted_pools for start in range(0, len(pool), size)]
        for place in torch.randperm(len(batches), generator=chance).tolist()[:steps]:
            yield batches[place]
        steps -= min(steps, len(batches))


def _digest(examples: Sequence[Example]) -> str:
    """A hash of everything that is trained on."""
    lines = [
        json.dumps([each.item.key, each.item.text, each.steps, each.answer.canonical, each.weight]) for each in examples
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
