"""What holds of every decision, amount and certificate, whatever people say, in whatever order, and however sure."""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop import certificate
from loop.acceptance import (
    Decided,
    Passing,
    continued,
    contradict,
    counting,
    decide,
    passing,
    prefix_of,
    standing,
    strictest,
    unreviewed,
)
from loop.certificate import (
    Stratum,
    audits_needed,
    certified_threshold,
    corrected_share,
    look_delta,
    thresholds_to_test,
    wrong_rows_bound,
)
from loop.config import AcceptanceConfig, BudgetConfig, ReviewConfig
from loop.ledger import ROOM, caps, discounted, longest_reply
from loop.records import Author, DecisionKind, Rationale, Verdict, VerdictKind
from tests.builders import a_number
from tests.test_acceptance import ACCEPT, EDIT, LIMITS, QUERY, REJECT, a_rationale, edits, outcome, says

CONTINUE = VerdictKind.CONTINUE
GOLD, SILVER, UNDECIDED = DecisionKind.GOLD, DecisionKind.SILVER, DecisionKind.UNDECIDED
PEOPLE = st.sampled_from(["ann", "bob", "cid", "dan"])
SAID = st.lists(
    st.builds(
        lambda kind, who, answer, slot: (kind, who, answer, slot),
        st.sampled_from([ACCEPT, EDIT, REJECT, CONTINUE, None]), PEOPLE, st.integers(4, 6), st.integers(0, 1),
    ),
    max_size=7,
).map(lambda some: [
    says(kind, who, minute, steps=[f"so {answer}"], answer=a_number(answer), slot=slot)
    for minute, (kind, who, answer, slot) in enumerate(some)
])  # fmt: skip
FEW = settings(max_examples=60, deadline=None)


# --- decisions --------------------------------------------------------------------------------------------------------


@FEW
@given(SAID, st.randoms())
def test_the_order_in_which_verdicts_come_decides_nothing(verdicts: list[Verdict], chance: object) -> None:
    shuffled = list(verdicts)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert outcome(*shuffled) == outcome(*verdicts)
    assert contradict(shuffled) == contradict(verdicts)
    assert continued(shuffled) == continued(verdicts)
    assert outcome(*strictest(shuffled)) == outcome(*strictest(verdicts))


@FEW
@given(SAID)
def test_a_person_has_one_vote_and_more_than_half_decide(verdicts: list[Verdict]) -> None:
    newest = {each.reviewer: each.kind for each in verdicts if each.kind is not None and each.slot == 0}
    verdicts = [each for each in verdicts if each.slot == 0]
    decided, votes = outcome(*verdicts), Counter(newest.values())
    for kind, reason in ((ACCEPT, "accepted by review"), (REJECT, "rejected by review")):
        assert (2 * votes[kind] > len(newest)) == (decided.reason == reason)
    if 2 * votes[EDIT] <= len(newest):
        assert decided.corrected is None
    if not newest:
        assert decided == Decided(UNDECIDED, "no verdict when the review closed")
    assert contradict(verdicts) or len(votes) <= 1
    assert (2 * votes[CONTINUE] > len(newest)) == (continued(verdicts) is not None)


@FEW
@given(SAID)
def test_the_strictest_verdicts_are_of_one_kind_and_none_is_stricter(verdicts: list[Verdict]) -> None:
    order = [REJECT, EDIT, CONTINUE, ACCEPT]
    found = strictest(verdicts)
    kinds = {each.kind for each in found}
    assert len(kinds) <= 1
    if kinds:
        newest = {(each.slot, each.reviewer): each for each in verdicts if each.kind is not None}
        assert order.index(kinds.pop()) <= min(order.index(each.kind) for each in found if each.kind)
        assert {each.annotation for each in found} <= {each.annotation for each in newest.values()}
    assert counting(verdicts, ReviewConfig(disagreements="strictest")) == found
    assert counting(verdicts, ReviewConfig(disagreements="person")) == verdicts


@FEW
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_less_risk_never_passes_less(risk: float, other: float, silver: float, certified: float) -> None:
    limits = Passing(silver, certified)
    low, high = (unreviewed(a_rationale(), each, limits) for each in sorted((risk, other)))
    assert low.kind is SILVER or high.kind is not SILVER
    assert low.certified or not high.certified
    assert (high.kind is SILVER) == (max(risk, other) < silver)
    assert not high.certified or max(risk, other) < certified
    assert unreviewed(a_rationale(None), risk, limits).kind is UNDECIDED


