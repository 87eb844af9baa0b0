"""What the pages show of one run, as plain values. The dashboard and both forms of the report are made from it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from connectors import page_charts
from connectors.lagging import lagging_figures
from connectors.measurements import evaluation_text, holdout_duplicates
from connectors.promises import promises, promises_text
from connectors.reviewers import review_figures
from connectors.revisions import revision_figures
from connectors.status import counts, place, planted_figures
from connectors.stops import grounds, stopping_figures, stopping_text
from loop.calibration import Calibration, calibration
from loop.config import Config
from loop.interval import Share, share
from loop.records import DecisionKind, Part, Stage, VerdictKind
from loop.report import (
    RISK_BINS,
    Accuracy,
    pseudonyms,
    reviewer_figures,
    risk_bins,
    wrong_by_rationale,
)
from loop.stopping import Ground
from loop.store import claims, confidence, counting, reading, reviews, rounds
from loop.store.database import Store
from loop.store.demonstrations import sets
from loop.store.progress import AtMost, progress
from loop.store.rationales import risk_fit

Row = dict[str, Any]
Keep = Callable[[str, Callable[[], Any]], Any]
STAGES = [stage.value for stage in Stage if stage is not Stage.CLOSED]
"""What a round goes through before it is closed."""
MOST_DOMAINS = 200
"""So many domains stand on a page, those with the most decisions."""
MOST_REVIEWS = 200
"""So many open reviews stand on a page, the riskiest."""


class Views:
    """The pages of one run; what several of them need is read once.

    `keep` is handed what takes long and rests on verdicts, under a name, and may know it from an earlier time.
    """

    def __init__(self, store: Store, run: str, config: Config, keep: Keep | None = None) -> None:
        self.store, self.run, self.config = store, run, config
        self._keep: Keep = keep or (lambda _, find: find())

    @cached_property
    def state(self) -> Row:
        """Where the run stands."""
        return self.place | counts(self.store, self.run, self.config, self.verdicts)

    @cached_property
    def place(self) -> Row:
        """Its round, stage, and what it waits for."""
        return place(self.store, self.run, self.config)

    @cached_property
    def verdicts(self) -> list[counting.Given]:
        """The verdicts that count and can be read."""
        return counting.verdicts(self.store, self.run)

    @cached_property
    def names(self) -> dict[str, str]:
        """The reviewers' pseudonyms, as in exports."""
        return pseudonyms(reading.reviewers_of(self.store, self.run))

    @cached_property
    def curve(self) -> list[Row]:
        """Accuracy of the student in force after each round, with what had been spent and learnt by then."""
        examples = {number: row.examples for number, row in reading.checkpoints_of(self.store, self.run).items()}
        in_force = {each.number: each.student_id for each in rounds.all_rounds(self.store, self.run)}
        points, usd = [], 0.0
        for each in self.state["rounds"]:
            usd += each["usd"]
            if each["student"] is not None:
                learnt = examples.get(in_force[each["round"]] or 0, 0)
                points.append({"round": each["round"], "usd": usd, "examples": learnt, **each["student"]})
        return points

    @property
    def unmeasured(self) -> Row | None:
        """The newest closed round, where it was not measured what selection saves; None where it was."""
        closed = [each for each in self.state["rounds"] if each["saving"] or each["saving_unmeasured"]]
        return closed[-1] if closed and closed[-1]["saving_unmeasured"] else None

    @cached_property
    def lagging(self) -> Row | None:
        """The domains in which the student lags."""
        return lagging_figures(self.store, self.run, self.config)

    @property
    def savings(self) -> list[Row]:
        """What selection saved after each round that measured it."""
        return [each["saving"] | {"round": each["round"]} for each in self.state["rounds"] if each["saving"]]

    def notes(self) -> list[str]:
        """What on the pages is simulated or recorded."""
        simulated = sum(verdict.simulated for verdict in self.verdicts)
        notes = []
        if simulated:
            notes.append(
                f"{simulated} of {len(self.verdicts)} verdicts are by a simulated reviewer, not by people; "
                "gold decisions, review minutes and the risk figures that rest on them are simulated too."
            )
        if self.config.teacher.recorded is not None:
            notes.append("The teacher's replies come from a recording; its dollars are computed, not paid.")
        return notes

    def live(self) -> Row:
        """How far the present stage is, and who works on it."""
        current = rounds.current(self.store, self.run)
        working = claims.worker(self.store, self.run)
        if current is None:
            return {"round": 0, "stage": "new", "working": working, "progress": None}
        config = Config.model_validate(rounds.config_of(self.store, current), strict=False)
        most = AtMost(config.query.candidates * config.query.batch_size, 2 * config.evaluation.saving_pairs)
        found = progress(self.store, current, most)
        return {"round": current.number, "stage": current.stage.value, "working": working, "progress": found}

    def overview(self) -> Row:
        """Where the run stands, what it waits for, what selection saves, and what the rounds did."""
        return {
            "state": self.state,
            "live": self.live(),
            "curve": self.curve,
            "saving": self.savings[-1] if self.savings else None,
            "unmeasured": self.unmeasured,
            "stopping": stopping_text(stopping_figures(self._grounds())),
            "charts": {
                "curve": page_charts.curve(self.curve, "usd"),
                "decisions": page_charts.decisions(self.state["rounds"]),
            },
        }

    def _grounds(self) -> list[Ground]:
        return grounds(self.store, self.run, self.config, self.state["items"]["pool"])

    def learning(self) -> Row:
        """How good the student became for which price, and what selection had to do with it."""
        return {
            "state": self.state,
            "curve": self.curve,
            "savings": self.savings,
            "unmeasured": [each for each in self.state["rounds"] if each["saving_unmeasured"]],
            "charts": {
                "usd": page_charts.curve(self.curve, "usd"),
                "examples": page_charts.curve(self.curve, "examples"),
                "saving": page_charts.saving(self.savings),
            },
            "measured": [(each["round"], evaluation_text(each["student"])) for each in self.state["rounds"]],
            "duplicates": holdout_duplicates(self.store, self.config.query),
            "demonstrations": sets(self.store, self.run),
            "revision": revision_figures(self.store, self.run),
        }

    def money(self) -> Row:
        """What was spent, on what, and where that leads."""
        budget = self.state["budget"]
        forecasts = {
            name: forecast(self.state["rounds"], name, self.config, budget[name]["limit"])
            for name in ("usd", "minutes")
        }
        return {
            "state": self.state,
            "forecasts": forecasts,
            "charts": {
                "usd": page_charts.burn(forecasts["usd"], "US dollars", budget["usd"]["limit"]),
                "minutes": page_charts.burn(forecasts["minutes"], "minutes of reviewers", budget["minutes"]["limit"]),
            },
        }

    def doubts(self) -> Row:
        """What the checks flagged, how far the risk can be relied on, and what is promised of the rest."""
        wrong = wrong_by_rationale(self.verdicts)
        risks = counting.risks_of(self.store, wrong)
        bins = risk_bins(risks, self.verdicts)
        every = rounds.all_rounds(self.store, self.run)
        promised = self._keep("promises", lambda: promises(self.store, self.run, self.config))
        return {
            "flags": _flags(counting.flags(self.store, self.run), counting.checks_of(self.store, wrong), wrong),
            "bins": [page_charts.counted(each) for each in bins if each.reviewed],
            "calibration": _calibration(risks, wrong),
            "charts": {"risk": page_charts.reliability(bins)},
            "audits": _audits(self.store, self.run, wrong),
            "fits": [(each.number, fit) for each in every if (fit := risk_fit(self.store, each.id or 0))],
            "trust": confidence.of_run(self.store, self.run),
            "promises": promised,
            "promised": promises_text(promised) if promised else [],
            "planted": planted_figures(self.store, self.run),
        }

    def domains(self) -> Row:
        """Decisions in force and test accuracy by domain."""
        decided, pool = counting.decided_by_domain(self.store, self.run), counting.items_by_domain(self.store)
        last = next(
            (each.student_id for each in rounds.all_rounds(self.store, self.run)[::-1] if each.student_id), None
        )
        right = {} if last is None else counting.right_by_domain(self.store, last, Part.TEST)
        names = sorted(decided.keys() | right.keys() | pool.keys(), key=lambda name: (-_total(decided, name), name))
        lagging = self.lagging
        behind = {} if lagging is None else {each["domain"]: each for each in lagging["domains"]}
        return {
            "lagging": lagging,
            "more": max(0, len(names) - MOST_DOMAINS),
            "rows": [
                {
                    "name": name,
                    "pool": pool.get(name, 0),
                    "kinds": {kind.value: decided.get(name, Counter())[kind] for kind in DecisionKind},
                    "test": Accuracy.of(*right[name]) if name in right else None,
                    "lag": behind.get(name),
                }
                for name in names[:MOST_DOMAINS]
            ],
        }

    def reviewers(self) -> Row:
        """What reviewers did, and how far they can be trusted."""
        found = reviewer_figures(self.verdicts, self.names)
        work = [
            {
                "name": each.name,
                "simulated": each.simulated,
                "kinds": {kind.value: each.verdicts.get(kind, 0) for kind in VerdictKind},
                "n": sum(each.verdicts.values()),
                "minutes": each.minutes,
            }
            for each in found
        ]
        return {"work": work, "review": self._keep("review", lambda: review_figures(self.store, self.run))}

    def queue(self) -> Row:
        """The open reviews, the riskiest first. Why one was sent is not shown: reviewers are not to know it."""
        current = rounds.current(self.store, self.run)
        waiting = [] if current is None else reviews.pending(self.store, current.id or 0)
        ids = [task.rationale_id for task, _, _ in waiting]
        risks, flagged = counting.risks_of(self.store, ids), counting.checks_of(self.store, ids)
        rows: list[Row] = [
            {
                "key": item.key,
                "question": item.question,
                "domain": item.domain,
                "risk": risks.get(task.rationale_id),
                "checks": sorted(flagged.get(task.rationale_id, ())),
                "whose": self.names.get(task.assignee, "somebody") if task.assignee else "anybody",
                "since": task.assigned_at or task.pushed_at,
            }
            for task, _, item in waiting
        ]
        rows.sort(key=lambda row: (-(row["risk"] or 0.0), row["key"]))
        board = self.config.review.url if self.config.review.board == "label_studio" else None
        return {"rows": rows[:MOST_REVIEWS], "n": len(rows), "board": board}


