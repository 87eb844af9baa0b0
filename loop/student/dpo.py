"""Preferences from corrections: what people wrote becomes likelier beside what they corrected or rejected.

The loss is that of DPO (arXiv 2305.18290), added to the likelihood of the decided rationales as in Iterative Reasoning
Preference Optimization (arXiv 2404.19733), so that one training, which goes on after a kill, holds both. The reference
is the model with which the training begins; what it says of the pairs is taken once, before anything is learned.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from loop.ports import Example
from loop.student import prompts
from loop.student.distill_step_by_step import Row, TokenLosses, row
from loop.student.writer import Writer

BETA = 0.1
"""How far from the reference the preferences may lead: the larger, the less."""
AT_ONCE = 8
"""Pairs that the reference reads side by side."""

Pairs = Mapping[int, tuple[Row, Row]]
"""What is preferred to what, by the number of the example."""


def pairs(base: Writer[Any], examples: Sequence[Example]) -> Pairs:
    """The pairs of the examples that have one; of those that do not fit into the model, none."""
    found = {}
    for number, each in enumerate(examples):
        if each.refused is None or not each.steps:
            continue
        prompt = prompts.rationale_prompt(each.item)
        preferred, refused = (
            row(base, prompt, prompts.rationale_target(each.item, steps, answer))
            for steps, answer in ((each.steps, each.answer), each.refused)
        )
        if preferred != refused and not base.crowded(len(refused[0]), len(refused[1])):
            found[number] = preferred, refused
    return found


def reference(model: torch.nn.Module, of: Pairs, of_tokens: Callable[..., TokenLosses]) -> dict[int, float]:
    """By how much the preferred rationale of each pair is likelier to the model as it is, in log-probability."""
    numbers = sorted(of)
    model.train(False)
    with torch.no_grad():
        parts = (numbers[start : start + AT_ONCE] for start in range(0, len(numbers), AT_ONCE))
        leads = [lead for part in parts for lead in _leads(model, [of[number] for number in part], of_tokens).tolist()]
    return dict(zip(numbers, leads, strict=True))


def loss(
    model: torch.nn.Module,
    some: Sequence[tuple[Row, Row]],
    before: Sequence[float],
    of_tokens: Callable[..., TokenLosses],
) -> torch.Tensor:
    """The sum of the losses of some pairs, of which the reference said so much before."""
    leads = _leads(model, some, of_tokens)
    return -torch.nn.functional.logsigmoid(BETA * (leads - torch.tensor(before, device=leads.device))).sum()


def _leads(
    model: torch.nn.Module, some: Sequence[tuple[Row, Row]], of_tokens: Callable[..., TokenLosses]
) -> torch.Tensor:
    """By how much each preferred rationale is likelier than the refused one, (pairs,)."""
    nll, is_target = of_tokens(model, [each for one in zip(*some, strict=True) for each in one])
    preferred, refused = -(nll * is_target).sum(dim=1).view(2, -1)
    leads: torch.Tensor = preferred - refused
    return leads
