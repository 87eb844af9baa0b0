"""What is private stays here: placeholders leave in its place, and it comes back in the reply.

The real client speaks to a server on loopback that keeps all that reaches it.
"""

import asyncio
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from sqlmodel import select
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.doctor import diagnose
from connectors.inspection import show_prompt
from connectors.memory import RememberingTeacher
from connectors.openai_batches import OpenAIBatches
from connectors.openai_teacher import OpenAITeacher
from connectors.plan import plan, plan_text
from connectors.progress import RichProgress
from connectors.recorded_batches import RecordedBatches, routes_of
from connectors.wiring import Project
from loop.answer import Answer, AnswerKind
from loop.checks.doubt import Doubtful
from loop.checks.placeholders import placeholders
from loop.config import JudgeConfig, RedactConfig, TaskConfig, TeacherConfig, load
from loop.errors import BadConfig
from loop.ports import Completion, Example, Explanation
from loop.records import Author, BatchLine, Item, Prompt, Query, Rationale, Reply, Trial, TrialKind
from loop.redaction import Hider, kinds_in, put_back
from loop.store import asking, batches, items
from loop.store.database import Store
from loop.teacher.ask import Asking, ask
from loop.teacher.batch import ask_in_batches
from loop.teacher.confidence import LOGPROBS, Trust, confidence_of
from loop.teacher.continuation import go_on
from loop.teacher.further import Further, ask_further
from loop.teacher.judge import judge
from loop.teacher.prompt import request_for
from loop.teacher.reply import Draft, read
from loop.teacher.revision import Todo, Way, revise
from loop.teacher.trial import explain, next_of, recover, try_out
from loop.teacher.vote import vote
from tests.builders import RUN, a_number, a_round, a_store, an_item, id_of, queried
from tests.served import served
from tests.test_ask import Clock
from tests.test_demonstrations import Quiet

SECRETS = (
    "jane.doe@example.org", "+49 30 1234567", "DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111", "10.1.2.3",
    "2001:db8::7", "T-123456", "Jane Doe", "山田太郎",
)  # fmt: skip
ALL = ("email", "phone", "iban", "card", "ip")
PRIVATE = an_item(
    "jane.doe@example.org",
    question='Write to\njane.doe@example.org or "Jane Doe", +49 30 1234567.\nHow many are DE89 3704 0044 0532 0130 00?',
    context="Seen at 10.1.2.3 and 2001:db8::7 by 山田太郎さん: 4111 1111 1111 1111, T-123456, jane.doe@example.org.",
)
SHOWN = an_item("d", question="Is T-999999 of bob@example.net here?")
STEPS = ("bob@example.net wrote T-999999.", "So it is 4.")
FOUR = Answer(kind=AnswerKind.NUMBER, value="4")
TASK = TaskConfig()
TRUST = Trust()


@pytest.fixture(scope="module")
def redact(tmp_path_factory: pytest.TempPathFactory) -> RedactConfig:
    file = tmp_path_factory.mktemp("names") / "names.txt"
    file.write_text("Jane Doe\n\n山田太郎\nAnn\nJosé Weiß\nO'Brien\n", encoding="utf-8")
    return RedactConfig(kinds=ALL, patterns={"ticket": r"T-\d{6}"}, names=file)


# --- what reaches the endpoint --------------------------------------------------------------------------------------


