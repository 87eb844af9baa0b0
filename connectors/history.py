"""Everything about one item: what it scored, what was asked and said, and what was decided."""

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text
from sqlmodel import SQLModel

from connectors.holding import learned_until, written_in
from connectors.versions import version_text
from loop.errors import PreceptorError
from loop.ledger import MICRO
from loop.records import (
    ADJUDICATION,
    ROLES,
    SECOND,
    STRONGER,
    Author,
    Charge,
    Decision,
    Item,
    ReviewTask,
    Round,
    Split,
    TrialKind,
    Verdict,
    Withdrawal,
    role,
)
from loop.report import pseudonyms
from loop.store import exported, items, reading, rounds, versions, withdrawals
from loop.store.database import Store

TRIALS = {
    TrialKind.EXPLAIN.value: "explained for its known answer",
    TrialKind.RECOVER.value: "answered by that explanation alone",
    TrialKind.DEV.value: "answered to try a set",
}


def history(store: Store, run: str, key: str) -> dict[str, Any]:
    """Everything that a run stored about an item, as JSON-ready values in the order in which it came to be.

    Raises:
        PreceptorError: there is no such item; the nearest key is named.
    """
    item = items.get(store, key)
    if item is None:
        raise PreceptorError(f"{key}: no such item; {_nearest(store, key)}")
    past = reading.past_of(store, run, item)
    every = rounds.all_rounds(store, run)
    numbers = {each.id: each.number for each in every}
    charges = {charge.id: charge for charge in past.charges}
    names = pseudonyms(reading.reviewers_of(store, run))
    replies = [_plain(each, numbers) | _paid(charges.get(each.charge_id)) for each in past.replies]
    trials = [_plain(each, numbers) | _paid(charges.get(each.charge_id)) for each in past.trials]
    judgements = [_plain(each, numbers) | _paid(charges.get(each.charge_id)) for each in past.judgements]
    tasks = [_task(each, numbers) | _paid(charges.get(each.charge_id)) for each in past.tasks]
    decided = [_plain(each, numbers) for each in past.decisions]
    recalls = withdrawals.reasons(store, past.verdicts)
    return {
        "key": key,
        "item": _shown_item(_plain(item, numbers)),
        "scores": [_plain(each, numbers) for each in past.scores],
        "queries": [_plain(each, numbers) for each in past.queries],
        "prompts": [_plain(each, numbers) for each in past.prompts],
        "replies": replies,
        "trials": trials,
        "revisions": [_plain(each, numbers) for each in past.revisions],
        "revision_replies": [
            _plain(each, numbers) | _paid(charges.get(each.charge_id)) for each in past.revision_replies
        ],
        "rationales": [_plain(each, numbers) for each in past.rationales],
        "judgements": judgements,
        "flags": [_plain(each, numbers) for each in past.flags],
        "risks": [_plain(each, numbers) for each in past.risks],
        "tasks": tasks,
        "verdicts": [_verdict(each, names) | _withdrawn(each, recalls) for each in past.verdicts],
        "decisions": decided,
        "versions": _versions(store, run, past.decisions),
        "trained_in": _trained_in(store, run, item, past.decisions, every),
        "exports": _exports(store, run, past.decisions),
    }


def history_text(found: Mapping[str, Any]) -> Group:
    """The history for people; all of it is shown as plain text."""
    item = found["item"]
    parts = [Text(f"{found['key']} ({item['split']}, {item['domain']})", style="bold"), Text(item["question"])]
    for title, lines in history_lines(found):
        parts.append(Text(f"\n{title}", style="dim"))
        parts += [Text(f"  {line}") for line in lines]
    return Group(*parts)


