"""Contexts that a model reads once, side by side, and goes on from token by token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from loop.errors import StudentError

TOP_K = 50
"""Sampling looks at this many tokens; it keeps sampling cheap beside the forward pass."""
DENSE = 0.875
"""Finished rows are dropped when at most this share of the rows still goes on."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    `draws` in [0, 1) is (rows, places): the draw of a row and place decides its token, and a draw of 0 is the likeliest
    token. So what a row becomes does not depend on the rows beside it.
    """

    temperature: float
    top_p: float
    draws: torch.Tensor


class Reading:
    """Rows that a model has read. Rows can be repeated, dropped and read on without reading them again."""

    def __init__(self, model: PreTrainedModel, contexts: Sequence[list[int]], pad: int) -> None:
        ids, mask = padded(contexts, pad)
        self._model = model
        self._cache: Any = None
        self._logits = torch.empty(0)
        self._mask = mask.to(model.device)
        self._forward(ids, (self._mask.cumsum(dim=1) - 1).clamp(min=0))
        if not hasattr(self._cache, "batch_select_indices"):
            raise StudentError(f"{type(model).__name__} keeps no attention cache; take a student with attention layers")

    def __len__(self) -> int:
        return len(self._mask)

    @property
    def logits(self) -> torch.Tensor:
        """Of each row's next token, (rows, vocabulary)."""
        return self._logits[:, -1].float()

    def take(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be named several times."""
        self._mask = self._mask[rows]
        self._logits = self._logits[rows]
        self._cache.batch_select_indices(rows)

    def read(self, tokens: torch.Tensor) -> None:
        """Read one more token in each row, (rows,)."""
        positions = self._mask.sum(dim=1, keepdim=True)
        self._mask = torch.cat([self._mask, torch.ones_like(positions)], dim=1)
        self._forward(tokens[:, None], positions)

    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> None:
        out = self._model(
            input_ids=tokens.to(self._mask.device),
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = getattr(out, "past_key_values", None)
        self._logits = out.logits


@torch.inference_mode()
def continuations(
    reading: Reading, *, longest: int, stops: Sequence[int], sampling: Sampling | None = None
) -> list[list[int]]:
    """What the model writes after each row until a stop token (included), greedily or sampled."""
    written: list[list[int]] = [[] for _ in range(len(reading))]
    rows = torch.arange(len(reading))
    going = torch.ones(len(reading), dtype=torch.bool)
    for place in range(longest):
        tokens = _chosen(reading.logits, rows, place, sampling)
        for row, token in zip(rows[going].tolist(), tokens[going].tolist(), strict=True):
            written[row].append(token)
        going &= ~torch.isin(tokens, torch.tensor(stops))
        if place + 1 == longest or not going.any():
            break
        if going.sum() <= DENSE * len(going):
            reading.take(going.nonzero()[:, 0])
            rows, tokens, going = rows[going], tokens[going], going[going]
        reading.read(tokens)
    return written


def alike(contexts: Sequence[list[int]], size: int) -> Iterator[list[int]]:
    """Numbers of the contexts in batches of like length, whatever order they come in."""
    order = sorted(range(len(contexts)), key=lambda number: (len(contexts[number]), contexts[number]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def padded(rows: Sequence[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, (rows, longest) each, padded on the left."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _chosen(logits: torch.Tensor, rows: torch.Tensor, place: int, sampling: Sampling | None) -> torch.Tensor:
    """One token a row: the likeliest, or the one that the row's draw falls on among the likeliest."""
    if sampling is None:
        return logits.argmax(dim=-1).cpu()
    values, tokens = logits.topk(min(TOP_K, logits.shape[-1]))
    shares = (values / sampling.temperature).softmax(dim=-1).cpu()
    shares = shares * (shares.cumsum(dim=-1) - shares < sampling.top_p)
    reached = shares.cumsum(dim=-1)
    below = reached <= sampling.draws[rows, place][:, None] * reached[:, -1:]
    return tokens.cpu().gather(1, below.sum(dim=-1, keepdim=True).clamp(max=values.shape[1] - 1))[:, 0]
