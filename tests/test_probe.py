"""What an endpoint supports is found by looking at its replies, is paid for, and decides how it is asked."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from connectors import campaign
from connectors.doctor import Finding, diagnose
from connectors.endpoints import NEWEST, fitted, holds
from connectors.inspection import show_prompt
from connectors.openai_teacher import OpenAITeacher, endpoint_of
from connectors.probe import SCHEMA, probe
from connectors.sources import ingest
from connectors.wiring import Project
from loop.config import TeacherConfig
from loop.errors import BadConfig, BudgetSpent, TeacherRefused, UnknownPrice
from loop.records import Author, Currency, Probe, Prompt, Rationale, Reply, Split
from loop.store import items, probes
from loop.store.asking import RoundAskBook
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.prompt import prompt_of, request_for
from tests.builders import NOON, RUN, a_round, a_store, an_item, id_of, queried
from tests.endpoint import ALL, Endpoint, serving
from tests.test_judge import a_project
from tests.tiny import tiny_project

CONFIG = """\
[run]
name = "main"
[task]
answer = "number"
[teacher]
base_url = "{address}"
model = "small"
input_price = 1.0
output_price = 2.0
timeout = 5.0
temperature = 0.7
{more}
[budget]
usd = {usd}
[review]
board = "fake"
"""


def a_config(address: str, **changes: object) -> TeacherConfig:
    settings = {"input_price": 1.0, "output_price": 2.0, "timeout": 5.0, "model": "small", **changes}
    return TeacherConfig(**{"base_url": address, **settings})


def probed(endpoint: Endpoint, store: Store, **changes: object) -> Probe:
    Purse(store, RUN).open(usd=1_000_000, minutes=0)
    with serving(endpoint) as address:
        config = a_config(address, **changes)
        return probe(OpenAITeacher(config), config, store, RUN)


def features(row: Probe) -> dict[str, bool | None]:
    return {name: getattr(row, name) for name in sorted(ALL)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_store(tmp_path)


# --- looking --------------------------------------------------------------------------------------------------------


def test_endpoint_that_supports_all_is_seen_to(store: Store) -> None:
    assert features(probed(Endpoint(), store)) == dict.fromkeys(sorted(ALL), True)


@pytest.mark.parametrize("dropped", sorted(ALL))
def test_what_is_silently_dropped_is_found_in_the_replies(dropped: str, store: Store) -> None:
    row = probed(Endpoint(supports=ALL - {dropped}), store)
    unseen = {"seed": None} if dropped == "sampling" else {}
    assert features(row) == dict.fromkeys(sorted(ALL), True) | unseen | {dropped: False}
    assert set(row.seen) == ALL


@pytest.mark.parametrize("status", [400, 422, 500])
def test_what_is_refused_is_not_supported_and_the_refusal_is_kept(status: int, store: Store) -> None:
    row = probed(Endpoint(refusing={"response_format": status, "logprobs": status}), store)
    assert (row.json_schema, row.logprobs, row.choices, row.sampling) == (False, False, True, True)
    assert f"answered {status}: not supported here" in row.seen["json_schema"]


@pytest.mark.parametrize(("fails", "held"), [({7, 8}, True), ({7, 8, 9, 10}, None)])
def test_a_failure_that_passes_is_no_refusal(fails: set[int], held: bool | None, store: Store) -> None:
    row = probed(Endpoint(fails=fails, refusing={"batches": 503}), store)
    assert features(row) == dict.fromkeys(sorted(ALL), True) | {"json_schema": held, "batches": None}


def test_empty_replies_say_nothing_of_sampling_nor_of_form(store: Store) -> None:
    row = probed(Endpoint(plain="", supports=frozenset()), store)
    assert (row.sampling, row.seed, row.json_schema, row.logprobs) == (None, None, None, None)


def test_a_model_that_thinks_until_it_is_cut_off_is_still_asked_with_a_schema(tmp_path: Path) -> None:
    with serving(Endpoint(thinks=True)) as address:
        project = a_project_at(tmp_path, address)
        teacher = project.config.teacher
        Purse(project.store, RUN).open(usd=1_000_000, minutes=0)
        row = probe(OpenAITeacher(teacher), teacher, project.store, RUN)
        assert (row.json_schema, row.logprobs) == (None, None)
        assert row.seen["json_schema"] == "the reply is empty or was cut off"
        assert fitted(project).teacher.format == "json_schema"


def test_every_request_is_reserved_and_settled(store: Store) -> None:
    endpoint = Endpoint()
    row = probed(endpoint, store)
    balance = Purse(store, RUN).balances()[Currency.USD]
    assert len(endpoint.requests) == 7
    # Six requests of 20 + 5 tokens and one of 20 + 10, at a dollar and two dollars a million.
    assert (balance.spent, balance.reserved) == (6 * 30 + 40, 0)
    assert probes.paid(store, row.purpose) == (7, balance.spent)
    assert max(asked["max_completion_tokens"] for asked in endpoint.requests) == 80


def test_nothing_is_sent_without_a_price_or_a_budget(store: Store) -> None:
    endpoint = Endpoint()
    with serving(endpoint) as address:
        unpriced, priced = a_config(address, input_price=None, output_price=None), a_config(address)
        with pytest.raises(UnknownPrice, match=r"teacher\.input_price"):
            probe(OpenAITeacher(unpriced), unpriced, store, RUN)
        Purse(store, RUN).open(usd=10, minutes=0)
        with pytest.raises(BudgetSpent, match=r"budget\.usd"):
            probe(OpenAITeacher(priced), priced, store, RUN)
    assert endpoint.requests == []
    assert probes.newest(store, endpoint_of(priced), "small") is None


def test_endpoint_that_refuses_the_plainest_request_is_an_error(store: Store) -> None:
    with pytest.raises(TeacherRefused, match="answered 400: not supported here"):
        probed(Endpoint(refusing={"seed": 400}), store)


def test_row_is_of_the_address_without_its_password_and_of_the_model(store: Store) -> None:
    row = probed(Endpoint(), store)
    assert probes.newest(store, row.endpoint, "small") == row
    assert probes.newest(store, row.endpoint, "large") is None
    assert endpoint_of(a_config("http://ann:s3cret@host:1/v1/?key=s3cret")) == "http://host:1/v1"


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ('{"animal": "cow", "legs": 4}', True),
        ('{"animal": "cow"}', False),
        ('{"animal": "dog", "legs": 4}', False),
        ('{"animal": "cow", "legs": 4, "why": ""}', False),
        ('```json\n{"animal": "cow", "legs": 4}\n```', False),
        ("[" * 100_000, False),
        ("A cow has four legs.", False),
        ("", False),
    ],
)
def test_schema_is_held_wholly_or_not(text: str, held: bool) -> None:
    assert holds(text, SCHEMA) is held


# --- asking ---------------------------------------------------------------------------------------------------------


def a_project_at(folder: Path, address: str, *, more: str = "", usd: float = 1.0) -> Project:
    config = folder / "config.toml"
    config.write_text(CONFIG.format(address=address, more=more, usd=usd))
    return a_project(config)


def seen(project: Project, **known: bool) -> None:
    """A probe of the project's teacher was made at noon."""
    teacher = project.config.teacher
    row = Probe(endpoint=endpoint_of(teacher), model=teacher.model, source="probe", probed_at=NOON, **known)
    probes.keep(project.store, row)


