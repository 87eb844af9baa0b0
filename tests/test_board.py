"""What every board must do, held against the real Label Studio and the fake."""

import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from connectors import label_studio_import, studio_server
from connectors.invitations import Invitations
from connectors.label_studio import LabelStudioBoard, Pace
from loop.answer import Answer, AnswerKind
from loop.config import ReviewerConfig, TaskConfig
from loop.errors import BadConfig, BoardDown, BoardRefused
from loop.records import Author, Flag, Item, Rationale, ReviewTask, Split, VerdictKind
from loop.store import items, rationales, reviews
from loop.store.reviews import RunReviewBook
from review.board import Board, BoardTask, Place, RawVerdict
from review.desk import Desk, Queue
from review.fake_board import FakeBoard
from review.page import Page, review_page
from review.simulated import SimulatedReviewer, Truth
from review.task import Details, board_task, result
from review.verdict import interpret
from tests import builders
from tests.builders import RUN, a_reply, a_round, a_store, id_of, queried, sent_to_review

HOSTILE = "<script>alert('x')</script> & {{7*7}} \u202e 🐘"
UNIQUE = "7b1d3a52-0000-4000-8000-{:012}"
OpenBoard = Callable[..., LabelStudioBoard]
TASK = TaskConfig(answer=AnswerKind.NUMBER)


def an_item(question: str = "What is 2 + 3 ?") -> Item:
    return Item(key="a", question=question, split=Split.POOL, text_hash="")


def a_task(number: int, *, steps: list[str] | None = None, question: str = "What is 2 + 3 ?") -> BoardTask:
    rationale = Rationale(
        id=number,
        item_key="a",
        round_id=1,
        author=Author.TEACHER,
        steps=steps or ["2 + 3 = 6"],
        answer=Answer(kind=AnswerKind.NUMBER, value="6").canonical,
        stated="6",
    )
    flag = Flag(rationale_id=number, check_name="arithmetic", step=0, evidence="it is 5", weight=0.9)
    task = ReviewTask(rationale_id=number, round_id=1, uid=f"run/1/{number}", reason="risk")
    return board_task(task, rationale, an_item(question), Details(flags=(flag,), risk=0.9), TASK)


@pytest.fixture(params=["fake", "label studio"])
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Board:
    """Each board in turn, empty."""
    title = f"t {abs(hash(request.node.name)) % 10**8}"
    if request.param == "fake":
        return FakeBoard(tmp_path / "board.json", title=title)
    made: Board = request.getfixturevalue("open_board")(title)
    return made


