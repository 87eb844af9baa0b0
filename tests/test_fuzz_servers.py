"""Our servers under schemathesis: whatever is asked of them, right or wrong, none answers with an error of its own."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from starlette.testclient import TestClient

from connectors.dashboard import Dashboard
from connectors.door import Door
from connectors.entrance import logging_in
from connectors.page_actions import leading, owning
from connectors.site import application, pages
from connectors.student_completions import CompletionRequest
from connectors.student_requests import ChatRequest
from connectors.student_server import StudentServer
from connectors.student_server import application as student_application
from connectors.students import loaded, trained
from loop.config import Config
from tests.builders import RUN, a_campaign, a_store
from tests.served import served
from tests.test_student_server import JSON, NAME
from tests.tiny import tiny_model
from tests.trained import a_trained_project

QUICK, LONG = 15, 1000
TOKEN = "a long random word"
EXAMPLES = pytest.mark.parametrize("examples", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)])


def described(app: FastAPI) -> dict[str, Any]:
    """The application's own description, which it shows to nobody, without what never ends."""
    said = app.openapi()
    said["paths"] = {path: each for path, each in said["paths"].items() if not path.endswith("/live")}
    return said


def asked(said: dict[str, Any], examples: int, check: Callable[[Case], None]) -> int:
    """Ask everything that is described, as it should be and otherwise; how many requests that were."""
    schema, count = schemathesis.openapi.from_dict(said), 0
    for path, methods in said["paths"].items():
        for method in methods:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                operation = schema[path][method.upper()]
                if mode is GenerationMode.NEGATIVE and not (operation.query or operation.body):
                    continue

                @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
                @given(case=operation.as_strategy(mode))
                def one(case: Case) -> None:
                    nonlocal count
                    count += 1
                    check(case)

                one()
    return count


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Dashboard:
    store = a_store(tmp_path_factory.mktemp("campaign"))
    a_campaign(store)
    return Dashboard(store, Config())


@EXAMPLES
def test_the_dashboard_answers_whatever_it_is_asked(dashboard: Dashboard, examples: int) -> None:
    app = FastAPI()
    pages(app, dashboard, lambda: True)
    logging_in(app, Door(dashboard.store, TOKEN, local=True, hours=1))
    leading(app, dashboard)
    owning(app, dashboard)
    said = described(app)
    keys = {"/runs/{run}": ["run"], "/runs/{run}/items": ["run"], "/runs/{run}/item": ["run", "key"]}
    assert set(keys) < set(said["paths"])
    known = {"run": [RUN], "key": ["q1", "q5"], "name": [each for each in NAMES if each]}
    with served(application(dashboard, TOKEN)) as url:
        seen: set[int] = set()

        def check(case: Case) -> None:
            for name in (case.path_parameters or {}).keys() & known.keys():
                if len(str(case.path_parameters[name])) % 2:
                    case.path_parameters[name] = known[name][0]
            answer = case.call(url, headers={"Authorization": f"Bearer {TOKEN}"}, allow_redirects=False, timeout=30)
            seen.add(answer.status_code)
            assert answer.status_code < 500, (case.path, case.path_parameters, case.query, answer.text[:300])

        assert asked(said, examples, check) > 3 * examples
    assert {200, 404} <= seen


NAMES = ["overview", "items", "budget", "reviewers"]


PLACES = [
    "/", f"/runs/{RUN}/item?key=%00", "/runs/%00", f"/runs/{RUN}/items?text=%ff%fe&after=%00", "/static/../../cli.py",
    f"/runs/{RUN}/item?key=%ed%a0%80", "/runs/..%2f..%2fetc", "/static/..%2f..%2fcli.py",
    f"/runs/{RUN}/items?text=" + "%25" * 100, f"/runs/{RUN}/items?domain='%20or%201=1--",
]  # fmt: skip


@pytest.mark.parametrize("path", PLACES)
def test_odd_places_are_not_there_and_break_nothing(path: str, dashboard: Dashboard) -> None:
    client = TestClient(application(dashboard, None), base_url="http://127.0.0.1", follow_redirects=False)
    answer = client.get(path)
    assert answer.status_code < 500
    assert "import" not in answer.text


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a student that has learned next to nothing."""
    folder = tmp_path_factory.mktemp("student")
    tiny_model(folder / "model")
    project = a_trained_project(folder, student="lora_rank = 0\nepochs = 1")
    which = trained(project)
    with served(student_application(StudentServer(loaded(project, which), which.name, which.config, None))) as url:
        yield url


@EXAMPLES
def test_the_student_s_server_answers_whatever_it_is_asked(student: str, examples: int) -> None:
    body = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = body.pop("$defs")
    body["properties"]["model"]["enum"] = [NAME]
    body["properties"]["max_completion_tokens"] = {"type": "integer", "minimum": 1, "maximum": 4}
    body["properties"]["n"] = {"type": "integer", "minimum": 1, "maximum": 2}
    body["properties"]["max_tokens"] = body["properties"]["max_completion_tokens"]
    plain = CompletionRequest.model_json_schema()
    plain["properties"] |= {"model": {"enum": [NAME]}, "max_tokens": body["properties"]["max_completion_tokens"]}
    plain["properties"]["n"] = body["properties"]["n"]
    chat, raw = (
        {"requestBody": {"required": True, "content": {"application/json": {"schema": each}}}, "responses": {}}
        for each in (body, plain)
    )
    paths = {
        "/v1/chat/completions": {"post": chat},
        "/v1/completions": {"post": raw},
        "/v1/models": {"get": {"responses": {}}},
    }
    said = {
        "openapi": "3.1.0",
        "info": {"title": "Student", "version": "1"},
        "paths": paths,
        "components": {"schemas": parts},
    }
    seen: set[int] = set()

    def check(case: Case) -> None:
        answer = case.call(student, timeout=60)
        seen.add(answer.status_code)
        assert answer.status_code < 500, (case.body, answer.text[:300])

    assert asked(said, examples, check) > 2 * examples
    assert {200, 400} <= seen


def a_body(text: str, number: str) -> bytes:
    """A request with a text and a number as they stand there."""
    message = f'{{"role": "user", "content": "{text}"}}'
    return (
        f'{{"model": "{NAME}", "temperature": {number}, "top_p": {number}, "n": 2, "messages": [{message}]}}'.encode()
    )


ODD = st.one_of(
    st.binary(max_size=60),
    st.just(b"[" * 50_000),
    st.just(b'{"a":' * 20_000),
    st.builds(
        a_body,
        st.sampled_from(["How?", r"\u0000", r"\ud800", "<|im_end|>", ""]),
        st.sampled_from(["1e-320", "1e-9", "1", "2", "NaN", "1e999", "-0.0"]),
    ),
)


@EXAMPLES
def test_bytes_that_are_no_request_are_refused_by_the_student_s_server(student: str, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(raw=ODD)
    def one(raw: bytes) -> None:
        for path in ("chat/completions", "completions", "load_lora_adapter"):
            answer = requests.post(f"{student}/v1/{path}", data=raw, headers=JSON, timeout=60)
            assert answer.status_code < 500, (raw[:200], answer.text[:300])

    one()
