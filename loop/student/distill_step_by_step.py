"""The objective of Distilling Step-by-Step (arXiv 2305.02301): answer directly, and explain and then answer.

Each task's loss is averaged over its own target tokens before the two are mixed, because rationales are much longer.
The paper's ablation is the other objective: one target that holds steps and then the answer. Its two parts are
averaged apart and mixed as the two tasks are, in one pass instead of two.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from loop.config import StudentConfig
from loop.ports import Example
from loop.student import prompts, weighing
from loop.student.reading import padded
from loop.student.tree import grow, target_losses
from loop.student.writer import Writer

Row = tuple[list[int], list[int]]
"""Context and target of an example, as token ids."""
Rows = list[Row]
TokenLosses = tuple[torch.Tensor, torch.Tensor]
"""Negative log-likelihood of each target token, and which places are targets, (rows, longest target) each."""
OfTokens = list[torch.Tensor]
"""A number for each target token, a tensor a row."""
OfRows = Callable[[torch.nn.Module, Sequence[Rows]], Iterator[list[torch.Tensor]]]
"""Gives the losses of the target tokens of each task's rows, row behind row; those of a pass together."""


@dataclass(frozen=True)
class Part:
    """What is averaged together: some of the target tokens, and their share of the loss."""

    share: float
    counted: OfTokens
    """1 for tokens of this part, 0 for others."""
    weights: OfTokens
    """How much each token counts, 0 for those of other parts; 1 in the mean."""

    def loss(self, nll: torch.Tensor, some: Sequence[int], batch: Sequence[int]) -> torch.Tensor:
        """What some rows of a batch add to the part's share of its loss; `nll` are their target tokens, row by row."""
        weights = torch.cat([self.weights[number] for number in some]).to(nll.device)
        counted = sum(float(self.counted[number].sum()) for number in batch)
        return self.share * (nll * weights).sum() / max(counted, 1e-9)


@dataclass(frozen=True)
class Task:
    """Rows that are read in one pass, and what their targets are made of."""

    rows: Rows
    parts: Sequence[Part]


Tasks = list[tuple[float, Rows, torch.Tensor]]
"""Each task's share of the loss, its rows and their weights."""


def by_rows(mixed: Sequence[Task]) -> Tasks:
    """Tasks of one part each, whose tokens weigh alike within a row."""
    found: Tasks = []
    for task in mixed:
        [part] = task.parts
        found.append((part.share, task.rows, torch.stack([each.mean() for each in part.weights])))
    return found


def tasks(base: Writer[Any], examples: Sequence[Example], config: StudentConfig) -> list[Task]:
    """The answer task and the rationale task, in this order, without one that has no share; or the one task of both."""
    share, weights = config.rationale_weight, weighing.of_examples(examples, config)
    rationales = [
        row(
            base,
            prompts.rationale_prompt(each.item),
            prompts.rationale_target(each.item, each.steps, each.answer),
        )
        for each in examples
    ]
    told = [float(bool(each.steps)) for each in examples]  # no steps are no rationale
    every = [torch.full((len(target),), each) for (_, target), each in zip(rationales, told, strict=True)]
    weighed = [
        weight * _emphasis(base, each, len(target), config)
        for weight, each, (_, target) in zip(weights, examples, rationales, strict=True)
    ]

    def part(own: float, counted: OfTokens, of: OfTokens) -> Part:
        return Part(own, counted, weighing.scaled(of, counted, examples))

    if config.targets == "rationale_then_answer":
        steps = [each * _is_step(base, one, len(each)) for each, one in zip(every, examples, strict=True)]
        behind = [each - own for each, own in zip(every, steps, strict=True)]
        return [Task(rationales, [part(1 - share, behind, weighed), part(share, steps, weighed)])]
    answers = [
        row(base, prompts.answer_prompt(each.item), prompts.answer_target(each.item, each.answer)) for each in examples
    ]
    all_of_it = [torch.ones(len(target)) for _, target in answers]
    plain = [weight * each for weight, each in zip(weights, all_of_it, strict=True)]
    both = [(1 - share, answers, all_of_it, plain), (share, rationales, every, weighed)]
    return [Task(rows, [part(own, counted, of)]) for own, rows, counted, of in both if own > 0]


def losses(
    model: torch.nn.Module,
    mixed: Sequence[Task],
    some: Sequence[int],
    of_rows: OfRows,
    batch: Sequence[int] | None = None,
) -> Iterator[torch.Tensor]:
    """What some rows add to the loss of a batch (of themselves where none is named), as much as is read in one pass."""
    read = of_rows(model, [[task.rows[number] for number in some] for task in mixed])
    tasks = iter(mixed)
    for together in read:
        whole = some if batch is None else batch
        parts = [part.loss(nll, some, whole) for nll, task in zip(together, tasks, strict=False) for part in task.parts]
        yield torch.stack(parts).sum()


def together(model: torch.nn.Module, by_task: Sequence[Rows], pad: int) -> Iterator[list[torch.Tensor]]:
    """The losses of a causal model: what the tasks of an example have in common is read once, all tasks in one pass."""
    trees = [grow([context + target for context, target in rows]) for rows in zip(*by_task, strict=True)]
    counts = [[len(target) for _, target in rows] for rows in zip(*by_task, strict=True)]
    each = torch.split(target_losses(model, trees, counts, pad), [count for some in counts for count in some])
    yield [torch.cat(each[number :: len(by_task)]) for number in range(len(by_task))]


def one_by_one(
    model: torch.nn.Module, by_task: Sequence[Rows], of_tokens: Callable[..., TokenLosses]
) -> Iterator[list[torch.Tensor]]:
    """The losses of a model to which the tasks of an example are different texts from the start."""
    for rows in by_task:
        nll, is_target = of_tokens(model, rows)
        yield [nll[is_target.bool()]]


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


def _emphasis(base: Writer[Any], example: Example, length: int, config: StudentConfig) -> torch.Tensor:
    """How much each token of a rationale's target counts beside the others, (length,)."""
    found = torch.ones(length)
    if example.repaired and config.repaired_weight != 1:
        ends = base.step_ends(example.steps)
        for number in example.repaired:
            found[ends[number] : ends[number + 1]] = config.repaired_weight
    return found


def _is_step(base: Writer[Any], example: Example, length: int) -> torch.Tensor:
    """1 for each token of a rationale's target that is of its steps, 0 behind them, (length,)."""
    return (torch.arange(length) < base.step_ends(example.steps)[-1]).float()


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
