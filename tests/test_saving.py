"""Whether selection saves anything is measured against the control arm, and said with its interval."""

import json
import random
import subprocess
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from connectors import page_charts
from connectors.status import saving_text
from loop.answer import Answer, AnswerKind
from loop.ports import Example
from loop.records import Arm, Shadow
from loop.saving import FEWEST, Asked, Outcome, Saving, enough, equal_spend, is_counted, loses, saving
from tests.builders import an_item
from tests.forked import preceptor
from tests.test_campaign import ingested
from tests.tiny import tiny_project

ACCEPTED = Example(an_item(), ("one",), Answer(kind=AnswerKind.NUMBER, value="1"))


def asked(*micro_usd: int) -> list[Asked]:
    return [Asked(each, ACCEPTED) for each in micro_usd]


def shadows(control: float, selected: float, *, n: int = 400, pairs: int = 3, seed: int = 0) -> list[Shadow]:
    """Students that are right about so large a share of the items."""
    chance = random.Random(seed)
    shares = {Arm.CONTROL: control, Arm.SELECTED: selected}
    return [
        Shadow(
            round_id=1,
            pair=pair,
            arm=arm,
            asked=12,
            examples=10,
            micro_usd=500,
            correct={f"h{number}": chance.random() < share for number in range(n)},
        )
        for pair in range(pairs)
        for arm, share in shares.items()
    ]


def test_all_parts_of_both_arms_are_bought_for_what_the_cheapest_cost() -> None:
    [bought] = equal_spend(asked(4, 4, 4), asked(*[1] * 9), pairs=1, seed=0)
    assert [each.micro_usd for each in bought[Arm.CONTROL]] == [4, 4]
    assert len(bought[Arm.SELECTED]) == 9
    for both in equal_spend(asked(*[3] * 6), asked(*[2] * 30), pairs=3, seed=0):
        assert [sum(each.micro_usd for each in side) for side in both.values()] == [6, 6]


def test_no_two_pairs_share_an_item_and_the_seed_says_which_part_is_whose() -> None:
    control, selected = asked(*range(100, 130)), asked(*range(100, 200))
    pairs = equal_spend(control, selected, pairs=3, seed=1)
    for arm in Arm:
        parts = [{each.micro_usd for each in both[arm]} for both in pairs]
        assert all(len(part) >= 6 for part in parts)
        assert len(set.union(*parts)) == sum(map(len, parts))
    assert equal_spend(control, selected, pairs=3, seed=1) == pairs
    assert equal_spend(control, selected, pairs=3, seed=2) != pairs


def test_items_are_counted_where_some_that_teach_cost_nothing() -> None:
    for free in (asked(*[0] * 90), asked(*[0] * 60, *[5] * 30)):
        pairs = equal_spend(asked(*[0] * 10), free, pairs=2, seed=0)
        assert [{arm: len(some) for arm, some in both.items()} for both in pairs] == [dict.fromkeys(Arm, 5)] * 2
        assert is_counted(free)
    assert not is_counted(asked(1, 2), [Asked(0, None)])  # no reply came, and nothing was learned of it


def test_what_was_not_accepted_costs_but_teaches_nothing() -> None:
    some = [Asked(1, None)] * 50 + asked(*[1] * (FEWEST - 1))
    assert not enough(some)
    assert enough([*some, *asked(1)])


def test_nothing_is_said_before_a_pair_is_complete() -> None:
    assert saving([]) is None
    assert saving(shadows(0.5, 0.5)[:1]) is None
    assert saving(shadows(0.5, 0.5, n=0)) is None


def test_a_clear_gain_saves_and_a_clear_loss_loses() -> None:
    gain, loss = saving(shadows(0.4, 0.6)), saving(shadows(0.6, 0.4))
    assert gain is not None
    assert loss is not None
    assert gain.verdict is Outcome.SAVES
    assert gain.low < 0.2 < gain.high
    assert loss.verdict is Outcome.LOSES
    assert (gain.pairs, gain.n, gain.usd, gain.control_examples) == (3, 400, 0.0005, 10)


