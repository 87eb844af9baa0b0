"""Accounts on the pages: what each role may see and do, who is let in and for how long, and who did what."""

import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from io import StringIO
from math import inf
from pathlib import Path
from time import sleep
from types import SimpleNamespace

import httpx
import pytest
from argon2 import PasswordHasher
from rich.console import Console
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError
from starlette.testclient import TestClient
from typer.testing import CliRunner

from connectors import web
from connectors.accounts import add, change_password, operator, remove
from connectors.attempts import MOST_BY_ADDRESS, MOST_BY_NAME, WINDOW_SECONDS, Attempts, TooOften
from connectors.cli import app as command
from connectors.dashboard import Dashboard
from connectors.door import COOKIE, Door, Visitor, digest, form_of
from connectors.progress import RichProgress
from connectors.site import application
from connectors.wiring import Project
from loop.errors import BadConfig, PreceptorError
from loop.records import Deed, Role, Stage
from loop.store import accounts, rounds
from loop.store.database import Store, now
from loop.store.reviews import RunReviewBook
from tests.builders import RUN, a_campaign, a_reply, a_round, a_store, checked, decided_kinds, queried, sent_to_review
from tests.served import served

HERE = "http://127.0.0.1"
TOKEN = "a long random word"
PASSWORD = "correct horse battery"
PEOPLE = {"vera": Role.VIEWER, "lea": Role.LEAD, "otto": Role.OWNER}
PAGES = ["", "/learning", "/money", "/doubts", "/domains", "/reviewers", "/queue", "/items", "/item?key=q1"]
LOOK = [*(f"/runs/{RUN}{page}" for page in PAGES), "/metrics"]
ACTS = {
    f"/runs/{RUN}/push": {},
    f"/runs/{RUN}/pull": {},
    f"/runs/{RUN}/recall": {"reviewer": "reviewer-1"},
    "/users/remove": {"name": "nobody"},
    "/password": {"current": "a guess"},
    "/logout": {},
}
"""What can be sent, with the fields of its form."""


def a_project(folder: Path) -> Project:
    """A campaign in the folder whose third round waits for a review, on a fake board."""
    file = folder / "config.toml"
    file.write_text(f'[run]\ndatabase = "sqlite:///{folder / "store.db"}"\n[review]\nboard = "fake"\n', "utf-8")
    store = a_store(folder)
    a_campaign(store)
    opened = queried(store, a_round(store), ["q6"])
    checked(store, a_reply(store, opened, "q6", steps=["odd"], answer=3), 0.9, "odd")
    sent_to_review(store, rounds.enter(store, opened, Stage.REVIEW), ["q6"])
    store.close()
    (folder / "runs" / RUN).mkdir(parents=True)
    return Project(file, RichProgress(Console(quiet=True)))


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is: no page is made behind a look, whose connection would outlive the test."""
    monkeypatch.setattr("connectors.dashboard.SLOW_SECONDS", inf)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = a_project(tmp_path)
    yield project
    project.store.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project in which nobody has an account."""
    project = a_project(tmp_path_factory.mktemp("alone"))
    yield project
    project.store.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with a person of each role."""
    project = a_project(tmp_path_factory.mktemp("shared"))
    for name, role in PEOPLE.items():
        add(project.store, name, role, PASSWORD)
    yield project
    project.store.close()


def browser(project: Project, token: str | None = None, *, local: bool = True, at: str = HERE) -> TestClient:
    """A browser before the project's pages."""
    dashboard = Dashboard(
        project.store, project.config, lambda: Project(project.path, RichProgress(Console(quiet=True)))
    )
    return TestClient(application(dashboard, token, local=local), base_url=at, follow_redirects=False)


def form_on(page: httpx.Response) -> str:
    found = re.search(r'name="form" value="([0-9a-f]+)"', page.text)
    assert found is not None, page.text
    return found[1]


def log_in(client: TestClient, name: str, password: str = PASSWORD) -> httpx.Response:
    asked = client.get("/login")
    return client.post("/login", data={"form": form_on(asked), "name": name, "password": password})


def as_person(project: Project, who: str) -> TestClient:
    """A browser in which somebody is logged in; `nobody` is not, and `token` is a program."""
    client = browser(project, TOKEN)
    if who == "token":
        client.headers["authorization"] = f"Bearer {TOKEN}"
    elif who != "nobody":
        word = f"{who} once more {uuid.uuid4()}"
        account = accounts.get(project.store, who)
        assert account is not None
        assert accounts.let_in(project.store, account, digest(word), 1.0)
        client.cookies.set(COOKIE, word, domain="127.0.0.1", path="/")
    return client


