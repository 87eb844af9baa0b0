"""What the next round will cost, what the budgets reach, and which audits are missing; nothing is spent."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.prices import Prices
from connectors.promises import promises
from connectors.wiring import Project
from loop.answer import Answer
from loop.config import Config, RedactConfig
from loop.errors import PoolEmpty
from loop.ledger import MICRO
from loop.ports import Explanation
from loop.records import Currency, Item
from loop.redaction import kinds_in
from loop.stages.demonstrating import Demonstrating
from loop.stages.revising import PRIOR_STEPS, PRIOR_WRONG
from loop.store import items, planted, pool, reading, revisions
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.prompt import Price
from loop.teacher.revision import Way, expected_costs, steps_of

DRAWS = 4000
LEVEL = 0.9
PRICED = 2000
"""So many items of the pool say what its items cost."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """An expected amount with its 90 % interval, and in words what it was learned from."""

    expected: float
    low: float
    high: float
    source: str


def plan(project: Project) -> dict[str, Any]:
    """The plan of the next round, as JSON-ready values.

    Raises:
        PoolEmpty: no item is left to ask.
    """
    store, config = project.store, project.config
    count = pool.count(store, config.run.name, config)
    if not count:
        raise PoolEmpty("no pool item is left to ask; ingest more items or raise query.max_asks")
    batch = min(config.query.batch_size, count)
    demonstrating = Demonstrating(store, config.run.name, lambda: project.trainer().student(None), config)
    with project.teacher() as teacher, project.judge() as judge, project.stronger() as stronger:
        prices = Prices(store, config, demonstrating, teacher, judge, stronger)
        usd = _with_trials(_dollars(prices, batch, _some(pool.stream(store, config.run.name, config), count)), prices)
    usd = _capped(usd, config.budget.usd_per_round)
    minutes = _minutes(store, config, batch)
    left = _left(store, config)
    return {
        "run": config.run.name,
        "items": batch,
        "judge": bool(config.judge.model),
        "usd": usd.__dict__,
        "minutes": minutes.__dict__,
        "left": left,
        "rounds": {
            "usd": left["usd"] / usd.expected if usd.expected else None,
            "minutes": left["minutes"] / minutes.expected if minutes.expected else None,
            "pool": count / batch,
        },
        "promises": promises(store, config.run.name, config),
        "redacted": redacted(pool.stream(store, config.run.name, config), config.teacher.redact)
        if config.teacher.redact.on
        else None,
    }


def plan_text(found: dict[str, Any]) -> list[str]:
    """The plan in sentences."""
    usd, minutes, left, rounds = found["usd"], found["minutes"], found["left"], found["rounds"]
    reach = {name: "any number of" if n is None else f"about {int(n)}" for name, n in rounds.items()}
    asked = "teacher and judge" if found["judge"] else "teacher"
    lines = [
        f"next round of run {found['run']}: {found['items']} items",
        f"  {asked}: ${usd['expected']:.4f} (${usd['low']:.4f} to ${usd['high']:.4f}; {usd['source']})",
        f"  reviewers: {minutes['expected']:.1f} minutes ({minutes['low']:.1f} to {minutes['high']:.1f}; "
        f"{minutes['source']})",
        f"left: ${left['usd']:.4f} for {reach['usd']} such rounds, {left['minutes']:.1f} review minutes for "
        f"{reach['minutes']}, pool items for {reach['pool']}",
    ]
    if found["redacted"]:
        lines.append(redacted_text(found["redacted"]))
    if found["promises"]:
        missing, alpha = found["promises"]["missing"], found["promises"]["alpha"]
        lines.append(
            f"audits without an error still missing to certify {alpha:.0%}: {missing['export']} for an export, "
            f"{missing['threshold']} for a threshold"
        )
    return lines


def redacted(of_pool: Iterable[Item], settings: RedactConfig) -> dict[str, Any]:
    """How many items hold something that stays here, by kind."""
    total, holding, kinds = 0, 0, Counter[str]()
    for item in of_pool:
        found = kinds_in(item, settings)
        total, holding = total + 1, holding + bool(found)
        kinds.update(found)
    return {"items": holding, "of": total, "kinds": dict(sorted(kinds.items()))}


def redacted_text(found: dict[str, Any]) -> str:
    """The same in a sentence."""
    kinds = ", ".join(f"{label} in {number}" for label, number in found["kinds"].items())
    hold = f"{found['items']} of {found['of']} pool items hold something that does not leave for the teacher"
    return f"{hold}: {kinds}" if kinds else f"{hold}; `preceptor prompt KEY` shows what leaves"


def _some(of_pool: Iterable[Item], count: int) -> list[Item]:
    """Enough of the pool's items to price it, drawn at random, and the longest of all."""
    if count <= PRICED:
        return sorted(of_pool, key=lambda item: item.key)
    drawn = set(np.random.default_rng(0).choice(count, PRICED - 1, replace=False).tolist())
    found: list[Item] = []
    longest: Item | None = None
    for place, item in enumerate(of_pool):
        if place in drawn:
            found.append(item)
        if longest is None or len(item.text) > len(longest.text):
            longest = item
    return found if longest is None else [*found, longest]


def _with_trials(estimate: Estimate, prices: Prices) -> Estimate:
    """The estimate with what trying demonstrations costs, which may not be needed."""
    expected, most = (each / MICRO for each in prices.trials())
    if not most:
        return estimate
    source = f"{estimate.source}; ${expected:.4f} of it to try demonstrations"
    return Estimate(estimate.expected + expected, estimate.low, estimate.high + most, source)


