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

from benchmarks.campaigns import HOUR, PARTS, Campaign, Plan
from benchmarks.kept import RESULTS
from benchmarks.unit_costs import Floats, Unit, read
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
    "pull": "reviews",
    "train": "epochs x all decided items, each round",
    "shadows": "epochs x the control arm and as much of selected items, each round",
    "evaluate": "the holdout, and `dev` by the students that show what selection saves",
    "export": "decided items, once",
}
COSTS = {"shadows": "train", "evaluate": "predict", "ask": "book"}
"""Parts whose unit cost has another name."""
Row = dict[str, Any]


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
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--pools", type=int, nargs="+", default=POOLS)
    parser.add_argument("--reviewers", type=int, nargs="+", default=REVIEWERS)
    parser.add_argument("--runs", type=int, default=400, help="repetitions, each with other unit costs")
    parser.add_argument("--seed", type=int, default=0)
    for each in fields(Plan):
        said = f"{each.metadata['said']} ({each.metadata['kind']})".replace("%", "%%")
        parser.add_argument(
            f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default, help=said
        )
    chosen = parser.parse_args()
    plan = Plan(**{each.name: getattr(chosen, each.name) for each in fields(Plan)})
    costs, missing = read(chosen.results, plan.student, chosen.database)
    found = [
        combination(plan, costs, pool, people, runs=chosen.runs, seed=chosen.seed)
        for pool in chosen.pools
        for people in chosen.reviewers
    ]
    text = page(plan, costs, missing, found, chosen.runs, chosen.seed)
    print(text)
    if chosen.drawing:
        draw(found, chosen.drawing)
    if chosen.page:
        head = chosen.page.read_text(encoding="utf-8").partition(BELOW)[0]
        chosen.page.write_text(f"{head}{BELOW}\n\n{text}\n", encoding="utf-8")
    if chosen.json:
        units = {name: unit.__dict__ for name, unit in costs.items()}
        whole = {"plan": plan.__dict__, "units": units, "assumed": missing, "campaigns": found}
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


def page(
    plan: Plan, costs: Mapping[str, Unit], missing: Sequence[str], found: Sequence[Row], runs: int, seed: int
) -> str:
    """All tables, as Markdown."""
    parts = [
        "## What was measured",
        _table(("one", "cost", "interval", "from"), [_unit_row(unit) for unit in costs.values()]),
        *(["Not measured yet:\n\n" + "\n".join(f"- {each}" for each in missing)] if missing else []),
        "## What is assumed, or yours",
        _table(("option", "value", "what", "whose"), [_plan_row(plan, each) for each in fields(Plan)]),
        "## A million items",
        _million(plan, costs, runs, seed),
        "## Bottlenecks",
        _bottlenecks(found, runs),
    ]  # fmt: skip
    return "\n\n".join(parts)


WHOSE = {"yours": "yours", "assumed": "assumed", "config": "default of the config"}


def _plan_row(plan: Plan, each: Any) -> tuple[str, ...]:
    whose = WHOSE[each.metadata["kind"]]
    return f"`--{each.name.replace('_', '-')}`", f"{getattr(plan, each.name)}", each.metadata["said"], whose


def _unit_row(unit: Unit) -> tuple[str, ...]:
    scale, end = (1000, " ms") if unit.is_time else (1, "")
    return unit.of, f"{scale * unit.value:.3g}{end}", f"{scale * unit.low:.3g} to {scale * unit.high:.3g}", unit.source


def _million(plan: Plan, costs: Mapping[str, Unit], runs: int, seed: int) -> str:
    """How a million items come to their hours and dollars: units, times what one takes."""
    fixed = {name: replace(unit, low=unit.value, high=unit.value) for name, unit in costs.items()}
    plan = replace(plan, deadline_hours=np.inf)
    told, drawn = (Campaign(plan, some, MILLION, 1, runs=runs, seed=seed) for some in (fixed, costs))
    rows = []
    for part in PARTS:
        units, hours = (float(np.median(some[part])) for some in (told.units, told.core_hours))
        spread = _spread(drawn.core_hours[part])
        if part == "review":
            hours, spread = float(np.median(told.people_hours)), _spread(drawn.people_hours)
        one = 1000 * hours * HOUR / units if units else 0.0
        price = plan.hour_price if part == "review" else plan.core_price
        rows.append(
            (
                part, COUNTED[part], f"{units:,.0f}", f"{one:,.3g} ms", f"{hours:,.1f} h",
                f"{spread['low']:,.1f} to {spread['high']:,.1f}", f"{hours * price:,.2f}",
            )
        )  # fmt: skip
    tokens = (costs["prompt"].value, costs["reply"].value)
    usd = {name: float(np.median(some)) for name, some in told.usd.items()}
    asked = told.batch * plan.rounds
    return "\n\n".join(
        [
            f"{MILLION:,} x {plan.asked_share:g} = {asked:,} items are asked, {told.batch:,} in each of {plan.rounds} "
            f"rounds. Hours are of one core, units times what one takes; in the row `review` they are people's.",
            _table(("part", "units", "how many", "one takes", "hours", "interval", "US dollars"), rows),
            f"Teacher: {asked:,} x ({tokens[0]:.0f} x {plan.input_price:g} + {tokens[1]:.0f} x {plan.output_price:g}) "
            f"/ 1,000,000 = {usd['teacher']:,.2f} US dollars. People: {usd['people']:,.0f}. Processors: "
            f"{usd['processors']:,.2f}. Together {sum(usd.values()):,.0f}.",
        ]
    )


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
    """Days against the size of the pool, a line for so many reviewers, with the bands."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": "forecast"}):
        drawing = Figure(figsize=(8.0, 4.2), layout="constrained")
        axes = drawing.subplots()
        for people in dict.fromkeys(each["reviewers"] for each in found):
            own = [each for each in found if each["reviewers"] == people]
            pools = [each["pool"] for each in own]
            low, middle, high = ([each["days"][part] for each in own] for part in ("low", "value", "high"))
            name = f"{people} reviewer" + ("s" if people > 1 else "")
            (line,) = axes.plot(pools, middle, marker="o", markersize=3, label=name)
            axes.fill_between(pools, low, high, color=line.get_color(), alpha=0.2)
        axes.set(xscale="log", yscale="log", xlabel="items in the pool", ylabel="days (simulated; band: 95 %)")
        axes.legend(frameon=False)
        drawing.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
