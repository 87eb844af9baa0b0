"""A round chooses its batch: by doubt, coverage, domain, cost or chance, and says by which."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from connectors.report_page import page, summary
from connectors.status import status, status_text
from loop.answer import Answer, AnswerKind
from loop.config import Config, EvaluationConfig, StudentConfig
from loop.ports import Explanation, Forced
from loop.query.divergence import rank_average
from loop.query.select import Past, Pool, best, compose, known
from loop.records import Part, Query, Round, Split, Stage
from loop.stages.composing import composed, dead_signals
from loop.stages.evaluate import compare_arms
from loop.stages.lagging import domain_shares
from loop.stages.parts import Parts
from loop.stages.select import select_batch
from loop.store import items, rounds, shadows
from loop.store.database import Store
from tests.builders import RUN, a_number, a_round, a_store, an_item, id_of, trained
from tests.test_arms import Placed, Written, a_config, answer, asked, parts_of
from tests.test_dashboard import compared, looking, text_of, words
from tests.test_encoder import TASK, WORDS
from tests.test_encoder import a_trainer as an_encoder
from tests.test_encoder import model as encoder  # noqa: F401 - a fixture
from tests.test_status import shown
from tests.test_training import Told

RIGHT, WRONG = [True] * 9 + [False], [True] + [False] * 9
"""What students got right on ten items of dev: all but one, or one."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_store(tmp_path)


def a_pool(count: int, domain: str = "", prefix: str = "q") -> list[str]:
    return [f"{prefix}{number:03}" for number in range(count)]


def add(store: Store, keys: Sequence[str], **fields: object) -> None:
    items.add(store, [an_item(key, **fields) for key in keys])


def chosen(store: Store, config: Config, parts: Parts) -> tuple[Round, list[Query]]:
    """The round after its batch was chosen, with the batch."""
    done = select_batch(a_round(store, config), store, parts, config)
    assert done.stage is Stage.ASK
    return done, rounds.queries(store, id_of(done))


# --- random picks take over -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "rounds_before", "random"),
    [
        (2, ["loses", "loses"], True),
        (2, ["saves", "loses", "loses"], True),
        (1, ["loses"], True),
        (3, ["loses", "loses"], False),
        (2, ["loses", "undecided"], False),
        (2, ["loses", "undecided", "loses"], False),
        (2, ["loses", "nothing"], False),
        (2, ["saves", "saves"], False),
        (2, [], False),
    ],
)
def test_a_round_picks_at_random_once_selection_lost_often_enough_in_a_row(
    after: int, rounds_before: list[str], random: bool, store: Store, tmp_path: Path
) -> None:
    config = a_config().model_copy(update={"evaluation": EvaluationConfig(saving_pairs=1, fallback_after=after)})
    add(store, a_pool(40))
    for number, what in enumerate(rounds_before or ["nothing"]):
        opened = asked(store, config, {f"q{number:03}": None})
        if what != "nothing":
            right = {"loses": (WRONG, RIGHT), "saves": (RIGHT, WRONG), "undecided": (RIGHT, RIGHT)}[what]
            compared(store, opened, *right)
        trained(store, opened, examples=1, right=0)
    done, batch = chosen(store, config, parts_of(tmp_path, Written(999)))
    assert all((each.arm == "random") and (each.probability is not None) for each in batch) == random
    assert done.selection.startswith(f"random: selection did worse than the control arm in {after} rounds") == random
    said = shown(status_text(status(store, RUN, config)))
    assert f"the batch of round {done.number}: {done.selection[:60]}" in " ".join(said.split())


# --- a student that has learned nothing -----------------------------------------------------------------------------


@pytest.mark.parametrize("cold_start", ["random", "typiclust"])
def test_a_cold_start_is_random_or_of_typical_items_as_the_untrained_student_sees_them(
    cold_start: str, store: Store, tmp_path: Path
) -> None:
    """The pool lies in three heaps and five places; a heap of two items is too small for TypiClust."""
    config = a_config(cold_start=cold_start, batch_size=3, candidates=20, random_share=0.0, diversity=5)
    heaps = {0: 20, 1: 10, 2: 6, 3: 2}
    add(store, [f"q{number:02}{place}" for place, size in heaps.items() for number in range(size)])
    student = Placed()  # it would break off if it were asked for an explanation
    done, batch = chosen(store, config, parts_of(tmp_path, student))
    assert done.selection.startswith("cold start: the student is untrained")
    if cold_start == "random":
        assert {(each.arm, each.probability) for each in batch} == {("cold start", 3 / 38)}
        assert not student.placed
    else:
        assert {(each.arm, each.probability) for each in batch} == {("typiclust", None)}
        assert {each.item_key[-1] for each in batch} == {"0", "1", "2"}
        assert "typiclust of 38 candidates: 3 picked" in done.selection


