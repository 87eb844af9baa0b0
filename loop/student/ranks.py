"""The processes that train one student together, as `accelerate launch` starts them; one, where it did not.

Each of them reads its share of every batch, and all of them take the same step with the sum of what they found.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import distributed

MESSAGE = 1 << 23
"""Numbers that are sent at once; PyTorch's own data parallelism takes about as many."""


def count() -> int:
    """How many there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def number() -> int:
    """Which of them this one is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def mine(batch: Sequence[int]) -> Sequence[int]:
    """This process's rows of a batch; rows of like length, which stand side by side, go to different ones."""
    return batch[number() :: count()]


def added(value: float) -> float:
    """The sum of a number over all of them."""
    if count() == 1:
        return value
    total = torch.tensor([value], dtype=torch.float64)
    total = total.cuda() if distributed.get_backend() == "nccl" else total
    distributed.all_reduce(total)
    return float(total.item())


def of_first(said: bool) -> bool:
    """What the first of them says; all of them ask."""
    return bool(added(float(said and number() == 0)))


def add_gradients(weights: Iterable[torch.nn.Parameter]) -> None:
    """Put the sum over all of them in the place of each gradient; of a process that had no row it is zero."""
    for some in _parts(weights) if count() > 1 else ():
        grads = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in some]
        together = torch.cat([grad.flatten() for grad in grads])
        distributed.all_reduce(together)
        for weight, total in zip(some, torch.split(together, [weight.numel() for weight in some]), strict=True):
            weight.grad = total.view_as(weight)


def _parts(weights: Iterable[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Weights whose gradients are sent together: as many as fill a message, and one at least."""
    part: list[torch.nn.Parameter] = []
    for weight in weights:
        if part and sum(each.numel() for each in part) + weight.numel() > MESSAGE:
            yield part
            part = []
        part.append(weight)
    yield part


def draw_apart(seed: int, step: int) -> None:
    """Let each of them draw its own numbers at each step (for dropout), the same ones however often it was killed."""
    if count() > 1:
        torch.manual_seed((seed * 1_000_003 + step) * count() + number())
