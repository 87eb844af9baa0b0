"""The page about the benchmarks says what their kept results say."""

import json

from benchmarks import kept
from benchmarks.check import problems


def test_the_page_is_made_from_the_kept_results() -> None:
    assert kept.README.read_text(encoding="utf-8") == kept.readme()


def test_every_kept_figure_lies_in_its_interval() -> None:
    files = list(kept.RESULTS.glob("*.json"))
    assert files
    for file in files:
        for name, each in json.loads(file.read_text(encoding="utf-8"))["figures"].items():
            assert each["low"] <= each["value"] <= each["high"], (file.name, name)


def test_a_changed_source_or_a_figure_apart_is_a_problem() -> None:
    sources = ["benchmarks/kept.py"]
    figure = kept.figure(2.0, 1.0, 3.0, "x")
    good = {"code": kept.code_hash(sources), "sources": sources, "figures": {"ratio": figure}}
    assert problems(good, {"figures": {"ratio": kept.figure(2.9, 2.8, 3.5, "x")}}) == []
    assert "its code changed" in problems(good | {"code": "other"}, {"figures": {"ratio": figure}})[0]
    assert "kept 2.0" in problems(good, {"figures": {"ratio": kept.figure(9.0, 8.0, 9.5, "x")}})[0]
    assert problems(good, {"figures": {}}) == []
