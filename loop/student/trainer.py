"""Trains a causal language model on both tasks of Distilling Step-by-Step and keeps its checkpoints."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from loop.config import StudentConfig, TaskConfig
from loop.errors import StudentError
from loop.ports import Example, Progress, Trained
from loop.student import prompts
from loop.student.decoder import Decoder, token_losses
from loop.student.smollm2 import model_directory

Rows = list[tuple[list[int], list[int]]]
WARM_UP = 0.05
LONGEST_NORM = 1.0
LORA_ALPHA = 2
"""Alpha as a multiple of the rank."""


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
        try:
            model, tokenizer = self._load(folder)
        except (OSError, ValueError, SafetensorError) as error:
            where = folder or self.config.model
            raise StudentError(
                f"{where}: cannot be loaded ({_first_line(error)}); student.model takes a local directory of a causal "
                "language model, a hub name that can be downloaded, or smollm2-135m-instruct"
            ) from error
        return Decoder(model, tokenizer, self.config, self.task)

    def train(self, examples: Sequence[Example], *, seed: int, folder: Path, progress: Progress) -> Trained:
        """Train from the base model on all examples and leave a complete checkpoint in `folder`.

        Raises:
            StudentError: there are no examples, the base cannot be loaded, or the checkpoint cannot be written.
        """
        if not examples:
            raise StudentError("there is nothing to train on; accept some rationales first")
        started = time.monotonic()
        torch.manual_seed(seed)
        base = self.student(None)
        model = self._trainable(base.model)
        losses = self._fit(model, base, examples, seed, progress)
        card = {
            "examples": len(examples),
            "examples_sha256": _digest(examples),
            "base": self.config.model,
            "seed": seed,
            "settings": self.config.model_dump(mode="json"),
            "loss_per_epoch": losses,
            "seconds": round(time.monotonic() - started, 1),
            "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
            "threads": torch.get_num_threads(),
        }
        _save(model, base.tokenizer, card, folder)
        return Trained(folder=folder, card=card)

    def _load(self, folder: Path | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        name = model_directory(self.config.model, self.cache)
        full = folder is not None and not (folder / "adapter_config.json").exists()
        source = str(folder) if full else name
        settings = {
            "local_files_only": Path(source).is_dir(),
            "trust_remote_code": self.config.trust_remote_code,
        }
        tokenizer = AutoTokenizer.from_pretrained(source, **settings)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=self._dtype(), **settings)
        if folder is not None and not full:
            model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
        return model, tokenizer

    def _dtype(self) -> torch.dtype:
        """bf16 for LoRA where the processor computes in it; all-weights training needs float32."""
        if self.config.dtype != "auto":
            return torch.bfloat16 if self.config.dtype == "bfloat16" else torch.float32
        has_bf16 = torch.cpu.get_capabilities().get("avx512_bf16") or torch.cuda.is_available()
        return torch.bfloat16 if self.config.lora_rank and has_bf16 else torch.float32

    def _trainable(self, model: PreTrainedModel) -> torch.nn.Module:
        if self.config.lora_rank == 0:
            whole: torch.nn.Module = model
            return whole
        rank = self.config.lora_rank
        lora = LoraConfig(r=rank, lora_alpha=LORA_ALPHA * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        adapted: torch.nn.Module = get_peft_model(model, lora)
        return adapted

    def _fit(
        self, model: torch.nn.Module, base: Decoder, examples: Sequence[Example], seed: int, progress: Progress
    ) -> list[float]:
        """Mean loss of each epoch."""
        weight = self.config.rationale_weight
        tasks = [(1 - weight, _answer_rows(base, examples)), (weight, _rationale_rows(base, examples))]
        tasks = [(share, rows) for share, rows in tasks if share > 0]
        batches = list(_batches(tasks[-1][1], self.config.batch_size, self.config.epochs, seed))
        optimiser = torch.optim.AdamW(
            [each for each in model.parameters() if each.requires_grad], lr=self.config.learning_rate, weight_decay=0.0
        )
        warm_up = max(1, round(WARM_UP * len(batches)))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / warm_up, (len(batches) - step) / max(1, len(batches) - warm_up))
        )
        per_epoch = math.ceil(len(examples) / self.config.batch_size)
        losses: list[float] = []
        model.train()
        with progress.bar(f"student learns from {len(examples)} rationales", len(batches)) as bar:
            for batch in batches:
                losses.append(self._step(model, base, tasks, examples, batch))
                optimiser.step()
                schedule.step()
                optimiser.zero_grad()
                bar.advance()
        model.train(False)
        epochs = [losses[start : start + per_epoch] for start in range(0, len(losses), per_epoch)]
        return [round(sum(each) / len(each), 4) for each in epochs]

    def _step(
        self,
        model: torch.nn.Module,
        base: Decoder,
        tasks: Sequence[tuple[float, Rows]],
        examples: Sequence[Example],
        batch: Sequence[int],
    ) -> float:
        """Gradients of one batch: each task averaged over its own target tokens, then mixed."""
        weights = torch.tensor([examples[number].weight for number in batch])[:, None]
        pad = base.tokenizer.pad_token_id
        total = 0.0
        for share, rows in tasks:
            token_loss, mask = token_losses(
                model, [rows[number] for number in batch], base.tokenizer.eos_token_id if pad is None else pad
            )
            loss = share * (token_loss * mask * weights).sum() / (mask * weights).sum()
            torch.autograd.backward(loss)
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LONGEST_NORM)
        return total


def _answer_rows(base: Decoder, examples: Sequence[Example]) -> Rows:
    return [
        _row(base, prompts.answer_prompt(each.item), prompts.answer_target(each.item, each.answer)) for each in examples
    ]


def _rationale_rows(base: Decoder, examples: Sequence[Example]) -> Rows:
    return [
        _row(base, prompts.rationale_prompt(each.item), prompts.rationale_target(each.item, each.steps, each.answer))
        for each in examples
    ]


def _row(base: Decoder, prompt: str, target: str) -> tuple[list[int], list[int]]:
    ids: list[int] = base.tokenizer(target, add_special_tokens=False)["input_ids"]
    return base.encoded(prompt), [*ids, int(base.tokenizer.eos_token_id)]


def _batches(rows: Rows, size: int, epochs: float, seed: int) -> Iterator[list[int]]:
    """Numbers of the rows in each step: shuffled, rows of like length together, a pure function of the seed."""
    chance = torch.Generator().manual_seed(seed)
    steps = max(1, round(epochs * math.ceil(len(rows) / size)))
    while steps:
        order = torch.randperm(len(rows), generator=chance).tolist()
        pools = [order[start : start + 16 * size] for start in range(0, len(order), 16 * size)]
        alike = [
            number for pool in pools for number in sorted(pool, key=lambda each: len(rows[each][0] + rows[each][1]))
        ]
        batches = [alike[start : start + size] for start in range(0, len(alike), size)]
        for place in torch.randperm(len(batches), generator=chance).tolist()[:steps]:
            yield batches[place]
        steps -= min(steps, len(batches))


def _save(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, card: dict[str, object], folder: Path) -> None:
    """Write the checkpoint beside its name and rename it; nothing half-written is left."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        model.save_pretrained(partial)  # type: ignore[operator]
        if not isinstance(model, PeftModel):
            tokenizer.save_pretrained(partial)
        (partial / "card.json").write_text(json.dumps(card, indent=1), encoding="utf-8")
        (partial / "README.md").write_text(_readme(card), encoding="utf-8")
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise StudentError(
            f"{folder}: the checkpoint cannot be written ({_first_line(error)}); free some space or change run.folder, "
            "then `preceptor run` trains again from the rationales, which are stored"
        ) from error


def _readme(card: dict[str, object]) -> str:
    return (
        f"# A student trained by Preceptor\n\nBase model: {card['base']}. Trained on {card['examples']} decided "
        f"rationales (sha256 {card['examples_sha256']}), seed {card['seed']}, in {card['seconds']} s.\n\n"
        f"Loss per epoch: {card['loss_per_epoch']}. Settings and versions stand in card.json.\n"
    )


def _digest(examples: Sequence[Example]) -> str:
    """A hash of everything that is trained on."""
    lines = [f"{each.item.key}\t{json.dumps(each.steps)}\t{each.answer.canonical}\t{each.weight}" for each in examples]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
