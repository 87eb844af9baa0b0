"""One pass over many beginnings: token sequences that share their starts are read as one tree.

The explanation of an item and the answers after each of its steps are branches of one sequence. Every token stands in
the tree once, sees its ancestors only (a branching attention mask) and has its depth as its position, so each branch
is read exactly as if it stood alone. Models that cannot be told so what a token sees (`looks_far`) read each sequence
by itself.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from loop.student.reading import Reading, alike, continuations, last, padded

SHORT = 192
"""Up to so many tokens attention is learned in plain products on a CPU: the fused kernel's way back takes four times as
long. What plain products remember grows with the square, so that longer texts leave it to the kernel."""


@dataclass(frozen=True)
class TokenTree:
    """Tokens and parents (-1: none) of the nodes, ancestors before their descendants, and each sequence's nodes."""

    tokens: list[int]
    parents: list[int]
    paths: list[list[int]]

    def ancestry(self) -> torch.Tensor:
        """Which nodes each node sees: its ancestors and itself, (nodes, nodes)."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen

    @property
    def sequences(self) -> list[list[int]]:
        """The tokens of each sequence."""
        return [[self.tokens[node] for node in path] for path in self.paths]


def grow(sequences: Sequence[Sequence[int]]) -> TokenTree:
    """The tree of some token sequences; the longest one comes first, so that what branches off stands at the end."""
    tokens: list[int] = []
    parents: list[int] = []
    children: dict[tuple[int, int], int] = {}
    paths: list[list[int]] = [[] for _ in sequences]
    for number in sorted(range(len(sequences)), key=lambda number: -len(sequences[number])):
        node = -1
        for token in sequences[number]:
            child = children.setdefault((node, token), len(tokens))
            if child == len(tokens):
                tokens.append(token)
                parents.append(node)
            paths[number].append(child)
            node = child
    return TokenTree(tokens, parents, paths)


@dataclass(frozen=True)
class Grove:
    """Trees side by side, one a row, padded on the left."""

    ids: torch.Tensor
    """Tokens, (rows, longest)."""
    depths: torch.Tensor
    """Their positions, (rows, longest)."""
    seen: torch.Tensor
    """What each sees, (rows, longest, longest)."""
    starts: list[int]
    """Where each row's tree begins."""


def side_by_side(trees: Sequence[TokenTree], pad: int) -> Grove:
    """Trees as the model takes them; `pad` is the token that fills a row up, and sees itself alone."""
    longest = max(len(tree.tokens) for tree in trees)
    starts = [longest - len(tree.tokens) for tree in trees]
    ids = torch.full((len(trees), longest), pad)
    depths = torch.zeros_like(ids)
    seen = torch.eye(longest, dtype=torch.bool).repeat(len(trees), 1, 1)
    for row, (tree, start) in enumerate(zip(trees, starts, strict=True)):
        ids[row, start:] = torch.tensor(tree.tokens)
        ancestry = tree.ancestry()
        seen[row, start:, start:] = ancestry
        depths[row, start:] = ancestry.sum(dim=1) - 1
    return Grove(ids, depths, seen, starts)


