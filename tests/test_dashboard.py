"""The dashboard: every page of a real campaign's database, who may look, and what comes as it happens."""

import asyncio
import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from html.parser import HTMLParser
from math import inf
from pathlib import Path
from typing import NoReturn

import httpx
import pytest
from rich.console import Console
from sqlalchemy import event
from starlette.testclient import TestClient

from benchmarks import postgres
from connectors import web
from connectors.dashboard import PAGE_SIZE, Dashboard
from connectors.door import COOKIE, HEADERS, Visitor
from connectors.page_charts import burn
from connectors.progress import RichProgress
from connectors.side_by_side import align, differing
from connectors.site import application, told
from connectors.views import PAGES, forecast
from connectors.wiring import Project
from loop.answer import Answer, AnswerKind
from loop.config import Config, RunConfig
from loop.errors import BadConfig, StoreUnusable
from loop.records import Arm, DecisionKind, Item, Judgement, Prompt, Role, Round, Score, Shadow, Stage, VerdictKind
from loop.store import items, rationales, reviews, rounds, shadows
from loop.store.database import Store
from tests.builders import (
    NOON,
    RUN,
    a_campaign,
    a_reply,
    a_round,
    a_store,
    a_verdict,
    an_item,
    checked,
    decided,
    id_of,
    queried,
    sent_to_review,
)
from tests.served import served
from tests.test_planted_rounds import a_good_one, a_planted

HERE = "http://127.0.0.1"
TOKEN = "a long random word"
HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"
NAMES = [page.name for page in PAGES]
PLACES = ["", *(f"/{name}" for name in NAMES[1:]), "/items", "/item?key=q1"]


@pytest.fixture(autouse=True)
def _every_page_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine small pages take long too."""
    monkeypatch.setattr("connectors.dashboard.SLOW_SECONDS", inf)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_store(tmp_path)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two closed rounds, the second of which compared selected items with the control arm; to be read only."""
    store = a_store(tmp_path_factory.mktemp("campaign"))
    compared(store, a_campaign(store), [True] * 8 + [False] * 2, [True] * 3 + [False] * 7)
    return store


def looking(store: Store, token: str | None = None, config: Config | None = None) -> TestClient:
    """A browser that looks at the store's runs."""
    app = application(Dashboard(store, config or Config()), token)
    return TestClient(app, base_url=HERE, follow_redirects=False)


def log_in(client: TestClient, **given: str) -> httpx.Response:
    """Open the page that asks who comes, and send what it asks for."""
    form = re.search(r'name="form" value="([^"]+)"', client.get("/login").text)
    assert form is not None
    return client.post("/login", data={"form": form[1], **given})


def text_of(client: TestClient, place: str, run: str = RUN) -> str:
    """What a page says, without its markup."""
    answer = client.get(f"/runs/{run}{place}")
    assert answer.status_code == 200, answer.text
    return words(answer.text)


