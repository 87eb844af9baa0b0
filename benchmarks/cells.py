"""A grid of cells, each stored when done: run again with the same file, a benchmark goes on."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console

from connectors.progress import RichProgress

Row = dict[str, Any]


def stored(file: Path) -> list[Row]:
    """The cells of a file; none where there is no file."""
    cells: list[Row] = json.loads(file.read_text(encoding="utf-8"))["cells"] if file.exists() else []
    return cells


def run(
    wanted: Sequence[tuple[Any, ...]],
    names: Sequence[str],
    cells: list[Row],
    run_cell: Callable[..., Row],
    *,
    jobs: int,
    write: Callable[[list[Row]], None],
) -> None:
    """Add the wanted cells that are missing, `jobs` of them side by side, and `write` after each.

    What tells a cell apart stands in its row under these names; `run_cell` is called with it in a process of its own.
    """
    done = {tuple(cell[name] for name in names) for cell in cells}
    todo = [key for key in wanted if key not in done]
    with (
        RichProgress(Console()).bar("cells are run", len(wanted)) as bar,
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool,
    ):
        bar.advance(len(wanted) - len(todo))
        for finished in as_completed([pool.submit(run_cell, *key) for key in todo]):
            cells.append(finished.result())
            write(cells)
            bar.advance()
    write(cells)
