"""Choosing from large pools: margin, k-center and the sieve, beside scikit-activeml and plain numpy.

Embeddings (64 dimensions, float32) and a linear classifier over 10 classes are given; a batch of 50 is chosen. The
numpy floor is the least arithmetic that gives the same batch. Each way runs in a process of its own, so that its peak
memory is its own. Recall of the sieve is measured on TREC with the encoder student: the share of the 60 items of the
largest explanation divergence that are among the third of the pool with the largest doubt.

Run as `python -m benchmarks.pool --json FILE [--data PATH] [--quick] [--seeds N]`.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.kept import ROOT, figure, ratio, write
from loop.query.acquisition import Candidates, coreset, margin
from loop.query.sieve import sieve

DIMENSIONS, CLASSES, BATCH, PIECE = 64, 10, 50, 8192
SHORT = 10_000
"""Items that the sieve lets through, at most a tenth of the pool."""
SIZES = (10_000, 100_000, 1_000_000)
SOURCES = ["benchmarks/pool.py", "loop/query/acquisition.py", "loop/query/sieve.py"]
Floats = NDArray[np.float32]
Row = dict[str, Any]
Way = Callable[[Floats, Floats], NDArray[np.intp]]


def main() -> None:
    """Measure each way on each size, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="pools of 10,000 and 100,000, one seed for the recall")
    parser.add_argument("--seeds", type=int, default=5, help="students whose sieve is measured")
    parser.add_argument("--one", nargs=3, metavar=("WAY", "SIZE", "TIMES"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(_one(chosen.one[0], int(chosen.one[1]), int(chosen.one[2]))))
        return
    sizes = SIZES[:2] if chosen.quick else SIZES
    cells = [_apart(way, size, 3 if size == SIZES[-1] else 7) for size in sizes for way in WAYS]
    found = {(cell["way"], cell["size"]): cell for cell in cells}
    largest = sizes[-1]
    figures = {
        f"{name}_ratio": ratio(
            found[name, largest]["cpu_seconds"], found[f"floor {name}", largest]["cpu_seconds"], "of the floor"
        )
        for name in ("margin", "kcenter", "sieve")
    }
    for name in ("margin", "kcenter"):
        figures[f"{name}_speedup_peer"] = ratio(
            found[f"peer {name}", largest]["cpu_seconds"], found[name, largest]["cpu_seconds"]
        )
    peak = max(found[name, largest]["peak_gib"] for name in ("margin", "kcenter", "sieve"))
    figures["peak_gib"] = figure(peak, peak, peak, "GiB")
    recalls = [_recall(chosen.data, seed) for seed in range(1 if chosen.quick else chosen.seeds)]
    drawn = np.random.default_rng(0).choice(recalls, (10_000, len(recalls))).mean(axis=1)
    figures["sieve_recall"] = figure(
        float(np.mean(recalls)), *map(float, np.quantile(drawn, [0.025, 0.975])), "of the true top"
    )
    settings = {
        "sizes": list(sizes),
        "dimensions": DIMENSIONS,
        "classes": CLASSES,
        "batch": BATCH,
        "let_through": SHORT,
        "peer": f"scikit-activeml {version('scikit-activeml')}",
        "seeds": len(recalls),
        "recall_by_chance": 1 / 3,
        "time": "CPU seconds of the process, one thread",
    }
    if chosen.json:
        write(chosen.json, "pool", settings=settings, figures=figures, sources=SOURCES, cells=cells)
    table = Table("way", "items", "CPU seconds", "peak GiB", box=None)
    for cell in cells:
        table.add_row(
            cell["way"], f"{cell['size']:,}", f"{np.mean(cell['cpu_seconds']):.3f}", f"{cell['peak_gib']:.2f}"
        )
    console = Console()
    console.print(table)
    for name, each in figures.items():
        console.print(f"{name}: {each['value']} {each['unit']} ({each['low']} to {each['high']})")


def _apart(way: str, size: int, times: int) -> Row:
    """One way in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.pool", "--one", way, str(size), str(times)]
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT, env=alone)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def _one(way: str, size: int, times: int) -> Row:
    chance = np.random.default_rng(0)
    points = chance.standard_normal((size, DIMENSIONS), dtype=np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    head = 4 * chance.standard_normal((DIMENSIONS, CLASSES), dtype=np.float32)
    WAYS[way](points[:1000], head)  # imports are not counted
    seconds = []
    for _ in range(times):
        started = time.process_time()
        chosen = WAYS[way](points, head)
        seconds.append(time.process_time() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"way": way, "size": size, "cpu_seconds": seconds, "peak_gib": round(peak, 3), "first": int(chosen[0])}


# --- ways: embeddings (n, DIMENSIONS) and a linear head give the chosen positions -------------------------------------


def _known(points: Floats, probabilities: Floats) -> Candidates:
    none = np.empty(0, dtype=np.float32)
    count = max(len(points), len(probabilities))
    return Candidates(none, none, probabilities, points, none, none, np.ones(count, dtype=np.float32))


def _shares(points: Floats, head: Floats) -> Floats:
    """Softmax of the linear head, in place."""
    logits = points @ head
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits


def _margin(points: Floats, head: Floats) -> NDArray[np.intp]:
    return margin(_known(points[:0], _shares(points, head)), BATCH, np.random.default_rng(0))


def _floor_margin(points: Floats, head: Floats) -> NDArray[np.intp]:
    top = np.partition(_shares(points, head), -2, axis=1)
    small = top[:, -1] - top[:, -2]
    chosen: NDArray[np.intp] = np.argpartition(small, BATCH)[:BATCH]
    return chosen


def _peer_margin(points: Floats, head: Floats) -> NDArray[np.intp]:
    from skactiveml.classifier import SklearnClassifier  # noqa: PLC0415 - only this way needs it
    from skactiveml.pool import UncertaintySampling  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    model = LogisticRegression()
    model.classes_, model.coef_, model.intercept_ = np.arange(CLASSES), head.T, np.zeros(CLASSES, dtype=np.float32)
    clf = SklearnClassifier(model, classes=range(CLASSES))
    labels = np.full(len(points), np.nan)
    labels[:CLASSES] = range(CLASSES)
    clf.fit(points[:CLASSES], labels[:CLASSES])
    strategy = UncertaintySampling(method="margin_sampling", random_state=0)
    return np.asarray(strategy.query(X=points, y=labels, clf=clf, fit_clf=False, batch_size=BATCH))


def _kcenter(points: Floats, _: Floats) -> NDArray[np.intp]:
    return coreset(_known(points, np.empty((0, 0), dtype=np.float32)), BATCH, np.random.default_rng(0))


def _floor_kcenter(points: Floats, _: Floats) -> NDArray[np.intp]:
    """One product of the embeddings with the latest centre for each pick."""
    norms = np.einsum("ij,ij->i", points, points)
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    chosen, latest = [], 0
    for _ in range(BATCH):
        chosen.append(latest)
        to_it = points @ points[latest]
        to_it *= -2
        to_it += norms
        to_it += norms[latest]
        np.minimum(nearest, to_it, out=nearest)
        nearest[latest] = -1
        latest = int(nearest.argmax())
    return np.array(chosen)


def _peer_kcenter(points: Floats, _: Floats) -> NDArray[np.intp]:
    from skactiveml.pool import CoreSet  # noqa: PLC0415 - only this way needs it

    return np.asarray(CoreSet(random_state=0).query(X=points, y=np.full(len(points), np.nan), batch_size=BATCH))


def _sieve(points: Floats, head: Floats) -> NDArray[np.intp]:
    def scored() -> Iterator[tuple[range, Floats]]:
        for start in range(0, len(points), PIECE):
            piece = points[start : start + PIECE]
            yield range(start, start + len(piece)), 1 - _shares(piece, head).max(axis=1)

    return np.array(sieve(scored(), min(SHORT, len(points) // 10), seed=0), dtype=np.intp)


def _floor_sieve(points: Floats, head: Floats) -> NDArray[np.intp]:
    doubt = 1 - _shares(points, head).max(axis=1)
    size = min(SHORT, len(points) // 10)
    chosen: NDArray[np.intp] = np.argpartition(-doubt, size)[:size]
    return chosen


WAYS: dict[str, Way] = {
    "margin": _margin,
    "floor margin": _floor_margin,
    "peer margin": _peer_margin,
    "kcenter": _kcenter,
    "floor kcenter": _floor_kcenter,
    "peer kcenter": _peer_kcenter,
    "sieve": _sieve,
    "floor sieve": _floor_sieve,
}


def _recall(data: Path, seed: int) -> float:
    """Of the largest divergences of a pool, the share among its items of the largest doubt."""
    import random  # noqa: PLC0415 - this part alone needs the student

    from benchmarks.efficiency import BATCH as TOP  # noqa: PLC0415
    from benchmarks.efficiency import POOL, WORLDS  # noqa: PLC0415
    from connectors.progress import RichProgress  # noqa: PLC0415
    from connectors.wiring import cache_folder  # noqa: PLC0415
    from loop.config import QueryConfig  # noqa: PLC0415
    from loop.query.divergence import divergences, rank_average  # noqa: PLC0415
    from loop.student.trainer import EncoderTrainer  # noqa: PLC0415

    world = WORLDS["trec"][0](data)
    pool = random.Random(f"pool/{seed}").sample(list(world.teacher), POOL)
    trainer = EncoderTrainer(world.student, world.task, cache_folder())
    with tempfile.TemporaryDirectory() as folder:
        quiet = RichProgress(Console(quiet=True))
        trainer.train(pool[: 2 * TOP], seed=seed, folder=Path(folder) / "s", progress=quiet)
        student = trainer.student(Path(folder) / "s")
    left, query = [each.item for each in pool[2 * TOP :]], QueryConfig()
    parts = divergences(left, student, query, seed=seed)
    score = rank_average([each["intra"] for each in parts], [each["inter"] for each in parts], query.intra_weight)
    top = {left[place].key for place in np.argsort(-score, kind="stable")[:TOP]}
    kept = sieve([([item.key for item in left], student.doubt(left))], len(left) // 3, seed=0)
    return len(top & set(kept)) / len(top)


if __name__ == "__main__":
    main()
