"""A whole campaign through the command, on the tiny project."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from connectors.progress import RichProgress
from connectors.wiring import Project
from tests import databases
from tests.forked import preceptor
from tests.tiny import tiny_project

PRECEPTOR = str(Path(sys.executable).parent / "preceptor")


def ingested(config: Path) -> Path:
    """The project with its items taken in."""
    for split in ("holdout", "pool"):
        file = str(config.parent / f"{split}.jsonl")
        assert preceptor("ingest", file, "--split", split, config=config).returncode == 0
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose campaign is over."""
    config = ingested(tiny_project(tmp_path_factory.mktemp("campaign")))
    done = preceptor("run", config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    return config


def rows(config: Path, query: str) -> list[tuple[object, ...]]:
    """What the database holds, read from outside."""
    return databases.rows(config.parent / "preceptor.db", query)


def test_all_twelve_items_are_decided_and_paid_once(finished: Path) -> None:
    assert len(rows(finished, "select * from decision")) == 12
    assert len(rows(finished, "select * from reply")) == 12
    [(tried,)] = rows(finished, "select count(*) from trial")
    assert 0 < tried <= 10
    settled = "select count(*) from charge where currency='USD' and state='SETTLED'"
    assert rows(finished, settled) == [(12 + int(str(tried)),)]
    spent, reserved = rows(finished, "select spent, reserved from balance where currency='USD' and scope=''")[0]
    assert spent == rows(finished, "select sum(settled) from charge where currency='USD'")[0][0]
    assert reserved == 0


def test_wrong_sums_do_not_become_gold_or_silver(finished: Path) -> None:
    joined = "select cast(r.steps as varchar) from decision d join rationale r on r.id = d.rationale_id"
    for (steps,) in rows(finished, f"{joined} where d.kind in ('GOLD', 'SILVER')"):
        left, right = json.loads(str(steps))[0].split("=")
        assert sum(int(part) for part in left.split("+")) == int(right.strip(" ."))


def test_later_rounds_learn_their_risk_from_the_verdicts_of_earlier_ones(finished: Path) -> None:
    fits = rows(finished, "select round_id, reviewed, cast(weights as varchar) from riskfit order by round_id")
    assert fits[0][1:] == (0, "{}")
    judged = rows(finished, "select t.round_id, count(distinct t.rationale_id) from reviewtask t group by t.round_id")
    assert [each[1] for each in fits] == [sum(int(str(n)) for at, n in judged if at < each[0]) for each in fits]
    assert "arithmetic" in json.loads(str(fits[-1][2]))


def test_a_finished_run_says_so_again(finished: Path) -> None:
    again = preceptor("run", config=finished)
    assert again.returncode == 0
    assert "finished" in again.stdout


def test_status_keeps_its_contract(finished: Path) -> None:
    status = json.loads(preceptor("status", "--json", config=finished).stdout)
    assert {"run", "round", "stage", "waiting_for", "budget", "items", "rounds"} <= set(status)
    assert status["items"]["queried"] == 12
    assert [each["round"] for each in status["rounds"]] == [1, 2]
    assert {"accuracy", "low", "high", "n"} <= set(status["rounds"][1]["student"])


def test_same_seed_same_decisions(finished: Path, tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path / "again"))
    assert preceptor("run", config=config).returncode == 0
    query = "select item_key, kind, reason, round_id from decision order by id"
    assert rows(config, query) == rows(finished, query)
    query = "select item_key, answer from prediction order by checkpoint_id, item_key"
    assert rows(config, query) == rows(finished, query)


def test_a_run_without_reviewers_waits_with_its_own_exit_code(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path))
    config.write_text(config.read_text().split("[simulated_reviewer]")[0])
    waiting = preceptor("run", config=config)
    assert waiting.returncode == 3
    assert "waits for reviewers" in waiting.stdout


def test_a_spent_budget_has_its_own_exit_code(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path, usd=0.0))
    done = preceptor("run", config=config)
    assert done.returncode == 4
    assert "budget.usd" in done.stdout
    assert rows(config, "select count(*) from charge") == [(0,)]


