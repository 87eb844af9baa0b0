"""What every benchmark writes: figures with intervals, the machine, the commit, and a hash of the code it measured.

Results that are kept stand in `benchmarks/results`; `benchmarks/README.md` is made from them. Run as
`python -m benchmarks.kept` to make it anew.
"""

import ast
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "benchmarks" / "README.md"
RESAMPLES = 10_000


def figure(value: float, low: float, high: float, unit: str) -> dict[str, Any]:
    """A measured number with its interval."""
    return {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4), "unit": unit}


def ratio(slow: Sequence[float], fast: Sequence[float], unit: str = "x") -> dict[str, Any]:
    """How many times one is faster than the other: ratio of the means, 95 % bootstrap interval over repetitions."""
    chance = np.random.default_rng(0)
    above, below = np.asarray(slow), np.asarray(fast)
    drawn = [
        chance.choice(above, len(above)).mean() / chance.choice(below, len(below)).mean() for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return figure(above.mean() / below.mean(), float(low), float(high), unit)


def write(
    file: Path,
    name: str,
    *,
    settings: Mapping[str, Any],
    figures: Mapping[str, Any],
    sources: Sequence[str],
    cells: Any,
) -> None:
    """Write a benchmark's results."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=False, capture_output=True, text=True
    ).stdout.strip()
    results = {
        "name": name,
        "commit": commit,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "settings": settings,
        "figures": figures,
        "sources": list(sources),
        "code": code_hash(sources),
        "cells": cells,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if file.resolve().parent == RESULTS:
        README.write_text(readme(), encoding="utf-8")


def add(file: Path, *, figures: Mapping[str, Any], cells: Mapping[str, Any], note: str) -> None:
    """Lay figures that were measured alone beside those that a file holds; the hash stays that of its whole run."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    kept["figures"] |= figures
    kept["cells"] |= cells
    kept["settings"]["notes"] = [*kept["settings"].get("notes", []), note]
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if file.resolve().parent == RESULTS:
        README.write_text(readme(), encoding="utf-8")


def readme() -> str:
    """The page about all kept results."""
    found = [
        "# Benchmarks",
        "",
        "Made from `benchmarks/results` by `python -m benchmarks.kept`; intervals of 95 %. `make bench-check` "
        "runs each again in its quick form and fails where a figure no longer holds or its code changed.",
    ]
    for file in sorted(RESULTS.glob("*.json")):
        kept = json.loads(file.read_text(encoding="utf-8"))
        module = ast.parse((ROOT / "benchmarks" / f"{file.stem}.py").read_text(encoding="utf-8"))
        machine = kept["machine"]
        found += [
            *("", f"## {file.stem}", "", ast.get_docstring(module) or "", ""),
            f"Measured {kept['date']} at commit `{kept['commit'][:10]}` on {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_gib']} GiB.",
            *("", "| figure | value | interval |", "|---|---|---|"),
        ]
        for name, each in kept["figures"].items():
            found.append(f"| `{name}` | {each['value']:g} {each['unit']} | {each['low']:g} to {each['high']:g} |")
        notes = kept["settings"].get("notes", [])
        said = "; ".join(f"{name}: {value}" for name, value in kept["settings"].items() if name != "notes")
        found += ["", f"Settings: {said}.", *([""] if notes else []), *(f"- {note}" for note in notes)]
        found += [
            line
            for drawing in sorted(RESULTS.glob(f"{file.stem}.*.svg"))
            for line in ("", f"![{drawing.stem}](results/{drawing.name})")
        ]
    return "\n".join(found) + "\n"


def code_hash(sources: Sequence[str]) -> str:
    """A hash of the files that a benchmark measures, named from the root."""
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
    return digest.hexdigest()


def machine() -> dict[str, Any]:
    """What it ran on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(psutil.virtual_memory().total / 2**30)}


if __name__ == "__main__":
    README.write_text(readme(), encoding="utf-8")
