"""Writes one self-contained HTML page about a run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from connectors import charts
from connectors.measurements import evaluation_text
from connectors.promises import promises_text
from connectors.reviewers import accusation_text, agreement_text, anchoring_text, recall_text, share_text, told
from connectors.revisions import revision_text
from connectors.status import saving_text, status
from connectors.stops import stopping_text
from loop.calibration import Calibration, calibration
from loop.config import Config
from loop.errors import PreceptorError
from loop.interval import wilson
from loop.records import DecisionKind, Part, Prediction, Verdict, VerdictKind
from loop.report import (
    RISK_BINS,
    accuracy,
    asked,
    pseudonyms,
    reviewer_figures,
    risk_bins,
    wrong_by_rationale,
)
from loop.store import checkpoints, confidence, decisions, reading, rounds
from loop.store.database import Store
from loop.store.demonstrations import sets
from loop.store.rationales import risk_fit

TEMPLATES = Path(__file__).parent / "templates"
Row = dict[str, Any]


def write_report(store: Store, run: str, config: Config, path: Path) -> None:
    """Write the page beside its name, then rename it.

    Raises:
        PreceptorError: the file cannot be written.
    """
    text = page(store, run, config)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise PreceptorError(f"{path}: cannot be written: {error.strerror}") from error


def page(store: Store, run: str, config: Config) -> str:
    """The page as text."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    state = status(store, run, config)
    verdicts = [verdict for _, verdict in reading.verdicts_of(store, run) if verdict.kind is not None]
    return environment.get_template("report.html.j2").render(
        state=state,
        notes=_notes(config, verdicts),
        teacher=config.teacher.model,
        student=config.student.model,
        curve=_curve(store, run, state["rounds"]),
        charts=_charts(store, run, state, verdicts),
        audits=_audits(store, run, verdicts),
        calibration=_calibration(store, run, verdicts),
        fits=[(each.number, fit) for each in rounds.all_rounds(store, run) if (fit := risk_fit(store, each.id or 0))],
        demonstrations=sets(store, run),
        trust=confidence.of_run(store, run),
        reviewers=_reviewers(store, run, verdicts),
        domains=_domains(store, run),
        saving_text=saving_text,
        measured=[(each["round"], evaluation_text(each["student"])) for each in state["rounds"]],
        stopping=stopping_text(state["stopping"]),
        duplicates=state["contamination"],
        revision_text=revision_text,
        promised=promises_text(state["promises"]) if state["promises"] else [],
        share_text=share_text,
        agreement_text=agreement_text,
        anchoring_text=anchoring_text,
        accusation_text=accusation_text,
        recall_text=recall_text,
        told=told,
    )


def _notes(config: Config, verdicts: Sequence[Verdict]) -> list[str]:
    """What on the page is simulated or recorded."""
    simulated = sum(verdict.simulated for verdict in verdicts)
    notes = []
    if simulated:
        notes.append(
            f"{simulated} of {len(verdicts)} verdicts are by a simulated reviewer, not by people; "
            "gold decisions, review minutes and the risk figures that rest on them are simulated too."
        )
    if config.teacher.recorded is not None:
        notes.append("The teacher's replies come from a recording; its dollars are computed, not paid.")
    return notes or ["Nothing on this page is simulated."]


def _curve(store: Store, run: str, figures: Sequence[Row]) -> list[Row]:
    """Accuracy of the student in force after each round, with what had been spent and learnt by then."""
    examples = {number: row.examples for number, row in reading.checkpoints_of(store, run).items()}
    in_force = {each.number: each.student_id for each in rounds.all_rounds(store, run)}
    points, usd = [], 0.0
    for each in figures:
        usd += each["usd"]
        if each["student"] is not None:
            learnt = examples.get(in_force[each["round"]] or 0, 0)
            points.append({"round": each["round"], "usd": usd, "examples": learnt, **each["student"]})
    return points