def test_unheld_schema_is_replaced_by_plain_text_and_the_user_is_told(tmp_path: Path) -> None:
    project, said = a_project_at(tmp_path, "http://127.0.0.1:9/v1"), []
    assert fitted(project).teacher.format == "json_schema"
    seen(project, json_schema=False)
    assert fitted(project, said.append).teacher.format == "plain"
    assert "small at http://127.0.0.1:9/v1 (seen 2026-01-01) does not hold JSON schemas" in said[0]
    items.add(project.store, [an_item("a")])
    body = show_prompt(project, "a")["request"]
    assert isinstance(body, dict)
    assert body["settings"]["schema"] is None
    assert "`Answer: `" in json.dumps(body["messages"])


def test_several_samples_of_a_teacher_that_does_not_sample_are_refused_with_the_cure(tmp_path: Path) -> None:
    project = a_project_at(tmp_path, "http://127.0.0.1:9/v1", more="samples = 3")
    seen(project, sampling=False)
    with pytest.raises(BadConfig, match=r"teacher\.samples = 3, but all samples .* set teacher\.samples = 1"):
        fitted(project)
    seen(project, sampling=True)
    assert fitted(project).teacher.samples == 3


def replied(project: Project, texts: list[str], minutes: int = 1, finish_reason: str = "stop") -> None:
    """Replies to requests with a schema, so many minutes after noon."""
    store, teacher = project.store, project.config.teacher
    keys = [f"q{minutes}-{number}" for number in range(len(texts))]
    items.add(store, [an_item(key) for key in keys])
    opened = queried(store, a_round(store, project.config), keys)
    book = RoundAskBook(store, RUN, id_of(opened))
    for key, text in zip(keys, texts, strict=True):
        item = items.get(store, key)
        assert item is not None
        prompt = prompt_of(request_for(item, project.config.task, teacher, (), 0))
        row = Reply(
            round_id=id_of(opened), item_key=key, prompt_hash=prompt.hash, model="small", text=text,
            finish_reason=finish_reason, input_tokens=1, output_tokens=1, created_at=NOON + timedelta(minutes=minutes),
        )  # fmt: skip
        book.keep(book.reserve(f"ask/1/{key}/0/0", 1), 1, Prompt(hash=prompt.hash, body=prompt.body), row, None)