def send(client: TestClient, place: str, **more: str) -> httpx.Response:
    """Send a form as its page would."""
    return client.post(
        place, data={"form": form_of(client.cookies.get(COOKIE) or "none"), **ACTS.get(place, {}), **more}
    )


def deeds(project: Project) -> list[tuple[str, str, str, str, bool]]:
    """What was noted, the oldest first."""
    return [(each.who, each.way, each.what, each.about, each.failed) for each in accounts.deeds(project.store, None)][
        ::-1
    ]


# --- what each role may do ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "looks", "owns"),
    [("nobody", 303, 303), ("token", 200, 403), ("vera", 200, 403), ("lea", 200, 403), ("otto", 200, 200)],
)
def test_every_page_is_shown_to_whom_it_is_for(shared: Project, who: str, looks: int, owns: int) -> None:
    client = as_person(shared, who)
    assert {place: client.get(place).status_code for place in LOOK} == dict.fromkeys(LOOK, looks)
    assert client.get("/users").status_code == owns
    offered = {place for page in LOOK for place in re.findall(r'action="([^"]+)"', client.get(page).text)}
    acts = {f"/runs/{RUN}/{act}" for act in ("push", "pull", "recall")}
    assert offered & acts == (acts if who in ("lea", "otto") else set())
    assert ('href="/users"' in client.get(LOOK[0]).text) == (who == "otto")


@pytest.mark.parametrize(
    ("who", "leads", "owns", "changes", "leaves"),
    [
        ("nobody", 401, 401, 401, 401),
        ("token", 403, 403, 403, 403),
        ("vera", 403, 403, 409, 303),  # it is not their password
        ("lea", 200, 403, 409, 303),
        ("otto", 200, 409, 409, 303),  # there is no such account
    ],
)
def test_everything_that_can_be_done_is_done_for_whom_it_is_for(
    shared: Project, who: str, leads: int, owns: int, changes: int, leaves: int
) -> None:
    client = as_person(shared, who)
    expected = {place: leads for place in ACTS if place.startswith("/runs")}
    expected |= {"/users/remove": owns, "/password": changes, "/logout": leaves}
    assert {place: send(client, place).status_code for place in ACTS} == expected


def test_the_table_of_what_can_be_done_leaves_nothing_out(shared: Project) -> None:
    app = browser(shared).app._app  # type: ignore[attr-defined]
    posted = {each.path for each in app.routes if "POST" in (getattr(each, "methods", None) or ())}
    assert posted == {place.replace(f"/runs/{RUN}/", "/runs/{run}/") for place in ACTS} | {"/login"}
    changing = {
        each.path for each in app.routes if {"PUT", "PATCH", "DELETE"} & (getattr(each, "methods", None) or set())
    }
    assert changing == set()


@pytest.mark.parametrize("place", ACTS)
def test_a_form_that_is_not_from_a_page_made_for_this_browser_does_nothing(shared: Project, place: str) -> None:
    client, other = as_person(shared, "otto"), as_person(shared, "lea")
    fields, theirs = ACTS[place], form_of(other.cookies[COOKIE])
    assert client.post(place, data=fields).status_code == 403
    for forged in ("", "0" * 64, theirs):
        assert client.post(place, data={"form": forged, **fields}).status_code == 403
    far = {"sec-fetch-site": "cross-site"}
    own = {"form": form_of(client.cookies[COOKIE]), **fields}
    assert client.post(place, data=own, headers=far).status_code == 403
    assert client.get("/users").status_code == 200, "still logged in"


def test_without_accounts_loopback_stays_as_it_was(alone: Project) -> None:
    client, before = browser(alone), deeds(alone)
    assert {client.get(place).status_code for place in LOOK} == {200}
    assert not any("<form" in client.get(place).text.replace('<form class="card wide search"', "") for place in LOOK)
    assert {client.post(place, data={"form": ""}).status_code for place in ACTS} == {403}
    assert [client.get(place).status_code for place in ("/users", "/password")] == [403, 403]
    assert client.get("/login").headers["location"] == "/"
    assert deeds(alone) == before


