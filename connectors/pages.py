"""Turns what the views found into HTML and Markdown. Every text is escaped unless a chart of ours drew it."""

import json
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from connectors.lagging import lagging_text
from connectors.measurements import contamination_text
from connectors.reviewers import accusation_text, agreement_text, anchoring_text, recall_text, told
from connectors.revisions import revision_text
from connectors.status import saving_text, unmeasured_text
from connectors.views import PAGES, STAGES, Views

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"
SPECIAL = re.compile(r"[\\`*_\[\]<>|#&~]")
"""What Markdown would take for more than a character."""
SENTENCES = (
    contamination_text,
    lagging_text,
    saving_text,
    unmeasured_text,
    revision_text,
    agreement_text,
    anchoring_text,
    accusation_text,
    recall_text,
    told,
)


def html(template: str, **values: Any) -> str:
    """A page of HTML."""
    return _HTML.get_template(template).render(values)


def markdown(template: str, **values: Any) -> str:
    """A page of Markdown."""
    return _MARKDOWN.get_template(template).render(values)


def common(views: Views) -> dict[str, Any]:
    """What every page of a run shows."""
    return {
        "run": views.run,
        "place": views.place,
        "notes": views.notes(),
        "teacher": views.config.teacher.model,
        "student": views.config.student.model,
        "pages": PAGES,
    }


def _as_text(value: object) -> str:
    """Nested values as readable JSON."""
    return json.dumps(value, indent=1, ensure_ascii=False)


def _in_markdown(value: object) -> object:
    """A text that Markdown shows as it is, in one line."""
    if not isinstance(value, str):
        return value
    return SPECIAL.sub(lambda found: f"\\{found[0]}", re.sub(r"\s+", " ", value))


def _environment(**settings: Any) -> Environment:
    loader = FileSystemLoader(TEMPLATES)
    made = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **settings)
    made.globals |= {sentence.__name__: sentence for sentence in SENTENCES} | {"stages": STAGES}
    made.filters["tojson_text"] = _as_text
    return made


_HTML = _environment(autoescape=True)
_MARKDOWN = _environment(autoescape=False, finalize=_in_markdown)
