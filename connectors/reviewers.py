"""How far the reviewers of a run can be trusted, as JSON-ready values and for people."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from loop.detection import by_reviewer as detection_by_reviewer
from loop.interval import Share, share
from loop.records import ADJUDICATION, CONTROL, Verdict, VerdictKind, role
from loop.report import pseudonyms
from loop.store import counting, planted, reading, reviews, rounds, withdrawals
from loop.store.database import Store
from review.agreement import ANSWER, MARKS, VERDICT, Agreement, Measure, agreements, questions
from review.anchoring import Doubted, anchoring
from review.consensus import consensus
from review.quality import Look, active_minutes, by_reviewer, corrections, median_seconds, suspicion

Row = dict[str, Any]
Who = tuple[str, bool]
"""A reviewer, and whether simulated."""


def review_figures(store: Store, run: str) -> Row:
    """What is open and done, each reviewer's work, agreement and anchoring; people and simulated ones apart."""
    current = rounds.current(store, run)
    tasks = [] if current is None else reviews.tasks(store, current.id or 0)
    waiting = [] if current is None else reviews.pending(store, current.id or 0)
    known = _Known(store, run)
    return {
        "open": len(waiting),
        "done": len(tasks) - len(waiting),
        "reviewers": known.reviewers(),
        "people": known.together(simulated=False),
        "simulated": known.together(simulated=True),
        "recalls": [
            {
                "reviewer": known.names.get(row.reviewer, "reviewer") if row.reviewer else "",
                "teacher_model": row.teacher_model,
                "prompt_hash": row.prompt_hash,
                "since": None if row.since is None else row.since.isoformat(),
                "at": row.withdrawn_at.isoformat(),
                "what": withdrawals.doubted_text(row),
                "reason": row.reason,
                "verdicts": withdrawn,
                "decisions": reopened,
            }
            for row, withdrawn, reopened in withdrawals.of_run(store, run)
        ],
    }


class _Known:
    """What the store knows of a run's reviewers."""

    def __init__(self, store: Store, run: str) -> None:
        self.names = pseudonyms(reading.reviewers_of(store, run))
        self._rationales = {each.id or 0: each for each in reading.judged(store, run)}
        self._verdicts = [each for _, each in reading.verdicts_of(store, run) if each.kind is not None]
        self._risks = counting.risks_of(store, self._rationales)
        self._flagged = counting.checks_of(store, self._rationales).keys()
        self._tasks = {(task.rationale_id, task.slot): task for task in reading.tasks_of(store, run)}
        self._planted = planted.shown(store, run)
        self._found = {(each.reviewer, each.simulated): each for each in detection_by_reviewer(store, run)}
        self._versions = by_reviewer(reviews.versions(store, run))

    def reviewers(self) -> list[Row]:
        """Each reviewer's work, in the order of their first verdict."""
        looks = self._looks()
        order = {name: place for place, name in enumerate(self.names)}
        return [
            self._reviewer(who, looks) for who in sorted(self._versions, key=lambda who: (order[who[0]], who[1]))
        ]  # fmt: skip

    def together(self, *, simulated: bool) -> Row | None:
        """Agreement, consensus and anchoring of people or of simulated reviewers; None where none judged anything."""
        own = [each for each in self._verdicts if each.simulated is simulated]
        if not own:
            return None
        asked = questions(own, [*self._rationales.values()])
        found = chain.from_iterable(
            agreements(question, units, pairs=question in (VERDICT, ANSWER, MARKS)) for question, units in asked.items()
        )
        agreed = consensus(asked.get(VERDICT, []))
        return {
            "agreement": [self._agreement(each) for each in found],
            "consensus": None
            if agreed is None
            else {
                "n": agreed.n,
                "confusion": {self.names[who]: own for who, own in agreed.confusion.items()},
                "unsure": sorted(
                    self._rationales[int(key)].item_key for key, p in agreed.probability.items() if p < 0.9
                ),
            },
            "anchoring": asdict(anchoring([*self._doubted(own)])),
        }

    def _agreement(self, found: Agreement) -> Row:
        return asdict(found) | {"between": [self.names[who] for who in found.between]}

    def _reviewer(self, who: Who, looks: Mapping[Who, Sequence[Look]]) -> Row:
        name, simulated = who
        own = [each for each in self._verdicts if (each.reviewer, each.simulated) == who]
        others = chain.from_iterable(each for other, each in looks.items() if other != who and other[1] is simulated)
        seen = looks.get(who, ())
        doubt, recall = suspicion(seen, others), self._found.get(who)
        edits = corrections([*self._edits(own)])
        return {
            "reviewer": self.names[name],
            "simulated": simulated,
            "done": len(seen),
            "verdicts": {kind.value: sum(each.kind is kind for each in own) for kind in VerdictKind},
            "sensitivity": None if recall is None else _plain(recall.sensitivity),
            "specificity": None if recall is None else _plain(recall.specificity),
            "accuracy": _plain(share(each.accepted is not each.wrong for each in seen if each.wrong is not None)),
            "active_minutes": active_minutes(self._versions[who]),
            "median_seconds": median_seconds(own),
            "edits": None if edits is None else asdict(edits),
            "accused": doubt.accused,
            "suspicion": doubt.ratio,
            "reason": doubt.reason if doubt.accused else "",
        }

    def _looks(self) -> dict[Who, list[Look]]:
        """What each reviewer saw blindly, in the order of submission; what was planted too."""
        given: list[tuple[Verdict, Look]] = []
        for each in self._verdicts:
            if role(each.slot) != ADJUDICATION:
                risk = self._risks.get(each.rationale_id or 0)
                given.append((each, Look(each.kind is VerdictKind.ACCEPT, risk)))
        for row in self._planted:
            wrong = row.rationale.planted != CONTROL
            given += [
                (each, Look(each.kind is VerdictKind.ACCEPT, row.risk, wrong))
                for each in row.verdicts
                if each.kind is not None
            ]
        found: dict[Who, list[Look]] = {}
        for verdict, look in sorted(given, key=lambda pair: (pair[0].updated_at, pair[0].annotation)):
            found.setdefault((verdict.reviewer, verdict.simulated), []).append(look)
        return found

    def _edits(self, own: Sequence[Verdict]) -> list[tuple[list[str], list[str]]]:
        edits = [each for each in own if each.kind is VerdictKind.EDIT and each.rationale_id in self._rationales]
        return [(self._rationales[each.rationale_id or 0].steps, each.steps) for each in edits]

    def _doubted(self, own: Sequence[Verdict]) -> list[Doubted]:
        """Blind verdicts on rationales with doubts that the page showed or not."""
        found = []
        for each in own:
            task = self._tasks.get((each.rationale_id or 0, each.slot))
            if task is None or role(each.slot) == ADJUDICATION:
                continue
            if each.rationale_id in self._flagged and each.rationale_id in self._risks:
                accepted = each.kind is VerdictKind.ACCEPT
                found.append(Doubted(self._risks[each.rationale_id], not task.unflagged, accepted))
        return found


