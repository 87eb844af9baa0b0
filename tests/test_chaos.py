"""Whatever fails between us and the real Label Studio, no task and no verdict is lost, and none is there twice."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from connectors import studio_server
from connectors.label_studio import LabelStudioBoard, client
from connectors.progress import RichProgress
from connectors.web import HEADER, PATH
from connectors.wiring import Project, cache_folder
from loop.errors import BoardDown
from loop.records import Round, VerdictKind
from loop.store import items, reading, reviews, rounds
from loop.store.database import Store
from loop.store.money import Purse
from loop.store.reviews import RunReviewBook
from review.board import Board
from review.desk import Desk
from review.page import review_page
from review.task import result
from tests.builders import RUN, a_reply, a_round, a_store, an_item, id_of, queried, sent_to_review
from tests.crash_matrix import cell
from tests.faulty_proxy import Fault, FaultyProxy, standing_before
from tests.test_board import TASK
from tests.tiny import tiny_project
from tests.whole_campaign import unkilled

MANY = 4
ACCEPT = result(VerdictKind.ACCEPT)


class Campaign:
    """A round in review with so many tasks, a desk for it, and the server's API for what users do."""

    def __init__(self, folder: Path, board: LabelStudioBoard, api: httpx.Client, many: int) -> None:
        self.store = a_store(folder)
        self.round = _in_review(self.store, many) if many else rounds.current(self.store, RUN)
        self.board = board
        self.api = api

    @property
    def desk(self) -> Desk:
        """A desk as another process would open it."""
        return Desk(lambda _: self.board, RunReviewBook(self.store, RUN), lambda _: {}, TASK)

    def push(self) -> None:
        """Push what is left to push."""
        self.desk.push(reviews.pending(self.store, id_of(self.round)))

    def tasks(self) -> dict[str, list[str]]:
        """What stands on the board: task ids by uid."""
        found: dict[str, list[str]] = {}
        for project in self.projects():
            for each in self.board.listing(project):
                found.setdefault(each.uid, []).append(each.task)
        return found

    def projects(self) -> list[str]:
        """The projects of the page, in the order in which they fill."""
        return self.board.projects()[0]

    def sizes(self) -> list[int]:
        """How many tasks each project has."""
        return [self.api.get(f"/api/projects/{each}/").json()["task_number"] for each in self.projects()]

    def stands_once(self, many: int) -> bool:
        """Whether so many tasks stand on the board, each once and prefilled."""
        tasks = [
            task
            for project in self.projects()
            for task in self.api.get("/api/tasks", params={"project": project, "page_size": 1000}).json()["tasks"]
        ]
        uids = {each["data"]["uid"] for each in tasks}
        return len(tasks) == len(uids) == many and all(each["total_predictions"] == 1 for each in tasks)

    def answer(self, task: str, regions: list[dict[str, object]] = ACCEPT) -> str:
        """Judge a task as a user; the annotation."""
        made = self.answered(task, regions, str(uuid.uuid4()))
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    def answered(self, task: str, regions: list[dict[str, object]], unique_id: str) -> httpx.Response:
        """What the server says to an answer."""
        body = {"result": regions, "lead_time": 2.0, "unique_id": unique_id}
        return self.api.post(f"/api/tasks/{task}/annotations/", json=body)

    def answer_until_it_is_taken(self, task: str) -> int:
        """Answer as often as a busy server fails; how often."""
        unique_id = str(uuid.uuid4())
        for tries in range(1, 20):
            if self.answered(task, ACCEPT, unique_id).status_code in (201, 409):
                return tries
        raise AssertionError(f"task {task} cannot be answered")

    def counted(self) -> int:
        """How many verdicts count."""
        ids = [task.rationale_id for task in reviews.tasks(self.store, id_of(self.round))]
        return sum(len(given) for given in reviews.verdicts(self.store, ids).values())

    def waiting(self) -> int:
        """How many tasks wait for a verdict."""
        return len(reviews.pending(self.store, id_of(self.round)))


