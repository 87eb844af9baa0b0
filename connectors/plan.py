"""What the next round will cost, what the budgets reach, and which audits are missing; nothing is spent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.promises import promises
from connectors.wiring import Project
from loop.answer import Answer
from loop.config import Config
from loop.errors import PoolEmpty
from loop.ledger import MICRO
from loop.ports import Explanation
from loop.records import Currency, Item
from loop.stages.revising import PRIOR_STEPS, PRIOR_WRONG
from loop.store import items, reading, revisions
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.judge_prompt import a_step_request
from loop.teacher.prompt import Price, most_input_tokens, request_for, worst_case
from loop.teacher.revision import Way, expected_costs, steps_of
from loop.teacher.send import prompt_type

DRAWS = 4000
LEVEL = 0.9
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
    pool = items.eligible(store, config.run.name, config)
    if not pool:
        raise PoolEmpty("no pool item is left to ask; ingest more items or raise query.max_asks")
    batch = min(config.query.batch_size, len(pool))
    with project.teacher() as teacher, project.judge() as judge, project.stronger() as stronger:
        dearer = list(zip(config.teacher.stronger, stronger, strict=True))
        most = [
            _worst(item, config, teacher.price, None if judge is None else judge.price)
            + sum(worst_case(request_for(item, config.task, each, (), 0), paid.price) for each, paid in dearer) / MICRO
            for item in pool
        ]
        learned = _learned(store, config, pool, teacher.price) if judge is None else []
        revising = _revising(store, config, teacher.price)
    usd = _capped(_dollars(store, config, batch, most, learned, revising), config.budget.usd_per_round)
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
            "pool": len(pool) / batch,
        },
        "promises": promises(store, config.run.name, config),
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
    if found["promises"]:
        missing, alpha = found["promises"]["missing"], found["promises"]["alpha"]
        lines.append(
            f"audits without an error still missing to certify {alpha:.0%}: {missing['export']} for an export, "
            f"{missing['threshold']} for a threshold"
        )
    return lines


def _worst(item: Item, config: Config, price: Price, judge_price: Price | None) -> float:
    """Dollars that an item costs at the very most, judged in as many long steps as may be."""
    asked = _share(config) * worst_case(request_for(item, config.task, config.teacher, (), 0), price)
    if judge_price is not None:
        asked += config.judge.max_steps * worst_case(a_step_request(item, config.task, config.judge), judge_price)
    return asked / MICRO


def _learned(store: Store, config: Config, pool: Sequence[Item], price: Price) -> list[float]:
    """Dollars that items cost if replies are as long as those to the same prompt in any run; input at its bound."""
    requests = [request_for(item, config.task, config.teacher, (), 0) for item in pool]
    lengths = Purse(store, config.run.name).lengths(prompt_type(requests[0], "ask"))
    drawn = np.random.default_rng(0).choice(lengths, len(pool)) if lengths else ()
    return [
        _share(config) * price(request, input_tokens=most_input_tokens(request), output_tokens=int(length)) / MICRO
        for request, length in zip(requests, drawn, strict=False)
    ]


def _share(config: Config) -> float:
    """The price of an item's replies in prices of single requests: the first costs less in a batch."""
    discount = config.teacher.batch_discount if config.teacher.batch else 0.0
    return config.teacher.samples - discount


def _capped(estimate: Estimate, cap: float | None) -> Estimate:
    """The estimate under a round's limit."""
    if cap is None or cap >= estimate.high:
        return estimate
    low, expected = min(estimate.low, cap), min(estimate.expected, cap)
    return Estimate(expected, low, cap, f"{estimate.source}; at most budget.usd_per_round")


def _revising(store: Store, config: Config, price: Price) -> list[float]:
    """Dollars for each item asked, had the student written what the teacher did; empty where that is not to come.

    From the second round on a student explains. Once something was revised, what that costs is known.
    """
    run, way = config.run.name, config.teacher.revise
    if way == "never" or revisions.of_run(store, run):
        return []
    written = {each.item_key: each for each in reading.rationales_of(store, run) if each.is_reply}
    known = items.existing(store, written)
    spent = reading.spent_by_query(store, run)
    found = []
    for key, each in written.items():
        answer = None if each.answer is None else Answer.from_canonical(each.answer)
        steps = steps_of(known[key], Explanation(tuple(each.steps), answer))
        costs = expected_costs(known[key], steps, config.task, config.teacher, price, wrong=PRIOR_WRONG / PRIOR_STEPS)
        revised = min(costs.values()) if way == "auto" else costs[Way(way)]
        revisable = 0 < len(steps) < config.task.max_steps
        found.append((revised if revisable else spent.get((each.round_id, key), 0)) / MICRO)
    return found


def _dollars(
    store: Store,
    config: Config,
    batch: int,
    most: Sequence[float],
    learned: Sequence[float],
    revising: Sequence[float],
) -> Estimate:
    """The teacher's price for a batch: from what items cost so far, else from replies of other runs, else the worst."""
    if revising:
        source = f"as if the student wrote what the teacher did on {len(revising)} items; none was revised so far"
        return _estimate(_totals(np.array(revising), np.full(DRAWS, batch)), source)
    revised = {row.round_id for _, row in revisions.of_run(store, config.run.name)}
    spent = reading.spent_by_query(store, config.run.name)
    counted = [usd for (number, _), usd in spent.items() if number in revised or not revised]
    paid = np.array(counted, dtype=np.float64) / MICRO
    if not len(paid) and learned:
        source = "from the length of replies to the same prompt in other runs"
        return _estimate(_totals(np.array(learned), np.full(DRAWS, batch)), source)
    if not len(paid):
        mean = float(np.mean(most))
        return Estimate(batch * mean, 0.0, batch * max(most), "worst case; nothing was asked yet, see `run --pilot`")
    return _estimate(_totals(paid, np.full(DRAWS, batch)), f"from {len(paid)} items asked")


def _minutes(store: Store, config: Config, batch: int) -> Estimate:
    """Reviewers' minutes for a batch: audits, second reviews, and what will be risky."""
    run, review = config.run.name, config.review
    risks = [*reading.risks_of(store, run).values()]
    seconds = [verdict.seconds for _, verdict in reading.verdicts_of(store, run) if verdict.kind is not None]
    chance = np.random.default_rng(0)
    threshold = 0.0 if config.acceptance.require_certificate else review.risk_threshold
    risky = sum(risk >= threshold for risk in risks)
    share = chance.beta(risky + 0.5, len(risks) - risky + 0.5, DRAWS) if risks else chance.random(DRAWS)
    audits = chance.binomial(batch, review.audit_share, DRAWS)
    certifying, risky_ones = chance.binomial(audits, review.certify_share), chance.binomial(batch - audits, share)
    seconds_too = chance.binomial(audits - certifying + risky_ones, review.second_share)
    reviews = audits + certifying + risky_ones + seconds_too
    each = np.array(seconds or [60 * review.minutes_per_review]) / 60
    source = (
        f"from {len(risks)} risks and {len(seconds)} verdicts" if risks else "any share may be risky; see `--pilot`"
    )
    return _estimate(_totals(each, reviews), source)


def _totals(amounts: Floats, counts: NDArray[np.int64]) -> Floats:
    """Sums of so many amounts, drawn with replacement (the mean is drawn once for a sum, as a bootstrap does)."""
    chance = np.random.default_rng(1)
    means = chance.choice(amounts, (len(counts), len(amounts))).mean(axis=1)
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
