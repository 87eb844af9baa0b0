"""Whether a run is worth a further round, read off the store."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from loop import stopping
from loop.config import Config
from loop.ledger import MICRO, to_micro
from loop.records import Currency, Part, Round, Score, Stage
from loop.stopping import Ground, Point, State
from loop.store import checkpoints, counting, pool, reading, rounds, withdrawals
from loop.store.database import Store
from loop.store.money import Purse

HARD = frozenset({"money", "pool"})
"""Grounds that no `--rounds` goes on in spite of: nothing could be asked."""


def grounds(store: Store, run: str, config: Config, left: int, *, request: int | None = None) -> list[Ground]:
    """Everything that may end the run, as it stands after its last closed round.

    `left` are the pool items that may still be asked. `request` is what a further request may cost at most, in
    micro-dollars; without it, what the least of the newest ones did. Replies that are remembered cost nothing.
    """
    closed = [each for each in rounds.all_rounds(store, run) if each.stage is Stage.CLOSED]
    spent, asked = reading.spent_on_batches(store, run), counting.queried(store, run)
    done = [each.id or 0 for each in closed]
    picked = sum(asked.get(number, (0, 0))[0] for number in done)
    per_item = sum(spent.get(number, 0) for number in done) / max(1, picked) / MICRO
    usd, most = per_item * min(config.query.batch_size, left), config.budget.usd_per_round
    usd = usd if most is None else min(usd, most)
    before, last = _scored(store, closed)
    samples = [len(row.parts.get("sampled_answers", ())) for row in last]
    foreseen = sum(each < max(samples) for each in samples)
    return [
        _money(store, run, config, 0 if _may_be_remembered(store, config, closed) else request),
        _minutes(store, run, config),
        stopping.pool(left + len(withdrawals.awaiting(store, run)), domains=bool(config.budget.domains)),
        stopping.plateau(
            _points(store, closed, spent),
            usd + _review_usd(store, run, closed, config),
            usd,
            config.budget.usd_per_point,
        ),
        stopping.settled(
            [row.score for row in last],
            config.query.batch_size,
            config.stopping.divergence_below,
            foreseen=foreseen,
        ),
        stopping.falls([row.score for row in before], [row.score for row in last], config.stopping.divergence_fall),
    ]


def grounds_now(store: Store, run: str, config: Config) -> list[Ground]:
    """As `grounds`, with the pool items counted."""
    return grounds(store, run, config, pool.count(store, run, config))


def stopping_figures(found: Sequence[Ground]) -> dict[str, Any]:
    """The grounds as JSON-ready values; `reason` names the first that ends the run."""
    reason = next((each.name for each in found if each.state is State.STOP), None)
    return {"stops": reason is not None, "reason": reason, "grounds": [asdict(each) for each in found]}


def stopping_text(found: Mapping[str, Any]) -> list[str]:
    """What each ground says, a line each."""
    return [f"{each['name']}: {each['state']}: {each['text']}" for each in found["grounds"]]


def _money(store: Store, run: str, config: Config, request: int | None) -> Ground:
    balance = Purse(store, run).balances()[Currency.USD]
    left = to_micro(config.budget.usd) - balance.spent - balance.reserved
    needed = max(1, reading.least_request(store, run)) if request is None else request
    return stopping.money(left / MICRO, needed / MICRO)


def _may_be_remembered(store: Store, config: Config, closed: Sequence[Round]) -> bool:
    """Whether the file of replies may hold what a further round asks for: not after a round to which it gave none."""
    if config.teacher.replies is None:
        return False
    return not closed or reading.remembered(store, closed[-1].id or 0) > 0


def _minutes(store: Store, run: str, config: Config) -> Ground:
    balance = Purse(store, run).balances()[Currency.MINUTES]
    left = config.budget.minutes - (balance.spent + balance.reserved) / MICRO
    return stopping.minutes(config.budget.minutes, left, config.review.minutes_per_review)


def _points(store: Store, closed: Sequence[Round], spent: Mapping[int, int]) -> list[Point]:
    """Dollars by the end of each round and how its student did on `dev`."""
    points, total = [], 0
    for each in closed:
        total += spent.get(each.id or 0, 0)
        rows = [] if each.student_id is None else checkpoints.predictions(store, each.student_id, Part.DEV)
        if rows:
            points.append(Point(total / MICRO, sum(row.correct for row in rows), len(rows)))
    return points


def _review_usd(store: Store, run: str, closed: Sequence[Round], config: Config) -> float:
    """What reviewers' minutes of a further round are worth, where the config says what an hour costs."""
    hour = config.budget.usd_per_review_hour
    if hour is None or not closed:
        return 0.0
    spent = reading.spent_by_round(store, run)
    minutes = [spent.get(each.id or 0, {}).get(Currency.MINUTES, 0) / MICRO for each in closed]
    return float(np.mean(minutes)) / 60 * hour


def _scored(store: Store, closed: Sequence[Round]) -> tuple[list[Score], list[Score]]:
    """The candidates with a divergence in the last two rounds in which a student looked at some."""
    found: list[list[Score]] = []
    for each in reversed(closed):
        rows = rounds.scores(store, each.id or 0)
        own = [row for row in rows if row.chunk >= 0 and "intra" in row.parts]
        if own:
            found.append(own)
        if len(found) == 2:
            break
    found += [[], []]
    return found[1], found[0]
