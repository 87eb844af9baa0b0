"""The report of a run: the dashboard's pages as one HTML file that opens anywhere, and a summary in Markdown."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from connectors import atomic
from connectors.history import history
from connectors.pages import STATIC, common, html, markdown
from connectors.side_by_side import CORRECTED, Comparison, comparisons
from connectors.views import PAGES, Views
from loop.config import Config
from loop.errors import PreceptorError
from loop.store import counting
from loop.store.database import Store

MOST_CORRECTED = 20
"""So many corrected items are shown, the last ones: the file is to be sent around."""


def write_report(store: Store, run: str, config: Config, path: Path) -> None:
    """Write the HTML page.

    Raises:
        PreceptorError: the file cannot be written.
    """
    _write(path, page(store, run, config))


def write_summary(store: Store, run: str, config: Config, path: Path) -> None:
    """Write the summary in Markdown.

    Raises:
        PreceptorError: the file cannot be written.
    """
    _write(path, summary(store, run, config))


def page(store: Store, run: str, config: Config) -> str:
    """The page as text; it says itself by what hash its style is allowed."""
    style = (STATIC / "dashboard.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    shown = _shown(store, run, config)
    return html(
        "report.html.j2", **shown, style=style, style_hash=digest, home=None, corrected=_corrected(store, run)
    )  # fmt: skip


def summary(store: Store, run: str, config: Config) -> str:
    """The summary as text."""
    return markdown("report.md.j2", **_shown(store, run, config)).strip() + "\n"


def _shown(store: Store, run: str, config: Config) -> dict[str, Any]:
    views = Views(store, run, config)
    return {**common(views), "views": {each.name: each.view(views) for each in PAGES}}


def _corrected(store: Store, run: str) -> Sequence[tuple[Mapping[str, Any], Comparison]]:
    """The items that people corrected last, with the round in which they did."""
    pasts = [history(store, run, key) for key in counting.corrected(store, run, MOST_CORRECTED)]
    found = [(past, each) for past in pasts for each in comparisons(past) if each.columns[-1].name == CORRECTED]
    return found[:MOST_CORRECTED]


def _write(path: Path, text: str) -> None:
    try:
        atomic.write_text(path, text)
    except OSError as error:
        raise PreceptorError(f"{path}: cannot be written: {error.strerror}") from error
