"""Where a run stands: a contract for programs, and the same for people."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, Literal

from rich.console import Group
from rich.table import Table
from rich.text import Text

from connectors.lagging import lagging_figures, lagging_text
from connectors.measurements import contamination_text, holdout_duplicates, last_evaluation, student_figures
from connectors.promises import promises, promises_text
from connectors.reviewers import accusation_text, recall_text, review_figures, share_text
from connectors.revisions import revision_figures, revision_text
from connectors.stops import grounds, stopping_figures, stopping_text
from connectors.versions import learned, learned_text
from loop.config import Config
from loop.detection import by_reviewer, detection
from loop.ledger import MICRO, to_micro
from loop.records import Arm, Currency, DecisionKind, Part, Round, Shadow, Split, Stage
from loop.report import pseudonyms
from loop.saving import Saving, saving
from loop.store import counting, evaluations, items, pool, reading, reviews, rounds, shadows
from loop.store.database import Store
from loop.store.money import Purse

WaitingFor = Literal["reviewers", "nothing", "budget"]


def status(store: Store, run: str, config: Config, waiting_for: WaitingFor | None = None) -> dict[str, Any]:
    """Where the run stands, as JSON-ready values. Without `waiting_for` it is read off the store.

    Fields may be added to it, never renamed or removed.
    """
    counted = counts(store, run, config, counting.verdicts(store, run))
    return {
        **place(store, run, config, waiting_for),
        **counted,
        "promises": promises(store, run, config),
        "planted": planted_figures(store, run),
        "revision": revision_figures(store, run),
        "review": review_figures(store, run),
        "contamination": holdout_duplicates(store, config.query),
        "stopping": stopping_figures(grounds(store, run, config, counted["items"]["pool"])),
        "learned": learned(store, run),
        "lagging": lagging_figures(store, run, config),
    }


def counts(store: Store, run: str, config: Config, verdicts: Sequence[counting.Given]) -> dict[str, Any]:
    """Of the status what is only counted."""
    figures = round_figures(store, run, verdicts)
    return {
        "budget": _budget(store, run, config),
        "models": {model: spent / MICRO for model, spent in reading.spent_by_model(store, run).items()},
        "items": _items(store, run, config),
        "rounds": figures,
        "simulated_verdicts": sum(each["simulated"] for each in figures),
    }


def place(store: Store, run: str, config: Config, waiting_for: WaitingFor | None = None) -> dict[str, Any]:
    """Of the status the round, its stage, and what the run waits for."""
    current = rounds.current(store, run)
    return {
        "run": run,
        "round": 0 if current is None else current.number,
        "stage": "new" if current is None else current.stage.value,
        "waiting_for": waiting_for or _waiting_for(store, run, current, config),
    }


def round_figures(store: Store, run: str, verdicts: Sequence[counting.Given]) -> list[dict[str, Any]]:
    """What happened in each round of a run, by its verdicts and what the store counts."""
    every, spent, compared = (
        rounds.all_rounds(store, run),
        reading.spent_by_round(store, run),
        shadows.of_run(store, run),
    )
    queried, flagged, decided = counting.queried(store, run), counting.flagged(store, run), counting.decided(store, run)
    reviewed = Counter(number for number, _ in {(each.round_id, each.rationale_id) for each in verdicts})
    simulated = Counter(each.round_id for each in verdicts if each.simulated)
    students = {number for each in every for number in (each.student_id, each.candidate_id) if number is not None}
    right, evaluated = counting.right(store, students, Part.TEST), evaluations.of_run(store, run)
    rounds_of = {each.candidate_id: each.number for each in every if each.candidate_id is not None}
    return [
        {
            "round": each.number,
            "stage": each.stage.value,
            "selection": each.selection,
            "queried": queried.get(number, (0, 0))[0],
            "flagged": flagged.get(number, 0),
            "audited": queried.get(number, (0, 0))[1],
            "reviewed": reviewed[number],
            "accepted": decided[number, DecisionKind.GOLD] + decided[number, DecisionKind.SILVER],
            **{kind.value: decided[number, kind] for kind in DecisionKind},
            "simulated": simulated[number],
            "usd": spent.get(number, {}).get(Currency.USD, 0) / MICRO,
            "minutes": spent.get(number, {}).get(Currency.MINUTES, 0) / MICRO,
            "student": student_figures(right, each.student_id, evaluated, rounds_of),
            "candidate": student_figures(right, each.candidate_id, evaluated, rounds_of),
            "saving": _saving(compared.get(each.number, ())),
            "saving_unmeasured": each.unmeasured or None,
        }
        for each in every
        for number in [each.id or 0]
    ]


def status_text(found: Mapping[str, Any]) -> Group:
    """The status for people."""
    usd, minutes = found["budget"]["usd"], found["budget"]["minutes"]
    counts = found["items"]
    head = Text.assemble(
        ("run ", "dim"), (found["run"], "bold"), f"  round {found['round']}, stage {found['stage']}",
        f"; waits for {found['waiting_for']}\n",
        ("spent ", "dim"), f"${usd['spent']:.4f} of ${usd['limit']:g}", f" (${usd['reserved']:.4f} reserved), ",
        f"{minutes['spent']:.1f} of {minutes['limit']:.0f} review minutes\n",
        *_models(found["models"]),
        ("items ", "dim"), ", ".join(f"{number} {name}" for name, number in counts.items()),
    )  # fmt: skip
    parts: list[Any] = [head]
    if found["rounds"]:
        parts += _tables(found["rounds"])
        parts += [Text(line) for line in (*batch_text(found["rounds"]), *savings_text(found["rounds"]))]
        parts += [Text(line) for line in last_evaluation(found["rounds"])]
    parts += [Text(line) for line in learned_text(found["learned"])]
    parts += [Text(line) for line in (lagging_text(found["lagging"]) if found["lagging"] else ())]
    if found["contamination"] and found["contamination"]["items"]:
        parts.append(Text(contamination_text(found["contamination"]), style="yellow"))
    if found["promises"]:
        parts += [Text(line) for line in promises_text(found["promises"])]
    if found["planted"]:
        parts.append(Text(planted_text(found["planted"])))
    if found["revision"]:
        parts.append(Text(revision_text(found["revision"])))
    parts += [Text(accusation_text(each), style="red") for each in found["review"]["reviewers"] if each["accused"]]
    parts += [Text(recall_text(each)) for each in found["review"]["recalls"]]
    parts += [Text(line, style="dim") for line in stopping_text(found["stopping"])]
    if found["simulated_verdicts"]:
        said = f"{found['simulated_verdicts']} verdicts are by a simulated reviewer; their minutes are simulated too."
        parts.append(Text(said, style="yellow"))
    return Group(*parts)


def _models(paid: Mapping[str, float]) -> list[Any]:
    """What each model was paid, where there are several."""
    said = ", ".join(f"${usd:.4f} {model}" for model, usd in paid.items())
    return [("of this ", "dim"), f"{said}\n"] if len(paid) > 1 else []


def planted_figures(store: Store, run: str) -> dict[str, Any] | None:
    """What checks and reviewers found of what was planted; None where nothing was."""
    found = detection(store, run)
    if not found.errors + found.controls:
        return None
    names = pseudonyms(reading.reviewers_of(store, run))
    reviewers = [asdict(each) | {"reviewer": names[each.reviewer]} for each in by_reviewer(store, run)]
    return asdict(found) | {"reviewers": reviewers}


def planted_text(found: Mapping[str, Any]) -> str:
    """What was found of what was planted, in a sentence."""
    return (
        f"planted: {found['errors']} errors, {found['controls']} controls; "
        f"checks doubt {share_text(found['recall'])} of errors and {share_text(found['false_alarms'])} of controls; "
        f"reviewers find {share_text(found['sensitivity'])} of errors and accept {share_text(found['specificity'])} "
        "of controls"
    )


def _saving(compared: Sequence[Shadow]) -> dict[str, Any] | None:
    """What a round's shadow students say of selection."""
    found = _measured(
        tuple(
            (row.pair, row.arm, row.asked, row.micro_usd, row.by_count, row.examples, tuple(row.correct.items()))
            for row in compared
        )
    )
    return None if found is None else asdict(found) | {"verdict": found.verdict.value}