def history_lines(found: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """What happened to an item, a line an event, under titles; those without a line are left out."""
    every = (
        ("scores", [_score_line(each) for each in found["scores"]]),
        ("queries", [_query_line(each) for each in found["queries"]]),
        ("replies", [_reply_line(each, found) for each in found["replies"]]),
        ("the student's explanation revised", [_revision_line(each, found) for each in found["revisions"]]),
        ("as a demonstration", [_trial_line(each) for each in found["trials"]]),
        ("rationales", [line for each in found["rationales"] for line in _rationale_lines(each, found)]),
        ("sent to review", [_task_line(each) for each in found["tasks"]]),
        ("verdicts", [_verdict_line(each) for each in found["verdicts"]]),
        ("decisions", [f"round {each['round']}: {each['kind']} ({each['reason']})" for each in found["decisions"]]),
        ("versions that hold it", [_version_line(each) for each in found["versions"]]),
        ("trained in", [_trained_line(each) for each in found["trained_in"]]),
        ("exports", [_export_line(each) for each in found["exports"]]),
    )
    return [(title, lines) for title, lines in every if lines]


def _plain(row: SQLModel, numbers: Mapping[int | None, int]) -> dict[str, Any]:
    """The row's fields, with the round's number beside its id."""
    fields = row.model_dump(mode="json")
    return fields | ({"round": numbers.get(fields["round_id"])} if "round_id" in fields else {})


def _task(row: ReviewTask, numbers: Mapping[int | None, int]) -> dict[str, Any]:
    """A review task, without the person."""
    return _plain(row, numbers) | {"assignee": "somebody" if row.assignee else ""}


def _shown_item(fields: dict[str, Any]) -> dict[str, Any]:
    """A holdout item without its gold, so that nothing printed can leak it."""
    return fields | {"answer": None, "steps": []} if fields["split"] == Split.HOLDOUT.value else fields


def _paid(charge: Charge | None) -> dict[str, Any]:
    if charge is None:
        return {"charge": None}
    amounts = {"reserved": charge.reserved / MICRO, "settled": charge.settled / MICRO}
    return {"charge": {"currency": charge.currency.value, **amounts, "state": charge.state.value}}


def _verdict(verdict: Verdict, names: Mapping[str, str]) -> dict[str, Any]:
    """A verdict as it was interpreted, without the person."""
    fields = verdict.model_dump(mode="json", exclude={"raw", "reviewer", "assignee"})
    return fields | {"reviewer": names.get(verdict.reviewer, "reviewer")}


def _withdrawn(verdict: Verdict, recalls: Mapping[tuple[str, str, str, str], Withdrawal]) -> dict[str, Any]:
    """When and why a verdict stopped to count, if it did."""
    row = recalls.get((verdict.board, verdict.project, verdict.annotation, verdict.updated_at))
    return {"withdrawn": None if row is None else row.model_dump(mode="json", include={"withdrawn_at", "reason"})}


def _trained_in(
    store: Store, run: str, item: Item, decided: Sequence[Decision], every: Sequence[Round]
) -> list[dict[str, Any]]:
    """The rounds whose checkpoint learnt from the item, by the decision that was in force then."""
    checkpoints = reading.checkpoints_of(store, run)
    numbers = {each.id: each.number for each in every}
    found = []
    for each in every:
        trained = checkpoints.get(each.candidate_id or 0)
        if trained is None:
            continue
        taught = versions.held(decided, learned_until(trained, each.number, decided, numbers))
        seed = item.split is Split.SEED and item.key in trained.card.get("seed_keys", [item.key])
        if taught is not None or seed:
            removed, how = trained.model_dump(mode="json")["removed_at"], _used(item.key, trained.card)
            said = {"round": each.number, "checkpoint": trained.folder, "version": trained.data_version or None}
            found.append({**said, "as": how, "weights_removed": removed})
    return found


def _used(key: str, card: Mapping[str, Any]) -> str:
    """What a training made of an item, by the card of its student; what it went on from may have learned it before."""
    if key in card.get("validation_keys", ()):
        return "validation"
    return "left out" if key in card.get("left_out", ()) and not card.get("started_from") else "example"


def _versions(store: Store, run: str, decided: Sequence[Decision]) -> list[dict[str, Any]]:
    """The versions of the dataset that hold the item, oldest first, each with the decision that it holds."""
    names = versions.names_of(store, run)
    return [
        {
            "version": each.hash,
            "names": [row.name for row in names if row.hash == each.hash],
            "decision": held.kind.value,
            "decision_id": held.id,
            "recorded_at": each.recorded_at.isoformat(),
        }
        for each in versions.of_run(store, run)
        if (held := versions.held(decided, each.last_decision)) is not None
    ]


def _exports(store: Store, run: str, decided: Sequence[Decision]) -> list[dict[str, Any]]:
    """The exports that may hold the item."""
    return [
        each.model_dump(mode="json", include={"folder", "format", "filters", "exported_at"})
        | {"version": each.data_version or None}
        for each in exported.of_run(store, run)
        if written_in(each, decided)
    ]


def _nearest(store: Store, key: str) -> str:
    keys = reading.all_keys(store)
    if not keys:
        return "the store is empty; `preceptor ingest FILE` fills it"
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.0)
    return f"the nearest key is {near[0] if near else keys[0]}"


