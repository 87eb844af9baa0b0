"""Pools at the edge of what selection expects are worked off like any other."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from loop.config import Config, QueryConfig
from loop.query import racing, select
from loop.query.acquisition import ACQUISITIONS
from loop.records import Item
from loop.store import items as store_items
from loop.store import rounds
from tests.builders import a_round, a_store, an_item, id_of
from tests.forked import preceptor
from tests.test_campaign import ingested, rows
from tests.test_divergence import WrittenStudent
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
    batch = select.compose(
        1, select.best(items, found, query, seed=1), select.Pool(len(items), items), Config(query=query), seed=1
    )
    assert len({each.item_key for each in batch}) == 3
    if name in ("explanation_divergence", "entropy", "least_confidence", "margin"):
        assert {each.item_key for each in batch} == {"q3", "q4", "q5"}


@pytest.mark.parametrize("name", ["explanation_divergence", "entropy", "margin", "least_confidence", "badge"])
def test_an_item_without_a_score_is_never_the_most_uncertain(name: str) -> None:
    items = [an_item(f"q{number}") for number in range(6)]
    query = QueryConfig.model_validate({"acquisition": name, "batch_size": 3, "random_share": 0})
    sure = {"intra": 0.1, "inter": 0.1, "probabilities": [0.9, 0.1]}
    found = select.known([{}] * 3 + [sure] * 3, np.eye(6), np.zeros((0, 6)), np.zeros(0), np.ones(6), query)
    assert {item.key for item in select.best(items, found, query, seed=1)[:3]} == {"q3", "q4", "q5"}


def test_where_no_score_is_a_number_the_batch_is_filled_all_the_same() -> None:
    items = [an_item(f"q{number}") for number in range(6)]
    query = QueryConfig(batch_size=3)
    found = select.known([{}] * 6, np.eye(6), np.zeros((0, 6)), np.zeros(0), np.ones(6), query)
    assert sorted(item.key for item in select.best(items, found, query, seed=1)) == [item.key for item in items]


class Broken(WrittenStudent):
    """A student whose training went wrong: of one item it says that nothing is probable at all."""

    def probabilities(self, items: Sequence[Item]) -> list[list[float]]:
        return [[math.nan, math.nan] if item.key == "q0" else [0.6, 0.4] for item in items]


def test_a_score_that_is_no_number_can_be_stored_and_says_nothing(tmp_path: Path) -> None:
    store, pool = a_store(tmp_path), [an_item("q0"), an_item("q1")]
    store_items.add(store, pool)
    opened = a_round(store)
    rows = select.score_chunk(id_of(opened), 0, pool, Broken({}), QueryConfig(acquisition="margin"), seed=0)
    rounds.keep_scores(store, rows)
    assert [(row.score, row.parts) for row in rounds.scores(store, id_of(opened))] == [
        (0.0, {}),
        (0.4, {"probabilities": [0.6, 0.4]}),
    ]


def test_items_all_alike_fill_the_batch_and_are_raced_to_the_end() -> None:
    items = [an_item(f"q{number}", question="What is 1 + 1 ?") for number in range(8)]
    query = QueryConfig(batch_size=3, random_share=0)
    part = {"intra": 0.5, "inter": 0.5, "answer": "a", "sampled_answers": ["a"]}
    assert racing.undecided([part] * 8, 1, np.ones(8), query).all()
    found = select.known([part] * 8, np.zeros((8, 2)), np.zeros((0, 2)), np.zeros(0), np.ones(8), query)
    batch = select.compose(
        1, select.best(items, found, query, seed=1), select.Pool(len(items), items), Config(query=query), seed=1
    )
    assert len({each.item_key for each in batch}) == 3