REASONS: list[tuple[Sequence[Verdict], Rationale | None, Decided]] = [
    ([says(ACCEPT)], a_rationale(None), Decided(UNDECIDED, "accepted by review, but the answer is not an allowed one")),
    ([edits("six", "so")], None, Decided(UNDECIDED, "the corrected answer is not an allowed one")),
    ([edits(a_number(6), " ")], None, Decided(UNDECIDED, "the correction has no steps")),
    (
        [edits(a_number(6), "a"), edits(a_number(7), "b", reviewer="bob")], None,
        Decided(UNDECIDED, "reviewers disagree about the corrected answer"),
    ),
    (
        [says(CONTINUE, steps=["a"])], None,
        Decided(UNDECIDED, "the teacher was to go on from a corrected step, and did not before the review closed"),
    ),
    ([says(REJECT)], None, Decided(DecisionKind.REJECTED, "rejected by review")),
    (
        [
            says(REJECT, reasons=["b", "a"]), says(REJECT, "bob", 1, reasons=["a", "c"]),
            says(ACCEPT, "cid", 2, reasons=["d"]),
        ],
        None, Decided(DecisionKind.REJECTED, "rejected by review: b, a, c"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("verdicts", "rationale", "decided"), REASONS)
def test_every_decision_says_its_reason(
    verdicts: Sequence[Verdict], rationale: Rationale | None, decided: Decided
) -> None:
    assert outcome(*verdicts, rationale=rationale) == decided


def test_every_decision_without_a_person_says_its_reason() -> None:
    limits = Passing(0.3, 0.1)
    said = {
        0.05: Decided(SILVER, "not reviewed, certified risk 0.05", certified=True),
        0.1: Decided(SILVER, "not reviewed, risk 0.10"),
        0.3: Decided(UNDECIDED, "risk 0.30, but the minutes for review were spent"),
    }
    assert {risk: unreviewed(a_rationale(), risk, limits) for risk in said} == said
    assert unreviewed(a_rationale(), 0.0, Passing(0.0, 0.0)) == Decided(UNDECIDED, "no certificate, and not reviewed")
    assert unreviewed(a_rationale(None), 0.0, limits) == Decided(UNDECIDED, "the answer is not an allowed one")
    assert decide(QUERY, None, True, [says(ACCEPT)], 0.0, LIMITS) == Decided(UNDECIDED, "no reply came")
    assert passing(AcceptanceConfig(silver_risk=0.25), 0.1) == Passing(0.25, 0.1)
    assert passing(AcceptanceConfig(silver_risk=0.25), None) == Passing(0.25, 0.0)
    assert passing(AcceptanceConfig(require_certificate=True), 0.1) == Passing(0.1, 0.1)


# --- where the teacher goes on ----------------------------------------------------------------------------------------


def of(number: int, author: Author, *steps: str, supersedes: int | None = None, answer: str | None = None) -> Rationale:
    return Rationale(
        id=number, item_key="q", round_id=1, author=author, steps=list(steps), supersedes=supersedes, answer=answer
    )


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["a", "b2"], ["a", "b2"]), (["a", "b2", "c"], ["a", "b2"]), (["a2", "b", "c"], ["a2"]), (["a", "b", "c"], []),
        ([" a ", "", "b2 "], ["a", "b2"]), (["a", "x", "b", "c"], ["a", "x"]), (["a  2", "b", "c"], ["a  2"]), ([], []),
        (["a", "b", "c", "d"], ["a", "b", "c", "d"]), (["b", "  c"], []),
    ],
)  # fmt: skip
def test_what_stands_behind_the_last_change_is_the_teachers(given: list[str], kept: list[str]) -> None:
    assert prefix_of(of(1, Author.TEACHER, "a", "b", "c"), says(CONTINUE, steps=given)) == kept


def test_a_prefix_that_came_back_is_taken_as_it_is() -> None:
    prefix = of(2, Author.HUMAN, "a", "b", supersedes=1)
    assert prefix.is_prefix
    assert prefix_of(prefix, says(CONTINUE, steps=["a ", "b"])) == ["a", "b"]


