"""Audits that serve certificates are held back, looked at as often as promised, and then released."""

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from connectors import versions
from connectors.exports import Wanted, export
from connectors.promises import promises, promises_text
from loop import certification
from loop.config import AcceptanceConfig, Config, TeacherConfig
from loop.records import (
    Author,
    Certificate,
    Decision,
    DecisionKind,
    Promise,
    Query,
    Rationale,
    Risk,
    RiskFit,
    Round,
    Stage,
    Verdict,
    VerdictKind,
)
from loop.stages.train import accepted_examples
from loop.store import browsing, certificates, decisions, items, planted, pool, rationales, reviews, rounds, withdrawals
from loop.store.database import Store
from loop.store.tainted import Grounds
from tests.builders import NOON, RUN, a_reply, a_round, a_store, an_item, decided, id_of, queried, sent_to_review

CONFIG = Config(acceptance=AcceptanceConfig(alpha=0.2, delta=0.2, thresholds=(0.1, 0.3)))
"""Under it the first look needs ten audits without an error, the second 17."""
ACCEPT, EDIT, REJECT = VerdictKind.ACCEPT, VerdictKind.EDIT, VerdictKind.REJECT


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = a_store(tmp_path)
    yield opened
    opened.close()


def audited(
    store: Store,
    n: int,
    *,
    wrong: int = 0,
    risk: float = 0.05,
    config: Config = CONFIG,
    silver: int = 0,
    step: str = "so",
) -> Round:
    """A round in ACCEPT with so many certifying audits, of which reviewers found the last ones wrong."""
    opened = a_round(store, config)
    number = id_of(opened)
    audits = [f"a{number}-{place}" for place in range(n)]
    others = [f"s{number}-{place}" for place in range(silver)]
    items.add(store, [an_item(key) for key in [*audits, *others]])
    queries = [
        Query(
            round_id=number, item_key=key, position=place, arm="random", audit=key in audits, certify=key in audits,
            audit_probability=0.2, passes=key in audits,
        )
        for place, key in enumerate([*audits, *others])
    ]  # fmt: skip
    opened = rounds.enter(store, opened, Stage.ASK, queries)
    for place, key in enumerate(audits):
        rationale = a_reply(store, opened, key, steps=[step], answer=place)
        sent_to_review(store, opened, [key])
        says(store, rationale, ACCEPT if place < n - wrong else REJECT)
        says(store, rationale, ACCEPT if place < n - wrong else REJECT, slot=1)
    for key in others:
        decided(store, opened, key, DecisionKind.SILVER, a_reply(store, opened, key, steps=["so"], answer=1))
    risks = [Risk(rationale_id=each.id or 0, value=risk, check_set="c") for each in rationales.of_round(store, number)]
    rationales.keep_checked(store, risks, [])
    rationales.keep_risk_fit(store, RiskFit(round_id=number, base=-2.0, reviewed=0, fitted_at=NOON))
    return opened


def says(store: Store, rationale_id: int, kind: VerdictKind, *, slot: int = 0) -> None:
    """A verdict in a slot."""
    reviews.RunReviewBook(store, RUN).keep_verdict(
        Verdict(
            board="fake", project=str(slot), annotation=f"{rationale_id}", updated_at="2026-01-01T12:00:00.000000Z",
            rationale_id=rationale_id, slot=slot, reviewer=f"person {slot}", kind=kind, raw={}, pulled_at=NOON,
        )
    )  # fmt: skip


def rescored(risk: float = 0.05):  # noqa: ANN201 - a function of rationales
    def risks(some: Sequence[Rationale]) -> list[float]:
        return [risk] * len(some)

    return risks


def held(store: Store) -> int:
    return sum(audit.held for audit in certificates.audits(store, RUN))


def test_a_look_waits_until_enough_audits_are_held(store: Store) -> None:
    opened = audited(store, 9)
    assert certification.look(opened, store, CONFIG, rescored()) is None
    assert certification.missing_audits(store, RUN, CONFIG) == 1
    assert held(store) == 9
    assert decisions.newest(store, RUN) == {}


def test_a_certified_threshold_releases_its_audits_as_gold_and_holds_from_the_next_round_on(store: Store) -> None:
    opened = audited(store, 10)
    found = certification.look(opened, store, CONFIG, rescored())
    assert found is not None
    assert (found.threshold, found.look, found.audited, found.wrong) == (0.3, 1, 10, 0)
    assert found.bound == pytest.approx(1 - found.delta ** (1 / 10))
    assert held(store) == 0
    assert {row.kind for row in decisions.newest(store, RUN).values()} == {DecisionKind.GOLD}
    assert certification.threshold_in_force(store, opened, CONFIG) is None
    relied_on = certification.threshold_in_force(store, a_round(store, CONFIG), CONFIG)
    assert relied_on is not None
    assert relied_on.threshold == 0.3


