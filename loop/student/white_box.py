"""Learning from the logits of a teacher that is on this disk, beside the decided texts or instead of them.

The loss of each task of Distilling Step-by-Step becomes a mixture of its hard targets and of one objective. What
validates is looked at by its hard targets alone, whatever the objective: so losses can be compared between epochs, in
which the student writes other texts, and between students.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loop.config import FEWEST_PROMPT_TOKENS, WRITING_OBJECTIVES, StudentConfig, WhiteBoxConfig
from loop.errors import StudentError
from loop.student import checkpoint
from loop.student.decoder import Decoder
from loop.student.distill_step_by_step import Rows, Tasks
from loop.student.fitting import Beside, computes_bfloat16
from loop.student.objectives import gkd, mgsr, minillm, online_kd
from loop.student.objectives.comparing import Compared, Pair, compared, said
from loop.student.objectives.divergences import forward_kl, generalised_jsd, reverse_kl, token_mean


def _as_decided(_: Pair, decided: Rows) -> Rows:
    """The decided texts."""
    return decided


def _mean_of(divergence: Callable[[Compared], torch.Tensor]) -> Callable[[Compared], torch.Tensor]:
    return lambda both: token_mean(divergence(both), both.weight)


@dataclass(frozen=True)
class Objective:
    """What is made small, and on which texts of the rationale task."""

    loss: Callable[[Compared], torch.Tensor]
    rows: Callable[[Pair, Rows], Rows] = _as_decided


OBJECTIVES: Mapping[str, Objective] = {
    "forward_kl": Objective(_mean_of(lambda both: forward_kl(*both.log_probabilities()))),
    "reverse_kl": Objective(_mean_of(lambda both: reverse_kl(*both.log_probabilities()))),
    "jsd": Objective(_mean_of(lambda both: generalised_jsd(*both.log_probabilities(), both.pair.settings.beta))),
    "gkd": Objective(gkd.loss, gkd.rows),
    "minillm": Objective(minillm.loss, minillm.rows),
    "mgsr": Objective(mgsr.loss, mgsr.rows),
    "online_kd": Objective(online_kd.loss),
}


class WhiteBox:
    """A student's lessons from a local teacher.

    Raises:
        StudentError: the teacher is not there, or does not fit the student.
    """

    def __init__(
        self, base: Decoder, model: torch.nn.Module, tasks: Tasks, settings: WhiteBoxConfig, cache: Path
    ) -> None:
        examine(base.student, settings, cache)
        dtype = torch.bfloat16 if base.student.dtype != "float32" and computes_bfloat16() else torch.float32
        teacher = checkpoint.load_teacher(base.student, settings, cache, dtype)
        _refuse_short(teacher, base, tasks, settings)
        self.beside: Beside | None = None
        if settings.objective == "online_kd":
            self.beside = Beside(online_kd.adapted(teacher, settings.online_rank), settings.online_learning_rate)
        self._pair = Pair(
            student=model,
            teacher=teacher if self.beside is None else self.beside.model,
            settings=settings,
            pad=base.pad,
            end=base.end,
            longest=base.student.max_new_tokens,
            tokenizer=base.tokenizer,
            teacher_learns=self.beside is not None,
        )
        self._tasks = tasks
        self._objective = OBJECTIVES[settings.objective]

    def losses(self, batch: Sequence[int]) -> Iterator[torch.Tensor]:
        """Each task's share of one batch's loss, made when it is asked for; the last task is that of rationales."""
        for number, (share, rows, weights) in enumerate(self._tasks):
            decided, own = [rows[each] for each in batch], weights[list(batch)]
            if not self._pair.student.training:
                yield share * said(self._pair.student, decided, own, self._pair.pad).cross_entropy()
            else:
                writes = number == len(self._tasks) - 1
                texts = self._objective.rows(self._pair, decided) if writes else decided
                yield from (share * each for each in self._mixed(decided, texts, own))

    def _mixed(self, decided: Rows, texts: Rows, own: torch.Tensor) -> Iterator[torch.Tensor]:
        """The parts of the loss of some rows: read once where the objective looks at the decided texts too."""
        pair, weight = self._pair, self._pair.settings.weight
        by_student = said(pair.student, texts, own, pair.pad)
        soft = weight * self._objective.loss(compared(pair, by_student, texts, sampled=texts is not decided))
        if texts is decided:
            yield soft + (1 - weight) * by_student.cross_entropy()
            return
        yield soft
        if weight < 1:
            yield (1 - weight) * said(pair.student, decided, own, pair.pad).cross_entropy()


def examine(student: StudentConfig, settings: WhiteBoxConfig, cache: Path) -> None:
    """Look whether the teacher is there and reads the tokens of the student; weights are not loaded.

    Raises:
        StudentError: the teacher is not on this disk, or its tokenizer is another one.
    """
    own, others = checkpoint.tokenizers(student, settings, cache)
    if own.get_vocab() != others.get_vocab():
        raise StudentError(
            f"{_named(settings)} has {_apart(own, others)} than {student.model}, so their logits cannot be compared; "
            "take both of one family, or leave the table out: the texts of any teacher can be learned"
        )
    if own.eos_token_id != others.eos_token_id:
        raise StudentError(
            f"{_named(settings)} ends a text with {others.eos_token!r}, {student.model} with {own.eos_token!r}, so the "
            "student would not learn to end; take both as base models or both as instruct models, or set eos_token in "
            "the teacher's tokenizer_config.json and fine-tune it so"
        )


def _named(settings: WhiteBoxConfig) -> str:
    return f"student.white_box.teacher = {settings.teacher!r}"


def _apart(own: PreTrainedTokenizerBase, others: PreTrainedTokenizerBase) -> str:
    """How the tokens of two tokenizers differ."""
    differing = set(own.get_vocab().items()) ^ set(others.get_vocab().items())
    return f"other tokens ({len(others)}, {len(differing)} of either differ)"


def _refuse_short(teacher: PreTrainedModel, base: Decoder, tasks: Tasks, settings: WhiteBoxConfig) -> None:
    """Refuse a teacher that reads less than the longest text: a decided one, or one that the student may write.

    Raises:
        StudentError: it does.
    """
    positions = getattr(teacher.config, "max_position_embeddings", None)
    own = base.student.max_new_tokens if settings.objective in WRITING_OBJECTIVES else 0
    texts = [(len(context), max(own, len(target))) for _, rows, _ in tasks for context, target in rows]
    longest, written = max(sum(text) for text in texts), max(target for _, target in texts)
    if positions is not None and positions < longest:
        room = positions - written
        cure = f", or set student.max_prompt_tokens to {room}" if room >= FEWEST_PROMPT_TOKENS else ""
        raise StudentError(
            f"{_named(settings)} reads {positions} tokens, the longest question and rationale have {longest}; take "
            f"a teacher that reads as much{cure}"
        )
