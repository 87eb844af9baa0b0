"""Which datasets that were written, and which students, hold an item: by the decision that was in force then."""

from collections.abc import Iterable, Mapping, Sequence

from connectors.conditions import Condition, asks_for_kinds, condition, together
from loop.records import Checkpoint, Decision, DecisionKind, Export
from loop.store.versions import TEACHING, held


def written_in(export: Export, decided: Sequence[Decision]) -> list[Decision]:
    """Of an item's decisions, oldest first, those about rationales that an export may hold.

    Gold and silver stand in every export, and what is named where rows are chosen by decision; in pairs also what was
    rejected before, and where steps are labelled every rationale that was decided about. Other filters may have left
    the item out all the same.
    """
    rows = [each for each in decided if (each.id or 0) <= export.last_decision]
    if export.format == "prm":
        rows = [each for each in rows if each.rationale_id is not None]
    chosen = [condition(text, ("decision",)) for text in export.filters if text.startswith("decision")]
    if not rows or rows[-1].rationale_id is None or not _wanted(rows[-1], chosen, export.format):
        return []
    if export.format == "prm":
        return rows
    refused = [each for each in rows[:-1] if each.kind is DecisionKind.REJECTED and each.rationale_id is not None]
    return [*(refused if export.format == "dpo" else ()), rows[-1]]


def _wanted(row: Decision, chosen: Sequence[Condition], form: str) -> bool:
    """Whether an export in a form, with these filters, takes items that were decided so."""
    if row.kind not in TEACHING and form != "prm" and (form == "dpo" or not asks_for_kinds(chosen)):
        return False
    return all(any(each.holds(row.kind.value) for each in some) for some in together(chosen))


def taught(student: Checkpoint, decided: Sequence[Decision], last_decision: int) -> list[Decision]:
    """Of an item's decisions, oldest first, those about rationales that a student may have learned.

    What was gold or silver when `last_decision` was the newest, and for one that learned by pairs also what people had
    corrected or rejected before.
    """
    row = held(decided, last_decision)
    if row is None:
        return []
    refused = (DecisionKind.GOLD, DecisionKind.REJECTED) if student.card.get("preference_pairs") else ()
    return [*(each for each in decided if (each.id or 0) < (row.id or 0) and each.kind in refused), row]


def learned_until(
    student: Checkpoint, number: int, decided: Iterable[Decision], numbers: Mapping[int | None, int]
) -> int:
    """The newest of the decisions that a student of round `number` knew; `numbers` are those of rounds, by their id.

    By the clock, where an older version of ours did not note it in the card.
    """
    if "last_decision" in student.card:
        return int(student.card["last_decision"])
    return max(
        (
            each.id or 0
            for each in decided
            if numbers[each.round_id] <= number and each.decided_at <= student.created_at
        ),
        default=0,
    )
