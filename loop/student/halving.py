"""Work on many items that does not fit into the memory is done half by half."""

import gc
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch

from loop.errors import StudentError

Method = TypeVar("Method", bound=Callable[..., Any])
FULL = ("can't allocate memory", "not enough memory", "out of memory")
"""What torch says where the processor's memory does not suffice; it has no error of its own for that."""


def halved(method: Method) -> Method:
    """A student's method that takes items, and perhaps as much for each of them, and gives something for each.

    Where the memory does not suffice for all items, one half follows the other, and so on down to single ones.

    Raises:
        StudentError: the memory does not suffice for a single item.
    """

    @wraps(method)
    def careful(student: Any, *by_item: Sequence[Any], **settings: Any) -> Any:
        full = None
        try:
            return method(student, *by_item, **settings)
        except (MemoryError, RuntimeError) as error:
            if not is_full(error):
                raise
            full = str(error).splitlines()[0]
        _make_room()  # here the error no longer holds what the first attempt had made
        if len(by_item[0]) == 1:
            raise StudentError(
                f"the memory does not suffice for a single item ({full}); lower student.max_prompt_tokens, "
                "student.max_new_tokens or query.samples, or end other programs; `preceptor run` goes on from there"
            )
        return _joined([careful(student, *half, **settings) for half in _halves(by_item)])

    return cast("Method", careful)


def _halves(by_item: Sequence[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    """The first and the second half of each of several rows of one length."""
    middle = len(by_item[0]) // 2
    yield [each[:middle] for each in by_item]
    yield [each[middle:] for each in by_item]


def _joined(halves: Sequence[Any]) -> Any:
    """What came of both halves, as it would have come of the whole."""
    if isinstance(halves[0], np.ndarray):
        return np.concatenate(halves)
    return [each for half in halves for each in half]


def is_full(error: Exception) -> bool:
    """Whether what failed is the memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(each in str(error) for each in FULL)


def _make_room() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
