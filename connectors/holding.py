"""Which datasets that were written, and which students, hold an item: by the decision that was in force then."""

from collections.abc import Iterable, Mapping, Sequence

from connectors.conditions import condition, together
from loop.records import Checkpoint, Decision, Export
from loop.store.versions import TEACHING


def written_in(export: Export, decided: Sequence[Decision]) -> Decision | None:
    """Of an item's decisions, oldest first, the one as which an export may hold it.

    Gold and silver stand in every export; whatever was decided about a rationale stands where steps are labelled, or
    where rows are chosen by decision. Other filters may have left the item out all the same.
    """
    row = next((each for each in reversed(decided) if (each.id or 0) <= export.last_decision), None)
    chosen = [condition(text, ("decision",)) for text in export.filters if text.startswith("decision")]
    if row is None or row.rationale_id is None:
        return None
    if not (chosen or export.format == "prm" or row.kind in TEACHING):
        return None
    return row if all(any(each.holds(row.kind.value) for each in some) for some in together(chosen)) else None


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
