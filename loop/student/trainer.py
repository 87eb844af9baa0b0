"""Makes students: from the untrained model, from a checkpoint, or by training on decided rationales."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from loop.errors import StudentError
from loop.ports import Example
from loop.student import checkpoint, distill_step_by_step
from loop.student.decoder import Decoder
from loop.student.encoder import Encoder
from loop.student.fitting import Lesson, computes_bfloat16
from loop.student.training import Training

LORA_ALPHA = 2
"""Alpha as a multiple of the rank."""


class DecoderTrainer(Training[Decoder]):
    """Makes causal students (`loop.ports.Trainer`): LoRA on a bf16 base where the processor has it, or all weights."""

    def student(self, folder: Path | None) -> Decoder:
        """The student of a checkpoint, or the untrained one.

        Raises:
            StudentError: the model or the checkpoint cannot be loaded.
        """
        student = self._on_torch(folder)
        return student if self.config.engine == "torch" else self._on_openvino(student, folder)

    def base(self, start: Path | None) -> Decoder:
        """The student on torch, whatever writes its explanations; adapters of a checkpoint are not in it yet."""
        return self._on_torch(None if self.config.lora_rank else start)

    def lesson(self, base: Decoder, examples: Sequence[Example], start: Path | None) -> Lesson:
        """The answer task and the rationale task, mixed."""
        tasks = distill_step_by_step.tasks(base, examples)
        model = self._trainable(base.model, start)

        def losses(batch: Sequence[int]) -> Iterator[torch.Tensor]:
            return distill_step_by_step.losses(model, base, tasks, batch)

        lengths = [len(context + target) for context, target in tasks[-1][1]]
        targets = sum(len(target) for _, rows, _ in tasks for _, target in rows)
        return Lesson(examples, model, losses, lengths, {"target_tokens": targets})

    def _on_torch(self, folder: Path | None) -> Decoder:
        model, tokenizer = checkpoint.load_causal(folder, self.config, self.cache, self._dtype())
        return Decoder(model, tokenizer, self.config, self.task)

    def _on_openvino(self, student: Decoder, folder: Path | None) -> Decoder:
        """The same student, whose explanations OpenVINO writes.

        Raises:
            StudentError: OpenVINO is not installed, cannot run the model, or the checkpoint has no adapters.
        """
        if folder is not None and not (folder / "adapter_config.json").exists():
            raise StudentError(f'{folder}: all weights were trained, not adapters; set student.engine = "torch"')
        try:
            from loop.student import openvino  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise StudentError(
                f'student.engine = "openvino": {error}; install preceptor[openvino], or set student.engine = "torch"'
            ) from error
        revision = getattr(student.model.config, "_commit_hash", None)
        exported = openvino.exported(self.config, self.cache, self._dtype(), revision)
        return openvino.OpenVinoDecoder(student, exported, folder)

    def _dtype(self) -> torch.dtype:
        """bf16 for LoRA where the processor computes in it; all-weights training needs float32."""
        if self.config.dtype != "auto":
            return torch.bfloat16 if self.config.dtype == "bfloat16" else torch.float32
        return torch.bfloat16 if self.config.lora_rank and computes_bfloat16() else torch.float32

    def _trainable(self, model: PreTrainedModel, start: Path | None) -> torch.nn.Module:
        rank = self.config.lora_rank
        if rank == 0:
            whole: torch.nn.Module = model
            return whole
        if start is not None:
            return checkpoint.load_adapters(model, start, self.config)
        lora = LoraConfig(r=rank, lora_alpha=LORA_ALPHA * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        adapted: torch.nn.Module = get_peft_model(model, lora)
        return adapted


class EncoderTrainer(Training[Encoder]):
    """Makes encoder students for label tasks (`loop.ports.Trainer`); all weights are trained, in float32."""

    def student(self, folder: Path | None) -> Encoder:
        """The student of a checkpoint, or the untrained one, whose last layer is random.

        Raises:
            StudentError: the model or the checkpoint cannot be loaded.
        """
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model, tokenizer = checkpoint.load_classifier(folder, self.config, self.cache, len(self.task.labels))
        return Encoder(model, tokenizer, self.config, self.task)

    def base(self, start: Path | None) -> Encoder:
        """The untrained student, or that of a checkpoint."""
        return self.student(start)

    def lesson(self, base: Encoder, examples: Sequence[Example], start: Path | None) -> Lesson:  # noqa: ARG002 - `base` is it
        """The answer from the whole item, and the answer from the words that the rationale mentions, mixed."""
        weights = torch.tensor([each.weight for each in examples])
        answers = torch.tensor([base.labels.index(each.answer) for each in examples])
        told = torch.tensor([float(bool(each.steps)) for each in examples])  # no steps mention nothing
        whole = [base.read(each.item) for each in examples]
        evidence = [base.only(text, each.steps) for text, each in zip(whole, examples, strict=True)]
        share = self.config.rationale_weight
        both = [(1 - share, whole, weights), (share, evidence, weights * told)]
        tasks = [task for task in both if task[0] > 0]

        def losses(batch: Sequence[int]) -> Iterator[torch.Tensor]:
            chosen = list(batch)
            for part, texts, own in tasks:
                with torch.autocast(base.model.device.type, torch.bfloat16, enabled=computes_bfloat16()):
                    logits = base.model(**base.tokens([texts[number] for number in chosen])).logits
                each = torch.nn.functional.cross_entropy(
                    logits.float(), answers[chosen].to(logits.device), reduction="none"
                )
                counted = own[chosen].to(logits.device)
                yield part * (each * counted).sum() / counted.sum().clamp(min=1e-9)

        return Lesson(examples, base.model, losses, [len(text) for text in whole])
