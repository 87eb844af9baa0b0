"""A sieve for large pools: of all items that stream by, those with the largest scores, in constant memory."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Key = TypeVar("Key")


def sieve(pieces: Iterable[tuple[Sequence[Key], NDArray[np.floating]]], size: int, *, seed: int) -> list[Key]:
    """Keys of the `size` largest scores, largest first; of equal ones a random choice, wherever they came.

    `pieces` are keys with their scores, (n,) each; a score that is no number counts as the lowest. Memory holds one
    piece and the best so far.
    """
    chance, keys = np.random.default_rng(seed), list[Key]()
    scores: NDArray[np.float64] = np.empty(0)
    lots: NDArray[np.float64] = np.empty(0)
    bound = -np.inf
    for more, their in pieces:
        found = np.nan_to_num(np.asarray(their, dtype=np.float64), nan=-np.inf, neginf=-np.inf)
        drawn = chance.random(len(found))
        passed = np.flatnonzero(found >= bound)
        keys += [more[place] for place in passed.tolist()]
        scores, lots = np.concatenate([scores, found[passed]]), np.concatenate([lots, drawn[passed]])
        if len(keys) > size:
            best = np.lexsort((lots, -scores))[:size]
            keys, scores, lots = [keys[place] for place in best.tolist()], scores[best], lots[best]
            bound = scores[-1]
    return [keys[place] for place in np.lexsort((lots, -scores)).tolist()]
