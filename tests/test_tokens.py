"""Label Studio knows a person by a legacy token or by a personal access token; each opens the same doors."""

from contextlib import closing

import httpx
import pytest

from connectors import studio_server
from connectors.invitations import Invitations
from connectors.label_studio import LabelStudioBoard
from loop.errors import BoardRefused
from loop.records import VerdictKind
from review.page import review_page
from review.task import result
from tests.test_board import TASK, UNIQUE, a_task

SDK = "ignore:The `parse_obj` method is deprecated"
"""Label Studio's own client says it of itself where it changes a personal token for a short-lived one."""


def personal_token(url: str, user: str, password: str) -> str:
    """A personal access token, made the way a person makes one: by logging in."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60.0) as person:
        person.get("/user/login/")
        form = {"email": user, "password": password, "csrfmiddlewaretoken": person.cookies["csrftoken"]}
        assert person.post("/user/login/", data=form, headers={"Referer": f"{url}/user/login/"}).status_code == 302
        made = person.post("/api/token/", headers={"X-CSRFToken": person.cookies["csrftoken"], "Referer": url})
        assert made.status_code == 201, made.text
        token: str = made.json()["token"]
        return token


@pytest.fixture(scope="module")
def tokens(studio: studio_server.Studio) -> dict[str, str]:
    """One of each kind."""
    return {"legacy": studio.token, "personal": personal_token(studio.url, studio.user, studio.password)}


@pytest.mark.filterwarnings(SDK)
@pytest.mark.parametrize("kind", ["legacy", "personal"])
def test_work_goes_out_and_verdicts_come_back(tokens: dict[str, str], studio: studio_server.Studio, kind: str) -> None:
    unique = UNIQUE.format(70 if kind == "legacy" else 71)
    with closing(LabelStudioBoard(studio.url, tokens[kind], title=f"a {kind} token", page=review_page(TASK))) as board:
        placed = board.put([a_task(1)])
        board.annotate(placed["run/1/1"].task, result(VerdictKind.ACCEPT), seconds=1.0, unique_id=unique)
        assert len(board.changed(None)) == 1
        assert board.register("http://127.0.0.1:9/label-studio", {"X-Secret": "s"})


@pytest.mark.filterwarnings(SDK)
@pytest.mark.parametrize("kind", ["legacy", "personal"])
def test_people_are_invited(tokens: dict[str, str], studio: studio_server.Studio, kind: str) -> None:
    assert "/user/signup/?token=" in Invitations(studio.url, tokens[kind]).link()


@pytest.mark.parametrize("token", ["0" * 40, "not.a.token"])
def test_a_wrong_token_is_refused(studio: studio_server.Studio, token: str) -> None:
    with pytest.raises(BoardRefused, match="must be that of a member"):
        Invitations(studio.url, token).link()
