"""The tables of the forecast, as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from benchmarks.campaigns import HOUR, STAGES, Campaign, Plan
from benchmarks.unit_costs import STUDENT, Floats, Unit

MILLION = 1_000_000
COUNTED = {
    "ingest": "every item, once",
    "draw": "every item, each round",
    "sieve": "sieve x candidates x batch, but for the first round",
    "explain": "candidates x batch, but for the first round",
    "embed": "candidates and all decided items, but for the first round",
    "ask": "batch, each round",
    "learn": "all verdicts so far, each round",
    "check": "batch, each round",
    "push": "reviews",
    "review": "reviews, by people",
    "night": "waiting until somebody is at work; by the clock",
    "pull": "reviews",
    "train": "epochs x all decided items, each round",
    "shadows": "epochs x the control arm and as much of selected items, each round",
    "evaluate": "the holdout, and `dev` by the students that show what selection saves",
    "export": "decided items, once",
}
WHOSE = {"yours": "yours", "assumed": "assumed", "config": "default of the config"}
OPTIONS = [each for each in fields(Plan) if each.name != "student"]
SWINGS = (("half", "days_with_half"), ("twice", "days_with_twice"))
Row = dict[str, Any]
World = tuple[Plan, Mapping[str, Unit], Sequence[str]]
"""A plan for a student, the unit costs, and what is assumed of them."""


def spread(values: Floats) -> Row:
    """The median with 95 % of the repetitions."""
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
    return {"value": float(middle), "low": float(low), "high": float(high)}


def page(
    worlds: Sequence[World], found: Sequence[Row], swings: Mapping[str, Sequence[Row]], *, runs: int, seed: int
) -> str:
    """All tables, as Markdown."""
    plan, costs, missing = worlds[0]
    units = [(f"{each.student}: ", some[name]) for each, some, _ in worlds for name in STUDENT]
    units += [("", unit) for name, unit in costs.items() if name not in STUDENT]
    parts = [
        "## Unit costs",
        _table(("one", "cost", "interval", "from"), [_unit_row(said, unit) for said, unit in units]),
        *(["Not measured yet:\n\n" + "\n".join(f"- {each}" for each in missing)] if missing else []),
        "## What is assumed, or yours",
        _table(("option", "value", "what", "whose"), [_plan_row(plan, each) for each in OPTIONS]),
    ]
    for each, some, _ in worlds:
        own = [row for row in found if row["student"] == each.student]
        parts += [f"## A million items: {each.student}", _million(each, some, runs, seed)]
        parts += [f"## Bottlenecks: {each.student}", _bottlenecks(own, runs)]
        parts += [f"## What the assumptions decide: {each.student}", _swings(swings[each.student])]
    return "\n\n".join(parts)


def option(each: Any) -> str:
    """The name of a field of the plan on the command line."""
    return f"--{each.name.replace('_', '-')}"


def _plan_row(plan: Plan, each: Any) -> tuple[str, ...]:
    value, whose = getattr(plan, each.name), WHOSE[each.metadata["kind"]]
    return f"`{option(each)}`", f"{value}", each.metadata["said"], whose


def _unit_row(said: str, unit: Unit) -> tuple[str, ...]:
    scale, end = (1000, " ms") if unit.is_time else (1, "")
    scaled = [scale * each for each in (unit.value, unit.low, unit.high)]
    cost, low, high = (f"{each:,.0f}" if each >= 1000 else f"{each:.3g}" for each in scaled)
    return said + unit.of, cost + end, f"{low} to {high}", unit.source


def _million(plan: Plan, costs: Mapping[str, Unit], runs: int, seed: int) -> str:
    """How a million items come to their hours and dollars: units, times what one takes."""
    fixed = {name: replace(unit, low=unit.value, high=unit.value) for name, unit in costs.items()}
    plan = replace(plan, deadline_hours=np.inf)
    told, drawn = (Campaign(plan, some, MILLION, 1, runs=runs, seed=seed) for some in (fixed, costs))
    rows = [
        (stage, *_part_row(part, plan, told, drawn))
        for stage, parts in STAGES.items()
        for part in parts
        if part != "night"
    ]
    hours = {stage: sum(float(np.median(told.core_hours[each])) for each in parts) for stage, parts in STAGES.items()}
    tokens = (costs["prompt"].value, costs["reply"].value)
    usd = {name: float(np.median(some)) for name, some in told.usd.items()}
    asked = told.batch * plan.rounds
    return "\n\n".join(
        [
            f"{MILLION:,} x {plan.asked_share:g} = {asked:,} items are asked, {told.batch:,} in each of {plan.rounds} "
            f"rounds. Hours are of one core, units times what one takes; in the row `review` they are people's.",
            _table(("stage", "part", "units", "how many", "one takes", "hours", "interval", "US dollars"), rows),
            f"Hours of one core by stage: {', '.join(f'{stage} {some:.3g}' for stage, some in hours.items())}.",
            f"Teacher: {asked:,} x ({tokens[0]:.0f} x {plan.input_price:g} + {tokens[1]:.0f} x {plan.output_price:g}) "
            f"/ 1,000,000 = {usd['teacher']:,.2f} US dollars. People: {usd['people']:,.0f}. Processors: "
            f"{usd['processors']:,.2f}. Together {sum(usd.values()):,.0f}.",
        ]
    )


def _part_row(part: str, plan: Plan, told: Campaign, drawn: Campaign) -> tuple[str, ...]:
    """Of processors, and of people in `review`."""
    hours, around, price = told.core_hours[part], spread(drawn.core_hours[part]), plan.core_price
    if part == "review":
        hours, around, price = told.people_hours, spread(drawn.people_hours), plan.hour_price
    took, units = float(np.median(hours)), float(np.median(told.units[part]))
    one = took * HOUR / units if units else 0.0
    each = f"{one:.3g} s" if one >= 1 else f"{1000 * one:.3g} ms"
    interval = f"{around['low']:.3g} to {around['high']:.3g}"
    return part, COUNTED[part], f"{units:,.0f}", each, f"{took:.3g} h", interval, f"{took * price:,.2f}"


def _bottlenecks(found: Sequence[Row], runs: int) -> str:
    rows = [
        (
            f"{each['pool'] // MILLION} M" if each["pool"] >= MILLION else f"{each['pool']:,}",
            f"{each['reviewers']}",
            f"{each['batch']:,}",
            _days(each["days"]),
            f"{each['bottleneck']} ({each['bottleneck_share']['value']:.0%})",
            each["lever"] or "-",
            "-" if each["days_with_lever"] is None else _days(each["days_with_lever"]),
            _days(each["deadline"]["days"]),
            f"{each['deadline']['undecided_share']['value']:.0%}",
        )
        for each in found
    ]
    names = (
        "pool", "reviewers", "batch", "days, rounds wait for all", "longest part", "what would move it",
        "days with that", "days, rounds close at the deadline", "undecided then",
    )  # fmt: skip
    return f"Median days of {runs} simulated campaigns, with 95 % of them.\n\n" + _table(names, rows)


def _swings(rows: Sequence[Row]) -> str:
    shown = [
        (f"`--{each['name'].replace('_', '-')}`", *(f"{each[value]:g}: {_days(each[days])}" for value, days in SWINGS))
        for each in rows
    ]
    first = rows[0]
    return (
        "The intervals above hold what is known of unit costs, and chance; not what is assumed. Days of "
        f"{first['pool']:,} items with {first['reviewers']} reviewers, where one assumption is halved or doubled:\n\n"
        + _table(("assumption", "half", "twice"), shown)
    )


def _days(spread: Row) -> str:
    digits = 1 if spread["value"] < 100 else 0
    return f"{spread['value']:,.{digits}f} ({spread['low']:,.{digits}f} to {spread['high']:,.{digits}f})"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (names, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(names), *lines[1:]])