@lru_cache(maxsize=1024)
def _measured(
    compared: tuple[tuple[int, Arm, int, int, bool, int, tuple[tuple[str, bool], ...]], ...],
) -> Saving | None:
    """As `saving` says; kept, for its thousands of resamples come out the same each time."""
    rows = [
        Shadow(
            round_id=0,
            pair=pair,
            arm=arm,
            asked=asked,
            examples=examples,
            micro_usd=usd,
            by_count=by_count,
            correct=dict(correct),
        )
        for pair, arm, asked, usd, by_count, examples, correct in compared
    ]
    return saving(rows)


def batch_text(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the newest batch came about, in a sentence."""
    last = next((each for each in reversed(figures) if each["selection"]), None)
    return [] if last is None else [f"the batch of round {last['round']}: {last['selection']}"]


def savings_text(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """What selection saved where that was measured last, and why not in a later round."""
    measured = next((each for each in reversed(figures) if each["saving"]), None)
    said = [] if measured is None else [f"after round {measured['round']}, {saving_text(measured['saving'])}"]
    missed = next((each for each in reversed(figures) if each["saving_unmeasured"]), None)
    if missed is not None and (measured is None or missed["round"] >= measured["round"]):
        said.append(f"after round {missed['round']}, {unmeasured_text(missed['saving_unmeasured'])}")
    return said


def unmeasured_text(why: str) -> str:
    """Why it is not known what selection saves."""
    return f"what selection saves was not measured: {why}"


def saving_text(found: Mapping[str, Any]) -> str:
    """What selection saves, in a sentence."""
    said = {
        "saves": "selection beats random picks",
        "undecided": "undecided whether selection beats random picks",
        "loses": "random picks beat selection",
    }[found["verdict"]]
    equal = f"{found['asked']:g} items each, as some cost nothing" if found["by_count"] else f"${found['usd']:.4f} each"
    return (
        f"{said}: dev accuracy {found['selected']:.3f} selected, {found['control']:.3f} random for {equal}; "
        f"difference {found['gain']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f}, "
        f"{found['pairs']} pairs of students, n={found['n']})"
    )


def _budget(store: Store, run: str, config: Config) -> dict[str, dict[str, float]]:
    """Limits and what is spent; before the first round the limits are the config's."""
    limits = {Currency.USD: config.budget.usd, Currency.MINUTES: config.budget.minutes}
    found: dict[str, dict[str, float]] = {}
    for currency, row in Purse(store, run).balances().items():
        untouched = row.limit == row.spent == row.reserved == 0
        found[currency.value] = {
            "limit": limits[currency] if untouched else row.limit / MICRO,
            "spent": row.spent / MICRO,
            "reserved": row.reserved / MICRO,
        }
    return found


def _items(store: Store, run: str, config: Config) -> dict[str, int]:
    counts, decided = items.count(store), counting.in_force(store, run)
    return {
        "pool": pool.count(store, run, config),
        "holdout": counts.get(Split.HOLDOUT, 0),
        "seed": counts.get(Split.SEED, 0),
        "queried": counting.queried_items(store, run),
        **{kind.value: decided[kind] for kind in DecisionKind},
        "held": counting.held(store, run),
    }


def _waiting_for(store: Store, run: str, current: Round | None, config: Config) -> WaitingFor:
    """Reviewers while reviews are open; budget where a further round could not ask a single item."""
    if current is not None and current.stage is Stage.REVIEW and reviews.pending(store, current.id or 0):
        return "reviewers"
    more = current is None or (current.stage is Stage.CLOSED and current.number < config.run.rounds)
    return "budget" if more and _left(store, run, config) < max(1, reading.least_request(store, run)) else "nothing"


def _left(store: Store, run: str, config: Config) -> int:
    """Micro-dollars that are neither spent nor reserved, under the limit that the next round gets."""
    balance = Purse(store, run).balances()[Currency.USD]
    return to_micro(config.budget.usd) - balance.spent - balance.reserved


def _tables(figures: Sequence[Mapping[str, Any]]) -> list[Table]:
    """What each round did, and what came of it; two tables, so that both fit a narrow terminal."""
    did = ("round", "stage", "queried", "flagged", "audited", "reviewed")
    came = ("round", "gold", "silver", "rejected", "undecided")
    work = Table(*did, "usd", "minutes", box=None, header_style="dim", pad_edge=False)
    outcome = Table(*came, "test accuracy (95 % interval)", box=None, header_style="dim", pad_edge=False)
    for each in figures:
        work.add_row(*(str(each[name]) for name in did), f"{each['usd']:.4f}", f"{each['minutes']:.1f}")
        outcome.add_row(*(str(each[name]) for name in came), _accuracy_text(each["student"]))
    return [work, outcome]


def _accuracy_text(student: Mapping[str, Any] | None) -> str:
    if student is None:
        return "-"
    return f"{student['accuracy']:.3f} ({student['low']:.3f} to {student['high']:.3f}, n={student['n']})"