# --- domains --------------------------------------------------------------------------------------------------------


def a_lagging_student(store: Store, config: Config) -> None:
    """A student in force that is right in every item of dev in `easy` and wrong in all of `hard`; the teacher's twenty
    rationales of each domain all stood.
    """
    for domain in ("easy", "hard"):
        add(store, a_pool(80, prefix=domain), domain=domain)
        dev = [
            an_item(f"h-{domain}{number}", Split.HOLDOUT, part=Part.DEV, answer=a_number(1), domain=domain)
            for number in range(10)
        ]
        items.add(store, dev)
    taught = [f"{domain}{number:03}" for domain in ("easy", "hard") for number in range(20)]
    trained(store, asked(store, config, dict.fromkeys(taught)), examples=40, right=10)


def domains_of(batch: Sequence[Query]) -> Counter[str]:
    return Counter(each.item_key[:4] for each in batch if each.probability is None)


def test_a_domain_in_which_the_student_lags_gets_more_of_the_batch_and_never_all_of_it(
    store: Store, tmp_path: Path
) -> None:
    config = a_config(batch_size=40, candidates=3, random_share=0.0, domain_share=1.0)
    a_lagging_student(store, config)
    # Wrong of dev: easy 1/12, hard 11/12; of the teacher's 1/22 in both. Ratios 1.83, and 20.2, which is clipped to 4.
    shares = domain_shares(store, RUN)
    assert shares["hard"] == pytest.approx(np.exp(4) / (np.exp(4) + np.exp(22 / 12)))
    done, batch = chosen(store, config, parts_of(tmp_path, Written(999)))
    assert domains_of(batch) == {"hard": 36, "easy": 4}
    assert (
        "40 of them spread over domains by error rates, as the teacher gives no logits, in all hard 36 (share 0.90), "
        "easy 4 (share 0.10)"
    ) in done.selection


def test_the_share_says_how_many_places_go_by_domain_and_none_do_by_default(tmp_path: Path) -> None:
    hard = {}
    for share in (0.0, 0.5, 1.0):
        folder = tmp_path / str(share)
        folder.mkdir()
        config = a_config(batch_size=40, candidates=3, random_share=0.0, domain_share=share)
        a_lagging_student(a_store(folder), config)
        done, batch = chosen(a_store(folder), config, parts_of(folder, Written(999)))
        hard[share] = domains_of(batch)["hard"]
        assert ("spread over domains" in done.selection) == bool(share)
    assert 10 <= hard[0.0] <= 30  # scores know nothing of domains
    assert hard[0.5] >= 18  # of 20 places, and more of the others
    assert hard[0.0] < hard[0.5] < hard[1.0] == 36


def test_status_names_the_domains_that_lag_with_their_part_of_the_batch(store: Store, tmp_path: Path) -> None:
    config = a_config(batch_size=40, candidates=3, random_share=0.0, domain_share=1.0)
    assert status(store, RUN, config)["lagging"] is None
    a_lagging_student(store, config)
    chosen(store, config, parts_of(tmp_path, Written(999)))
    found = status(store, RUN, config)["lagging"]
    hard, easy = found["domains"]
    assert (found["by"], found["domain_share"], found["picked_in"], found["picked"]) == ("error rates", 1.0, 2, 40)
    assert (hard["domain"], hard["lags"], hard["gap"], hard["picked"]) == ("hard", True, 4.0, 36)
    assert (hard["student"], hard["teacher"]) == ({"wrong": 10, "n": 10}, {"wrong": 0, "n": 20})
    assert (easy["domain"], easy["lags"], easy["picked"]) == ("easy", False, 4)
    said = " ".join(shown(status_text(status(store, RUN, config))).split())
    assert (
        "the student lags, by error rates, as the teacher gives no logits, in hard (wrong: student 10 of 10 on dev, "
        "teacher 0 of 20; share of the next places 0.90, 36 of 40 picks of round 2)"
    ) in said
    assert "of each batch's picks 100% are spread over domains by these shares" in said
    off = shown(status_text(status(store, RUN, a_config())))
    assert "batches do not look at that (query.domain_share = 0)" in off
    random = shown(status_text(status(store, RUN, a_config(acquisition="random", domain_share=1.0))))
    assert 'batches do not look at that (query.acquisition = "random")' in random
    assert "are spread over domains" not in random


