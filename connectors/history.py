"""Everything about one item: what it scored, what was asked and said, and what was decided."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text
from sqlmodel import SQLModel

from loop.errors import PreceptorError
from loop.ledger import MICRO
from loop.records import Charge, DecisionKind, Round, Split, Verdict
from loop.report import pseudonyms
from loop.store import items, reading, rounds
from loop.store.database import Store


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
    judgements = [_plain(each, numbers) | _paid(charges.get(each.charge_id)) for each in past.judgements]
    tasks = [_plain(each, numbers) | _paid(charges.get(each.charge_id)) for each in past.tasks]
    decided = [_plain(each, numbers) for each in past.decisions]
    return {
        "key": key,
        "item": _shown_item(_plain(item, numbers)),
        "scores": [_plain(each, numbers) for each in past.scores],
        "queries": [_plain(each, numbers) for each in past.queries],
        "prompts": [_plain(each, numbers) for each in past.prompts],
        "replies": replies,
        "rationales": [_plain(each, numbers) for each in past.rationales],
        "judgements": judgements,
        "flags": [_plain(each, numbers) for each in past.flags],
        "risks": [_plain(each, numbers) for each in past.risks],
        "tasks": tasks,
        "verdicts": [_verdict(each, names) for each in past.verdicts],
        "decisions": decided,
        "trained_in": _trained_in(store, run, item.split, decided, every),
    }


def history_text(found: Mapping[str, Any]) -> Group:
    """The history for people; all of it is shown as plain text."""
    item = found["item"]
    parts = [Text(f"{found['key']} ({item['split']}, {item['domain']})", style="bold"), Text(item["question"])]
    for title, lines in (
        ("scores", [_score_line(each) for each in found["scores"]]),
        ("queries", [_query_line(each) for each in found["queries"]]),
        ("replies", [_reply_line(each) for each in found["replies"]]),
        ("rationales", [line for each in found["rationales"] for line in _rationale_lines(each, found)]),
        ("verdicts", [_verdict_line(each) for each in found["verdicts"]]),
        ("decisions", [f"round {each['round']}: {each['kind']} ({each['reason']})" for each in found["decisions"]]),
        ("trained in", [f"round {each['round']}: checkpoint {each['checkpoint']}" for each in found["trained_in"]]),
    ):
        if lines:
            parts.append(Text(f"\n{title}", style="dim"))
            parts += [Text(f"  {line}") for line in lines]
    return Group(*parts)


def _plain(row: SQLModel, numbers: Mapping[int | None, int]) -> dict[str, Any]:
    """The row's fields, with the round's number beside its id."""
    fields = row.model_dump(mode="json")
    return fields | ({"round": numbers.get(fields["round_id"])} if "round_id" in fields else {})


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
    fields = verdict.model_dump(mode="json", exclude={"raw", "reviewer"})
    return fields | {"reviewer": names.get(verdict.reviewer, "reviewer")}


def _trained_in(
    store: Store, run: str, split: Split, decided: Sequence[Mapping[str, Any]], every: Sequence[Round]
) -> list[dict[str, Any]]:
    """The rounds whose checkpoint learnt from the item, by the decision that was in force then."""
    folders = {number: row.folder for number, row in reading.checkpoints_of(store, run).items()}
    found = []
    for each in every:
        past = [row for row in decided if row["round"] <= each.number]
        taught = past and past[-1]["kind"] in (DecisionKind.GOLD.value, DecisionKind.SILVER.value)
        if each.candidate_id in folders and (taught or split is Split.SEED):
            found.append({"round": each.number, "checkpoint": folders[each.candidate_id]})
    return found


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


def _reply_line(each: Mapping[str, Any]) -> str:
    cost = "" if each["charge"] is None else f", ${each['charge']['settled']:.6f}"
    known = f", remembered from {each['remembered']}" if each["remembered"] else ""
    tokens = f"{each['input_tokens']} + {each['output_tokens']} tokens{cost}{known}"
    problem = f" ({each['problem']})" if each["problem"] else ""
    return f"round {each['round']}, sample {each['sample']}: {each['model']}, {tokens}, {each['state']}{problem}"


def _rationale_lines(each: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """A rationale with its steps, its risk and its flags."""
    risks = [f", risk {risk['value']:.3f}" for risk in found["risks"] if risk["rationale_id"] == each["id"]]
    planted = f", planted to measure reviewers ({each['planted']})" if each["planted"] else ""
    lines = [f"round {each['round']}: {each['author']}, version {each['version']}{planted}{''.join(risks)}"]
    lines += [f"  {number}. {step}" for number, step in enumerate(each["steps"], start=1)]
    lines.append(f"  answer: {each['stated']}")
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


def _verdict_line(each: Mapping[str, Any]) -> str:
    by = f"{each['reviewer']}{' (simulated)' if each['simulated'] else ''}"
    reasons = f": {', '.join(each['reasons'])}" if each["reasons"] else ""
    return f"{each['kind'] or 'not readable'} by {by}, {each['seconds']:.0f} s{reasons}"
