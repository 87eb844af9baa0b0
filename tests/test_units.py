"""Conversions, sums of quantities and percentages are doubted where they fail, and left alone where they hold."""

import pytest
from sympy.physics import units as known

from loop.checks import percentages
from tests.builders import an_item
from tests.test_checks import raised


@pytest.mark.parametrize(
    ("step", "right"),
    [
        ("3 hours = 160 minutes", "180"),
        ("5 km + 300 m = 5.03 km", "5.3"),
        ("3 hours is 120 minutes.", "180"),
        ("1 hour + 40 minutes = 80 minutes", "100"),
        ("60 miles/hour * 2 hours = 130 miles", "120"),
        ("60 km/h * 30 minutes = 1800 km", "30"),
        ("$5 + 50 cents = $55", "5.5"),
        ("3 square feet = 400 square inches", "432"),
        ("0.039 m = 39 cm", "3.9"),
        ("There are 100 minutes in an hour.", "60"),
        ("1時間＋30分＝80分", "90"),
        ("3キロメートル＝300メートル", "3000"),
    ],
)
def test_an_equation_that_fails_once_units_count_is_doubted(step: str, right: str) -> None:
    (doubt,) = raised("units", ["All is well.", step])
    assert doubt.step == 1
    assert f" {right}" in doubt.evidence


def test_unlike_quantities_are_not_added() -> None:
    (doubt,) = raised("units", ["5 km + 3 kg = 8 km"])
    assert "different kinds" in doubt.evidence


@pytest.mark.parametrize(
    "step",
    [
        "3 hours = 180 minutes",
        "5 km + 300 m = 5.3 km",
        "2 hours * 60 = 120 minutes",
        "24 * 7 days = 168 hours",
        "1 year = 52 weeks",
        "1 month is 4 weeks",
        "1 cup = 250 ml",
        "$5 + 50 cents = $5.50",
        "60 miles/hour * 2 hours = 120 miles",
        "10 minutes = 5 miles",
        "She works 5 days in a week.",
        "There are 4 days in a week on which she works.",
        "2452 inches = 204 feet",
        "1 inch is 5 feet less",
        "3 apples + 2 pears = 5 fruits",
        "2リットル＝2000ミリリットル",
    ],
)
def test_an_equation_that_holds_or_is_a_rate_or_a_habit_is_left_alone(step: str) -> None:
    assert raised("units", [step]) == []


def test_a_map_has_its_own_inches() -> None:
    assert raised("units", ["1 inch = 5 miles"], item=an_item(question="On a map with this scale, how far?")) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hour", "minute"), ("day", "second"), ("mile", "foot"), ("yard", "inch"), ("kilometer", "mile"),
        ("kilogram", "pound"), ("liter", "quart"), ("meter", "millimeter"), ("inch", "centimeter"),
    ],
)  # fmt: skip
def test_units_are_worth_what_sympy_says(one: str, other: str) -> None:
    ratio = float(known.convert_to(getattr(known, one), getattr(known, other)).as_coeff_Mul()[0])
    assert raised("units", [f"1000 {one} = {1000 * ratio:.3f} {other}"]) == []
    assert len(raised("units", [f"1000 {one} = {1200 * ratio:.3f} {other}"])) == 1


@pytest.mark.parametrize(
    ("step", "right"),
    [
        ("12 is 20% of 50", "10"),
        ("12 out of 50 students is 20%", "24"),
        ("50 increased by 20% is 65", "60"),
        ("50 - 20% = 45", "40"),
        ("20% off $50 is $45", "40"),
        ("30% more than 200 is 230", "260"),
        ("The price rises from 40 to 50, an increase of 20%.", "25"),
        ("1000円の20%引きは850円", "800"),
        ("1000円の１割増しは1,200円", "1100"),
    ],
)
def test_a_wrong_percentage_is_doubted_with_the_right_one(step: str, right: str) -> None:
    (doubt,) = raised("percentages", ["All is well.", step])
    assert doubt.step == 1
    assert doubt.evidence.endswith(f"it is {right}")


@pytest.mark.parametrize(
    "step",
    [
        "10 is 20% of 50",
        "12 out of 50 students is 24%",
        "50 increased by 20% is 60",
        "50 - 20% = 40",
        "20% off $50 is $40",
        "20% off $50 is $10",
        "from 40 to 50 is an increase of 25%",
        "3.33 is 33% of 10",
        "5 + 3 is 20% of 40",
        "50 - 20% = 40 - 3",
        "1,000円の2割引きは800円",
    ],
)
def test_a_right_percentage_is_left_alone(step: str) -> None:
    assert raised("percentages", [step]) == []
    assert list(percentages.mistakes(step)) == []
