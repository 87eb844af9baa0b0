"""Label Studio as the board. Only this module reads and writes its projects."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from markdown_it import MarkdownIt

from loop.errors import BoardDown, BoardRefused
from loop.events import happened
from loop.records import own_uid
from review.board import BoardTask, OpenTask, RawVerdict, Result, Standing
from review.page import Page

T = TypeVar("T")
R = TypeVar("R")
ONCE: Any = {"max_retries": 0, "timeout_in_seconds": 300}
"""A POST that is retried is a POST twice; what is missing afterwards is found by listing."""
PIECE = 1000
"""Tasks in one import, and in one page of a listing."""
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
MODEL_VERSION = "teacher"
"""Names the predictions that fill the boxes and order the queue."""
STUDENT = "student"
"""Title of the prediction backend. It must differ from the above, or the boxes stay empty while the backend is down."""
CONNECTED = "CO"
LONGEST_TITLE = 50
"""Characters that the server takes."""


class LabelStudioBoard:
    """One project per title and page version (`review.board.Board`); tasks are known by the uid in their data."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        title: str,
        page: Page,
        name: str | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._name = name or f"label-studio {self._url}"
        self._page = page
        self._all_versions = _fitted(title, LONGEST_TITLE - len(f" v{page.version}"))
        self._title = f"{self._all_versions} v{page.version}"
        self._http = http or client()
        self._once = ONCE | {"timeout_in_seconds": self._http.timeout.read}
        self._client = LabelStudio(base_url=self._url, api_key=token, httpx_client=self._http)
        self._fresh: int | None = None  # the project that we made and put nothing into

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
            return str(self._find() or self._make())

    def address(self) -> str:
        """Where the project hands out its tasks."""
        return f"{self._url}/projects/{self.project()}/data?labeling=1"

    def projects(self) -> list[str]:
        """The ids of the projects of this title, whatever the page's version."""
        version = re.compile(rf"{re.escape(self._all_versions)} v[0-9a-f]{{8}}")
        with self._told():
            listed = self._client.projects.list(title=self._all_versions)
            return [str(each.id) for each in listed if version.fullmatch(each.title)]

    def put(self, tasks: Iterable[BoardTask]) -> Mapping[str, str]:
        """Import what the project lacks; after an error look at what landed and go on from there.

        What stands there is listed once, and not at all in a project that was just made. While the server takes one
        piece, the next one is made.
        """
        with self._told():
            project = self._find() or self._make()
            there = {} if project == self._fresh else self._listed(project)
            self._fresh = None
            placed: dict[str, str] = {}
            for found in _one_ahead(partial(self._import, project), self._missing(tasks, there, placed)):
                placed |= found
            return placed

    def _missing(
        self, tasks: Iterable[BoardTask], there: Mapping[str, "_Landed"], placed: dict[str, str]
    ) -> Iterator[list[BoardTask]]:
        """Pieces of the tasks that do not stand there; the ids of those that do go to `placed`."""
        left = iter(tasks)
        while piece := list(islice(left, PIECE)):
            placed |= self._complete(there, piece)
            if missing := [task for task in piece if task.uid not in placed]:
                yield missing

    def arrange(self, tasks: Sequence[BoardTask]) -> None:
        """Give tasks other data and another place; whoever has tasks gets a tab in the Data Manager."""
        if not tasks:
            return
        with self._told():
            there = self._listed(self._find() or self._make())
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
            named = project or self._find()
        return [] if named is None else [raw for each in self.touched(str(named), since) for raw in each.verdicts]

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
                for project in self.projects()
                for task in self._client.tasks.list(
                    project=int(project), include="id,data", fields="task_only", page_size=PIECE
                )
                if own_uid(str(task.data.get("uid", ""))) in uids
            ]
            for number in found:
                self._client.tasks.delete(id=str(number), request_options=ONCE)
        return len(found)

    def register(self, address: str, headers: Mapping[str, str]) -> bool:
        """Have the server call this address when an annotation changes; False where it does so already."""
        with self._told():
            project = int(self.project())
            known = [each for each in self._client.webhooks.list(project=project) if each.url == address]
            if any(each.headers == dict(headers) for each in known):
                return False
            for each in known:
                self._client.webhooks.delete(id=each.id, request_options=ONCE)
            with self._may_call(address):
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
        with self._told():
            project = int(self.project())
            known = [each for each in self._client.ml.list(project=project) if each.url == address]
            if any(each.state == CONNECTED for each in known):
                return False
            for each in known:
                self._client.ml.delete(id=each.id, request_options=ONCE)
            with self._may_call(address):
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
        """Make the project. Where there are two now, the older one is taken, and ours goes: somebody else made it
        meanwhile, or the server did, which carries a request out once more when its SQLite file was locked halfway.
        """
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
        project = self._find() or int(made.id)
        if project == made.id:
            self._fresh = project
        else:
            self._client.projects.delete(id=int(made.id), request_options=ONCE)
        return project

    def _listed(self, project: int) -> dict[str, "_Landed"]:
        """What stands in the project, by uid; of several with one uid the first."""
        tasks = self._client.tasks.list(
            project=project, include="id,data,total_predictions", fields="task_only", page_size=PIECE
        )
        found: dict[str, _Landed] = {}
        for task in tasks:
            uid, landed = task.data.get("uid"), _Landed(int(task.id), bool(task.total_predictions))
            if uid is not None and (uid not in found or landed.task < found[uid].task):
                found[uid] = landed
        return found

    def _import(self, project: int, tasks: Sequence[BoardTask]) -> dict[str, str]:
        """Import one piece. Where the reply does not come, or does not count everything, look at what landed."""
        request = [{"data": dict(task.data), "predictions": [_prediction(task)]} for task in tasks]
        try:
            done = self._client.projects.import_tasks(
                id=project, request=request, return_task_ids=True, request_options=self._once
            )
        except (ApiError, httpx.HTTPError):
            there = self._complete(self._listed(project), tasks)
            if any(task.uid not in there for task in tasks):
                raise
            return there
        if (done.task_count, done.prediction_count, len(done.task_ids or ())) == (len(tasks),) * 3:
            return {task.uid: str(number) for task, number in zip(tasks, done.task_ids, strict=True)}
        there = self._complete(self._listed(project), tasks)
        if lacking := [task.uid for task in tasks if task.uid not in there]:
            raise BoardDown(
                f"Label Studio at {self._url} took {len(tasks) - len(lacking)} of {len(tasks)} tasks without a word "
                f"about the others (the first: {lacking[0]}); run again to send them once more"
            )
        return there

    def _complete(self, there: Mapping[str, "_Landed"], tasks: Sequence[BoardTask]) -> dict[str, str]:
        """Give landed ones of the tasks the prefilled boxes that the server dropped; their task ids by uid."""
        landed = {task.uid: there[task.uid] for task in tasks if task.uid in there}
        for task in tasks:
            if task.uid in landed and not landed[task.uid].filled:
                self._client.predictions.create(task=landed[task.uid].task, **_prediction(task), request_options=ONCE)
        return {uid: str(each.task) for uid, each in landed.items()}

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


def _one_ahead(send: Callable[[T], R], pieces: Iterable[T]) -> Iterator[R]:
    """What comes of sending each piece; while one is sent, the next one is made. The first failure ends it."""
    with ThreadPoolExecutor(1) as sender:
        sending = None
        for piece in pieces:
            if sending is not None:
                yield sending.result()
            sending = sender.submit(send, piece)
        if sending is not None:
            yield sending.result()


@dataclass(frozen=True)
class _Landed:
    """A task on the server, and whether its boxes are prefilled."""

    task: int
    filled: bool


def _prediction(task: BoardTask) -> dict[str, Any]:
    """What is prefilled."""
    return {"model_version": MODEL_VERSION, "score": task.score, "result": task.prediction}


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


def _annotated_since(since: str | None) -> str:
    """The filter for tasks with annotations that were touched since then; the server wants microseconds."""
    items = [{"filter": "filter:tasks:total_annotations", "operator": "greater", "type": "Number", "value": 0}]
    if since is not None:
        start = (datetime.fromisoformat(since) - OVERLAP).astimezone(UTC)
        value = start.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        items.append({"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime", "value": value})
    return json.dumps({"filters": {"conjunction": "and", "items": items}})


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
