"""What every benchmark writes: figures with intervals, the machine, the commit, and a hash of the code it measured."""

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
