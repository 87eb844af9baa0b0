"""The grid of the distil benchmark, its simulated people, and its figures on cells that were made up."""

import pytest

from benchmarks import distil
from benchmarks.distil import ANSWERS, ONE, SHARES, STEPS, corrected, figures_of, grid, matching, risks_of
from loop.answer import Answer, AnswerKind
from loop.ports import Example
from loop.student.validation import FEWEST
from tests.builders import an_item

WARM, COLD = (Answer(kind=AnswerKind.LABEL, value=label) for label in ("warm", "cold"))


def rows() -> list[Example]:
    """Half of them are warm; the teacher calls the first two that are not so."""
    return [
        Example(
            an_item(f"k{n}", question=f"the {'sun' if n % 2 else 'snow'} today {n % 5}"),
            ("It is said.",),
            WARM if n % 2 or n < 3 else COLD,
        )
        for n in range(40)
    ]


TRUTH = {f"k{n}": (("It is true.",), WARM if n % 2 else COLD) for n in range(40)}


def test_people_correct_what_is_wrong_and_accept_what_is_right_of_a_share() -> None:
    for which in (distil.FLAGGED, distil.AT_RANDOM):
        found = corrected(rows(), TRUTH, 0.25, which, 0)
        gold = [each for each in found if each.gold]
        assert len(gold) == 10
        assert all(each.answer == TRUTH[each.item.key][1] and each.risk == 0 for each in gold)
        mended = [each for each in gold if each.repaired]
        assert all(each.steps == ("It is true.",) and each.repaired == {0} for each in mended)
        assert all(each.risk > 0 for each in found if not each.gold)
    flagged = corrected(rows(), TRUTH, 0.25, distil.FLAGGED, 0)
    assert {each.item.key for each in flagged if each.repaired} == {"k0", "k2"}


def test_the_risk_knows_nothing_of_the_truth_and_finds_what_the_teacher_says_against_its_habit() -> None:
    found = risks_of(rows())
    assert set(sorted(range(40), key=lambda number: -found[number])[:2]) == {0, 2}


def test_the_grid_leaves_out_what_a_student_cannot_do() -> None:
    keys = grid(distil.SETS, distil.WAYS, 2)
    assert len(keys) == len(set(keys))
    assert ("esnli_palm", ANSWERS, 0.125, 0) in keys
    assert ("esnli_palm", ONE, 1.0, 0) not in keys
    assert ("esnli_palm.smollm2", "flagged repaired_weight 2", 0.3, 1) in keys
    assert not any(name == "esnli_palm" and "repaired" in way for name, way, *_ in keys)
    assert not any(name.startswith("word") and "flagged" in way for name, way, *_ in keys)


def test_every_way_has_a_student_that_can_be_trained() -> None:
    for name, way, *_ in grid(distil.SETS, distil.WAYS, 1):
        kind = "causal" if name.endswith("smollm2") else "encoder"
        distil._config(distil.StudentConfig(kind=kind), way)


def a_cell(way: str, share: float, seed: int, accuracy: float) -> dict[str, object]:
    return {"set": "s", "way": way, "share": share, "seed": seed, "accuracy": accuracy, "code": distil.CODE}


def test_a_share_matches_where_the_curves_cross() -> None:
    assert matching([0.4, 0.5, 0.7, 0.8], 0.6) == pytest.approx(0.375)
    assert matching([0.6, 0.7, 0.7, 0.8], 0.6) == SHARES[0]
    assert matching([0.1, 0.2, 0.3, 0.4], 0.6) is None
    cells = [
        a_cell(STEPS, share, seed, accuracy)
        for seed in range(3)
        for share, accuracy in zip(SHARES, [0.4, 0.5, 0.7, 0.8], strict=True)
    ]
    cells += [a_cell(ANSWERS, 1.0, seed, 0.6) for seed in range(3)]
    figures, notes = figures_of(cells)
    assert figures["data_share_to_match.s"]["value"] == pytest.approx(0.375)
    assert figures["gain_over_answer_only.s"]["value"] == pytest.approx(0.2)
    assert "gain_over_answer_only.s.0.5" not in figures
    assert "in 0% of the resamples" in notes[0]


def test_a_gain_of_reviews_is_paired_by_seed() -> None:
    cells = [a_cell(STEPS, 1.0, seed, 0.5 + seed / 10) for seed in range(3)]
    cells += [
        a_cell(way, 0.2, seed, 0.5 + seed / 10 + more)
        for seed in range(3)
        for way, more in (("flagged", 0.04), ("random", 0.01), ("flagged gold_weight 4", 0.05))
    ]
    figures, _ = figures_of(cells)
    assert figures["review_gain.s.0.2"]["value"] == pytest.approx(0.04)
    assert figures["review_gain_over_random.s.0.2"]["value"] == pytest.approx(0.03)
    assert figures["gain_gold_weight_4.s.0.2.flagged"]["value"] == pytest.approx(0.01)
    assert figures_of(cells[:2])[0] == {}


def test_a_weight_that_a_trial_chooses_is_compared_with_a_student_that_validates_too() -> None:
    more = {"flagged": 0.0, "flagged validation": -0.03, "flagged gold_weight validated": -0.01}
    cells = [a_cell(way, 0.2, seed, 0.5 + seed / 10 + gain) for seed in range(3) for way, gain in more.items()]
    figures, _ = figures_of(cells)
    assert figures["gain_gold_weight_validated.s.0.2.flagged"]["value"] == pytest.approx(0.02)
    assert figures["gain_validation.s.0.2.flagged"]["value"] == pytest.approx(-0.03)
    shares = {distil.WEIGHINGS[name]["validation_share"] for name in ("validation", "gold_weight validated")}
    assert shares == {0.2}


def test_trials_are_not_measured_where_too_few_gold_rows_validate() -> None:
    tried = {key[2] for key in grid(distil.SETS, distil.WAYS, 1) if "validat" in key[1]}
    assert tried == {0.2, 0.3}
    assert all(share * 0.2 * distil.ROWS > 1.5 * FEWEST for share in tried)
