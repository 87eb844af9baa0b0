"""What an export is worth, in figures with intervals, and the bars that it has to clear."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from math import ceil
from typing import Any

from connectors.conditions import OPERATORS, Condition, condition
from loop.certificate import audits_needed
from loop.errors import PreceptorError
from loop.interval import Sampled, stratified, wilson
from loop.records import Rationale, Verdict, VerdictKind, deciding
from loop.resemblance import Resembling
from loop.store import dataset, decisions, rounds
from loop.store.database import Store
from loop.store.dataset import Decided
from loop.store.rationales import BAD_MARKS
from loop.store.versions import TEACHING
from review.agreement import VERDICT, alpha, questions

NAMES = ("bound", "error", "agreement", "step_wrong", "duplicates", "leaks")
"""What a bar can be set on."""
NOTHING_PASSED = "no row passed unreviewed"
LARGER_IS_BETTER = frozenset({"agreement"})
SHOWN = 5
"""Rows that a message names."""
MOST = 100_000
"""Audits up to which it is said how many are missing."""


@dataclass(frozen=True)
class Figure:
    """A figure of an export. `low` and `high` are its interval; a count has none. `value` None: `why` says why."""

    value: float | None
    about: str
    low: float | None = None
    high: float | None = None
    n: int = 0
    why: str = ""
    wrong: int = 0
    simulated: bool = False
    partly: bool = False
    """Whether that is so of some verdicts only."""
    unknown: float = 0.0
    """The share of rows in rounds of which no audit says anything."""
    note: str = ""
    keys: tuple[str, ...] = ()
    """The first rows that are meant, where single ones are."""

    def __str__(self) -> str:
        made = ", partly simulated" if self.partly else ", simulated" if self.simulated else ""
        note = f"; {self.note}" if self.note else ""
        if self.value is None:
            return f"{self.about}: not measured ({self.why})"
        if self.low is None or self.high is None:
            rows = f" ({', '.join(self.keys)}{', ...' if len(self.keys) < self.value else ''})" if self.keys else ""
            return f"{self.about}: {self.value:.3g}{made}{rows}{note}"
        return f"{self.about}: {self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n={self.n}{made}){note}"


class Seen:
    """What is noticed while the rows go by: texts that stand there twice, and texts of the holdout."""

    def __init__(self, holdout: Iterable[tuple[str, str]], similarity: float) -> None:
        """`holdout` is all that each of its items says, and what it asks."""
        self._holdout = Resembling(holdout, similarity)
        self._texts: set[int] = set()
        self.duplicates: list[str] = []
        self.leaks: list[str] = []

    def take(self, key: str, decided: Decided) -> None:
        """Look at a row; texts that differ in case, blanks and sentence marks alone have one hash."""
        number = int(decided.text_hash[:15], 16)
        if number in self._texts:
            self.duplicates.append(key)
        self._texts.add(number)
        whole = "\n".join(part for part in (decided.context, decided.question, *decided.choices) if part)
        if self._holdout.likest(whole, "\n".join([decided.question, *decided.choices])):
            self.leaks.append(key)


def bars(texts: Sequence[str]) -> list[Condition]:
    """The bars that are set.

    Raises:
        PreceptorError: one names nothing known, no number, or is set the wrong way round.
    """
    found = [condition(text, NAMES) for text in texts]
    for each in found:
        wrong_way = (">=", ">") if each.name not in LARGER_IS_BETTER else ("<=", "<")
        if each.sign in (*wrong_way, "!=") or each.number != each.number:
            right = ">=" if each.name in LARGER_IS_BETTER else "<="
            raise PreceptorError(f"{each}: a bar on {each.name} is set with {right} and a number")
    return found


def measured(
    store: Store, run: str, promised: Mapping[str, Any], verdicts: Sequence[tuple[int, Verdict]], until: int
) -> dict[str, Figure]:
    """What is known of a whole run by its verdicts that count, by what a bar calls it.

    It speaks of the rows in force when the decision of the id `until` was the newest.
    """
    numbers = {each.id or 0: each.number for each in rounds.all_rounds(store, run)}
    rows = decisions.in_force_by_round(store, run, TEACHING, until)
    return {
        "bound": _bound(promised),
        "error": _error(promised),
        "agreement": _agreement(store, run, [each for _, each in verdicts if each.kind is not None]),
        "step_wrong": _step_wrong(dataset.audited(store, run), rows, numbers),
    }


def noticed(seen: Seen) -> dict[str, Figure]:
    """What was noticed of the rows that were written, by what a bar calls it."""
    return {
        "duplicates": _counted("rows that read like another one", seen.duplicates),
        "leaks": _counted("rows that read like one of the holdout", seen.leaks),
    }


def missed(found: Mapping[str, Figure], required: Sequence[Condition], delta: float) -> list[str]:
    """The bars that are not cleared, each with what would help. The far end of an interval has to clear it."""
    lines = []
    for bar in required:
        figure = found[bar.name]
        far = figure.low if bar.name in LARGER_IS_BETTER else figure.high
        at = figure.value if far is None else far
        if at is None or not OPERATORS[bar.sign](at, bar.number):
            lines.append(f"{bar} is not met: {figure}; {_help(bar, figure, delta)}")
    return lines


def figures(plain: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures that `plain` wrote."""
    return {name: Figure(**each | {"keys": tuple(each["keys"])}) for name, each in plain.items()}


