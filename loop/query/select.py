"""From what is known of the pool to a batch: candidates, chunks, the control arm, near-duplicates, audits."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from loop import resemblance
from loop.answer import Answer
from loop.config import Config, QueryConfig, ReviewConfig
from loop.ports import Student
from loop.query import racing
from loop.query.acquisition import ACQUISITIONS, HERDED, Candidates, Floats, filled
from loop.query.control import control_arm, control_share
from loop.query.divergence import divergences, rank_average
from loop.query.domains import quotas
from loop.records import Item, Query, Score

SPARE = 4
"""So many times the batch is ordered, so that near-duplicates can be passed over."""


@dataclass(frozen=True)
class Pool:
    """What may be asked: how many items, and of these at least the first of the control arm's order, a batch of them.

    `keys` gives the keys of all in their order, which stream anew at each call.
    """

    count: int
    first: Sequence[Item]
    keys: Callable[[], Iterable[str]] = tuple


@dataclass(frozen=True)
class Past:
    """What earlier rounds say to a batch: the items picked, one a pick, and each domain's part of `domain_share`."""

    picks: Sequence[Item] = ()
    shares: Mapping[str, float] = field(default_factory=dict)


NOTHING = Past()


def candidates(keys: Iterable[str], count: int, *, size: int, seed: int) -> Iterator[str]:
    """A random part of the pool, by key; it bounds what scoring costs.

    `keys` are `count` keys in their order, which stream by: memory holds the places of those that are drawn.
    """
    places = sorted(random.Random(f"candidates/{seed}").sample(range(count), min(size, count)), reverse=True)
    for place, key in enumerate(keys):
        if not places:
            return
        if place == places[-1]:
            places.pop()
            yield key


def chunks(items: Sequence[Item], size: int) -> list[list[Item]]:
    """Pieces of the sorted items: a pure function of the keys."""
    ordered = sorted(items, key=lambda item: item.key)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def score_chunk(
    round_id: int, number: int, chunk: Sequence[Item], student: Student, config: QueryConfig, *, seed: int
) -> list[Score]:
    """What the acquisition function needs to know of each item of a chunk.

    `score` is for people to look at: the plain mean of both divergences, or one minus the largest probability. Where
    it would be no number, which no database stores, the score is 0 and nothing is known of the item.
    """
    drawn = hash_seed(seed, number)
    if "divergence" in ACQUISITIONS[config.acquisition][1]:
        parts = divergences(chunk, student, config, seed=drawn)
        values = [_plain_mean(each, config) for each in parts]
    else:
        parts = _probabilities(chunk, student, config, seed=drawn)
        values = [1 - max(each["probabilities"]) for each in parts]
    return [
        Score(round_id=round_id, item_key=item.key, chunk=number, score=value, parts=each)
        if np.isfinite([value, *each.get("probabilities", ())]).all()
        else Score(round_id=round_id, item_key=item.key, chunk=number, score=0.0)
        for item, value, each in zip(chunk, values, parts, strict=True)
    ]


def race_chunk(
    rows: Sequence[Score], items: Mapping[str, Item], student: Student, config: QueryConfig, *, seed: int
) -> list[Score]:
    """The scores of a chunk of raced items, each with one more sampled answer; all have as many so far."""
    taken = len(rows[0].parts["sampled_answers"])
    explained = student.explain(
        [items[row.item_key] for row in rows],
        copies=[taken + 1],
        temperature=config.temperature,
        top_p=config.top_p,
        seed=seed,
    )
    answers = [None if each.answer is None else each.answer.canonical for [each] in explained]
    return [
        _changed(row, {"sampled_answers": [*row.parts["sampled_answers"], answer]}, config)
        for row, answer in zip(rows, answers, strict=True)
    ]


def after_race(rows: Sequence[Score], config: QueryConfig) -> list[Score]:
    """The scores with the divergence between explanations that all K samples are expected to show."""
    expected = racing.foresee([row.parts for row in rows], config)
    return [_changed(row, {"inter": float(inter)}, config) for row, inter in zip(rows, expected, strict=True)]


def known(
    parts: Sequence[Mapping[str, Any]],
    embeddings: Floats,
    asked: Floats,
    trusted: Floats,
    cost: Floats,
    config: QueryConfig,
) -> Candidates:
    """What was scored and embedded, as the acquisition functions take it; `parts` may be empty mappings.

    `cost` is relative to the mean; the functions get it with its weight as exponent.
    """
    intra, inter = ([each.get(name, np.nan) for each in parts] for name in ("intra", "inter"))
    return Candidates(
        divergence=rank_average(intra, inter, config.intra_weight),
        mean_divergence=config.intra_weight * np.array(intra) + (1 - config.intra_weight) * np.array(inter),
        probabilities=filled([each.get("probabilities", ()) for each in parts]),
        embeddings=np.nan_to_num(embeddings),
        asked=np.nan_to_num(asked),
        trusted=trusted,
        cost=cost**config.cost_weight,
    )


def best(items: Sequence[Item], found: Candidates, config: QueryConfig, *, seed: int) -> list[Item]:
    """The items that the acquisition function would ask about, best first; enough to pass over near-duplicates."""
    acquire, _ = ACQUISITIONS[config.acquisition]
    chance = np.random.default_rng(seed)
    size = min(len(items), max(SPARE, config.diversity) * config.batch_size)
    by_value = replace(found, embeddings=found.embeddings[:0]) if config.acquisition in HERDED else found
    order = acquire(by_value, size, chance)
    if is_herded(config):
        first = order[: config.diversity * config.batch_size]
        covering = acquire(found.only(first), min(len(first), SPARE * config.batch_size), chance)
        order = np.concatenate([first[covering], order[len(first) :]])
    return [items[position] for position in order]


