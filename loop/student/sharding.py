"""A model of which each process that trains it holds a slice: weights, gradients and the optimiser's numbers (FSDP2).

The weights of a block are gathered before it computes and let go behind it; gradients are added up into slices, as
`ranks.add_gradients` adds those of models that every process holds whole. Gathering takes all processes, so each of
them passes through the model as often as the others, also where it has nothing to read.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from peft import PeftModel
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from loop.student import ranks


def shard(model: torch.nn.Module) -> None:
    """Leave this process its slice of every weight, on its own device; each block is gathered by itself."""
    for each in (*_blocks(model), model):
        part = fully_shard(each, reshard_after_forward=True)  # the root too: weights may change before the next pass
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo knows no sum that divides


def _blocks(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """What the model has a list of: its layers, each read once in a pass."""
    for child in model.children():
        yield from child if isinstance(child, torch.nn.ModuleList) else _blocks(child)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether each process holds a slice of it."""
    return isinstance(model, FSDPModule)


def to_read(model: torch.nn.Module, mine: Sequence[int], every: Sequence[int]) -> tuple[Sequence[int], float]:
    """Rows that this process reads of those that all of them have to read together, and what their loss counts.

    Its own; where it has none, and the others cannot pass through the model without it, one of theirs for nothing.
    """
    return (mine, 1.0) if mine or not is_sharded(model) else (every[:1], 0.0)


def gathered(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, slices put together in the first process's own memory; the others keep what they have."""
    apart = {id(each): each for each in tensors.values()}  # tied weights are one
    found = {key: _for_the_first(each.detach()) for key, each in apart.items()}
    return {name: found[id(each)] for name, each in tensors.items()}


def _for_the_first(tensor: torch.Tensor) -> torch.Tensor:
    whole = together(tensor)
    return whole.cpu() if whole is not tensor and ranks.number() == 0 else tensor


def together(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of which each process may hold a slice, or its share of a sum; all of them ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def checkpointed(model: torch.nn.Module) -> dict[str, torch.Tensor] | None:
    """What a checkpoint keeps of the model, as `gathered`; None where each process has all of it."""
    if not is_sharded(model):
        return None
    held = model.state_dict(keep_vars=True)
    adapters = isinstance(model, PeftModel)
    return gathered({name: each for name, each in held.items() if each.requires_grad or not adapters})


def laid_out(tensor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A tensor that all processes have, where a weight is and, if it is of its form, sliced like it."""
    if isinstance(weight, DTensor) and tensor.shape == weight.shape:
        slices = distribute_tensor(tensor, weight.device_mesh, weight.placements, src_data_rank=None)
        return slices.clone()  # which lets go of the rest
    return tensor.to(weight.device)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
