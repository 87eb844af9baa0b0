"""How much each example and each token counts in the loss, by what people did to it and by its risk.

The loss of a batch is the mean over its tokens, each multiplied by its weight. Weights are scaled to the mean 1 over
all tokens that are learned, so a batch of heavy rationales moves the student more than one of light ones, and settings
that treat all alike change nothing.
"""

from collections.abc import Sequence

import torch

from loop.config import StudentConfig
from loop.ports import Example


def of_examples(examples: Sequence[Example], config: StudentConfig) -> torch.Tensor:
    """How much each example counts, not yet scaled, (examples,)."""
    gold = config.gold_weight
    assert not isinstance(gold, str), "what is validated is chosen before"
    return torch.tensor(
        [each.weight * (gold if each.gold else 1 - config.risk_weight * each.risk) for each in examples]
    )


def scaled(
    weights: Sequence[torch.Tensor], counted: Sequence[torch.Tensor], examples: Sequence[Example]
) -> list[torch.Tensor]:
    """The weights of what is counted, 0 elsewhere, with the mean 1 over the examples that are learned.

    `weights` and `counted` (1 or 0) hold a tensor an example: a number for each of its tokens, or for it as a whole.
    """
    learned = [number for number, each in enumerate(examples) if not each.validates]
    total = sum(float((weights[number] * counted[number]).double().sum()) for number in learned)
    count = sum(float(counted[number].double().sum()) for number in learned)
    factor = count / total if total else 1.0
    return [each * own * factor for each, own in zip(weights, counted, strict=True)]
