"""Adapters in the number format of the base model, with one product for the base and the first half of the adapter.

`peft` reads every input of a linear layer again in float32, which takes longer than the products. The weights of the
adapters stay in float32 and are what is trained and stored; they are rounded to the base model's format where they
meet its inputs, as the base model's own results are.
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from transformers.pytorch_utils import Conv1D

ALPHA = 2
"""Alpha as a multiple of the rank."""
ENCODERS = ("SEQ_CLS", "TOKEN_CLS")
"""What `peft` calls encoders with a last layer."""


class _Adapted(torch.autograd.Function):
    """x W' + scale x A' B', of which x, A and B get gradients."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> torch.Tensor:
        x, weight, bias, a, b, scale = given
        low = x @ a.T
        out = torch.nn.functional.linear(x, weight, bias)
        out.addmm_(low, b.T, alpha=scale)
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        [gradient] = gradients
        x, weight, a, b, low = ctx.saved_tensors
        below = gradient @ b * ctx.scale
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ weight
            of_x.addmm_(below, a)
        return of_x, None, None, below.T @ x, gradient.T @ low * ctx.scale, None


def settings(model: torch.nn.Module, rank: int, task: str, layers: str | Sequence[str] = "all-linear") -> LoraConfig:
    """Adapters of a rank on some layers of a model; `task` is what `peft` calls such models.

    What an encoder has behind its layers is trained whole: much of it is new, and random.
    """
    behind = [(name, each) for name, each in model.named_children() if name != getattr(model, "base_model_prefix", "")]
    head = [name for name, each in behind if next(each.parameters(), None) is not None]
    return LoraConfig(
        r=rank,
        lora_alpha=ALPHA * rank,
        target_modules=layers if isinstance(layers, str) else list(layers),
        task_type=task,
        modules_to_save=head if task in ENCODERS else None,
        fan_in_fan_out=any(isinstance(each, Conv1D) for each in model.modules()),
    )


def adapted(model: Any, rank: int, task: str, layers: str | Sequence[str] = "all-linear") -> torch.nn.Module:
    """The model with new adapters, which alone learn, quickened; as `settings` has them."""
    found: torch.nn.Module = get_peft_model(model, settings(model, rank, task, layers))
    quicken(found)
    return found


def quicken(model: Any) -> None:
    """Have the adapted linear layers of a model that trains compute in one format; their weights stay as they are.

    Encoders hold one format, and compute in another by `torch.autocast`, which `peft` leaves to it.
    """
    if model.active_peft_config.task_type in ENCODERS:
        return
    for layer in model.modules():
        if isinstance(layer, Linear) and isinstance(layer.get_base_layer(), torch.nn.Linear):
            layer.forward = MethodType(_forward, layer)


def _forward(layer: Linear, x: torch.Tensor) -> torch.Tensor:
    [name] = layer.active_adapters
    base, a, b = layer.get_base_layer(), layer.lora_A[name].weight.to(x.dtype), layer.lora_B[name].weight.to(x.dtype)
    flat = _Adapted.apply(x.flatten(0, -2), base.weight, base.bias, a, b, layer.scaling[name])  # type: ignore[no-untyped-call]
    out: torch.Tensor = flat.unflatten(0, x.shape[:-1])
    return out
