"""What may be shown to the teacher, the sets made of it, and the trials behind them, in the store."""

from collections.abc import Mapping
from typing import Any

from sqlmodel import col, select

from loop.ports import Example
from loop.records import DecisionKind, DemonstrationSet, Prompt, Query, Round, Score, Split, Trial
from loop.store import decisions, items
from loop.store.asking import RunTill
from loop.store.database import Store


def people_decided(store: Store, run: str) -> list[Example]:
    """The items that people decided, by key: gold of the pool as accepted or corrected, and the seed items.

    No item that was ever audited for a certificate is among them, also after its release; the database itself keeps
    planted rationales from being decided about. Seed items may lack steps.
    """
    certifying = select(Query.item_key).join(Round, col(Round.id) == Query.round_id)
    with store.reading() as session:
        barred = set(session.exec(certifying.where(Round.run == run, col(Query.certify))))
    gold = [
        Example(item, tuple(rationale.steps), rationale.parsed)
        for item, rationale, decision in decisions.decided(store, run)
        if decision.kind is DecisionKind.GOLD
        and item.split is Split.POOL
        and item.key not in barred
        and rationale.parsed is not None
    ]
    seeds = [
        Example(item, tuple(item.steps), item.gold)
        for item in items.of_split(store, Split.SEED)
        if item.gold is not None
    ]
    return sorted([*gold, *seeds], key=lambda each: each.item.key)


def margins(store: Store, run: str) -> dict[str, float]:
    """How far the student preferred its answer to the next one when an item was last scored, [0, 1]."""
    query = select(Score.item_key, Score.parts).join(Round, col(Round.id) == Score.round_id).where(Round.run == run)
    with store.reading() as session:
        rows = session.exec(query.order_by(col(Score.round_id)))
        found = {key: _margin(parts) for key, parts in rows}
    return {key: margin for key, margin in found.items() if margin is not None}


def trials(store: Store, run: str) -> dict[tuple[str, str], Trial]:
    """All trials of a run by item and the hash of their prompts."""
    with store.reading() as session:
        return {(row.item_key, row.prompt_hash): row for row in session.exec(select(Trial).where(Trial.run == run))}


def sets(store: Store, run: str) -> list[DemonstrationSet]:
    """All sets of a run, oldest first; those that were not taken too."""
    query = select(DemonstrationSet).where(DemonstrationSet.run == run).order_by(col(DemonstrationSet.id))
    with store.reading() as session:
        return list(session.exec(query))


def keep_set(store: Store, row: DemonstrationSet) -> None:
    """Store what a round made of the demonstrations."""
    with store.writing() as session:
        session.add(row)


class RunTrialBook(RunTill):
    """The book of trials (`loop.ports.TrialBook`)."""

    def keep(self, charge_id: int, micro_usd: int, prompt: Prompt, trial: Trial) -> None:
        """Settle the charge and store prompt and trial, all or nothing."""
        with self._store.writing() as session:
            self._pay(session, charge_id, micro_usd, prompt, trial.output_tokens)
            session.add(trial)


def _margin(parts: Mapping[str, Any]) -> float | None:
    """The lead of the likeliest answer, by the student's probabilities or by the answers of its explanations."""
    shares = [float(each) for each in parts.get("probabilities") or () if isinstance(each, int | float)]
    answers = [each for each in (parts.get("answer"), *(parts.get("sampled_answers") or ())) if isinstance(each, str)]
    if not shares and answers:
        shares = [answers.count(each) / len(answers) for each in set(answers)]
    first, second, *_ = (*sorted(shares, reverse=True), 0.0, 0.0) if shares else (None, 0.0)
    return None if first is None else first - second
