"""What becomes of an item follows from verdicts first and from the risk where nobody looked."""

import pytest

from loop.acceptance import Decided, contradict, decide, passing, strictest
from loop.answer import Answer, AnswerKind
from loop.config import AcceptanceConfig
from loop.records import Author, DecisionKind, Query, Rationale, Verdict, VerdictKind
from tests.builders import NOON, a_number

QUERY = Query(round_id=1, item_key="q", position=0, arm="random")
LIMITS = passing(AcceptanceConfig(), None)
ACCEPT, EDIT, REJECT = VerdictKind.ACCEPT, VerdictKind.EDIT, VerdictKind.REJECT


def a_rationale(answer: str | None = a_number(5)) -> Rationale:
    return Rationale(id=1, item_key="q", round_id=1, author=Author.TEACHER, steps=["2 + 3 = 5"], answer=answer)


def says(kind: VerdictKind | None, reviewer: str = "ann", minute: int = 0, **fields: object) -> Verdict:
    return Verdict(
        board="fake", project="1", annotation=f"{reviewer}{minute}", updated_at=f"2026-01-01T12:{minute:02}:00.000001Z",
        rationale_id=1, reviewer=reviewer, kind=kind, raw={}, pulled_at=NOON, **fields,
    )  # fmt: skip


def edits(answer: str | None, *steps: str, reviewer: str = "ann", minute: int = 0) -> Verdict:
    return says(EDIT, reviewer, minute, steps=list(steps), answer=answer)


def outcome(*verdicts: Verdict, rationale: Rationale | None = None) -> Decided:
    return decide(QUERY, rationale or a_rationale(), True, list(verdicts), 0.5, LIMITS)


def unreviewed(risk: float | None, answer: str | None = a_number(5), **config: object) -> Decided:
    return decide(QUERY, a_rationale(answer), False, [], risk, passing(AcceptanceConfig.model_validate(config), None))


def test_an_accepted_rationale_is_gold() -> None:
    assert outcome(says(ACCEPT)) == Decided(DecisionKind.GOLD, "accepted by review")


def test_a_corrected_rationale_is_gold_with_its_correction() -> None:
    decided = outcome(edits(a_number(6), " 2 + 4 = 6 ", ""))
    assert decided.kind is DecisionKind.GOLD
    assert decided.corrected == (("2 + 4 = 6",), Answer(kind=AnswerKind.NUMBER, value="6"))


def test_a_rejected_rationale_is_rejected_with_the_reasons() -> None:
    decided = outcome(says(REJECT, reasons=["wrong operation", "hallucinated"]))
    assert decided.kind is DecisionKind.REJECTED
    assert "wrong operation, hallucinated" in decided.reason


@pytest.mark.parametrize(
    "answer", [None, "six", '{"kind": "label", "value": "spam"}', '{"kind": "nonsense", "value": "1"}']
)
def test_a_correction_with_an_answer_that_is_not_allowed_decides_nothing(answer: str | None) -> None:
    decided = outcome(edits(answer, "2 + 4 = 6"))
    assert decided.kind is DecisionKind.UNDECIDED
    assert "answer" in decided.reason


def test_a_correction_without_steps_decides_nothing() -> None:
    decided = outcome(edits(a_number(6), " "))
    assert decided.kind is DecisionKind.UNDECIDED
    assert "no steps" in decided.reason


def test_accepting_a_rationale_without_an_allowed_answer_decides_nothing() -> None:
    assert outcome(says(ACCEPT), rationale=a_rationale(None)).kind is DecisionKind.UNDECIDED


def test_a_rationale_without_an_allowed_answer_may_be_corrected() -> None:
    assert outcome(edits(a_number(6), "2 + 4 = 6"), rationale=a_rationale(None)).kind is DecisionKind.GOLD


@pytest.mark.parametrize(
    ("kinds", "kind"),
    [
        ([ACCEPT, ACCEPT, REJECT], DecisionKind.GOLD),
        ([REJECT, ACCEPT, REJECT], DecisionKind.REJECTED),
        ([ACCEPT, REJECT], DecisionKind.UNDECIDED),
        ([ACCEPT, EDIT, REJECT], DecisionKind.UNDECIDED),
        ([ACCEPT, ACCEPT, EDIT, REJECT], DecisionKind.UNDECIDED),
    ],
)
def test_several_reviewers_decide_by_majority(kinds: list[VerdictKind], kind: DecisionKind) -> None:
    verdicts = [
        says(each, f"reviewer {number}", steps=["2 + 4 = 6"], answer=a_number(6)) for number, each in enumerate(kinds)
    ]
    decided = outcome(*verdicts)
    assert decided.kind is kind
    assert kind is not DecisionKind.UNDECIDED or decided.reason == "reviewers disagree"


def test_editors_must_agree_on_the_answer_and_the_newest_steps_count() -> None:
    ann, bob = edits(a_number(6), "by ann", reviewer="ann"), edits(a_number(6), "by bob", reviewer="bob", minute=1)
    decided = outcome(bob, ann)
    assert decided.corrected is not None
    assert decided.corrected[0] == ("by bob",)
    carl = edits(a_number(7), "by carl", reviewer="carl")
    assert outcome(ann, carl).kind is DecisionKind.UNDECIDED
    assert outcome(ann, bob, carl).corrected is not None


def test_one_reviewer_has_one_vote_and_the_newest_counts() -> None:
    assert outcome(says(REJECT, minute=3), says(ACCEPT, minute=5)).kind is DecisionKind.GOLD
    assert outcome(says(ACCEPT, minute=5), says(REJECT, minute=7)).kind is DecisionKind.REJECTED
    assert outcome(says(ACCEPT), says(ACCEPT, minute=1), says(REJECT, "bob")).reason == "reviewers disagree"