HELD = '{"steps": ["It is two."], "answer": "2"}'


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (["1. Two.\nAnswer: 2"] * 6 + [HELD] * 4, "plain"),
        (["1. Two.\nAnswer: 2"] * 5 + [HELD] * 5, "json_schema"),
        (["1. Two.\nAnswer: 2"] * (NEWEST - 1), "json_schema"),
    ],
)
def test_row_is_put_right_when_most_of_the_newest_replies_break_their_schema(
    texts: list[str], form: str, tmp_path: Path
) -> None:
    project = a_project_at(tmp_path, "http://127.0.0.1:9/v1")
    seen(project, json_schema=True, logprobs=True)
    replied(project, texts)
    assert fitted(project).teacher.format == form
    row = probes.newest(project.store, "http://127.0.0.1:9/v1", "small")
    assert row is not None
    assert (row.source, row.logprobs) == ("replies" if form == "plain" else "probe", True)


def test_replies_from_before_a_probe_and_replies_that_were_cut_off_put_nothing_right(tmp_path: Path) -> None:
    project = a_project_at(tmp_path, "http://127.0.0.1:9/v1")
    replied(project, ["Two."] * 10, minutes=-1)
    seen(project, json_schema=True)
    replied(project, ["Two."] * 10, minutes=1, finish_reason="length")
    assert fitted(project).teacher.format == "json_schema"


# --- doctor ---------------------------------------------------------------------------------------------------------


def lines(project: Project) -> dict[str, Finding]:
    found = diagnose(project.path, lambda: a_project(project.path), probe=True)
    return {each.part: each for each in found}


def test_doctor_tells_each_feature_its_cure_and_what_was_spent(tmp_path: Path) -> None:
    with serving(Endpoint(supports=frozenset())) as address:
        found = lines(a_project_at(tmp_path, address, more="samples = 2"))
        assert {f"teacher {name}" for name in ALL} <= set(found)
        assert found["teacher json_schema"].fine
        assert "asked for in plain text" in found["teacher json_schema"].text
        assert not found["teacher sampling"].fine
        assert "set teacher.samples = 1" in found["teacher sampling"].text
        assert found["teacher probe"].text == "7 requests, $0.000210"
        assert "judge probe" not in found


def test_doctor_without_probe_asks_nothing(tmp_path: Path) -> None:
    endpoint = Endpoint()
    with serving(endpoint) as address:
        project = a_project_at(tmp_path, address)
        items.add(project.store, [an_item("a", Split.POOL)])
        diagnose(project.path, lambda: a_project(project.path))
    assert endpoint.requests == []


def test_doctor_looks_at_the_judge_too_and_names_what_is_down(tmp_path: Path) -> None:
    with serving(Endpoint()) as address:
        project = a_project_at(tmp_path, "http://127.0.0.1:9/v1")
        text = project.path.read_text()
        prices = 'input_price = 1.0\noutput_price = 2.0\nmodel = "large"'
        project.path.write_text(f'{text}[judge]\nbase_url = "{address}"\n{prices}\n')
        found = lines(project)
    assert not found["teacher probe"].fine
    assert "cannot be reached" in found["teacher probe"].text
    assert found["judge json_schema"].text == "yes: a JSON schema is held"


def test_doctor_looks_at_stronger_teachers_and_refuses_batches_where_there_are_none(tmp_path: Path) -> None:
    with serving(Endpoint(supports=frozenset())) as address:
        project = a_project_at(tmp_path, address, more="batch = true")
        stronger = '[[teacher.stronger]]\nmodel = "large"\ninput_price = 1.0\noutput_price = 2.0\n'
        project.path.write_text(project.path.read_text() + stronger)
        found = lines(project)
    assert not found["teacher batches"].fine
    assert "set teacher.batch = false" in found["teacher batches"].text
    assert found["teacher.stronger large batches"].fine
    assert found["teacher.stronger large probe"].text.startswith("7 requests, $")


# --- a campaign -----------------------------------------------------------------------------------------------------


def test_campaign_that_meets_an_endpoint_without_schemas_asks_in_plain_text_from_the_next_round_on(
    tmp_path: Path,
) -> None:
    endpoint = Endpoint(supports=frozenset())
    config = tiny_project(tmp_path)
    with serving(endpoint) as address:
        text = config.read_text().replace(
            'recorded = "recorded.jsonl"', f'base_url = "{address}"\nsamples = 2\ntemperature = 0.7'
        )
        config.write_text(text)
        project = a_project(config)
        for split in (Split.HOLDOUT, Split.POOL):
            settings = {"pool": project.config.pool, "task": project.config.task, "progress": project.progress}
            ingest([tmp_path / f"{split}.jsonl"], project.store, split=split, **settings)
        assert campaign.run(project, rounds_wanted=2, wait=False).outcome is campaign.Outcome.FINISHED
        row = probes.newest(project.store, address, "tiny-teacher")
    with_schema = ["response_format" in asked for asked in endpoint.requests]
    assert with_schema == [True] * 12 + [False] * 12
    assert row is not None
    assert row.seen["json_schema"] == "10 of the newest 10 replies do not hold the schema"
    with project.store.reading() as session:
        assert len(session.exec(select(Rationale).where(Rationale.author == Author.TEACHER)).all()) == 24
    project.store.close()