def test_an_unknown_key_is_named_with_the_nearest_known_one(tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    config.write_text(config.read_text().replace("batch_size = 6", "batch_sise = 6"))
    done = preceptor("run", config=config)
    assert done.returncode == 1
    assert "query.batch_sise: unknown key; did you mean `batch_size`?" in done.stderr


def test_a_missing_model_is_named_with_the_cure(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path))
    config.write_text(config.read_text().replace('model = "model"', 'model = "no-such-model"'))
    done = preceptor("run", config=config)
    assert done.returncode == 1
    assert "student.model" in done.stderr
    assert rows(config, "select count(*) from charge") == [(0,)]


def test_the_second_of_two_runs_says_who_works_and_leaves(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path))
    script = Path(__file__).with_name("killed_run.py")
    holder = subprocess.Popen([sys.executable, str(script), str(config), "hold", ""], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "holding"
    second = preceptor("run", config=config)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert second.returncode == 1
    assert f"process {holder.pid}" in second.stderr


def test_seed_items_start_the_student_so_that_the_first_round_is_no_cold_start(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path))
    seeds = tmp_path / "seeds.jsonl"
    row = {"question": "What is 7 + 8 ?", "answer": 15, "rationale": ["7 + 8 = 15 ."]}
    seeds.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert preceptor("ingest", str(seeds), "--split", "seed", config=config).returncode == 0
    done = preceptor("run", "--rounds", "1", config=config)
    assert done.returncode == 0, done.stderr
    [(said,)] = rows(config, "select selection from round")
    assert said.startswith("explanation divergence of 12 candidates: 5 picked to cover what is doubted, of which ")
    assert rows(config, "select examples from checkpoint") == [(7,)]


def test_a_change_of_the_task_in_mid_campaign_is_refused(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path, rounds=1))
    assert preceptor("run", config=config).returncode == 0
    config.write_text(config.read_text().replace("[task]", '[task]\ninstructions = "Guess."'))
    done = preceptor("run", "--rounds", "2", config=config)
    assert done.returncode == 1
    assert "task.instructions" in done.stderr


def test_a_wrong_teacher_is_repaired_in_mid_round(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path, rounds=1))
    right = config.read_text()
    config.write_text(right.replace('"tiny-teacher"', '"tiny-teecher"').replace("batch_size = 6", "batch_size = 5"))
    refused = preceptor("run", config=config)
    assert refused.returncode == 1
    assert "tiny-teecher" in refused.stderr
    assert rows(config, "select count(*) from reply") == [(0,)]

    config.write_text(right)
    done = preceptor("run", config=config)

    assert done.returncode == 0, done.stderr
    assert "teacher.model: tiny-teecher -> tiny-teacher" in done.stdout
    assert rows(config, "select count(*) from reply") == [(5,)]
    assert rows(config, "select spent > 0, reserved from balance where currency='USD' and scope=''") == [(1, 0)]


def test_a_real_students_explanations_are_revised_or_explained_anew(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path))
    config.write_text(config.read_text().replace('model = "tiny-teacher"', 'model = "tiny-teacher"\nrevise = "auto"'))
    done = preceptor("run", config=config)
    assert done.returncode == 0, done.stderr
    assert "items are explained anew" in " ".join(done.stdout.split())
    assert rows(config, "select count(*) from rationale where author = 'TEACHER' and round_id = 2") == [(6,)]


def test_a_change_of_the_task_in_mid_round_is_refused(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path, rounds=1))
    config.write_text(config.read_text().split("[simulated_reviewer]")[0])
    assert preceptor("run", config=config).returncode == 3
    config.write_text(config.read_text().replace("[task]", '[task]\ninstructions = "Guess."'))
    done = preceptor("run", config=config)
    assert done.returncode == 1
    assert "task.instructions" in done.stderr


