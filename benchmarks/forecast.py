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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.campaigns import DAY, Campaign, Plan
from benchmarks.forecast_page import MILLION, OPTIONS, WHOSE, Row, option, page, spread
from benchmarks.kept import RESULTS
from benchmarks.unit_costs import Unit, read
from connectors.charts import STYLE

POOLS, REVIEWERS = (1_000_000, 10_000_000, 100_000_000), (1, 10, 100)
BELOW = "<!-- Below this line all is written by `python -m benchmarks.forecast`. -->"
SHARES = ("flagged_share", "disagreements", "accepted_share")
STUDENTS = ("smollm2", "minilm")


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
        parser.add_argument(option(each), type=type(each.default), default=each.default, help=said)
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
    pool, people = chosen.pools[len(chosen.pools) // 2], chosen.reviewers[len(chosen.reviewers) // 2]
    swings = {
        plan.student: swung(plan, costs, pool, people, runs=chosen.runs, seed=chosen.seed) for plan, costs, _ in worlds
    }
    text = page(worlds, found, swings, runs=chosen.runs, seed=chosen.seed)
    print(text)
    if chosen.drawing:
        draw(found, chosen.drawing)
    if chosen.page:
        head = chosen.page.read_text(encoding="utf-8").partition(BELOW)[0]
        chosen.page.write_text(f"{head}{BELOW}\n\n{text}\n", encoding="utf-8")
    if chosen.json:
        units = {plan.student: {name: unit.__dict__ for name, unit in costs.items()} for plan, costs, _ in worlds}
        whole = {"plan": own, "units": units, "assumed": worlds[0][2], "campaigns": found, "swings": swings}
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
        "days": spread(waiting.days),
        "hours": hours,
        "usd": {name: spread(some) for name, some in waiting.usd.items()},
        "bottleneck": longest,
        "bottleneck_share": spread(waiting.hours[longest] / (DAY * waiting.days)),
        "lever": None if moved is None else moved.said,
        "days_with_lever": None if after is None else spread(after.days),
        "deadline": {
            "days": spread(closing.days),
            "undecided_share": spread(closing.undecided / (closing.batch * plan.rounds)),
        },
    }


def swung(plan: Plan, costs: Mapping[str, Unit], pool: int, reviewers: int, *, runs: int, seed: int) -> list[Row]:
    """Days where rounds wait for all and one assumption is half or twice as large; shares are 1 at most."""
    rows = []
    for name in ("review_seconds", *(each.name for each in OPTIONS if each.metadata["kind"] == "assumed")):
        value = getattr(plan, name)
        row: Row = {"name": name, "pool": pool, "reviewers": reviewers, "half": value / 2, "twice": 2 * value}
        if name in SHARES:
            row["twice"] = min(1.0, row["twice"])
        for end in ("half", "twice"):
            changed = replace(plan, **{name: row[end]}, deadline_hours=np.inf)
            row[f"days_with_{end}"] = spread(Campaign(changed, costs, pool, reviewers, runs=runs, seed=seed).days)
        rows.append(row)
    return rows


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
            axes.set(xscale="log", yscale="log", xlabel="million items in the pool", title=student)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value / MILLION:,g}")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        frames[0].set_ylabel("days (simulated; band: 95 %)")
        frames[0].legend(frameon=False)
        drawing.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
