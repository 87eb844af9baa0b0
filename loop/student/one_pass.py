"""What students have in common that answer in one pass and write nothing of their own: encoders and taggers."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loop.config import StudentConfig, TaskConfig
from loop.ports import Explanation
from loop.records import Item
from loop.student.fitting import computes_bfloat16


class OnePass:
    """An encoder with a last layer of its own."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, student: StudentConfig, task: TaskConfig
    ) -> None:
        self.model = model
        self.model.train(False)
        self.tokenizer = tokenizer
        self.student = student
        self.task = task
        self._positions = positions(model)

    def go_on(self, items: Sequence[Item], steps: Sequence[Sequence[str]]) -> list[Explanation]:  # noqa: ARG002 - the port's names
        """The given steps: it writes none."""
        return [Explanation(tuple(some), None) for some in steps]

    def step_likelihoods(self, items: Sequence[Item], steps: Sequence[Sequence[str]]) -> list[list[float]]:  # noqa: ARG002 - it writes no steps
        """Nothing: it writes no steps."""
        return [[] for _ in items]

    def longest(self) -> int:
        """Tokens that are read."""
        return min(self.student.max_prompt_tokens, int(self.tokenizer.model_max_length), self._positions)

    def quick(self) -> torch.autocast:
        """Products in bfloat16 where the processor has it, as in training."""
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=computes_bfloat16())

    @contextmanager
    def _dropout(self, seed: int) -> Iterator[None]:
        """Within the block the model drops out, as the seed says."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model.train(True)
            try:
                yield
            finally:
                self.model.train(False)


def positions(model: torch.nn.Module) -> int:
    """How many tokens a model has places for, whatever its tokenizer says; RoBERTa's first are padding's."""
    tables = [each for name, each in model.named_modules() if name.endswith("position_embeddings")]
    rows = [
        each.num_embeddings - (0 if each.padding_idx is None else each.padding_idx + 1)
        for each in tables
        if isinstance(each, torch.nn.Embedding)
    ]
    return min([*rows, getattr(model.config, "max_position_embeddings", None) or sys.maxsize])
