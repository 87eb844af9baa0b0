"""What mkdocs cannot do by itself: pages from outside `docs`, decisions in the navigation, formulas as MathML."""

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("benchmarks/README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/results/*.svg")
"""Files of the repository that the site shows too."""
LOADED = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>|<\w+[^>]*class=\"mermaid\""
)
"""What a page would fetch from elsewhere."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Decisions stand in the navigation by their titles, and ```math blocks become MathML."""
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    titled = [{_title(each): f"decisions/{each.name}"} for each in decisions]
    config.nav = [{"Decisions": titled} if entry == {"Decisions": "decisions"} else entry for entry in config.nav]
    config.mdx_configs["pymdownx.superfences"] = {
        "custom_fences": [{"name": "math", "class": "math", "format": _formula}]
    }
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Pages and pictures from outside the folder."""
    for each in (found for pattern in OUTSIDE for found in sorted(ROOT.glob(pattern))):
        files.append(File.generated(config, each.relative_to(ROOT).as_posix(), abs_src_path=str(each)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links that cross the border of the folder lead to where the site has the page."""
    if (ROOT / page.file.src_uri).is_file():  # from outside
        return re.sub(r"\]\((\.\./)*docs/", "](", markdown)
    up = "../" * page.file.src_uri.count("/")
    return markdown.replace(f"](../{up}", f"]({up}")


def on_post_build(config: MkDocsConfig) -> None:
    """Nobody who reads the site is told on: no page may fetch anything from elsewhere."""
    for page in Path(config.site_dir).rglob("*.html"):
        if found := LOADED.search(page.read_text(encoding="utf-8")):
            raise PluginError(f"{page}: would fetch {found[0]}")


def _title(decision: Path) -> str:
    return f"{decision.name[:4]} {decision.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}"


def _formula(source: str, *_: Any, **__: Any) -> str:
    return f'<div class="math">{convert(source, display="block")}</div>'