@dataclass
class Endpoint:
    """Answers every request about a rationale, a step or several, in words made of the marks in its last message."""

    adds: str = ""
    """Said in the last step."""
    heard: list[str] = field(default_factory=list)
    """Everything that came: paths, headers, bodies."""

    @property
    def app(self) -> ASGIApp:
        app = FastAPI()

        async def answered(raw: bytes) -> JSONResponse:
            return JSONResponse(self._reply(json.loads(raw)))

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> JSONResponse:
            return await answered(await request.body())

        recorded = RecordedBatches(answered, lambda _: False)
        app.include_router(routes_of(recorded, lambda _: None, lambda _: False))

        async def listening(scope: Scope, receive: Receive, send: Send) -> None:
            async def heard() -> Any:
                message = await receive()
                self.heard.append(message.get("body", b"").decode())
                return message

            self.heard.append(f"{scope['path']} {scope['query_string']} {scope['headers']}")
            await app(scope, heard, send)

        return listening

    def _reply(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = body["messages"][-1]["content"]
        marks = list(dict.fromkeys(re.findall(r"\[[A-Z]+_\d+\]", asked)))
        said = {
            "evidence": f"{marks}",
            "verdict": "wrong" if "corrected_step" in str(body["response_format"]) else "ok",
            "corrected_step": f"It is about {' and '.join(marks)}.",
            "first_wrong": 1,
            "steps": [f"It says {' '.join(marks)}.", f"So it is 4.{self.adds}"],
            "answer": "4",
            "confidence": 80,
        }
        message = {"role": "assistant", "content": json.dumps(said)}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}

    def leaked(self, secrets: Sequence[str] = (*SECRETS, "bob@example.net", "T-999999")) -> list[str]:
        """Which secrets came, as they are or as JSON and addresses spell them."""
        everything = "\n".join(self.heard).lower()
        spelled = {each: {each, json.dumps(each)[1:-1], each.replace("@", "%40")} for each in secrets}
        return [each for each, forms in spelled.items() if any(form.lower() in everything for form in forms)]


