"""A campaign ends where a further round is surely not worth it, says why in numbers, and never by what is open."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlmodel import select
from typer.testing import CliRunner, Result

from connectors.cli import app
from connectors.status import status, status_text
from connectors.stops import grounds
from loop.config import BudgetConfig, Config, StoppingConfig, TeacherConfig
from loop.records import Reply, Score
from loop.stopping import Point, State, expected_gain, falls, minutes, money, plateau, pool, settled
from loop.store import rounds
from loop.store.database import Store
from tests.builders import RUN, a_campaign, a_store, id_of
from tests.test_status import shown
from tests.tiny import tiny_project

USD = 0.5
"""What each round of a synthetic campaign costs."""


def power_law(ceiling: float, start: float, exponent: float, usd: float) -> float:
    return ceiling - (ceiling - start) * (usd / USD) ** -exponent


def observed(curve: tuple[float, float, float], *, n: int, rounds: int, seed: int) -> list[Point]:
    """How a student on this curve did on n items after each round."""
    chance = np.random.default_rng(seed)
    spent = [USD * (number + 1) for number in range(rounds)]
    return [Point(usd, int(chance.binomial(n, power_law(*curve, usd))), n) for usd in spent]


def gains(
    curve: tuple[float, float, float], *, n: int, rounds: int, seeds: int
) -> tuple[float, list[tuple[float, float]]]:
    """The true gain of the next round, and the interval that each seed gives it."""
    true = power_law(*curve, USD * (rounds + 1)) - power_law(*curve, USD * rounds)
    found = [expected_gain(observed(curve, n=n, rounds=rounds, seed=seed), USD) for seed in range(seeds)]
    return true, [(each.low, each.high) for each in found if each is not None]


@pytest.mark.parametrize("curve", [(0.9, 0.45, 0.7), (0.8, 0.3, 0.4), (0.9, 0.2, 0.6)])
def test_the_gain_lies_in_its_interval_as_often_as_the_interval_says(curve: tuple[float, float, float]) -> None:
    true, intervals = gains(curve, n=200, rounds=5, seeds=200)
    covered = sum(low <= true <= high for low, high in intervals)
    assert len(intervals) == 200
    assert covered >= 170  # 0.9 of 200 is 180; binomial chance of under 170 is 1 %


def test_more_rounds_and_items_narrow_it() -> None:
    curve = (0.9, 0.45, 0.7)
    _, few = gains(curve, n=100, rounds=4, seeds=10)
    _, many = gains(curve, n=1000, rounds=8, seeds=10)
    assert np.mean([high - low for low, high in many]) < 0.5 * np.mean([high - low for low, high in few])


def test_a_flat_curve_stops_and_a_steep_one_never_does() -> None:
    flat, steep = (0.7, 0.7, 1.0), (0.95, 0.2, 0.8)
    stopped = [plateau(observed(flat, n=400, rounds=6, seed=seed), USD, USD, 1.0).state for seed in range(40)]
    assert stopped.count(State.STOP) >= 36
    for rounds_so_far in (3, 4, 6):
        for seed in range(40):
            points = observed(steep, n=100, rounds=rounds_so_far, seed=seed)
            assert plateau(points, USD, USD, 1.0).state is not State.STOP


def test_a_falling_curve_is_expected_to_bring_next_to_nothing() -> None:
    gain = expected_gain([Point(1, 160, 200), Point(2, 150, 200), Point(3, 140, 200), Point(4, 130, 200)], 1)
    assert gain is not None
    assert 0 <= gain.low <= gain.expected <= gain.high < 0.01


def test_nothing_is_fitted_to_two_points_or_without_dollars() -> None:
    assert expected_gain([Point(1, 5, 10), Point(2, 6, 10)], 1) is None
    assert expected_gain([Point(0, 5, 10), Point(0, 6, 10), Point(1, 7, 10)], 1) is None
    assert plateau([], 1, 1, 0.1).state is State.UNDECIDED
    assert plateau([], 1, 1, None).state is State.OFF


@settings(max_examples=25)
@given(st.lists(st.integers(0, 30), min_size=3, max_size=6), st.floats(0.01, 10))
def test_the_gain_is_never_negative_and_never_above_what_is_left(right: list[int], usd: float) -> None:
    gain = expected_gain([Point(place + 1, each, 30) for place, each in enumerate(right)], usd)
    assert gain is not None
    assert 0 <= gain.low <= gain.high <= 1
    assert 0 <= gain.expected <= 1
    assert 0 <= gain.ceiling <= 1


@pytest.mark.parametrize(
    ("usd_per_point", "state"), [(None, State.OFF), (1e-4, State.STOP), (0.25, State.UNDECIDED), (1e4, State.GO_ON)]
)
def test_what_a_point_is_worth_decides(usd_per_point: float | None, state: State) -> None:
    ground = plateau(observed((0.9, 0.45, 0.7), n=200, rounds=4, seed=1), USD, USD, usd_per_point)
    assert ground.state is state
    assert "a further round costs about $0.5000" in ground.text
    assert re.search(
        r"bring \+\d\.\d\d points of dev accuracy \(\+\d\.\d\d to \+\d+\.\d\d, 4 rounds, n=200\)", ground.text
    )
    assert ("budget.usd_per_point says what a point is worth" in ground.text) is (state is State.OFF)


def test_money_minutes_and_pool_stop_where_they_are_gone() -> None:
    assert money(0.5, 0.001).state is State.GO_ON
    assert money(0.0005, 0.001).state is State.STOP
    assert money(0.0, 0.0).state is State.GO_ON, "what is remembered costs nothing"
    assert money(-0.1, 0.0).state is State.STOP
    assert minutes(60, 30, 1.5).state is State.GO_ON
    gone = minutes(60, 1.0, 1.5)
    assert gone.state is State.STOP
    assert gone.text == "1.0 of 60 minutes left, one review takes 1.5; raise budget.minutes to go on"
    assert minutes(0, 0, 1.5).state is State.OFF
    assert pool(0).state is State.STOP
    assert pool(3).state is State.GO_ON


def divergences(mean: float, *, n: int = 200, seed: int = 0) -> list[float]:
    return np.random.default_rng(seed).normal(mean, 0.1, n).clip(0, 1).tolist()


def test_divergence_is_settled_where_even_the_highest_surely_lies_below_the_bound() -> None:
    assert settled(divergences(0.1), 20, 0.5).state is State.STOP
    assert settled(divergences(0.5), 20, 0.5).state is State.GO_ON
    assert settled(divergences(0.1), 20, None).state is State.OFF
    highest = np.sort(divergences(0.1))[-20:].mean()
    assert settled(divergences(0.1), 20, float(highest)).state is State.UNDECIDED
    assert "by what racing expects" not in settled(divergences(0.1), 20, 0.5).text
    assert "30 of all by what racing expects" in settled(divergences(0.1), 20, 0.5, foreseen=30).text
    assert settled([], 20, 0.5).state is State.UNDECIDED
    assert settled([], 20, None).state is State.OFF


def test_divergence_that_surely_no_longer_falls_stops() -> None:
    assert falls(divergences(0.3, n=2000), divergences(0.3, n=2000, seed=1), 0.05).state is State.STOP
    assert falls(divergences(0.5), divergences(0.3, seed=1), 0.05).state is State.GO_ON
    assert falls(divergences(0.3, n=10), divergences(0.27, n=10, seed=1), 0.05).state is State.UNDECIDED
    assert falls(divergences(0.3), divergences(0.3), None).state is State.OFF
    assert falls([], divergences(0.3), 0.05).state is State.UNDECIDED


def test_a_divergence_that_rose_is_said_to_have_risen_with_its_interval_the_same_way_round() -> None:
    before, last = divergences(0.3), divergences(0.5, seed=1)
    fell, rose = falls(last, before, 0.05), falls(before, last, 0.05)
    assert re.match(r"mean divergence fell by 0\.\d+ \(0\.\d+ to 0\.\d+\) to 0\.", fell.text)
    low, high = rose.figures["low"], rose.figures["high"]
    assert high < 0
    assert rose.text.startswith(f"mean divergence rose by {-rose.figures['fall']:.3f} ({-high:.3f} to {-low:.3f}) to ")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = a_store(tmp_path)
    a_campaign(found)
    return found


def test_the_status_says_what_each_ground_says_and_what_is_off(store: Store) -> None:
    state = status(store, RUN, Config())
    assert (state["stopping"]["stops"], state["stopping"]["reason"]) == (False, None)
    assert [each["name"] for each in state["stopping"]["grounds"]] == [
        "money", "minutes", "pool", "plateau", "divergence", "fall"
    ]  # fmt: skip
    text = shown(status_text(state))
    for line in (
        "money: go on: $0.9940 left",
        "minutes: go on: 58.0 of 60 minutes left",
        "plateau: off: 2 rounds with",
    ):
        assert line in text
    assert not any(math.isnan(each) for ground in state["stopping"]["grounds"] for each in numbers(ground["figures"]))


def numbers(figures: dict[str, object]) -> list[float]:
    return [each for each in figures.values() if isinstance(each, float)]


def test_a_settled_divergence_is_read_off_the_last_round_that_looked(store: Store) -> None:
    last = rounds.current(store, RUN)
    assert last is not None
    rows = [Score(round_id=id_of(last), item_key="q7", chunk=-1, score=1.0, parts={"intra": 1.0})]
    rounds.keep_scores(store, rows)  # what is planted is no candidate
    found = grounds(store, RUN, Config(stopping=StoppingConfig(divergence_below=0.9)), left=3)
    [ground] = [each for each in found if each.name == "divergence"]
    assert ground.state is State.STOP
    assert ground.figures["mean"] == pytest.approx(0.75)
    assert ground.figures["n"] == 3


def test_a_spent_budget_is_a_ground_too(store: Store) -> None:
    state = status(store, RUN, Config(budget=BudgetConfig(usd=0.006)))
    assert state["stopping"]["reason"] == "money"


def test_replies_that_are_remembered_need_no_money_while_some_are(store: Store, tmp_path: Path) -> None:
    budget = BudgetConfig(usd=0.006)
    remembering = Config(budget=budget, teacher=TeacherConfig(replies=tmp_path / "replies.db"))

    def money_of(config: Config) -> State:
        return next(each for each in grounds(store, RUN, config, left=3, request=5) if each.name == "money").state

    assert money_of(remembering) is State.STOP, "the last round had to pay for every reply"
    with store.writing() as session:
        for reply in session.exec(select(Reply)):
            reply.remembered = "there, then"
            session.add(reply)
    assert money_of(remembering) is State.GO_ON
    assert money_of(Config(budget=budget)) is State.STOP


def test_minutes_that_are_gone_are_a_ground_too(store: Store) -> None:
    state = status(store, RUN, Config(budget=BudgetConfig(minutes=3)))
    assert state["stopping"]["reason"] == "minutes"
    assert "minutes: stop: 1.0 of 3 minutes left, one review takes 1.5" in shown(status_text(state))


def ran(config: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--config", str(config)], catch_exceptions=False)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A campaign of six rounds whose student of random weights learns nothing, so that points cost more than they are
    worth.
    """
    config = tiny_project(tmp_path_factory.mktemp("plateau"), rounds=6, sums=36)
    text = config.read_text().replace("minutes = 100", "minutes = 100\nusd_per_point = 1e-6")
    config.write_text(text.replace("epochs = 2", "epochs = 1") + "[evaluation]\nsaving_pairs = 0\n")
    for split in ("holdout", "pool"):
        assert ran(config, "ingest", str(config.parent / f"{split}.jsonl"), "--split", split).exit_code == 0
    return config, ran(config, "run")