def _capped(estimate: Estimate, cap: float | None) -> Estimate:
    """The estimate under a round's limit."""
    if cap is None or cap >= estimate.high:
        return estimate
    low, expected = min(estimate.low, cap), min(estimate.expected, cap)
    return Estimate(expected, low, cap, f"{estimate.source}; at most budget.usd_per_round")


def _revising(prices: Prices) -> list[float]:
    """Dollars for each item asked, had the student written what the teacher did; empty where that is not to come.

    From the second round on a student explains. Once something was revised, what that costs is known. What is revised
    is judged as it was.
    """
    store, config = prices.store, prices.config
    run, way = config.run.name, config.teacher.revise
    if way == "never" or revisions.of_run(store, run):
        return []
    written = {each.item_key: each for each in reading.rationales_of(store, run) if each.is_reply}
    known = items.existing(store, written)
    spent = reading.spent_by_query(store, run)
    judged = reading.spent_by_query(store, run, {"judge"}) if prices.judge is not None else {}
    found = []
    for key, each in written.items():
        answer = None if each.answer is None else Answer.from_canonical(each.answer)
        steps = steps_of(known[key], Explanation(tuple(each.steps), answer))
        if 0 < len(steps) < config.task.max_steps:
            paid = judged.get((each.round_id, key), 0) if judged else prices.judged(known[key])
            found.append((_revised(known[key], steps, config, prices.teacher.price) + paid) / MICRO)
        else:
            found.append(spent.get((each.round_id, key), 0) / MICRO)
    return found


def _revised(item: Item, steps: Sequence[str], config: Config, price: Price) -> int:
    """Micro-dollars that revising is expected to cost in the way that the config names."""
    costs = expected_costs(item, steps, config.task, config.teacher, price, wrong=PRIOR_WRONG / PRIOR_STEPS)
    way = config.teacher.revise
    return min(costs.values()) if way == "auto" else costs[Way(way)]


def _dollars(prices: Prices, batch: int, pool: Sequence[Item]) -> Estimate:
    """The teacher's price for a batch: from what items cost so far, else from replies of other runs, else the worst."""
    store, run = prices.store, prices.config.run.name
    revising = _revising(prices)
    if revising:
        source = f"as if the student wrote what the teacher did on {len(revising)} items; none was revised so far"
        return _estimate(_totals(np.array(revising), np.full(DRAWS, batch)), source)
    revised = {row.round_id for _, row in revisions.of_run(store, run)}
    spent = reading.spent_by_query(store, run)
    counted = [usd for (number, _), usd in spent.items() if number in revised or not revised]
    if counted:
        paid = np.array(counted, dtype=np.float64) / MICRO
        return _estimate(_totals(paid, np.full(DRAWS, batch)), f"from {len(paid)} items asked")
    learned = prices.learned(pool) if prices.judge is None else []
    if learned:
        source = "from the length of replies to the same prompt in other runs"
        return _estimate(_totals(np.array(learned) / MICRO, np.full(DRAWS, batch)), source)
    most = [prices.worst(item) / MICRO for item in pool]
    mean = float(np.mean(most))
    return Estimate(batch * mean, 0.0, batch * max(most), "worst case; nothing was asked yet, see `run --pilot`")


def _minutes(store: Store, config: Config, batch: int) -> Estimate:
    """Reviewers' minutes for a batch: audits, what will be risky, what is planted among both, and second reviews."""
    run, review = config.run.name, config.review
    risks = [*reading.risks_of(store, run).values()]
    seconds = [verdict.seconds for _, verdict in reading.verdicts_of(store, run) if verdict.kind is not None]
    chance = np.random.default_rng(0)
    threshold = 0.0 if config.acceptance.require_certificate else review.risk_threshold
    risky = sum(risk >= threshold for risk in risks)
    share = chance.beta(risky + 0.5, len(risks) - risky + 0.5, DRAWS) if risks else chance.random(DRAWS)
    audits = chance.binomial(batch, review.audit_share, DRAWS)
    certifying, risky_ones = chance.binomial(audits, review.certify_share), chance.binomial(batch - audits, share)
    good = len(planted.good(store, run)) if review.planted_share else 0
    added = np.minimum(np.ceil(review.planted_share * (audits + risky_ones)), good).astype(np.int64)
    seconds_too = chance.binomial(audits - certifying + risky_ones + added, review.second_share)
    reviews = audits + certifying + risky_ones + added + seconds_too
    each = np.array(seconds or [60 * review.minutes_per_review]) / 60
    source = (
        f"from {len(risks)} risks and {len(seconds)} verdicts" if risks else "any share may be risky; see `--pilot`"
    )
    return _estimate(_totals(each, reviews), source)


def _totals(amounts: Floats, counts: NDArray[np.int64]) -> Floats:
    """Sums of so many amounts, drawn with replacement (the mean is drawn once for a sum, as a bootstrap does)."""
    chance = np.random.default_rng(1)
    # One draw after another: all at once would take thousands of times the memory of the amounts.
    means = np.array([chance.choice(amounts, len(amounts)).mean() for _ in counts])
    noise = amounts.std() * np.sqrt(counts) * chance.standard_normal(len(counts))
    return np.asarray(np.maximum(0.0, means * counts + noise))


def _estimate(totals: Floats, source: str) -> Estimate:
    low, high = np.quantile(totals, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(totals.mean()), float(low), float(high), source)


def _left(store: Store, config: Config) -> dict[str, float]:
    """What is neither spent nor reserved of both budgets, under today's limits."""
    limits = {Currency.USD: config.budget.usd, Currency.MINUTES: config.budget.minutes}
    balances = Purse(store, config.run.name).balances()
    return {
        currency.value: max(0.0, limit - (balances[currency].spent + balances[currency].reserved) / MICRO)
        for currency, limit in limits.items()
    }
