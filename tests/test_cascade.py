"""The teacher's samples vote until the vote is settled, and what is doubtful then goes to a stronger teacher."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from connectors.history import history, history_text
from connectors.memory import RememberingTeacher
from connectors.openai_teacher import OpenAITeacher
from connectors.recorded_teacher import Fault, RecordedTeacher, Recording, running
from connectors.status import status
from loop.config import Config, TeacherConfig, load
from loop.errors import BadConfig, TeacherDown, UnknownPrice
from loop.ports import Teacher
from loop.records import STRONGER, Rationale, Reply, Round
from loop.stages.ask import ask_teacher
from loop.stages.parts import Parts
from loop.store import asking, items, rationales, rounds
from loop.store.database import Store
from loop.teacher.confidence import Verdicted
from loop.teacher.escalation import is_worth_it, share_right, worth_of_a_right_one
from loop.teacher.vote import copies, is_settled
from tests.builders import RUN, a_round, a_store, an_item, id_of, queried, spent
from tests.judging import Nobody, NoStudent
from tests.test_again import a_stored
from tests.test_continuing import ROOT, preceptor, rows
from tests.test_demonstrations import Quiet
from tests.tiny import tiny_project

QUESTION = "What is 2 + 3?"
RIGHT, WRONG = (("2 + 3 = 5",), "5"), (("2 + 3 = 6",), "6")
Said = tuple[Sequence[str], str]


# --- when a vote is settled -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("votes", "most", "confidence", "settled"), [
    ("a", 1, 0.95, True),
    ("a", 9, 0.95, False),
    ("aaa", 9, 0.95, False),
    ("aaaa", 9, 0.95, True),
    ("aaaab", 9, 0.95, False),
    ("aa", 3, 0.95, True),
    ("ab", 3, 0.95, False),
    ("aaaa", 9, 1, False),
    ("????", 9, 0.95, False),
    ("aaaa????", 9, 0.95, True),
])  # fmt: skip
def test_a_vote_is_settled_when_more_samples_would_hardly_change_it(
    votes: str, most: int, confidence: float, settled: bool
) -> None:
    answers = [None if each == "?" else each for each in votes]
    assert is_settled(answers, most, confidence) is settled


# --- what a stronger teacher is worth ---------------------------------------------------------------------------------


def test_the_stronger_one_is_asked_where_the_minutes_saved_are_worth_more_than_its_price() -> None:
    budget = Config.model_validate({"budget": {"usd_per_review_hour": 30.0}}).budget
    worth = worth_of_a_right_one(2.0, budget)
    assert worth == pytest.approx(1e6)
    assert is_worth_it(0.5, 0.9, worth, 399_999)
    assert not is_worth_it(0.5, 0.9, worth, 400_001)
    assert not is_worth_it(0.9, 0.9, worth, 0)


def test_without_a_price_for_an_hour_a_minute_is_worth_what_the_budgets_say() -> None:
    given = {"budget": {"usd": 6.0, "minutes": 60.0}}
    assert worth_of_a_right_one(1.5, Config.model_validate(given).budget) == pytest.approx(150_000)
    assert worth_of_a_right_one(1.5, Config.model_validate({"budget": {"minutes": 0.0}}).budget) == float("inf")


def test_verdicts_move_what_is_expected_of_a_teacher() -> None:
    assert share_right(0.9, []) == pytest.approx(0.9)
    assert share_right(0.9, [Verdicted(0.0, right=False)] * 10) == pytest.approx(0.45)
    weighted = [Verdicted(0.0, right=False, weight=1.0), Verdicted(0.0, right=True, weight=3.0)]
    assert share_right(0.9, weighted) == pytest.approx((9 + 2 * 0.75) / 12)


# --- through the real client and the recorded server ------------------------------------------------------------------


def recorded(cheap: Sequence[Said], strong: Sequence[Said] = (), faults: Sequence[Fault] = ()) -> RecordedTeacher:
    """The samples of two teachers on one question."""
    said = [("cheap", each) for each in cheap] + [("strong", each) for each in strong]
    rows = [
        Recording(key="a", question=QUESTION, model=model, steps=tuple(steps), answer=answer, sample=number)
        for number, (model, (steps, answer)) in enumerate(said)
    ]
    return RecordedTeacher(rows, faults)


def config_at(address: str, stronger: dict[str, object] | None = None, **teacher: object) -> Config:
    given: dict[str, object] = {
        "model": "cheap",
        "base_url": address,
        "demonstrations": 0,
        "timeout": 5.0,
        "attempts": 1,
    }
    given |= {"input_price": 1.0, "output_price": 1.0, **teacher}
    if stronger is not None:
        given["stronger"] = [{"model": "strong", "input_price": 10.0, "output_price": 10.0, **stronger}]
    return Config(teacher=TeacherConfig(**given))


def parts_at(config: Config, folder: Path, teacher: Teacher | None = None) -> Parts:
    stronger = tuple(OpenAITeacher(each) for each in config.teacher.stronger)
    return Parts(
        NoStudent(), teacher or OpenAITeacher(config.teacher), Nobody(), Quiet(), folder, stronger=stronger
    )  # fmt: skip


@contextmanager
def asked(
    folder: Path, teacher: RecordedTeacher, stronger: dict[str, object] | None = None, **settings: object
) -> Iterator[tuple[Store, Round, list[Rationale]]]:
    """The store, the round and its rationales after ASK."""
    store = a_store(folder)
    items.add(store, [an_item("a", question=QUESTION)])
    with running(teacher) as address:
        config = config_at(address, stronger, **settings)
        opened = queried(store, a_round(store, config), ["a"])
        ask_teacher(opened, store, parts_at(config, folder), config)
        yield store, opened, rationales.of_round(store, id_of(opened))
    store.close()


def test_the_majority_is_kept_though_the_first_sample_said_otherwise(tmp_path: Path) -> None:
    teacher = recorded([WRONG, RIGHT, RIGHT, RIGHT])
    with asked(tmp_path, teacher, samples=4, temperature=1.0) as (store, _, rows):
        kept = next(each for each in rows if each.is_reply)
        assert (kept.stated, kept.confidence, kept.confidence_by, kept.teacher) == ("5", 0.75, "votes", "cheap")
        assert sorted((each.sample, each.stated, each.confidence) for each in rows if not each.is_reply) == [
            (1, "6", 0.25), (2, "5", 0.75), (3, "5", 0.75)
        ]  # fmt: skip
        told = "\n".join(part.plain for part in history_text(history(store, RUN, "a")).renderables)
        assert "answer: 5 (75% of the votes, not calibrated yet)" in told


def test_no_more_samples_are_paid_for_once_the_vote_is_settled(tmp_path: Path) -> None:
    with asked(tmp_path, recorded([RIGHT] * 9), samples=9, temperature=1.0) as (_, _, rows):
        assert len(rows) == 4
    other = recorded([RIGHT] * 9)
    (tmp_path / "all").mkdir()
    with asked(tmp_path / "all", other, samples=9, temperature=1.0, vote_confidence=1.0) as (_, _, rows):
        assert len(rows) == len(other.served) == 9


def test_a_sample_that_cannot_be_read_has_no_vote(tmp_path: Path) -> None:
    teacher = recorded([RIGHT, ((), "what?"), RIGHT])
    with asked(tmp_path, teacher, samples=3, temperature=1.0) as (_, _, rows):
        kept = next(each for each in rows if each.is_reply)
        assert (kept.stated, kept.confidence) == ("5", 1.0)
        assert len(rows) == 2


def test_a_first_sample_that_cannot_be_read_does_not_cost_the_item_its_vote(tmp_path: Path) -> None:
    teacher = recorded([((), "what?"), WRONG, RIGHT, RIGHT])
    with asked(tmp_path, teacher, samples=4, temperature=1.0) as (store, opened, rows):
        kept = next(each for each in rows if each.is_reply)
        assert (kept.stated, kept.sample, len(rows)) == ("5", 0, 3)
        assert [query.problem for query in rounds.queries(store, id_of(opened))] == [None]


def test_an_item_of_which_no_sample_can_be_read_says_so(tmp_path: Path) -> None:
    with asked(tmp_path, recorded([((), "what?")] * 3), samples=3, temperature=1.0) as (store, opened, rows):
        assert rows == []
        [query] = rounds.queries(store, id_of(opened))
        assert (query.problem or "").startswith("no sample can be read; the last: ")


def test_an_endpoint_whose_samples_never_differ_is_noticed() -> None:
    def samples(*texts: str) -> list[Reply]:
        return [a_stored("", None, number, text=text) for number, text in enumerate(texts)]

    item = an_item("a")
    same, differ = (item, samples("x", "x", "x")), (item, samples("x", "y"))
    assert copies([same] * 5)
    assert not copies([same] * 4)
    assert not copies([*[same] * 9, differ])
    assert not copies([(item, samples("x"))] * 9)


def test_a_doubtful_rationale_goes_to_the_stronger_teacher_which_is_recorded(tmp_path: Path) -> None:
    teacher = recorded([WRONG], [RIGHT])
    with asked(tmp_path, teacher, {}) as (store, _, rows):
        [kept] = rows
        assert (kept.stated, kept.teacher, kept.sample, kept.is_reply) == ("5", "strong", 0, True)
        [first, second] = history(store, RUN, "a")["replies"]
        assert (first["teacher"], second["teacher"], second["sample"]) == ("cheap", "strong", STRONGER)
        found = status(store, RUN, Config())
        assert set(found["models"]) == {"cheap", "strong"}
        assert found["models"]["strong"] > 5 * found["models"]["cheap"]
        assert sum(found["models"].values()) == pytest.approx(found["budget"]["usd"]["spent"])
        told = "\n".join(part.plain for part in history_text(history(store, RUN, "a")).renderables)
        assert "escalated to strong" in told
        assert "teacher strong, version 1" in told


def test_a_rationale_without_a_flag_stays_with_the_cheap_teacher(tmp_path: Path) -> None:
    teacher = recorded([RIGHT], [RIGHT])
    with asked(tmp_path, teacher, {}) as (_, _, [kept]):
        assert kept.teacher == "cheap"
        assert [model for _, model, _ in teacher.served] == ["cheap"]


def test_a_stronger_teacher_that_costs_more_than_it_saves_is_not_asked(tmp_path: Path) -> None:
    teacher = recorded([WRONG], [RIGHT])
    with asked(tmp_path, teacher, {"input_price": 2000.0, "output_price": 2000.0}) as (_, _, [kept]):
        assert kept.teacher == "cheap"
        assert [model for _, model, _ in teacher.served] == ["cheap"]


@pytest.mark.parametrize("said", [((), "nothing"), (("so it is",), "no number at all")])
def test_where_the_stronger_one_gives_no_answer_the_first_rationale_stands(tmp_path: Path, said: Said) -> None:
    with asked(tmp_path, recorded([WRONG], [said]), {}) as (_, _, [kept]):
        assert (kept.stated, kept.teacher) == ("6", "cheap")


def test_of_a_vote_that_stays_doubtful_the_stronger_one_has_the_last_word(tmp_path: Path) -> None:
    teacher = recorded([WRONG, RIGHT, WRONG], [RIGHT])
    with asked(tmp_path, teacher, {}, samples=3, temperature=1.0) as (_, _, [kept]):
        assert (kept.stated, kept.teacher, kept.confidence_by) == ("5", "strong", "")


# --- killed and replayed ----------------------------------------------------------------------------------------------


def test_a_round_cut_off_at_the_stronger_teacher_pays_for_nothing_twice(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    items.add(store, [an_item("a", question=QUESTION)])
    teacher = recorded([WRONG, RIGHT, WRONG], [RIGHT])
    with running(teacher) as address:
        config = config_at(address, {"base_url": "http://127.0.0.1:9/v1"}, samples=3, temperature=1.0)
        opened = queried(store, a_round(store, config), ["a"])
        with pytest.raises(TeacherDown, match=r"127\.0\.0\.1:9"):
            ask_teacher(opened, store, parts_at(config, tmp_path), config)
        before, served = spent(store), list(teacher.served)
        assert len(served) == 3
        assert rationales.of_round(store, id_of(opened)) == []
        mended = config_at(address, {}, samples=3, temperature=1.0)
        ask_teacher(rounds.by_id(store, id_of(opened)), store, parts_at(mended, tmp_path), mended)
    assert [model for _, model, _ in teacher.served[3:]] == ["strong"]
    assert spent(store) > before
    assert asking.waiting(store, id_of(opened)) == []
    [kept] = rationales.of_round(store, id_of(opened))
    assert kept.teacher == "strong"
    store.close()


def test_a_campaign_that_is_replayed_votes_the_same_and_costs_nothing(tmp_path: Path) -> None:
    teacher, found, paid = recorded([WRONG, RIGHT, RIGHT]), [], []
    with running(teacher) as address:
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            store = a_store(tmp_path / name)
            items.add(store, [an_item("a", question=QUESTION)])
            config = config_at(address, samples=3, temperature=1.0)
            memory = RememberingTeacher(
                config.teacher, tmp_path / "replies.db", say=print,
                asked=lambda prompt_hash, store=store: asking.times_asked(store, RUN, prompt_hash),
            )  # fmt: skip
            opened = queried(store, a_round(store, config), ["a"])
            ask_teacher(opened, store, parts_at(config, tmp_path, memory), config)
            found.append([(each.sample, each.stated, each.confidence) for each in rationales.of_round(store, 1)])
            paid.append(spent(store)[0])
            store.close()
    assert found[0] == found[1]
    assert paid[0] > 0
    assert paid[1] == 0
    assert len(teacher.served) == 3


# --- bad input --------------------------------------------------------------------------------------------------------


def loaded(folder: Path, text: str) -> Config:
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return load(file)


def test_a_stronger_teacher_takes_over_what_it_leaves_out_but_prices(tmp_path: Path) -> None:
    text = '[teacher]\nbase_url = "http://a/v1"\ninput_price = 1.0\noutput_price = 2.0\nconfidence = true\n'
    config = loaded(tmp_path, text + '[[teacher.stronger]]\nmodel = "strong"\n')
    [strong] = config.teacher.stronger
    assert (strong.base_url, strong.confidence, strong.input_price) == ("http://a/v1", True, None)
    assert Config.model_validate(config.model_dump(mode="json"), strict=False) == config
    elsewhere = '[teacher]\nrecorded = "a.jsonl"\n[[teacher.stronger]]\nmodel = "s"\nbase_url = "http://b/v1"\n'
    assert loaded(tmp_path, elsewhere).teacher.stronger[0].recorded is None


@pytest.mark.parametrize(("text", "said"), [
    ('[teacher]\nmodel = "m"\n[[teacher.stronger]]\nmodel = "m"\n', "m stands there twice, counting teacher.model"),
    ('[[teacher.stronger]]\nmodel = "s"\n[[teacher.stronger]]\nmodel = "s"\n', "s stands there twice"),
    ('[[teacher.stronger]]\nmodle = "s"\n', "teacher.stronger.0.modle: unknown key; did you mean `model`?"),
    ('[[teacher.stronger]]\nexpected_right = 0.8\n', "teacher.stronger.0.model: Field required"),
    ("[teacher]\nsamples = 3\nconfidence = true\nreprompt_below = 0.5\n", "reprompt_below needs samples = 1"),
    ("[teacher]\nvote_confidence = 0.4\n", "teacher.vote_confidence"),
    ("[teacher]\nsamples = 3\n", "samples above 1 need a temperature above 0"),
])  # fmt: skip
def test_a_wrong_cascade_is_refused_with_key_and_cure(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadConfig) as caught:
        loaded(tmp_path, text)
    assert said in str(caught.value)


def test_a_stronger_teacher_without_a_price_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    teacher = recorded([WRONG], [RIGHT])
    unpriced = {"input_price": None, "output_price": None}
    named = pytest.raises(UnknownPrice, match=r"price of strong .* set teacher\.stronger\.input_price and")
    with named, asked(tmp_path, teacher, unpriced):
        pass
    assert teacher.served == []


# --- real kills -------------------------------------------------------------------------------------------------------


def cascade_project(folder: Path) -> Path:
    """Two rounds in which three samples vote, and what is doubtful goes to a teacher that is always right."""
    config = tiny_project(folder)
    text = config.read_text(encoding="utf-8").replace(
        'model = "tiny-teacher"', 'model = "tiny-teacher"\nsamples = 3\ntemperature = 0.7'
    )
    stronger = '[[teacher.stronger]]\nmodel = "strong-teacher"\ninput_price = 2.0\noutput_price = 4.0\n'
    config.write_text(text + stronger, encoding="utf-8")
    asked = {row["key"]: row for row in map(json.loads, (folder / "pool.jsonl").read_text().splitlines())}
    truth = map(json.loads, (folder / "truth.jsonl").read_text().splitlines())
    right = [{**asked[each["key"]], "model": "strong-teacher", **pick(each, "steps", "answer")} for each in truth]
    with (folder / "recorded.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in right)
    for split in ("holdout", "pool"):
        preceptor("ingest", f"{folder / split}.jsonl", "--split", split, config=config)
    return config


def pick(row: dict[str, object], *names: str) -> dict[str, object]:
    return {name: row[name] for name in names}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = cascade_project(tmp_path_factory.mktemp("unbroken"))
    preceptor("run", config=config)
    assert rows(config, "select count(*) from rationale where teacher = 'strong-teacher'") == [(4,)]
    return config


@pytest.mark.slow
@pytest.mark.parametrize("statement", ["insert into reply", "insert into rationale"])
def test_a_run_killed_while_asking_pays_once_and_decides_the_same(
    statement: str, unbroken: Path, tmp_path: Path
) -> None:
    config = cascade_project(tmp_path)
    command = [sys.executable, "-m", "tests.killed_run", str(config), "ASK", statement]
    killed = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=120)
    assert killed.returncode == -9, killed.stderr
    preceptor("run", config=config)
    for query in (
        "select item_key, kind, reason, round_id from decision order by id",
        "select item_key, sample, teacher, steps, answer from rationale order by item_key, sample, id",
        "select item_key, sample, teacher from reply order by item_key, sample",
    ):
        assert rows(config, query) == rows(unbroken, query)
    settled = "currency='USD' and state='SETTLED' and not assumed"
    paid = rows(config, f"select purpose, count(*) from charge where {settled} group by purpose")
    assert all(count == 1 for _, count in paid)
    assert rows(config, "select distinct reserved from balance where currency='USD'") == [(0,)]
