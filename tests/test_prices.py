"""What the plan and the next request cost: by the prompts that are sent, and with everything that is paid for."""

import tracemalloc
from pathlib import Path

import pytest
from rich.console import Console

from connectors import campaign
from connectors.plan import PRICED, plan
from connectors.prices import further_request
from connectors.progress import RichProgress
from connectors.recorded_teacher import Recording
from connectors.sources import ingest
from connectors.wiring import Project
from loop.records import Currency, DecisionKind, DemonstrationSet, Item, Split
from loop.stages.demonstrating import Demonstrating
from loop.store import demonstrations, items, pool, rounds
from loop.store.money import Purse
from loop.teacher.prompt import request_for, worst_case
from loop.teacher.send import prompt_type
from tests.builders import NOON, a_number, a_reply, a_round, an_item, decided, id_of, queried
from tests.tiny import tiny_project

STEPS = ["First we count them all.", "2 + 3 = 5"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tiny_project(tmp_path, rounds=1)
    path.write_text(path.read_text().split("[simulated_reviewer]")[0])
    return path


def project_of(config: Path) -> Project:
    return Project(config, RichProgress(Console(quiet=True)))


def set_keys(config: Path, table: str, keys: str) -> None:
    config.write_text(config.read_text().replace(f"[{table}]", f"[{table}]\n{keys}"))


def planned(config: Path, currency: str = "usd") -> dict[str, object]:
    found: dict[str, object] = plan(project_of(config))[currency]
    return found


def a_pool(project: Project, n: int = 12) -> None:
    items.add(project.store, [an_item(f"q{number}") for number in range(n)])


def a_past(project: Project, keys: list[str], steps: list[str], kind: DecisionKind = DecisionKind.GOLD) -> None:
    """A round in which the teacher explained these items, for a thousandth of a dollar each, and people decided."""
    opened = queried(project.store, a_round(project.store, project.config, run="tiny"), keys)
    for key in keys:
        decided(project.store, opened, key, kind, a_reply(project.store, opened, key, steps=steps, answer=5))


def replies_were(project: Project, length: int) -> None:
    """In another run enough replies to the same prompt were so long."""
    purse, config = Purse(project.store, "another"), project.config
    purse.open(10**9, 0)
    kind = prompt_type(request_for(an_item(), config.task, config.teacher, (), 0), "ask")
    with project.store.writing() as session:
        for _ in range(60):
            charge = purse.reserve_in(session, Currency.USD, "ask/1/q1/0/0", 100, prompt_type=kind)
            purse.settle_in(session, charge, 50, output_tokens=length)


def further(project: Project, item: Item) -> int:
    demonstrating = Demonstrating(project.store, "tiny", lambda: pytest.fail("no student is needed"), project.config)
    with project.teacher() as teacher:
        return further_request(project.store, project.config, item, demonstrating, teacher.price)


# --- the plan -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [["So the answer is 5."], ["x" * 5_000]])
def test_what_cannot_be_revised_is_planned_as_what_is_asked(steps: list[str], config: Path) -> None:
    project = project_of(config)
    a_pool(project)
    a_past(project, ["q0"], steps, DecisionKind.UNDECIDED)
    set_keys(config, "teacher", 'revise = "auto"\ndemonstrations = 0')
    assert planned(config)["expected"] == pytest.approx(6 * 0.001)


def test_what_is_revised_is_judged_too(config: Path) -> None:
    project = project_of(config)
    a_pool(project)
    a_past(project, ["q0"], STEPS, DecisionKind.UNDECIDED)
    set_keys(config, "teacher", 'revise = "one_shot"')
    alone = planned(config)
    (config.parent / "judge.jsonl").write_text(Recording(key="q0", question="?", text="none").model_dump_json())
    prices = "input_price = 0.5\noutput_price = 1.0\nmax_steps = 2"
    config.write_text(f'{config.read_text()}[judge]\nmodel = "tiny-judge"\nrecorded = "judge.jsonl"\n{prices}\n')
    assert float(str(planned(config)["low"])) > float(str(alone["high"])) + 6 * 2 * 300 / 1e6


def test_trying_demonstrations_is_in_the_plan_and_not_in_what_items_cost(config: Path) -> None:
    project = project_of(config)
    a_pool(project)
    a_past(project, ["q0", "q1", "q2", "q3"], STEPS)
    tried = planned(config)
    set_keys(config, "teacher", "dev_items = 0")
    untried = planned(config)
    assert [tried["low"], untried["low"], untried["high"]] == pytest.approx([6 * 0.001] * 3)
    assert float(str(tried["expected"])) > float(str(untried["expected"])) + 4 * 800 / 1e6, "two items, two prompts"
    assert "to try demonstrations" in str(tried["source"])


def test_demonstrations_without_steps_are_explained_and_recovered(config: Path) -> None:
    project = project_of(config)
    a_pool(project)
    set_keys(config, "teacher", "dev_items = 0")
    before = planned(config)
    items.add(project.store, [an_item("s", Split.SEED, answer=a_number(7))])
    assert float(str(planned(config)["high"])) > float(str(before["high"])) + 2 * 800 / 1e6


def test_the_worst_case_is_shown_demonstrations_asked_again_and_revised(config: Path) -> None:
    project = project_of(config)
    a_pool(project)
    set_keys(config, "teacher", "dev_items = 0")
    found = [planned(config)]
    items.add(project.store, [an_item("s", Split.SEED, answer=a_number(5), steps=STEPS)])
    found.append(planned(config))
    set_keys(config, "teacher", "confidence = true\nreprompt_below = 0.5")
    found.append(planned(config))
    set_keys(config, "teacher", 'revise = "auto"')
    found.append(planned(config))
    assert ["worst case" in str(each["source"]) for each in found] == [True] * 4
    worst = [float(str(each["expected"])) / 6 for each in found]
    assert worst[0] < worst[1]
    assert worst[1] + 800e-6 < worst[2], "a second reply of 800 tokens at a dollar a million"
    assert worst[2] + 12 * 800e-6 < worst[3], "eleven checks and a finish, or more"


def test_minutes_are_planned_for_what_is_planted(config: Path) -> None:
    project = project_of(config)
    a_pool(project)
    a_past(project, ["q0", "q1", "q2", "q3"], STEPS)
    before = planned(config, "minutes")
    set_keys(config, "review", "planted_share = 0.5")
    assert float(str(planned(config, "minutes")["expected"])) > 1.2 * float(str(before["expected"]))


def test_a_large_pool_is_planned_in_little_memory_and_as_a_small_one(config: Path) -> None:
    project = project_of(config)
    a_pool(project, PRICED + 300)
    replies_were(project, 40)
    learned = further(project, an_item("q1000"))
    tracemalloc.start()
    estimate = planned(config)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * 2**20, "all draws at once take 140 MiB, and twice as much for twice the items"
    assert estimate["expected"] == pytest.approx(6 * (learned - 8) / 1e6, rel=0.01), "8 tokens of room are held"


# --- whether a further request fits ---------------------------------------------------------------------------------


def test_a_round_opens_while_a_request_fits_by_the_lengths_learned(config: Path) -> None:
    project = project_of(config)
    settings = {"pool": project.config.pool, "task": project.config.task, "progress": project.progress}
    ingest([config.parent / "pool.jsonl"], project.store, split=Split.POOL, **settings)
    replies_were(project, 20)
    item = pool.first(project.store, "tiny", project.config)
    assert item is not None
    with project.teacher() as teacher:
        full = worst_case(request_for(item, project.config.task, project.config.teacher, (), 0), teacher.price)
    learned = further(project, item)
    assert learned < full - 700
    config.write_text(config.read_text().replace("usd = 1.0", f"usd = {(learned + 50) / 1e6:.6f}"))
    campaign.run(project_of(config), rounds_wanted=1, wait=False)
    assert rounds.current(project.store, "tiny") is not None
    assert Purse(project.store, "tiny").balances()[Currency.USD].spent > 0


def test_a_further_request_is_shown_the_demonstrations_in_force(config: Path) -> None:
    project = project_of(config)
    a_pool(project)
    a_past(project, ["q0", "q1"], STEPS)
    bare = further(project, an_item("q5"))
    [current] = rounds.all_rounds(project.store, "tiny")
    members = [{"key": key, "steps": STEPS, "answer": a_number(5)} for key in ("q0", "q1")]
    row = DemonstrationSet(
        run="tiny", round_id=id_of(current), hash="h", groups=[members], taken=True, reason="", created_at=NOON
    )
    demonstrations.keep_set(project.store, row)
    assert further(project, an_item("q5")) > bare + sum(len(step) for step in STEPS)