@dataclass
class Book:
    """Takes down whatever it is given."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def reserve(self, *_: object, **__: object) -> int:
        return next(self.numbers)

    def keep(self, charge_id: int, micro_usd: int, *rows: Any) -> None:
        self.rows.append(rows)

    settle_on = keep

    def turn(self, tokens: int) -> float:
        return 0.0

    def lengths(self, prompt_type: str) -> list[int]:
        return []

    def nothing(self, *_: object) -> None:
        pass

    release = assume = settle = close = give_up = nothing


@dataclass
class Asked:
    """One way in which an endpoint is asked, over a real connection."""

    teacher: OpenAITeacher
    config: TeacherConfig
    book: Book = field(default_factory=Book)

    def by(self, way: str) -> None:
        asyncio.run(getattr(self, way)())

    async def fresh(self) -> None:
        query = Query(round_id=1, item_key=PRIVATE.key, position=0, arm="random")
        await ask([(query, PRIVATE, 0)], self.teacher, self.book, TASK, self.config, **self._more())

    async def votes(self) -> None:
        config = self.config.model_copy(update={"samples": 3, "vote_confidence": 1.0, "temperature": 1.0})
        await vote([(PRIVATE, [])], self.teacher, self.book, TASK, config, **self._more())

    async def again(self) -> None:
        more = Further(-1, lambda key: f"again/1/{key}", "again", 1, lambda _: [(SHOWN, STEPS, FOUR)] * 2)
        await ask_further([PRIVATE], self.teacher, self.book, TASK, self.config, more, progress=Quiet())

    async def continued(self) -> None:
        prefix = Rationale(
            id=1, item_key=PRIVATE.key, round_id=1, author=Author.HUMAN, steps=[STEPS[0], "Jane Doe is 1."]
        )
        rest = {key: value for key, value in self._more().items() if key != "demonstrations"}
        await go_on([(prefix, PRIVATE)], self.teacher, self.book, TASK, self.config, **rest)

    async def revised(self) -> None:
        explanation = Explanation(
            ("Jane Doe is at 10.1.2.3.", "So it is T-123456.", "So it is 3."), Answer(kind=AnswerKind.NUMBER, value="3")
        )
        rest = {key: value for key, value in self._more().items() if key != "demonstrations"}
        for way in (Way.TEACHER_FINISH, Way.ONE_SHOT):
            todo = [Todo(PRIVATE, explanation, way, {})]
            await revise(
                todo, self.teacher, self.book, TASK, self.config, stored={}, go_on=lambda *_: explanation, **rest
            )

    async def tried(self) -> None:
        text = TaskConfig(answer=AnswerKind.TEXT)
        known = Answer(kind=AnswerKind.TEXT, value="jane.doe@example.org")
        some = [explain(Example(PRIVATE, (), known), text, self.config)]
        some += [
            found for found in [recover(PRIVATE, (*STEPS, "+49 30 1234567 rang."), FOUR, TASK, self.config)] if found
        ]
        await try_out(some, self.teacher, self.book, TASK, self.config, run=RUN, round_id=1, bar=QuietBar())

    async def judged(self) -> None:
        row = Rationale(
            id=1,
            item_key=PRIVATE.key,
            round_id=1,
            author=Author.TEACHER,
            steps=["Jane Doe is T-123456.", "It rang at 10.1.2.3.", "So it is 4."],
            answer=a_number(4),
            stated="4",
        )
        config = JudgeConfig(
            model="m", base_url=self.config.base_url, input_price=1.0, output_price=2.0, redact=self.config.redact
        )
        await judge([(PRIVATE, row, [])], OpenAITeacher(config), self.book, TASK, config, round_id=1, bar=QuietBar())

    def _more(self) -> dict[str, Any]:
        return {
            "round_id": 1,
            "demonstrations": lambda _: [(SHOWN, STEPS, FOUR)],
            "progress": Quiet(),
            "sleep": Clock().sleep,
        }


class QuietBar:
    def advance(self, steps: int = 1) -> None:
        pass


def settings_at(address: str, redact: RedactConfig, **more: Any) -> TeacherConfig:
    return TeacherConfig(
        model="m", base_url=f"{address}/v1", input_price=1.0, output_price=2.0, attempts=1, redact=redact, **more
    )


@pytest.mark.parametrize("way", ["fresh", "votes", "again", "continued", "revised", "tried", "judged"])
def test_nothing_private_leaves_and_what_comes_back_is_as_it_was(way: str, redact: RedactConfig) -> None:
    endpoint = Endpoint()
    with served(endpoint.app) as address:
        config = settings_at(address, redact)
        asked = Asked(OpenAITeacher(config), config)
        asked.by(way)
    assert "[EMAIL_1]" in "\n".join(endpoint.heard)
    assert endpoint.leaked() == []
    prompts = [row for rows in asked.book.rows for row in rows if isinstance(row, Prompt)]
    assert prompts
    assert not [each for each in SECRETS if each in json.dumps([row.body for row in prompts], ensure_ascii=False)]
    texts = [row.text for rows in asked.book.rows for row in rows if hasattr(row, "text")]
    assert any("Jane Doe" in text or "jane.doe@example.org" in text for text in texts)
    assert not any(re.search(r"\[[A-Z]+_\d+\]", text) for text in texts)


@pytest.mark.parametrize("way", ["fresh", "revised", "judged", "tried"])
def test_the_same_server_hears_every_secret_where_nothing_is_redacted(way: str) -> None:
    endpoint = Endpoint()
    with served(endpoint.app) as address:
        config = settings_at(address, RedactConfig())
        Asked(OpenAITeacher(config), config).by(way)
    assert set(SECRETS) <= {*endpoint.leaked()}


def test_the_rationale_that_people_review_holds_the_real_text(redact: RedactConfig) -> None:
    endpoint = Endpoint()
    with served(endpoint.app) as address:
        config = settings_at(address, redact)
        asked = Asked(OpenAITeacher(config), config)
        asked.by("fresh")
    [(prompt, reply, rationale)] = asked.book.rows
    assert isinstance(reply, Reply)
    assert reply.prompt_hash == prompt.hash
    assert all(each in rationale.steps[0] for each in SECRETS)
    assert "bob@example.net" not in reply.text, "nothing of a worked item comes back"
    assert "never make one up" in prompt.body["messages"][0]["content"]


def test_worked_items_come_first_so_that_what_requests_share_stays_the_same(redact: RedactConfig) -> None:
    config = settings_at("http://127.0.0.1:1", redact)
    shown = [(SHOWN, STEPS, FOUR)]
    one, other = (request_for(item, TASK, config, shown, 0) for item in (PRIVATE, an_item("e", question="ann@b.org?")))
    assert one.messages[:-1] == other.messages[:-1]
    assert "[EMAIL_1]" in one.messages[1]["content"]
    assert other.hidden == {"[EMAIL_2]": "ann@b.org"}


# --- batches, and what is remembered --------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = a_store(tmp_path)
    yield opened
    opened.close()


def test_a_batch_that_another_process_collects_gets_its_texts_back(store: Store, redact: RedactConfig) -> None:
    items.add(store, [an_item(PRIVATE.key, question=PRIVATE.question, context=PRIVATE.context)])
    opened, endpoint = queried(store, a_round(store), [PRIVATE.key]), Endpoint()

    class Died(Exception):
        pass

    class Dying(OpenAIBatches):
        async def state(self, remote_id: str) -> Any:
            raise Died

    def process(config: TeacherConfig, kind: type[OpenAIBatches]) -> None:
        book, teacher = batches.RoundBatchBook(store, RUN, id_of(opened), config), OpenAITeacher(config)
        shared = Asking(
            book, TASK, config, id_of(opened), lambda _: [(SHOWN, STEPS, FOUR)], TRUST, lambda _: False, waits=False
        )
        missing: Callable[[], Any] = lambda: asking.missing(store, id_of(opened), 1)  # noqa: E731
        asyncio.run(
            ask_in_batches(missing, kind(teacher), teacher, book, shared, progress=Quiet(), sleep=Clock().sleep)
        )

    with served(endpoint.app) as address:
        config = settings_at(address, redact, batch=True)
        with pytest.raises(Died):
            process(config, Dying)
        # settings that changed meanwhile do not change what was handed over
        process(settings_at(address, RedactConfig(), batch=True), OpenAIBatches)
    assert endpoint.leaked() == []
    with store.reading() as session:
        [reply] = session.exec(select(Reply))
        [line] = session.exec(select(BatchLine))
        [prompt] = session.exec(select(Prompt))
    assert all(each in json.loads(reply.text)["steps"][0] for each in SECRETS)
    assert {*line.hidden.values()} >= {*SECRETS}
    assert not {"bob@example.net", "T-999999"} & {*line.hidden.values()}
    assert not [each for each in SECRETS if each in json.dumps(prompt.body, ensure_ascii=False)]


def test_remembered_replies_hold_no_secret_and_serve_items_that_differ_in_secrets_alone(
    tmp_path: Path, redact: RedactConfig
) -> None:
    endpoint, file = Endpoint(), tmp_path / "replies.db"
    mail = [an_item(name, question=f"Is {name}@example.org in?") for name in ("john", "mary")]
    with served(endpoint.app) as address:
        config = settings_at(address, redact, demonstrations=0)
        teacher = RememberingTeacher(config, file, asked=lambda _: 0, say=lambda _: None)
        book = Book()
        for item in mail:
            todo = [(Query(round_id=1, item_key=item.key, position=0, arm="random"), item, 0)]
            asyncio.run(
                ask(todo, teacher, book, TASK, config, round_id=1, demonstrations=lambda _: (), progress=Quiet())
            )
    assert b"example.org" not in file.read_bytes()
    assert sum("completions" in each for each in endpoint.heard) == 1
    john, mary = (rationale.steps[0] for _, _, rationale in book.rows)
    assert ("john@example.org" in john, "mary@example.org" in mary, "john" in mary) == (True, True, False)


def test_where_nothing_is_redacted_remembered_replies_are_found_as_before() -> None:
    config = TeacherConfig(model="m", base_url="http://127.0.0.1:1/v1")
    teacher = RememberingTeacher.__new__(RememberingTeacher)
    OpenAITeacher.__init__(teacher, config)
    request = request_for(an_item("a", question="1 + 1?"), TASK, config, (), 0)
    teacher._asked = lambda _: 0
    assert teacher._hash(request) == "fe9cd88aa6f63e754ecec600958f04ca4c42a36797dc1816a9d3370d92926e21", "as in 0.1.0"


def test_items_that_are_asked_the_same_share_no_trial(redact: RedactConfig) -> None:
    config = settings_at("http://127.0.0.1:1", redact)
    john, mary = (Example(an_item(name, question=f"Is {name}@example.org in?"), (), FOUR) for name in ("john", "mary"))
    asked = explain(john, TASK, config)
    assert explain(mary, TASK, config).prompt_hash == asked.prompt_hash
    said = Trial(
        run=RUN,
        round_id=1,
        kind=TrialKind.EXPLAIN,
        item_key="john",
        prompt_hash=asked.prompt_hash,
        model="m",
        text="",
        finish_reason="stop",
        input_tokens=1,
        output_tokens=1,
        steps=["john@example.org is."],
        answer=FOUR.canonical,
        created_at=None,
    )  # type: ignore[arg-type]
    trials = {asked.key: said}
    assert next_of(mary, trials, TASK, config) == explain(mary, TASK, config)
    found = next_of(john, trials, TASK, config)
    assert found is not None
    assert found != asked


# --- what the endpoint makes of placeholders ------------------------------------------------------------------------


def test_a_made_up_mark_stays_and_is_doubted(redact: RedactConfig) -> None:
    endpoint = Endpoint(adds=" Or [EMAIL_99], or [EMAIL_1].")
    with served(endpoint.app) as address:
        config = settings_at(address, redact)
        asked = Asked(OpenAITeacher(config), config)
        asked.by("fresh")
    [(_, _, rationale)] = asked.book.rows
    assert rationale.steps[-1] == "So it is 4. Or [EMAIL_99], or [EMAIL_1].", "[EMAIL_1] is the worked item's"
    found = placeholders(Doubtful(PRIVATE, rationale, TASK))
    assert [(each.step, each.evidence.split()[0]) for each in found] == [(1, "[EMAIL_99]"), (1, "[EMAIL_1]")]
    assert [rationale.steps[1][slice(*each.span)] for each in found if each.span] == ["[EMAIL_99]", "[EMAIL_1]"]
    rationale.steps = ["EMAIL_1 and x_1, EMAIL_FOR_10 or [STEP_1] of T_1."]
    bare = [each.evidence.split()[0] for each in placeholders(Doubtful(PRIVATE, rationale, TASK))]
    assert bare == ["EMAIL_1", "[STEP_1]"], "also without its brackets"


def test_what_looks_like_a_mark_already_is_not_taken_for_one(redact: RedactConfig) -> None:
    item = an_item("a", question="What does [EMAIL_1] in our manual stand for, ann@b.org, and what [STEP_1]?")
    hider = Hider(redact)
    left = hider.item(item).question
    assert left == "What does [TEXT_1] in our manual stand for, [EMAIL_1], and what [STEP_1]?"
    back = put_back(Completion(f"{left} [EMAIL_2]", "m", "stop", 1, 1), hider.behind(left))
    assert back.text == f"{item.question} [EMAIL_2]"
    told = Rationale(
        item_key="a", round_id=1, author=Author.TEACHER, steps=["[EMAIL_1] is a mark."], stated="[EMAIL_1]"
    )
    assert placeholders(Doubtful(item, told, TASK)) == []


@pytest.mark.parametrize("said", ["[EMAIL_1]", "[email_1]", r"[EMAIL\_1]", "[Email 1]", "[EMAIL-1]"])
def test_a_mark_that_the_teacher_writes_a_little_differently_is_known_all_the_same(
    said: str, redact: RedactConfig
) -> None:
    hidden = {"[EMAIL_1]": "ann@b.org"}
    for text in (f"1. {said} wrote.", json.dumps([f"{said} wrote."])):
        back = put_back(Completion(text, "m", "stop", 1, 1, tokens=((text[:6], -0.1), (text[6:], -0.2))), hidden)
        assert (
            back.text
            == "".join(token for token, _ in back.tokens)
            == text.replace(json.dumps(said)[1:-1], said).replace(said, "ann@b.org")
        )
    other = an_item("a", question=f"What does {said.lower()} mean, carl@b.org?")
    hider = Hider(redact)
    left = hider.item(other).question
    assert said.lower() not in left
    assert left.endswith(" mean, [EMAIL_1]?")
    assert put_back(Completion(left, "m", "stop", 1, 1), hider.behind(left)).text == other.question


def test_a_label_that_is_also_a_name_is_shown_as_the_label(redact: RedactConfig) -> None:
    config = settings_at("http://127.0.0.1:1", redact)
    task = TaskConfig(answer=AnswerKind.LABEL, labels={"ann": "a wine", "other": "another"})
    known = Answer(kind=AnswerKind.LABEL, value="ann")
    worked = request_for(PRIVATE, task, config, [(SHOWN, STEPS, known)], 0).messages[2]["content"]
    assert json.loads(worked)["answer"] == "ann"
    assert "\nann\n" in explain(Example(SHOWN, STEPS, known), task, config).request.messages[-1]["content"]


def test_an_answer_that_was_hidden_is_read_as_it_is_with_its_probability(redact: RedactConfig) -> None:
    pieces = [('{"steps": ["so"], "answer": "', -0.5), ("[EM", -0.1), ("AIL_1", -0.2), (']"}', -0.3)]
    came = Completion("".join(text for text, _ in pieces), "m", "stop", 1, 1, tokens=tuple(pieces))
    shown = put_back(came, {"[EMAIL_1]": "ann@b.org"})
    draft = read(shown, an_item("a"), TaskConfig(answer=AnswerKind.TEXT))
    assert isinstance(draft, Draft)
    assert draft.stated == "ann@b.org"
    sure, by = confidence_of(shown, draft)
    assert (by, sure) == (LOGPROBS, pytest.approx(2.718281828**-0.6))


# --- what is found --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("mail a.b+c@d-e.co.uk, ok?", "mail [EMAIL_1], ok?"),
        ("mail ann@b.org and ann@b.org and bob@b.org", "mail [EMAIL_1] and [EMAIL_1] and [EMAIL_2]"),
        ("call +1 (555) 010-9999 or 030/1234567 or 555-010-9999.", "call [PHONE_1] or [PHONE_2] or [PHONE_3]."),
        ("on 2026-11-25, 01.02.2024 and 03/04/25", "on 2026-11-25, 01.02.2024 and 03/04/25"),
        ("12345678 + 0.12345678 = 5551234567, 1,000", "12345678 + 0.12345678 = 5551234567, 1,000"),
        ("pay GB29 NWBK 6016 1331 9268 19 then go", "pay [IBAN_1] then go"),
        ("pay de89370400440532013000.", "pay [IBAN_1]."),
        ("pay GB28 NWBK 6016 1331 9268 19", "pay GB28 NWBK 6016 1331 9268 19"),
        ("4111-1111-1111-1111 but not 4111-1111-1111-1112", "[CARD_1] but not 4111-1111-1111-1112"),
        ("at 192.168.0.1, ::1, fe80::1.", "at [IP_1], [IP_2], [IP_3]."),
        ("not 1.2.3, 300.1.1.1, 12:30:45", "not 1.2.3, 300.1.1.1, 12:30:45"),
        ("JANE  DOE and Annex, Ann's; 山田太郎さん", "[NAME_1] and Annex, [NAME_2]'s; [NAME_3]さん"),
        ("ann@b.org wrote", "[EMAIL_1] wrote"),
        ("さんAnnは jane\ndoe, Jane Doer", "さん[NAME_1]は [NAME_2]\n[NAME_3], Jane Doer"),
        ("T-123456 and T-12", "[TICKET_1] and T-12"),
        ("nothing here", "nothing here"),
        # what stands around it: rows of a table, sentences, other numbers
        ("Ann,+491711234567,4111111111111111,Berlin", "[NAME_1],[PHONE_1],[CARD_1],Berlin"),
        ("0171 1234567,0172-1234567;Tel.+49 171 1234567", "[PHONE_1],[PHONE_2];Tel.[PHONE_3]"),
        ("room 2 0171 1234567 10115 Berlin", "room 2 [PHONE_1] 10115 Berlin"),
        ("born 01.02.1980 0171 1234567 01.02.2024", "born 01.02.1980 [PHONE_1] 01.02.2024"),
        ("0171 / 1234567, 030 - 123 45 67, (+49) 171 1234567", "[PHONE_1], [PHONE_2], [PHONE_3]"),
        ("555-010-9999x12 and +1 555 010 9999ext", "[PHONE_1]x12 and [PHONE_2]ext"),
        ("5 4111 1111 1111 1111 12/27 999", "5 [CARD_1] 12/27 999"),
        ("AB12 DE89 3704 0044 0532 0130 00 and DE89-3704-0044-0532-0130-00", "AB12 [IBAN_1] and [IBAN_2]"),
        ("2001:db8::7: refused 10.1.2.3:80", "[IP_1]: refused [IP_2]:80"),
        ("電話は090-1234-5678です。口座DE89370400440532013000へ", "電話は[PHONE_1]です。口座[IBAN_1]へ"),
        ("メールはjane@example.orgで、山田@例え.jpも", "メールは[EMAIL_1]で、[EMAIL_2]"),
        ("サーバー192.168.0.1に", "サーバー[IP_1]に"),
        # one way of writing where Unicode has several
        ("+49\u00a030\u20111234567 or 0171\u20131234567", "[PHONE_1] or [PHONE_2]"),
        ("+４９ ３０ １２３４５６７ jane＠example．org", "[PHONE_1] [EMAIL_1]"),
        ("ja\u00adne\u200b@example.org", "[EMAIL_1]"),
        ("Jose\u0301 Wei\u00df, JOSÉ WEISS, O\u2019Brien, Ａnn", "[NAME_1], [NAME_2], [NAME_3], [NAME_4]"),
        ("T\u2011123456", "[TICKET_1]"),
        ("mailto:jane%40example.org, jane&#64;example.org", "mailto:[EMAIL_1], [EMAIL_2]"),
        # numbers that are nobody's
        ("0 1 2 3 4 5 6 7 8, 0.25 0.75 0.50 0.125", "0 1 2 3 4 5 6 7 8, 0.25 0.75 0.50 0.125"),
        ("10 000 000 000 + 5 012 345 678", "10 000 000 000 + 5 012 345 678"),
        ("01/2020 - 12/2023, 0800-1700, 0.4111111111111111", "01/2020 - 12/2023, 0800-1700, 0.4111111111111111"),
        ("3 5 2 6 4 7 8 9 1 2 3 4 5 6 7 2 1 4", "3 5 2 6 4 7 8 9 1 2 3 4 5 6 7 2 1 4"),
        ("0123456789abcdef 0123456789-ab", "0123456789abcdef 0123456789-ab"),
    ],
)  # fmt: skip
def test_what_is_private_is_found_by_its_form(text: str, left: str, redact: RedactConfig) -> None:
    assert Hider(redact).text(text) == left


ODD = ("\u00ad", "ß", "½", "e\u0301", "１", "\u2011")
HARD = st.lists(
    st.sampled_from(
        [*SECRETS, *ODD, "[EMAIL_1]", "[email 1]", "[TEXT_1]", "EMAIL_1", '"', "\\", "\n", "\x01", " ", *"[]a1@.+-~"]
    ),
    max_size=14,
).map("".join)  # fmt: skip


@given(text=st.one_of(st.text(), HARD))
@example(text='Jane\nDoe "T-123456" [TEXT_1] [EMAIL_1]')
def test_any_text_comes_back_as_it_was_also_within_json(text: str) -> None:
    hider = Hider(RedactConfig(kinds=ALL, patterns={"ticket": r"T-\d{6}", "odd": r'a"?[\s\\]b?'}))
    left = hider.text(text)
    hidden = hider.behind(left)
    for whole, again in ((left, text), (json.dumps({"s": left}), None)):
        back = put_back(Completion(whole, "m", "stop", 1, 1), hidden).text
        assert (back if again is not None else json.loads(back)["s"]) == text
    assert hider.text(text) == left, "the same text gets the same marks"


@pytest.mark.parametrize(
    "text",
    [
        *("1" * 50_000, "1 " * 25_000, "a@" * 25_000, "+" * 50_000, "1-" * 25_000, "::" * 25_000, "DE89" * 12_000),
        *("DE89 " * 10_000, "0171 " * 10_000, "4111 " * 10_000, "あ@" * 25_000, "a" + "\u0316\u0300" * 25_000),
    ],
)
def test_no_text_holds_it_up(text: str, redact: RedactConfig) -> None:
    Hider(redact).text(text)  # the suite's time-out is the measure


# --- settings, and what is told -------------------------------------------------------------------------------------


def a_project(folder: Path, settings: str) -> Project:
    file = folder / "config.toml"
    file.write_text(f'[review]\nboard = "fake"\n{settings}', encoding="utf-8")
    return Project(file, RichProgress(Console(quiet=True)))


def test_plan_doctor_and_prompt_say_what_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    (tmp_path / "names.txt").write_text("Jane Doe\n", encoding="utf-8")
    redact = '[teacher]\ndemonstrations = 0\n[teacher.redact]\nkinds = ["email", "ip"]\nnames = "names.txt"\n'
    project = a_project(tmp_path, redact)
    items.add(
        project.store, [an_item("a", question="Jane Doe or j@d.org?"), an_item("b", question="x@y.org?"), an_item("c")]
    )
    said = "2 of 3 pool items hold something that does not leave for the teacher: EMAIL in 2, NAME in 1"
    assert said in plan_text(plan(project))
    assert said in [each.text for each in diagnose(project.path, lambda: project) if each.part == "redaction"]
    shown = show_prompt(project, "a")
    assert shown["stays_here"] == {"[NAME_1]": "Jane Doe", "[EMAIL_1]": "j@d.org"}
    assert "Jane Doe" not in json.dumps(shown["request"])
    (tmp_path / "names.txt").unlink()
    with pytest.raises(BadConfig, match=r"names\.txt cannot be read"), project.parts():
        pass
    project.store.close()


def test_the_judge_and_stronger_teachers_see_no_more_unless_they_are_told_to(tmp_path: Path) -> None:
    teacher = '[teacher.redact]\nkinds = ["email"]\nnames = "n.txt"\n[[teacher.stronger]]\nmodel = "s"\n'
    config = a_project(tmp_path, teacher + '[judge]\nmodel = "j"\n').config
    assert config.judge.redact == config.teacher.redact == config.teacher.stronger[0].redact
    assert config.teacher.redact.names == tmp_path / "n.txt"
    assert not load(a_project(tmp_path, teacher + "[judge.redact]\n").path).judge.redact.on


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('[teacher.redact]\nkinds = ["mail"]', r"teacher\.redact\.kinds\.0: .*'email', 'phone'"),
        ("[teacher.redact]\npatterns = { x = '(' }", r"teacher\.redact\.patterns: x is no regular expression"),
        ("[teacher.redact]\npatterns = { x = 'a*' }", r"teacher\.redact\.patterns: x finds nothing, everywhere"),
        ("[teacher.redact]\npatterns = { X = 'a' }", r"teacher\.redact\.patterns"),
        ("[teacher.redact]\npatterns = { text = 'a' }", r"teacher\.redact\.patterns: text is the name of"),
        ('[task]\nanswer = "spans"\nlabels = {A = "a"}\n[teacher.redact]\nkinds = ["ip"]', "moves the places"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=told):
        a_project(tmp_path, settings)


def test_a_file_of_names_that_grows_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("Ann\n", encoding="utf-8")
    settings = RedactConfig(names=file)
    item: Item = an_item("a", question="Bob?")
    assert kinds_in(item, settings) == set()
    file.write_text("Ann\nBob\n", encoding="utf-8")
    os.utime(file, ns=(1, 1))
    assert kinds_in(item, settings) == {"NAME"}
    file.write_text("\n", encoding="utf-8")
    os.utime(file, ns=(2, 2))
    with pytest.raises(BadConfig, match="holds no name"):
        Hider(settings)
