"""Label Studio as the board. Only this module reads and writes its projects."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from markdown_it import MarkdownIt

from loop.errors import BoardDown, BoardRefused
from review.board import BoardTask, OpenTask, RawVerdict, Result
from review.page import Page

ONCE: Any = {"max_retries": 0, "timeout_in_seconds": 300}
"""A POST that is retried is a POST twice; what is missing afterwards is found by listing."""
PIECE = 250
OVERLAP = timedelta(seconds=5)
MODEL_VERSION = "teacher"
LONGEST_TITLE = 50
"""Characters that the server takes."""


class LabelStudioBoard:
    """One project per title and page version (`review.board.Board`); tasks are known by the uid in their data."""

    def __init__(self, url: str, token: str, *, title: str, page: Page, name: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._name = name or f"label-studio {self._url}"
        self._page = page
        self._all_versions = _fitted(title, LONGEST_TITLE - len(f" v{page.version}"))
        self._title = f"{self._all_versions} v{page.version}"
        self._http = httpx.Client(trust_env=False, timeout=60.0)
        self._client = LabelStudio(base_url=self._url, api_key=token, httpx_client=self._http)
        self._project: int | None = None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def name(self) -> str:
        """The server's address stands for the board; a local one keeps its name when its port changes."""
        return self._name

    def project(self) -> str:
        """The project's id; made where the server has none of this title."""
        with self._told():
            if self._project is None:
                self._project = self._find() or self._make()
            return str(self._project)

    def address(self) -> str:
        """Where the project hands out its tasks."""
        return f"{self._url}/projects/{self.project()}/data?labeling=1"

    def projects(self) -> list[str]:
        """The ids of the projects of this title, whatever the page's version."""
        version = re.compile(rf"{re.escape(self._all_versions)} v[0-9a-f]{{8}}")
        with self._told():
            listed = self._client.projects.list(title=self._all_versions)
            return [str(each.id) for each in listed if version.fullmatch(each.title)]

    def put(self, tasks: Sequence[BoardTask]) -> Mapping[str, str]:
        """Import what the project lacks; after an error look at what landed and go on from there."""
        with self._told():
            self._project = self._find() or self._make()
            there = self._listed()
            missing = [task for task in tasks if task.uid not in there]
            for start in range(0, len(missing), PIECE):
                there |= self._import(missing[start : start + PIECE])
            return {task.uid: there[task.uid] for task in tasks}

    def arrange(self, tasks: Sequence[BoardTask]) -> None:
        """Give tasks other data and another place; whoever has tasks gets a tab in the Data Manager."""
        if not tasks:
            return
        with self._told():
            self._project = self._find() or self._make()
            there = self._listed()
            for task in tasks:
                number = int(there[task.uid])
                self._client.tasks.update(str(number), data=dict(task.data))
                for prediction in self._client.predictions.list(task=number):
                    self._client.predictions.update(prediction.id, score=task.score)

    def people(self) -> Mapping[str, str]:
        """Ids of the server's users by e-mail address."""
        with self._told():
            return {each.email: str(each.id) for each in self._client.users.list()}

    def address_of(self, person: str) -> str:
        """The person's tab in the Data Manager; made where there is none."""
        with self._told():
            project = int(self.project())
            tabs = [
                each for each in self._client.views.list(project=project) if (each.data or {}).get("title") == person
            ]
            tab = tabs[0] if tabs else self._client.views.create(project=project, data=_tab(person))
            return f"{self._url}/projects/{project}/data?tab={tab.id}&labeling=1"

    def changed(self, since: str | None, project: str | None = None) -> list[RawVerdict]:
        """Annotations of tasks touched since a little before that time; skipped ones are left out."""
        with self._told():
            if (named := project or self._project or self._find()) is None:
                return []
            found: list[RawVerdict] = []
            start = datetime.fromisoformat(since) - OVERLAP if since else datetime(2000, 1, 1, tzinfo=UTC)
            for task in self._client.tasks.list(project=int(named), query=_touched_since(start), fields="all"):
                annotations = [_plain(each) for each in task.annotations or []]
                found += [
                    _verdict(task.data["uid"], int(named), each)
                    for each in annotations
                    if not each["was_cancelled"] and "uid" in task.data
                ]
            return found

    def open_tasks(self) -> list[OpenTask]:
        """Tasks without an annotation that counts."""
        with self._told():
            tasks = self._client.tasks.list(project=int(self.project()), fields="all", page_size=200)
            return [
                OpenTask(
                    uid=task.data["uid"],
                    task=str(task.id),
                    data=task.data,
                    prediction=next((_plain(each)["result"] for each in task.predictions or []), []),
                    score=next((float(_plain(each)["score"] or 0.0) for each in task.predictions or []), 0.0),
                )
                for task in tasks
                if not any(not _plain(each)["was_cancelled"] for each in task.annotations or [])
            ]

    def annotate(self, task: str, result: Result, *, seconds: float, unique_id: str) -> None:
        """Add an annotation through the API; the server refuses the same `unique_id` twice, which is as good."""
        with self._told():
            try:
                self._client.annotations.create(
                    id=int(task), result=result, lead_time=seconds, unique_id=unique_id, request_options=ONCE
                )
            except ApiError as error:
                if error.status_code != httpx.codes.CONFLICT:
                    raise

    def _find(self) -> int | None:
        found = [each.id for each in self._client.projects.list(title=self._title) if each.title == self._title]
        return min(found, default=None)

    def _make(self) -> int:
        made = self._client.projects.create(
            title=self._title,
            label_config=self._page.config,
            description="Rationales to review. Made by Preceptor; tasks are added and read by it.",
            expert_instruction=_html(self._page.guidelines),
            show_instruction=bool(self._page.guidelines),
            show_collab_predictions=True,
            model_version=MODEL_VERSION,
            sampling="Uncertainty sampling",  # hands out the lowest score first
            request_options=ONCE,
        )
        return int(made.id)

    def _listed(self) -> dict[str, str]:
        """Task ids by uid."""
        tasks = self._client.tasks.list(project=self._project, include="id,data", fields="task_only", page_size=1000)
        return {task.data["uid"]: str(task.id) for task in tasks if "uid" in task.data}

    def _import(self, tasks: Sequence[BoardTask]) -> dict[str, str]:
        """Import one piece; a reply that did not come says nothing about whether the tasks are there."""
        request = [
            {
                "data": dict(task.data),
                "predictions": [{"model_version": MODEL_VERSION, "score": task.score, "result": task.prediction}],
            }
            for task in tasks
        ]
        assert self._project is not None
        try:
            self._client.projects.import_tasks(
                id=self._project, request=request, return_task_ids=True, request_options=ONCE
            )
        except (ApiError, httpx.HTTPError):
            there = self._listed()
            if any(task.uid not in there for task in tasks):
                raise
            return there
        return self._listed()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the server as ours, with the cure."""
        try:
            yield
        except httpx.HTTPError as error:
            raise BoardDown(
                f"Label Studio at {self._url} does not answer ({type(error).__name__}); start it with "
                "`preceptor review up` or mend review.url, then run again"
            ) from error
        except ApiError as error:
            if error.status_code in (401, 403):
                raise BoardRefused(
                    f"Label Studio at {self._url} refuses the token; put the right one into the variable that "
                    "review.token_env names (Account & Settings, Access Token)"
                ) from error
            raise BoardRefused(f"Label Studio at {self._url}: {error.status_code}: {str(error.body)[:300]}") from error


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


def _touched_since(start: datetime) -> str:
    """The filter for tasks touched since then; the server wants microseconds."""
    item = {
        "filter": "filter:tasks:updated_at",
        "operator": "greater",
        "type": "Datetime",
        "value": start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    return json.dumps({"filters": {"conjunction": "and", "items": [item]}})


def _tab(person: str) -> Any:
    """The Data Manager's tab with what is assigned to a person and not judged yet, the lowest place first."""
    theirs = {"filter": "filter:tasks:data.reviewer", "operator": "equal", "type": "String", "value": person}
    open_ones = {"filter": "filter:tasks:total_annotations", "operator": "equal", "type": "Number", "value": 0}
    return {
        "title": person,
        "type": "list",
        "target": "tasks",
        "filters": {"conjunction": "and", "items": [theirs, open_ones]},
        "ordering": ["tasks:predictions_score"],
    }


def _verdict(uid: str, project: int, annotation: dict[str, Any]) -> RawVerdict:
    completed_by = annotation.get("completed_by")
    return RawVerdict(
        uid=uid,
        project=str(project),
        annotation=str(annotation["id"]),
        updated_at=_moment(annotation["updated_at"]),
        reviewer=str(completed_by.get("id") if isinstance(completed_by, dict) else completed_by),
        seconds=float(annotation.get("lead_time") or 0.0),
        result=annotation["result"],
        raw=json.loads(json.dumps(annotation, default=str)),
    )


def _moment(value: Any) -> str:
    """The server's two forms of a time as one."""
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _plain(thing: Any) -> dict[str, Any]:
    """The SDK's models as dictionaries."""
    return thing if isinstance(thing, dict) else dict(thing.dict())
