"""What a campaign over 1 M, 10 M and 100 M items would take: a simulation from the unit costs that were measured.

Nothing is run: campaigns are simulated round by round (`benchmarks.campaigns`) from the kept results of the benchmarks,
with each unit cost drawn from its interval in every repetition. What is measured, what the config says by default, what
is assumed and what the owner of a campaign chooses is told apart, and each of the latter three is an option.

Run as `python -m benchmarks.forecast [--json FILE] [--drawing FILE] [--page FILE] [--PLAN VALUE ...]`. `--page` writes
what it prints below the line of that page which says so.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.campaigns import HOUR, STAGES, Campaign, Plan
from benchmarks.kept import RESULTS
from benchmarks.unit_costs import STUDENT, Floats, Unit, read
from connectors.charts import STYLE

POOLS, REVIEWERS = (1_000_000, 10_000_000, 100_000_000), (1, 10, 100)
MILLION = 1_000_000
BELOW = "<!-- Below this line all is written by `python -m benchmarks.forecast`. -->"
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
STUDENTS = ("smollm2", "minilm")
OPTIONS = [each for each in fields(Plan) if each.name != "student"]
Row = dict[str, Any]
World = tuple[Plan, Mapping[str, Unit], Sequence[str]]
"""A plan for a student, the unit costs, and what is assumed of them."""


@dataclass(frozen=True)
class Lever:
    """What would make a part shorter, in words and in the plan."""

    said: str
    changes: Mapping[str, Any]


def lever(part: str, plan: Plan) -> Lever | None:
    """What would move a bottleneck; None where it is a single pass that nothing here shortens."""
    if part in ("sieve", "explain", "check"):
        return Lever(f"`[cluster]` with {8 * plan.workers} workers", {"workers": 8 * plan.workers})
    return {
        "draw": Lever("half as many rounds", {"rounds": max(1, plan.rounds // 2)}),
        "learn": Lever("half as many rounds", {"rounds": max(1, plan.rounds // 2)}),
        "night": Lever("half as many rounds", {"rounds": max(1, plan.rounds // 2)}),
        "embed": Lever("`query.diversity = 1`", {"diversity": 1}),
        "ask": Lever(
            "four times the endpoint's limits and `teacher.concurrency`",
            {
                "requests_per_minute": 4 * plan.requests_per_minute,
                "tokens_per_minute": 4 * plan.tokens_per_minute,
                "concurrency": 4 * plan.concurrency,
            },
        ),
        "review": Lever(
            "a threshold that flags half as many (a certificate says whether it may)",
            {"flagged_share": plan.flagged_share / 2},
        ),
        "train": Lever(
            '`student.start = "warm"`, and half as many rounds', {"start": "warm", "rounds": max(1, plan.rounds // 2)}
        ),
        "shadows": Lever("`evaluation.saving_pairs = 0`", {"saving_pairs": 0}),
        "evaluate": Lever("half the holdout", {"holdout": plan.holdout // 2}),
    }.get(part)


def main() -> None:
    """Simulate all combinations, print the tables, draw, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where all results go")
    parser.add_argument("--drawing", type=Path, help="where the plot goes, as SVG")
    parser.add_argument("--page", type=Path, help="the page that is to hold the tables")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the kept results")
    parser.add_argument("--students", choices=STUDENTS, nargs="+", default=STUDENTS)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--pools", type=int, nargs="+", default=POOLS)
    parser.add_argument("--reviewers", type=int, nargs="+", default=REVIEWERS)
    parser.add_argument("--runs", type=int, default=400, help="repetitions, each with other unit costs")
    parser.add_argument("--seed", type=int, default=0)
    for each in OPTIONS:
        said = f"{each.metadata['said']} ({WHOSE[each.metadata['kind']]})".replace("%", "%%")
        parser.add_argument(_option(each), type=type(each.default), default=each.default, help=said)
    chosen = parser.parse_args()
    own = {each.name: getattr(chosen, each.name) for each in OPTIONS}
    plans = [Plan(student=student, **own) for student in chosen.students]
    worlds = [(plan, *read(chosen.results, plan.student, chosen.database)) for plan in plans]
    found = [
        combination(plan, costs, pool, people, runs=chosen.runs, seed=chosen.seed)
        for plan, costs, _ in worlds
        for pool in chosen.pools
        for people in chosen.reviewers
    ]
    text = page(worlds, found, chosen.runs, chosen.seed)
    print(text)
    if chosen.drawing:
        draw(found, chosen.drawing)
    if chosen.page:
        head = chosen.page.read_text(encoding="utf-8").partition(BELOW)[0]
        chosen.page.write_text(f"{head}{BELOW}\n\n{text}\n", encoding="utf-8")
    if chosen.json:
        units = {plan.student: {name: unit.__dict__ for name, unit in costs.items()} for plan, costs, _ in worlds}
        whole = {"plan": own, "units": units, "assumed": worlds[0][2], "campaigns": found}
        chosen.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def combination(plan: Plan, costs: Mapping[str, Unit], pool: int, reviewers: int, *, runs: int, seed: int) -> Row:
    """One campaign: its days where rounds wait for all reviews, what takes longest and what would move it, and what
    becomes of it where rounds close at their deadline.
    """

    def simulated(**changes: Any) -> Campaign:
        return Campaign(replace(plan, **changes), costs, pool, reviewers, runs=runs, seed=seed)

    waiting, closing = simulated(deadline_hours=np.inf), simulated()
    hours = {part: float(np.median(some)) for part, some in waiting.hours.items()}
    longest = max(hours, key=lambda part: hours[part])
    moved = lever(longest, plan)
    after = None if moved is None else simulated(deadline_hours=np.inf, **moved.changes)
    return {
        "student": plan.student,
        "pool": pool,
        "reviewers": reviewers,
        "batch": waiting.batch,
        "days": _spread(waiting.days),
        "hours": hours,
        "usd": {name: _spread(some) for name, some in waiting.usd.items()},
        "bottleneck": longest,
        "bottleneck_share": _spread(waiting.hours[longest] / (24 * waiting.days)),
        "lever": None if moved is None else moved.said,
        "days_with_lever": None if after is None else _spread(after.days),
        "deadline": {
            "days": _spread(closing.days),
            "undecided_share": _spread(closing.undecided / (closing.batch * plan.rounds)),
        },
    }


