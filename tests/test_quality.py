"""Time, corrections, anchoring, and how rubber-stampers are told from honest reviewers."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from loop.interval import Interval, wilson
from loop.records import Verdict, VerdictKind
from review.anchoring import Anchoring, Doubted, Swayed, anchoring
from review.quality import (
    FALSE_ACCUSATION,
    Look,
    active_minutes,
    corrections,
    edit_share,
    median_seconds,
    suspicion,
)
from tests.builders import NOON

PLANTED, REAL = Look(True, wrong=True), Look(True, risk=0.5)
FOUND = replace(PLANTED, accepted=False)


# --- who does not look -----------------------------------------------------------------------------------------------


def test_two_planted_errors_accepted_in_a_row_are_enough() -> None:
    found = suspicion([REAL, PLANTED, REAL, PLANTED], [])
    assert (found.accused, found.after) == (True, 4)
    assert "accepted 2 of 2 planted errors and 2 of 2 other rationales" in found.reason


def test_one_planted_error_that_was_overlooked_accuses_nobody() -> None:
    assert not suspicion([PLANTED, *[REAL] * 100], []).accused


def test_who_finds_an_error_first_has_to_overlook_many_more() -> None:
    assert not suspicion([FOUND, PLANTED, PLANTED, PLANTED], []).accused
    assert suspicion([FOUND, *[PLANTED] * 4], []).accused


def test_controls_say_nothing() -> None:
    assert suspicion([Look(accepted, wrong=False) for accepted in (True, False)] * 20, []).ratio == 1.0


def test_accepting_everything_says_nothing_where_others_accept_as_much() -> None:
    assert suspicion([REAL] * 100, [REAL] * 100).ratio == 1.0


def test_accepting_what_others_refuse_at_like_risk_is_suspicious() -> None:
    others = [replace(REAL, accepted=number % 2 == 0) for number in range(60)]
    assert suspicion([REAL] * 30, others).accused
    elsewhere = [replace(each, risk=0.9) for each in others]
    assert not suspicion([REAL] * 30, elsewhere).accused


def test_an_accusation_stands_once_it_was_reached() -> None:
    assert suspicion([PLANTED, PLANTED, *[FOUND] * 10], []).accused


def a_review(
    chance: np.random.Generator, *, accepts: float | None = None, missed: float = 0.2, spec: float = 0.95, n: int = 30
) -> list[Look]:
    """A reviewer's looks at n rationales: 15 % with planted errors at random places, of the others a third wrong.

    `accepts`: how much a rubber-stamper accepts; None is an honest reviewer who overlooks `missed` of what is wrong.
    """
    bad = set(chance.permutation(n)[: int(0.15 * n + chance.random())])
    looks = []
    for at in range(n):
        risk = float(chance.beta(6, 3) if chance.random() < 0.3 else chance.beta(1, 6))
        wrong = at in bad or chance.random() < risk
        share = accepts if accepts is not None else missed if wrong else spec
        looks.append(Look(bool(chance.random() < share), risk, True if at in bad else None))
    return looks


def accused(
    seed: int, runs: int, *, accepts: float | None = None, others: int = 3, sharp: bool = False, n: int = 30
) -> tuple[float, Interval]:
    """The share of simulated reviewers who are accused within n rationales, with its 95 % interval.

    Beside them work others who judged as many; `sharp` ones overlook 2 % of what is wrong and doubt 10 % in vain.
    """
    chance, found = np.random.default_rng(seed), 0
    missed, spec = (0.02, 0.9) if sharp else (0.2, 0.95)
    for _ in range(runs):
        own = a_review(chance, accepts=accepts, spec=1.0, n=n)
        beside = [look for _ in range(others) for look in a_review(chance, missed=missed, spec=spec, n=n)]
        found += suspicion(own, beside).accused
    return found / runs, wilson(found, runs)


@pytest.mark.parametrize(("accepts", "seed"), [(1.0, 11), (0.95, 12)])
def test_95_of_100_rubber_stampers_are_found_within_30_rationales(accepts: float, seed: int) -> None:
    share, within = accused(seed, 1500, accepts=accepts)
    assert share >= 0.95, within
    assert within.low >= 0.94


@pytest.mark.parametrize(("sharp", "seed"), [(False, 21), (True, 22)])
def test_at_most_5_of_100_honest_reviewers_are_accused(sharp: bool, seed: int) -> None:
    assert accused(seed, 1500, sharp=sharp)[1].high <= FALSE_ACCUSATION


def test_at_most_5_of_100_are_accused_by_planted_errors_alone() -> None:
    # 4.1 % by counting: two overlooked at once, or four of five after one was found
    share, within = accused(23, 6000, others=0)
    assert share <= FALSE_ACCUSATION
    assert within.low <= 0.0413 <= within.high


def test_an_honest_reviewer_is_not_accused_after_many_rationales_either() -> None:
    assert accused(24, 300, n=300)[0] <= FALSE_ACCUSATION


def test_without_others_who_accepts_everything_is_found_by_planted_errors_alone() -> None:
    assert accused(25, 300, accepts=1.0, others=0)[0] == 1.0


# --- time ------------------------------------------------------------------------------------------------------------


def a_submission(second: int, seconds: float, annotation: str = "", **fields: object) -> Verdict:
    return Verdict(
        board="fake", project="1", annotation=annotation or str(second), reviewer="ann", kind=VerdictKind.ACCEPT,
        updated_at=f"2026-01-01T12:{second // 60:02}:{second % 60:02}.000000Z", seconds=seconds, raw={}, pulled_at=NOON,
        **fields,
    )  # fmt: skip


def test_a_page_left_open_while_others_are_judged_is_no_work() -> None:
    assert active_minutes([a_submission(60, 30.0), a_submission(120, 30.0), a_submission(180, 1800.0)]) == 2.0


def test_a_verdict_changed_later_counts_what_it_took_since() -> None:
    again = [a_submission(60, 60.0, "a"), a_submission(600, 90.0, "a")]
    assert active_minutes(again) == 1.5


def test_a_short_look_after_a_long_break_counts_as_short() -> None:
    assert active_minutes([a_submission(0, 30.0), a_submission(3000, 30.0)]) == 1.0


def test_what_a_simulated_reviewer_claims_is_taken_as_claimed() -> None:
    claimed = [a_submission(second, 40.0, simulated=True) for second in (0, 1, 2)]
    assert active_minutes(claimed) == 2.0


def test_nothing_judged_took_no_time() -> None:
    assert (active_minutes([]), median_seconds([])) == (0.0, None)


# --- corrections -----------------------------------------------------------------------------------------------------


def test_corrections_are_measured_by_the_share_of_characters_that_change() -> None:
    assert edit_share(["1 + 1 = 3"], ["1 + 1 = 2"]) == pytest.approx(1 / 9)
    assert edit_share(["same"], ["same"]) == 0.0
    found = corrections([(["ab"], ["ab"]), (["ab"], ["ax"]), (["ab"], ["xy"])])
    assert found is not None
    assert (found.edits, found.changed) == (3, 0.5)
    assert corrections([]) is None


# --- anchoring -------------------------------------------------------------------------------------------------------


def verdicts(chance: np.random.Generator, n: int, effect: float, unseen: float = 0.1) -> list[Doubted]:
    risks = chance.beta(2, 2, n)
    shown = chance.random(n) >= unseen
    refused = chance.random(n) < np.clip(0.7 * risks + effect * shown, 0, 1)
    return [Doubted(float(r), bool(s), not no) for r, s, no in zip(risks, shown, refused, strict=True)]


def test_a_large_difference_is_told_in_the_right_direction() -> None:
    assert anchoring(verdicts(np.random.default_rng(0), 800, 0.3)).verdict is Swayed.MORE
    assert anchoring(verdicts(np.random.default_rng(0), 800, -0.3)).verdict is Swayed.LESS


def test_few_reviews_leave_it_undecided_and_say_so() -> None:
    found = anchoring(verdicts(np.random.default_rng(0), 20, 0.1))
    assert found.verdict is Swayed.UNDECIDED
    assert "undecided" in found.verdict


@pytest.mark.parametrize(
    "given", [[], [Doubted(0.5, True, True)], [Doubted(0.9, True, True), Doubted(0.1, False, True)]]
)
def test_without_both_kinds_at_like_risk_there_is_no_difference(given: Sequence[Doubted]) -> None:
    found = anchoring(given)
    assert (found.difference, found.low, found.high, found.verdict) == (None, None, None, Swayed.UNDECIDED)


def test_where_everybody_agrees_the_interval_is_not_empty() -> None:
    found = anchoring([Doubted(0.5, shown, True) for shown in (True, False)] * 5)
    assert found.difference == 0.0
    assert inside(found, 0.3)


@pytest.mark.parametrize(("effect", "n"), [(0.0, 100), (0.1, 400)])
def test_the_interval_of_the_difference_holds_the_truth_as_often_as_it_says(effect: float, n: int) -> None:
    chance = np.random.default_rng(3)
    held = sum(inside(anchoring(verdicts(chance, n, effect)), effect) for _ in range(300))
    assert held >= 0.92 * 300


def inside(found: Anchoring, value: float) -> bool:
    assert found.low is not None
    assert found.high is not None
    return found.low <= value <= found.high