def test_a_campaign_stops_at_a_plateau_with_exit_code_0(stopped: tuple[Path, Result]) -> None:
    config, done = stopped
    assert done.exit_code == 0
    last = done.stdout.strip().splitlines()[-1]
    assert re.match(r"finished: a further round costs about \$0\.\d+ and is expected to bring", last)
    assert "at $1e-06 a point" in last
    assert "fall: off" in done.stdout
    state = ran(config, "status", "--json")
    assert '"reason": "plateau"' in state.stdout
    assert '"round": 3' in state.stdout
    assert "plateau: stop: a further round costs" in ran(config, "status").stdout.replace("\n", " ")


def test_the_report_says_why(stopped: tuple[Path, Result]) -> None:
    config, _ = stopped
    page = config.parent / "report.html"
    assert ran(config, "report", "--out", str(page)).exit_code == 0
    assert "plateau: stop: a further round costs" in page.read_text()


def test_rounds_that_are_asked_for_are_run_in_spite_of_a_plateau(stopped: tuple[Path, Result]) -> None:
    config, _ = stopped
    again = ran(config, "run")
    assert again.exit_code == 0
    assert "── round" not in again.stdout
    more = ran(config, "run", "--rounds", "4")
    assert more.exit_code == 0
    assert "goes on, as --rounds says" in more.stdout
    assert "finished: 4 rounds closed" in more.stdout
