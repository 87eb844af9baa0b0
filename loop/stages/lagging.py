"""Which domains the student lags in: selection picks by it, and training weighs by it."""

from collections.abc import Mapping
from dataclasses import dataclass

from loop.query.domains import gap, shares
from loop.records import Part, Split
from loop.store import domains, items, rounds
from loop.store.database import Store

Errors = Mapping[str, tuple[int, int]]
"""How many were wrong, and of how many, by domain."""
BY = "by error rates, as the teacher gives no logits"
"""What the shares go by, in words."""


@dataclass(frozen=True)
class Lag:
    """How often student and teacher are wrong in a domain, how far it lags by that, and the share that it would get.

    `gap` is the ratio of both error rates within its bounds; none where no item of dev is of the domain.
    """

    domain: str
    student: tuple[int, int]
    teacher: tuple[int, int]
    gap: float | None
    share: float


def domain_shares(store: Store, run: str) -> dict[str, float]:
    """Which domains lag, from every past round's student on dev and from what became of the teacher's rationales."""
    teacher = domains.teacher_errors(store, run)
    gaps = [_gaps(each, teacher) for each in _students(store, run)]
    return shares(gaps, items.domains(store, Split.POOL))


def lags(store: Store, run: str) -> list[Lag]:
    """Each domain as it stands now, what lags most first; none before a student answered dev."""
    students, teacher = _students(store, run), domains.teacher_errors(store, run)
    if not students:
        return []
    last = _gaps(students[-1], teacher)
    found = [
        Lag(name, students[-1].get(name, (0, 0)), teacher.get(name, (0, 0)), last.get(name), share)
        for name, share in domain_shares(store, run).items()
    ]
    return sorted(found, key=lambda each: (-each.share, each.domain))


def _students(store: Store, run: str) -> list[Errors]:
    """What the student in force after each round got wrong on dev."""
    past = [each.student_id for each in rounds.all_rounds(store, run) if each.student_id is not None]
    return [domains.student_errors(store, each, Part.DEV) for each in past]


def _gaps(student: Errors, teacher: Errors) -> dict[str, float]:
    return {name: gap(_each(counted), _each(teacher.get(name, (0, 0)))) for name, counted in student.items()}


def _each(counted: tuple[int, int]) -> list[bool]:
    wrong, count = counted
    return [True] * wrong + [False] * (count - wrong)