@pytest.mark.parametrize("header", ["x-forwarded-for", "x-real-ip", "forwarded", "via"])
def test_a_proxy_that_calls_by_a_name_of_loopback_opens_nothing_to_others(alone: Project, header: str) -> None:
    client = browser(alone)
    refused = client.get(LOOK[0], headers={header: "203.0.113.7"})
    assert (refused.status_code, "preceptor users add" in refused.text) == (421, True)
    assert client.get(LOOK[0]).status_code == 200


@pytest.mark.parametrize("host", ["x/login?", "x/static/?", "x/login#", "x/login\\"])
def test_no_host_makes_another_page_look_like_the_one_for_logging_in(shared: Project, host: str) -> None:
    client = as_person(shared, "nobody")
    answers = [client.get(place, headers={"host": host}).status_code for place in (*LOOK, "/users")]
    assert {*answers} == {303}, "also where an older Starlette makes `request.url` of the host as it came"


def test_the_first_account_closes_the_pages_and_without_any_only_loopback_opens_them(alone: Project) -> None:
    near, far = browser(alone), browser(alone, local=False)
    assert [each.get(LOOK[0]).status_code for each in (near, far)] == [200, 303]
    add(alone.store, "otto", Role.OWNER, PASSWORD)
    assert [each.get(LOOK[0]).status_code for each in (near, far)] == [303, 303]
    remove(alone.store, "otto")
    assert [each.get(LOOK[0]).status_code for each in (near, far)] == [200, 303]
    assert far.post("/login", data={}).status_code == 403


def test_others_are_served_where_people_have_accounts(alone: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(alone.config.serve.token_env, raising=False)

    async def served(*_: object, **__: object) -> None:
        pass

    monkeypatch.setattr(web, "_serve", served)
    with pytest.raises(BadConfig, match=r"stay on 127\.0\.0\.1"):
        web.serve(alone, host="0.0.0.0", port=0)
    add(alone.store, "otto", Role.OWNER, PASSWORD)
    web.serve(alone, host="0.0.0.0", port=0)
    remove(alone.store, "otto")


@pytest.mark.parametrize(("token", "told"), [("s3cr!", True), (TOKEN, False)])
def test_a_token_that_programs_can_guess_is_named(
    alone: Project, monkeypatch: pytest.MonkeyPatch, token: str, told: bool
) -> None:
    async def served(*_: object, **__: object) -> None:
        pass

    said = StringIO()
    project = Project(alone.path, RichProgress(Console(file=said, width=400)))
    monkeypatch.setenv(project.config.serve.token_env, token)
    monkeypatch.setattr(web, "_serve", served)
    monkeypatch.setattr(Dashboard, "look_ahead", lambda _: None)
    web.serve(project, host="127.0.0.1", port=0)
    project.store.close()
    assert ("has 5 characters, and programs may guess" in said.getvalue()) == told
    assert "the dashboard is at" in said.getvalue()
    assert token not in said.getvalue()


def test_a_page_that_is_kept_for_many_holds_nobodys_form(shared: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.dashboard.SLOW_SECONDS", 0.0)
    monkeypatch.setattr("connectors.dashboard.KEPT_TIMES", 10_000)
    dashboard = Dashboard(shared.store, shared.config, lambda: shared)
    lead = dashboard.page(Visitor("lea", Role.LEAD, "her own form"), RUN, "queue")
    viewer = dashboard.page(Visitor("vera", Role.VIEWER, "another form"), RUN, "queue")
    assert "her own form" in lead
    assert not {"her own form", "lea"} & set(re.findall(r"her own form|\blea\b", viewer))


# --- what is done is what the commands do ---------------------------------------------------------------------------


def test_a_lead_takes_back_what_a_reviewer_said_as_the_command_does(project: Project) -> None:
    add(project.store, "lea", Role.LEAD, PASSWORD)
    client, place = as_person(project, "lea"), f"/runs/{RUN}/recall"
    before = decided_kinds(project.store)
    shown = send(client, place, since="2020-01-01T00:00", reason="sleeps")
    assert "4 verdicts of reviewer-1 since 2020-01-01 00:00 UTC would no longer count (sleeps)" in shown.text
    assert decided_kinds(project.store) == before
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', shown.text.split("<main")[1]))
    done = client.post(place, data=fields)
    assert "4 verdicts of reviewer-1 since 2020-01-01 00:00 UTC no longer count (sleeps)" in done.text
    assert [key for key, kind in decided_kinds(project.store).items() if kind == "undecided"] == [
        "q1",
        "q2",
        "q4",
        "q5",
    ]
    assert deeds(project)[-1] == ("lea", "page", "recall", "run main, reviewer-1 since 2020-01-01T00:00", False)
    again = client.post(place, data=fields)
    assert (again.status_code, "gave no verdict" in again.text) == (409, True)
    assert deeds(project)[-1][2:] == ("recall", "run main, reviewer-1 since 2020-01-01T00:00", True)


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"reviewer": "ann@example.org"}, "no such reviewer"), ({"since": "soon"}, "soon: not a date")],
)
def test_a_recall_that_cannot_be_is_told_why_and_names_nobody(
    shared: Project, fields: dict[str, str], told: str
) -> None:
    answer = send(as_person(shared, "lea"), f"/runs/{RUN}/recall", **fields)
    assert (answer.status_code, told in answer.text) == (409, True)
    assert "example.org" not in answer.text