def test_report_and_dashboard_name_the_domains_that_lag_and_how_the_batch_was_chosen(
    store: Store, tmp_path: Path
) -> None:
    config = a_config(batch_size=40, candidates=3, random_share=0.0, domain_share=1.0)
    a_lagging_student(store, config)
    done, _ = chosen(store, config, parts_of(tmp_path, Written(999)))
    wrong = "in hard (wrong: student 10 of 10 on dev, teacher 0 of 20; "
    lag = f"{wrong}share of the next places 0.90, 36 of 40 picks of round 2)"
    assert lag in words(page(store, RUN, config))
    assert f"round 2: {done.selection}" in words(page(store, RUN, config)).replace("Round", "round")
    plain = summary(store, RUN, config).replace("\\", "")
    assert lag in plain
    assert f"- round 2: {done.selection}" in plain
    shown_there = text_of(looking(store, config=config), "/domains")
    assert lag in shown_there
    assert "4.00 0.90 36" in shown_there


def test_report_and_dashboard_say_why_it_is_not_known_what_selection_saves(store: Store, tmp_path: Path) -> None:
    config, parts = a_config(), parts_of(tmp_path, Written(999))
    add(store, a_pool(40))
    opened = asked(store, config, {"q000": 0.5})
    compare_arms(opened, store, parts, config)
    why = "after round 1, what selection saves was not measured: the holdout has no items in dev"
    pages = {
        "page": words(page(store, RUN, config)),
        "summary": summary(store, RUN, config).replace("\\", ""),
        "dashboard": text_of(looking(store, config=config), ""),
    }
    assert [name for name, text in pages.items() if why not in text] == []
    assert "Round 1: what selection saves was not measured" in words(page(store, RUN, config))
    compared(store, opened, RIGHT, WRONG)
    both = summary(store, RUN, config).replace("\\", "")
    assert f"n=10); {why}" in both  # some pairs were there before a student failed
    shadows.keep_reason(store, id_of(opened), "")
    assert "not measured" not in summary(store, RUN, config)


# --- cost -----------------------------------------------------------------------------------------------------------


class Apart(Written):
    """A student that doubts all items alike, of which none is near another."""

    def explain(self, items: Sequence[Any], *, copies: Sequence[int], **_: object) -> list[list[Explanation]]:
        return [[Explanation(("one",), answer(str(copy))) for copy in copies] for _ in items]

    def answers_after(self, items: Sequence[Any], parts: Sequence[Sequence[Sequence[str]]]) -> list[list[Forced]]:
        return [[Forced(answer(str(len(each)))) for each in some] for some in parts]

    def embed(self, items: Sequence[Any]) -> NDArray[np.float32]:
        return np.eye(100, dtype=np.float32)[[int(item.key[1:]) for item in items]]


@pytest.mark.parametrize("diversity", [1, 5])
def test_the_weight_of_cost_says_whether_dear_items_are_left_out(diversity: int, store: Store, tmp_path: Path) -> None:
    every = a_pool(40)
    dear = set(every[::2])
    for key in every:
        add(store, [key], question=f"What is {key}? {'Read all of it. ' * (200 if key in dear else 1)}")
    config = a_config(batch_size=10, candidates=4, random_share=0.0, diversity=diversity, racing_confidence=1.0)
    trained(store, asked(store, config, {"q001": None, "q003": None}), examples=2, right=0)
    taken = {}
    for weight in (1.0, 0.0):
        query = config.query.model_copy(update={"cost_weight": weight, "duplicate_similarity": 1.0})
        _, batch = chosen(store, config.model_copy(update={"query": query}), parts_of(tmp_path, Apart(999)))
        taken[weight] = sum(each.item_key in dear for each in batch)
        assert len(batch) == 10
    assert taken[1.0] == 0
    assert 2 <= taken[0.0] <= 8  # of 38 or 28 alike, by chance


# --- racing ---------------------------------------------------------------------------------------------------------