def test_a_waiting_run_says_where_people_are_needed_and_goes_on_when_they_are_done(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path, rounds=1))
    text = config.read_text()
    config.write_text(text.split("[simulated_reviewer]")[0].replace("[review]", "[review]\npoll_seconds = 1.0"))
    with subprocess.Popen(
        [PRECEPTOR, "run", "--wait", "--config", str(config)], stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert any("waits for reviewers at" in line for line in run.stdout)
        [board] = (tmp_path / "runs" / "tiny").glob("fake-board-*.json")
        with_truth = tmp_path / "truth.toml"
        with_truth.write_text(text)
        project = Project(with_truth, RichProgress(Console(quiet=True)))
        reviewer = project.simulated_reviewer()
        assert board.exists()
        assert reviewer is not None
        assert reviewer.work() > 0
        assert "finished" in run.stdout.read()
    assert run.returncode == 0


def certifying(folder: Path) -> Path:
    """A project in which a quarter of the items is reviewed twice for certificates, by people who often err."""
    config = ingested(tiny_project(folder, sums=72, rounds=2))
    text = (
        config.read_text()
        .replace("batch_size = 6", "batch_size = 36")
        .replace("audit_share = 0.2", "audit_share = 0.5")
    )
    text = text.replace("certify_share = 0.0", "certify_share = 0.8").replace("error_rate = 0.0", "error_rate = 0.1")
    config.write_text(text + "[acceptance]\nalpha = 0.3\ndelta = 0.2\n")
    return config


def test_certifying_audits_are_reviewed_blind_held_back_and_released_by_what_they_certify(tmp_path: Path) -> None:
    config = certifying(tmp_path)
    assert preceptor("run", "--rounds", "1", config=config).returncode == 0
    certify = {key for (key,) in rows(config, "select item_key from query where certify")}
    reviewed = (
        "select r.item_key, count(*) from reviewtask t join rationale r on r.id = t.rationale_id where t.slot < 2"
    )
    assert {key for key, n in rows(config, f"{reviewed} group by r.item_key") if n == 2} == certify
    contradicted = rows(
        config,
        "select count(*) from (select rationale_id from verdict where slot < 2 group by rationale_id"
        " having count(distinct kind) > 1) as contradicted",
    )
    assert rows(config, "select count(*) from verdict where slot = 2") == contradicted != [(0,)]
    promised = json.loads(preceptor("certificate", "--json", config=config).stdout)
    assert promised["audits"]["certifying"] == len(certify)
    (look,) = promised["looks"]
    assert look["threshold"] is not None
    decided = rows(config, "select item_key from decision where reason like '%released by the certificate%'")
    assert {key for (key,) in decided} == certify
    assert promised["audits"]["held"] == 0

    assert preceptor("run", "--rounds", "2", config=config).returncode == 0
    first, second = rows(config, "select base, weights, learned_in from riskfit order by round_id")
    assert first[2] is None
    assert second == (*first[:2], 1)
    certified = rows(config, "select count(*) from decision where kind = 'SILVER' and certified and round_id = 2")
    assert certified != [(0,)]
    assert rows(config, "select count(*) from decision where kind = 'SILVER' and certified and round_id = 1") == [(0,)]
    held = {key for (key,) in rows(config, "select item_key from query where certify and round_id = 2")}
    decided = rows(config, "select item_key from decision where round_id = 2")
    assert held
    assert not held & {key for (key,) in decided}
    issued = preceptor("certificate", "--issue", config=config)
    assert f"{len(held)} audits are released" in issued.stdout
    assert preceptor("export", str(tmp_path / "out"), config=config).returncode == 0
    exported = [json.loads(line) for line in (tmp_path / "out" / "examples.jsonl").read_text().splitlines()]
    assert any(each["certified"] for each in exported)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["promises"]["export"]["audited"] > 0


def test_the_plan_tells_the_worst_case_first_and_then_what_was_learned(tmp_path: Path) -> None:
    config = ingested(tiny_project(tmp_path, rounds=1))
    before = json.loads(preceptor("plan", "--json", config=config).stdout)
    assert "worst case" in before["usd"]["source"]
    assert preceptor("run", config=config).returncode == 0
    after = json.loads(preceptor("plan", "--json", config=config).stdout)
    assert after["usd"]["expected"] < before["usd"]["expected"]
    assert 0 < after["usd"]["low"] <= after["usd"]["expected"] <= after["usd"]["high"]
    assert after["left"]["usd"] < 1.0
    assert after["promises"]["missing"] == {"export": 45, "threshold": 55}
    shown = preceptor("plan", config=config).stdout
    assert "audits without an error still missing to certify 5%: 45 for an export, 55 for a threshold" in shown
