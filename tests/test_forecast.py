"""Campaigns are forecast from unit costs by arithmetic that can be done by hand."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.campaigns import DAY, HOUR, PARTS, Campaign, Plan, finished
from benchmarks.forecast import BELOW, combination
from benchmarks.kept import RESULTS, ROOT
from benchmarks.unit_costs import Unit, read

NAMES = (
    *("ingest", "draw", "sieve", "explain", "embed", "book", "learn", "check", "push", "pull", "train", "predict"),
    "export",
)
WAITS = replace(Plan(), deadline_hours=np.inf)


def known(**others: float) -> dict[str, Unit]:
    """Unit costs that are exactly known: a millisecond each, but for the others."""
    values = dict.fromkeys(NAMES, 1e-3)
    values |= {"prompt": 400, "reply": 100, "rate_share": 1.0, "overhead": 0.0, "two_workers": 2.0} | others
    return {name: Unit(value, value, value, name, "here") for name, value in values.items()}


def test_one_round_is_what_it_is_by_hand() -> None:
    plan = replace(
        WAITS, asked_share=0.1, rounds=1, audit_share=0.0, flagged_share=1.0, review_spread=0.0, review_seconds=72.0,
        hours_a_day=6.0, accepted_share=0.5, epochs=2.0, requests_per_minute=60.0, latency=0.0, holdout=100,
        closer_items=0,
    )  # fmt: skip
    costs = known(ingest=0.01, draw=0.02, check=0.3, push=0.04, pull=0.05, train=1.5, predict=0.2, export=0.1)
    done = Campaign(plan, costs, 10_000, 2)
    seconds = {
        "ingest": 10_000 * 0.01, "draw": 10_000 * 0.02, "ask": 1000 * 1.0, "check": 1000 * 0.3, "push": 1000 * 0.04,
        "pull": 1000 * 0.05, "train": 2 * 500 * 1.5, "evaluate": 100 * 0.2, "export": 500 * 0.1,
    }  # fmt: skip
    people = 1000 * 72 / HOUR / 2  # ten hours for each of the two: what is left of six today, the rest tomorrow
    before = sum(seconds[part] for part in ("ingest", "draw", "ask", "check", "push")) / HOUR
    by_hand = {part: seconds.get(part, 0.0) / HOUR for part in PARTS}
    by_hand["review"] = DAY + (people - (6 - before)) - before  # less than ten hours at six a day take: no night more
    assert {part: float(some[0]) for part, some in done.hours.items()} == pytest.approx(by_hand)
    assert float(done.days[0]) == pytest.approx(sum(by_hand.values()) / DAY)
    assert float(done.usd["people"][0]) == pytest.approx(20 * plan.hour_price)
    assert float(done.usd["teacher"][0]) == pytest.approx(1000 * (400 * 0.15 + 100 * 0.6) / 1e6)


def test_later_rounds_look_at_candidates_and_learn_all_that_is_decided() -> None:
    plan = replace(WAITS, asked_share=0.02, rounds=2, sieve=3, candidates=4, audit_share=0.0, accepted_share=1.0)
    units = {part: float(some[0]) for part, some in Campaign(plan, known(), 10_000, 1).units.items()}
    assert (units["sieve"], units["explain"], units["embed"]) == (3 * 4 * 100, 4 * 100, 4 * 100 + 100)
    assert units["train"] == pytest.approx(plan.epochs * (100 + 200))
    warm = Campaign(replace(plan, start="warm", replay_share=0.5), known(), 10_000, 1).units["train"]
    assert float(warm[0]) == pytest.approx(plan.epochs * (100 + 100 + 0.5 * 100))


def test_work_goes_on_when_the_day_begins_again() -> None:
    begins, hours = np.array([0.0, 5.0, 7.0, 23.0]), np.array([6.0, 2.0, 1.0, 0.0])
    assert finished(begins, hours, 6.0).tolist() == pytest.approx([6.0, 25.0, 25.0, 23.0])


def test_more_reviewers_never_take_longer() -> None:
    days = [Campaign(WAITS, known(), 1_000_000, people, runs=50).days for people in (1, 2, 10, 100, 10_000)]
    assert all((more <= fewer).all() for fewer, more in pairwise(days))
    assert days[0][0] > 5 * days[2][0]


def test_a_round_that_closes_at_its_deadline_leaves_the_rest_undecided() -> None:
    plan = replace(Plan(), rounds=1, audit_share=0.0, flagged_share=1.0, review_spread=0.0, deadline_hours=DAY)
    closed = Campaign(plan, known(), 1_000_000, 1)
    assert float(closed.hours["review"][0]) == pytest.approx(DAY)
    assert float(closed.undecided[0]) == pytest.approx(10_000 - plan.hours_a_day * HOUR / plan.review_seconds)


@pytest.mark.parametrize(
    ("costly", "part"), [({"sieve": 10.0}, "sieve"), ({"train": 50.0}, "train"), ({"ingest": 9.0}, "ingest")]
)
def test_the_bottleneck_is_the_longest_part(costly: dict[str, float], part: str) -> None:
    found = combination(WAITS, known(**costly), 1_000_000, 100, runs=20, seed=0)
    assert found["bottleneck"] == part == max(found["hours"], key=lambda each: found["hours"][each])


def test_the_same_seed_says_the_same_and_intervals_come_from_the_unit_costs() -> None:
    wide = known() | {"sieve": Unit(0.5, 0.1, 2.0, "sieve", "here")}
    first, again, other = (Campaign(WAITS, wide, 1_000_000, 1, runs=30, seed=seed).hours["sieve"] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
    assert np.ptp(first) > 0
    assert np.ptp(Campaign(WAITS, known(), 1_000_000, 1, runs=30).hours["sieve"]) == 0


def test_what_is_not_measured_is_named_with_the_command_that_measures_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"benchmarks\.units"):
        read(tmp_path, "smollm2", "sqlite")
    (tmp_path / "units.json").write_text((RESULTS / "units.json").read_text(encoding="utf-8"), encoding="utf-8")
    costs, missing = read(tmp_path, "minilm", "postgresql")
    assert costs["ingest"].source == "assumed"
    assert any("python -m benchmarks.cluster" in each for each in missing)


def test_the_command_writes_all_combinations_and_its_page(tmp_path: Path) -> None:
    out, page, drawing = (tmp_path / name for name in ("forecast.json", "page.md", "days.svg"))
    page.write_text(f"# Mine\n\n{BELOW}\n\nold\n", encoding="utf-8")
    words = [sys.executable, "-m", "benchmarks.forecast", "--runs", "5", "--json", str(out), "--page", str(page)]
    said = subprocess.run([*words, "--drawing", str(drawing)], cwd=ROOT, check=True, capture_output=True, text=True)
    campaigns = json.loads(out.read_text(encoding="utf-8"))["campaigns"]
    assert [(each["student"], each["pool"], each["reviewers"]) for each in campaigns] == [
        (student, pool, people)
        for student in ("smollm2", "minilm")
        for pool in (10**6, 10**7, 10**8)
        for people in (1, 10, 100)
    ]
    assert page.read_text(encoding="utf-8") == f"# Mine\n\n{BELOW}\n\n{said.stdout}"
    assert "100 reviewers" in drawing.read_text(encoding="utf-8")


def test_workers_share_what_they_can_and_nothing_else() -> None:
    plan = replace(WAITS, rounds=3)
    alone, shared = (Campaign(replace(plan, workers=each), known(two_workers=1.6), 1_000_000, 1) for each in (1, 8))
    faster = {part: float(alone.hours[part][0] / shared.hours[part][0]) for part in ("sieve", "explain", "check")}
    assert faster == pytest.approx(dict.fromkeys(faster, 8 * 1.6 / 2))
    assert float(shared.core_hours["sieve"][0]) == pytest.approx(float(alone.core_hours["sieve"][0]) * 2 / 1.6)
    assert shared.hours["train"].tolist() == alone.hours["train"].tolist()


def test_what_other_benchmarks_measured_is_read(tmp_path: Path) -> None:
    figures = {
        "scale": {"ingest_per_second.sqlite": 5000.0, "look_seconds.sqlite": 100.0, "select_seconds.sqlite": 50.0},
        "cluster": {"overhead_share": 0.1, "speedup_two_workers": 1.9},
    }
    (tmp_path / "units.json").write_text((RESULTS / "units.json").read_text(encoding="utf-8"), encoding="utf-8")
    for name, some in figures.items():
        kept = {key: {"value": each, "low": each / 2, "high": each * 2} for key, each in some.items()}
        body = {"commit": "0123456789ab", "machine": {"cpu": "Abacus", "cores": 3}, "figures": kept}
        (tmp_path / f"{name}.json").write_text(json.dumps(body), encoding="utf-8")
    costs, missing = read(tmp_path, "smollm2", "sqlite")
    assert not any("benchmarks.scale" in each or "benchmarks.cluster" in each for each in missing)
    assert costs["ingest"].value == pytest.approx(1 / 5000 + 100 / 1e6)
    assert (costs["ingest"].low, costs["ingest"].high) == pytest.approx((1 / 10_000 + 50e-6, 1 / 2500 + 200e-6))
    assert costs["draw"].value == pytest.approx(50 / 1e6)
    assert (costs["overhead"].value, costs["two_workers"].value) == (0.1, 1.9)
    assert costs["draw"].source == "scale.json at 0123456789, Abacus with 3 cores"
