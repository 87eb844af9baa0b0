"""Who reviews what: open reviews go to the people in the config who have room left. Pure; the desk stores it."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from loop.config import ReviewerConfig


@dataclass(frozen=True)
class Claim:
    """An open review, and whose it is."""

    uid: str
    rationale_id: int
    assignee: str = ""
    since: datetime | None = None


def assign(
    claims: Sequence[Claim],
    reviewers: Sequence[ReviewerConfig],
    busy: Iterable[tuple[int, str]],
    now: datetime,
    patience: timedelta,
) -> dict[str, Claim]:
    """Every open review with its assignee, the first in order first served; nobody where nobody has room.

    `busy` names, by rationale, people who judged it in another slot or an earlier try. A review stays with its assignee
    unless it is stale, or they judged the rationale already, or they are not in the config any more.
    """
    rooms = {each.name: each.capacity for each in reviewers}
    barred = {(number, name) for number, name in busy}
    kept = {each.uid: each for each in claims if _stays(each, rooms, barred, now - patience)}
    load = Counter(each.assignee for each in kept.values())
    barred |= {(each.rationale_id, each.assignee) for each in kept.values()}
    for each in claims:
        if each.uid in kept:
            continue
        others = [name for name in rooms if (each.rationale_id, name) not in barred]
        name = _freest([other for other in others if other != each.assignee] or others, rooms, load)
        kept[each.uid] = replace(each, assignee=name, since=now if name else None)
        load[name] += 1
        barred.add((each.rationale_id, name))
    return kept


def _stays(claim: Claim, rooms: Mapping[str, int], barred: Collection[tuple[int, str]], oldest: datetime) -> bool:
    """Whether a review stays where it is."""
    known = claim.assignee in rooms and (claim.rationale_id, claim.assignee) not in barred
    return known and claim.since is not None and claim.since > oldest


def _freest(names: Sequence[str], rooms: Mapping[str, int], load: Mapping[str, int]) -> str:
    """Who has the largest part of their capacity left, nobody where all are full."""
    open_to = [name for name in names if load.get(name, 0) < rooms[name]]
    return max(open_to, key=lambda name: 1 - load.get(name, 0) / rooms[name], default="")