def _charts(store: Store, run: str, state: Mapping[str, Any], verdicts: Sequence[Verdict]) -> Row:
    """Every chart with the number of things behind it; None where nothing was counted."""
    figures = state["rounds"]
    curve = _curve(store, run, figures)
    flags = Counter(flag.check_name for _, flag in reading.flags_of(store, run))
    bins = risk_bins(reading.risks_of(store, run), verdicts)
    reviewed = sum(each.reviewed for each in bins)
    decided = sum(each[kind.value] for each in figures for kind in DecisionKind)
    limit = state["budget"]["usd"]["limit"]
    savings = [each["saving"] | {"round": each["round"]} for each in figures if each["saving"]]
    return {
        "curve": _drawn(charts.learning_curve(curve), len(curve)) if curve else None,
        "decisions": _drawn(charts.decisions(figures), decided) if decided else None,
        "flags": _drawn(charts.flags(flags), flags.total()) if flags else None,
        "spending": _drawn(charts.spending(figures, limit), len(figures)) if figures else None,
        "saving": _drawn(charts.saving(savings), len(savings)) if savings else None,
        "risk": _drawn(charts.risk(bins), reviewed) if reviewed else None,
    }


def _drawn(svg: str, n: int) -> Row:
    """A chart that the template may take as it is: `connectors.charts` made it."""
    return {"svg": Markup(svg), "n": n}


def _audits(store: Store, run: str, verdicts: Sequence[Verdict]) -> Row | None:
    """How often reviewers did not accept what was sent to them whatever the risk: an honest look at the teacher."""
    audited = {(query.round_id, query.item_key) for query in reading.queries_of(store, run) if query.audit}
    sent = {each.id for each in asked(reading.rationales_of(store, run)) if (each.round_id, each.item_key) in audited}
    seen = risk_bins(dict.fromkeys((each or 0 for each in sent), 0.0), verdicts)[0]
    if seen.reviewed == 0:
        return None
    low, high = wilson(seen.wrong, seen.reviewed)
    return {"n": seen.reviewed, "wrong": seen.wrong, "low": low, "high": high}


def _calibration(store: Store, run: str, verdicts: Sequence[Verdict]) -> Calibration | None:
    """How far the risk lay from what reviewers found; each risk was given before anybody looked."""
    risks, wrong = reading.risks_of(store, run), wrong_by_rationale(verdicts)
    seen = sorted(risks.keys() & wrong.keys())
    return calibration([risks[each] for each in seen], [wrong[each] for each in seen], bins=RISK_BINS)


def _reviewers(store: Store, run: str, verdicts: Sequence[Verdict]) -> list[Row]:
    found = reviewer_figures(verdicts, pseudonyms(reading.reviewers_of(store, run)))
    return [
        {
            "name": each.name,
            "simulated": each.simulated,
            "kinds": {kind.value: each.verdicts.get(kind, 0) for kind in VerdictKind},
            "n": sum(each.verdicts.values()),
            "minutes": each.minutes,
        }
        for each in found
    ]


def _domains(store: Store, run: str) -> list[Row]:
    """Decisions in force and test accuracy by domain."""
    domain_of = reading.domains(store)
    decided = Counter((domain_of[key], row.kind.value) for key, row in decisions.newest(store, run).items())
    last = next((each.student_id for each in reversed(rounds.all_rounds(store, run)) if each.student_id), None)
    answers = [] if last is None else checkpoints.predictions(store, last, Part.TEST)
    by_domain: dict[str, list[Prediction]] = {}
    for answer in answers:
        by_domain.setdefault(domain_of[answer.item_key], []).append(answer)
    return [
        {
            "name": name,
            "kinds": {kind.value: decided[name, kind.value] for kind in DecisionKind},
            "test": accuracy(by_domain.get(name, [])),
        }
        for name in sorted({domain for domain, _ in decided} | by_domain.keys())
    ]