class Wavering(Written):
    """A student that writes, and whose samples end elsewhere the more often, the larger the item's number is."""

    def explain(self, items: Sequence[Any], *, copies: Sequence[int], **_: object) -> list[list[Explanation]]:
        self.asked += [(item.key, tuple(copies)) for item in items]
        return [[Explanation(("one",), self._said(item.key, copy)) for copy in copies] for item in items]

    def answers_after(self, items: Sequence[Any], parts: Sequence[Sequence[Sequence[str]]]) -> list[list[Forced]]:
        return [
            [Forced(self._said(item.key, 90 + len(each))) for each in some]
            for item, some in zip(items, parts, strict=True)
        ]

    def _said(self, key: str, copy: int) -> Answer:
        drawn = Random(f"{key}/{copy}")
        away = copy and drawn.random() < (int(key[1:]) / 100) ** 2
        return Answer(kind=AnswerKind.NUMBER, value=str(drawn.randint(1, 9) if away else 0))


def test_a_race_in_a_round_takes_fewer_samples_and_picks_nearly_what_all_samples_would(tmp_path: Path) -> None:
    picked, samples = {}, {}
    for confidence in (0.8, 1.0):
        folder = tmp_path / str(confidence)
        folder.mkdir()
        store, student = a_store(folder), Wavering(999)
        config = a_config(batch_size=20, candidates=5, samples=4, random_share=0.0, racing_confidence=confidence)
        a_trained_store(store, config, 100)
        done, batch = chosen(store, config, parts_of(folder, student))
        picked[confidence] = {each.item_key for each in batch}
        rows = rounds.scores(store, id_of(done))
        samples[confidence] = sum(len(row.parts["sampled_answers"]) for row in rows)
        assert samples[confidence] == sum(copy > 0 for _, copies in student.asked for copy in copies)
    assert samples[1.0] == 98 * 4
    assert samples[0.8] < 0.6 * samples[1.0]
    assert len(picked[0.8] & picked[1.0]) >= 15


