"""Training as it is for every kind of student: a base, a lesson, one fit, and a checkpoint that is whole or missing."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loop.config import StudentConfig, TaskConfig
from loop.errors import StudentError
from loop.ports import Example, Progress, Trained
from loop.student import checkpoint, problems
from loop.student.fitting import Lesson, card, fingerprint, fit
from loop.student.problems import Problem
from loop.student.state import TrainingState


class Base(Protocol):
    """What a training begins with: any student that holds a model."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def problems(self, example: Example) -> Sequence[Problem]:
        """What is wrong with an example that it is to learn."""
        ...


Kind = TypeVar("Kind", bound=Base)


class Training(ABC, Generic[Kind]):
    """Makes students of one kind (`loop.ports.Trainer`)."""

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
    def lesson(self, base: Kind, examples: Sequence[Example], start: Path | None) -> Lesson:
        """What the student learns of the examples; adapters that train go on from those of a checkpoint."""

    def train(
        self, examples: Sequence[Example], *, seed: int, folder: Path, progress: Progress, start: Path | None = None
    ) -> Trained:
        """Train on all examples, from the base model or a checkpoint, and leave a complete checkpoint in `folder`.

        A training that was killed goes on where it was, if it had the same examples, settings and versions.

        Raises:
            StudentError: there are no examples, base or checkpoint cannot be loaded, the loss is no number, or the
                new checkpoint cannot be written.
        """
        if not examples:
            raise StudentError("there is nothing to train on; accept some rationales first")
        started = time.monotonic()
        base = self.base(start)
        examples, noticed = self._examined(base, examples, progress)
        planned = {**card(examples, self.config, base.model, seed=seed), "started_from": start and start.name}
        state = TrainingState(folder, fingerprint(planned), progress.say)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            lesson = self.lesson(base, examples, start)
            fitted = fit(lesson, self.config, seed=seed, progress=progress, state=state)
        seconds = round(time.monotonic() - started, 1)
        figures = {**planned, **noticed, **lesson.figures, **fitted, "seconds": seconds}
        checkpoint.save(lesson.model, base.tokenizer, figures, folder)
        state.remove()
        return Trained(folder=folder, card=figures)

    def _examined(
        self, base: Kind, examples: Sequence[Example], progress: Progress
    ) -> tuple[list[Example], dict[str, object]]:
        """The examples that can be learned, and for the card what is wrong with some; it is said too."""
        usable, found = problems.examined(examples, base.problems)
        for line in problems.said(found, len(examples)):
            progress.say(f"  {line}")
        unseen = problems.unseen(usable, self.task)
        if unseen:
            progress.say(f"  no example has the label {', '.join(unseen)}: the student will never give it")
        counts = {problem.name.lower(): len(keys) for problem, keys in found.items()}
        return usable, {"problems": counts, "unseen_labels": unseen}
