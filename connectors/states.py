"""States of a run that a dataset is written from: the one it is in, or one that was given a name."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectors import gate
from connectors.promises import promises
from loop import certification
from loop.config import Config
from loop.errors import PreceptorError
from loop.records import DataVersion, DecisionKind, Round, Verdict, VersionName
from loop.store import dataset, decisions, reading, rounds, versions
from loop.store.database import Store, now
from loop.store.dataset import Until

SHORTEST = 6
"""Characters of a hash that are enough to be meant by them."""


@dataclass(frozen=True)
class State:
    """What an export goes by: which decisions and verdicts, and what is known of the run as a whole."""

    last: Round
    config: Config
    until: Until
    promised: Mapping[str, Any]
    measured: Mapping[str, gate.Figure]
    by_round: Sequence[Sequence[object]]
    """The card's table."""
    lapsed: frozenset[int]
    """Rounds whose rows no threshold certifies any more, by number."""
    name: VersionName | None = None
    """Where it was named."""

    @property
    def certified(self) -> bool:
        """Whether the promise of an export holds for what nobody reviewed."""
        promised: bool = self.promised["export"]["bound"] <= self.promised["alpha"]
        return promised

    @property
    def facts(self) -> dict[str, Any]:
        """What is stored with a name, as JSON-ready values."""
        by_round = [list(row) for row in self.by_round]
        return {"promised": dict(self.promised), "measured": gate.plain(self.measured), "by_round": by_round}


def current(store: Store, run: str, earlier: DataVersion | None = None) -> State:
    """The state that a run is in, or was in when it had an earlier version; by what people have said up to now.

    Raises:
        PreceptorError: it has no round yet.
    """
    moment = now()  # who gave a first verdict after it is not known yet to whoever reads people's names next
    last = rounds.current(store, run)
    if last is None:
        raise PreceptorError(f"run {run} has no round yet, so there is nothing to export; `preceptor run` starts one")
    if earlier is not None:
        last = rounds.by_id(store, earlier.round_id)
    until = Until(decisions.last_id(store, run) if earlier is None else earlier.last_decision, moment)
    config = Config.model_validate(rounds.config_of(store, last), strict=False)
    promised, verdicts = promises(store, run, config, until.last_decision), reading.verdicts_of(store, run)
    assert promised is not None
    measured = gate.measured(store, run, promised, verdicts, until.last_decision)
    by_round = _by_round(store, last, verdicts, until.last_decision)
    return State(last, config, until, promised, measured, by_round, _lapsed(store, run, until))


def named(store: Store, run: str, wanted: str) -> State:
    """The state that was named so, or as its version's hash begins; of several names of one version the first.

    Raises:
        PreceptorError: no version of the run is meant, several are, or it has no name yet.
    """
    row = _meant(store, run, wanted)
    last = rounds.by_id(store, row.round_id).model_copy(update={"config_hash": row.config_hash})
    config = Config.model_validate(rounds.config_of(store, last), strict=False)
    until, facts = Until(row.last_decision, row.named_at), row.facts
    measured = gate.figures(facts["measured"])
    lapsed = _lapsed(store, run, until)
    return State(last, config, until, facts["promised"], measured, facts["by_round"], lapsed, row)


def _lapsed(store: Store, run: str, until: Until) -> frozenset[int]:
    return frozenset(certification.lapsed(store, run, until.moment).values())


def _meant(store: Store, run: str, wanted: str) -> VersionName:
    every = versions.names_of(store, run)
    known = next((each for each in every if each.name == wanted), None)
    if known is not None:
        return known
    found = hash_of(store, run, wanted)
    by_hash = next((each for each in every if each.hash == found), None)
    if by_hash is None:
        raise PreceptorError(
            f"{wanted}: version {found[:12]} has no name yet, so what stands beside its rows was not fixed; "
            f"`preceptor versions name NAME {found[:12]}` gives it one"
        )
    return by_hash


def hash_of(store: Store, run: str, wanted: str) -> str:
    """The hash of the version that is meant by a name or by the beginning of its hash.

    Raises:
        PreceptorError: none is meant, or several are.
    """
    names = {each.name: each.hash for each in versions.names_of(store, run)}
    hashes = [each.hash for each in versions.of_run(store, run)]
    found = [names[wanted]] if wanted in names else []
    found = found or [each for each in hashes if len(wanted) >= SHORTEST and each.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise PreceptorError(f"{wanted}: several versions begin so: {', '.join(each[:16] for each in found)}")
    known = ", ".join([*names, *(each[:12] for each in hashes if each not in names.values())])
    raise PreceptorError(f"{wanted}: no such version; known: {known or 'none yet; `preceptor versions name NAME`'}")


def _by_round(
    store: Store, last: Round, verdicts: Sequence[tuple[int, Verdict]], last_decision: int
) -> list[list[object]]:
    seen = {(number, each.rationale_id) for number, each in verdicts if each.kind is not None}
    reviewed = Counter(number for number, _ in seen)
    kinds = [kind.value for kind in DecisionKind]
    rows: list[list[object]] = [["round", "queried", "reviewed", *kinds]]
    for number, place, queried, made in dataset.counts_by_round(store, last.run, last_decision):
        if place <= last.number:
            rows.append([place, queried, reviewed[number], *(made[kind] for kind in kinds)])
    return rows