class TreeReading:
    """Trees that a model has read, one a row, padded on the left."""

    def __init__(self, model: PreTrainedModel, trees: Sequence[TokenTree], pad: int, *, logits_from: int) -> None:
        """Read the trees.

        Args:
            model: A causal language model that takes a 4-dimensional attention mask.
            trees: The rows.
            pad: The token that fills a row up.
            logits_from: The first column whose logits are kept.
        """
        self._model = model
        grove = side_by_side(trees, pad)
        self.depths, self.seen = grove.depths, grove.seen
        self._starts, self._kept_from = grove.starts, logits_from
        self._cache: Any = None
        self._logits = self._forward(grove.ids, self.depths, self.seen, grove.ids.shape[1] - logits_from)

    def column(self, row: int, node: int) -> int:
        """Where a node of a row's tree stands."""
        return self._starts[row] + node

    def logits(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Of the tokens that follow these nodes, (nodes, vocabulary)."""
        return self._logits[rows, columns - self._kept_from].float()

    def read(self, tokens: torch.Tensor, depths: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Read one more token for each branch; logits, (rows, branches, vocabulary).

        Args:
            tokens: (rows, branches).
            depths: Positions of the tokens, (rows, branches).
            seen: What each token sees: all columns read before and the new ones, (rows, branches, columns).
        """
        return self._forward(tokens, depths, seen, tokens.shape[1]).float()

    def _forward(self, ids: torch.Tensor, depths: torch.Tensor, seen: torch.Tensor, keep: int) -> torch.Tensor:
        device = self._model.device
        out = self._model(
            input_ids=ids.to(device),
            attention_mask=mask_of(seen, self._model.dtype).to(device),
            position_ids=depths.to(device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=last(keep, ids.shape[1], device),
        )
        self._cache = out.past_key_values
        logits: torch.Tensor = out.logits
        return logits


def mask_of(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is seen, (rows, tokens, columns), as a 4-dimensional attention mask."""
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def looks_far(model: PreTrainedModel) -> bool:
    """Whether every layer looks at all that stands before a token, so that a branching mask says what it sees.

    Layers with a sliding window take the mask as it is and then forget their window; others read one line of tokens.
    Models without positions (ALiBi) count the columns of a 2-dimensional mask.
    """
    config = model.config.get_text_config()
    if "position_ids" not in inspect.signature(model.forward).parameters or getattr(config, "alibi", False):
        return False
    if kinds := getattr(config, "layer_types", None) or getattr(config, "attention_layers", None):
        return set(kinds) <= {"full_attention", "global"}
    return getattr(config, "sliding_window", None) is None


def target_losses(model: Any, trees: Sequence[TokenTree], targets: Sequence[Sequence[int]], pad: int) -> torch.Tensor:
    """The negative log-likelihoods of the last tokens of each sequence of each tree, as many as `targets` says.

    Row by row, sequence by sequence, one behind the other; the product with the vocabulary is taken where it is needed.
    """
    grove, device = side_by_side(trees, pad), next(model.parameters()).device
    wanted = [
        (row, path[-count - 1 :])
        for row, (tree, counts) in enumerate(zip(trees, targets, strict=True))
        for path, count in zip(tree.paths, counts, strict=True)
    ]
    rows = torch.tensor([row for row, nodes in wanted for _ in nodes[1:]])
    columns = torch.tensor([grove.starts[row] + node for row, nodes in wanted for node in nodes[:-1]])
    after = torch.tensor([trees[row].tokens[node] for row, nodes in wanted for node in nodes[1:]])
    head = model.get_output_embeddings()
    picking = head.register_forward_pre_hook(lambda _, given: (given[0][rows, columns],))
    attention = model.config._attn_implementation
    if device.type == "cpu" and grove.ids.shape[1] <= SHORT:
        model.config._attn_implementation = "eager"
    try:
        logits = model(
            input_ids=grove.ids.to(device),
            attention_mask=mask_of(grove.seen, head.weight.dtype).to(device),
            position_ids=grove.depths.to(device),
            use_cache=False,
        ).logits
    finally:
        picking.remove()
        model.config._attn_implementation = attention
    return torch.nn.functional.cross_entropy(logits.float(), after.to(device), reduction="none")


@torch.inference_mode()
def target_log_probabilities(
    model: PreTrainedModel, trees: Sequence[TokenTree], targets: Sequence[Sequence[int]], pad: int
) -> list[list[float]]:
    """For each sequence of each tree, the mean log-probability of its last tokens, as many as `targets` says."""
    if not looks_far(model):
        return _each_scored(model, trees, targets, pad)
    wanted = [
        (row, path[-count - 1 : -1], path[-count:])
        for row, (tree, counts) in enumerate(zip(trees, targets, strict=True))
        for path, count in zip(tree.paths, counts, strict=True)
    ]
    longest = max(len(tree.tokens) for tree in trees)
    first = min(longest - len(trees[row].tokens) + min(before) for row, before, _ in wanted)
    reading = TreeReading(model, trees, pad, logits_from=first)
    rows = torch.tensor([row for row, before, _ in wanted for _ in before])
    columns = torch.tensor([reading.column(row, node) for row, before, _ in wanted for node in before])
    tokens = torch.tensor([trees[row].tokens[node] for row, _, after in wanted for node in after])
    each = reading.logits(rows, columns).log_softmax(dim=-1).cpu().gather(1, tokens[:, None])[:, 0]
    means: list[list[float]] = [[] for _ in trees]
    start = 0
    for row, before, _ in wanted:
        means[row].append(each[start : start + len(before)].mean().item())
        start += len(before)
    return means


@torch.inference_mode()
def greedy_continuations(
    model: PreTrainedModel, trees: Sequence[TokenTree], *, longest: int, stops: Sequence[int], pad: int
) -> list[list[list[int]]]:
    """What the model writes after each sequence of each tree until a stop token (included), all side by side."""
    if not looks_far(model):
        return _each_continued(model, trees, longest=longest, stops=stops, pad=pad)
    branches = max(len(tree.paths) for tree in trees)
    size = max(len(tree.tokens) for tree in trees)
    ends = torch.full((len(trees), branches), size - 1)
    going = torch.zeros((len(trees), branches), dtype=torch.bool)
    for row, tree in enumerate(trees):
        for branch, path in enumerate(tree.paths):
            ends[row, branch] = size - len(tree.tokens) + path[-1]
            going[row, branch] = True
    reading = TreeReading(model, trees, pad, logits_from=int(ends.min()))
    rows = torch.arange(len(trees))[:, None]
    seen, depths = reading.seen[rows, ends], reading.depths[rows, ends]
    logits = reading.logits(rows.expand_as(ends), ends)
    written: list[list[list[int]]] = [[[] for _ in tree.paths] for tree in trees]
    for place in range(longest):
        tokens = logits.argmax(dim=-1).cpu()
        for row, branch in going.nonzero().tolist():
            written[row][branch].append(int(tokens[row, branch]))
        going &= ~torch.isin(tokens, torch.tensor(stops))
        if place + 1 == longest or not going.any():
            break
        seen = torch.cat([seen, torch.eye(branches, dtype=torch.bool).repeat(len(trees), 1, 1)], dim=2)
        depths = depths + 1
        logits = reading.read(tokens, depths, seen)
    return written


def _each_scored(
    model: PreTrainedModel, trees: Sequence[TokenTree], targets: Sequence[Sequence[int]], pad: int
) -> list[list[float]]:
    """As `target_log_probabilities`, each sequence in a row of its own, as many rows at once as there are trees."""
    rows = [sequence for tree in trees for sequence in tree.sequences]
    counts = [count for some in targets for count in some]
    means = [0.0] * len(rows)
    for part in alike(rows, len(trees)):
        ids, mask = (each.to(model.device) for each in padded([rows[number] for number in part], pad))
        kept = last(max(counts[number] for number in part) + 1, ids.shape[1], ids.device)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=kept)
        each = out.logits[:, :-1].float().log_softmax(dim=-1).gather(2, ids[:, kept[1:], None])[:, :, 0].cpu()
        for row, number in enumerate(part):
            means[number] = each[row, -counts[number] :].mean().item()
    scored = iter(means)
    return [[next(scored) for _ in tree.paths] for tree in trees]


def _each_continued(
    model: PreTrainedModel, trees: Sequence[TokenTree], *, longest: int, stops: Sequence[int], pad: int
) -> list[list[list[int]]]:
    """As `greedy_continuations`, each sequence in a row of its own, as many rows at once as there are trees."""
    rows = [sequence for tree in trees for sequence in tree.sequences]
    parts = list(alike(rows, len(trees)))
    readings = (Reading(model, [rows[number] for number in part], pad) for part in parts)
    texts = continuations(readings, longest=longest, stops=stops)
    numbers = [number for part in parts for number in part]
    written = dict(zip(numbers, texts, strict=True))
    ordered = iter(written[number] for number in range(len(rows)))
    return [[next(ordered) for _ in tree.paths] for tree in trees]
