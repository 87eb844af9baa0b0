"""Batches cost half, are joined by id, survive any interruption, and are never handed over twice."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlmodel import select

from connectors.openai_batches import OpenAIBatches
from connectors.openai_teacher import OpenAITeacher
from connectors.prices import Prices
from connectors.recorded_teacher import Fault, RecordedTeacher, Recording, running
from loop.config import Config, TaskConfig, TeacherConfig
from loop.errors import TeacherDown, TeacherRefused
from loop.ledger import discounted
from loop.ports import BatchState, Completion
from loop.records import BatchJob, Charge, ChargeState, Currency, Item, Rationale, Reply, Round, Stage
from loop.stages.ask import ask_teacher
from loop.stages.demonstrating import Demonstrating
from loop.stages.parts import Parts
from loop.store import asking, batches, revisions
from loop.store import items as item_store
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.ask import Asking
from loop.teacher.batch import ask_in_batches
from loop.teacher.confidence import Trust
from loop.teacher.prompt import request_for, worst_case
from loop.teacher.send import received
from tests.builders import RUN, a_round, a_store, an_item, id_of, queried
from tests.judging import Lines, Nobody, NoStudent
from tests.test_ask import Clock, a_config

N = 6
TASK = TaskConfig()


class Killed(BaseException):
    """The process ends here."""


class KilledBatches(OpenAIBatches):
    """The batch API of an endpoint, in a process that ends right after a call of a certain name."""

    dies_after = ""

    async def create(self, name, requests):  # noqa: ANN001, ANN201
        made = await super().create(name, requests)
        self._perhaps_die("create")
        return made

    async def state(self, remote_id: str) -> BatchState | None:
        found = await super().state(remote_id)
        self._perhaps_die("state")
        return found

    def _perhaps_die(self, name: str) -> None:
        if self.dies_after == name:
            raise Killed


def some_items(n: int = N) -> list[Item]:
    return [an_item(f"q{number}", question=f"What is {number} + {number}?") for number in range(n)]


def a_server(faults: Sequence[Fault] = (), n: int = N) -> RecordedTeacher:
    """It answers item k with 2k, in a reply of 20 tokens to a prompt of 100."""
    rows = [
        Recording(
            key=item.key, question=item.question, steps=("so",), answer=str(2 * k), input_tokens=100, output_tokens=20
        )
        for k, item in enumerate(some_items(n))
    ]
    return RecordedTeacher(rows, faults)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = a_store(tmp_path)
    item_store.add(opened, some_items())
    yield opened
    opened.close()


def a_batch_round(store: Store, budget: int = 10**9, n: int = N) -> Round:
    return queried(store, a_round(store, budget=budget), [item.key for item in some_items(n)])


@contextmanager
def served(server: RecordedTeacher) -> Iterator[TeacherConfig]:
    with running(server) as address:
        yield a_config(address, batch=True)


def ask_by_batches(
    store: Store, opened: Round, config: TeacherConfig, kind: type[OpenAIBatches] = OpenAIBatches, dies: str = ""
) -> list[str]:
    """One call, as a process makes it, and what it said."""
    teacher = OpenAITeacher(config)
    api = kind(teacher)
    if isinstance(api, KilledBatches):
        api.dies_after = dies
    Purse(store, RUN).close_dead_holds()
    book = batches.RoundBatchBook(store, RUN, id_of(opened), config)
    asked = Asking(book, TASK, config, id_of(opened), lambda _: (), Trust(), lambda _: False, waits=False)
    progress = Lines()
    asyncio.run(
        ask_in_batches(
            lambda: asking.missing(store, id_of(opened), config.samples),
            api,
            teacher,
            book,
            asked,
            progress=progress,
            sleep=Clock().sleep,
        )
    )
    return progress.said


def rows(store: Store, model: type) -> list:
    with store.reading() as session:
        return list(session.exec(select(model)))


def answers(store: Store) -> dict[str, str]:
    return {each.item_key: each.stated for each in rows(store, Rationale)}


RIGHT = {f"q{k}": str(2 * k) for k in range(N)}
HALF = discounted(100 * 1 + 20 * 2, 0.5)
"""What a reply costs at a dollar a million of input and two of output."""


def test_results_are_joined_by_id_and_cost_half(store: Store) -> None:
    opened, server = a_batch_round(store), a_server()
    with served(server) as config:
        ask_by_batches(store, opened, config)
    assert {key: float(said) for key, said in answers(store).items()} == {k: float(v) for k, v in RIGHT.items()}
    assert [each.settled for each in rows(store, Charge)] == [HALF] * N
    balance = Purse(store, RUN).balances()[Currency.USD]
    assert (balance.spent, balance.reserved) == (HALF * N, 0)


def test_finished_part_of_an_expired_batch_is_kept_and_the_rest_goes_alone(store: Store) -> None:
    opened, server = a_batch_round(store), a_server([Fault(kind="batch_expired")])
    with served(server) as config:
        ask_by_batches(store, opened, config)
    assert sorted(answers(store)) == sorted(RIGHT)
    assert [len(server.batches.files[f].splitlines()) for f in inputs(server)] == [N, N // 2]
    assert sorted(key for key, _, _ in server.served) == sorted(RIGHT), "none was answered twice"
    assert sum(each.settled for each in rows(store, Charge)) == HALF * N


def inputs(server: RecordedTeacher) -> list[str]:
    """The files of requests that batches were made of, in their order."""
    return [each["input_file_id"] for each in server.batches.batches.values()]


def test_failed_line_is_asked_again_alone(store: Store) -> None:
    opened, server = a_batch_round(store), a_server([Fault(kind="500", key="q2", times=2)])
    with served(server) as config:
        ask_by_batches(store, opened, config)
    assert [len(server.batches.files[f].splitlines()) for f in inputs(server)] == [N, 1, 1]
    assert sorted(answers(store)) == sorted(RIGHT)
    assert sorted(each.state for each in rows(store, Charge)).count(ChargeState.RELEASED) == 2


def test_refused_line_is_left_for_a_request_of_its_own(store: Store) -> None:
    opened, server = a_batch_round(store), a_server([Fault(kind="too_long", key="q2", times=9)])
    with served(server) as config:
        ask_by_batches(store, opened, config)
    assert len(server.batches.batches) == 1
    assert [item.key for _, item, _ in asking.missing(store, id_of(opened), 1)] == ["q2"]
    assert Purse(store, RUN).balances()[Currency.USD].reserved == 0


def test_refused_batch_gives_its_holds_back_and_says_which_line(store: Store) -> None:
    opened, server = a_batch_round(store), a_server([Fault(kind="batch_invalid")])
    with served(server) as config:
        with pytest.raises(TeacherRefused, match=r"line 2: .*not parseable.*nothing was charged.*teacher\.batch"):
            ask_by_batches(store, opened, config)
        balance = Purse(store, RUN).balances()[Currency.USD]
        assert (balance.spent, balance.reserved) == (0, 0)
        ask_by_batches(store, opened, config)
    assert sorted(answers(store)) == sorted(RIGHT)


def test_result_under_a_foreign_id_lands_nowhere_and_its_request_is_asked_again(store: Store) -> None:
    opened, server = a_batch_round(store), a_server([Fault(kind="foreign_line")])
    with served(server) as config:
        ask_by_batches(store, opened, config)
    assert {key: float(said) for key, said in answers(store).items()} == {k: float(v) for k, v in RIGHT.items()}
    assumed = [each for each in rows(store, Charge) if each.assumed]
    assert len(assumed) == 1, "a request without a result may have been served"


def test_upload_that_fails_is_tried_again(store: Store) -> None:
    opened, server = a_batch_round(store), a_server([Fault(kind="upload_500", times=2)])
    with served(server) as config:
        ask_by_batches(store, opened, config)
    assert (len(server.batches.batches), len(answers(store))) == (1, N)


def test_upload_that_keeps_failing_leaves_the_holds_for_the_next_run(store: Store) -> None:
    opened, server = a_batch_round(store), a_server([Fault(kind="upload_500", times=5)])
    with served(server) as config:
        with pytest.raises(TeacherDown, match="takes it up again"):
            ask_by_batches(store, opened, config)
        ask_by_batches(store, opened, config)
    assert (len(rows(store, Charge)), len(rows(store, BatchJob)), len(answers(store))) == (N, 1, N)


@pytest.mark.parametrize("moment", ["create", "state"])
def test_killed_run_finds_its_batch_again_and_pays_once(store: Store, moment: str) -> None:
    opened, server = a_batch_round(store), a_server()
    with served(server) as config:
        with pytest.raises(Killed):
            ask_by_batches(store, opened, config, KilledBatches, moment)
        assert batches.are_open(store, id_of(opened))
        ask_by_batches(store, opened, config)
    assert len(server.batches.batches) == 1
    assert sorted(answers(store)) == sorted(RIGHT)
    assert [each.settled for each in rows(store, Charge)] == [HALF] * N


def test_run_that_died_while_results_were_stored_stores_the_rest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, server = a_batch_round(store), a_server()
    keep, kept = batches.RoundBatchBook.keep, []

    def keep_three(*args: object) -> None:
        if len(kept) == 3:
            raise Killed
        kept.append(args)
        keep(*args)

    with served(server) as config:
        with monkeypatch.context() as patch:
            patch.setattr(batches.RoundBatchBook, "keep", keep_three)
            with pytest.raises(Killed):
                ask_by_batches(store, opened, config)
        assert len(rows(store, Reply)) == 3
        said = ask_by_batches(store, opened, config)
    assert said == []
    assert (len(server.batches.batches), len(rows(store, Reply))) == (1, N)
    assert sum(each.settled for each in rows(store, Charge)) == HALF * N


class LockedBatches(OpenAIBatches):
    """The batch API of an endpoint whose key was withdrawn."""

    async def find(self, name, since):  # noqa: ANN001, ANN201
        raise TeacherRefused("the endpoint answered 401")


def test_batch_that_may_be_there_keeps_its_holds_where_the_endpoint_refuses_to_say(store: Store) -> None:
    opened, server = a_batch_round(store), a_server()
    with served(server) as config:
        with pytest.raises(Killed):
            ask_by_batches(store, opened, config, KilledBatches, "create")
        with pytest.raises(TeacherRefused, match="its money stays reserved"):
            ask_by_batches(store, opened, config, LockedBatches)
        assert {each.state for each in rows(store, Charge)} == {ChargeState.RESERVED}
        ask_by_batches(store, opened, config)
    assert (len(server.batches.batches), sorted(answers(store))) == (1, sorted(RIGHT))
    assert [each.settled for each in rows(store, Charge)] == [HALF] * N


def test_batch_that_may_be_there_is_charged_at_worst_case_once_batches_are_switched_off(store: Store) -> None:
    opened, server = a_batch_round(store), a_server()
    with served(server) as config:
        with pytest.raises(Killed):
            ask_by_batches(store, opened, config, KilledBatches, "create")
        ask_by_batches(store, opened, config.model_copy(update={"batch": False}), LockedBatches)
    assert not batches.are_open(store, id_of(opened))
    assert [each.assumed for each in rows(store, Charge)] == [True] * N


def test_batch_that_was_surely_not_handed_over_gives_its_holds_back(store: Store) -> None:
    opened, server = a_batch_round(store), a_server()
    with served(server) as config, pytest.raises(TeacherRefused, match="401"):
        ask_by_batches(store, opened, config, LockedBatches)
    assert not batches.are_open(store, id_of(opened))
    assert Purse(store, RUN).balances()[Currency.USD].reserved == 0


def test_results_whose_file_is_gone_are_charged_at_worst_case_and_asked_again(store: Store) -> None:
    opened, server = a_batch_round(store), a_server()
    with served(server) as config:
        with pytest.raises(Killed):
            ask_by_batches(store, opened, config, KilledBatches, "state")
        server.batches.files.clear()
        ask_by_batches(store, opened, config)
    assert sorted(answers(store)) == sorted(RIGHT)
    assert sum(each.assumed for each in rows(store, Charge)) == N


def test_items_in_a_batch_under_way_are_not_revised(store: Store) -> None:
    opened, server = a_batch_round(store), a_server()
    assert len(revisions.unrevised(store, id_of(opened))) == N
    with served(server) as config, pytest.raises(Killed):
        ask_by_batches(store, opened, config, KilledBatches, "create")
    assert revisions.unrevised(store, id_of(opened)) == []


def test_holds_of_a_dead_process_stay_while_its_batch_is_under_way(store: Store) -> None:
    opened, server = a_batch_round(store), a_server()
    with served(server) as config, pytest.raises(Killed):
        ask_by_batches(store, opened, config, KilledBatches, "state")
    assert Purse(store, RUN).close_dead_holds() == 0
    assert Purse(store, RUN).balances()[Currency.USD].reserved > 0


def test_what_does_not_fit_waits_until_the_holds_before_it_are_settled(store: Store) -> None:
    config = a_config("http://127.0.0.1:1/v1", batch=True)
    teacher = OpenAITeacher(config)
    hold = discounted(worst_case(request_for(some_items()[0], TASK, config, (), 0), teacher.price), 0.5)
    budget = hold + 4 * HALF
    opened, server = a_batch_round(store, budget=budget), a_server()
    with served(server) as at_work:
        ask_by_batches(store, opened, at_work)
    spent = Purse(store, RUN).balances()[Currency.USD].spent
    assert spent <= budget
    assert len(answers(store)) == len(server.batches.batches) == 5


def test_batches_under_way_are_collected_after_they_were_switched_off(store: Store) -> None:
    opened, server = a_batch_round(store), a_server()
    with served(server) as config:
        with pytest.raises(Killed):
            ask_by_batches(store, opened, config, KilledBatches, "create")
        ask_by_batches(store, opened, config.model_copy(update={"batch": False}))
    assert sorted(answers(store)) == sorted(RIGHT)


def test_batch_that_the_endpoint_forgot_is_charged_at_worst_case_and_asked_again(store: Store) -> None:
    opened, server = a_batch_round(store), a_server()
    with served(server) as config:
        with pytest.raises(Killed):
            ask_by_batches(store, opened, config, KilledBatches, "state")
        server.batches.batches.clear()
        ask_by_batches(store, opened, config)
    assert sorted(answers(store)) == sorted(RIGHT)
    assert sum(each.assumed for each in rows(store, Charge)) == N


class KilledLines(Lines):
    """Lines for the user, in a process that is interrupted at the first that says so."""

    interrupted_at = ""

    def say(self, text: str) -> None:
        super().say(text)
        if self.interrupted_at and self.interrupted_at in text:
            raise KeyboardInterrupt


def test_interrupted_stage_says_that_the_batch_stays_and_the_next_one_finishes_it_with_single_requests(
    store: Store, tmp_path: Path
) -> None:
    opened, server = a_batch_round(store), a_server([Fault(kind="too_long", key="q2")])
    with served(server) as settings:
        teacher = settings.model_copy(update={"batch_poll": 0.01, "demonstrations": 0})
        config = Config(task=TASK, teacher=teacher)
        client, lines = OpenAITeacher(teacher), KilledLines()
        parts = Parts(NoStudent(), client, Nobody(), lines, tmp_path, batches=OpenAIBatches(client))
        lines.interrupted_at = "takes it up again"
        with pytest.raises(KeyboardInterrupt):
            ask_teacher(opened, store, parts, config)
        lines.interrupted_at = ""
        done = ask_teacher(opened, store, parts, config)
    assert done.stage is Stage.CHECK
    assert sorted(answers(store)) == sorted(RIGHT)
    assert len(server.batches.batches) == 1
    prices = {each.purpose.split("/")[2]: each.settled for each in rows(store, Charge) if each.settled}
    assert prices == dict.fromkeys(RIGHT, HALF) | {"q2": 2 * HALF}, "what the batch refused costs the full price"


def test_a_remembered_reply_would_have_cost_half_in_a_batch(store: Store) -> None:
    opened, [item, *_] = a_batch_round(store), some_items()
    for batch, sample, saved in ((True, 0, 50), (True, 1, 100), (False, 2, 100)):
        config = a_config("http://127.0.0.1:1/v1", batch=batch)
        book = asking.RoundAskBook(store, RUN, id_of(opened), config)
        asked = Asking(book, TASK, config, id_of(opened), lambda _: (), Trust(), lambda _: False, waits=False)
        request = request_for(item, TASK, config, (), sample)
        got = received(Completion("{}", "m", "stop", 1, 1), request, book.reserve("ask", 0), lambda *_, **__: 0)
        asked.keep(item, replace(got, remembered="there", saved=100))
        assert {each.sample: each.saved for each in rows(store, Reply)}[sample] == saved


def test_plan_reckons_with_the_price_of_batches(store: Store) -> None:
    item, config = some_items()[0], Config(task=TASK, teacher=a_config("http://127.0.0.1:1/v1"))
    batched = config.model_copy(update={"teacher": config.teacher.model_copy(update={"batch": True})})
    teacher, shown = OpenAITeacher(config.teacher), Demonstrating(store, RUN, NoStudent().student, config)
    prices = [Prices(store, each, shown, teacher, None, ()) for each in (batched, config)]
    assert prices[0].worst(item) == pytest.approx(prices[1].worst(item) / 2)