@dataclass(frozen=True)
class Page:
    """A page by its name in addresses, its title, and how its values are found."""

    name: str
    title: str
    view: Callable[[Views], Row]


PAGES = (
    Page("overview", "Overview", Views.overview),
    Page("learning", "Learning", Views.learning),
    Page("money", "Budget", Views.money),
    Page("doubts", "Doubts", Views.doubts),
    Page("domains", "Domains", Views.domains),
    Page("reviewers", "Reviewers", Views.reviewers),
    Page("queue", "Queue", Views.queue),
)
"""The pages in their order. The dashboard has those of items besides."""


def forecast(figures: Sequence[Row], currency: str, config: Config, limit: float) -> Row:
    """What closed rounds cost in all, and what the rounds still planned would at the mean price of an asked item.

    The band is what they would cost at the prices of the cheapest and of the dearest round. Nothing is capped: where it
    crosses the limit, the campaign ends earlier.
    """
    closed = [each for each in figures if each["stage"] == Stage.CLOSED.value]
    spent, points = 0.0, [{"round": 0, "spent": 0.0}]
    for each in closed:
        spent += each[currency]
        points.append({"round": each["round"], "spent": spent})
    prices = [each[currency] / each["queried"] for each in closed if each["queried"]]
    asked = sum(each["queried"] for each in closed)
    left, batch = max(0, config.run.rounds - len(closed)), config.query.batch_size
    found: Row = {"points": points, "left": left, "batch": batch, "limit": limit}
    found |= {"ahead": [], "price": None, "reached": None}
    if not prices or not left:
        return found
    mean = spent / asked
    for step in range(left + 1):
        low, expected, high = (spent + step * batch * price for price in (min(prices), mean, max(prices)))
        found["ahead"].append({"round": len(closed) + step, "spent": expected, "low": low, "high": high})
    found["price"] = {"mean": mean, "low": min(prices), "high": max(prices)}
    found["reached"] = next((each["round"] for each in found["ahead"] if each["spent"] >= limit), None)
    return found


def _calibration(risks: Mapping[int, float], wrong: Mapping[int, bool]) -> Calibration | None:
    """How far the risk lay from what reviewers found; each risk was given before anybody looked."""
    seen = sorted(risks.keys() & wrong.keys())
    return calibration([risks[each] for each in seen], [wrong[each] for each in seen], bins=RISK_BINS)


def _flags(counts: Counter[str], checks: Mapping[int, set[str]], wrong: Mapping[int, bool]) -> list[Row]:
    """How many flags each check raised, and how many of the rationales that it flagged reviewers did not accept."""
    by_check: defaultdict[str, list[bool]] = defaultdict(list)
    for number, names in checks.items():
        for name in names:
            by_check[name].append(wrong[number])
    return [{"check": name, "n": count, "wrong": share(by_check[name])} for name, count in counts.most_common()]


def _audits(store: Store, run: str, wrong: Mapping[int, bool]) -> Share | None:
    """How often reviewers did not accept what was sent to them whatever the risk: an honest look at the teacher."""
    return share(wrong[number] for number in counting.audited(store, run) if number in wrong)


def _total(decided: Mapping[str, Counter[DecisionKind]], name: str) -> int:
    return decided[name].total() if name in decided else 0