def is_herded(config: QueryConfig) -> bool:
    """Whether the batch is to cover what is doubted; the embeddings for that are the untrained student's."""
    return config.diversity > 1 and config.acquisition in HERDED


def compose(
    round_id: int,
    wanted: Sequence[Item],
    pool: Pool,
    config: Config,
    *,
    seed: int,
    past: Past = NOTHING,
) -> list[Query]:
    """The batch of a round: the control arm from the whole pool, then what is wanted most, without near-duplicates.

    Near-duplicates, of the control arm and of what was picked before too, are taken after all where the batch would not
    be full without them. `wanted` are of the pool.
    """
    query = config.query
    size = min(query.batch_size, pool.count)
    control = control_arm(pool.first, control_share(query.random_share, size, len(past.picks)), config.run.seed)
    drawn = {item.key for item in control}
    rest = [item for item in wanted if item.key not in drawn]
    fresh = list(_without_duplicates(rest, [*past.picks, *control], query.duplicate_similarity))
    taken = {item.key for item in fresh}
    ordered = [*fresh, *(item for item in rest if item.key not in taken)]
    left = size - len(control)
    chosen = _spread(ordered, round(query.domain_share * left), past.shares)[:left]
    arm = "divergence" if query.acquisition == "explanation_divergence" else query.acquisition
    probability = len(control) / pool.count if pool.count else 0.0
    picks = [(item.key, arm, None) for item in chosen] + [(item.key, "random", probability) for item in control]
    return _queries(round_id, picks, seed, config.review)


def random_batch(round_id: int, pool: Pool, config: Config, *, seed: int, arm: str) -> list[Query]:
    """A batch by chance: all of it is the control arm."""
    size = min(config.query.batch_size, pool.count)
    probability = size / pool.count if pool.count else 0.0
    picks = [(item.key, arm, probability) for item in control_arm(pool.first, size, config.run.seed)]
    return _queries(round_id, picks, seed, config.review)


def hash_seed(seed: int, number: int) -> int:
    """The seed of a chunk."""
    return random.Random(f"{seed}/{number}").getrandbits(32)


def _changed(row: Score, change: Mapping[str, Any], config: QueryConfig) -> Score:
    parts = {**row.parts, **change}
    return Score(
        round_id=row.round_id, item_key=row.item_key, chunk=row.chunk, score=_plain_mean(parts, config), parts=parts
    )


def _plain_mean(parts: Mapping[str, Any], config: QueryConfig) -> float:
    mean: float = config.intra_weight * parts["intra"] + (1 - config.intra_weight) * parts["inter"]
    return mean


def _probabilities(
    chunk: Sequence[Item], student: Student, config: QueryConfig, *, seed: int
) -> list[dict[str, list[float]]]:
    """Of the allowed answers, given the item alone; where any answer is allowed, shares of the sampled answers."""
    direct = student.probabilities(chunk)
    if all(direct):
        return [{"probabilities": list(each)} for each in direct]
    explained = student.explain(
        chunk, copies=range(config.samples + 1), temperature=config.temperature, top_p=config.top_p, seed=seed
    )
    return [{"probabilities": _shares([each.answer for each in some[1:]])} for some in explained]


def _shares(answers: Sequence[Answer | None]) -> list[float]:
    """Share of each distinct answer, the largest first; every unreadable one is a class of its own."""
    counts: dict[str, int] = {}
    for number, answer in enumerate(answers):
        name = f"unreadable {number}" if answer is None else answer.canonical
        counts[name] = counts.get(name, 0) + 1
    return sorted((count / len(answers) for count in counts.values()), reverse=True)


def _spread(ordered: Sequence[Item], size: int, shares: Mapping[str, float]) -> list[Item]:
    """The items, so many first that fill the quotas of their domains; within both parts the order stays."""
    if not shares or not size:
        return list(ordered)
    open_places = quotas(shares, size, Counter(item.domain for item in ordered))
    first, rest = [], []
    for item in ordered:
        if open_places[item.domain]:
            open_places[item.domain] -= 1
            first.append(item)
        else:
            rest.append(item)
    return [*first, *rest]


def _without_duplicates(items: Sequence[Item], others: Sequence[Item], similarity: float) -> Iterator[Item]:
    """The items that resemble none before them and none of the others; an item does not resemble itself.

    Resemblance is the estimated Jaccard index of their shingles.
    """
    if similarity >= 1:
        yield from items
        return
    index = resemblance.index(similarity)
    for other in {item.key: item for item in others}.values():
        index.insert(other.key, resemblance.sketch(other.text))
    for item in items:
        sketch = resemblance.sketch(item.text)
        if not {*index.query(sketch)} - {item.key}:
            if item.key not in index:
                index.insert(item.key, sketch)
            yield item


def _queries(
    round_id: int, picks: Sequence[tuple[str, str, float | None]], seed: int, config: ReviewConfig
) -> list[Query]:
    """Rows for the picks, each with its audit, and what that serves, drawn before anything is asked."""
    audits, certifying = random.Random(f"audits/{seed}"), random.Random(f"certify/{seed}")
    drawn = [(audits.random() < config.audit_share, certifying.random() < config.certify_share) for _ in picks]
    return [
        Query(
            round_id=round_id,
            item_key=key,
            position=position,
            arm=arm,
            probability=probability,
            audit=audit,
            audit_probability=config.audit_share,
            certify=audit and certify,
        )
        for position, ((key, arm, probability), (audit, certify)) in enumerate(zip(picks, drawn, strict=True))
    ]
