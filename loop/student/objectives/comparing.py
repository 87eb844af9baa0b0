"""What student and teacher say of the same texts, token by token, and the texts that the student writes for that."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from loop.config import WhiteBoxConfig
from loop.student.distill_step_by_step import Rows, target_logits
from loop.student.objectives.divergences import log_probabilities, token_mean
from loop.student.reading import Reading


@dataclass(frozen=True)
class Pair:
    """A student that learns and its teacher; both read the same tokens."""

    student: Any
    teacher: Any
    settings: WhiteBoxConfig
    pad: int
    end: int
    longest: int
    """Tokens that the student may write."""
    tokenizer: PreTrainedTokenizerBase
    teacher_learns: bool = False

    @property
    def vocabulary(self) -> int:
        """Tokens that both have a logit of; some models have more than there are tokens."""
        return int(min(self.student.config.vocab_size, self.teacher.config.vocab_size))

    def is_whole(self, text: Sequence[int]) -> bool:
        """Whether a text has ended, or is as long as the student may write."""
        return text[-1:] == [self.end] or len(text) >= self.longest


@dataclass(frozen=True)
class Said:
    """What a model says of the target tokens of some rows: the tokens of a row in their order, row after row."""

    logits: torch.Tensor
    """(tokens, vocabulary)"""
    targets: torch.Tensor
    """What stands there, (tokens,)."""
    row: torch.Tensor
    """In which row, (tokens,)."""
    weight: torch.Tensor
    """Of the example that the row belongs to, (tokens,)."""

    def cross_entropy(self) -> torch.Tensor:
        """The mean negative log-likelihood of what stands there, in nats a token."""
        each = torch.nn.functional.cross_entropy(self.logits.float(), self.targets, reduction="none")
        return token_mean(each, self.weight)


@dataclass(frozen=True)
class Compared:
    """What student and teacher say of the same target tokens."""

    pair: Pair
    by_student: Said
    by_teacher: Said
    sampled: bool
    """Whether the student wrote the texts just now."""

    @property
    def targets(self) -> torch.Tensor:
        """What stands there, (tokens,)."""
        return self.by_student.targets

    @property
    def row(self) -> torch.Tensor:
        """In which row each token stands, (tokens,)."""
        return self.by_student.row

    @property
    def weight(self) -> torch.Tensor:
        """Of each token, (tokens,)."""
        return self.by_student.weight

    def log_probabilities(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the teacher and of the student, (tokens, vocabulary) each, in nats."""
        known, temperature = self.pair.vocabulary, self.pair.settings.temperature
        return (
            log_probabilities(self.by_teacher.logits[:, :known], temperature),
            log_probabilities(self.by_student.logits[:, :known], temperature),
        )


def said(model: torch.nn.Module, rows: Rows, weights: torch.Tensor, pad: int) -> Said:
    """What a causal model says of the targets of some rows; `weights` are those of the examples, (rows,)."""
    logits, targets, is_target = target_logits(model, rows, pad)
    row, place = is_target.nonzero(as_tuple=True)
    return Said(logits[row, place], targets[row, place], row, weights.to(row.device)[row])


def compared(pair: Pair, by_student: Said, rows: Rows, *, sampled: bool) -> Compared:
    """What the teacher says beside what the student said of the same rows; the teacher learns nothing of it."""
    with torch.set_grad_enabled(pair.teacher_learns and torch.is_grad_enabled()):
        by_teacher = said(pair.teacher, rows, torch.ones(len(rows)), pair.pad)
    return Compared(pair, by_student, replace(by_teacher, weight=by_student.weight), sampled)


@torch.inference_mode()
def written(
    pair: Pair, contexts: Sequence[list[int]], longest: Sequence[int], *, temperature: float, mix: float = 0.0
) -> list[list[int]]:
    """What the student writes after each context: up to its end token (included), or so many tokens.

    A token is drawn from `mix` times the teacher's distribution plus the rest of the student's, from all of it. The
    draws are torch's: a training that goes on where it was draws as it would have drawn.
    """
    texts: list[list[int]] = [[] for _ in contexts]
    going = list(range(len(contexts)))
    models = [(1 - mix, pair.student), (mix, pair.teacher)] if mix else [(1.0, pair.student)]
    with still(pair.student):
        readings = [(share, Reading(model, contexts, pair.pad)) for share, model in models if contexts]
        while going:
            each = [share * (one.logits[:, : pair.vocabulary] / temperature).softmax(dim=-1) for share, one in readings]
            tokens = torch.multinomial(torch.stack(each).sum(dim=0).cpu(), 1)[:, 0]
            for row, token in zip(going, tokens.tolist(), strict=True):
                texts[row].append(token)
            kept = [at for at, row in enumerate(going) if texts[row][-1] != pair.end and len(texts[row]) < longest[row]]
            going = [going[at] for at in kept]
            for _, reading in readings if kept else ():
                if len(kept) < len(tokens):
                    reading.take(torch.tensor(kept))
                reading.read(tokens[kept])
    return texts


@contextmanager
def still(model: torch.nn.Module) -> Iterator[None]:
    """A model without dropout while the block lasts."""
    learning = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(learning)