def test_decided_is_about_the_newest_version_while_people_want_the_teacher_to_go_on() -> None:
    first, prefix = of(1, Author.TEACHER, "a", answer=a_number(1)), of(2, Author.HUMAN, "a2", supersedes=1)
    rest = of(3, Author.TEACHER, "a2", "b", supersedes=2, answer=a_number(2))
    mended = of(4, Author.HUMAN, "a3", supersedes=1, answer=a_number(3))
    rows, on = [first, prefix, rest, mended], {1: [says(CONTINUE, steps=["a2"])]}
    assert mended.is_correction
    assert standing(first, [first, mended], on) is first
    assert standing(first, rows[:2], on) is prefix
    assert standing(first, rows, on) is rest
    assert standing(first, rows, {}) is first
    assert standing(first, rows, {1: [says(ACCEPT)]}) is first
    again = of(5, Author.TEACHER, "z", supersedes=1, answer=a_number(4))
    assert standing(first, [first, again], {}) is again
    farther, last = of(6, Author.HUMAN, "a4", supersedes=3), of(7, Author.TEACHER, "a4", "c", supersedes=6)
    on[3] = [says(CONTINUE, steps=["a4"])]
    assert standing(first, [*rows, farther, last], on) is last
    assert standing(first, [*rows, farther, last], {1: on[1]}) is rest


def test_the_newest_wish_to_go_on_counts_where_most_have_it() -> None:
    ann, bob = says(CONTINUE, "ann", 1, steps=["a"]), says(CONTINUE, "bob", 0, steps=["b"])
    assert continued([ann, bob]) is ann
    assert continued([ann, says(ACCEPT, "cid")]) is None
    assert continued([ann, bob, says(ACCEPT, "cid")]) is ann
    assert continued([]) is None


# --- amounts ----------------------------------------------------------------------------------------------------------


@FEW
@given(st.integers(0, 10**12), st.floats(0, 0.999))
def test_a_discounted_price_is_rounded_up_and_never_above_the_whole(price: int, discount: float) -> None:
    exact = price * (1 - Fraction(repr(discount)))
    assert exact <= discounted(price, discount) < exact + 1
    assert discounted(price, discount) <= price


@FEW
@given(st.lists(st.integers(0, 900), max_size=120), st.integers(16, 1000))
def test_a_learned_hold_fits_all_but_one_in_fifty_of_the_past(lengths: list[int], most: int) -> None:
    held = longest_reply(lengths, most)
    assert held <= most
    if len(lengths) < 49:
        assert held == most
    if len(lengths) in range(49, 99) and max(lengths) + ROOM <= most:
        assert held == max(lengths) + ROOM
    if held < most:
        assert sum(length + ROOM > held for length in lengths) <= len(lengths) / 49


def test_the_second_longest_of_a_hundred_replies_may_be_held() -> None:
    assert longest_reply([*range(97), 500, 600], 2000) == 500 + ROOM
    assert longest_reply([7] * 48, 100) == 100
    assert longest_reply([7] * 49, 100) == 7 + ROOM
    assert longest_reply([99] * 49, 100) == 100


def test_limits_within_a_run_are_named_by_what_they_limit() -> None:
    assert caps(BudgetConfig(), 3) == {}
    assert caps(BudgetConfig(usd_per_round=0.5), 3) == {"round/3": 500_000}
    assert caps(BudgetConfig(domains={"sums": 1.0}), 3) == {"domain/sums": 1_000_000}
    assert caps(BudgetConfig(usd_per_round=0.5, domains={"sums": 1.0}), 4) == {
        "round/4": 500_000, "domain/sums": 1_000_000
    }  # fmt: skip


# --- certificates -----------------------------------------------------------------------------------------------------

STRATA = st.integers(1, 40).flatmap(
    lambda population: st.integers(0, population).flatmap(
        lambda audited: st.integers(0, audited).map(lambda wrong: Stratum(population, audited, wrong))
    )
)


@FEW
@given(st.lists(STRATA, max_size=3), st.sampled_from([0.05, 0.1, 0.2]))
def test_a_bound_lies_between_what_was_found_and_all_and_is_looser_where_more_is_wanted(
    strata: list[Stratum], delta: float
) -> None:
    wrong, share = wrong_rows_bound(strata, delta)
    open_rows = sum(each.population - each.audited for each in strata)
    assert 0 <= wrong <= open_rows
    assert share == (wrong / open_rows if open_rows else 0.0)
    assert wrong_rows_bound(strata, delta / 2)[0] >= wrong