@pytest.fixture(params=["fake", "label studio"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Board]:
    """Opens a board whose projects take two tasks each, another object for the same one with every call."""
    title = f"s {abs(hash(request.node.name)) % 10**8}"
    if request.param == "fake":
        return lambda: FakeBoard(tmp_path / "board.json", title=title, tasks_per_project=2)
    open_board = request.getfixturevalue("open_board")
    return lambda: open_board(title, tasks_per_project=2)


@pytest.fixture
def open_board(studio: studio_server.Studio) -> Iterator[OpenBoard]:
    """Opens boards on the real server and closes them in the end."""
    with ExitStack() as stack:

        def opened(title: str, page: Page | None = None, **others: Any) -> LabelStudioBoard:
            where = {"url": studio.url, "token": studio.token, "title": title, **others}
            return stack.enter_context(closing(LabelStudioBoard(**where, page=page or review_page(TASK))))

        yield opened


@pytest.fixture
def api(studio: studio_server.Studio) -> Iterator[httpx.Client]:
    """The server's API, for what no board does."""
    headers = {"Authorization": f"Token {studio.token}"}
    with httpx.Client(base_url=studio.url, headers=headers, trust_env=False, timeout=30.0) as client:
        yield client


def test_tasks_get_another_assignee_and_place_and_keep_all_else(board: Board) -> None:
    board.put([a_task(1), a_task(2)])
    before = {each.uid: each for each in board.open_tasks()}
    made = a_task(2)
    board.arrange([replace(made, data={**made.data, "reviewer": "ann@example.org"}, score=0.25)])
    after = {each.uid: each for each in board.open_tasks()}
    assert after["run/1/1"] == before["run/1/1"]
    changed = replace(before["run/1/2"], data={**before["run/1/2"].data, "reviewer": "ann@example.org"}, score=0.25)
    assert after["run/1/2"] == changed


def test_putting_twice_is_putting_once(board: Board) -> None:
    first = board.put([a_task(1), a_task(2)])
    again = board.put([a_task(1), a_task(2), a_task(3)])
    assert {uid: again[uid] for uid in first} == first
    assert len(board.open_tasks()) == 3


def test_a_task_carries_its_doubts_and_no_verdict(board: Board) -> None:
    board.put([a_task(1)])
    (task,) = board.open_tasks()
    assert task.data["evidence_0"] == "it is 5"
    assert {region["from_name"] for region in task.prediction} == {"answer", "rationale"}


def test_a_verdict_comes_back_as_it_was_given(board: Board) -> None:
    placed = board.put([a_task(1)])
    given = result(VerdictKind.EDIT, steps=["2 + 3 = 5"], answer="5", note="hello")
    board.annotate(placed["run/1/1"].task, given, seconds=12.5, unique_id="7b1d3a52-0000-4000-8000-000000000001")
    (raw,) = board.changed(None)
    verdict = interpret(raw, board.name, None, an_item(), TASK)
    assert verdict.kind is VerdictKind.EDIT
    assert verdict.steps == ["2 + 3 = 5"]
    assert verdict.answer == Answer(kind=AnswerKind.NUMBER, value="5").canonical
    assert verdict.seconds == 12.5
    assert not verdict.simulated
    assert board.open_tasks() == []


def test_the_same_annotation_sent_twice_is_one(board: Board) -> None:
    placed = board.put([a_task(1)])
    for _ in range(2):
        board.annotate(
            placed["run/1/1"].task,
            result(VerdictKind.ACCEPT),
            seconds=1.0,
            unique_id="7b1d3a52-0000-4000-8000-000000000002",
        )
    assert len(board.changed(None)) == 1


def test_only_what_changed_since_comes_back(board: Board) -> None:
    placed = board.put([a_task(1)])
    board.annotate(placed["run/1/1"].task, result(VerdictKind.ACCEPT), seconds=1.0, unique_id=UNIQUE.format(3))
    (raw,) = board.changed(None)
    assert [each.updated_at for each in board.changed(raw.updated_at)] == [raw.updated_at]
    assert board.changed("2099-01-01T00:00:00.000000Z") == []


def test_a_listing_has_every_task_and_what_was_touched_only_those_with_annotations(board: Board) -> None:
    placed = board.put([a_task(1), a_task(2)])
    board.annotate(placed["run/1/1"].task, result(VerdictKind.ACCEPT), seconds=1.0, unique_id=UNIQUE.format(4))
    listed = {each.uid: (each.task, len(each.verdicts)) for each in board.listing(board.project())}
    assert listed == {"run/1/1": (placed["run/1/1"].task, 1), "run/1/2": (placed["run/1/2"].task, 0)}
    assert [each.uid for each in board.touched(board.project(), None)] == ["run/1/1"]
    assert list(board.touched(board.project(), "2099-01-01T00:00:00.000000Z")) == []


def test_a_removed_task_is_gone_and_may_be_put_again(board: Board) -> None:
    placed = board.put([a_task(1), a_task(2)])
    board.remove(placed["run/1/1"].task)
    assert [each.uid for each in board.listing(board.project())] == ["run/1/2"]
    board.put([a_task(1), a_task(2)])
    assert sorted(each.uid for each in board.listing(board.project())) == ["run/1/1", "run/1/2"]


def test_a_task_that_somebody_answered_is_not_removed_from_label_studio(open_board: OpenBoard) -> None:
    board = open_board("keeping")
    task = board.put([a_task(1)])["run/1/1"].task
    board.annotate(task, result(VerdictKind.ACCEPT), seconds=1.0, unique_id=UNIQUE.format(5))
    board.remove(task)
    assert len(board.changed(None)) == 1


def test_requests_keep_the_pace() -> None:
    pace, started = Pace(per_second=50), time.monotonic()
    for _ in range(6):
        pace(httpx.Request("GET", "http://127.0.0.1"))
    assert time.monotonic() - started >= 0.1


def test_a_server_that_may_not_call_an_address_is_told_of(open_board: OpenBoard) -> None:
    with pytest.raises(BoardRefused, match="USE_DEFAULT_BANNED_SUBNETS"):
        open_board("calling").register("http://192.168.0.1/label-studio", {"X-Secret": "s"})


def test_registering_twice_is_registering_once(open_board: OpenBoard, api: httpx.Client) -> None:
    board = open_board("registering")
    address = "http://127.0.0.1:9/label-studio"
    assert board.register(address, {"X-Secret": "old"})
    assert board.register(address, {"X-Secret": "new"})
    assert not board.register(address, {"X-Secret": "new"})
    (known,) = api.get("/api/webhooks/", params={"project": board.project()}).json()
    assert (known["headers"], known["send_payload"]) == ({"X-Secret": "new"}, False)


def test_hostile_text_comes_back_unchanged(board: Board) -> None:
    board.put([a_task(1, steps=[HOSTILE, "x" * 20_000], question=HOSTILE)])
    (task,) = board.open_tasks()
    assert task.data["question"] == HOSTILE
    assert task.data["steptext_0"] == HOSTILE
    assert len(task.data["steptext_1"]) == 20_000


def test_a_truth_that_lacks_what_is_open_is_named(board: Board) -> None:
    board.put([a_task(1)])
    reviewer = SimulatedReviewer([board], {}, TASK, error_rate=0.0, seconds=30, seed=0)
    with pytest.raises(BadConfig, match=r"truth has no row for a \(1 items wait"):
        reviewer.work()


def test_a_simulated_reviewer_works_through_the_board_and_says_so(board: Board) -> None:
    board.put([a_task(1), a_task(2)])
    truth = {"a": Truth("5", ("2 + 3 = 5",))}
    reviewer = SimulatedReviewer([board], truth, TASK, error_rate=0.0, seconds=30, seed=0)
    assert reviewer.work() == 2
    assert reviewer.work() == 0
    verdicts = [interpret(raw, board.name, None, an_item(), TASK) for raw in board.changed(None)]
    assert [verdict.kind for verdict in verdicts] == [VerdictKind.EDIT] * 2
    assert all(verdict.simulated for verdict in verdicts)


def test_a_skipped_task_is_no_verdict_on_the_fake(tmp_path: Path) -> None:
    board = FakeBoard(tmp_path / "board.json", title="t")
    board.skip(board.put([a_task(1)])["run/1/1"].task, unique_id="s")
    assert board.changed(None) == []
    assert len(board.open_tasks()) == 1


def test_a_skipped_task_is_no_verdict_on_label_studio(open_board: OpenBoard, api: httpx.Client) -> None:
    board = open_board("skipping")
    task = board.put([a_task(1)])["run/1/1"].task
    response = api.post(
        f"/api/tasks/{task}/annotations/", json={"result": result(VerdictKind.ACCEPT), "was_cancelled": True}
    )
    assert response.status_code == 201
    assert board.changed(None) == []
    assert len(board.open_tasks()) == 1


def test_a_changed_annotation_is_a_new_version_on_label_studio(open_board: OpenBoard, api: httpx.Client) -> None:
    board = open_board("changing")
    placed = board.put([a_task(1)])
    board.annotate(placed["run/1/1"].task, result(VerdictKind.ACCEPT), seconds=1.0, unique_id=UNIQUE.format(9))
    (first,) = board.changed(None)
    api.patch(f"/api/annotations/{first.annotation}/", json={"result": result(VerdictKind.REJECT)})
    (second,) = board.changed(first.updated_at)
    assert second.annotation == first.annotation
    assert second.updated_at > first.updated_at
    assert interpret(second, board.name, None, None, TASK).kind is VerdictKind.REJECT


def test_a_deleted_project_is_made_anew_with_what_is_put(open_board: OpenBoard, api: httpx.Client) -> None:
    board = open_board("deleting")
    board.put([a_task(1), a_task(2)])
    project = board.project()
    assert api.delete(f"/api/projects/{project}/").status_code == 204
    board.put([a_task(2)])
    assert board.project() != project
    assert [task.uid for task in board.open_tasks()] == ["run/1/2"]


@pytest.mark.parametrize("kind", list(AnswerKind))
def test_the_server_takes_the_page_for_every_kind_of_answer(api: httpx.Client, kind: AnswerKind) -> None:
    page = review_page(TaskConfig(answer=kind, labels={"a & b": "first", '<img src=x> "$uid"': "second"}))
    response = api.post("/api/projects/validate/", json={"label_config": page.config})
    assert response.status_code == 204, response.text


def test_a_new_version_of_the_page_is_a_new_project_and_old_verdicts_are_read(
    open_board: OpenBoard, tmp_path: Path
) -> None:
    store = a_store(tmp_path)
    items.add(store, [builders.an_item(key) for key in "ab"])
    opened = queried(store, a_round(store), ["a", "b"])
    for key in "ab":
        a_reply(store, opened, key, steps=["1 + 1 = 2"], answer=2)
    sent_to_review(store, opened, ["a", "b"])
    book, pages = RunReviewBook(store, RUN), [review_page(TASK), Page(review_page(TASK).config, "other guidelines")]
    old, new = (open_board("versions", page=page) for page in pages)
    desks = [Desk(lambda _, board=board: board, book, lambda _: {}, TASK) for board in (old, new)]
    desks[0].push(reviews.pending(store, id_of(opened)))
    judged, waiting = old.open_tasks()
    old.annotate(judged.task, result(VerdictKind.ACCEPT), seconds=1.0, unique_id=UNIQUE.format(20))
    assert desks[1].pull() == 1
    desks[1].push(reviews.pending(store, id_of(opened)))
    assert new.project() != old.project()
    assert [task.uid for task in new.open_tasks()] == [waiting.uid]
    assert new.projects() == [[new.project()], [old.project()]] == old.projects()[::-1]
    assert desks[1].pull() == 0


def test_long_titles_that_differ_are_different_projects(open_board: OpenBoard) -> None:
    first, second = (open_board(f"{'a long title ' * 4}{number}") for number in (1, 2))
    assert first.project() != second.project()
    assert first.projects() == [[first.project()]]


def test_the_guidelines_stand_before_the_page(open_board: OpenBoard, api: httpx.Client) -> None:
    page = review_page(TaskConfig(answer=AnswerKind.LABEL, labels={"<b>": "a <script>", "ham": "not spam"}))
    made = api.get(f"/api/projects/{open_board('guided', page=page).project()}/").json()
    assert made["show_instruction"]
    assert "<strong>accept</strong>" in made["expert_instruction"]
    assert "<strong>&lt;b&gt;</strong>: a &lt;script&gt;" in made["expert_instruction"]


def test_a_wrong_token_is_refused_with_the_cure(open_board: OpenBoard) -> None:
    with pytest.raises(BoardRefused, match=r"review\.token_env"):
        open_board("nobody", token="0" * 40).put([a_task(1)])


def test_a_server_that_is_down_is_named_with_the_cure(open_board: OpenBoard) -> None:
    with pytest.raises(BoardDown, match="preceptor review up"):
        open_board("nobody", url="http://127.0.0.1:9").put([a_task(1)])


def test_unreadable_results_are_kept_without_a_kind() -> None:
    hostile: list[list[dict[str, Any]]] = [
        [{"from_name": "verdict", "value": {"choices": ["maybe"]}}],
        [{"from_name": "verdict"}],
        [],
    ]
    for regions in hostile:
        raw = RawVerdict("u", "p", "1", "2026-01-01T00:00:00.000000Z", "1", 1.0, regions, {"result": regions})
        verdict = interpret(raw, "b", None, None, TASK)
        assert verdict.kind is None
        assert verdict.raw == {"result": regions}


def test_label_studio_hands_out_the_lowest_place_first_and_a_tab_shows_one_persons_work(
    open_board: OpenBoard, api: httpx.Client, studio: studio_server.Studio
) -> None:
    board = open_board("places")
    assignees = {1: "ann@example.org", 2: studio.user, 3: studio.user}
    tasks = []
    for number, place in ((1, 0.9), (2, 0.4), (3, 0.6)):
        made = a_task(number)
        tasks.append(replace(made, data={**made.data, "reviewer": assignees[number]}, score=place))
    board.put(tasks)
    project = board.project()
    first = api.get(f"/api/projects/{project}/next").json()
    assert first["data"]["uid"] == "run/1/2"
    board.arrange([replace(tasks[2], score=0.1)])
    tab = parse_qs(urlsplit(board.address_of(studio.user)).query)["tab"][0]
    assert board.address_of(studio.user).endswith(f"tab={tab}&labeling=1")
    listed = api.get("/api/tasks", params={"project": project, "view": tab}).json()["tasks"]
    assert [each["data"]["uid"] for each in listed] == ["run/1/3", "run/1/2"]
    assert board.people()[studio.user] == str(api.get("/api/current-user/whoami").json()["id"])


def test_an_invited_person_logs_in_and_finds_what_is_theirs_on_label_studio(
    open_board: OpenBoard, studio: studio_server.Studio
) -> None:
    invitations = Invitations(studio.url, studio.token)
    assert not invitations.is_open()
    invited = invitations.invite("Ann@Example.org")
    assert invited.password is not None
    assert invitations.invite("ann@example.org").password is None
    with pytest.raises(BoardRefused, match="is that an e-mail address"):
        invitations.invite("ann")
    board = open_board("invited")
    tasks = [a_task(number) for number in (1, 2, 3)]
    board.put(
        [
            replace(each, data={**each.data, "reviewer": "ann@example.org" if place else ""}, score=1 - place / 10)
            for place, each in enumerate(tasks)
        ]
    )
    address = urlsplit(board.address_of("ann@example.org"))
    with httpx.Client(base_url=studio.url, trust_env=False, timeout=30.0) as ann:
        ann.get("/user/login/")
        form = {"email": "ann@example.org", "password": invited.password}
        form["csrfmiddlewaretoken"] = ann.cookies["csrftoken"]
        headers = {"Referer": f"{studio.url}/user/login/"}
        assert ann.post("/user/login/", data=form, headers=headers).status_code == httpx.codes.FOUND
        tab = ann.get(f"/api/dm/views/{parse_qs(address.query)['tab'][0]}").json()
        asked = {"project": board.project(), "selectedItems": {"all": True, "excluded": []}}
        asked |= {name: tab["data"][name] for name in ("filters", "ordering")}
        headers = {"X-CSRFToken": ann.cookies["csrftoken"], "Referer": studio.url}
        where = f"/api/dm/actions?id=next_task&project={board.project()}"
        handed = ann.post(where, json=asked, headers=headers).json()
        assert handed["data"]["uid"] == "run/1/3"
        given = {"result": result(VerdictKind.ACCEPT), "lead_time": 5.0}
        ann.post(f"/api/tasks/{handed['id']}/annotations/", json=given, headers=headers)
    (raw,) = board.changed(None)
    assert raw.reviewer == board.people()["ann@example.org"]


def test_what_one_person_judged_twice_is_put_on_the_board_anew(board: Board, tmp_path: Path) -> None:
    store = a_store(tmp_path)
    items.add(store, [builders.an_item("a")])
    opened = queried(store, a_round(store), ["a"])
    a_reply(store, opened, "a", steps=["1 + 1 = 2"], answer=2)
    (rationale,) = rationales.of_round(store, id_of(opened))
    uids = {0: f"{RUN}/1/a", 1: f"{RUN}/1/a/2"}
    wanted = [reviews.Wanted(rationale, "risk", uid, slot) for slot, uid in uids.items()]
    reviews.open_tasks(store, RUN, id_of(opened), wanted, 1_500_000)
    queue = Queue(reviewers=(ReviewerConfig(name="ann@example.org"), ReviewerConfig(name="bob@example.org")))
    desk = Desk(lambda _: board, RunReviewBook(store, RUN), lambda _: {}, TASK, queue)
    desk.push(reviews.pending(store, id_of(opened)))
    assert {each.data["reviewer"] for each in board.open_tasks()} == {"ann@example.org", "bob@example.org"}
    for number, task in enumerate(board.open_tasks()):
        board.annotate(task.task, result(VerdictKind.ACCEPT), seconds=1.0, unique_id=UNIQUE.format(30 + number))
    assert desk.pull() == 2
    (waiting,) = reviews.pending(store, id_of(opened))
    assert waiting[0].slot == 1
    desk.push([waiting])
    desk.push(reviews.pending(store, id_of(opened)))
    assert [each.uid for each in board.open_tasks()] == [f"1~{uids[1]}"]
    assert desk.pull() == 0


def test_forgotten_tasks_are_gone_with_what_was_said_of_them_and_others_stay(board: Board) -> None:
    copied = a_task(1)
    board.put([copied, replace(copied, uid="1~run/1/1", data={**copied.data, "uid": "1~run/1/1"}), a_task(2)])
    first = next(each for each in board.open_tasks() if each.uid == "run/1/1")
    board.annotate(first.task, result(VerdictKind.ACCEPT), seconds=1.0, unique_id=UNIQUE.format(90))
    assert len(board.changed(None)) == 1
    assert board.forget({"run/1/1", "run/1/3"}) == 2
    assert [each.uid for each in board.listing(board.project())] == ["run/1/2"]
    assert board.changed(None) == []
    assert board.forget({"run/1/1", "run/1/3"}) == 0


def some_tasks(*numbers: int) -> list[BoardTask]:
    return [a_task(number) for number in numbers]


def places(board: Board) -> dict[str, Place]:
    """Where each task of this version of the page is listed."""
    return {each.uid: Place(project, each.task) for project in board.projects()[0] for each in board.listing(project)}


def sizes(board: Board) -> list[int]:
    """How many tasks each project with tasks has."""
    return [many for project in board.projects()[0] if (many := len([*board.listing(project)]))]


def test_what_a_project_does_not_take_stands_in_further_ones_once(small: Callable[[], Board]) -> None:
    board = small()
    placed = board.put(some_tasks(1, 2, 3, 4, 5))
    assert sizes(board) == [2, 2, 1]
    assert places(board) == placed
    again = small().put(some_tasks(5, 4, 3, 2, 1, 6))
    assert {uid: again[uid] for uid in placed} == placed
    assert sizes(small()) == [2, 2, 2]
    assert places(small()) == again
    assert {each.uid: each.task for each in board.open_tasks()} == {uid: at.task for uid, at in again.items()}


def test_verdicts_come_back_from_every_project_with_its_id(small: Callable[[], Board]) -> None:
    board = small()
    placed = board.put(some_tasks(1, 2, 3))
    for number, at in enumerate(placed.values()):
        board.annotate(at.task, result(VerdictKind.ACCEPT), seconds=1.0, unique_id=f"{uuid.uuid4()}")
        assert len(board.open_tasks()) == 2 - number
    assert {raw.uid: raw.project for raw in board.changed(None)} == {uid: at.project for uid, at in placed.items()}
    for project in board.projects()[0]:
        here = {uid for uid, at in placed.items() if at.project == project}
        assert {raw.uid for raw in board.changed(None, project)} == here
        assert {each.uid for each in board.touched(project, None)} == here


def test_tasks_go_from_any_project_and_the_next_ones_take_their_room(small: Callable[[], Board]) -> None:
    board = small()
    placed = board.put(some_tasks(1, 2, 3, 4, 5))
    board.remove(placed["run/1/3"].task)
    assert board.forget({"run/1/1", "run/1/5"}) == 2
    assert {uid: placed[uid] for uid in ("run/1/2", "run/1/4")} == places(board)
    more = small().put(some_tasks(6, 7))
    assert [at.project for at in more.values()] == [placed[uid].project for uid in ("run/1/1", "run/1/3")]
    assert sizes(board) == [2, 2]


def test_the_desk_takes_several_projects_for_one_board(small: Callable[[], Board], tmp_path: Path) -> None:
    keys = "abcde"
    store = a_store(tmp_path)
    items.add(store, [builders.an_item(key) for key in keys])
    opened = queried(store, a_round(store), [*keys])
    for key in keys:
        a_reply(store, opened, key, steps=["1 + 1 = 2"], answer=2)
    sent_to_review(store, opened, [*keys])
    book = RunReviewBook(store, RUN)
    for _ in range(2):
        Desk(lambda _: small(), book, lambda _: {}, TASK).push(reviews.pending(store, id_of(opened)))
    board = small()
    noted = {each.uid: Place(each.project, each.task) for each in reviews.tasks(store, id_of(opened))}
    assert noted == places(board)
    assert sizes(board) == [2, 2, 1]
    for at in noted.values():
        board.annotate(at.task, result(VerdictKind.ACCEPT), seconds=1.0, unique_id=f"{uuid.uuid4()}")
    desk = Desk(lambda _: board, book, lambda _: {}, TASK)
    assert [desk.pull(), desk.pull(), desk.pull(whole=True)] == [len(keys), 0, 0]
    assert reviews.pending(store, id_of(opened)) == []
    assert places(board) == noted


def test_further_projects_have_the_same_page_and_its_title_with_a_number(
    open_board: OpenBoard, api: httpx.Client
) -> None:
    for title in ("numbered", f"numbered {'x' * 31}"):  # the longest that settings allow, and a run's name
        board = open_board(title, tasks_per_project=1)
        board.put(some_tasks(1, 2, 3))
        made = [api.get(f"/api/projects/{each}/").json() for each in open_board(title).projects()[0]]
        version = review_page(TASK).version
        assert [each["title"].partition(f" v{version}")[2] for each in made] == ["", " (2)", " (3)"]
        assert len({(each["label_config"], each["expert_instruction"], each["sampling"]) for each in made}) == 1
    assert open_board("numbered").projects()[0] != open_board(title).projects()[0]


def test_an_older_page_keeps_its_projects_together(open_board: OpenBoard) -> None:
    pages = [review_page(TASK), Page(review_page(TASK).config, "other guidelines")]
    old, new = (open_board("kept together", page=page, tasks_per_project=1) for page in pages)
    old.put(some_tasks(1, 2))
    assert [len(version) for version in new.projects()] == [0, 2]
    new.put(some_tasks(2, 3))
    assert new.projects() == old.projects()[::-1]
    assert [len(version) for version in new.projects()] == [2, 2]
    assert [task.uid for task in new.open_tasks()] == ["run/1/2", "run/1/3"]
    assert new.forget({"run/1/2"}) == 2


def test_people_are_sent_where_they_have_open_tasks(open_board: OpenBoard) -> None:
    board = open_board("sent", tasks_per_project=2)
    tasks = [
        replace(each, data={**each.data, "reviewer": "ann" if number < 3 else "bob"})
        for number, each in enumerate(some_tasks(1, 2, 3, 4, 5), start=1)
    ]
    placed = board.put(tasks)
    first, second, third = board.projects()[0]

    def linked(addresses: str) -> list[str]:
        return [urlsplit(each).path.split("/")[2] for each in addresses.split(", ")]

    assert linked(board.address()) == [first, second, third]
    assert linked(board.address_of("ann")) == [first]
    assert linked(board.address_of("bob")) == [second, third]
    assert linked(board.address_of("eve")) == [third]
    for uid in ("run/1/1", "run/1/2", "run/1/5"):
        board.annotate(placed[uid].task, result(VerdictKind.ACCEPT), seconds=1.0, unique_id=f"{uuid.uuid4()}")
    assert linked(board.address()) == linked(board.address_of("bob")) == [second]
    assert board.address_of("bob") == board.address_of("bob")


def test_every_project_calls_the_address_and_a_new_one_does_once_asked(
    open_board: OpenBoard, api: httpx.Client
) -> None:
    board, address, headers = open_board("calls", tasks_per_project=2), "http://127.0.0.1:9/label-studio", {"X": "s"}
    for numbers in ((1, 2, 3), (4, 5)):
        board.put(some_tasks(*numbers))
        assert board.register(address, headers)
        assert not board.register(address, headers)
    for project in board.projects()[0]:
        assert [each["url"] for each in api.get("/api/webhooks/", params={"project": project}).json()] == [address]
    assert len(board.projects()[0]) == 3


@pytest.mark.parametrize(("took", "rests"), [(4.0, [4.0, 4.0]), (100.0, [30.0, 30.0])])
def test_the_server_rests_as_long_as_an_import_took_and_after_the_last_one_not_at_all(
    took: float, rests: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, slept = [0.0], []

    def passes(seconds: float) -> None:
        clock[0] += seconds

    def sleeps(seconds: float) -> None:
        slept.append(seconds)
        passes(seconds)

    monkeypatch.setattr(label_studio_import, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleeps))
    sent = label_studio_import.paced(lambda piece: (piece, passes(took)), [1, 2, 3])
    assert [piece for piece, _ in sent] == [1, 2, 3]
    assert slept == rests


def test_who_is_interrupted_in_a_rest_goes_at_once_and_sends_no_more() -> None:
    sent, came = [], [0.0]

    def send(piece: int) -> None:
        time.sleep(2.0)
        sent.append(piece)

    def works() -> None:
        for _ in label_studio_import.paced(send, [1, 2]):
            came[0] = time.monotonic()
            threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            works()
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - came[0] < 1.5
    assert sent == [1]