def words(text: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def in_review(store: Store, keys: list[str], text: str = "odd") -> Round:
    """A third round whose items were answered, doubted and sent to reviewers."""
    opened = queried(store, a_round(store), keys)
    for key in keys:
        checked(store, a_reply(store, opened, key, steps=[text, "So it is 3."], answer=3, stated=text), 0.9, text)
    review = rounds.enter(store, opened, Stage.REVIEW)
    sent_to_review(store, review, keys)
    return review


def compared(store: Store, opened: Round, selected: list[bool], control: list[bool]) -> None:
    """What selection saved in a round, with three pairs of students that are all alike."""
    for pair in range(3):
        for arm, right in ((Arm.SELECTED, selected), (Arm.CONTROL, control)):
            correct = {f"h{number}": hit for number, hit in enumerate(right)}
            row = Shadow(
                round_id=id_of(opened), pair=pair, arm=arm, asked=3, examples=2, micro_usd=2000, correct=correct
            )
            shadows.keep(store, row)


# --- the pages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_every_page_of_a_campaign_is_shown_and_may_do_nothing(place: str, campaign: Store) -> None:
    answer = looking(campaign).get(f"/runs/{RUN}{place}")
    assert answer.status_code == 200
    assert answer.text.startswith("<!doctype html>")
    assert "'unsafe" not in HEADERS["Content-Security-Policy"]
    assert HEADERS.items() <= {name: answer.headers[name] for name in HEADERS}.items()
    assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:", answer.text)
    scripts = re.findall(r"<script[^>]*>", answer.text)
    assert scripts == (['<script type="module" src="/static/dashboard.js">'] if place == "" else [])


def test_every_page_is_shown_from_postgresql_too(postgresql: str) -> None:
    store = Store(postgres.new_database(postgresql, uuid.uuid4().hex))
    store.migrate()
    a_campaign(store)
    in_review(store, ["q6"])
    client = looking(store)
    search = "/items?text=q&decision=gold&domain=sums+%26+%3Cb%3Eparts%3C%2Fb%3E&flagged=1&after=a"
    for place in (*PLACES, search):
        assert client.get(f"/runs/{RUN}{place}").status_code == 200, place
    assert "q1" in text_of(client, search)
    assert "0 of 1 reviews with a verdict" in words(Dashboard(store, Config()).live(RUN)["html"])
    store.close()


def test_every_page_of_an_empty_database_says_so(store: Store) -> None:
    for place in PLACES[:-1]:
        said = text_of(looking(store), place)
        assert "None" not in said
        assert re.search(r"yet|No \w+ |Nothing|any or none", said), place


def test_the_overview_says_where_the_run_stands_and_what_it_waits_for(store: Store) -> None:
    compared(store, a_campaign(store), [True] * 8 + [False] * 2, [True] * 3 + [False] * 7)
    in_review(store, ["q6", "q7"])
    said = text_of(looking(store), "")
    assert "round 3, stage review, waits for reviewers" in said
    assert "Round 3, review: 0 of 2 reviews with a verdict" in said
    assert "60.0 % test accuracy after round 2, 31.3 to 83.2 %, n = 10" in said
    assert "+50.0 points over random picks for the same dollars" in said
    assert "$0.0080 of $1 spent" in said


def test_reviewers_are_named_as_in_exports_and_nobody_else_is(campaign: Store) -> None:
    client = looking(campaign)
    everything = "".join(client.get(f"/runs/{RUN}{place}").text for place in PLACES)
    assert "reviewer-1" in everything
    assert "ann@example.org" not in everything
    assert "987654" not in everything, "a gold answer of the holdout"


def test_flags_are_set_against_what_reviewers_made_of_them(campaign: Store) -> None:
    assert "arithmetic 4 100.0 % 51.0 to 100.0 %, 4 of 4" in text_of(looking(campaign), "/doubts")


def test_the_control_arm_has_a_band_that_the_selected_leave_only_beyond_chance(campaign: Store) -> None:
    answer = looking(campaign).get(f"/runs/{RUN}/learning").text
    assert 'class="series control"><path class="band"' in answer
    assert "selection beats random picks" in answer


def test_what_is_kept_of_reviewers_goes_with_every_change(store: Store) -> None:
    a_campaign(store)
    review = in_review(store, ["q6", "q7"])
    client, (first, second) = looking(store), [each.id or 0 for each in rationales.of_round(store, id_of(review))]
    assert "2 reviews of the newest round are open, 0 done" in text_of(client, "/reviewers")
    a_verdict(store, first, VerdictKind.ACCEPT, minute=20)
    assert "1 reviews of the newest round are open, 1 done" in text_of(client, "/reviewers")
    a_verdict(store, second, VerdictKind.REJECT, reviewer="bob@example.org", minute=21)
    assert "reviewer-2 1 0 0 0 1 0.5" in text_of(client, "/reviewers")
    book = reviews.RunReviewBook(store, RUN)
    gone = {"main/3/q6": [], "main/3/q7": [f"a{second}"]}
    assert book.mark_deleted("fake", "1", gone, before=NOON.replace(year=2027)) == 1
    assert "1 reviews of the newest round are open, 1 done" in text_of(client, "/reviewers")


def test_a_page_that_takes_long_is_kept_for_a_while_unless_the_run_moves_on(
    campaign: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.dashboard.SLOW_SECONDS", 0.0)
    monkeypatch.setattr("connectors.dashboard.KEPT_TIMES", 10_000)
    dashboard = Dashboard(campaign, Config(run=RunConfig(name=RUN)))
    me = Visitor("", Role.VIEWER)
    before = dashboard.page(me, RUN, "domains")
    items.add(campaign, [an_item("new", domain="found only now")])
    assert dashboard.page(me, RUN, "domains") == before
    a_round(campaign)
    assert "found only now" in dashboard.page(me, RUN, "domains")
    monkeypatch.setattr("connectors.dashboard.KEPT_TIMES", 0)
    monkeypatch.setattr("connectors.dashboard.STALE_SECONDS", 0)
    dashboard.moved_on()
    dashboard.page(me, RUN, "domains")
    items.add(campaign, [an_item("newer", domain="found even later")])
    assert "found even later" in dashboard.page(me, RUN, "domains")


def test_a_page_that_gets_old_is_shown_while_it_is_made_anew_for_the_next_look(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.dashboard.SLOW_SECONDS", 0.0)
    monkeypatch.setattr("connectors.dashboard.KEPT_TIMES", 0)
    dashboard, me = Dashboard(store, Config(run=RunConfig(name=RUN))), Visitor("", Role.VIEWER)
    dashboard.look_ahead()
    items.add(store, [an_item("new", domain="found only now")])
    assert "found only now" not in dashboard.page(me, RUN, "domains")
    until = time.monotonic() + 20
    while "found only now" not in dashboard.page(me, RUN, "domains") and time.monotonic() < until:
        time.sleep(0.05)
    assert "found only now" in dashboard.page(me, RUN, "domains")
    while dashboard._renewed:
        time.sleep(0.05)


def test_a_page_that_cannot_be_made_anew_behind_a_look_is_told_at_the_next_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.dashboard.SLOW_SECONDS", 0.0)
    monkeypatch.setattr("connectors.dashboard.KEPT_TIMES", 0)
    dashboard, me = Dashboard(store, Config(run=RunConfig(name=RUN))), Visitor("", Role.VIEWER)
    dashboard.look_ahead()

    def is_down() -> NoReturn:
        raise StoreUnusable("the database is down")

    monkeypatch.setattr(store, "reading", is_down)
    dashboard._renew(RUN, next(each for each in PAGES if each.name == "domains"))
    with pytest.raises(StoreUnusable, match="is down"):
        dashboard.page(me, RUN, "domains")


def test_the_queue_shows_the_riskiest_first_and_not_why_it_was_sent(store: Store) -> None:
    items.add(store, [an_item(key) for key in ("calm", "wild")])
    opened = queried(store, a_round(store), ["calm", "wild"])
    for key, risk in (("calm", 0.4), ("wild", 0.8)):
        checked(store, a_reply(store, opened, key, steps=["one"], answer=1), risk, "odd")
    sent_to_review(store, rounds.enter(store, opened, Stage.REVIEW), ["calm", "wild"])
    said = text_of(looking(store), "/queue")
    assert "2 reviews wait for a verdict" in said
    assert said.index("wild") < said.index("calm")
    assert "planted" not in said


def test_two_runs_of_one_database_do_not_mix(store: Store) -> None:
    a_campaign(store)
    queried(store, a_round(store, Config(run=RunConfig(name="other")), run="other"), ["q7"])
    client = looking(store)
    assert "1 items asked" in text_of(client, "", "other")
    assert "6 items asked" in text_of(client, "", RUN)
    assert '<a href="/runs/other">other</a>' in client.get(f"/runs/{RUN}").text
    assert client.get("/").headers["location"] == f"/runs/{RUN}"


@pytest.mark.parametrize("place", ["/runs/nobody", "/runs/main/nothing", "/runs/main/item?key=nothing", "/nowhere"])
def test_what_is_not_there_is_said_to_be_missing(place: str, campaign: Store) -> None:
    answer = looking(campaign).get(place)
    assert (answer.status_code, "Not here" in answer.text) == (404, True)


# --- hostile texts --------------------------------------------------------------------------------------------------


class Seen(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """A campaign in which every text that came from elsewhere wants to be more than text."""
    store = a_store(tmp_path_factory.mktemp("hostile"))
    a_campaign(store)
    items.add(store, [an_item(HOSTILE, question=HOSTILE, context=HOSTILE, domain=HOSTILE, choices=[HOSTILE])])
    review = in_review(store, [HOSTILE], HOSTILE)
    original = rationales.of_round(store, id_of(review))[0]
    a_verdict(store, original.id or 0, VerdictKind.EDIT, reasons=[HOSTILE], marks={"0": "wrong"})
    value = Answer(kind=AnswerKind.TEXT, value=HOSTILE)
    corrected = rationales.keep_correction(store, original, steps=[HOSTILE + " mended"], answer=value)
    decided(store, review, HOSTILE, DecisionKind.GOLD, corrected.id)
    return looking(store)


@pytest.mark.parametrize("place", [*PLACES[:-1], "/item", "/items-found"])
def test_hostile_texts_stay_texts(place: str, hostile: TestClient) -> None:
    if place == "/item":
        answer = hostile.get(f"/runs/{RUN}/item", params={"key": HOSTILE})
    elif place == "/items-found":
        answer = hostile.get(f"/runs/{RUN}/items", params={"text": HOSTILE, "domain": HOSTILE, "after": "!"})
    else:
        answer = hostile.get(f"/runs/{RUN}{place}")
    seen = Seen(answer.text)
    assert all(attributes.get("src") == "/static/dashboard.js" for tag, attributes in seen.elements if tag == "script")
    assert "img" not in {tag for tag, _ in seen.elements}
    assert not [name for _, attributes in seen.elements for name in attributes if name.startswith("on")]
    if "item" in place or place == "/domains":
        assert any(HOSTILE in text for text in seen.text)
    assert "49" not in "".join(seen.text).split()


def test_links_to_items_survive_their_keys(hostile: TestClient) -> None:
    listed = hostile.get(f"/runs/{RUN}/items", params={"text": "onerror"})
    (link,) = [attributes["href"] for tag, attributes in Seen(listed.text).elements if "/item?key=" in str(attributes)]
    assert hostile.get(str(link)).status_code == 200


# --- items ----------------------------------------------------------------------------------------------------------


def keys(client: TestClient, **wanted: object) -> list[str]:
    answer = client.get(f"/runs/{RUN}/items", params=wanted)
    return re.findall(r'/item\?key=([^"]*)"', answer.text)


def test_items_are_found_by_key_question_decision_domain_and_flag(store: Store) -> None:
    a_campaign(store)
    items.add(store, [an_item("zebra", question="How many stripes?", domain="animals")])
    client = looking(store)
    assert keys(client, text="ZEB") == ["zebra"]
    assert keys(client, text="stripes") == ["zebra"]
    assert keys(client, text="%") == []
    assert keys(client, domain="animals") == ["zebra"]
    assert keys(client, decision="gold") == ["q1", "q4"]
    assert keys(client, decision="rejected", text="q2") == ["q2"]
    assert keys(client, flagged=True) == ["q1", "q2", "q4", "q5"]
    assert len(keys(client)) == 29


def test_many_items_are_turned_page_by_page(store: Store) -> None:
    items.add(store, [an_item(f"i{number:03}") for number in range(2 * PAGE_SIZE + 3)])
    client, seen, place = looking(store), [], f"/runs/{RUN}/items?text=i"
    while place:
        answer = client.get(place)
        seen += re.findall(r'/item\?key=([^"]*)"', answer.text)
        found = re.search(r'href="([^"]*)" rel="next"', answer.text)
        place = found[1].replace("&amp;", "&") if found else ""
    assert seen == [f"i{number:03}" for number in range(2 * PAGE_SIZE + 3)]


def test_a_page_reads_as_many_items_of_a_large_pool_as_of_a_small_one(store: Store) -> None:
    a_campaign(store)
    in_review(store, ["q6"])
    client, loaded = looking(store), []

    def note(item: Item, _: object) -> None:
        loaded.append(item.key)

    event.listen(Item, "load", note)
    counts = []
    for more in (0, 0, 1000):  # the first look also finds what is kept of reviewers
        items.add(store, [an_item(f"more{number}") for number in range(more)])
        loaded.clear()
        assert {client.get(f"/runs/{RUN}{place}").status_code for place in PLACES} == {200}
        counts.append(len(loaded))
    event.remove(Item, "load", note)
    assert counts[1] == counts[2] < 20


def test_an_item_stands_side_by_side_with_what_differs_marked(campaign: Store) -> None:
    answer = looking(campaign).get(f"/runs/{RUN}/item?key=q1").text
    assert "1 + <del>1</del> = <del>2</del>" in answer
    assert "1 + <ins>2</ins> = <ins>3</ins>" in answer
    assert "<del>So it is 2.</del>" in answer
    said = words(answer)
    assert "arithmetic 1 + 1 = 3 &lt;script&gt;" in said
    assert "gold because it is gold" in said
    assert "trained in round 1: checkpoint round-1" in said


def test_what_is_planted_is_not_to_be_found_at_its_item(store: Store) -> None:
    source = a_good_one(store)
    before = looking(store).get(f"/runs/{RUN}/item?key={source.item_key}").text
    assert "1 + 1 = 2" in before
    number = a_planted(store, source)
    asked = {"hash": "j" * 64, "body": {"messages": [{"role": "user", "content": "Judge: 1 + 1 = 3"}]}}
    rounds.keep_scores(store, [Score(round_id=2, item_key=source.item_key, chunk=-1, score=0.9)])
    with store.writing() as session:
        session.add(Prompt(**asked))
        session.flush()
        session.add(
            Judgement(
                rationale_id=number, step=0, prompt_hash="j" * 64, model="stern", text="wrong", finish_reason="stop",
                input_tokens=1, output_tokens=1, created_at=NOON,
            )
        )  # fmt: skip
    assert looking(store).get(f"/runs/{RUN}/item?key={source.item_key}").text == before


def test_steps_are_aligned_and_their_words_compared() -> None:
    assert align(["a", "b", "c"], ["A", "x", "c", "d"]) == [(0, 0), (1, 1), (2, 2), (None, 3)]
    assert [(piece.text, piece.differs) for piece in differing("2 + 2 = 5", "2 + 2 = 4")] == [
        ("2 + 2 = ", False),
        ("5", True),
    ]
    assert [piece.differs for piece in differing("wholly other", "nothing alike here")] == [True]
    long = " ".join(str(number) for number in range(40_000))
    assert [piece.differs for piece in differing(long, long)] == [False]


# --- money ----------------------------------------------------------------------------------------------------------


def test_the_forecast_goes_on_at_the_mean_price_between_the_cheapest_and_the_dearest_round() -> None:
    figures = [
        {"round": number, "stage": "closed", "queried": 10, "usd": usd} for number, usd in ((1, 0.1), (2, 0.3))
    ]  # fmt: skip
    config = Config.model_validate({"run": {"rounds": 4}, "query": {"batch_size": 10}})
    found = forecast([*figures, {"round": 3, "stage": "ask", "queried": 10, "usd": 0.05}], "usd", config, 0.7)
    assert found["left"] == 2
    last = found["ahead"][-1]
    assert (last["round"], last["spent"], last["low"], last["high"]) == pytest.approx((4, 0.8, 0.6, 1.0))
    assert found["reached"] == 4
    assert burn(found, "US dollars", 0.7) is not None


def test_before_a_round_has_closed_nothing_is_forecast() -> None:
    found = forecast([], "usd", Config(), 1.0)
    assert (found["ahead"], found["reached"]) == ([], None)
    assert burn(found, "US dollars", 1.0) is None


# --- who may look ---------------------------------------------------------------------------------------------------


def test_without_a_token_only_names_of_loopback_are_answered(campaign: Store) -> None:
    client = looking(campaign)
    for host in ("evil.example:8097", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "[", ""):
        assert client.get("/runs/main", headers={"host": host}).status_code == 421
    for host in ("127.0.0.1:8097", "localhost", "[::1]:8097"):
        assert client.get("/runs/main", headers={"host": host}).status_code == 200


def test_with_a_token_everything_waits_for_it(campaign: Store) -> None:
    client = looking(campaign, TOKEN)
    for place in (*(f"/runs/{RUN}{each}" for each in PLACES), f"/runs/{RUN}/live", "/", "/nowhere"):
        answer = client.get(place)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login"), place
        assert "gold" not in answer.text
    assert client.post(f"/runs/{RUN}").status_code == 401
    assert client.get("/login").status_code == 200
    assert client.get("/static/dashboard.css").status_code == 200
    assert client.get("/static/../views.py").status_code in (303, 404)


def test_the_token_is_given_once_and_then_remembered_without_being_kept(campaign: Store) -> None:
    client = looking(campaign, TOKEN)
    wrong = log_in(client, token="a guess")
    assert (wrong.headers["location"], "set-cookie" in wrong.headers) == ("/login?wrong=true", False)
    assert "That is not right." in client.get("/login?wrong=true").text
    right = log_in(client, token=TOKEN)
    kept = right.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in kept.split(";")}
    assert TOKEN not in kept
    assert client.cookies[COOKIE]
    assert client.get(f"/runs/{RUN}").status_code == 200
    other = looking(campaign, "another word")
    other.cookies = client.cookies
    assert other.get(f"/runs/{RUN}").status_code == 303


def test_a_program_shows_the_token_as_bearer(campaign: Store) -> None:
    client = looking(campaign, TOKEN)
    assert client.get(f"/runs/{RUN}", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get(f"/runs/{RUN}", headers={"authorization": "Bearer guess"}).status_code == 303
    assert client.get(f"/runs/{RUN}", headers={"authorization": "Bearer ünknown".encode()}).status_code == 303


def test_a_longer_body_than_a_token_is_not_read(campaign: Store) -> None:
    client = looking(campaign, TOKEN)
    assert log_in(client, token="x" * 1_000_000).headers["location"] == "/login?wrong=true"


def test_serving_others_without_a_token_is_refused_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WHO_LOOKS", raising=False)
    (tmp_path / "config.toml").write_text('[serve]\ntoken_env = "WHO_LOOKS"\n', encoding="utf-8")
    project = Project(tmp_path / "config.toml", RichProgress(Console(quiet=True)))
    with pytest.raises(BadConfig, match=r"export WHO_LOOKS=.*or stay on 127\.0\.0\.1"):
        web.serve(project, host="0.0.0.0", port=0)


# --- as it happens --------------------------------------------------------------------------------------------------


def events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """What the server sends, one after the other."""
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_progress_is_sent_as_the_rows_come(store: Store) -> None:
    items.add(store, [an_item(key) for key in ("q1", "q2")])
    opened = queried(store, a_round(store), ["q1", "q2"])
    with (
        served(application(Dashboard(store, Config()), None)) as url,
        httpx.stream("GET", f"{url}/runs/{RUN}/live", timeout=20.0, trust_env=False) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        coming = events(answer.iter_lines())
        assert "0 of 2" in next(coming)["html"]
        a_reply(store, opened, "q1", steps=["one"], answer=1)
        first = next(coming)
        assert (first["place"], "1 of 2" in first["html"]) == ("round 1, ask", True)
        rounds.enter(store, opened, Stage.CHECK)
        assert next(coming)["place"] == "round 1, check"


def test_nothing_is_sent_while_nothing_changes(store: Store) -> None:
    a_round(store)
    heard = []

    async def listen() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                async for each in told(Dashboard(store, Config()), RUN, lambda: False, every=0.01):
                    heard.append(each["place"])

    asyncio.run(listen())
    assert heard == ["round 1, select"]


def test_a_server_that_wants_to_end_need_not_wait_for_who_watches(store: Store) -> None:
    a_round(store)
    wants = iter([False, False, True])

    async def listen() -> int:
        return len([each async for each in told(Dashboard(store, Config()), RUN, lambda: next(wants), every=0.01)])

    assert asyncio.run(listen()) == 1


def test_progress_of_a_run_that_is_not_there_is_not_found(campaign: Store) -> None:
    assert looking(campaign).get("/runs/nobody/live").status_code == 404


def test_every_stage_says_how_far_it_is(store: Store) -> None:
    current = a_campaign(store)
    for stage, said in {
        Stage.SELECT: "3 of 8 candidates that the student explained",
        Stage.ASK: "3 of 3 items that the teacher answered",
        Stage.CHECK: "3 of 3 rationales checked",
        Stage.REVIEW: "2 of 2 reviews with a verdict",
        Stage.ACCEPT: "3 of 3 items decided",
        Stage.TRAIN: "the student is trained; nothing is stored before it is done",
        Stage.EVALUATE: "20 of 20 holdout items answered",
        Stage.CLOSED: "Round 2 is closed.",
    }.items():
        current = rounds.enter(store, current, stage)
        assert said in words(Dashboard(store, Config()).live(RUN)["html"])
