"""The unit costs that the forecast multiplies, out of the kept results; what is not measured is assumed, and said."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOOKED = 100_000
"""Rows of the export, of the sizes that are measured."""
MILLION = 1e6
Row = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Unit:
    """What one of something takes, with its interval, in words what one is, and where that is from."""

    value: float
    low: float
    high: float
    of: str
    source: str
    is_time: bool = True
    """Whether it is in seconds."""

    def drawn(self, chance: np.random.Generator, runs: int) -> Floats:
        """Values out of the interval, likeliest at the measured one, (runs,)."""
        if self.low == self.high:
            return np.full(runs, self.value)
        return chance.triangular(self.low, self.value, self.high, runs)


def read(folder: Path, student: str, database: str) -> tuple[dict[str, Unit], list[str]]:
    """The unit costs by name, in seconds but where `of` says otherwise; and what is assumed, with the cure.

    Raises:
        SystemExit: there are no results of `benchmarks.units`.
    """
    kept = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}
    if "units" not in kept:
        raise SystemExit(f"{folder}/units.json: no such file; `python -m benchmarks.units --json {folder}/units.json`")
    found: dict[str, Unit] = {}
    missing = []
    for name, take in READERS.items():
        if name in kept:
            machine = kept[name]["machine"]
            source = f"{name}.json at {kept[name]['commit'][:10]}, {machine['cpu']} with {machine['cores']} cores"
            found |= take(kept[name], source, student, database)
        else:
            found |= ASSUMED[name]
            missing.append(
                f"{', '.join(ASSUMED[name])}: not measured yet, assumed; "
                f"`python -m benchmarks.{name} --json benchmarks/results/{name}.json` measures it"
            )
    return found, missing


def _of_units(kept: Row, source: str, student: str, _: str) -> dict[str, Unit]:
    named = {name: kept["figures"][f"{name}_ms.{student}"] for name in STUDENT}
    found = {name: _figure(each, STUDENT[name], source, scale=1e-3) for name, each in named.items()}
    tokens = {name: kept["figures"][f"{name}_tokens"] for name in ("prompt", "reply")}
    return found | {name: _figure(each, f"{name}, in tokens", source, is_time=False) for name, each in tokens.items()}


def _of_ledger(kept: Row, source: str, _: str, database: str) -> dict[str, Unit]:
    each = kept["figures"][f"ops_per_second.{database}.1"]
    return {"book": _inverse(each, "reply, held and settled", source, scale=2)}


def _of_asking(kept: Row, source: str, *_: str) -> dict[str, Unit]:
    return {"rate_share": _figure(kept["figures"]["rate_share"], "allowed request, sent", source, is_time=False)}


def _of_review(kept: Row, source: str, *_: str) -> dict[str, Unit]:
    largest = max(cell["size"] for cell in kept["cells"])
    return {
        way: _spread(
            [each["seconds"] / largest for each in kept["cells"] if (each["way"], each["size"]) == (way, largest)],
            "review task" if way == "push" else "verdict",
            source,
        )
        for way in ("push", "pull")
    }


def _of_export(kept: Row, source: str, *_: str) -> dict[str, Unit]:
    wanted = [
        each["cpu_seconds"] / LOOKED
        for each in kept["cells"]
        if (each["way"], each.get("form"), each.get("size")) == ("ours", "jsonl", LOOKED)
    ]
    return {"export": _spread(wanted, "decided row, as JSONL", source)}


def _of_scale(kept: Row, source: str, _: str, database: str) -> dict[str, Unit]:
    figures = kept["figures"]
    if f"ingest_per_second.{database}" not in figures:
        raise SystemExit("scale.json: no pool of a million was measured; run `python -m benchmarks.scale` whole")
    look = _figure(figures[f"look_seconds.{database}"], "", source, scale=1 / MILLION)
    taken = _inverse(figures[f"ingest_per_second.{database}"], "", source)
    both = (taken.value + look.value, taken.low + look.low, taken.high + look.high)
    return {
        "ingest": Unit(*both, "item taken in, and looked at for the holdout", source),
        "draw": _figure(figures[f"select_seconds.{database}"], "pool item a round", source, scale=1 / MILLION),
    }


def _of_cluster(kept: Row, source: str, *_: str) -> dict[str, Unit]:
    figures = kept["figures"]
    return {
        "overhead": _figure(figures["overhead_share"], "second on one worker of Ray, more", source, is_time=False),
        "two_workers": _figure(figures["speedup_two_workers"], "two workers, times one", source, is_time=False),
    }


def _figure(each: Mapping[str, Any], of: str, source: str, *, scale: float = 1.0, is_time: bool = True) -> Unit:
    return Unit(each["value"] * scale, each["low"] * scale, each["high"] * scale, of, source, is_time)


def _inverse(each: Mapping[str, Any], of: str, source: str, *, scale: float = 1.0) -> Unit:
    """Seconds of what is kept as so many a second."""
    return Unit(scale / each["value"], scale / each["high"], scale / each["low"], of, source)


def _spread(values: Sequence[float], of: str, source: str) -> Unit:
    """The median of repetitions, with the least and the most."""
    return Unit(float(np.median(values)), min(values), max(values), of, source)


STUDENT = {
    "train": "example and epoch",
    "sieve": "item sieved",
    "explain": "candidate explained",
    "embed": "item embedded",
    "learn": "verdict learned from",
    "check": "rationale checked",
    "predict": "holdout item answered",
}
READERS: Mapping[str, Callable[[Row, str, str, str], dict[str, Unit]]] = {
    "scale": _of_scale,
    "units": _of_units,
    "asking": _of_asking,
    "ledger": _of_ledger,
    "review": _of_review,
    "export": _of_export,
    "cluster": _of_cluster,
}


def _assumed(low: float, value: float, high: float, of: str, *, is_time: bool = True) -> Unit:
    return Unit(value, low, high, of, "assumed", is_time)


ASSUMED: Mapping[str, Mapping[str, Unit]] = {
    "scale": {
        "ingest": _assumed(1e-4, 2e-4, 4e-4, "item taken in, and looked at for the holdout"),
        "draw": _assumed(5e-5, 1e-4, 2e-4, "pool item a round"),
    },
    "asking": {"rate_share": _assumed(0.9, 0.95, 1.0, "allowed request, sent", is_time=False)},
    "ledger": {"book": _assumed(5e-3, 1e-2, 2e-2, "reply, held and settled")},
    "review": {
        "push": _assumed(1e-3, 2e-3, 4e-3, "review task"),
        "pull": _assumed(1e-3, 2e-3, 4e-3, "verdict"),
    },
    "export": {"export": _assumed(5e-5, 1e-4, 2e-4, "decided row, as JSONL")},
    "cluster": {
        "overhead": _assumed(0.0, 0.05, 0.1, "second on one worker of Ray, more", is_time=False),
        "two_workers": _assumed(1.6, 1.8, 2.0, "two workers, times one", is_time=False),
    },
}
