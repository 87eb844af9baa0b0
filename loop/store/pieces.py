"""Keys and ids in pieces that fit into one IN list."""

from collections.abc import Iterable
from typing import Any, TypeVar

MANY = 500
Name = TypeVar("Name", int, str, tuple[Any, ...])


def pieces(names: Iterable[Name]) -> list[list[Name]]:
    """The names in order, in pieces; each name once."""
    wanted = sorted(set(names))
    return [wanted[start : start + MANY] for start in range(0, len(wanted), MANY)]
