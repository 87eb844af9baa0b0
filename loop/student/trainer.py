"""Makes students: from the untrained model, from a checkpoint, or by training on decided rationales."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from loop.answer import AnswerKind
from loop.config import ServedConfig, StudentConfig, TaskConfig
from loop.errors import StudentError
from loop.ports import Example, Progress, Student, StudentHost, Trained, Trainer
from loop.student import checkpoint, distill_step_by_step, dpo, launching, sharding, weighing
from loop.student.decoder import Decoder
from loop.student.distill_step_by_step import Task
from loop.student.encoder import Encoder
from loop.student.fitting import Lesson, computes_bfloat16
from loop.student.seq2seq import Seq2Seq, pair_losses
from loop.student.served import ServedDecoder
from loop.student.tagger import NO_TAG, Tagger
from loop.student.training import Training
from loop.student.tree import looks_far
from loop.student.white_box import WhiteBox
from loop.student.writer import Writer

Kind = TypeVar("Kind", bound=Writer[Any])


class WriterTraining(Training[Kind]):
    """Training of students that write: LoRA on a base in bf16 (if the processor has it) or 4 bits, or all weights."""

    @abstractmethod
    def on_torch(self, folder: Path | None, *, trains: bool = False) -> Kind:
        """The student of a checkpoint, or the untrained one, on torch; as a base that `trains`, in four bits if asked.

        Raises:
            StudentError: the model or the checkpoint cannot be loaded.
        """

    def white_box(self, base: Kind, model: torch.nn.Module, tasks: Sequence[Task]) -> WhiteBox | None:  # noqa: ARG002 - most kinds learn from texts alone
        """The lessons from a local teacher's logits, where the config names one.

        Raises:
            StudentError: the teacher is not there, or does not fit the student.
        """
        return None

    @abstractmethod
    def token_losses(self, base: Kind) -> Callable[..., distill_step_by_step.TokenLosses]:
        """What gives the losses of the target tokens of some rows, by a model."""

    def row_losses(self, base: Kind) -> distill_step_by_step.OfRows:
        """What gives the losses of the target tokens of all tasks; each task is a pass where nothing is shared."""
        return partial(distill_step_by_step.one_by_one, of_tokens=self.token_losses(base))

    def base(self, start: Path | None) -> Kind:
        """The student on torch, whatever writes its explanations; adapters of a checkpoint are not in it yet."""
        return self.on_torch(None if self.config.lora_rank else start, trains=True)

    def lesson(self, base: Kind, model: torch.nn.Module, examples: Sequence[Example]) -> Lesson:
        """The answer task and the rationale task, mixed."""
        tasks = distill_step_by_step.tasks(base, examples, self.config)
        of_tokens, of_rows = self.token_losses(base), self.row_losses(base)
        white_box = self.white_box(base, model, tasks)
        weight = self.config.preference_weight
        pairs = dpo.pairs(base, examples) if weight else {}
        before = dpo.reference(model, pairs, of_tokens)

        def losses(rows: Sequence[int], batch: Sequence[int] | None = None) -> Iterator[torch.Tensor]:
            if white_box is None:
                yield from distill_step_by_step.losses(model, tasks, rows, of_rows, batch)
            else:
                yield from white_box.losses(rows)  # which one process trains alone
            mine, every = ([number for number in some if number in pairs] for some in (rows, batch or rows))
            paired, counts = sharding.to_read(model, mine, every)
            if paired:
                some, leads = [pairs[number] for number in paired], [before[number] for number in paired]
                yield weight * counts * dpo.loss(model, some, leads, of_tokens) / len(batch or rows)

        lengths = [len(context + target) for context, target in tasks[-1].rows]
        targets = sum(len(target) for task in tasks for _, target in task.rows)
        figures = {"target_tokens": targets, "preference_pairs": len(pairs), "objective": self.objective}
        return Lesson(examples, model, losses, lengths, figures, None if white_box is None else white_box.beside)

    @property
    def objective(self) -> str:
        """What students are trained by, beside their preferences, for the card."""
        return "cross-entropy" if self.config.white_box is None else self.config.white_box.objective

    def dtype(self) -> torch.dtype:
        """In what it computes: bf16 for LoRA where the processor does so; all-weights training needs float32."""
        if self.config.dtype in ("bfloat16", "float32"):
            return torch.bfloat16 if self.config.dtype == "bfloat16" else torch.float32
        return torch.bfloat16 if self.config.lora_rank and computes_bfloat16() else torch.float32


class DecoderTrainer(WriterTraining[Decoder]):
    """Makes causal students (`loop.ports.Trainer`)."""

    lora_task = "CAUSAL_LM"

    def student(self, folder: Path | None) -> Decoder:
        """The student of a checkpoint, or the untrained one.

        Raises:
            StudentError: the model or the checkpoint cannot be loaded.
        """
        student = self.on_torch(folder)
        return self._on_openvino(student, folder) if self.config.engine == "openvino" else student

    def on_torch(self, folder: Path | None, *, trains: bool = False) -> Decoder:
        """The student on torch, whatever writes its explanations.

        Raises:
            StudentError: the model or the checkpoint cannot be loaded.
        """
        model, tokenizer = checkpoint.load_causal(folder, self.config, self.cache, self.dtype(), trains=trains)
        return Decoder(model, tokenizer, self.config, self.task)

    def token_losses(self, base: Decoder) -> Callable[..., distill_step_by_step.TokenLosses]:
        """Those of the last tokens of a sequence."""
        return partial(distill_step_by_step.token_losses, pad=base.pad)

    def row_losses(self, base: Decoder) -> distill_step_by_step.OfRows:
        """Those of all tasks in one pass, in which a question is read once; where windows slide, a pass each."""
        if not looks_far(base.model):
            return super().row_losses(base)
        return partial(distill_step_by_step.together, pad=base.pad)

    def white_box(self, base: Decoder, model: torch.nn.Module, tasks: Sequence[Task]) -> WhiteBox | None:
        """As the config has it."""
        settings = self.config.white_box
        if settings is None:
            return None
        return WhiteBox(base, model, distill_step_by_step.by_rows(tasks), settings, self.cache)

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
        exported = openvino.exported(self.config, self.cache, self.dtype(), revision)
        return openvino.OpenVinoDecoder(student, exported, folder)


class Seq2SeqTrainer(WriterTraining[Seq2Seq]):
    """Makes encoder-decoder students (`loop.ports.Trainer`)."""

    lora_task = "SEQ_2_SEQ_LM"

    def student(self, folder: Path | None) -> Seq2Seq:
        """The student of a checkpoint, or the untrained one.

        Raises:
            StudentError: the model or the checkpoint cannot be loaded.
        """
        return self.on_torch(folder)

    def on_torch(self, folder: Path | None, *, trains: bool = False) -> Seq2Seq:
        """As `student`."""
        model, tokenizer = checkpoint.load_seq2seq(folder, self.config, self.cache, self.dtype(), trains=trains)
        return Seq2Seq(model, tokenizer, self.config, self.task)

    def token_losses(self, base: Seq2Seq) -> Callable[..., distill_step_by_step.TokenLosses]:
        """Those of what the decoder writes."""
        return pair_losses(base.start, base.pad)


class EncoderTrainer(Training[Encoder]):
    """Makes encoder students for label tasks (`loop.ports.Trainer`), in float32."""

    lora_task = "SEQ_CLS"

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
        """The untrained student, or that of a checkpoint; adapters of a checkpoint are not in it yet."""
        return self.student(None if self.config.lora_rank else start)

    def lesson(self, base: Encoder, model: torch.nn.Module, examples: Sequence[Example]) -> Lesson:
        """The answer from the whole item, and the answer from the words that the rationale mentions, mixed."""
        weights = list(weighing.of_examples(examples, self.config)[:, None])
        answers = torch.tensor([base.labels.index(each.answer) for each in examples])
        told = torch.tensor([float(bool(each.steps)) for each in examples])  # no steps mention nothing
        whole = [base.read(each.item) for each in examples]
        evidence = [base.only(text, each.steps) for text, each in zip(whole, examples, strict=True)]
        share = self.config.rationale_weight
        both = [(1 - share, whole, torch.ones_like(told)), (share, evidence, told)]
        tasks = [
            (part, texts, counted, torch.cat(weighing.scaled(weights, list(counted[:, None]), examples)))
            for part, texts, counted in both
            if part > 0
        ]

        def losses(rows: Sequence[int], batch: Sequence[int] | None = None) -> Iterator[torch.Tensor]:
            chosen = list(rows)
            for part, texts, counted, own in tasks:
                with base.quick():
                    logits = model(**base.tokens([texts[number] for number in chosen])).logits
                each = torch.nn.functional.cross_entropy(
                    logits.float(), answers[chosen].to(logits.device), reduction="none"
                )
                total = (each * own[chosen].to(logits.device)).sum()
                yield part * total / counted[list(batch or rows)].sum().clamp(min=1e-9).to(logits.device)

        return Lesson(examples, model, losses, [len(text) for text in whole])


class TaggerTrainer(Training[Tagger]):
    """Makes encoder students that mark spans (`loop.ports.Trainer`), in float32."""

    lora_task = "TOKEN_CLS"

    def student(self, folder: Path | None) -> Tagger:
        """The student of a checkpoint, or the untrained one, whose last layer is random.

        Raises:
            StudentError: the model or the checkpoint cannot be loaded.
        """
        tags = 1 + 2 * len(self.task.labels)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model, tokenizer = checkpoint.load_tagger(folder, self.config, self.cache, tags)
        return Tagger(model, tokenizer, self.config, self.task)

    def base(self, start: Path | None) -> Tagger:
        """The untrained student, or that of a checkpoint; adapters of a checkpoint are not in it yet."""
        return self.student(None if self.config.lora_rank else start)

    def lesson(self, base: Tagger, model: torch.nn.Module, examples: Sequence[Example]) -> Lesson:
        """The tag of every token; rationales say nothing that the marks do not."""
        one = list(weighing.of_examples(examples, self.config)[:, None])
        places = [base.read([each.item]).offsets[0] for each in examples]
        counts = torch.tensor([sum(each is not None for each in some) for some in places])
        tagged = [torch.ones(max(1, int(count))) for count in counts]
        weights = torch.stack([each[0] for each in weighing.scaled(one, tagged, examples)])

        def losses(rows: Sequence[int], batch: Sequence[int] | None = None) -> Iterator[torch.Tensor]:
            some = [examples[number] for number in rows]
            read = base.read([each.item for each in some])
            tags = torch.tensor(
                [base.tags(each.answer, offsets) for each, offsets in zip(some, read.offsets, strict=True)]
            ).to(base.model.device)
            with base.quick():
                logits = model(**read.tensors).logits
            each = torch.nn.functional.cross_entropy(
                logits.float().flatten(0, 1), tags.flatten(), reduction="none", ignore_index=NO_TAG
            )
            own = weights[list(rows)].to(tags.device)[:, None]
            yield (each.view(tags.shape) * own).sum() / counts[list(batch or rows)].sum().clamp(min=1).to(tags.device)

        return Lesson(examples, model, losses, [len(each.item.text) for each in examples])


@dataclass(frozen=True)
class Students:
    """Trains by today's settings, and loads each checkpoint by those on its own card (`loop.ports.Trainer`)."""

    config: StudentConfig
    task: TaskConfig
    cache: Path
    host: Callable[[ServedConfig], StudentHost] | None = None
    """Makes what speaks to the server of `engine = "openai"`."""

    def student(self, folder: Path | None) -> Student:
        """The student of a checkpoint as it was trained, or the untrained one of today's settings.

        Raises:
            StudentError: the model or the checkpoint cannot be loaded, or the server does not hold it.
        """
        config = self.config if folder is None else checkpoint.as_trained(folder, self.config)
        student = trainer(config, self.task, self.cache).student(folder)
        if config.engine != "openai" or config.kind != "causal":  # one of another kind that was trained before
            return student
        assert isinstance(student, Decoder)
        assert config.served is not None
        assert self.host is not None
        by_tokens = config.served.prompts == "tokens"
        return ServedDecoder(student, self.host(config.served), folder, by_tokens=by_tokens)

    def train(
        self, examples: Sequence[Example], *, seed: int, folder: Path, progress: Progress, start: Path | None = None
    ) -> Trained:
        """As `Training.train`, by as many processes as the settings say."""
        if self.config.processes > 1:
            job = launching.Job(self.config, self.task, self.cache, seed, folder, start, list(examples))
            return launching.train(job, progress)
        makes = trainer(self.config, self.task, self.cache)
        return makes.train(examples, seed=seed, folder=folder, progress=progress, start=start)


def trainer(student: StudentConfig, task: TaskConfig, cache: Path) -> Trainer:
    """What makes students of the configured kind, by these settings alone."""
    if student.kind == "encoder":
        encoders = TaggerTrainer if task.answer is AnswerKind.SPANS else EncoderTrainer
        return encoders(student, task, cache)
    writers = Seq2SeqTrainer if student.kind == "seq2seq" else DecoderTrainer
    return writers(student, task, cache)