def test_a_verdict_that_could_not_be_interpreted_has_no_vote() -> None:
    assert outcome(says(None, "bob"), says(ACCEPT)).kind is DecisionKind.GOLD
    assert outcome(says(None)).reason == "no verdict when the review closed"


def test_a_sent_rationale_without_a_verdict_is_undecided_whatever_its_risk() -> None:
    decided = decide(QUERY, a_rationale(), True, [], 0.0, LIMITS)
    assert decided == Decided(DecisionKind.UNDECIDED, "no verdict when the review closed")


@pytest.mark.parametrize("risk", [0.0, 0.1, 0.299])
def test_an_unreviewed_rationale_of_low_risk_is_silver_without_a_certificate(risk: float) -> None:
    decided = unreviewed(risk)
    assert decided.kind is DecisionKind.SILVER
    assert not decided.certified


@pytest.mark.parametrize("risk", [0.3, 0.9, 1.0])
def test_an_unreviewed_rationale_of_high_risk_is_undecided(risk: float) -> None:
    decided = unreviewed(risk)
    assert decided.kind is DecisionKind.UNDECIDED
    assert "minutes" in decided.reason


def test_where_a_certificate_is_required_nothing_becomes_silver() -> None:
    decided = unreviewed(0.0, require_certificate=True)
    assert decided.kind is DecisionKind.UNDECIDED
    assert "no certificate" in decided.reason


def test_an_unreviewed_answer_that_is_not_allowed_is_undecided() -> None:
    assert unreviewed(0.0, answer=None).kind is DecisionKind.UNDECIDED


def test_an_unchecked_rationale_is_never_silver() -> None:
    assert unreviewed(None) == Decided(DecisionKind.UNDECIDED, "not checked")


@pytest.mark.parametrize("problem", [None, "the reply is empty"])
def test_without_a_rationale_the_item_is_undecided_with_the_problem(problem: str | None) -> None:
    query = Query(round_id=1, item_key="q", position=0, arm="random", problem=problem)
    decided = decide(query, None, False, [], None, LIMITS)
    assert decided == Decided(DecisionKind.UNDECIDED, problem or "no reply came")


def test_who_adjudicates_decides_alone() -> None:
    votes = [says(ACCEPT), says(REJECT, "bob", slot=1)]
    assert contradict(votes)
    assert outcome(*votes) == Decided(DecisionKind.UNDECIDED, "reviewers disagree")
    assert outcome(*votes, says(REJECT, "cid", slot=2)).kind is DecisionKind.REJECTED
    assert outcome(*votes, says(ACCEPT, "cid", slot=2)).kind is DecisionKind.GOLD


def test_who_judged_before_adjudicates_nothing() -> None:
    votes = [says(ACCEPT), says(REJECT, "bob", slot=1), says(ACCEPT, "ann", slot=2)]
    assert contradict(votes)
    assert outcome(*votes) == Decided(DecisionKind.UNDECIDED, "reviewers disagree")


def test_edits_with_other_answers_contradict_and_other_wordings_do_not() -> None:
    first, same = edits(a_number(4), "so 4"), edits(a_number(4), "thus 4", reviewer="bob")
    assert not contradict([first, same])
    assert contradict([first, edits(a_number(5), "so 5", reviewer="bob")])
    assert not contradict([says(ACCEPT), says(None, "bob")])


def test_one_person_in_two_slots_has_one_vote() -> None:
    assert outcome(says(ACCEPT), says(REJECT, slot=1)) == Decided(DecisionKind.GOLD, "accepted by review")


def test_a_simulated_reviewer_in_two_slots_stands_for_two_people() -> None:
    votes = [says(ACCEPT, simulated=True), says(REJECT, slot=1, simulated=True)]
    assert outcome(*votes) == Decided(DecisionKind.UNDECIDED, "reviewers disagree")


def test_where_the_strictest_counts_a_rejection_goes_before_an_edit_and_an_edit_before_an_accept() -> None:
    accept, edit, reject = says(ACCEPT), edits(a_number(4), "so 4", reviewer="bob"), says(REJECT, "cid")
    assert outcome(*strictest([accept, edit, reject])).kind is DecisionKind.REJECTED
    assert outcome(*strictest([accept, edit])).reason == "corrected by review"
    assert outcome(*strictest([accept])).reason == "accepted by review"
    assert strictest([]) == []


@pytest.mark.parametrize(
    ("risk", "kind", "certified"),
    [(0.09, DecisionKind.SILVER, True), (0.1, DecisionKind.UNDECIDED, False), (0.2, DecisionKind.UNDECIDED, False)],
)
def test_where_a_certificate_is_required_only_what_lies_below_it_passes(
    risk: float, kind: DecisionKind, certified: bool
) -> None:
    limits = passing(AcceptanceConfig(require_certificate=True), 0.1)
    decided = decide(QUERY, a_rationale(), False, [], risk, limits)
    assert (decided.kind, decided.certified) == (kind, certified)


def test_where_none_is_required_only_what_lies_below_it_is_called_certified() -> None:
    limits = passing(AcceptanceConfig(silver_risk=0.3), 0.1)
    decided = [decide(QUERY, a_rationale(), False, [], risk, limits) for risk in (0.05, 0.2)]
    assert [each.kind for each in decided] == [DecisionKind.SILVER] * 2
    assert [each.certified for each in decided] == [True, False]