def test_a_lead_puts_reviews_on_the_board_and_only_of_the_run_that_is_served(shared: Project) -> None:
    client, before = as_person(shared, "lea"), len(deeds(shared))
    assert "1 reviews stand at the fake board" in send(client, f"/runs/{RUN}/push").text
    assert RunReviewBook(shared.store, RUN).placed("fake", shared.board().project()) == {"main/3/q6"}
    assert "0 new, changed or deleted verdicts" in send(client, f"/runs/{RUN}/pull").text
    assert send(client, "/runs/other/push").status_code == 404
    assert [each[:3] for each in deeds(shared)[before:]] == [
        ("lea", "page", f"review {act}") for act in ("push", "pull")
    ]


def test_an_owner_sees_who_did_what_and_removes_others_but_not_themselves(shared: Project) -> None:
    add(shared.store, "gone", Role.VIEWER, PASSWORD)
    client = as_person(shared, "otto")
    assert send(client, "/users/remove", name="otto").status_code == 409
    assert send(client, "/users/remove", name="gone").headers["location"] == "/users"
    forged = "x\n2026-11-30 08:00:00 lea (page) recall"
    assert "a name has 1 to 64" in send(client, "/users/remove", name=forged).text
    said = client.get("/users").text
    assert "gone as viewer" in said
    assert [each.name for each, _ in accounts.every(shared.store)] == ["lea", "otto", "vera"]
    assert deeds(shared)[-1] == ("otto", "page", "users remove", "gone", False)


