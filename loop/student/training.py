"""Training as it is for every kind of student: a base, a lesson, one fit, and a checkpoint that is whole or missing."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loop.config import StudentConfig, TaskConfig
from loop.errors import NothingToLearn
from loop.ports import Example, Progress, Trained
from loop.student import checkpoint, choosing, lora, packaged, problems, ranks, sharding
from loop.student.fitting import Lesson, card, fingerprint, fit, mean_loss
from loop.student.problems import Problem
from loop.student.state import TrainingState
from loop.student.validation import marked


class Base(Protocol):
    """What a training begins with: any student that holds a model."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def problems(self, example: Example) -> Sequence[Problem]:
        """What is wrong with an example that it is to learn."""
        ...


Kind = TypeVar("Kind", bound=Base)


@dataclass(frozen=True)
class _Run:
    """One training: what it draws by, where it leaves its checkpoint, who is told, and from where it starts."""

    seed: int
    folder: Path
    progress: Progress
    start: Path | None


class Training(ABC, Generic[Kind]):
    """Makes students of one kind (`loop.ports.Trainer`)."""

    lora_task: ClassVar[str]
    """What `peft` calls such models."""

    def __init__(self, student: StudentConfig, task: TaskConfig, cache: Path) -> None:
        self.config = student
        self.task = task
        self.cache = cache

    @abstractmethod
    def base(self, start: Path | None) -> Kind:
        """The student that training begins with: untrained, or that of a checkpoint.

        Raises:
            StudentError: the model or the checkpoint cannot be loaded.
        """

    @abstractmethod
    def lesson(self, base: Kind, model: torch.nn.Module, examples: Sequence[Example]) -> Lesson:
        """What the model that trains learns of the examples."""

    def trainable(self, base: Kind, start: Path | None) -> torch.nn.Module:
        """The model that trains: as it is where all weights do, or with adapters, new ones or those of a checkpoint."""
        model: torch.nn.Module = base.model
        if self.config.lora_rank == 0:
            return model
        if start is None:
            return lora.adapted(model, self.config.lora_rank, self.lora_task)
        adapted = checkpoint.load_adapters(base.model, start, self.config)
        lora.quicken(adapted)
        return adapted

    def train(
        self, examples: Sequence[Example], *, seed: int, folder: Path, progress: Progress, start: Path | None = None
    ) -> Trained:
        """Train on all examples, from the base model or a checkpoint, and leave a complete checkpoint in `folder`.

        What the settings leave to a trial is chosen first. A training that was killed goes on where it was, if it had
        the same examples, settings and versions.

        Raises:
            NothingToLearn: there are no examples, or none that can be learned.
            StudentError: base or checkpoint cannot be loaded, the loss is no number, or the new checkpoint cannot be
                written.
        """
        if not examples:
            raise NothingToLearn("there is nothing to train on; accept some rationales first")
        run, examples = _Run(seed, folder, progress, start), marked(examples, self.config.validation_share)
        trained = (
            self._chosen_and_trained(examples, run) if choosing.is_open(self.config) else self._train(examples, run, {})
        )
        for file in folder.parent.glob(f".{folder.name}.*.training*"):
            file.unlink(missing_ok=True)
        return trained

    def _chosen_and_trained(self, examples: Sequence[Example], run: "_Run") -> Trained:
        """Choose what the settings leave to trials, then train by it."""
        usable, _ = problems.examined(examples, self.base(run.start).problems)
        learned, measured = choosing.parts(usable, self.config)

        def loss_of(name: str, how: StudentConfig, measure: StudentConfig) -> float:
            run.progress.say(f"  trial: {name}")
            part = replace(run, folder=run.folder.with_name(f"{run.folder.name}.{name}"))
            return self._like(how)._try(learned, measured, self._like(measure), part)

        before = checkpoint.settings(run.start, self.config) if run.start else {}
        config, trials = choosing.chosen(self.config, before, len(measured), loss_of, run.progress.say)
        return self._like(config)._train(examples, run, {"trials": trials})

    def _like(self, config: StudentConfig) -> "Training[Kind]":
        return type(self)(config, self.task, self.cache)

    def _train(self, examples: Sequence[Example], run: "_Run", chosen: Mapping[str, object]) -> Trained:
        """Train by settings of which none is open, and save."""
        started = time.monotonic()
        base = self.base(run.start)
        examples, noticed = self._examined(base, examples, run.progress)
        planned = self._planned(base, examples, run)
        state = TrainingState(run.folder, self._fingerprint(planned, run), run.progress.say)
        lesson, fitted = self._fitted(base, examples, run, state)
        seconds = round(time.monotonic() - started, 1)
        figures = {**planned, **noticed, **chosen, **lesson.figures, **fitted, "seconds": seconds}
        whole = sharding.checkpointed(lesson.model)
        if ranks.number() == 0:
            checkpoint.save(lesson.model, base.tokenizer, figures, run.folder, whole)
        state.remove()
        return Trained(folder=run.folder, card=figures)

    def _try(
        self, learned: Sequence[Example], measured: Sequence[Example], measure: "Training[Kind]", run: "_Run"
    ) -> float:
        """Train, and say the loss of other examples by another way of measuring; the file of how far it is stays."""
        base = self.base(run.start)
        (learned, _), (measured, _) = (problems.examined(some, base.problems) for some in (learned, measured))
        planned = self._planned(base, learned, run)
        state = TrainingState(run.folder, self._fingerprint(planned, run), run.progress.say)
        lesson, _ = self._fitted(base, learned, run, state)
        found = measure.lesson(base, lesson.model, measured)
        return mean_loss(found, range(len(measured)), self.config.batch_size)

    def _fitted(
        self, base: Kind, examples: Sequence[Example], run: "_Run", state: TrainingState
    ) -> tuple[Lesson, dict[str, object]]:
        """What was learned, by the model that it is learned by, and the figures of how it went."""
        with torch.random.fork_rng():
            torch.manual_seed(run.seed)
            model = self.trainable(base, run.start)
            if self.config.sharded:
                sharding.shard(model)
            lesson = self.lesson(base, model, examples)
            return lesson, fit(lesson, self.config, seed=run.seed, progress=run.progress, state=state)

    def _planned(self, base: Kind, examples: Sequence[Example], run: "_Run") -> dict[str, object]:
        """What the card says before anything is learned."""
        known = card(examples, self.config, base.model, seed=run.seed)
        return {**known, "started_from": run.start and run.start.name}

    def _fingerprint(self, planned: Mapping[str, object], run: "_Run") -> str:
        """Names a training that may be gone on from; a model that was replaced under its name makes it another one."""
        teacher = [] if self.config.white_box is None else [self.config.white_box.teacher]
        sources = [packaged.model_directory(name, self.cache) for name in (self.config.model, *teacher)]
        start = [] if run.start is None else [str(run.start)]
        return fingerprint(planned, [packaged.files(each) for each in (*sources, *start)])

    def _examined(
        self, base: Kind, examples: Sequence[Example], progress: Progress
    ) -> tuple[list[Example], dict[str, object]]:
        """The examples that can be learned, and for the card what is wrong with some; it is said too."""
        usable, found = problems.examined(examples, base.problems)
        for line in problems.said(found, len(examples)):
            progress.say(f"  {line}")
        unseen = problems.unseen(usable, self.task)
        if unseen:
            progress.say(
                f"  no example has the label {', '.join(unseen)}: the student will never give it; add seed items that "
                "do, or take it out of task.labels"
            )
        counts = {problem.name.lower(): len(keys) for problem, keys in found.items()}
        left_out = sorted({key for problem in problems.LEFT_OUT for key in found.get(problem, ())})
        return usable, {"problems": counts, "left_out": left_out, "unseen_labels": unseen}
