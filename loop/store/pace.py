"""Turns at an endpoint, shared by every process on the database: requests and tokens per minute, and its own word."""

import time
from collections.abc import Callable

from sqlmodel import Session

from loop.config import EndpointConfig, without_secrets
from loop.ports import SOON
from loop.records import Pace
from loop.store.database import Store, add_missing

MINUTE = 60.0
CATCH_UP = 2.0
"""Seconds of the allowed rate that may be made up for at once after a standstill."""
LONGEST = 120.0
"""Seconds beyond which no turn can lie; one that does was noted before the clock was set back."""


class EndpointPace:
    """Spaces requests evenly at the allowed rate, which also suits endpoints that look at single seconds.

    The times are those of the wall clock, the only one that processes on several machines share.
    """

    def __init__(self, store: Store, config: EndpointConfig, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        place = without_secrets(config.base_url or "the default address")
        self._endpoint = f"{config.model} at {config.recorded or place}"
        self._requests, self._tokens = config.requests_per_minute, config.tokens_per_minute

    def turn(self, tokens: int) -> float:
        """Seconds after which a request of so many tokens may go: noted if within `SOON`, else try again then."""
        if not self._requests and not self._tokens:
            with self._store.reading() as session:
                row = session.get(Pace, self._endpoint)
                return 0.0 if row is None else max(0.0, self._ahead(row.closed_until))
        with self._store.writing() as session:
            row = self._row(session)
            wait = max(self._ahead(each) for each in (row.closed_until, row.requests_at, row.tokens_at))
            if wait <= SOON:
                row.requests_at = self._after(row.requests_at, self._requests, 1)
                row.tokens_at = self._after(row.tokens_at, self._tokens, tokens)
                session.add(row)
            return max(0.0, wait)

    def close(self, seconds: float) -> None:
        """Give nobody a turn for so long."""
        with self._store.writing() as session:
            row = self._row(session)
            row.closed_until = self._clock() + min(LONGEST, max(seconds, self._ahead(row.closed_until)))
            session.add(row)

    def _row(self, session: Session) -> Pace:
        add_missing(session, Pace, endpoint=self._endpoint, requests_at=0.0, tokens_at=0.0, closed_until=0.0)
        return session.get_one(Pace, self._endpoint, with_for_update=True)

    def _ahead(self, moment: float) -> float:
        """Seconds until then, below 0 where it is past or cannot be meant."""
        left = moment - self._clock()
        return left if left <= LONGEST else -CATCH_UP

    def _after(self, moment: float, per_minute: int, used: int) -> float:
        """When the next may follow after so much; what is more than a minute's worth counts as a minute's worth."""
        if not per_minute:
            return moment
        start = self._clock() + max(-CATCH_UP, self._ahead(moment))
        return start + MINUTE * min(1.0, used / per_minute)
