"""Which domains the student lags in: selection picks by it, and training weighs by it."""

from collections import defaultdict

from loop.query.domains import gap, shares
from loop.records import DecisionKind, Part, Split
from loop.store import checkpoints, decisions, items, reading, rounds
from loop.store.database import Store


def domain_shares(store: Store, run: str) -> dict[str, float]:
    """Which domains lag, from every past round's student on dev and from what became of the teacher's rationales."""
    domain = reading.domains(store)
    kept = {item.key for item, rationale, _ in decisions.decided(store, run) if rationale.is_reply}
    teacher: dict[str, list[bool]] = defaultdict(list)
    for key, decision in decisions.newest(store, run).items():
        if decision.kind is not DecisionKind.UNDECIDED:
            teacher[domain[key]].append(key not in kept)
    gaps = []
    for past in rounds.all_rounds(store, run):
        if past.student_id is not None:
            student: dict[str, list[bool]] = defaultdict(list)
            for row in checkpoints.predictions(store, past.student_id, Part.DEV):
                student[domain[row.item_key]].append(not row.correct)
            gaps.append({name: gap(wrong, teacher[name]) for name, wrong in student.items()})
    return shares(gaps, items.domains(store, Split.POOL))
