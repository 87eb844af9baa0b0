"""Makes what the demo needs: `python -m connectors.demo FOLDER`. What is there already is left alone."""

from pathlib import Path

import typer
from rich.console import Console

from connectors.demo.teacher import write_world
from connectors.progress import RichProgress


def make(folder: Path, shuffled: bool = False) -> None:
    """Write the demo's problems, recorded replies and truth, and train its small student's base."""
    from connectors.demo.warm_student import make_warm_student  # noqa: PLC0415 - torch takes seconds to load

    progress = RichProgress(Console())
    if not (folder / "truth.jsonl").exists():
        write_world(folder, shuffled=shuffled)
        progress.say(f"wrote word problems and the recordings of a simulated teacher to {folder}")
    student = folder / "warm-student"
    if not student.exists():
        progress.say("training the base of the demo's small student on easier problems (once)")
        make_warm_student(student, progress)


if __name__ == "__main__":
    typer.run(make)
