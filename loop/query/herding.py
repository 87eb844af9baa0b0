"""Uncertainty herding: a batch that covers what is doubted (after Bae et al., arXiv 2412.20644).

An item counts for the doubt that lies near it and near nothing that was asked or picked. Near means within a radius
that shrinks as more is asked: with few labels a batch spreads over the pool, with many it goes more and more by doubt.
"""

import heapq

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Positions = NDArray[np.intp]

WIDEST = 1.0
"""The radius while no two asked items are apart; embeddings have length 1."""
SAME = 1e-6
"""What is as near as this is the same text."""
BLOCK = 512
"""Rows of a matrix of nearness that are in memory at a time."""


def herded(
    doubt: Floats, embeddings: Floats, asked: Floats, cost: Floats, size: int, chance: np.random.Generator
) -> Positions:
    """Positions in the order in which they are picked, each for the most doubt that it newly covers for its cost.

    What is covered is sum_i doubt_i max_j exp(-|x_i - x_j|^2 / radius^2) with j over all asked and picked items; the
    radius is that of `radius`. Gains only fall while more is picked, so one is worked out
    anew only where it may be the largest (Minoux 1978).

    Args:
        doubt: (n,), at least 0; a candidate whose doubt is no number is picked last.
        embeddings: (n, dimensions).
        asked: Embeddings of the m items asked before, (m, dimensions).
        cost: What the gain of each is divided by, (n,).
        size: How many to pick.
        chance: Breaks ties.
    """
    points, scored = np.asarray(embeddings, dtype=np.float64), np.isfinite(doubt)
    weights, lots = np.where(scored, doubt, 0.0), chance.random(len(points))
    width = radius(np.asarray(asked, dtype=np.float64)) ** 2
    covered, first = np.zeros(len(points)), np.zeros(len(points))
    for start in range(0, len(points), BLOCK):
        block = slice(start, start + BLOCK)
        covered[block] = _near(points[block], asked, width).max(axis=1, initial=0.0)
    for start in range(0, len(points), BLOCK):
        block = slice(start, start + BLOCK)
        first[block] = np.maximum(_near(points[block], points, width) - covered, 0) @ weights
    waiting = [
        (-first[place] / cost[place] if scored[place] else np.inf, lots[place], place, 0)
        for place in range(len(points))
    ]
    heapq.heapify(waiting)
    chosen: list[int] = []
    while waiting and len(chosen) < size:
        _, lot, place, known = heapq.heappop(waiting)
        if known < len(chosen) and scored[place]:
            gain = np.maximum(_near(points[[place]], points, width)[0] - covered, 0) @ weights
            heapq.heappush(waiting, (-gain / cost[place], lot, place, len(chosen)))
            continue
        chosen.append(place)
        np.maximum(covered, _near(points[[place]], points, width)[0], out=covered)
    return np.array(chosen, dtype=np.intp)


def radius(asked: Floats) -> float:
    """Within which half of the asked items have another one that is not the same; `asked` is (m, dimensions).

    The paper takes the smallest distance between any two. Where a pool has a few texts that are nearly the same, or is
    made from templates, hardly anything lies within that.
    """
    nearest = np.full(len(asked), np.inf)
    for start in range(0, len(asked), BLOCK):
        squares = _squares(asked[start : start + BLOCK], asked)
        squares[squares <= SAME**2] = np.inf
        nearest[start : start + BLOCK] = squares.min(axis=1)
    apart = nearest[np.isfinite(nearest)]
    return float(np.sqrt(np.median(apart))) if len(apart) else WIDEST


def _near(rows: Floats, points: Floats, width: float) -> Floats:
    """How near each row is to each point: 1 is the same; (rows, points)."""
    nearness: Floats = np.exp(-_squares(rows, points) / width)
    return nearness


def _squares(rows: Floats, points: Floats) -> Floats:
    lengths = np.einsum("ij,ij->i", rows, rows)[:, None] + np.einsum("ij,ij->i", points, points)
    distances: Floats = np.maximum(lengths - 2 * (rows @ points.T), 0)
    return distances
