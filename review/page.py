"""The page that reviewers work on, and the guidelines that stand before it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from loop.config import TaskConfig
from review.task import KEYS, LETTERS, STUDENT_BOX, AnswerForm, form_of

FOLDER = Path(__file__).parent
COLOURS = ("#1971c2", "#2f9e44", "#e8590c", "#9c36b5", "#0c8599", "#e03131")


@dataclass(frozen=True)
class Page:
    """A labelling page with the guidelines shown as its instructions."""

    config: str
    """Label Studio's labelling configuration."""
    guidelines: str = ""
    """Markdown."""

    @cached_property
    def version(self) -> str:
        """Names page and guidelines together; whatever changes in them changes it."""
        return hashlib.sha256("\0".join((self.config, self.guidelines)).encode()).hexdigest()[:8]


def review_page(task: TaskConfig, *, student_answers: bool = False) -> Page:
    """The page on which rationales for this task are judged; it may have a hidden box for what the student answers."""
    form = form_of(task)
    config = _filled(
        "interface.xml",
        keys=KEYS,
        letters=LETTERS,
        colours=COLOURS,
        labels=list(task.labels),
        spans=form is AnswerForm.MARKS,
        choices=form is AnswerForm.CHOICES,
        student_box=STUDENT_BOX if student_answers else "",
    )
    return Page(config, _guidelines(task))


def holdout_page() -> Page:
    """The page on which people answer questions for the holdout."""
    return Page(_filled("holdout.xml"))


def _guidelines(task: TaskConfig) -> str:
    """The versioned guidelines, with the labels of the task."""
    text = (FOLDER / "guidelines.md").read_text(encoding="utf-8")
    if not task.labels:
        return text
    labels = "\n".join(f"- **{label}**: {about}" for label, about in task.labels.items())
    return f"{text}\n### The labels of this task\n\n{labels}\n"


def _filled(name: str, **values: object) -> str:
    pages = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
    return pages.get_template(name).render(**values)