@FEW
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=150), st.randoms())
def test_a_certified_threshold_needs_its_audits_and_no_order(audited: list[tuple[float, bool]], chance: object) -> None:
    grid = [0.2, 0.5, 0.8, math.inf]
    found = certified_threshold(grid, audited, alpha=0.1, delta=0.1)
    shuffled = list(audited)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert certified_threshold(grid[::-1], shuffled, alpha=0.1, delta=0.1) == found
    if found is not None:
        below = [wrong for risk, wrong in audited if risk < found]
        assert len(below) >= 22
        assert sum(below) <= 0.1 * len(below)


def test_a_threshold_is_tested_from_the_audit_on_that_could_certify_it() -> None:
    assert certificate.testable([0.5, 0.2], [0.1] * 22, alpha=0.1, delta=0.1) == [0.2, 0.5]
    assert certificate.testable([0.5, 0.2], [0.1] * 21, alpha=0.1, delta=0.1) == []
    assert certificate.testable([0.5, 0.2], [0.2] * 22, alpha=0.1, delta=0.1) == [0.5]


def test_an_audit_at_a_threshold_does_not_lie_below_it_and_the_bound_is_the_wanted_one() -> None:
    right, wrong = [(0.1, False)] * 22, [(0.2, True)] * 5
    assert certified_threshold([0.2], right + wrong, alpha=0.1, delta=0.1) == 0.2
    assert certified_threshold([0.2, 0.3], right + wrong, alpha=0.1, delta=0.1) == 0.2
    for delta, needed in ((0.01, 44), (0.05, 29), (0.1, 22), (0.3, 12)):
        some = [(0.1, False)] * needed
        assert certified_threshold([0.2], some, alpha=0.1, delta=delta) == 0.2
        assert certified_threshold([0.2], some[1:], alpha=0.1, delta=delta) is None
        with_one = [(0.1, True), *[(0.1, False)] * (audits_needed(0.1, delta, wrong=1) - 1)]
        assert certified_threshold([0.2], with_one, alpha=0.1, delta=delta) == 0.2
        assert certified_threshold([0.2], with_one[:-1], alpha=0.1, delta=delta) is None


def test_strata_are_bounded_together_as_long_as_that_takes_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    strata = [Stratum(60, 20, 1), Stratum(40, 15, 1)]
    steps = 100 * (41 + 26) * 3**2
    monkeypatch.setattr(certificate, "MOST_WAYS", steps)
    together = wrong_rows_bound(strata, 0.1)
    monkeypatch.setattr(certificate, "MOST_WAYS", steps - 1)
    assert wrong_rows_bound(strata, 0.1) == (18, 18 / 65)
    assert together == (11, 11 / 65)


def test_thresholds_are_quantiles_from_where_one_error_is_borne() -> None:
    risks = [number / 1000 for number in range(1000)]
    found = thresholds_to_test(risks, 770, alpha=0.05, delta=0.1)
    assert found[-1] == math.inf
    assert found == sorted(set(found))
    assert len(found) == 21
    assert found[0] == pytest.approx(1.1 * 77 / 770, abs=0.001)
    assert found[1] - found[0] == pytest.approx((1 - found[0]) / 20, abs=0.0011)
    assert thresholds_to_test(risks, 45, alpha=0.05, delta=0.1) == [math.inf]


def test_what_is_impossible_names_its_counts() -> None:
    with pytest.raises(ValueError, match=r"^3 wrong of 2 audited of 5 rows is impossible$"):
        Stratum(5, 2, 3)
    with pytest.raises(ValueError, match=r"^sensitivity and specificity together must be above 1$"):
        corrected_share(0.2, sensitivity=0.4, specificity=0.5)


@pytest.mark.parametrize(
    ("found", "share"), [(0.0, 0.0), (0.05, 0.0), (0.5, 0.5294117647), (0.9, 1.0), (1.0, 1.0), (0.9001, 1.0)]
)
def test_a_corrected_share_is_a_share(found: float, share: float) -> None:
    assert corrected_share(found, sensitivity=0.9, specificity=0.95) == pytest.approx(share)


def test_looks_share_delta_as_one_over_their_squares() -> None:
    assert look_delta(0.1, 2) == pytest.approx(look_delta(0.1, 1) / 4)
    assert look_delta(0.1, 1) == pytest.approx(0.6 / math.pi**2)
