"""Enters what many requests want to write down into one transaction, since each one waits for the disk."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from loop.errors import BudgetSpent
from loop.ports import Till, Together

T = TypeVar("T")


@dataclass
class _Entry:
    """A call that waits to be made, and what came of it."""

    call: Callable[[], Any]
    withdrawn: bool = False
    made: bool = False
    result: Any = None
    refusal: BudgetSpent | None = None


@dataclass
class Clerk:
    """Makes the calls that came since the last transaction in the next one; each is written whole or not at all."""

    till: Till
    waiting: list[_Entry] = field(default_factory=list)
    entering: asyncio.Task[None] | None = None

    async def enter(self, call: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
        """What the call gives, once it is committed.

        A call that is cancelled is made all the same; one that can be undone is left out, or undone where it was made.

        Raises:
            BudgetSpent: the call does.
        """
        entry = _Entry(call)
        self.waiting.append(entry)
        if self.entering is None or self.entering.done():
            self.entering = asyncio.create_task(self._enter())
        try:
            await asyncio.shield(self.entering)
        except asyncio.CancelledError:
            if undo is not None:
                entry.withdrawn = True
                if entry.made and entry.refusal is None:
                    undo(entry.result)
            raise
        if entry.refusal is not None:
            raise entry.refusal
        result: T = entry.result
        return result

    async def _enter(self) -> None:
        """One transaction; nothing else runs meanwhile."""
        entries, self.waiting = [each for each in self.waiting if not each.withdrawn], []
        with self.till.together() if isinstance(self.till, Together) else nullcontext():
            for each in entries:
                try:
                    each.result = each.call()
                except BudgetSpent as spent:
                    each.refusal = spent
        for each in entries:
            each.made = True
