"""Requests go out as fast as the endpoint allows, over all processes on a database, whatever it and the clock say."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from connectors.openai_teacher import _closed_for, _duration
from connectors.recorded_teacher import Fault
from loop.config import TeacherConfig
from loop.ports import SOON
from loop.records import Pace
from loop.store.database import Store
from loop.store.pace import CATCH_UP, LONGEST, EndpointPace
from loop.teacher.send import LONGEST_PAUSE
from loop.teacher.width import Width
from tests.test_ask import Book, Clock, an_item, run
from tests.test_teacher import answering, completed, http

YEAR = 365 * 24 * 3600


class Wall:
    """A wall clock that goes only when told, and anywhere."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    opened = Store(database)
    opened.migrate()
    yield opened
    opened.close()


def pace(store: Store, wall: Wall, *, requests: int = 0, tokens: int = 0, model: str = "m") -> EndpointPace:
    config = TeacherConfig(
        model=model, base_url="http://127.0.0.1:1/v1", requests_per_minute=requests, tokens_per_minute=tokens
    )
    return EndpointPace(store, config, wall)


def sent_within(paces: list[EndpointPace], wall: Wall, seconds: float, tokens: int = 1, jump: float = 0.0) -> int:
    """How many requests go in so much time, the processes taking turns; the clock jumps in the middle."""
    sent, left = 0, seconds
    while left > 0:
        waits = [each.turn(tokens) for each in paces]
        sent += sum(wait <= SOON for wait in waits)
        step = min(waits) or 0.001
        if left > seconds / 2 >= left - step:
            wall.now += jump
        left -= step
        wall.now += step
    return sent


@pytest.mark.parametrize("processes", [1, 3])
def test_processes_share_the_requests_of_a_minute(store: Store, processes: int) -> None:
    wall, others = Wall(), [Store(store.url) for _ in range(processes)]
    paces = [pace(each, wall, requests=120) for each in others]
    assert 240 <= sent_within(paces, wall, 120) <= 240 + 2 * (CATCH_UP + SOON + 1)
    for each in others:
        each.close()


def test_tokens_count_as_they_are_used(store: Store) -> None:
    wall = Wall()
    limited = pace(store, wall, tokens=6000)
    assert 60 <= sent_within([limited], wall, 60, tokens=100) <= 60 + CATCH_UP + SOON + 1
    assert limited.turn(10**9) >= 0
    wall.now += LONGEST
    assert limited.turn(10**9) == 0
    assert limited.turn(1) <= 60


def test_turns_taken_at_the_same_moment_are_all_counted(store: Store) -> None:
    wall = Wall()
    limited = pace(store, wall, requests=60)
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: limited.turn(1), range(24)))
    assert sum(wait <= SOON for wait in waits) == 1 + CATCH_UP + SOON


@pytest.mark.parametrize("jump", [-YEAR, -3600.0, 3600.0, YEAR])
def test_a_clock_that_jumps_neither_stops_the_requests_nor_lets_them_loose(store: Store, jump: float) -> None:
    wall = Wall()
    limited = pace(store, wall, requests=60)
    assert 120 - LONGEST / 2 <= sent_within([limited], wall, 120, jump=jump) <= 120 + 2 * (CATCH_UP + SOON + 1)


def test_an_endpoint_that_asks_for_a_pause_gets_it_from_everybody(store: Store) -> None:
    wall, other = Wall(), Store(store.url)
    ours, theirs = pace(store, wall), pace(other, wall, requests=60)
    elsewhere = pace(other, wall, model="another")
    ours.close(7)
    assert ours.turn(1) == pytest.approx(7)
    assert theirs.turn(1) == pytest.approx(7)
    assert elsewhere.turn(1) == 0
    ours.close(1)
    assert theirs.turn(1) == pytest.approx(7)
    wall.now += 7
    assert theirs.turn(1) == 0
    other.close()


def test_a_pause_of_a_year_ends_in_two_minutes(store: Store) -> None:
    wall = Wall()
    closed = pace(store, wall)
    closed.close(YEAR)
    assert closed.turn(1) == LONGEST
    wall.now -= 3600
    assert closed.turn(1) == 0


def test_nothing_is_written_where_no_limit_is_set(store: Store) -> None:
    assert pace(store, Wall()).turn(1) == 0
    with store.reading() as session:
        assert session.get(Pace, "m at http://127.0.0.1:1/v1") is None


def test_retry_after_of_a_year_is_cut_and_told_to_everybody() -> None:
    book, clock = Book(), Clock()
    run([an_item(1)], book, [Fault(kind="429", seconds=YEAR)], clock)
    assert clock.slept == book.closed == [LONGEST_PAUSE]


@pytest.mark.parametrize("value", ["soon", "-3", "inf", "nan", "1e999", "", "99999999999999999999 parsecs"])
def test_limits_in_headers_that_make_no_sense_say_nothing(value: str) -> None:
    for kind in ("requests", "tokens"):
        assert _closed_for({f"x-ratelimit-remaining-{kind}": value, f"x-ratelimit-reset-{kind}": "3s"}, 5) is None
        assert _closed_for({f"x-ratelimit-remaining-{kind}": "0", f"x-ratelimit-reset-{kind}": value}, 5) is None


def test_limits_in_headers_are_understood() -> None:
    spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30.5s"}
    assert _closed_for(spent, 1) == 90.5
    few = {"x-ratelimit-remaining-tokens": "40", "x-ratelimit-reset-tokens": "250ms"}
    assert (_closed_for(few, 41), _closed_for(few, 40)) == (0.25, None)
    assert _closed_for(spent | few, 41) == 90.5
    assert _closed_for({"x-ratelimit-remaining-requests": "12", "x-ratelimit-reset-requests": "60"}, 1) is None
    assert [_duration(text) for text in ("7", "20ms", "2h", "1d1s", "1x", "s")] == [7, 0.02, 7200, 86401, None, None]


def test_a_reply_says_that_it_was_the_last_for_now() -> None:
    body = '{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": {"total_tokens": 9}}'
    limits = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 2s\r\n"
    with answering(http(body, headers=limits)) as address:
        assert completed(address).closed_for == 2


async def _through(width: Width, overloaded: bool) -> None:
    async with width.place() as place:
        place.overloaded = overloaded


def test_fewer_requests_go_at_once_after_an_overload_and_one_more_a_round_trip_after_that() -> None:
    async def scene() -> list[float]:
        width = Width(16)
        seen = []
        for overloaded in (True, True, *[False] * 4):
            await _through(width, overloaded)
            seen.append(width.allowed)
        for _ in range(400):
            await _through(width, False)
        return [*seen, width.allowed]

    seen = asyncio.run(scene())
    assert seen[:2] == [8, 4]
    assert 4.9 < seen[5] <= 5
    assert seen[-1] == 16


def test_an_overload_that_many_requests_report_counts_once() -> None:
    async def scene() -> float:
        width = Width(8)
        await asyncio.gather(*(_held(width) for _ in range(8)))
        return width.allowed

    async def _held(width: Width) -> None:
        async with width.place() as place:
            await asyncio.sleep(0.01)
            place.overloaded = True

    assert asyncio.run(scene()) == 4


def test_one_request_is_always_let_through() -> None:
    async def scene() -> float:
        width = Width(1)
        for _ in range(5):
            await _through(width, True)
        return width.allowed

    assert asyncio.run(scene()) == 1
