"""Label Studio as the board. Only this module and the two beside it read and write its projects."""

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from connectors.label_studio_import import PIECE, Importer
from connectors.label_studio_projects import ONCE, Projects
from loop.errors import BoardDown, BoardRefused
from loop.events import happened
from loop.records import own_uid
from review.board import BoardTask, OpenTask, Place, RawVerdict, Result, Standing
from review.page import Page

OVERLAP = timedelta(seconds=30)
"""An answer is dated when it is saved and seen when it is committed, which a busy SQLite puts off."""
ANNOTATION = (
    "id,data,annotations,result,completed_by,updated_by,was_cancelled,ground_truth,created_at,updated_at,"
    "draft_created_at,lead_time,parent_prediction,parent_annotation,import_id,last_action,bulk_created"
)
"""What a listing gives of a task and its annotations; all else takes the server three times as long."""
PASSING = (httpx.codes.NOT_FOUND, httpx.codes.TOO_MANY_REQUESTS)
"""Answers after which another try may help: what was asked for was deleted just now, or too much was asked."""
CHANGES = ["ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "TASKS_DELETED"]
STUDENT = "student"
"""Title of the prediction backend. It must differ from `MODEL_VERSION`, or the boxes stay empty while it is down."""
CONNECTED = "CO"
Filter = dict[str, Any]
"""A condition on tasks in the Data Manager's form."""
OPEN: Filter = {"filter": "filter:tasks:total_annotations", "operator": "equal", "type": "Number", "value": 0}
ANNOTATED: Filter = OPEN | {"operator": "greater"}


class LabelStudioBoard:
    """Projects of one title, by version of the page and `tasks_per_project` large (`review.board.Board`).

    Tasks are known by the uid in their data.
    """

    def __init__(  # noqa: PLR0913 - where and as whom, what it holds, and how it speaks
        self,
        url: str,
        token: str,
        *,
        title: str,
        page: Page,
        tasks_per_project: int = 100_000,
        name: str | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._name = name or f"label-studio {self._url}"
        self._http = http or client()
        self._client = LabelStudio(base_url=self._url, api_key=token, httpx_client=self._http)
        self._projects = Projects(self._client, title, page)
        timeout = self._http.timeout.read
        self._importer = Importer(self._client, self._projects, most=tasks_per_project, url=self._url, timeout=timeout)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def name(self) -> str:
        """The server's address stands for the board; a local one keeps its name when its port changes."""
        return self._name

    def project(self) -> str:
        """The first project of this version of the page; made where there is none."""
        with self._told():
            return str(self._projects.some()[0])

    def projects(self) -> list[list[str]]:
        """The ids of the projects of this title, those of one version of the page together, this one's first."""
        with self._told():
            return [[str(each) for each in version] for version in self._projects.all()]

    def address(self) -> str:
        """Where the projects hand out their tasks, those that have open ones."""
        with self._told():
            return ", ".join(f"{self._url}/projects/{each}/data?labeling=1" for each in self._at_work(OPEN))

    def put(self, tasks: Iterable[BoardTask]) -> Mapping[str, Place]:
        """Import what no project has; after an error look at what landed and go on from there."""
        with self._told():
            return self._importer.put(tasks)

    def arrange(self, tasks: Sequence[BoardTask]) -> None:
        """Give tasks other data and another place; whoever has tasks gets a tab in the Data Manager."""
        if not tasks:
            return
        with self._told():
            there, _ = self._importer.look()
            for task in tasks:
                if task.uid not in there:
                    continue  # deleted there; the next whole listing finds out
                number = there[task.uid].task
                self._client.tasks.update(str(number), data=dict(task.data))
                for prediction in self._client.predictions.list(task=number):
                    self._client.predictions.update(prediction.id, score=task.score)

    def people(self) -> Mapping[str, str]:
        """Ids of the server's users by e-mail address."""
        with self._told():
            return {each.email: str(each.id) for each in self._client.users.list()}

    def address_of(self, person: str) -> str:
        """The person's tab in the Data Manager of each project with work for them; made where there is none."""
        with self._told():
            return ", ".join(self._tab(project, person) for project in self._at_work(OPEN, _whose(person)))

    def _tab(self, project: int, person: str) -> str:
        tabs = [each for each in self._client.views.list(project=project) if (each.data or {}).get("title") == person]
        tab = tabs[0] if tabs else self._client.views.create(project=project, data=_made_tab(person))
        return f"{self._url}/projects/{project}/data?tab={tab.id}&labeling=1"

    def _at_work(self, *filters: Filter) -> list[int]:
        """The projects of this version that have such tasks; the last one where none has, or where it is the only."""
        projects = self._projects.some()
        found = [] if len(projects) == 1 else [each for each in projects if self._has(each, filters)]
        return found or projects[-1:]

    def _has(self, project: int, filters: Sequence[Filter]) -> bool:
        found = self._client.tasks.list(
            project=project, query=_query(filters), include="id", fields="task_only", page_size=1
        )
        return next(iter(found), None) is not None

    def changed(self, since: str | None, project: str | None = None) -> list[RawVerdict]:
        """Annotations of tasks touched since a little before that time; skipped ones are left out."""
        with self._told():
            named = [int(project)] if project is not None else self._projects.present()
        return [raw for each in named for standing in self.touched(str(each), since) for raw in standing.verdicts]

    def touched(self, project: str, since: str | None) -> Iterator[Standing]:
        """Tasks with annotations, touched since a little before that time of the server's."""
        return self._standing(int(project), _annotated_since(since))

    def listing(self, project: str) -> Iterator[Standing]:
        """All tasks of a project that have a uid."""
        return self._standing(int(project), None)

    def _standing(self, project: int, query: str | None) -> Iterator[Standing]:
        with self._told():
            tasks = self._client.tasks.list(
                project=project, query=query, fields="all", include=ANNOTATION, page_size=PIECE
            )
            for task in tasks:
                if "uid" in task.data:
                    said = [_plain(each) for each in task.annotations or []]
                    verdicts = [_verdict(task.data["uid"], project, each) for each in said if not each["was_cancelled"]]
                    yield Standing(task.data["uid"], str(task.id), tuple(verdicts))

    def remove(self, task: str) -> None:
        """Delete a task, unless somebody has begun to work on it meanwhile."""
        with self._told():
            found = self._client.tasks.get(id=task)
            if not found.annotations and not found.drafts:
                self._client.tasks.delete(id=task, request_options=ONCE)

    def forget(self, uids: Collection[str]) -> int:
        """Delete the tasks, which takes their annotations, drafts and predictions along; how many."""
        with self._told():
            found = [
                task.id
                for version in self._projects.all()
                for project in version
                for task in self._client.tasks.list(
                    project=project, include="id,data", fields="task_only", page_size=PIECE
                )
                if own_uid(str(task.data.get("uid", ""))) in uids
            ]
            for number in found:
                self._client.tasks.delete(id=str(number), request_options=ONCE)
        return len(found)

    def register(self, address: str, headers: Mapping[str, str]) -> bool:
        """Have the server call this address when an annotation changes; False where it does so already."""
        with self._told(), self._may_call(address):
            made = [self._register(each, address, headers) for each in self._projects.some()]
        return any(made)

    def _register(self, project: int, address: str, headers: Mapping[str, str]) -> bool:
        known = [each for each in self._client.webhooks.list(project=project) if each.url == address]
        if any(each.headers == dict(headers) for each in known):
            return False
        for each in known:
            self._client.webhooks.delete(id=each.id, request_options=ONCE)
        self._client.webhooks.create(
            project=project,
            url=address,
            headers=dict(headers),
            send_payload=False,
            send_for_all_actions=False,
            actions=CHANGES,
            request_options=ONCE,
        )
        return True

    def connect(self, address: str, *, user: str, password: str) -> bool:
        """Have the server ask this address for predictions; False where it does so already.

        Which predictions fill the boxes and order the queue stays as it is. The webhook that the server makes for the
        address by itself is taken away: it would send every annotation there, whole.
        """
        with self._told(), self._may_call(address):
            made = [self._connect(each, address, user, password) for each in self._projects.some()]
        return any(made)

    def _connect(self, project: int, address: str, user: str, password: str) -> bool:
        known = [each for each in self._client.ml.list(project=project) if each.url == address]
        if any(each.state == CONNECTED for each in known):
            return False
        for each in known:
            self._client.ml.delete(id=each.id, request_options=ONCE)
        self._client.ml.create(
            project=project,
            url=address,
            title=STUDENT,
            auth_method="BASIC_AUTH",
            basic_auth_user=user,
            basic_auth_pass=password,
            is_interactive=False,
            request_options=ONCE,
        )
        for hook in self._client.webhooks.list(project=project):
            if hook.url == f"{address.rstrip('/')}/webhook":
                self._client.webhooks.delete(id=hook.id, request_options=ONCE)
        return True

    def open_tasks(self) -> list[OpenTask]:
        """Tasks without an annotation that counts."""
        with self._told():
            return [
                OpenTask(
                    uid=task.data["uid"],
                    task=str(task.id),
                    data=task.data,
                    prediction=next((_plain(each)["result"] for each in task.predictions or []), []),
                    score=next((float(_plain(each)["score"] or 0.0) for each in task.predictions or []), 0.0),
                )
                for project in self._projects.present()
                for task in self._client.tasks.list(project=project, fields="all", page_size=200)
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

    @contextmanager
    def _may_call(self, address: str) -> Iterator[None]:
        """The server's refusal to call an address, with the cure."""
        try:
            yield
        except ApiError as error:
            if "reserved network" not in str(error.body):
                raise
            raise BoardRefused(
                f"Label Studio at {self._url} may not call {address}; start a local one anew with `preceptor "
                "review down` and `review up`, or give your own LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS=false and "
                "the other subnets in LABEL_STUDIO_USER_ADDITIONAL_BANNED_SUBNETS"
            ) from error

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the server as ours, with the cure."""
        try:
            yield
        except httpx.HTTPError as error:
            raise BoardDown(
                f"Label Studio at {self._url} does not answer ({type(error).__name__}: {error}); start it with "
                "`preceptor review up` or mend review.url, then run again"
            ) from error
        except ApiError as error:
            if error.status_code in (401, 403):
                raise BoardRefused(
                    f"Label Studio at {self._url} refuses the token; put the right one into the variable that "
                    "review.token_env names (Account & Settings, Access Token)"
                ) from error
            if (error.status_code or 0) >= 500 or error.status_code in PASSING:
                raise BoardDown(
                    f"Label Studio at {self._url} answers {error.status_code}; see its log, then run again"
                ) from error
            raise BoardRefused(f"Label Studio at {self._url}: {error.status_code}: {str(error.body)[:300]}") from error


def client(pace: "Pace | None" = None, *, timeout: float = 300.0) -> httpx.Client:
    """What speaks to a server, at a pace where one is given."""
    hooks: dict[str, list[Callable[..., Any]]] = {"request": [] if pace is None else [pace], "response": [_tell]}
    return httpx.Client(trust_env=False, timeout=timeout, event_hooks=hooks)


def _tell(response: httpx.Response) -> None:
    """Tell that the server was called: where, without what was asked or said."""
    asked = response.request
    happened("board_called", method=asked.method, path=asked.url.path, status=response.status_code)


class Pace:
    """At most so many requests a second, over all boards that share it."""

    def __init__(self, per_second: float) -> None:
        self._pause = 1.0 / per_second
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, _request: httpx.Request) -> None:
        """Wait for the request's turn."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._pause
        time.sleep(max(0.0, turn - time.monotonic()))


def _query(filters: Sequence[Filter]) -> str:
    """The filters in the server's form; all of them hold."""
    return json.dumps({"filters": {"conjunction": "and", "items": filters}})


def _annotated_since(since: str | None) -> str:
    """The filter for tasks with annotations that were touched since then; the server wants microseconds."""
    items = [ANNOTATED]
    if since is not None:
        start = (datetime.fromisoformat(since) - OVERLAP).astimezone(UTC)
        value = start.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        items.append({"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime", "value": value})
    return _query(items)


def _whose(person: str) -> Filter:
    """The filter for what is assigned to a person."""
    return {"filter": "filter:tasks:data.reviewer", "operator": "equal", "type": "String", "value": person}


def _made_tab(person: str) -> Any:
    """The Data Manager's tab with what is assigned to a person and not judged yet, the lowest place first."""
    return {
        "title": person,
        "type": "list",
        "target": "tasks",
        "filters": {"conjunction": "and", "items": [_whose(person), OPEN]},
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
        prefilled=annotation.get("parent_prediction") is not None,
    )


def _moment(value: Any) -> str:
    """The server's two forms of a time as one."""
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _plain(thing: Any) -> dict[str, Any]:
    """The SDK's models as dictionaries."""
    return thing if isinstance(thing, dict) else dict(thing.dict())