def test_a_round_takes_all_samples_of_an_encoder_whatever_the_confidence_of_racing(
    encoder: Path,  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    """They are cheap, and a race would put votes in the place of their probabilities."""
    chance, batches, student = Random(0), [], an_encoder(encoder, epochs=1).student(None)
    asking = {f"q{number:02}": " ".join(chance.sample(WORDS[3:], chance.randint(3, 8))) for number in range(29)}
    for confidence in (0.8, 1.0):
        folder = tmp_path / str(confidence)
        folder.mkdir()
        store, config = a_store(folder), a_config(batch_size=4, candidates=7, racing_confidence=confidence, diversity=5)
        config = config.model_copy(update={"task": TASK, "student": StudentConfig(kind="encoder")})
        items.add(store, [an_item(key, question=text) for key, text in asking.items()])
        trained(store, asked(store, config, {"q00": None}), examples=1, right=0)
        parts: Any = parts_of(folder, student)  # type: ignore[arg-type] - a student like any other
        done, batch = chosen(store, config, parts)
        rows = rounds.scores(store, id_of(done))
        assert [len(row.parts["sampled_answers"]) for row in rows] == [config.query.samples] * 28
        batches.append(([row.parts for row in rows], [each.item_key for each in batch]))
    assert batches[0] == batches[1]


# --- settings that change within a round ----------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [1.0, 0.9])
@pytest.mark.parametrize(
    ("before", "after"), [("entropy", "explanation_divergence"), ("explanation_divergence", "entropy")]
)
def test_a_round_goes_on_by_the_acquisition_function_of_today_after_it_was_cut_off(
    before: str, after: str, confidence: float, tmp_path: Path
) -> None:
    """As a round does that had today's function from the start; what it goes by is known of every candidate."""
    signal = "intra" if after == "explanation_divergence" else "probabilities"
    batches = []
    for first in (before, after):
        folder = tmp_path / first
        folder.mkdir()
        store = a_store(folder)
        settings = {name: a_config(acquisition=name, racing_confidence=confidence) for name in (first, after)}
        a_trained_store(store, settings[after])
        opened = a_round(store, settings[after])
        with pytest.raises(KeyboardInterrupt):
            select_batch(opened, store, parts_of(folder, Written(1)), settings[first])
        assert len(rounds.scores(store, id_of(opened))) == 4
        done = select_batch(opened, store, parts_of(folder, Written(999)), settings[after])
        assert [signal in row.parts for row in rounds.scores(store, id_of(done))] == [True] * 12
        batches.append([each.item_key for each in rounds.queries(store, id_of(done))])
    assert batches[0] == batches[1]


@pytest.mark.parametrize("acquisition", ["entropy", "explanation_divergence"])
def test_what_another_function_measured_tells_nothing_apart(acquisition: str) -> None:
    query = a_config(acquisition=acquisition).query
    other = {"probabilities": [0.5, 0.5]} if acquisition == "explanation_divergence" else {"intra": 0.5, "inter": 0.5}
    found = known([other, {}], np.zeros((0, 1)), np.zeros((0, 1)), np.zeros(0), np.ones(2), query)
    assert "no candidate has a score that is a number" in dead_signals(found, [other, {}], query)[0]


# --- what a round says of its batch ---------------------------------------------------------------------------------


def a_trained_store(store: Store, config: Config, count: int = 40) -> None:
    add(store, a_pool(count))
    trained(store, asked(store, config, {"q000": None, "q001": None}), examples=2, right=0)


class Scattered(Written):
    """A student to whom no two items are alike."""

    def embed(self, items: Sequence[Any]) -> NDArray[np.float32]:
        return np.eye(100, dtype=np.float32)[[int(item.key[1:]) for item in items]]


def test_a_round_says_how_far_its_batch_goes_by_coverage_and_how_far_by_score(store: Store, tmp_path: Path) -> None:
    config = a_config(batch_size=10, candidates=3, random_share=0.2, diversity=3)
    a_trained_store(store, config)
    parts = parts_of(tmp_path, Scattered(999))
    done, batch = chosen(store, config, parts)
    own = [each.item_key for each in batch if each.probability is None]
    found = re.fullmatch(
        "explanation divergence of 30 candidates: 8 picked to cover what is doubted, of which ([0-9]) (?:is|are) among "
        r"the 8 with the highest scores; 2 at random \(the control arm\)",
        done.selection,
    )
    assert found
    assert len(own) == 8
    rows = rounds.scores(store, id_of(done))
    value = dict(
        zip(
            [row.item_key for row in rows],
            rank_average([row.parts["intra"] for row in rows], [row.parts["inter"] for row in rows], 0.5),
            strict=True,
        )
    )
    eighth = sorted(value.values())[-8]
    above, not_below = (sum(each) for each in zip(*((value[k] > eighth, value[k] >= eighth) for k in own), strict=True))
    assert above <= int(found[1]) <= not_below


def test_a_round_names_its_short_list(store: Store, tmp_path: Path) -> None:
    config = a_config(batch_size=10, candidates=3, random_share=0.0, diversity=2)
    a_trained_store(store, config)
    done, _ = chosen(store, config, parts_of(tmp_path, Scattered(999)))
    assert "10 picked of the 20 with the highest scores to cover what is doubted" in done.selection
    plain, _ = chosen(store, a_config(batch_size=10, candidates=3, random_share=0.0), parts_of(tmp_path, Written(999)))
    assert plain.selection.endswith("candidates: 10 picked by score")


def said_of(scores: Sequence[float], texts: Sequence[str] = (), cost: Sequence[float] = (), **query: object) -> str:
    """What is said of a batch of candidates that lie apart, whose two divergences are these."""
    config = a_config(random_share=0.0, **query)
    names = [f"{number:02}" for number in range(len(scores))]
    some = [an_item(f"q{each}", question=texts[int(each)] if texts else each * 9) for each in names]
    parts = [{"intra": each, "inter": each, "steps": ["one"]} for each in scores]
    costs, apart = np.array(cost or [1.0] * len(scores)), np.eye(len(scores))
    found = known(parts, apart, np.zeros((0, len(scores))), np.zeros(0), costs, config.query)
    batch = compose(1, best(some, found, config.query, seed=0), Pool(len(some), some), config, seed=0)
    return composed(batch, some, found, Past(), config, seed=0)


@pytest.mark.parametrize("diversity", [2, 5])
def test_picks_beyond_a_short_list_of_near_duplicates_are_told_apart(diversity: int) -> None:
    """The eight with the highest scores read alike, so one of them is picked; with a longer list all are of it."""
    distinct = [" ".join(f"{letter}{number}" for number in range(9)) for letter in "abcdefghijklmnop"]
    alike = ["The same long question about many boxes of apples and pears."] * 8
    said = said_of([n / 24 for n in range(24)], [*distinct, *alike], batch_size=4, diversity=diversity)
    assert (
        said
        == {
            2: "1 picked of the 8 with the highest scores to cover what is doubted, and 3 by score, as near-duplicates "
            "wait; 1 of all 4 is among the 4 with the highest scores",
            5: "4 picked of the 20 with the highest scores to cover what is doubted, of which 1 is among the 4 "
            "with the highest scores",
        }[diversity]
    )


@pytest.mark.parametrize(("weight", "more"), [(1.0, " for their cost"), (0.0, "")])
@pytest.mark.parametrize("diversity", [1, 2])
def test_where_the_price_has_a_say_the_highest_scores_are_those_for_their_cost(
    weight: float, more: str, diversity: int
) -> None:
    cost = [0.2] * 2 + [1.0] * 6 + [10.0] * 2
    scores = [n / 10 for n in range(10)]
    said = said_of(scores, cost=cost, batch_size=2, diversity=diversity, cost_weight=weight)
    assert said.endswith(f"scores{more}" if diversity > 1 else f"2 picked by score{more}")
    assert said.count("for their cost") == (diversity if weight else 0)


@pytest.mark.parametrize(
    ("acquisition", "parts", "cost", "said"),
    [
        ("explanation_divergence", {"intra": 0.0, "inter": 0.0}, 1.0, ("as good as random", "as good as random")),
        ("explanation_divergence", {"intra": 0.0, "inter": 0.0}, 9.0, ("as good as random", "chosen by price alone")),
        (
            "explanation_divergence",
            {"intra": 0.5, "inter": 0.0},
            1.0,
            ("chosen by coverage alone", "as good as random"),
        ),
        ("entropy", {"probabilities": [1.0]}, 9.0, ("as good as random", "as good as random")),
        ("margin", {"probabilities": [0.0, 1.0]}, 9.0, ("as good as random", "as good as random")),
        ("entropy", {"probabilities": [0.5, 0.5]}, 9.0, ("chosen by coverage and price", "chosen by price alone")),
        ("badge", {"probabilities": [1.0]}, 1.0, ("as good as random", "as good as random")),
        ("badge", {"probabilities": [0.5, 0.5]}, 1.0, ("chosen by embeddings alone", "chosen by embeddings alone")),
    ],
)
def test_where_all_scores_are_alike_it_is_told_what_chose_the_batch(
    acquisition: str, parts: dict[str, Any], cost: float, said: tuple[str, str]
) -> None:
    """Without a doubt anywhere nothing is to be covered, which leaves chance; with diversity and without."""
    for diversity, chose in zip((5, 1), said, strict=True):
        query = a_config(acquisition=acquisition, diversity=diversity).query
        rows, costs = [{**parts, "steps": ["one"]}] * 3, np.array([1.0, 1.0, cost])
        found = known(rows, np.eye(3), np.zeros((0, 3)), np.zeros(0), costs, query)
        [told] = dead_signals(found, rows, query)
        assert told.startswith(f"all candidates have the same score, so the batch is {chose}: ")


class Silent(Written):
    """A student that answers without a step."""

    def explain(self, items: Sequence[Any], **settings: Any) -> list[list[Explanation]]:
        return [[replace(each, steps=()) for each in some] for some in super().explain(items, **settings)]


@pytest.mark.parametrize(
    ("student", "diversity", "said"),
    [
        (
            Silent,
            1,
            "the student wrote no steps for 12 of 12 candidates, so what is measured within explanations tells",
        ),
        (Apart, 5, "all candidates have the same score, so the batch is chosen by coverage alone: let the student"),
        (Apart, 1, "all candidates have the same score, so the batch is as good as random: let the student"),
    ],
)
def test_scores_that_tell_nothing_apart_are_warned_of_with_the_cure(
    student: type[Written], diversity: int, said: str, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = a_config(diversity=diversity, cost_weight=0.0)
    a_trained_store(store, config)
    told = Told()
    done, _ = chosen(store, config, parts_of(tmp_path, student(999), told))
    assert f"; but {said}" in done.selection
    assert any(said in line for line in told.lines)
    assert warnings(caplog) == ["scores_say_nothing"]
    assert said in " ".join(shown(status_text(status(store, RUN, config))).split())


def test_scores_that_differ_are_not_warned_of(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = a_config()
    a_trained_store(store, config)
    done, _ = chosen(store, config, parts_of(tmp_path, Written(999)))
    assert "; but " not in done.selection
    assert warnings(caplog) == []


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was warned of, however much else is told."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
