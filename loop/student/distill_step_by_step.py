"""The objective of Distilling Step-by-Step (arXiv 2305.02301): answer directly, and explain and then answer.

Each task's loss is averaged over its own target tokens before the two are mixed, because rationales are much longer.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from loop.ports import Example
from loop.student import prompts
from loop.student.reading import padded
from loop.student.writer import Writer

Row = tuple[list[int], list[int]]
"""Context and target of an example, as token ids."""
Rows = list[Row]
Tasks = list[tuple[float, Rows, torch.Tensor]]
"""Each task's share of the loss, its rows and their weights; tasks with no share are left out."""


TokenLosses = tuple[torch.Tensor, torch.Tensor]
"""Negative log-likelihood of each target token, and which places are targets, (rows, longest target) each."""


def tasks(base: Writer[Any], examples: Sequence[Example]) -> Tasks:
    """The answer task and the rationale task, in this order."""
    answers = [(prompts.answer_prompt(each.item), prompts.answer_target(each.item, each.answer)) for each in examples]
    rationales = [
        (prompts.rationale_prompt(each.item), prompts.rationale_target(each.item, each.steps, each.answer))
        for each in examples
    ]
    weight = base.student.rationale_weight
    weights = torch.tensor([each.weight for each in examples])
    told = torch.tensor([float(bool(each.steps)) for each in examples])  # no steps are no rationale
    both = [(1 - weight, answers, weights), (weight, rationales, weights * told)]
    return [(share, [row(base, *texts) for texts in pairs], own) for share, pairs, own in both if share > 0]


def losses(
    model: torch.nn.Module, mixed: Tasks, batch: Sequence[int], of_tokens: Callable[..., TokenLosses]
) -> Iterator[torch.Tensor]:
    """Each task's share of one batch's loss, made when it is asked for; `of_tokens` gives the losses of some rows."""
    for share, rows, weights in mixed:
        token_loss, is_target = of_tokens(model, [rows[number] for number in batch])
        counted = is_target * weights[list(batch)].to(is_target.device)[:, None]
        yield share * (token_loss * counted).sum() / counted.sum().clamp(min=1e-9)


def token_losses(model: torch.nn.Module, rows: Rows, pad: int) -> TokenLosses:
    """The losses of the target tokens of a causal model."""
    logits, targets, is_target = target_logits(model, rows, pad)
    nll = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return nll.view(targets.shape), is_target


def target_logits(model: torch.nn.Module, rows: Rows, pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a causal model, the tokens that stand there, and which places are targets (1 or 0).

    (rows, longest target, vocabulary), and (rows, longest target) twice. Rows stand at the right end, so that logits
    are computed for target places only.
    """
    ids, mask = (each.to(_device(model)) for each in padded([context + target for context, target in rows], pad))
    longest = max(len(target) for _, target in rows)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    out = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=longest + 1, use_cache=False)
    lengths = torch.tensor([len(target) for _, target in rows], device=ids.device)
    is_target = (torch.arange(longest, device=ids.device)[None, :] >= longest - lengths[:, None]).float()
    return out.logits[:, :-1], ids[:, -longest:], is_target


def row(base: Writer[Any], prompt: str, target: str) -> Row:
    """Context and target of a prompt and what is to be written after it."""
    return base.encoded(prompt), [*base.tokens(target), base.end]


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