def _in_review(store: Store, many: int) -> Round:
    keys = [f"q{number}" for number in range(many)]
    items.add(store, [an_item(key) for key in keys])
    opened = queried(store, a_round(store), keys)
    Purse(store, RUN).open(usd=10**9, minutes=10**10)
    for key in keys:
        a_reply(store, opened, key, steps=["1 + 1 = 2"], answer=2)
    sent_to_review(store, opened, keys)
    return opened


OpenCampaign = Callable[..., Campaign]


@pytest.fixture
def campaign(studio: studio_server.Studio, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[OpenCampaign]:
    """Opens campaigns on the real server, or on what stands before it."""
    with ExitStack() as stack:

        def opened(url: str = studio.url, *, many: int = MANY, timeout: float = 60.0, most: int = 1000) -> Campaign:
            where = {"url": url, "token": studio.token, "title": f"c {abs(hash(request.node.name)) % 10**8}"}
            http = client(timeout=timeout)
            made = LabelStudioBoard(**where, page=review_page(TASK), tasks_per_project=most, http=http)
            board = stack.enter_context(closing(made))
            headers = {"Authorization": f"Token {studio.token}"}
            api = httpx.Client(base_url=studio.url, headers=headers, trust_env=False, timeout=120.0)
            campaign = Campaign(tmp_path, board, stack.enter_context(api), many)
            stack.callback(campaign.store.close)
            return campaign

        yield opened


@pytest.fixture
def proxy(studio: studio_server.Studio) -> Iterator[FaultyProxy]:
    """A proxy before the real server."""
    with standing_before(studio.url) as proxy:
        yield proxy


@pytest.mark.parametrize(
    "fault", [Fault("broken", "/import"), Fault("lost", "/import", seconds=3), Fault("bare", "/import")]
)
def test_what_landed_without_a_proper_reply_is_found_and_not_sent_again(
    campaign: OpenCampaign, proxy: FaultyProxy, fault: Fault
) -> None:
    here = campaign(proxy.address, timeout=2.0)
    proxy.faults.append(fault)
    here.push()
    assert here.stands_once(MANY)
    assert sum("/import" in line for line in proxy.seen) == 1
    here.push()
    assert here.stands_once(MANY)


@pytest.mark.parametrize("path", ["/projects", "/import"])
def test_of_what_the_server_does_twice_one_is_left(campaign: OpenCampaign, proxy: FaultyProxy, path: str) -> None:
    here = campaign(proxy.address)
    proxy.faults.append(Fault("twice", path))
    here.push()
    here.desk.pull(whole=True)
    assert [len(version) for version in here.board.projects()] == [1]
    assert here.stands_once(MANY)
    assert here.waiting() == MANY


@pytest.mark.parametrize(
    "fault",
    [
        Fault("broken", "/import", after=1),
        Fault("lost", "/import", seconds=3, after=1),
        Fault("bare", "/import", after=1),
        Fault("twice", "/projects", after=2),  # the first project is made, filled, and then the second one is made
    ],
)
def test_no_failure_puts_a_task_into_two_projects_or_too_many_into_one(
    campaign: OpenCampaign, proxy: FaultyProxy, fault: Fault
) -> None:
    here = campaign(proxy.address, timeout=2.0, most=3)
    proxy.faults.append(fault)
    here.push()
    assert (fault.after, fault.times) == (0, 0)
    assert here.sizes() == [3, 1]
    assert here.stands_once(MANY)
    assert sum("/import" in line for line in proxy.seen) == 2


def test_a_push_cut_off_between_two_projects_goes_on_and_fills_them(campaign: OpenCampaign, proxy: FaultyProxy) -> None:
    here = campaign(proxy.address, most=3)
    proxy.faults.append(Fault("refused", "/import", after=1))
    with pytest.raises(BoardDown, match="500"):
        here.push()
    first = here.tasks()
    assert here.sizes() == [3, 0]
    here.push()
    assert here.sizes() == [3, 1]
    assert here.stands_once(MANY)
    assert first.items() <= here.tasks().items()


def test_a_copy_that_came_late_to_another_project_is_removed_unless_it_was_judged(campaign: OpenCampaign) -> None:
    here = campaign(most=2)
    here.push()
    late = [
        [
            {"data": each["data"], "predictions": [{"result": [], "score": 0.5}]}
            for each in here.api.get("/api/tasks", params={"project": project}).json()["tasks"]
        ]
        for project in here.projects()
    ]
    for project, some in zip(reversed(here.projects()), late, strict=True):
        assert here.api.post(f"/api/projects/{project}/import", json=some).status_code == 201
    twice = here.tasks()
    assert {len(copies) for copies in twice.values()} == {2}
    judged = {some[0]["data"]["uid"]: max(twice[some[0]["data"]["uid"]], key=int) for some in late}
    for task in judged.values():
        here.answer(task)
    here.desk.pull(whole=True)
    assert here.tasks() == {uid: [judged.get(uid, min(copies, key=int))] for uid, copies in twice.items()}
    here.push()
    assert here.stands_once(MANY)
    assert (here.counted(), here.waiting()) == (2, MANY - 2)


def test_one_of_several_projects_is_deleted_and_only_what_it_held_is_sent_again(campaign: OpenCampaign) -> None:
    here = campaign(most=2)
    here.push()
    first, second = here.projects()
    kept, lost = (list(here.board.listing(project)) for project in (first, second))
    for some in (kept, lost):
        here.answer(some[0].task)
    assert here.desk.pull() == 2
    assert here.api.delete(f"/api/projects/{second}/").status_code == 204
    here.desk.pull()
    here.push()
    assert here.projects()[0] == first
    assert here.projects()[1] != second
    assert here.tasks().keys() == {each.uid for each in kept} | {lost[1].uid}
    assert (here.counted(), here.waiting()) == (2, MANY - 2)


def test_what_was_refused_is_sent_once_more_and_stands_once(campaign: OpenCampaign, proxy: FaultyProxy) -> None:
    here = campaign(proxy.address)
    proxy.faults.append(Fault("refused", "/import"))
    with pytest.raises(BoardDown, match="500"):
        here.push()
    assert here.tasks() == {}
    here.push()
    assert here.stands_once(MANY)


@pytest.mark.slow
def test_an_import_that_is_carried_out_late_leaves_one_of_each(campaign: OpenCampaign, proxy: FaultyProxy) -> None:
    here = campaign(proxy.address, timeout=1.5)
    proxy.faults.append(Fault("late", "/import", seconds=4))
    with pytest.raises(BoardDown):
        here.push()
    here.push()
    until = time.monotonic() + 30
    while sum(map(len, here.tasks().values())) < 2 * MANY and time.monotonic() < until:
        time.sleep(0.5)
    twice = here.tasks()
    assert {len(copies) for copies in twice.values()} == {2}
    judged = twice["main/1/q0"][1]
    here.answer(judged)
    here.desk.pull(whole=True)
    assert here.stands_once(MANY)
    assert here.tasks()["main/1/q0"] == [judged]
    assert (here.counted(), here.waiting()) == (1, MANY - 1)


def test_a_push_cut_off_before_it_was_noted_is_not_repeated(campaign: OpenCampaign, proxy: FaultyProxy) -> None:
    here = campaign(proxy.address)
    here.push()
    book = RunReviewBook(here.store, RUN)
    book.mark_gone(book.placed(here.board.name, here.board.project()))
    here.push()
    assert here.stands_once(MANY)
    proxy.seen.clear()
    here.push()
    assert [line for line in proxy.seen if "task" in line or "import" in line] == []


def test_a_pull_that_fails_in_the_middle_is_made_up_for(campaign: OpenCampaign, proxy: FaultyProxy) -> None:
    here = campaign(proxy.address)
    here.push()
    for copies in here.tasks().values():
        here.answer(copies[0])
    proxy.faults.append(Fault("refused", "/api/tasks", method="GET", times=3))
    with pytest.raises(BoardDown):
        here.desk.pull()
    assert here.desk.pull() == MANY
    assert here.desk.pull() == 0
    assert (here.counted(), here.waiting()) == (MANY, 0)


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_wrong_clock_hides_nothing(campaign: OpenCampaign, proxy: FaultyProxy, hours: int) -> None:
    proxy.skew = timedelta(hours=hours)
    here = campaign(proxy.address)
    here.push()
    first, second, third, *_ = (copies[0] for copies in here.tasks().values())
    annotation = here.answer(first)
    assert here.desk.pull() == 1
    here.answer(second)
    assert here.desk.pull() == 1
    here.api.patch(f"/api/annotations/{annotation}/", json={"result": result(VerdictKind.REJECT)})
    here.answer(third)
    assert here.desk.pull() == 2
    assert here.desk.pull() == 0
    assert (here.counted(), here.waiting()) == (3, MANY - 3)


class Echo:
    """Gives every answer of a board twice, the last first."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __getattr__(self, name: str) -> object:
        found = getattr(self._board, name)
        return found if name not in ("listing", "touched") else lambda *at: [*reversed([*found(*at)]), *found(*at)]


def test_answers_that_come_twice_and_out_of_order_count_once(campaign: OpenCampaign) -> None:
    here = campaign()
    here.push()
    for copies in list(here.tasks().values())[:3]:
        changed = here.answer(copies[0])
        here.api.patch(f"/api/annotations/{changed}/", json={"result": result(VerdictKind.REJECT)})
    desk = Desk(lambda _: Echo(here.board), RunReviewBook(here.store, RUN), lambda _: {}, TASK)
    assert desk.pull() == 3
    assert desk.pull() == 0
    assert (here.counted(), here.waiting()) == (3, MANY - 3)


def test_two_answers_by_one_person_are_one_verdict_the_later(campaign: OpenCampaign) -> None:
    here = campaign()
    here.push()
    task = here.tasks()["main/1/q0"][0]
    here.answer(task, result(VerdictKind.REJECT))
    here.answer(task)
    assert here.desk.pull() == 2
    numbers = {each.uid: each.rationale_id for each in reviews.tasks(here.store, id_of(here.round))}
    (verdict,) = reviews.verdicts(here.store, [numbers["main/1/q0"]])[numbers["main/1/q0"]]
    assert verdict.kind is VerdictKind.ACCEPT


def test_tasks_that_a_user_deletes_stand_there_again_unless_they_were_judged(campaign: OpenCampaign) -> None:
    here = campaign()
    here.push()
    tasks = here.tasks()
    here.answer(tasks["main/1/q0"][0])
    here.desk.pull()
    for key in range(3):
        assert here.api.delete(f"/api/tasks/{tasks[f'main/1/q{key}'][0]}/").status_code == 204
    here.push()
    assert len(here.tasks()) == MANY - 3
    here.desk.pull(whole=True)
    here.push()
    assert set(tasks) - set(here.tasks()) == {"main/1/q0"}
    assert here.stands_once(MANY - 1)
    assert (here.counted(), here.waiting()) == (1, MANY - 1)


def test_a_deleted_project_is_made_anew_with_what_nobody_judged(campaign: OpenCampaign) -> None:
    here = campaign()
    here.push()
    tasks = here.tasks()
    for key in range(3):
        here.answer(tasks[f"main/1/q{key}"][0])
    here.desk.pull()
    assert here.api.delete(f"/api/projects/{here.board.project()}/").status_code == 204
    here.desk.pull()
    here.push()
    assert here.stands_once(MANY - 3)
    assert (here.counted(), here.waiting()) == (3, MANY - 3)


def test_a_deleted_answer_is_kept_counts_no_longer_and_may_be_given_anew(campaign: OpenCampaign) -> None:
    here = campaign()
    here.push()
    task = here.tasks()["main/1/q0"][0]
    annotation = here.answer(task)
    here.desk.pull()
    assert here.api.delete(f"/api/annotations/{annotation}/").status_code == 204
    assert here.desk.pull() == 0
    assert here.desk.pull(whole=True) == 1
    assert here.desk.pull(whole=True) == 0
    assert (here.counted(), here.waiting()) == (0, MANY)
    here.push()
    assert here.stands_once(MANY)
    here.answer(task)
    assert here.desk.pull() == 1
    assert (here.counted(), here.waiting()) == (1, MANY - 1)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_webhooks_twice_and_at_once_bring_each_verdict_once(
    campaign: OpenCampaign, studio: studio_server.Studio, tmp_path: Path
) -> None:
    here = campaign()
    with Served(tmp_path, studio, here) as url:
        for copies in here.tasks().values():
            here.answer(copies[0])
        with httpx.Client(trust_env=False, timeout=10.0) as caller, ThreadPoolExecutor(8) as many:
            right = {HEADER: "open sesame"}
            calls = [many.submit(caller.post, url, headers=right, json={"action": "?"}) for _ in range(50)]
            assert {call.result().status_code for call in calls} == {200}
            assert caller.post(url, headers={HEADER: "open sesamé".encode()}).status_code == 403
            assert caller.post(url).status_code == 403
            assert caller.post(url, headers=right, content=b"x" * 100_000).status_code == 413
        until = time.monotonic() + 60
        while here.counted() < MANY and time.monotonic() < until:
            time.sleep(0.2)
    assert (here.counted(), here.waiting()) == (MANY, 0)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_24_writers_on_sqlite_leave_one_verdict_a_task(campaign: OpenCampaign) -> None:
    many = 160
    here = campaign(many=many)
    here.push()
    with ThreadPoolExecutor(24) as writers:
        sent = sum(writers.map(here.answer_until_it_is_taken, [copies[0] for copies in here.tasks().values()]))
    listed = list(here.board.listing(here.board.project()))
    stored = sum(len(each.verdicts) for each in listed)
    print(f"{many} answers, sent {sent} times, are {stored} annotations")  # noqa: T201
    assert here.desk.pull() == stored >= many
    assert here.desk.pull() == 0
    assert (here.counted(), here.waiting()) == (many, 0)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_killed_in_push_and_pull_loses_and_doubles_nothing(tmp_path: Path) -> None:
    many, folder = 400, tmp_path / "studio"
    studio = studio_server.start(folder, cache=cache_folder(), port=0, say=lambda _: None)
    with _restarted(tmp_path, studio, many) as here:
        in_push = _killed(here.push, here, folder, at="/import")
    with _restarted(tmp_path, studio) as here:
        here.push()
        assert {len(copies) for copies in here.tasks().values()} == {1}
        assert here.stands_once(many)
        for copies in list(here.tasks().values())[:20]:
            here.answer(copies[0])
        in_pull = _killed(here.desk.pull, here, folder, at="/api/tasks")
    with _restarted(tmp_path, studio) as here:
        here.desk.pull()
        assert (here.counted(), here.waiting()) == (20, many - 20)
    studio_server.stop(studio_server.running(folder))
    print(f"in push: {in_push}; in pull: {in_pull}")  # noqa: T201


@contextmanager
def _restarted(folder: Path, studio: studio_server.Studio, many: int = 0) -> Iterator[Campaign]:
    """The campaign, with its server started again on the same port where it is down."""
    port = int(studio.url.rpartition(":")[2])
    studio_server.start(folder / "studio", cache=cache_folder(), port=port, say=lambda _: None)
    board = LabelStudioBoard(studio.url, studio.token, title="killed", page=review_page(TASK), http=client(timeout=60))
    headers = {"Authorization": f"Token {studio.token}"}
    with closing(board), httpx.Client(base_url=studio.url, headers=headers, trust_env=False, timeout=60.0) as api:
        here = Campaign(folder, board, api, many)
        with closing(here.store):
            yield here


def _killed(work: Callable[[], object], here: Campaign, folder: Path, *, at: str) -> str:
    """What comes of some work when the server is killed a moment after a request to a path was sent."""
    sent, outcome = threading.Event(), []
    here.board._http.event_hooks["request"].append(lambda request: sent.set() if at in request.url.path else None)
    at_work = threading.Thread(target=lambda: outcome.append(_raised(work)))
    at_work.start()
    assert sent.wait(60)
    time.sleep(0.1)
    os.kill(studio_server.running(folder).pid, signal.SIGKILL)
    at_work.join(100)
    return outcome[0]


def _raised(work: Callable[[], object]) -> str:
    try:
        work()
    except BoardDown as error:
        return str(error)
    return "it was done"


def test_a_run_that_waits_outlives_an_outage_of_the_server(
    studio: studio_server.Studio, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", studio.token)
    config = tiny_project(tmp_path, rounds=1, board="label_studio", sums=4)
    text = config.read_text().replace("[review]\n", f'[review]\nurl = "{proxy.address}"\npoll_seconds = 1.0\n')
    (tmp_path / "people.toml").write_text(text)
    config.write_text(text.split("[simulated_reviewer]")[0])
    proxy.faults.append(Fault("refused", "/import", times=2))
    cli = [sys.executable, "-c", "from connectors.cli import main; main()"]
    for split in ("pool", "holdout"):
        ingest = [*cli, "ingest", str(tmp_path / f"{split}.jsonl"), "--split", split, "--config", str(config)]
        subprocess.run(ingest, check=True, capture_output=True)
    command = [*cli, "run", "--wait", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout is not None
        assert any("waits for the review server" in line for line in run.stdout)
        assert any("waits for reviewers at" in line for line in run.stdout)
        proxy.faults.append(Fault("refused", "/api/tasks", method="GET", times=3))
        assert any("waits for the review server" in line for line in run.stdout)
        project = Project(tmp_path / "people.toml", RichProgress(Console(quiet=True)))
        reviewer = project.simulated_reviewer()
        assert reviewer is not None
        judged = reviewer.work()
        rest = run.stdout.read()
    assert run.returncode == 0, rest
    assert "finished: 1 rounds closed" in rest
    for board in project.open_boards():
        board.close()
    given = reading.verdicts_of(project.store, "tiny")
    assert len(given) == judged > 0
    project.store.close()


@pytest.mark.slow
def test_a_run_that_dies_while_its_import_is_under_way_puts_every_task_there_once(
    studio: studio_server.Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_URL", studio.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", studio.token)
    lived = unkilled("label_studio")
    site = next(each for each in lived.counts if each.startswith("request POST /api/projects/#/import"))
    [[projects, _]] = lived.facts["board"]
    assert projects > 1
    assert cell(lived.facts, "", "label_studio", site, "middle", 2, "amid")["differences"] == []


class Served:
    """`preceptor serve --register` in a process of its own, which looks by itself once an hour."""

    def __init__(self, folder: Path, studio: studio_server.Studio, here: Campaign) -> None:
        port = studio_server._free_port()
        here.board = LabelStudioBoard(studio.url, studio.token, title=f"{folder.name} {RUN}", page=review_page(TASK))
        here.push()
        config = folder / "config.toml"
        config.write_text(
            f'[run]\nname = "{RUN}"\ndatabase = "sqlite:///store.db"\n[task]\nanswer = "number"\n'
            f'[review]\nurl = "{studio.url}"\nproject = "{folder.name}"\npoll_seconds = 3600.0\n',
            encoding="utf-8",
        )
        self.url = f"http://127.0.0.1:{port}{PATH}"
        code = "from connectors.cli import main; main()"
        words = [sys.executable, "-c", code, "serve", "--register", "--port", str(port), "--config", str(config)]
        env = {"LABEL_STUDIO_API_KEY": studio.token, "PRECEPTOR_WEBHOOK_SECRET": "open sesame", "PATH": ""}
        self.process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.board = here.board
        self.project, self.token, self.studio = here.board.project(), studio.token, studio.url

    def __enter__(self) -> str:
        headers = {"Authorization": f"Token {self.token}"}
        until = time.monotonic() + 90
        with httpx.Client(base_url=self.studio, headers=headers, trust_env=False) as api:
            while not api.get("/api/webhooks/", params={"project": self.project}).json():
                assert self.process.poll() is None, self.process.stdout.read()
                assert time.monotonic() < until
                time.sleep(0.2)
        return self.url

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        print(self.process.communicate(timeout=20)[0].decode())  # noqa: T201 - pytest shows it where a test fails
        self.board.close()