def plain(found: Mapping[str, Figure]) -> dict[str, Any]:
    """The figures as JSON-ready values."""
    return {name: asdict(each) | {"keys": list(each.keys)} for name, each in found.items()}


def _counted(about: str, keys: Sequence[str]) -> Figure:
    return Figure(len(keys), about, keys=tuple(keys[:SHOWN]))


def _bound(promised: Mapping[str, Any]) -> Figure:
    export = promised["export"]
    about = f"at most so many of the unreviewed rows are wrong, with {1 - export['delta']:.0%} confidence"
    made = _simulation(export["strata"])
    return Figure(export["bound"], about, n=export["audited"], wrong=export["wrong"], **made)


def _error(promised: Mapping[str, Any]) -> Figure:
    """Of the rows that passed unreviewed the share that is wrong, by what people found in audits of the same rounds.

    Each round counts by its rows. In the far ends of the interval an audit that nobody reviewed is right or wrong.
    """
    rows = [each for each in promised["export"]["strata"] if each["unreviewed"]]
    about = "wrong among rows that passed unreviewed, by audits of their rounds"
    if not rows:
        return Figure(None, about, why=NOTHING_PASSED)
    strata = [
        Sampled(each["unreviewed"], each["wrong"], each["reviewed"], each["audited"] - each["reviewed"])
        for each in rows
    ]
    silent = [each["round"] for each in rows if not each["reviewed"]]
    unseen = sum(each.unseen for each in strata)
    note = [f"{unseen} more audits are not reviewed"] if unseen else []
    return _weighed(about, strata, silent, note, "no certifying audit of such a row is reviewed", _simulation(rows))


def _weighed(
    about: str, strata: Sequence[Sampled], silent: Sequence[int], note: Sequence[str], why: str, made: Mapping[str, Any]
) -> Figure:
    """A share over rounds; of the `silent` ones no audit says anything."""
    found = stratified(strata)
    if found is None:
        return Figure(None, about, why=why)
    value, (low, high) = found
    heard = [each for each in strata if each.n]
    unknown = 1 - sum(each.weight for each in heard) / sum(each.weight for each in strata)
    if silent:
        place = f"round{'s' if len(silent) > 1 else ''} {', '.join(map(str, silent))}"
        note = [*note, f"no audit speaks of {place} ({unknown:.0%} of the rows)"]
    n, wrong = sum(each.n for each in heard), sum(each.found for each in heard)
    return Figure(value, about, low, high, n, wrong=wrong, unknown=unknown, note="; ".join(note), **made)


