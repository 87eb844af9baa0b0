"""Open reviews go to people with room left, and to nobody twice."""

from collections import Counter
from datetime import timedelta

from loop.config import ReviewerConfig
from review.assignment import Claim, assign
from tests.builders import NOON

DAY = timedelta(hours=24)
ANN, BOB, CID = (ReviewerConfig(name=name, capacity=3) for name in ("ann", "bob", "cid"))


def claims(*uids: str, rationale: int | None = None) -> list[Claim]:
    return [Claim(uid, place if rationale is None else rationale) for place, uid in enumerate(uids)]


def owners(found: dict[str, Claim]) -> dict[str, str]:
    return {uid: claim.assignee for uid, claim in found.items()}


def test_reviews_are_spread_by_capacity_and_the_first_are_served_first() -> None:
    big = ReviewerConfig(name="big", capacity=6)
    found = owners(assign(claims(*"abcdefghijkl"), [ANN, big], [], NOON, DAY))
    assert Counter(found.values()) == {"big": 6, "ann": 3, "": 3}
    assert [uid for uid, name in found.items() if not name] == ["j", "k", "l"]


def test_both_blind_reviews_and_the_adjudication_go_to_three_people() -> None:
    found = owners(assign(claims("first", "second", "third", rationale=7), [ANN, BOB, CID], [], NOON, DAY))
    assert sorted(found.values()) == ["ann", "bob", "cid"]


def test_who_judged_a_rationale_is_not_asked_again() -> None:
    found = owners(assign(claims("second", rationale=7), [ANN, BOB], [(7, "ann"), (8, "bob")], NOON, DAY))
    assert found == {"second": "bob"}


def test_where_nobody_else_is_there_a_second_review_waits_for_nobody_in_particular() -> None:
    assert owners(assign(claims("second", rationale=7), [ANN], [(7, "ann")], NOON, DAY)) == {"second": ""}


def test_a_claim_is_kept_until_it_is_stale_and_then_goes_to_another() -> None:
    mine = Claim("a", 1, "ann", NOON)
    assert assign([mine], [ANN, BOB], [], NOON + DAY / 2, DAY) == {"a": mine}
    assert assign([mine], [ANN, BOB], [], NOON + DAY, DAY) == {"a": Claim("a", 1, "bob", NOON + DAY)}


def test_a_stale_claim_returns_to_its_owner_only_where_nobody_else_may_have_it() -> None:
    mine, later = Claim("a", 1, "ann", NOON), NOON + DAY
    assert assign([mine], [ANN], [], later, DAY) == {"a": Claim("a", 1, "ann", later)}
    full = [Claim(uid, 10 + place, "bob", later) for place, uid in enumerate("xyz")]
    assert owners(assign([mine, *full], [ANN, BOB], [], later, DAY))["a"] == ""


def test_what_a_person_had_who_left_goes_to_others() -> None:
    assert owners(assign([Claim("a", 1, "zoe", NOON)], [ANN], [], NOON, DAY)) == {"a": "ann"}


def test_a_claim_on_what_its_owner_judged_meanwhile_is_taken_back() -> None:
    assert owners(assign([Claim("a", 1, "ann", NOON)], [ANN, BOB], [(1, "ann")], NOON, DAY)) == {"a": "bob"}


def test_assigning_again_changes_nothing() -> None:
    first = assign(claims(*"abcdef"), [ANN, BOB], [], NOON, DAY)
    assert assign(list(first.values()), [ANN, BOB], [], NOON + DAY / 3, DAY) == first
