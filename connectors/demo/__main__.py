"""Writes the demo's world: `python -m connectors.demo FOLDER`. What is there already is left alone."""

from pathlib import Path
from typing import Annotated

import typer

from connectors.demo.teacher import write_world


def make(
    folder: Path,
    shuffled: Annotated[bool, typer.Option(help="Give each item another item's reply, as a control.")] = False,
) -> None:
    """Write word problems, the recorded replies of a simulated teacher, and the truth for the simulated reviewer."""
    if (folder / "truth.jsonl").exists():
        typer.echo(f"{folder} has its word problems already")
        return
    write_world(folder, shuffled=shuffled)
    typer.echo(f"wrote word problems and the recorded replies of a simulated teacher to {folder}")


if __name__ == "__main__":
    typer.run(make)
