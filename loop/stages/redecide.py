"""Decides anew where people said something else, or something at all, after a round had decided."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from loop import acceptance
from loop.config import Config
from loop.records import Decision, DecisionKind, Rationale
from loop.store import decisions, rationales, reading, reviews, withdrawals
from loop.store.database import Store

LIMITS = acceptance.Passing(silver=0.0, certified=0.0)
"""Nothing that went to people passes unreviewed."""


def redecide(store: Store, run: str, config: Config) -> int:
    """Take back the decisions of a run that its verdicts no longer bear out; how many.

    All that the store holds is compared, so that nothing is forgotten when somebody is cut off. The newest round of an
    item decides about it, unless only an earlier one has people's word for a rationale. Audits that serve certificates
    are left to these, and what a recall opened to its second review; planted rationales, and replies that a recall
    doubted, are never decided about.
    """
    written = {each.id: each for each in reading.rationales_of(store, run)}
    by_item: defaultdict[str, dict[int, Decision]] = defaultdict(dict)
    in_force: dict[str, Decision] = {}
    for row in reading.decisions_of(store, run):
        by_item[row.item_key][row.round_id] = in_force[row.item_key] = row
    open_again, doubted = withdrawals.awaiting(store, run), withdrawals.of_replies(store, run)
    for said in _judged(store, run, written, config):
        stands = by_item.get(said.item_key, {}).get(said.round_id)
        closed = said.item_key in open_again or (said.round_id, said.item_key) in doubted
        if stands is not None and not closed and not _same(said, stands):
            by_item[said.item_key][said.round_id] = said
    anew = []
    for key, rounds in by_item.items():
        trusted = {
            number: row
            for number, row in rounds.items()
            if row.kind is DecisionKind.UNDECIDED or (number, key) not in doubted
        }
        wanted, now = _deciding(trusted), in_force[key]
        if wanted.id != now.id and not (wanted.round_id == now.round_id and _same(wanted, now)):
            kept = wanted.model_dump(exclude={"id", "supersedes", "decided_at"})
            anew.append(Decision(**kept, supersedes=now.id, decided_at=datetime.now(UTC)))
    return decisions.supersede(store, anew)


def _judged(store: Store, run: str, written: Mapping[int | None, Rationale], config: Config) -> Iterator[Decision]:
    """What would be decided now about each rationale that people ever judged."""
    asked = {(each.round_id, each.item_key): each for each in written.values() if each.is_reply}
    corrected = {(each.supersedes, tuple(each.steps), each.answer): each for each in written.values()}
    judged = reviews.ever_judged(store, run)
    given = reviews.verdicts(store, sorted(judged))
    said = {number: acceptance.counting(each, config.review) for number, each in given.items()}
    chains: defaultdict[tuple[int, str], list[Rationale]] = defaultdict(list)
    for each in written.values():
        chains[each.round_id, each.item_key].append(each)
    for query in reading.queries_of(store, run):
        first = asked.get((query.round_id, query.item_key))
        if first is not None and first.id in judged and not query.certify:
            rationale = acceptance.standing(first, chains[query.round_id, query.item_key], said)
            verdicts = said.get(rationale.id or 0, [])
            decided = acceptance.decide(query, rationale, True, verdicts, None, LIMITS)
            if decided.corrected is not None:
                steps, answer = decided.corrected
                known = corrected.get((rationale.id, steps, answer.canonical))
                rationale = known or rationales.keep_correction(store, rationale, steps=list(steps), answer=answer)
            yield Decision(
                run=run,
                item_key=query.item_key,
                round_id=query.round_id,
                rationale_id=rationale.id,
                kind=decided.kind,
                reason=f"{decided.reason}, after the round had decided" if verdicts else "its verdict was deleted",
                decided_at=datetime.now(UTC),
            )


def _deciding(rounds: Mapping[int, Decision]) -> Decision:
    """Which of the rounds that decided about an item counts: the newest, but gold goes before what is not."""
    newest_first = [rounds[number] for number in sorted(rounds, reverse=True)]
    return next((row for row in newest_first if row.kind is DecisionKind.GOLD), newest_first[0])


def _same(one: Decision, other: Decision) -> bool:
    """Whether two decisions of one round come to the same: the kind, and for gold the text."""
    return one.kind is other.kind and (one.kind is not DecisionKind.GOLD or one.rationale_id == other.rationale_id)
