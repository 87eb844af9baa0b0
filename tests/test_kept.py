"""The page about the benchmarks says what their kept results say."""

import ast
import json
from types import ModuleType

import pytest

from benchmarks import distil, efficiency, kept, objectives, training
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


def test_cells_of_older_code_are_counted_though_the_file_was_written_with_today_s() -> None:
    sources = ["benchmarks/kept.py"]
    today = kept.code_hash(sources)
    cells = [{"code": today}, {"code": "older"}, {"code": "oldest"}]
    good = {"code": today, "sources": sources, "figures": {}, "cells": cells}
    assert problems(good, {"figures": {}}) == ["2 of 3 cells are of older code; take them out and run it again"]
    assert problems(good | {"cells": cells[:1]}, {"figures": {}}) == []
    assert problems(good | {"cells": [{"seed": 0}, [1, 2]]}, {"figures": {}}) == []
    assert problems(good | {"cells": {"ours": "older"}}, {"figures": {}}) == []


APART = (
    *("dpo", "halving", "handover", "launching", "one_pass", "openvino", "packaged", "problems", "ranks", "seq2seq"),
    *("served", "sharding", "state", "tagger"),
)
"""What of the student these benchmarks do not measure, though what they measure imports it."""


@pytest.mark.parametrize(
    ("benchmark", "unused"),
    [
        (efficiency, ("choosing", "decoder", "distill_step_by_step", "lora", "tree", "white_box", "writer")),
        (training, ("choosing", "encoder", "validation", "white_box")),
        (distil, ("white_box",)),
        (objectives, ("choosing", "encoder", "validation")),
    ],
)
def test_what_is_measured_is_among_the_sources(benchmark: ModuleType, unused: tuple[str, ...]) -> None:
    """Every module of the student that a source imports is a source too."""
    wanted = {
        f"loop/student/{name}.py"
        for source in benchmark.SOURCES
        for name in _of_student((kept.ROOT / source).read_text(encoding="utf-8"))
        if name not in (*APART, *unused)
    }
    assert wanted <= set(benchmark.SOURCES)
    assert len(wanted) >= 8


def _of_student(code: str) -> list[str]:
    """Modules of the student that some code imports."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("loop.student"):
            under = str(node.module).split(".")[2:]
            found += (
                ["/".join(under)]
                if under and under != ["objectives"]
                else ["/".join([*under, each.name]) for each in node.names]
            )
    return found
