"""Pools at the edge of what selection expects are worked off like any other."""

import json
from pathlib import Path

import numpy as np
import pytest

from loop.config import Config, QueryConfig
from loop.query import racing, select
from loop.query.acquisition import ACQUISITIONS
from tests.builders import an_item
from tests.test_campaign import ingested, preceptor, rows
from tests.tiny import tiny_project


def changed(config: Path, **rows_by_key: dict[str, object]) -> None:
    """Give the pool items of these keys other fields; drop the others."""
    file = config.parent / "pool.jsonl"
    found = {row["key"]: row for row in map(json.loads, file.read_text().splitlines())}
    lines = [json.dumps(found[key] | fields) for key, fields in rows_by_key.items()]
    file.write_text("\n".join(lines) + "\n")


def test_a_pool_smaller_than_the_batch_is_asked_whole(tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    config.write_text(config.read_text().replace("batch_size = 6", "batch_size = 50"))
    done = preceptor("run", config=ingested(config))
    assert done.returncode == 0, done.stderr
    assert rows(config, "select count(distinct item_key), count(*) from query") == [(12, 12)]


def test_one_item_is_a_campaign(tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    changed(config, i1={})
    done = preceptor("run", config=ingested(config))
    assert done.returncode == 0, done.stderr
    assert rows(config, "select item_key, kind from decision") in ([("i1", "GOLD")], [("i1", "SILVER")])


def test_a_domain_of_one_item_does_not_stop_the_mixture(tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    keys = [f"i{number}" for number in range(12)]
    changed(config, **{key: {"domain": "alone" if key == "i4" else "many"} for key in keys})
    config.write_text(config.read_text().replace("batch_size = 6", "batch_size = 6\ndomain_share = 0.5"))
    done = preceptor("run", config=ingested(config))
    assert done.returncode == 0, done.stderr
    assert rows(config, "select count(distinct item_key) from query") == [(12,)]


def test_a_task_of_one_label_is_refused_with_the_cure(tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    config.write_text(config.read_text().replace('answer = "number"', 'answer = "label"\nlabels = { only = "it" }'))
    done = preceptor("doctor", config=config)
    assert done.returncode != 0
    assert "at least two entries in [task.labels]" in " ".join((done.stderr + done.stdout).split())


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_scores_that_are_no_numbers_come_last_and_stop_nothing(name: str) -> None:
    items = [an_item(f"q{number}") for number in range(6)]
    query = QueryConfig.model_validate({"acquisition": name, "batch_size": 3})
    broken = float("nan")
    parts = [
        {
            "intra": broken if number < 3 else 0.5,
            "inter": broken if number < 3 else 0.5,
            "probabilities": [broken, broken] if number < 3 else [0.6, 0.4],
        }
        for number in range(6)
    ]
    vectors = np.eye(6, dtype=np.float32)
    vectors[:3] = np.nan
    found = select.known(parts, vectors, np.zeros((0, 6)), np.zeros(0), np.ones(6), query)
    batch = select.compose(1, select.best(items, found, query, seed=1), items, Config(query=query), seed=1)
    assert len({each.item_key for each in batch}) == 3
    if name in ("explanation_divergence", "entropy", "least_confidence", "margin"):
        assert {each.item_key for each in batch} == {"q3", "q4", "q5"}


def test_items_all_alike_fill_the_batch_and_are_raced_to_the_end() -> None:
    items = [an_item(f"q{number}", question="What is 1 + 1 ?") for number in range(8)]
    query = QueryConfig(batch_size=3, random_share=0)
    part = {"intra": 0.5, "inter": 0.5, "answer": "a", "sampled_answers": ["a"]}
    assert racing.undecided([part] * 8, 1, np.ones(8), query).all()
    found = select.known([part] * 8, np.zeros((8, 2)), np.zeros((0, 2)), np.zeros(0), np.ones(8), query)
    batch = select.compose(1, select.best(items, found, query, seed=1), items, Config(query=query), seed=1)
    assert len({each.item_key for each in batch}) == 3
