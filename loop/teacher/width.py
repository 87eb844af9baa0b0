"""How many requests may be under way: more while all goes well, half as many where the endpoint is overloaded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Place:
    """One request's place. Whoever holds it says whether the endpoint was overloaded."""

    cuts: int
    """Cuts before it was taken: a request that was sent before a cut says nothing about what came of it."""
    overloaded: bool = False


@dataclass
class Width:
    """Additive increase, multiplicative decrease: one more a round trip, half as many at a sign of overload."""

    most: int
    allowed: float = 0.0
    busy: int = 0
    cuts: int = 0
    freed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.allowed = float(self.most)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """A place for one request, as soon as one is free."""
        while self.busy >= int(self.allowed):
            self.freed.clear()
            await self.freed.wait()
        self.busy += 1
        taken = Place(self.cuts)
        try:
            yield taken
        finally:
            self.busy -= 1
            self._adapt(taken)
            self.freed.set()

    def _adapt(self, place: Place) -> None:
        if not place.overloaded:
            self.allowed = min(float(self.most), self.allowed + 1 / self.allowed)
        elif place.cuts == self.cuts:
            self.allowed = max(1.0, self.allowed / 2)
            self.cuts += 1
