"""What is promised of the rows that nobody reviewed, as JSON-ready values and in words."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from loop import certification
from loop.certificate import audits_needed, corrected_share
from loop.config import Config
from loop.detection import sensitivity_specificity
from loop.records import Certificate, DecisionKind, Promise, deciding, found_wrong, role
from loop.store import certificates, decisions, rounds
from loop.store.database import Store


def promises(store: Store, run: str, config: Config, until: int | None = None) -> dict[str, Any] | None:
    """The promise of an export as it would be given now, the looks at a threshold, and the audits behind both.

    Of the rows in force when the decision of the id `until` was the newest, if one is named. None before the first
    round.
    """
    current = rounds.current(store, run)
    if current is None:
        return None
    audits = certificates.audits(store, run)
    passing = [audit for audit in audits if audit.query.passes]
    silver = decisions.in_force_by_round(store, run, [DecisionKind.SILVER], until)
    numbers = {each.id: each.number for each in rounds.all_rounds(store, run)}
    looks = certificates.of_run(store, run, Promise.THRESHOLD)
    holds = bool(looks) and looks[-1].threshold is not None
    same = sum(_one_person(audit) for audit in audits)
    export = certification.export_certificate(store, current, config, audits, silver)
    return {
        "alpha": config.acceptance.alpha,
        "delta": config.acceptance.delta,
        "audits": {"certifying": len(audits), "held": sum(audit.held for audit in audits), "by_one_person": same},
        "export": _shown(export, numbers)
        | {"corrected": _corrected(store, run, export.bound), "strata": _strata(silver, passing, numbers)},
        "issued": [_shown(each, numbers) for each in certificates.of_run(store, run, Promise.EXPORT)],
        "looks": [_shown(each, numbers) for each in looks],
        "threshold": looks[-1].threshold if holds else None,
        "missing": {
            "export": max(0, audits_needed(config.acceptance.alpha, config.acceptance.delta) - len(audits)),
            "threshold": 0 if holds else certification.missing_audits(store, run, config),
        },
    }


def promises_text(found: Mapping[str, Any]) -> list[str]:
    """The promises in sentences."""
    export, audits, missing = found["export"], found["audits"], found["missing"]
    unaudited = export["population"] - export["audited"]
    simulated = sum(each["simulated"] for each in export.get("strata", ()))  # a name of an older version has none
    lines = [
        f"{audits['certifying']} certifying audits, {audits['held']} of them held back"
        + (f", {audits['by_one_person']} reviewed twice by one person" if audits["by_one_person"] else "")
        + (f", {simulated} by a simulated reviewer" if simulated else "")
    ]
    if unaudited:
        lines.append(
            f"export: with {1 - export['delta']:.0%} confidence at most {export['bound']:.1%} of the {unaudited} rows "
            f"accepted unreviewed are wrong ({export['wrong']} of {export['audited']} audits were)"
            + ("" if export["corrected"] is None else f", {_corrected_text(export['corrected'])}")
            + (
                f"; about {missing['export']} more audits without an error would certify {found['alpha']:.0%}"
                if export["bound"] > found["alpha"]
                else f"; certified at {found['alpha']:.0%}"
            )
        )
    if found["threshold"] is not None:
        lines.append(
            f"threshold: at most {found['alpha']:.0%} are wrong where the risk is below {found['threshold']:g}"
        )
    else:
        lines.append(
            f"threshold: none certified after {len(found['looks'])} looks; the next needs {missing['threshold']} more "
            "audits without an error"
        )
    return lines


def _corrected(store: Store, run: str, bound: float) -> dict[str, float] | None:
    """The bound with reviewers' errors taken out, by what they made of planted errors and controls.

    None where too little was planted to tell them from chance.
    """
    sensitivity, specificity = sensitivity_specificity(store, run)
    if sensitivity is None or specificity is None or sensitivity.share + specificity.share <= 1:
        return None
    return {
        "bound": corrected_share(bound, sensitivity=sensitivity.share, specificity=specificity.share),
        "sensitivity": sensitivity.share,
        "specificity": specificity.share,
        "planted": sensitivity.n + specificity.n,
    }


def _corrected_text(found: Mapping[str, float]) -> str:
    return (
        f"{found['bound']:.1%} with reviewers' own errors taken out (one of them finds {found['sensitivity']:.0%} of "
        f"planted errors and accepts {found['specificity']:.0%} of controls, n = {found['planted']})"
    )


def _strata(
    silver: Counter[int], passing: Sequence[certificates.Audit], numbers: Mapping[int | None, int]
) -> list[dict[str, Any]]:
    """Round by round the rows accepted unreviewed, and the audits of rows that would have been.

    `wrong` and `simulated` are of those that are reviewed: what the verdicts say that decide.
    """
    audits: defaultdict[int, list[certificates.Audit]] = defaultdict(list)
    for each in passing:
        audits[each.query.round_id].append(each)
    rows = []
    for round_id in sorted(silver.keys() | audits.keys()):
        said = [given for each in audits[round_id] if (given := deciding(each.verdicts))]
        rows.append(
            {
                "round": numbers[round_id],
                "unreviewed": silver[round_id],
                "audited": len(audits[round_id]),
                "reviewed": len(said),
                "wrong": sum(found_wrong(each) is True for each in said),
                "simulated": sum(any(verdict.simulated for verdict in each) for each in said),
            }
        )
    return rows


def _one_person(audit: certificates.Audit) -> bool:
    """Whether one person gave both blind verdicts, so that they were not blind."""
    first, second = ({each.reviewer for each in audit.verdicts if role(each.slot) == slot} for slot in (0, 1))
    return bool(first & second)


def _shown(row: Certificate, numbers: Mapping[int | None, int]) -> dict[str, Any]:
    names = {"look", "alpha", "delta", "audited", "wrong", "population", "bound", "threshold"}
    return {"round": numbers.get(row.round_id), **row.model_dump(mode="json", include=names)}
