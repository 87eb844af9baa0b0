"""Pool items that read like holdout items are found before anything is asked, named, and not asked."""

import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from connectors.cli import app
from connectors.measurements import duplicates_text, holdout_duplicates, seed_duplicates_text
from connectors.status import status, status_text
from loop.answer import Answer
from loop.config import Config, QueryConfig
from loop.ports import Example
from loop.records import Item, Part, Split
from loop.resemblance import alike, shingles
from loop.stages import contamination, select
from loop.stages.contamination import look
from loop.stages.demonstrating import Demonstrating
from loop.stages.train import seed_examples
from loop.store import forgetting, items, pool
from loop.store.database import Store
from tests.builders import RUN, a_number, a_store, an_item
from tests.test_status import shown
from tests.tiny import tiny_project

ASKED = "A farmer sells {n} eggs on Monday and twice as many on Tuesday and gives a third of all his eggs to the school"
WORDS = [f"word{number}" for number in range(40)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = a_store(tmp_path)
    held = an_item("h1", Split.HOLDOUT, question=f"{ASKED.format(n=8)}.", part=Part.DEV, answer=a_number(9))
    far = an_item("q2", question="How long does a train take from Kyoto to Osaka?")
    items.add(found, [held, an_item("q1", question=f"{ASKED.format(n=8)} today."), far])
    return found


def eligible(store: Store, query: QueryConfig) -> list[str]:
    return [*pool.keys(store, RUN, Config(query=query))]


def test_a_pool_item_that_reads_like_a_holdout_item_is_found_and_not_asked(store: Store) -> None:
    assert eligible(store, QueryConfig()) == ["q1", "q2"]  # nobody looked yet
    found = look(store, QueryConfig())
    assert found.pairs == {"q1": ["h1", pytest.approx(22 / 23)]}
    assert eligible(store, QueryConfig()) == ["q2"]


def replaced(words: list[str], place: int) -> list[str]:
    return [*words[:place], "other", *words[place + 1 :]]


@pytest.mark.parametrize(
    ("least", "change"),
    [
        (1, lambda words: [f"{word.upper()}!" for word in words]),
        (11, lambda words: [*words, "other"]),
        (11, lambda words: ["other", *words]),
        (21, lambda words: replaced(words, len(words) - 1)),
        (21, lambda words: replaced(words, 0)),
        (49, lambda words: [*words[: len(words) // 2], "other", *words[len(words) // 2 :]]),
        (50, lambda words: [*words[: len(words) // 2], *words[len(words) // 2 + 1 :]]),
        (59, lambda words: replaced(words, len(words) // 2)),
    ],
)
def test_a_small_change_is_found_in_texts_as_long_as_the_docs_say(
    least: int, change: Callable[[list[str]], list[str]]
) -> None:
    def is_found(length: int) -> bool:
        words = [f"word{number}" for number in range(length)]
        one, other = " ".join(words), " ".join(change(words))
        return bool(alike([("one", (one, one))], {"other": (other, other)}, QueryConfig().holdout_similarity))

    assert [length for length in range(1, 80) if is_found(length)] == [*range(least, 80)]


def test_it_is_asked_where_the_config_says_so(store: Store) -> None:
    allowed = QueryConfig(allow_holdout_duplicates=True)
    found = look(store, allowed)
    assert eligible(store, allowed) == ["q1", "q2"]
    assert "asked all the same: the holdout's figures are too good" in duplicates_text(found, allowed)


def test_counts_and_keys_are_told(store: Store) -> None:
    assert status(store, RUN, Config())["contamination"] is None
    text = duplicates_text(look(store, QueryConfig()), QueryConfig())
    assert text.startswith("1 of 2 pool items read like holdout items (q1 like h1) and are not asked; query.allow_")
    found = holdout_duplicates(store, QueryConfig())
    assert found is not None
    assert found["pairs"] == [{"item": "q1", "holdout": "h1", "similarity": 0.9565}]
    state = status(store, RUN, Config())
    assert state["contamination"]["items"] == 1
    assert state["items"]["pool"] == 1
    assert "1 of 2 pool items read like holdout items and are not asked" in shown(status_text(state))


def test_new_items_are_looked_at_again_and_known_ones_are_not(store: Store) -> None:
    first = look(store, QueryConfig())
    assert look(store, QueryConfig()).looked_at == first.looked_at
    items.add(store, [an_item("q3", question=f"{ASKED.format(n=8)} again.")])
    assert eligible(store, QueryConfig()) == ["q2", "q3"]  # nobody looked at this one
    assert set(look(store, QueryConfig()).pairs) == {"q1", "q3"}
    assert eligible(store, QueryConfig()) == ["q2"]


def test_only_what_is_new_is_looked_at_unless_the_holdout_grew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[list[str]] = []

    def counted(texts: Iterable[tuple[str, tuple[str, str]]], *given: Any) -> dict[str, tuple[str, float]]:
        some = sorted(texts)
        looked_at.append([key for key, _ in some])
        return alike(some, *given)

    monkeypatch.setattr(contamination, "alike", counted)
    look(store, QueryConfig())
    items.add(store, [an_item("q3", question="Who built the tower of this town, and when?")])
    look(store, QueryConfig())
    held = an_item("h2", Split.HOLDOUT, question="How long does a train take from Kyoto to Osaka?", part=Part.DEV)
    items.add(store, [held])
    assert set(look(store, QueryConfig()).pairs) == {"q1", "q2"}
    assert looked_at == [["q1", "q2"], ["q3"], ["q1", "q2", "q3"]]


def test_an_item_that_becomes_a_holdout_item_has_its_twins_found(store: Store) -> None:
    look(store, QueryConfig())
    items.add(store, [an_item("q3", question="How long does a train take from Kyoto to Osaka?")])
    look(store, QueryConfig())
    assert items.make_holdout(store, "q3", Answer.from_canonical(a_number(3)), Part.DEV)
    assert set(look(store, QueryConfig()).pairs) == {"q1", "q2"}


def test_what_comes_after_the_newest_was_forgotten_is_looked_at(store: Store) -> None:
    """The addition after a removal must not get the number of the removed one, which was looked at."""
    items.add(store, [an_item("late", question="Who built the tower of this town, and when?")])
    look(store, QueryConfig())
    forgetting.remove(store, "late", [], taught=False)
    items.add(store, [an_item("q3", question=f"{ASKED.format(n=8)} again.")])
    assert set(look(store, QueryConfig()).pairs) == {"q1", "q3"}


def a_seed(key: str, question: str) -> Item:
    return an_item(key, Split.SEED, question=question, answer=a_number(3), steps=["It is 3."])


def test_a_seed_item_that_reads_like_a_holdout_item_is_neither_learned_nor_shown(store: Store) -> None:
    items.add(
        store, [a_seed("s1", f"{ASKED.format(n=8)} today."), a_seed("s2", "How long is a minute in seconds now?")]
    )
    found = look(store, QueryConfig(), Split.SEED)
    assert found.pairs == {"s1": ["h1", pytest.approx(22 / 23)]}
    assert [each.item.key for each in seed_examples(store, QueryConfig())] == ["s2"]
    assert [each.item.key for each in shown_to_the_teacher(store, Config())] == ["s2"]
    assert seed_duplicates_text(found, QueryConfig()) == (
        "1 of 2 seed items read like holdout items (s1 like h1) and are neither learned nor shown to the teacher"
    )
    allowed = QueryConfig(allow_holdout_duplicates=True)
    assert [each.item.key for each in seed_examples(store, allowed)] == ["s1", "s2"]
    assert [each.item.key for each in shown_to_the_teacher(store, Config(query=allowed))] == ["s1", "s2"]
    assert "learned all the same: the holdout's figures are too good" in seed_duplicates_text(found, allowed)


def shown_to_the_teacher(store: Store, config: Config) -> list[Example]:
    made = Demonstrating(store, RUN, lambda: None, config)  # type: ignore[arg-type,return-value] - nothing is embedded
    return sorted(made.longest(9), key=lambda each: each.item.key)


def test_an_item_that_comes_in_while_the_pool_is_read_waits_until_it_was_looked_at(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looked whether it reads like a holdout item, so it is not asked before the next round."""
    read, late = pool.keys, [an_item("q3", question=f"{ASKED.format(n=8)} again.")]

    def meanwhile(*given: Any, **named: Any) -> Iterable[str]:
        items.add(store, late)
        late.clear()
        return read(*given, **named)

    monkeypatch.setattr(pool, "keys", meanwhile)
    found, asked = select._looked_at(store, RUN, Config())
    assert (asked.count, [*asked.keys()], [item.key for item in asked.first]) == (1, ["q2"], ["q2"])
    assert set(found.pairs) == {"q1"}
    found, asked = select._looked_at(store, RUN, Config())
    assert ([*asked.keys()], set(found.pairs)) == (["q2"], {"q1", "q3"})


def test_how_like_is_a_setting(store: Store) -> None:
    assert not look(store, QueryConfig(holdout_similarity=0.99)).pairs
    assert not look(store, QueryConfig(holdout_similarity=1.0)).pairs
    assert look(store, QueryConfig(holdout_similarity=0.5)).pairs


def test_other_questions_about_the_same_context_are_no_duplicates() -> None:
    context = " ".join(WORDS)
    texts = {"q": (f"{context} who came first", "who came first")}
    assert alike(texts.items(), {"h": (f"{context} when was that", "when was that")}, 0.8) == {}
    assert set(alike(texts.items(), {"h": (f"{context} who came first", "who came first")}, 0.8)) == {"q"}


def test_the_same_question_about_other_contexts_is_no_duplicate() -> None:
    texts = {"q": ("the sun burns today and tomorrow is it warm", "is it warm")}
    assert alike(texts.items(), {"h": ("the snow falls on a hill is it warm", "is it warm")}, 0.8) == {}


@settings(max_examples=25)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30))
def test_a_text_is_found_again_whatever_its_case_and_marks(words: list[str]) -> None:
    text, other = " ".join(words), ", ".join(words).upper() + "!"
    assert alike([("q", (text, text))], {"h": (other, other)}, 0.95) == {"q": ("h", 1.0)}


def test_the_index_misses_hardly_anything_that_counting_finds() -> None:
    chance = random.Random(0)
    holdout = {f"h{n}": " ".join(chance.choices(WORDS, k=60)) for n in range(100)}
    texts = {}
    for number, text in enumerate(holdout.values()):
        words = text.split()
        for place in chance.sample(range(60), number % 4):
            words[place] = "changed"
        texts[f"q{number}"] = " ".join(words)
    counted = set()
    for (key, one), other in zip(texts.items(), holdout.values(), strict=True):
        first, second = shingles(one), shingles(other)
        if len(first & second) >= 0.85 * len(first | second):
            counted.add(key)
    found = alike(((k, (t, t)) for k, t in texts.items()), {k: (t, t) for k, t in holdout.items()}, 0.85)
    assert set(found) <= counted
    assert len(found) >= 0.97 * len(counted) > 40


def test_ingest_and_doctor_name_them(tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    for name, said_after in (("pool", " today"), ("holdout", ""), ("seed", " again")):
        row = f"{ASKED.format(n=8)}{said_after}"
        answer = "" if name == "pool" else ', "answer": 9'
        (tmp_path / f"{name}.jsonl").write_text(f'{{"key": "{name}", "question": "{row}"{answer}}}\n')
    said = []
    for words in (["ingest", str(tmp_path / "pool.jsonl"), "--split", "pool"],
                  ["ingest", str(tmp_path / "holdout.jsonl"), "--split", "holdout"],
                  ["ingest", str(tmp_path / "seed.jsonl"), "--split", "seed"], ["doctor"]):  # fmt: skip
        said.append(CliRunner().invoke(app, [*words, "--config", str(config)], catch_exceptions=False).stdout)
    assert "duplicates" not in said[0]
    assert "1 of 1 pool items read like holdout items (pool like holdout) and are not asked" in said[1]
    assert "1 of 1 seed items read like holdout items (seed like holdout) and are neither learned nor shown" in said[2]
    assert "duplicates: 1 of 1 pool items" in said[3]
    assert "1 of 1 seed items read like" in said[3]


@settings(deadline=None)
@given(st.text())
def test_words_are_what_a_pattern_takes_for_words_in_every_script(text: str) -> None:
    words = re.findall(r"\w+", text.lower())
    runs = {" ".join(words[at : at + 3]) for at in range(max(1, len(words) - 2))}
    assert shingles(text) == runs
