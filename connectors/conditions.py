"""Conditions as people write them: `error<=0.05`, `decision=gold`, `key!=q17`."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loop.errors import PreceptorError

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
WRITTEN = re.compile(r"\s*(\w+)\s*(<=|>=|!=|=|<|>)\s*(.*\S)\s*", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """A name, how it is compared, and with what."""

    name: str
    sign: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.value}"

    @property
    def number(self) -> float:
        """The value as a number.

        Raises:
            PreceptorError: it is none.
        """
        try:
            return float(self.value)
        except ValueError as error:
            raise PreceptorError(f"{self}: {self.value!r} is not a number") from error

    def holds(self, found: Any) -> bool:
        """Whether a value meets it: numbers are compared as numbers, of a list any member counts."""
        if isinstance(found, list):
            given = [self.holds(each) for each in found]
            return all(given) if self.sign == "!=" else any(given)
        if isinstance(found, bool):
            found = str(found).lower()
        if isinstance(found, int | float):
            return OPERATORS[self.sign](found, self.number)
        return found is not None and OPERATORS[self.sign](found, self.value)


def together(conditions: Sequence[Condition]) -> list[list[Condition]]:
    """Conditions of which one in each list has to hold: what a name may equal are alternatives, all else is not."""
    alternatives: dict[str, list[Condition]] = {}
    for each in conditions:
        alternatives.setdefault(each.name if each.sign == "=" else str(each), []).append(each)
    return [*alternatives.values()]


def asks_for_kinds(conditions: Sequence[Condition]) -> bool:
    """Whether decisions of other kinds than gold and silver may be meant: they have to be named."""
    return any(each.name == "decision" and each.sign == "=" for each in conditions)


def condition(text: str, known: Sequence[str]) -> Condition:
    """The condition that a text states.

    Raises:
        PreceptorError: it states none, or about a name that is not known.
    """
    found = WRITTEN.fullmatch(text)
    if found is None:
        raise PreceptorError(f"{text}: not a condition; expected NAME=VALUE, or <=, >=, !=, <, > in place of =")
    if found[1] not in known:
        raise PreceptorError(f"{text}: {found[1]} is not known; known: {', '.join(known)}")
    return Condition(found[1], found[2], found[3])
