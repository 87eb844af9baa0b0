"""Learning curves of whole campaigns side by side, as an SVG file."""

import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

INK, QUIET = "#24313b", "#6d7a84"
STYLE: dict[Any, Any] = {
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
    "svg.hashsalt": "comparison",
}


def comparison(curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> str:
    """Mean accuracy against dollars with the range over seeds: dollars are (rounds,), accuracies (seeds, rounds)."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 4.2), layout="constrained")
        axes = figure.subplots()
        for name, (usd, accuracy) in curves.items():
            (line,) = axes.plot(usd, accuracy.mean(axis=0), marker="o", markersize=3, label=name.replace("_", " "))
            axes.fill_between(usd, accuracy.min(axis=0), accuracy.max(axis=0), color=line.get_color(), alpha=0.15)
        axes.set_xlabel("US dollars spent (band: range over seeds)")
        axes.set_ylabel("accuracy on test")
        axes.legend(frameon=False)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    """The figure as an `svg` element."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    found = text.getvalue()
    return found[found.index("<svg") :]
