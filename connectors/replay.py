"""What a campaign would have asked and passed with another acquisition function, budget or threshold, by its record.

Nothing is asked, trained or scored again. Each round picks among the candidates that it scored then, by the scores of
the student that it had; that student learned from what was really asked. An item that was never asked has no reply, so
nothing is said of it but that it was picked.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from connectors.wiring import Project
from loop.config import Config
from loop.errors import BadConfig
from loop.interval import share
from loop.ledger import MICRO
from loop.query import select
from loop.query.acquisition import ACQUISITIONS
from loop.query.control import first_keys
from loop.records import Query, Score, Split, Stage, found_wrong
from loop.store import items, reading, reviews, rounds
from loop.store.database import Store

RECORDED = ("divergence", "probabilities")
"""Signals of acquisition functions that are stored with scores; embeddings are not."""


@dataclass(frozen=True)
class Known:
    """What the record holds of an item that was asked."""

    micro_usd: int
    risk: float | None
    wrong: bool | None
    """By an audit, which was drawn whatever the risk; None: not audited, or not reviewed."""


@dataclass
class Picks:
    """What was picked, round by round, and where a round could only be taken as it was."""

    keys: list[str] = field(default_factory=list)
    as_it_was: list[int] = field(default_factory=list)


def replay(project: Project, *, acquisition: str, budget: int | None, threshold: float | None) -> dict[str, Any]:
    """The campaign replayed beside the one that was, as JSON-ready values; `budget` counts items.

    Raises:
        BadConfig: the acquisition function is not known or looks at what is not recorded, no round has closed, or
            budget or threshold can be none.
    """
    store, config = project.store, project.config
    past = [each for each in rounds.all_rounds(store, config.run.name) if each.stage is Stage.CLOSED]
    _check(acquisition, budget, threshold, closed=len(past))
    batches = [(each.number, each.id or 0, rounds.queries(store, each.id or 0)) for each in past]
    limit = budget or sum(len(batch) for _, _, batch in batches)
    record = _record(store, config.run.name)
    real = _real(batches, limit)
    picked = _picked(store, config, acquisition, batches, limit)
    limit_of_risk = config.acceptance.silver_risk if threshold is None else threshold
    return {
        "acquisition": acquisition,
        "budget": limit,
        "threshold": limit_of_risk,
        "rounds_as_they_were": picked.as_it_was,
        "replayed": _figures(picked.keys, record, limit_of_risk, config),
        "real": _figures(real, record, limit_of_risk, config),
        "shared": len({*picked.keys} & {*real}),
        "simulated": any(verdict.simulated for _, verdict in reading.verdicts_of(store, config.run.name)),
    }


def replay_text(found: Mapping[str, Any]) -> list[str]:
    """The same in sentences."""
    replayed, real = found["replayed"], found["real"]
    lines = [
        f"{found['acquisition']} would have picked {replayed['picked']} items, {found['shared']} of them as it was; "
        f"the record knows replies to {replayed['known']}, to {replayed['picked'] - replayed['known']} it does not"
    ]
    if found["rounds_as_they_were"]:
        numbers = ", ".join(map(str, found["rounds_as_they_were"]))
        lines.append(f"without the scores that this needs, taken as they were: round {numbers}")
    if replayed["picked"] < found["budget"]:
        lines.append(
            f"the record has no candidates for {found['budget'] - replayed['picked']} more items of the budget"
        )
    for name, each in (("known picks", replayed), ("what was asked", real)):
        lines += [f"{name}: {line}" for line in _figure_lines(each, found["threshold"])]
    if replayed["known"] < replayed["picked"]:
        lines.append(
            "nothing is said of the items that were never asked; the known ones are no random part of the picks"
        )
    lines.append(
        "the students behind the scores learned from what was really asked; costs, domains, near-duplicates and "
        "what a batch covers are left out"
    )
    return [*lines, *(["some verdicts are by a simulated reviewer"] if found["simulated"] else [])]


def _check(acquisition: str, budget: int | None, threshold: float | None, *, closed: int) -> None:
    usable = [name for name, (_, signals) in ACQUISITIONS.items() if signals <= {*RECORDED}]
    if acquisition not in ACQUISITIONS:
        raise BadConfig(f"{acquisition}: no such acquisition function; can be replayed: {', '.join(usable)}")
    if acquisition not in usable:
        raise BadConfig(
            f"{acquisition} looks at embeddings, which no round stores, so the record cannot say what it would have "
            f"picked; can be replayed: {', '.join(usable)}; `preceptor simulate` runs the others"
        )
    if budget is not None and budget < 1:
        raise BadConfig(f"a budget of {budget} items asks nothing; name 1 or more")
    if threshold is not None and not 0 <= threshold <= 1:
        raise BadConfig(f"threshold {threshold:g}: risks lie between 0 and 1")
    if not closed:
        raise BadConfig("no round has closed yet, so there is nothing to replay; `preceptor run` goes on")


def _record(store: Store, run: str) -> dict[str, Known]:
    """What is known of each item that was asked, by its first reply."""
    asked = {(each.round_id, each.item_key): each for each in reading.rationales_of(store, run) if each.is_reply}
    risks, spent = reading.risks_of(store, run), reading.spent_by_query(store, run)
    said = reviews.verdicts(store, [each.id or 0 for each in asked.values()]) if asked else {}
    found: dict[str, Known] = {}
    for query in reading.queries_of(store, run):
        first = asked.get((query.round_id, query.item_key))
        if first is not None and query.item_key not in found:
            number = first.id or 0
            wrong = found_wrong(said.get(number, ())) if query.audit else None
            paid = spent.get((query.round_id, query.item_key), 0)
            found[query.item_key] = Known(paid, risks.get(number), wrong)
    return found


def _real(batches: Sequence[tuple[int, int, Sequence[Query]]], limit: int) -> list[str]:
    keys = dict.fromkeys(query.item_key for _, _, batch in batches for query in batch)
    return list(keys)[:limit]


def _picked(
    store: Store,
    config: Config,
    acquisition: str,
    batches: Sequence[tuple[int, int, Sequence[Query]]],
    limit: int,
) -> Picks:
    """Round by round as many items as it asked, until the budget is used up; what was picked is not picked again.

    The control arm of a round is drawn whatever else is picked, so it stays.
    """
    found = Picks()
    for number, round_id, batch in batches:
        size = min(len(batch), limit - len(found.keys))
        if size <= 0:
            break
        taken = {*found.keys}
        if acquisition == "random":
            left = (key for key in items.keys(store, Split.POOL) if key not in taken)
            found.keys += first_keys(left, size, config.run.seed)
            continue
        control = [query.item_key for query in batch if query.arm == "random" and query.item_key not in taken][:size]
        passed = taken.union(control)
        candidates = [row for row in rounds.scores(store, round_id) if row.chunk >= 0]  # others are planted
        scored = [row for row in candidates if row.item_key not in passed]
        parts = [_parts(row, acquisition) for row in scored]
        if not scored or any(each is None for each in parts):
            found.as_it_was.append(number)
            found.keys += [query.item_key for query in batch if query.item_key not in taken][:size]
            continue
        wanted = _best(scored, [each for each in parts if each is not None], acquisition, size - len(control), config)
        found.keys += [*wanted, *control]
    return found


def _best(
    scored: Sequence[Score], parts: Sequence[Mapping[str, Any]], acquisition: str, size: int, config: Config
) -> list[str]:
    """The keys that the acquisition function names first; costs are left out, as no round stores them."""
    none = np.empty((len(parts), 0))
    known = select.known(parts, none, none[:0], np.empty(0), np.ones(len(parts)), config.query)
    order = ACQUISITIONS[acquisition][0](known, size, np.random.default_rng(config.run.seed))
    return [scored[place].item_key for place in order]


def _parts(row: Score, acquisition: str) -> Mapping[str, Any] | None:
    """What a score says that the acquisition function looks at; None where it says nothing of the kind."""
    signals, parts = ACQUISITIONS[acquisition][1], dict(row.parts)
    if "divergence" in signals:
        return parts if {"intra", "inter"} <= parts.keys() else None
    if "probabilities" not in parts and parts.get("sampled_answers"):
        answers = parts["sampled_answers"]
        named = [f"unreadable {place}" if each is None else str(each) for place, each in enumerate(answers)]
        parts["probabilities"] = [count / len(named) for count in Counter(named).values()]
    return parts if "probabilities" in parts else None


def _figures(keys: Sequence[str], record: Mapping[str, Known], threshold: float, config: Config) -> dict[str, Any]:
    """What the record says of these picks: figures are of the known ones alone."""
    known = [record[key] for key in keys if key in record]
    checked = [each for each in known if each.risk is not None]
    passing = [each for each in checked if (each.risk or 0.0) < threshold]
    wrong = share(each.wrong for each in known if each.wrong is not None)
    passed_wrong = share(each.wrong for each in passing if each.wrong is not None)
    return {
        "picked": len(keys),
        "known": len(known),
        "usd": sum(each.micro_usd for each in known) / MICRO,
        "checked": len(checked),
        "passing": len(passing),
        "review_minutes": (len(checked) - len(passing)) * config.review.minutes_per_review,
        "teacher_wrong": None if wrong is None else asdict(wrong),
        "passing_wrong": None if passed_wrong is None else asdict(passed_wrong),
    }


def _figure_lines(each: Mapping[str, Any], threshold: float) -> list[str]:
    if not each["known"]:
        return ["none has a reply in the record, so it supports no figure"]
    return [
        f"${each['usd']:.4f} for {each['known']} replies",
        f"{each['passing']} of {each['checked']} checked ones have a risk below {threshold:g}; the others are about "
        f"{each['review_minutes']:.0f} minutes of review",
        f"audits find {_share_text(each['teacher_wrong'])} of the replies wrong, "
        f"{_share_text(each['passing_wrong'])} of those below the threshold",
    ]


def _share_text(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "an unknown share (no audit)"
    return f"{found['share']:.3f} ({found['low']:.3f} to {found['high']:.3f}, n={found['n']})"