def a_certified_row(store: Store) -> Round:
    """A row of the next round that a threshold certifies, while others are not promised anything; its round."""
    certification.look(audited(store, 10), store, CONFIG, rescored())
    items.add(store, [an_item(key) for key in ("sure", "unsure")])
    opened = queried(store, a_round(store, CONFIG), ["sure", "unsure"])
    rationales.keep_risk_fit(
        store, RiskFit(round_id=id_of(opened), base=-2.0, reviewed=0, fitted_at=NOON, learned_in=1)
    )
    for key in ("sure", "unsure"):
        number = a_reply(store, opened, key, steps=["so"], answer=1)
        row = Decision(
            run=RUN, item_key=key, round_id=id_of(opened), rationale_id=number, kind=DecisionKind.SILVER,
            reason="", certified=key == "sure", decided_at=NOON,
        )  # fmt: skip
        decisions.keep(store, [row])
    return opened


def certified(store: Store, folder: Path, version: str = "") -> list[str]:
    """The keys of the rows that an export calls certified."""
    export(store, RUN, folder, Wanted(version=version))
    rows = [json.loads(line) for line in (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()]
    listed = browsing.found(store, RUN, browsing.Wanted(), 99, certification.lapsed(store, RUN))
    found = [row["key"] for row in rows if row["certified"]]
    assert version or {each.key for each in listed if each.certified} == {*found}
    return found


def test_rows_are_certified_no_longer_once_the_audits_behind_them_are_recalled(store: Store, tmp_path: Path) -> None:
    a_certified_row(store)
    versions.name(store, RUN, "v1")
    assert certified(store, tmp_path / "out") == ["sure"]
    withdrawals.withdraw(store, RUN, Grounds("person 0", since=NOON), "never looked")
    assert certified(store, tmp_path / "out") == []
    assert "silver examples are **not certified**" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert certified(store, tmp_path / "v1", "v1") == ["sure"]  # as it was


@pytest.mark.parametrize("changed", [False, True])
def test_rows_are_certified_no_longer_once_a_look_refutes_their_threshold(
    store: Store, tmp_path: Path, changed: bool
) -> None:
    """Where something changed meanwhile, a look that fails says nothing of what was there before."""
    opened = a_certified_row(store)
    before = certificates.of_run(store, RUN, Promise.THRESHOLD)[-1]
    fields = before.model_dump(exclude={"id"}) | {"look": 2, "round_id": id_of(opened), "threshold": None}
    certificates.keep(store, Certificate(**fields | ({"fingerprint": "other"} if changed else {})), [])
    assert certified(store, tmp_path / "out") == (["sure"] if changed else [])


def test_a_threshold_whose_audits_were_recalled_is_not_relied_on(store: Store) -> None:
    certification.look(audited(store, 10), store, CONFIG, rescored())
    opened = a_round(store, CONFIG)
    withdrawals.withdraw(store, RUN, Grounds("nobody", since=NOON), "")
    assert certification.threshold_in_force(store, opened, CONFIG) is not None
    withdrawals.withdraw(store, RUN, Grounds("person 0", since=NOON), "")
    assert certification.threshold_in_force(store, opened, CONFIG) is None
    assert all(audit.wrong for audit in certificates.audits(store, RUN))


def test_a_look_that_fails_holds_the_audits_and_leaves_less_for_the_next(store: Store) -> None:
    first = certification.look(audited(store, 10, wrong=2), store, CONFIG, rescored())
    assert first is not None
    assert (first.threshold, first.wrong) == (None, 2)
    assert held(store) == 10
    assert "no threshold is certified" in certification.look_text(first)
    second = certification.look(audited(store, 30), store, CONFIG, rescored())
    assert second is not None
    assert (second.look, second.audited, second.wrong) == (2, 40, 2)
    assert second.delta == pytest.approx(first.delta / 4)
    assert second.threshold == 0.3
    assert held(store) == 0


def test_a_look_made_before_a_crash_is_not_made_again(store: Store) -> None:
    opened = audited(store, 10, wrong=2)
    assert certification.look(opened, store, CONFIG, rescored()) is not None
    assert certification.look(opened, store, CONFIG, rescored()) is None
    assert len(certificates.of_run(store, RUN, Promise.THRESHOLD)) == 1


def test_it_is_the_risk_of_today_that_is_tested(store: Store) -> None:
    found = certification.look(audited(store, 10, risk=0.9), store, CONFIG, rescored(0.2))
    assert found is not None
    assert found.threshold == 0.3


@pytest.mark.parametrize(
    "changed",
    [
        CONFIG.model_copy(update={"teacher": TeacherConfig(model="another")}),
        CONFIG.model_copy(update={"task": CONFIG.task.model_copy(update={"instructions": "Guess."})}),
        CONFIG.model_copy(update={"checks": CONFIG.checks.model_copy(update={"enabled": ("arithmetic",)})}),
    ],
    ids=["teacher", "prompt", "checks"],
)
def test_a_threshold_is_void_once_what_made_the_rationales_changes(store: Store, changed: Config) -> None:
    certification.look(audited(store, 10), store, CONFIG, rescored())
    later = a_round(store, CONFIG)
    assert certification.threshold_in_force(store, later, CONFIG) is not None
    assert certification.threshold_in_force(store, later, changed) is None


def test_audits_that_refute_a_threshold_withdraw_it(store: Store) -> None:
    certification.look(audited(store, 10), store, CONFIG, rescored())
    assert certification.look(audited(store, 10, wrong=3), store, CONFIG, rescored()) is None
    withdrawn = certification.look(audited(store, 10, wrong=9), store, CONFIG, rescored())
    assert withdrawn is not None
    assert withdrawn.threshold is None
    assert certification.threshold_in_force(store, a_round(store, CONFIG), CONFIG) is None
    assert held(store) == 20


def test_an_audit_without_both_blind_verdicts_counts_as_wrong(store: Store) -> None:
    audited(store, 1)
    (audit,) = certificates.audits(store, RUN)
    assert not audit.wrong
    lone = [each for each in audit.verdicts if each.slot == 0]
    assert certificates.Audit(audit.query, audit.item, audit.rationale, 0.1, tuple(lone), held=True).wrong


def test_held_audits_teach_nothing_until_they_are_released(store: Store) -> None:
    opened = audited(store, 3)
    later = NOON + timedelta(days=1)
    assert rationales.judged(store, RUN, later) == []
    assert {*pool.keys(store, RUN, Config())} == set()
    assert accepted_examples(store, RUN) == {}
    certification.issue(store, opened, CONFIG)
    assert len(accepted_examples(store, RUN)) == 3
    assert rationales.judged(store, RUN, later) == []
    ever = certificates.of_run(store, RUN, Promise.EXPORT)[0].issued_at + timedelta(seconds=1)
    assert len(rationales.judged(store, RUN, ever)) == 3


def test_an_export_is_promised_by_the_audits_that_would_have_passed(store: Store) -> None:
    audited(store, 12, silver=38)
    opened = audited(store, 12, wrong=1, silver=38)
    found = certification.export_certificate(store, opened, CONFIG, certificates.audits(store, RUN))
    assert (found.population, found.audited, found.wrong) == (100, 24, 1)
    assert 0 < found.bound < 0.2
    assert held(store) == 24
    issued, released = certification.issue(store, opened, CONFIG)
    assert (released, issued.bound) == (24, found.bound)
    again = certification.export_certificate(store, opened, CONFIG, certificates.audits(store, RUN))
    assert (again.population, again.audited, again.wrong, again.bound) == (100, 24, 1, found.bound)


def test_a_promise_of_an_export_grows_with_what_was_found_wrong(store: Store) -> None:
    opened = audited(store, 12, silver=38)
    without = certification.export_certificate(store, opened, CONFIG, certificates.audits(store, RUN)).bound
    opened = audited(store, 12, wrong=6, silver=38)
    assert certification.export_certificate(store, opened, CONFIG, certificates.audits(store, RUN)).bound > 2 * without


def test_what_reviewers_miss_of_planted_errors_is_added_to_the_promise(store: Store) -> None:
    opened = audited(store, 12, wrong=2, silver=38)
    before = promises(store, RUN, CONFIG)
    assert before is not None
    assert before["export"]["corrected"] is None
    (source, *_) = rationales.of_round(store, id_of(opened))
    kinds = ["arithmetic"] * 4 + ["control"] * 5
    rows = [
        Rationale(
            item_key=source.item_key, round_id=id_of(opened), author=Author.TEACHER, steps=["so"],
            answer=source.answer, planted=kind, planted_from=source.id,
        )
        for kind in kinds
    ]  # fmt: skip
    planted.keep(store, rows)
    for place, (row, kind) in enumerate(zip(planted.of_round(store, id_of(opened)), kinds, strict=True)):
        says(store, row.id or 0, REJECT if kind == "arithmetic" and place else ACCEPT)
    after = promises(store, RUN, CONFIG)
    assert after is not None
    assert after["export"]["bound"] == before["export"]["bound"]
    corrected = after["export"]["corrected"]
    assert (corrected["sensitivity"], corrected["specificity"], corrected["planted"]) == (0.75, 1.0, 9)
    assert corrected["bound"] == pytest.approx(after["export"]["bound"] / 0.75)
    assert "with reviewers' own errors taken out" in " ".join(promises_text(after))


def test_thresholds_are_quantiles_of_the_risks_unless_the_config_fixes_them(store: Store) -> None:
    config = CONFIG.model_copy(update={"acceptance": AcceptanceConfig(alpha=0.2, delta=0.2)})
    opened = audited(store, 12, config=config)

    def spread(some: Sequence[Rationale]) -> list[float]:
        return [0.02 * place for place in range(len(some))]

    found = certification.look(opened, store, config, spread)
    assert found is not None
    assert found.threshold == config.acceptance.silver_risk
    assert found.audited == 12