def test_commands_that_change_what_counts_are_noted_too(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pwd.getpwuid", lambda _: SimpleNamespace(pw_name="root-of-it-all"))
    monkeypatch.setenv("LOGNAME", "somebody-else")
    config = ["--config", str(project.path)]
    for asked in (["review", "push"], ["review", "pull"], ["recall", "--reviewer", "reviewer-1"]):
        assert CliRunner().invoke(command, [*asked, *config]).exit_code == 0
    CliRunner().invoke(command, ["recall", "--reviewer", "reviewer-1", "--reason", "sleeps", "--apply", *config])
    CliRunner().invoke(command, ["forget", "q7", "--apply", *config])
    assert [(who, way, what) for who, way, what, _, _ in deeds(project)] == [
        ("root-of-it-all", "command", what) for what in ("review push", "review pull", "recall", "forget")
    ]
    told = CliRunner().invoke(command, ["users", "log", "--limit", "2", *config]).output
    assert "root-of-it-all (command) recall: run main, reviewer-1" in told
    assert "q7" not in told


def test_deeds_are_only_added(database: str) -> None:
    store = Store(database)
    store.migrate()
    accounts.note(store, Deed(at=now(), who="otto", way="page", what="recall"))
    for statement in ("UPDATE deed SET who = 'lea'", "DELETE FROM deed"):
        with closing(store._engine.connect()) as connection, pytest.raises(DatabaseError, match="only added"):
            connection.execute(text(statement))
    assert [each.who for each in accounts.deeds(store, None)] == ["otto"]
    store.close()


# --- who is let in, and for how long --------------------------------------------------------------------------------


def test_a_visit_ends_by_itself_at_logout_and_with_its_account_or_password(
    shared: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(shared.store, "vic", Role.VIEWER, PASSWORD)

    def visit() -> TestClient:
        client = browser(shared)
        log_in(client, "vic")
        assert client.get(LOOK[0]).status_code == 200
        return client

    left = visit()
    word = left.cookies[COOKIE]
    assert send(left, "/logout").headers["location"] == "/login"
    assert left.get(LOOK[0], headers={"cookie": f"{COOKIE}={word}"}).status_code == 303
    late = visit()
    with monkeypatch.context() as later:
        hours = timedelta(hours=shared.config.serve.session_hours)
        later.setattr("connectors.door.now", lambda: now() + hours - timedelta(minutes=1))
        assert late.get(LOOK[0]).status_code == 200
        later.setattr("connectors.door.now", lambda: now() + hours + timedelta(minutes=1))
        assert late.get(LOOK[0]).status_code == 303
    assert late.get(LOOK[0]).status_code == 200
    change_password(shared.store, "vic", "another long one")
    assert late.get(LOOK[0]).status_code == 303
    assert log_in(late, "vic").headers["location"] == "/login?wrong=true"
    assert log_in(late, "vic", "another long one").headers["location"] == "/"
    remove(shared.store, "vic")
    assert late.get(LOOK[0]).status_code == 303


def test_a_word_that_somebody_put_into_the_browser_is_never_let_in(shared: Project) -> None:
    client = browser(shared)
    client.cookies.set(COOKIE, "chosen by somebody else", domain="127.0.0.1", path="/")
    planted = {"cookie": f"{COOKIE}=chosen by somebody else"}
    kept = log_in(client, "otto").headers["set-cookie"]
    first = re.match(rf"{COOKIE}=([^;]+);", kept)
    assert first is not None
    assert browser(shared).get("/users", headers=planted).status_code == 303
    mine = {"cookie": f"{COOKIE}={first[1]}"}
    assert browser(shared).get("/users", headers=mine).status_code == 200
    both = {"cookie": f"{COOKIE}={first[1]}; preceptor-form=x"}
    again = browser(shared).post(
        "/login", headers=both, data={"form": form_of("x"), "name": "otto", "password": PASSWORD}
    )
    assert again.headers["location"] == "/"
    assert browser(shared).get("/users", headers=mine).status_code == 303, "the visit before it is over"


def test_the_cookie_is_for_this_site_alone_and_the_store_holds_no_word_or_password(shared: Project) -> None:
    client = browser(shared, at="https://127.0.0.1")
    kept = log_in(client, "vera").headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/", "Secure", "Max-Age=43200"} <= {*map(str.strip, kept.split(";"))}
    assert "Secure" not in log_in(browser(shared), "vera").headers["set-cookie"]
    with shared.store.reading() as session:
        held = [*session.connection().exec_driver_sql("SELECT * FROM visit, account")]
    assert "$argon2id$" in str(held)
    assert client.cookies[COOKIE] not in str(held)
    assert PASSWORD not in str(held)


def test_logging_in_leads_nowhere_else(shared: Project) -> None:
    client = browser(shared)
    form = form_on(client.get("/login?next=https://evil.example"))
    sent = {"form": form, "name": "vera", "password": PASSWORD, "next": "https://evil.example"}
    assert client.post("/login?next=https://evil.example", data=sent).headers["location"] == "/"


def test_a_login_form_of_another_browser_or_site_is_refused(shared: Project) -> None:
    client, given = browser(shared), {"name": "vera", "password": PASSWORD}
    theirs = form_on(browser(shared).get("/login"))
    client.get("/login")
    for form in ("", theirs):
        assert client.post("/login", data={**given, "form": form}).status_code == 403
    own = form_on(client.get("/login"))
    far = {"sec-fetch-site": "same-site"}
    assert client.post("/login", data={**given, "form": own}, headers=far).status_code == 403
    assert COOKIE not in client.cookies


def test_an_unknown_name_costs_a_hash_like_a_known_one_and_is_not_kept(
    shared: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked_hashes: list[str] = []
    verify = PasswordHasher.verify

    def counted(self: PasswordHasher, hashed: str, password: str) -> bool:
        checked_hashes.append(hashed.rsplit("$", 2)[0])
        return verify(self, hashed, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    client = browser(shared)
    said = [log_in(client, name, "wrong").headers["location"] for name in ("vera", "hunter2hunter2")]
    assert said == ["/login?wrong=true"] * 2
    assert len(checked_hashes) == 2
    assert len(set(checked_hashes)) == 1, "with the same parameters"
    assert deeds(shared)[-2:] == [("vera", "page", "log in", "", True), ("", "page", "log in", "", True)]


def test_after_a_few_wrong_passwords_even_the_right_one_has_to_wait(shared: Project) -> None:
    client = browser(shared)
    for _ in range(MOST_BY_NAME):
        assert log_in(client, "vera", "wrong").status_code == 303
    answer = log_in(client, "VERA ")
    assert (answer.status_code, 0 < int(answer.headers["retry-after"]) <= WINDOW_SECONDS + 1) == (429, True)
    assert log_in(client, "lea").headers["location"] == "/"


def test_attempts_are_counted_by_name_and_by_address_and_forgiven_in_time() -> None:
    clock = [0.0]
    attempts = Attempts(lambda: clock[0])
    for number in range(MOST_BY_ADDRESS):
        attempts.begin(f"name{number}", f"2001:db8::{number:x}")
    attempts.begin("other", "2001:db8:1::1")
    with pytest.raises(TooOften, match="15 minutes"):
        attempts.begin("other", "2001:db8::ffff")
    clock[0] = WINDOW_SECONDS
    for _ in range(MOST_BY_NAME):
        attempts.begin("vera", "10.0.0.1")
    with pytest.raises(TooOften):
        attempts.begin("vera", "10.0.0.2")
    attempts.begin("vera", "10.0.0.3", known=True)
    attempts.succeeded("vera", "10.0.0.3", known=True)
    with pytest.raises(TooOften):
        attempts.begin("vera", "10.0.0.2")
    attempts.succeeded("vera", "10.0.0.1")
    attempts.begin("vera", "10.0.0.2")
    assert len(attempts._failed[("address", "10.0.0.1")]) == MOST_BY_NAME - 1, "others from there stay counted"


def test_who_guesses_keeps_nobody_out_of_a_browser_in_which_their_password_was_right(shared: Project) -> None:
    guesser = browser(shared)
    own = TestClient(guesser.app, base_url=HERE, follow_redirects=False)
    log_in(own, "vera")
    send(own, "/logout")
    kept = own.cookies["preceptor-known"]
    for _ in range(MOST_BY_NAME):
        log_in(guesser, "vera", "wrong")
    assert log_in(guesser, "vera").status_code == 429
    assert log_in(own, "vera").headers["location"] == "/"
    guesser.cookies.set("preceptor-known", kept, domain="127.0.0.1", path="/login")
    for _ in range(MOST_BY_NAME):
        assert log_in(guesser, "vera", "wrong").headers["location"] == "/login?wrong=true"
    assert log_in(guesser, "vera").status_code == 429, "there it is counted as well"


def test_who_waits_to_log_in_keeps_no_page_from_being_answered(shared: Project) -> None:
    app = browser(shared).app
    door: Door = app._door  # type: ignore[attr-defined]
    with served(app) as address, httpx.Client(base_url=address, timeout=60.0) as own, ThreadPoolExecutor(40) as many:
        sent = {"form": form_on(own.get("/login")), "name": "nobody", "password": "wrong"}
        with door._lock:  # as if a hash took long
            waiting = [many.submit(own.post, "/login", data=sent) for _ in range(40)]
            sleep(1.0)
            assert httpx.get(f"{address}/login", timeout=60.0).status_code == 200
            assert not any(each.done() for each in waiting)
    assert {each.result().status_code for each in waiting} <= {303, 429}


def test_people_change_their_own_password_which_ends_their_other_visits(shared: Project) -> None:
    add(shared.store, "paul", Role.VIEWER, PASSWORD)
    client, elsewhere = browser(shared), browser(shared)
    assert [log_in(each, "paul").headers["location"] for each in (client, elsewhere)] == ["/", "/"]
    assert 'href="/password"' in client.get(LOOK[0]).text
    given = {"form": form_on(client.get("/password")), "current": PASSWORD, "new": "another long one"}

    def said(**other: str) -> tuple[int, str]:
        answer = client.post("/password", data=given | {"again": "another long one"} | other)
        return answer.status_code, (re.findall(r'role="alert">([^<]*)', answer.text) or [""])[0]

    assert said(again="another one") == (409, "The two new passwords differ; nothing was changed.")
    for _ in range(MOST_BY_NAME):  # which is no guess
        assert "needs 12 to 1000; nothing" in said(new="short", again="short")[1]
    assert said(current="wrong") == (409, "The current password is not right; nothing was changed.")
    before, known = client.cookies[COOKIE], client.cookies["preceptor-known"]
    assert said() == (303, "")
    assert client.cookies[COOKIE] != before
    assert client.cookies["preceptor-known"] != known
    assert (client.get(LOOK[0]).status_code, elsewhere.get(LOOK[0]).status_code) == (200, 303)
    assert log_in(elsewhere, "paul").headers["location"] == "/login?wrong=true"
    assert log_in(elsewhere, "paul", "another long one").headers["location"] == "/"
    found = [each for each in deeds(shared) if (each[0], each[2]) == ("paul", "users password")]
    assert [(who, way, failed) for who, way, _, _, failed in found] == [("paul", "page", True), ("paul", "page", False)]
    given |= {"form": form_on(client.get("/password"))}
    for _ in range(MOST_BY_NAME):
        assert said(current="wrong")[0] == 409
    assert said(current="another long one")[0] == 429
    remove(shared.store, "paul")


def test_nobody_is_let_in_by_a_password_that_is_being_changed(database: str) -> None:
    store, other = Store(database), Store(database)
    store.migrate()
    accounts.add(store, "vic", Role.VIEWER, "a hash")
    account = accounts.get(store, "vic")
    assert account is not None
    with ThreadPoolExecutor(1) as pool:
        with store.writing() as session:
            session.execute(text("UPDATE account SET password = 'another' WHERE name = 'vic'"))
            entering = pool.submit(accounts.let_in, other, account, digest("word"), 1.0)
            sleep(0.3)
        assert entering.result() is False
    assert [visits for _, visits in accounts.every(store)] == [0]
    store.close()
    other.close()


def test_guesses_at_the_token_are_counted_too(alone: Project) -> None:
    client = browser(alone, TOKEN)
    for _ in range(MOST_BY_ADDRESS):
        form = form_on(client.get("/login"))
        assert client.post("/login", data={"form": form, "token": "a guess"}).status_code == 303
    assert client.post("/login", data={"form": form, "token": TOKEN}).status_code == 429
    assert client.get(LOOK[0], headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


# --- the command ----------------------------------------------------------------------------------------------------


def test_accounts_are_made_listed_and_removed_by_command_with_the_password_on_standard_input(alone: Project) -> None:
    config = ["--config", str(alone.path)]

    def said(*asked: str, given: str | None = None) -> str:
        found = CliRunner().invoke(command, ["users", *asked, *config], input=given)
        return found.output + ("" if found.exception is None else str(found.exception))

    assert "otto may log in as owner" in said("add", "otto", "--role", "owner", given=f"{PASSWORD}\n")
    assert "otto: owner, since 20" in said("list")
    assert "has an account already" in said("add", "otto", "--role", "viewer", given=f"{PASSWORD}\n")
    assert "has 5 characters; it needs 12 to 1000" in said("add", "lea", "--role", "lead", given="short\n")
    assert "this is who shows the token" in said("add", "token", "--role", "owner", given=f"{PASSWORD}\n")
    assert "a name has 1 to 64" in said("add", "Lea Lee", "--role", "lead", given=f"{PASSWORD}\n")
    client = browser(alone)
    log_in(client, "otto")
    assert "otto is viewer now" in said("role", "otto", "viewer")
    assert client.get("/users").status_code == 403, "from the next page on"
    assert "otto is owner now" in said("role", "otto", "owner")
    assert client.get("/users").status_code == 200
    assert "no such account" in said("role", "lea", "lead")
    assert deeds(alone)[-1] == (operator(), "command", "users role", "lea as lead", True)
    assert "otto has another password" in said("password", "otto", given="another long one\n")
    assert log_in(browser(alone), "otto", "another long one").headers["location"] == "/"
    assert "otto has no account any more" in said("remove", "otto")
    assert "no such account" in said("remove", "otto")
    assert "nobody has an account" in said("list")
    assert PASSWORD not in str(deeds(alone))


def test_a_password_may_be_long_and_of_any_script(alone: Project) -> None:
    password = "合言葉 " * 100
    add(alone.store, "yuki", Role.VIEWER, password)
    assert log_in(browser(alone), "yuki", password).headers["location"] == "/"
    remove(alone.store, "yuki")
    with pytest.raises(PreceptorError, match="1001 characters"):
        add(alone.store, "long", Role.VIEWER, "x" * 1001)
