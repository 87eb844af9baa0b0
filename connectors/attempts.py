"""How often somebody may try to log in."""

import ipaddress
import time
from collections import defaultdict, deque
from collections.abc import Callable

WINDOW_SECONDS = 15 * 60.0
MOST_BY_NAME, MOST_BY_ADDRESS = 5, 20
"""So many failed attempts to log in within the window, then nobody is listened to."""


class TooOften(Exception):
    """Too many attempts to log in failed; `seconds` until the next is listened to."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Too many attempts failed. Try again in {max(1, round(seconds / 60))} minutes.")
        self.seconds = seconds


class Attempts:
    """Attempts to log in that failed, by name and by address. It is kept by this process alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)

    def begin(self, name: str, address: str, *, known: bool = False) -> None:
        """Count an attempt as failed until it is known to be right; by its address alone where the name is empty.

        `known`: it comes from a browser in which the name's password was right before. It is counted apart, so that
        nobody else can use up what its owner has.

        Raises:
            TooOften: there were too many.
        """
        start = self._clock() - WINDOW_SECONDS
        for key in list(self._failed):
            while self._failed[key] and self._failed[key][0] <= start:
                self._failed[key].popleft()
            if not self._failed[key]:
                del self._failed[key]
        keys = _counted(name, address, known=known)
        full = [self._failed[key][0] - start for key, most in keys.items() if len(self._failed.get(key, ())) >= most]
        if full:
            raise TooOften(max(full))
        for key in keys:
            self._failed[key].append(self._clock())

    def succeeded(self, name: str, address: str, *, known: bool = False) -> None:
        """The last attempt was right: those under this name are forgiven, the address keeps its other ones."""
        self._failed.pop(("browser" if known else "name", name), None)
        if not known:
            self._failed[("address", network(address))].pop()


def _counted(name: str, address: str, *, known: bool) -> dict[tuple[str, str], int]:
    """What an attempt counts against, and how many of them there may be."""
    if known:
        return {("browser", name): MOST_BY_NAME}
    return {("address", network(address)): MOST_BY_ADDRESS} | ({("name", name): MOST_BY_NAME} if name else {})


def network(address: str) -> str:
    """What one caller has at hand: an address, of version 6 all that share its first half."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address