def _spread(values: Floats) -> Row:
    """The median with 95 % of the repetitions."""
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
    return {"value": float(middle), "low": float(low), "high": float(high)}


# --- the page ---------------------------------------------------------------------------------------------------------


def page(worlds: Sequence[World], found: Sequence[Row], runs: int, seed: int) -> str:
    """All tables, as Markdown."""
    plan, costs, missing = worlds[0]
    units = [(f"{each.student}: ", some[name]) for each, some, _ in worlds for name in STUDENT]
    units += [("", unit) for name, unit in costs.items() if name not in STUDENT]
    parts = [
        "## What was measured",
        _table(("one", "cost", "interval", "from"), [_unit_row(said, unit) for said, unit in units]),
        *(["Not measured yet:\n\n" + "\n".join(f"- {each}" for each in missing)] if missing else []),
        "## What is assumed, or yours",
        _table(("option", "value", "what", "whose"), [_plan_row(plan, each) for each in OPTIONS]),
    ]
    for each, some, _ in worlds:
        own = [row for row in found if row["student"] == each.student]
        parts += [f"## A million items: {each.student}", _million(each, some, runs, seed)]
        parts += [f"## Bottlenecks: {each.student}", _bottlenecks(own, runs)]
    return "\n\n".join(parts)


def _option(each: Any) -> str:
    return f"--{each.name.replace('_', '-')}"


def _plan_row(plan: Plan, each: Any) -> tuple[str, ...]:
    value, whose = getattr(plan, each.name), WHOSE[each.metadata["kind"]]
    return f"`{_option(each)}`", f"{value}", each.metadata["said"], whose


def _unit_row(said: str, unit: Unit) -> tuple[str, ...]:
    scale, end = (1000, " ms") if unit.is_time else (1, "")
    cost, low, high = (f"{scale * each:.3g}" for each in (unit.value, unit.low, unit.high))
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
    hours, spread, price = told.core_hours[part], drawn.core_hours[part], plan.core_price
    if part == "review":
        hours, spread, price = told.people_hours, drawn.people_hours, plan.hour_price
    took, units, around = float(np.median(hours)), float(np.median(told.units[part])), _spread(spread)
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


def _days(spread: Row) -> str:
    digits = 1 if spread["value"] < 100 else 0
    return f"{spread['value']:,.{digits}f} ({spread['low']:,.{digits}f} to {spread['high']:,.{digits}f})"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (names, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(names), *lines[1:]])


def draw(found: Sequence[Row], file: Path) -> None:
    """Days against the size of the pool, a line for so many reviewers, with the bands; a frame for each student."""
    students = list(dict.fromkeys(each["student"] for each in found))
    with mpl.rc_context({**STYLE, "svg.hashsalt": "forecast"}):
        drawing = Figure(figsize=(8.0, 3.8), layout="constrained")
        frames = drawing.subplots(1, len(students), sharey=True, squeeze=False)[0]
        for student, axes in zip(students, frames, strict=True):
            for people in dict.fromkeys(each["reviewers"] for each in found):
                own = [each for each in found if (each["student"], each["reviewers"]) == (student, people)]
                low, middle, high = ([each["days"][part] for each in own] for part in ("low", "value", "high"))
                pools, name = [each["pool"] for each in own], f"{people} reviewer" + ("s" if people > 1 else "")
                (line,) = axes.plot(pools, middle, marker="o", markersize=3, label=name)
                axes.fill_between(pools, low, high, color=line.get_color(), alpha=0.2)
            axes.set(xscale="log", yscale="log", xlabel="items in the pool", title=student)
        frames[0].set_ylabel("days (simulated; band: 95 %)")
        frames[0].legend(frameon=False)
        drawing.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