def _simulation(strata: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether the audits' verdicts are simulated: all, or some."""
    simulated, reviewed = (sum(each[name] for each in strata) for name in ("simulated", "reviewed"))
    return {"simulated": simulated > 0, "partly": 0 < simulated < reviewed}


def _agreement(store: Store, run: str, verdicts: Sequence[Verdict]) -> Figure:
    """Krippendorff's alpha of the verdict, of people; of simulated reviewers only where there are no others."""
    own = [each for each in verdicts if not each.simulated] or verdicts
    simulated = bool(own) and own[0].simulated
    units = questions(own, dataset.reviewed(store, run)).get(VERDICT, [])
    found = alpha(VERDICT, units)
    about = "reviewers' agreement on the verdict (Krippendorff's alpha)"
    return Figure(found.value, about, found.low, found.high, found.n, found.why, simulated=simulated)


def _step_wrong(
    audits: Sequence[tuple[Rationale, Sequence[Verdict]]], in_force: Counter[int], numbers: Mapping[int, int]
) -> Figure:
    """Of the audited rationales whose answer reviewers kept, the share with a step that they did not.

    Each round counts by its rows that are in force.
    """
    rows = [(rationale, each) for rationale, said in audits for each in deciding(said) if _keeps(rationale, each)]
    people = [pair for pair in rows if not pair[1].simulated] or rows
    doubts: defaultdict[int, dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for rationale, verdict in people:
        doubts[rationale.round_id][rationale.id or 0].append(_doubts_step(rationale, verdict))
    strata = [
        Sampled(weight, sum(2 * sum(each) >= len(each) for each in doubts[place].values()), len(doubts[place]))
        for place, weight in sorted(in_force.items())
    ]
    about = "a step is wrong though the answer is right, by audits of the rows' rounds"
    silent = [numbers[place] for place, each in zip(sorted(in_force), strata, strict=True) if not each.n]
    made = {"simulated": bool(people) and people[0][1].simulated}
    return _weighed(about, strata, silent, (), "no audit with a right answer is reviewed", made)


def _keeps(rationale: Rationale, verdict: Verdict) -> bool:
    """Whether the answer stands after a verdict."""
    if verdict.kind is VerdictKind.ACCEPT:
        return rationale.answer is not None
    return verdict.kind is VerdictKind.EDIT and rationale.answer is not None and verdict.answer == rationale.answer


def _doubts_step(rationale: Rationale, verdict: Verdict) -> bool:
    marked = bool(BAD_MARKS & set(verdict.marks.values()))
    return marked or (verdict.kind is VerdictKind.EDIT and verdict.steps != rationale.steps)


def _help(bar: Condition, figure: Figure, delta: float) -> str:
    """What would help."""
    if bar.name == "bound":
        return _more_for_bound(bar.number, figure, delta)
    if bar.name == "error":
        return _more_audits(bar.number, figure)
    if bar.name == "step_wrong":
        return f"{_more_audits(bar.number, figure)}; a lower acceptance.silver_risk lets fewer pass"
    if bar.name == "agreement":
        return (
            "more second reviews (review.second_share) narrow it, clearer guidelines raise it; `preceptor review "
            "status` shows where reviewers differ"
        )
    return "leave them out with " + " ".join(f"--where 'key!={key}'" for key in figure.keys)


def _more_for_bound(limit: float, figure: Figure, delta: float) -> str:
    if not 0 < limit < 1:
        return "no number of audits promises that; review every row instead (acceptance.silver_risk = 0)"
    more = max(1, audits_needed(limit, delta, figure.wrong) - figure.n)
    return f"about {more} more certifying audits without an error (review.audit_share, review.certify_share)"


def _more_audits(limit: float, figure: Figure) -> str:
    """About how many more audits without an error bring the far end of the interval below a limit."""
    if figure.why == NOTHING_PASSED:
        return "leave the bar away, it speaks of no row"
    if figure.unknown >= limit:
        return "no later audit speaks of the rows of a round that has none"
    wanted = (limit - figure.unknown) / (1 - figure.unknown)
    needed = next((n for n in _growing(figure.n) if wilson(figure.wrong, n).high <= wanted), None)
    if needed is None:
        return "no number of audits shows that"
    more = max(1, needed - figure.n)
    return f"about {more} more audits without an error (review.audit_share, review.certify_share)"


def _growing(n: int) -> Iterable[int]:
    """Numbers of audits to try, each a twentieth larger."""
    for step in count():
        tried = ceil((n + 1) * 1.05**step)
        if tried > n + MOST:
            return
        yield tried


def counted(kinds: Counter[str]) -> str:
    """Counts in words."""
    return ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()) if number) or "nothing decided"
