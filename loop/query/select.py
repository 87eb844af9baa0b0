"""From scores to a batch: candidates, chunks, the control arm, audits."""

import random
from collections.abc import Sequence

from loop.config import QueryConfig
from loop.ports import Student
from loop.query.divergence import divergences, rank_average
from loop.records import Item, Query, Score


def candidates(pool: Sequence[Item], *, size: int, seed: int) -> list[Item]:
    """A random part of the pool, by key; it bounds what scoring costs."""
    ordered = sorted(pool, key=lambda item: item.key)
    chosen = random.Random(f"candidates/{seed}").sample(ordered, min(size, len(ordered)))
    return sorted(chosen, key=lambda item: item.key)


def chunks(items: Sequence[Item], size: int) -> list[list[Item]]:
    """Pieces of the sorted items: a pure function of the keys."""
    ordered = sorted(items, key=lambda item: item.key)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def score_chunk(
    round_id: int, number: int, chunk: Sequence[Item], student: Student, config: QueryConfig, *, seed: int
) -> list[Score]:
    """The chunk's divergences; `score` is the plain mean until ranks are known."""
    parts = divergences(chunk, student, config, seed=hash_seed(seed, number))
    weight = config.intra_weight
    return [
        Score(
            round_id=round_id,
            item_key=item.key,
            chunk=number,
            score=weight * each["intra"] + (1 - weight) * each["inter"],
            parts=each,
        )
        for item, each in zip(chunk, parts, strict=True)
    ]


def final_scores(scores: Sequence[Score], config: QueryConfig) -> dict[str, float]:
    """What the candidates are ranked by, by key: both parts' ranks within all candidates, averaged."""
    ordered = sorted(scores, key=lambda score: score.item_key)
    ranks = rank_average(
        [score.parts["intra"] for score in ordered], [score.parts["inter"] for score in ordered], config.intra_weight
    )
    return {score.item_key: float(rank) for score, rank in zip(ordered, ranks, strict=True)}


def select_batch(
    round_id: int,
    scores: Sequence[Score],
    pool: Sequence[Item],
    config: QueryConfig,
    *,
    seed: int,
    audit_share: float,
) -> list[Query]:
    """The batch of a round: a control arm from the whole pool, the rest by divergence, ties broken at random."""
    control_size = round(config.random_share * min(config.batch_size, len(pool)))
    control = _draw(pool, control_size, seed)
    eligible = {item.key for item in pool} - {item.key for item in control}
    chance = random.Random(f"ties/{seed}")
    ranked = sorted(((rank, chance.random(), key) for key, rank in final_scores(scores, config).items()), reverse=True)
    best = [key for _, _, key in ranked if key in eligible][: config.batch_size - control_size]
    probability = control_size / len(pool) if pool else 0.0
    picks = [(key, "divergence", None) for key in best] + [(item.key, "random", probability) for item in control]
    return _queries(round_id, picks, seed, audit_share)


def random_batch(
    round_id: int, pool: Sequence[Item], config: QueryConfig, *, seed: int, audit_share: float, arm: str
) -> list[Query]:
    """A batch drawn at random from the pool."""
    size = min(config.batch_size, len(pool))
    probability = size / len(pool) if pool else 0.0
    return _queries(round_id, [(item.key, arm, probability) for item in _draw(pool, size, seed)], seed, audit_share)


def hash_seed(seed: int, number: int) -> int:
    """The seed of a chunk."""
    return random.Random(f"{seed}/{number}").getrandbits(32)


def _draw(pool: Sequence[Item], size: int, seed: int) -> list[Item]:
    return random.Random(f"random arm/{seed}").sample(sorted(pool, key=lambda item: item.key), size)


def _queries(
    round_id: int, picks: Sequence[tuple[str, str, float | None]], seed: int, audit_share: float
) -> list[Query]:
    """Rows for the picks, each with its audit drawn before anything is asked."""
    chance = random.Random(f"audits/{seed}")
    return [
        Query(
            round_id=round_id,
            item_key=key,
            position=position,
            arm=arm,
            probability=probability,
            audit=chance.random() < audit_share,
            audit_probability=audit_share,
        )
        for position, (key, arm, probability) in enumerate(picks)
    ]
