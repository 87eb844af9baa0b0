"""Contexts that a model reads once, side by side, and goes on from token by token."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from loop.errors import StudentError

TOP_K = 50
"""Sampling looks at this many tokens; it keeps sampling cheap beside the forward pass."""
DENSE = 0.875
"""Finished rows are dropped, and others take their places, when at most this share of the rows still goes on."""


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
    """Rows that a model has read. Rows can be repeated, dropped and joined by others, and are never read again."""

    def __init__(self, model: PreTrainedModel, contexts: Sequence[list[int]], pad: int) -> None:
        ids, mask = padded(contexts, pad)
        self._model = model
        self._cache: Any = None
        self._logits = torch.empty(0)
        self._mask = mask.to(model.device)
        self._forward(ids, (self._mask.cumsum(dim=1) - 1).clamp(min=0))
        if not hasattr(self._cache, "reorder_cache"):
            raise StudentError(f"{type(model).__name__} keeps no attention cache; take a student with attention layers")

    def __len__(self) -> int:
        return len(self._mask)

    @property
    def logits(self) -> torch.Tensor:
        """Of each row's next token, (rows, vocabulary)."""
        return self._logits[:, -1].float()

    @property
    def joinable(self) -> bool:
        """Whether every layer keeps all it has read, so that caches of different lengths can be laid side by side."""
        return all(type(layer) is DynamicLayer for layer in self._cache.layers)

    def take(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be named several times."""
        self._mask = self._mask[rows]
        self._logits = self._logits[rows]
        self._cache.reorder_cache(rows)  # the only way to choose rows that layers without attention know too

    def join(self, other: "Reading") -> None:
        """Go on with the rows of both, those of the other one last; columns that nobody needs any more are dropped."""
        width = max(self._mask.shape[1], other._mask.shape[1])
        mask = torch.cat([_widened(self._mask, width, 1), _widened(other._mask, width, 1)])
        unused = int(mask.any(dim=0).int().argmax())
        self._mask = mask[:, unused:]
        self._logits = torch.cat([self._logits, other._logits])
        for mine, theirs in zip(self._cache.layers, other._cache.layers, strict=True):
            for name in ("keys", "values"):
                both = (_widened(getattr(layer, name), width, 2)[:, :, unused:] for layer in (mine, theirs))
                setattr(mine, name, torch.cat(list(both)))

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
            logits_to_keep=last(1, tokens.shape[1], self._model.device),
        )
        self._cache = getattr(out, "past_key_values", None)
        self._logits = out.logits


@torch.inference_mode()
def continuations(
    readings: Iterable[Reading],
    *,
    longest: int,
    stops: Sequence[int],
    sampling: Sampling | None = None,
    room: int = 0,
) -> list[list[int]]:
    """What the model writes after each row until a stop token (included), greedily or sampled; rows of all readings.

    The next reading is taken as soon as at most `room` rows go on, so that the model always has many rows to work on.
    """
    waiting, ending = iter(readings), torch.tensor(stops)
    written: list[list[int]] = []
    reading: Reading | None = None
    rows, going = torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.bool)
    while True:
        if not going.any() or (going.sum() <= room and reading is not None and reading.joinable):
            more = next(waiting, None)
            if more is not None:
                reading, rows = _joined(reading, rows, going, more, len(written))
                going = torch.ones(len(rows), dtype=torch.bool)
                written += [[] for _ in range(len(more))]
                continue
        if reading is None or not going.any():
            return written
        places = torch.tensor([len(written[row]) for row in rows.tolist()]).clamp(max=longest - 1)
        tokens = _chosen(reading.logits, rows, places, sampling)
        for row, token in zip(rows[going].tolist(), tokens[going].tolist(), strict=True):
            written[row].append(token)
        going &= (places + 1 < longest) & ~torch.isin(tokens, ending)
        if 0 < going.sum() <= DENSE * len(going):
            reading.take(going.nonzero()[:, 0])
            rows, tokens, going = rows[going], tokens[going], going[going]
        if going.any():
            reading.read(tokens)


def _joined(
    reading: Reading | None, rows: torch.Tensor, going: torch.Tensor, more: Reading, first: int
) -> tuple[Reading, torch.Tensor]:
    """One reading of the rows that still go on and of more rows, which are numbered from the first one."""
    fresh = torch.arange(first, first + len(more))
    if reading is None or not going.any():
        return more, fresh
    if not going.all():
        reading.take(going.nonzero()[:, 0])
    reading.join(more)
    return reading, torch.cat([rows[going], fresh])


def last(count: int, length: int, device: torch.device) -> torch.Tensor:
    """The last places of a sequence, for `logits_to_keep`.

    Named one by one they are copied together; a slice would leave them apart, and the product with the vocabulary slow.
    """
    return torch.arange(length - count, length, device=device)


def _widened(rows: torch.Tensor, width: int, dim: int) -> torch.Tensor:
    """Filled up with zeros on the left of a dimension."""
    shape = list(rows.shape)
    shape[dim] = width - shape[dim]
    return torch.cat([rows.new_zeros(shape), rows], dim=dim) if shape[dim] else rows


def alike(contexts: Sequence[list[int]], size: int) -> Iterator[list[int]]:
    """Numbers of the contexts in batches of like length, whatever order they come in."""
    order = sorted(range(len(contexts)), key=lambda number: (len(contexts[number]), contexts[number]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def mean_vectors(hidden: torch.Tensor, mask: torch.Tensor) -> NDArray[np.float32]:
    """The mean of each row over its tokens, scaled to length 1; (rows, dimensions) of (rows, tokens, dimensions)."""
    means = (hidden.float() * mask[:, :, None]).sum(dim=1)
    return np.asarray(torch.nn.functional.normalize(means, dim=1).cpu().numpy())


def padded(rows: Sequence[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, (rows, longest) each, padded on the left."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _chosen(logits: torch.Tensor, rows: torch.Tensor, places: torch.Tensor, sampling: Sampling | None) -> torch.Tensor:
    """One token a row: the likeliest, or the one that the row's draw falls on among the likeliest."""
    if sampling is None:
        return logits.argmax(dim=-1).cpu()
    values, tokens = logits.topk(min(TOP_K, logits.shape[-1]))
    shares = (values / sampling.temperature).softmax(dim=-1).cpu()
    shares = shares * (shares.cumsum(dim=-1) - shares < sampling.top_p)
    reached = shares.cumsum(dim=-1)
    below = reached <= sampling.draws[rows, places][:, None] * reached[:, -1:]
    return tokens.cpu().gather(1, below.sum(dim=-1, keepdim=True).clamp(max=values.shape[1] - 1))[:, 0]
