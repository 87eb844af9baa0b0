"""Charts as SVG text that stands in a page by itself: no scripts, no fonts or files from elsewhere."""

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from loop.report import RiskBin

INK, QUIET, LINE = "#24313b", "#6d7a84", "#1f6f8b"
FEWEST_BARS = 4
"""Room for this many bars is kept, so that a single one is not a wall."""
DECISIONS: Mapping[str, str] = {"gold": "#d2a429", "silver": "#9aa8b5", "rejected": "#b9513f", "undecided": "#e2ddd0"}


def learning_curve(points: Sequence[Mapping[str, float]]) -> str:
    """Accuracy with its interval against dollars and examples; points have usd, examples, accuracy, low and high."""
    with _style("curve"):
        figure = Figure(figsize=(10.6, 3.3), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.06})
        for axes, name, label in ((left, "usd", "US dollars spent"), (right, "examples", "examples trained on")):
            _curve(axes, [point[name] for point in points], points)
            axes.set_xlabel(label)
        left.set_ylabel("accuracy on test")
        return _svg(figure)


def comparison(curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> str:
    """Mean accuracy against dollars with the range over seeds: dollars are (rounds,), accuracies (seeds, rounds)."""
    with _style("comparison"):
        figure = Figure(figsize=(8.0, 4.2), layout="constrained")
        axes = figure.subplots()
        for name, (usd, accuracy) in curves.items():
            (line,) = axes.plot(usd, accuracy.mean(axis=0), marker="o", markersize=3, label=name.replace("_", " "))
            axes.fill_between(usd, accuracy.min(axis=0), accuracy.max(axis=0), color=line.get_color(), alpha=0.15)
        axes.set_xlabel("US dollars spent (band: range over seeds)")
        axes.set_ylabel("accuracy on test")
        axes.legend(frameon=False)
        return _svg(figure)


def saving(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy that selection gains over random picks after each round, with its interval; above the line it saves."""
    with _style("saving"):
        figure = Figure(figsize=(10.6, 2.6), layout="constrained")
        axes = figure.subplots()
        gains = [each["gain"] for each in rounds]
        below = [each["gain"] - each["low"] for each in rounds]
        above = [each["high"] - each["gain"] for each in rounds]
        axes.axhline(0, color=QUIET, linewidth=1)
        axes.errorbar(
            [str(each["round"]) for each in rounds],
            gains,
            (below, above),
            color=LINE,
            marker="o",
            capsize=4,
            linestyle="",
        )
        axes.margins(x=0.2)
        axes.set_xlabel("round")
        axes.set_ylabel("selected minus random")
        return _svg(figure)


def decisions(rounds: Sequence[Mapping[str, Any]]) -> str:
    """What was decided in each round."""
    with _style("decisions"):
        figure, axes = _half()
        names = [str(each["round"]) for each in rounds]
        bottom = [0] * len(rounds)
        for kind, colour in DECISIONS.items():
            counts = [each[kind] for each in rounds]
            axes.bar(names, counts, 0.6, bottom=bottom, color=colour, label=kind)
            bottom = [low + count for low, count in zip(bottom, counts, strict=True)]
        axes.set_xlabel("round")
        axes.set_ylabel("items")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper center", ncols=4, frameon=False)
        return _svg(figure)


def flags(counts: Mapping[str, int]) -> str:
    """How many flags each check raised."""
    with _style("flags"):
        figure, axes = _half()
        names = sorted(counts, key=lambda name: counts[name])
        bars = axes.barh(names, [counts[name] for name in names], 0.6, color=LINE)
        axes.bar_label(bars, padding=4, color=INK)
        axes.set_xlabel("flags")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False, axis="y")
        axes.set_ylim(len(names) - 0.4 - max(len(names), FEWEST_BARS), len(names) - 0.4)
        return _svg(figure)


def spending(rounds: Sequence[Mapping[str, Any]], limit: float) -> str:
    """Dollars spent in each round on top of what was spent before, under the limit."""
    with _style("spending"):
        figure, axes = _half()
        names = [str(each["round"]) for each in rounds]
        before = [sum(each["usd"] for each in rounds[:number]) for number in range(len(rounds))]
        axes.bar(names, before, 0.6, color="#d5e3e8", label="earlier rounds")
        axes.bar(names, [each["usd"] for each in rounds], 0.6, bottom=before, color=LINE, label="this round")
        axes.axhline(limit, color=DECISIONS["rejected"], linestyle="--", linewidth=1.2, label="limit")
        axes.set_xlabel("round")
        axes.set_ylabel("US dollars")
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
        return _svg(figure)


def risk(bins: Sequence[RiskBin]) -> str:
    """Share that reviewers did not accept against the mean risk; a point's size grows with its count."""
    with _style("risk"):
        figure, axes = _half()
        seen = [each for each in bins if each.reviewed]
        axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1)
        shares = [each.wrong / each.reviewed for each in seen]
        sizes = [30 + 6 * min(each.reviewed, 60) for each in seen]
        axes.scatter([each.expected for each in seen], shares, s=sizes, color=LINE, alpha=0.75, linewidths=0)
        for each, share in zip(seen, shares, strict=True):
            axes.annotate(f"{each.wrong}/{each.reviewed}", (each.expected, share), (9, 5), textcoords="offset points")
        axes.set(xlim=(-0.03, 1.08), ylim=(-0.05, 1.12), xlabel="mean risk", ylabel="share not accepted")
        return _svg(figure)


def _style(name: str) -> AbstractContextManager[None]:
    """How charts look; the name keeps the ids of one chart apart from those of another."""
    return mpl.rc_context(
        {
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 9,
            "svg.fonttype": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": QUIET,
            "axes.labelcolor": INK,
            "xtick.color": QUIET,
            "ytick.color": QUIET,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#e8ebed",
            "text.parse_math": False,
            "svg.hashsalt": name,
        }
    )


def _half() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 3.1), layout="constrained")
    return figure, figure.subplots()


def _curve(axes: Axes, places: Sequence[float], points: Sequence[Mapping[str, float]]) -> None:
    middle = [point["accuracy"] for point in points]
    below = [point["accuracy"] - point["low"] for point in points]
    above = [point["high"] - point["accuracy"] for point in points]
    axes.errorbar(places, middle, (below, above), color=LINE, marker="o", capsize=4, linewidth=1.8, elinewidth=1)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(0, 1.06 * max(places) or 1)


def _svg(figure: Figure) -> str:
    """The figure as an `svg` element."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    found = text.getvalue()
    return found[found.index("<svg") :]
