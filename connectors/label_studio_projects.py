"""The projects of a Label Studio board: for each version of the page a first one, and further ones once it is full."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import count
from typing import Any

from label_studio_sdk import LabelStudio
from markdown_it import MarkdownIt

from review.page import Page

ONCE: Any = {"max_retries": 0, "timeout_in_seconds": 300}
"""A POST that is retried is a POST twice; what is missing afterwards is found by listing."""
MODEL_VERSION = "teacher"
"""Names the predictions that fill the boxes and order the queue."""
LONGEST_TITLE = 50
"""Characters that the server takes."""


class Projects:
    """Finds the projects by their titles and makes them: `TITLE vVERSION`, `TITLE vVERSION (2)`, and so on."""

    def __init__(self, server: LabelStudio, title: str, page: Page) -> None:
        self._server = server
        self._page = page
        self._first = _fitted(title, LONGEST_TITLE - len(f" v{page.version}"))
        self._further = _fitted(title, LONGEST_TITLE - len(f" v{page.version} (999)"))
        stems = f"{re.escape(self._first)}|{re.escape(self._further)}"
        self._titles = re.compile(rf"(?:{stems}) v(?P<version>[0-9a-f]{{8}})(?: \((?P<number>\d+)\))?")

    def present(self) -> list[int]:
        """The ids of the projects of this version of the page, in the order in which they fill.

        Where one was made twice the older one counts; the other is empty.
        """
        oldest: dict[int, int] = {}
        for number, project in self._known().get(self._page.version, ()):
            oldest.setdefault(number, project)
        return list(oldest.values())

    def all(self) -> list[list[int]]:
        """The ids of all projects of the title, those of one version of the page together, this one's first."""
        known = self._known()
        others = [version for version in known if version != self._page.version]
        return [[project for _, project in known.get(version, ())] for version in (self._page.version, *others)]

    def some(self) -> list[int]:
        """Those of this version; the first one is made where there is none."""
        return self.present() or [self.make()]

    def make(self) -> int:
        """Make a further project. Where there are two now, the older one is taken, and ours goes: somebody else made
        it meanwhile, or the server did, which carries a request out once more when its SQLite file was locked halfway.
        """
        taken = {number for number, _ in self._known().get(self._page.version, ())}
        number = next(each for each in count(1) if each not in taken)
        made = self._server.projects.create(
            title=self._title(number),
            label_config=self._page.config,
            description="Rationales to review. Made by Preceptor; tasks are added and read by it.",
            expert_instruction=_html(self._page.guidelines),
            show_instruction=bool(self._page.guidelines),
            show_collab_predictions=True,
            model_version=MODEL_VERSION,
            sampling="Uncertainty sampling",  # hands out the lowest score first
            request_options=ONCE,
        )
        same = [project for at, project in self._known().get(self._page.version, ()) if at == number]
        project = min(same, default=int(made.id))
        if project != made.id:
            self._server.projects.delete(id=int(made.id), request_options=ONCE)
        return project

    def _title(self, number: int) -> str:
        if number == 1:
            return f"{self._first} v{self._page.version}"
        return f"{self._further} v{self._page.version} ({number})"

    def _known(self) -> Mapping[str, list[tuple[int, int]]]:
        """Number and id of each project by the version of its page, in order."""
        found: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
        for stem in {self._first, self._further}:
            for each in self._server.projects.list(title=stem, include="id,title"):  # by itself it counts everything
                if title := self._titles.fullmatch(each.title):
                    found[title["version"]].add((int(title["number"] or 1), int(each.id)))
        return {version: sorted(some) for version, some in found.items()}


def _fitted(title: str, longest: int) -> str:
    """The title, or its beginning and a digest of all of it, so that no two titles become one."""
    if len(title) <= longest:
        return title
    digest = hashlib.sha256(title.encode()).hexdigest()[:8]
    return f"{title[: longest - 9]} {digest}"


def _html(guidelines: str) -> str:
    """Markdown as the server shows it; there a line break is a line break even between blocks."""
    shown: str = MarkdownIt("commonmark", {"html": False}).render(guidelines)
    return re.sub(r">\n+<", "><", shown.strip()).replace("\n", " ")