@pytest.mark.parametrize(("composition", "own"), [(0.0, 0.0), (0.02, 0.02), (0.04, 0.02), (0.08, 0.04)])
def test_three_pairs_that_differ_by_chance_are_called_different_about_as_often_as_the_level_says(
    composition: float, own: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard deviations of a student's accuracy by what it was taught and by its own seed, on 150 items of dev."""
    monkeypatch.setattr("loop.saving.RESAMPLES", 200)
    chance = np.random.default_rng(0)
    found = [saving(by_chance(chance, composition, own), seed=seed) for seed in range(200)]
    false = sum(each is not None and each.verdict is not Outcome.UNDECIDED for each in found)
    assert false <= 20  # of 200 at 5 %: binomial chance of more is 0.1 %


def test_a_true_gain_is_seen_by_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loop.saving.RESAMPLES", 200)
    chance = np.random.default_rng(1)
    for pairs, least in ((3, 25), (5, 47)):
        found = [saving(by_chance(chance, 0.02, 0.02, gain=0.2, pairs=pairs), seed=seed) for seed in range(50)]
        assert sum(each is not None and each.verdict is Outcome.SAVES for each in found) >= least


def by_chance(
    chance: np.random.Generator, composition: float, own: float, *, gain: float = 0.0, pairs: int = 3, n: int = 150
) -> list[Shadow]:
    """Students on items of unlike difficulty."""
    hard = chance.normal(0, 0.3, n)
    found = []
    for pair in range(pairs):
        for arm, more in ((Arm.CONTROL, 0.0), (Arm.SELECTED, gain)):
            accuracy = 0.6 + more + chance.normal(0, composition) + chance.normal(0, own)
            right = chance.random(n) < accuracy + hard
            correct = {f"h{number}": bool(each) for number, each in enumerate(right)}
            found.append(Shadow(round_id=1, pair=pair, arm=arm, asked=9, examples=9, micro_usd=1, correct=correct))
    return found


def test_fewer_than_three_pairs_say_nothing_of_how_far_they_differ() -> None:
    found = saving(shadows(0.1, 0.9, pairs=2))
    assert found is not None
    assert (found.low, found.high, found.verdict) == (-1, 1, Outcome.UNDECIDED)


def test_what_a_free_teacher_saves_is_said_and_drawn_by_items() -> None:
    rows = shadows(0.4, 0.6)
    for each in rows:
        each.micro_usd, each.by_count = 0, True
    found = saving(rows)
    assert found is not None
    row = asdict(found) | {"verdict": found.verdict.value, "round": 2}
    assert "random for 12 items each, as some cost nothing; difference" in saving_text(row)
    assert "items asked for either student" in str(page_charts.saving([row]))
    paid = saving_text(row | {"by_count": False, "usd": 0.0005})
    assert "random for $0.0005 each; difference" in paid


def test_shuffled_results_are_undecided() -> None:
    rows = shadows(0.5, 0.5)
    for each in rows:
        each.correct = {key: number % 2 == 0 for number, key in enumerate(each.correct)}
    found = saving(rows)
    assert found is not None
    assert (found.gain, found.low, found.high, found.verdict) == (0, 0, 0, Outcome.UNDECIDED)


def test_random_picks_take_over_only_after_losses_in_a_row() -> None:
    def verdict(low: float, high: float) -> Saving:
        return Saving(0, low, high, 0, 0, 0, 0, False, 0, 0, 3, 9)

    lost, open_ = verdict(-0.2, -0.1), verdict(-0.2, 0.1)
    assert loses([open_, lost, lost], 2)
    assert not loses([lost, lost, open_], 2)
    assert not loses([lost, open_, lost], 2)
    assert not loses([lost, None, lost], 2)
    assert not loses([lost], 2)
    assert loses([lost], 1)
    assert not loses([], 1)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A campaign whose second batch is all but the control arm's share selected."""
    config = tiny_project(tmp_path_factory.mktemp("saving"), sums=80)
    text = config.read_text().replace("batch_size = 6", "batch_size = 40")
    config.write_text(text + "\n[evaluation]\nsaving_pairs = 2\n")
    ingested(config)
    return config, preceptor("run", config=config)


def test_status_and_report_say_what_selection_saves(compared: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    config, done = compared
    assert done.returncode == 0, done.stderr
    rounds = json.loads(preceptor("status", "--json", config=config).stdout)["rounds"]
    assert rounds[0]["saving"] is None
    found = rounds[1]["saving"]
    assert found["pairs"] == 2
    assert found["verdict"] == "undecided"  # a student of random weights learns nothing from either
    assert found["low"] <= found["gain"] <= found["high"]
    assert "undecided whether selection beats random picks" in " ".join(
        preceptor("status", config=config).stdout.split()
    )
    page, summary = config.parent / "report.html", config.parent / "report.md"
    assert preceptor("report", "--out", str(page), "--markdown", str(summary), config=config).returncode == 0
    for file in (page, summary):
        assert "undecided whether selection beats random picks" in file.read_text()


def test_no_shadow_student_stays_on_disk(compared: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    config, _ = compared
    assert [folder for folder in config.parent.rglob("shadow") if folder.is_dir()] == []