def review_text(found: Mapping[str, Any]) -> list[str]:
    """The same for people, a line a fact."""
    lines = [_reviewer_line(each) for each in found["reviewers"]]
    lines += [accusation_text(each) for each in found["reviewers"] if each["accused"]]
    for who in ("people", "simulated"):
        if found[who]:
            kind = "people" if who == "people" else "simulated reviewers"
            lines += [f"agreement of {kind}, {agreement_text(each)}" for each in told(found[who]["agreement"])]
            lines.append(f"{kind}: {anchoring_text(found[who]['anchoring'])}")
    return [*lines, *(recall_text(each) for each in found["recalls"])]


def told(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The figures of agreement worth a line: all of the verdict, alpha of the rest; one line where there are none."""
    measured = [each for each in found if each["value"] is not None]
    return [each for each in measured if each["question"] == VERDICT or each["measure"] == Measure.ALPHA] or list(
        found[:1]
    )


def agreement_text(each: Mapping[str, Any]) -> str:
    """One figure of agreement in words."""
    between = f" of {' and '.join(each['between'])}" if each["between"] else ""
    if each["value"] is None:
        return f"{each['question']}: {each['measure']}{between} is not defined: {each['why']} (n={each['n']})"
    return (
        f"{each['question']}: {each['measure']}{between} {each['value']:.3f} "
        f"({each['low']:.3f} to {each['high']:.3f}, n={each['n']})"
    )


def anchoring_text(found: Mapping[str, Any]) -> str:
    """What is known of anchoring, in words."""
    parts = f"not accepted with doubts shown {share_text(found['shown'])}, unseen {share_text(found['unseen'])}"
    if found["difference"] is None:
        return f"{found['verdict']}: {parts}"
    interval = f"{found['difference']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
    return f"{found['verdict']}: {parts}; difference at like risk {interval}"


def accusation_text(each: Mapping[str, Any]) -> str:
    """Who seems not to look, why, and what can be done."""
    return (
        f"{each['reviewer']} seems to accept without looking: {each['reason']}; "
        f"`preceptor recall --reviewer {each['reviewer']} --since DATE` shows what that touched"
    )


def recall_text(each: Mapping[str, Any]) -> str:
    """A recall in words."""
    since = "" if each["since"] is None else f" since {each['since'][:10]}"
    said = f"recalled on {each['at'][:10]}: "
    if not each["reviewer"]:
        return f"{said}{each['what']}; {each['decisions']} decisions put back to undecided ({each['reason']})"
    about = " on the doubted replies" if each["teacher_model"] or each["prompt_hash"] else ""
    return f"{said}{each['verdicts']} verdicts of {each['reviewer']}{about}{since} no longer count ({each['reason']})"


def _reviewer_line(each: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{number} {kind}" for kind, number in each["verdicts"].items())
    edits = (
        f"; edits change {each['edits']['changed']:.0%} (median of {each['edits']['edits']})" if each["edits"] else ""
    )
    pace = "" if each["median_seconds"] is None else f", {each['median_seconds']:.0f} s a page"
    return (
        f"{each['reviewer']}{' (simulated)' if each['simulated'] else ''}: {each['done']} done ({counts}), "
        f"at most {each['active_minutes']:.1f} active minutes{pace}; "
        f"finds {share_text(each['sensitivity'])} of planted errors, "
        f"accepts {share_text(each['specificity'])} of controls{edits}"
    )


def share_text(found: Mapping[str, Any] | None) -> str:
    """A share with its interval and its number."""
    if found is None:
        return "- (none seen)"
    return f"{found['share']:.3f} ({found['low']:.3f} to {found['high']:.3f}, n={found['n']})"


def _plain(found: Share | None) -> Row | None:
    return None if found is None else asdict(found)