def _score_line(each: Mapping[str, Any]) -> str:
    parts = each["parts"]
    shown = ", ".join(f"{name} {parts[name]:.3f}" for name in ("intra", "inter") if isinstance(parts.get(name), float))
    return f"round {each['round']}: {each['score']:.4f}" + (f" ({shown})" if shown else "")


def _query_line(each: Mapping[str, Any]) -> str:
    chance = "" if each["probability"] is None else f", probability {each['probability']:.4f}"
    problem = f"; {each['problem']}" if each["problem"] else ""
    audit = ", audit" + (" for certificates" if each["certify"] else "") if each["audit"] else ""
    return f"round {each['round']}: {each['arm']}{chance}{audit}{problem}"


def _reply_line(each: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    body: Mapping[str, Any] = next(
        (prompt["body"] for prompt in found["prompts"] if prompt["hash"] == each["prompt_hash"]), {}
    )
    shown = sum(message["role"] == "assistant" for message in body.get("messages", ()) if isinstance(message, Mapping))
    sample = f"sample {each['sample']}" if each["sample"] >= 0 else "asked again"
    sample = f"escalated to {each['teacher']}" if each["sample"] <= STRONGER else sample
    sure = "" if each["confidence"] is None else f", {each['confidence']:.0%} sure ({each['confidence_by']})"
    problem = f" ({each['problem']})" if each["problem"] else ""
    version = f", for version {each['version']}" if each["version"] > 1 else ""
    return (
        f"round {each['round']}, {sample}{version}: {each['model']}, {shown} demonstrations, {_cost(each)}, "
        f"{each['state']}{sure}{problem}"
    )


def _trial_line(each: Mapping[str, Any]) -> str:
    answer = json.loads(each["answer"])["value"] if each["answer"] else each["problem"] or "no allowed answer"
    return f"round {each['round']}, {TRIALS[each['kind']]}: {each['model']}, {_cost(each)}: {answer}"


def _revision_line(each: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    sent = [row for row in found["revision_replies"] if row["round_id"] == each["round_id"]]
    paid = sum(row["charge"]["settled"] for row in sent if row["charge"] is not None)
    said = f"round {each['round']}, {each['way'].replace('_', ' ')}: {len(sent)} requests, ${paid:.6f}"
    if each["problem"]:
        return f"{said}; explained anew ({each['problem']})"
    first = (
        "no step is wrong" if each["first_wrong"] is None else f"step {each['first_wrong'] + 1} is the first wrong one"
    )
    return f"{said}; {first}, {each['kept']} of {each['steps']} steps are kept"


def _version_line(each: Mapping[str, Any]) -> str:
    return f"{version_text(each['version'], each['names'])}: {each['decision']}"


def _export_line(each: Mapping[str, Any]) -> str:
    only = f", only rows with {', '.join(each['filters'])}" if each["filters"] else ""
    of = f" of {version_text(each['version'], ())}" if each["version"] else ""
    return f"{each['exported_at'][:10]}: {each['folder']} ({each['format']}{of}{only})"


def _trained_line(each: Mapping[str, Any]) -> str:
    said = f"round {each['round']}: checkpoint {each['checkpoint']}"
    said += f" of {version_text(each['version'], ())}" if each["version"] else ""
    said += {"validation": ", which it validated", "left out": ", which could not learn it"}.get(each["as"], "")
    if each["weights_removed"] is None:
        return said
    return f"{said} (weights removed {each['weights_removed'][:10]}; a higher checkpoints.keep keeps more)"


def _cost(each: Mapping[str, Any]) -> str:
    cost = "" if each["charge"] is None else f", ${each['charge']['settled']:.6f}"
    known = f", remembered from {each['remembered']}" if each.get("remembered") else ""
    cached = f" ({each['cached_tokens']} cached)" if each["cached_tokens"] else ""
    return f"{each['input_tokens']}{cached} + {each['output_tokens']} tokens{cost}{known}"


def _rationale_lines(each: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """A rationale with its steps, its risk and its flags."""
    risks = [f", risk {risk['value']:.3f}" for risk in found["risks"] if risk["rationale_id"] == each["id"]]
    planted = f", planted to measure reviewers ({each['planted']})" if each["planted"] else ""
    before = next((row["version"] for row in found["rationales"] if row["id"] == each["supersedes"]), None)
    after = "" if before is None else f", after version {before}"
    by = f" {each['teacher']}" if each["teacher"] else ""
    lines = [f"round {each['round']}: {each['author']}{by}, version {each['version']}{after}{planted}{''.join(risks)}"]
    lines += [f"  {number}. {step}" for number, step in enumerate(each["steps"], start=1)]
    prefix = each["author"] == Author.HUMAN.value and each["answer"] is None
    lines.append("  the teacher is to go on from here" if prefix else f"  answer: {each['stated']}{_trust(each)}")
    for said in found["judgements"]:
        if said["rationale_id"] == each["id"]:
            cost = "" if said["charge"] is None else f", ${said['charge']['settled']:.6f}"
            lines.append(
                f"  judge {said['model']}, step {said['step'] + 1}: {said['verdict'] or said['problem']}{cost}"
            )
    for flag in found["flags"]:
        if flag["rationale_id"] == each["id"]:
            where = "" if flag["step"] is None else f", step {flag['step'] + 1}"
            lines.append(f"  flag {flag['check_name']}{where}: {flag['evidence']}")
    return lines


def _trust(each: Mapping[str, Any]) -> str:
    """How sure the teacher was of a rationale, how far that is believed, and what it answered when asked twice."""
    if each["confidence"] is None:
        return ""
    known = "not calibrated yet" if each["calibrated"] is None else f"calibrated {each['calibrated']:.0%}"
    other = "" if each["other"] is None else f"; asked twice, the other reply says {each['other']}"
    sure = "of the votes" if each["confidence_by"] == "votes" else "sure"
    return f" ({each['confidence']:.0%} {sure}, {known}{other})"


def _task_line(each: Mapping[str, Any]) -> str:
    what = {SECOND: ", second review", ADJUDICATION: ", adjudication"}.get(role(each["slot"]), "")
    again = ", made again after a recall" if each["slot"] >= ROLES else ""
    where = f"; on {each['board']} since {each['pushed_at'][:10]}" if each["pushed_at"] else "; not on a board"
    return f"round {each['round']}: {each['reason']}{what}{again}{where}"


def _verdict_line(each: Mapping[str, Any]) -> str:
    by = f"{each['reviewer']}{' (simulated)' if each['simulated'] else ''}"
    reasons = f": {', '.join(each['reasons'])}" if each["reasons"] else ""
    gone = each["withdrawn"]
    recalled = f"; no longer counts since {gone['withdrawn_at'][:10]} ({gone['reason']})" if gone else ""
    deleted = " (deleted on the board)" if each["deleted_at"] else ""
    return f"{each['kind'] or 'not readable'} by {by}, {each['seconds']:.0f} s{reasons}{deleted}{recalled}"
