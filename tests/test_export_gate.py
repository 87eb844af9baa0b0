"""What an export says of itself, the bars it has to clear, which rows it holds, and what changed since another."""

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, update
from typer.testing import CliRunner

from connectors.cli import app
from connectors.export_diff import difference
from connectors.exports import Wanted, export
from loop.config import Config, QueryConfig, TaskConfig
from loop.errors import PreceptorError
from loop.interval import wilson
from loop.records import DecisionKind, Query, Split, VerdictKind
from loop.resemblance import Alike
from loop.stages import contamination
from loop.store import dataset, items, rounds, withdrawals
from loop.store.database import Store
from loop.store.tainted import Grounds
from tests.builders import (
    RUN,
    a_campaign,
    a_holdout,
    a_reply,
    a_round,
    a_store,
    a_verdict,
    an_item,
    checked,
    decided,
    queried,
    trained,
)
from tests.test_lineage import other_model


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return a_store(tmp_path)


@pytest.fixture(scope="module")
def kept_campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    made = a_store(folder)
    a_campaign(made)
    made.close()
    return folder / "store.db"


@pytest.fixture
def campaign(tmp_path: Path, kept_campaign: Path) -> Store:
    """A copy of a campaign."""
    shutil.copy(kept_campaign, tmp_path / "campaign.db")
    return Store(f"sqlite:///{tmp_path / 'campaign.db'}")


def audited_round(
    store: Store,
    *,
    wrong: int = 0,
    right: int = 4,
    marks: int = 0,
    silver: int = 2,
    simulated: int = 0,
    unread: int = 0,
) -> None:
    """Certifying audits that would have passed, each read by two people; some wrong, some with a marked step.

    The first so many are read by a simulated reviewer, and some more are not read at all.
    """
    place = len(rounds.all_rounds(store, RUN))
    keys = [f"a{number:03}" if not place else f"{place}a{number:03}" for number in range(wrong + right + unread)]
    passed = [f"s{place}{number}" for number in range(1, silver + 1)]
    items.add(store, [an_item(key) for key in [*keys, *passed]])
    opened = queried(store, a_round(store), [*keys, *passed], audits=keys)
    with store.writing() as session:
        session.execute(update(Query).where(col(Query.item_key).in_(keys)).values(certify=True, passes=True))
    for place, key in enumerate([*keys, *passed]):
        rationale = a_reply(store, opened, key, steps=["one", "two"], answer=1)
        checked(store, rationale, 0.1)
        if key not in keys:
            decided(store, opened, key, DecisionKind.SILVER, rationale)
            continue
        if place >= wrong + right:
            continue
        kind = VerdictKind.REJECT if place < wrong else VerdictKind.ACCEPT
        given: dict[str, Any] = {"marks": {"0": "wrong"}} if wrong <= place < wrong + marks else {}
        for slot, reviewer in enumerate(("ann@example.org", "bo@example.org")):
            who = {"reviewer": reviewer, "simulated": place < simulated}
            a_verdict(store, rationale, kind, annotation=f"{rationale}/{slot}", slot=slot, **who, **given)
    trained(store, opened, examples=2, right=0)


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return found


def keys_of(folder: Path) -> list[str]:
    return [json.loads(line)["key"] for line in (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()]


def refused(store: Store, folder: Path, *bars: str) -> str:
    with pytest.raises(PreceptorError) as caught:
        export(store, RUN, folder, Wanted(require=bars))
    return str(caught.value)


def test_an_export_says_how_good_it_is(tmp_path: Path, store: Store) -> None:
    audited_round(store, wrong=1, right=4, marks=1)
    exported = export(store, RUN, tmp_path / "out")
    found = manifest_of(tmp_path / "out")["figures"]
    assert (found["error"]["value"], found["error"]["n"]) == (0.2, 5)
    assert 0 < found["error"]["low"] < 0.2 < found["error"]["high"] < 1
    assert (found["step_wrong"]["value"], found["step_wrong"]["n"]) == (0.25, 4)
    assert (found["agreement"]["value"], found["agreement"]["n"]) == (1.0, 5)
    assert (found["bound"]["value"], found["bound"]["n"]) == (1.0, 5)
    assert (found["leaks"]["value"], found["duplicates"]["value"]) == (0, 0)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for line in exported.summary().splitlines()[1:]:
        assert line.split(":")[0] in card
    assert "0.200 (0.036 to 0.624, n=5)" in exported.summary()


def test_an_edit_that_keeps_the_answer_says_that_a_step_is_wrong(tmp_path: Path, store: Store) -> None:
    items.add(store, [an_item("q1"), an_item("q2"), an_item("q3")])
    opened = queried(store, a_round(store), ["q1", "q2", "q3"], audits=["q1", "q2"])
    for key, answer in (("q1", 1), ("q2", 2), ("q3", 1)):
        rationale = a_reply(store, opened, key, steps=["bad step"], answer=1)
        corrected = f'{{"kind": "number", "value": "{answer}"}}'
        a_verdict(store, rationale, VerdictKind.EDIT, steps=["good step"], answer=corrected)
        decided(store, opened, key, DecisionKind.GOLD, rationale)
    found = export(store, RUN, tmp_path / "out").figures["step_wrong"]
    assert (found.value, found.n) == (1.0, 1)  # q2's answer was wrong too, q3 was no audit


def test_a_bar_that_is_cleared_lets_the_export_pass(tmp_path: Path, store: Store) -> None:
    audited_round(store, right=90)
    bars = ("error<=0.05", "bound<=0.03", "leaks=0", "duplicates=0", "step_wrong<0.05")
    assert export(store, RUN, tmp_path / "out", Wanted(require=bars)).examples == 2
    assert manifest_of(tmp_path / "out")["require"] == list(bars)


def test_the_far_end_of_the_interval_has_to_clear_the_bar(tmp_path: Path, store: Store) -> None:
    audited_round(store, right=20)
    said = refused(store, tmp_path / "out", "error<=0.05")
    assert "error<=0.05 is not met" in said
    assert "0.000 (0.000 to 0.161, n=20)" in said
    assert "more audits without an error (review.audit_share, review.certify_share)" in said
    assert not (tmp_path / "out").exists()


def test_audits_speak_of_the_rows_of_their_own_round(tmp_path: Path, store: Store) -> None:
    audited_round(store, right=90, silver=1)
    audited_round(store, right=0, silver=99)
    said = refused(store, tmp_path / "out", "error<=0.05", "step_wrong<=0.05")
    assert "0.000 (0.000 to 0.990, n=90); no audit speaks of round 2 (99% of the rows)" in said
    assert said.count("no later audit speaks of the rows of a round that has none") == 2


def test_each_round_counts_by_its_rows(tmp_path: Path, store: Store) -> None:
    audited_round(store, right=20, silver=1)
    audited_round(store, wrong=10, right=10, silver=9)
    found = export(store, RUN, tmp_path / "out").figures["error"]
    assert (found.value, found.n, found.wrong) == (pytest.approx(0.45), 40, 10)
    assert found.low is not None
    assert found.low > 0.2  # of all audits a quarter was wrong


def test_rows_of_a_model_that_was_recalled_clear_no_bar_for_others(tmp_path: Path, store: Store) -> None:
    audited_round(store, right=90)
    withdrawals.withdraw(store, RUN, Grounds(teacher_model="panel"), "bad")
    items.add(store, [an_item("q2")])
    other_model(store, "q2", DecisionKind.SILVER)
    assert "not measured" in refused(store, tmp_path / "out", "error<=0.05")


def test_where_all_rows_are_reviewed_a_bar_on_the_others_speaks_of_none(tmp_path: Path, store: Store) -> None:
    audited_round(store, right=10, silver=0)
    items.add(store, [an_item("q1")])
    opened = queried(store, a_round(store), ["q1"])
    decided(store, opened, "q1", DecisionKind.GOLD, a_reply(store, opened, "q1", steps=["one"], answer=1))
    said = refused(store, tmp_path / "out", "error<=0.05")
    assert "not measured (no row passed unreviewed); leave the bar away, it speaks of no row" in said


def test_audits_that_nobody_reviewed_are_not_called_wrong(tmp_path: Path, store: Store) -> None:
    audited_round(store, right=10, unread=10)
    found = export(store, RUN, tmp_path / "out").figures["error"]
    assert (found.value, found.n, found.wrong) == (0.0, 10, 0)
    assert found.low == 0.0
    assert found.high == pytest.approx(wilson(10, 20).high)
    assert "10 more audits are not reviewed" in str(found)


def test_where_no_audit_is_reviewed_no_error_is_said(tmp_path: Path, store: Store) -> None:
    audited_round(store, right=0, unread=20)
    found = export(store, RUN, tmp_path / "out").figures["error"]
    assert (found.value, found.why) == (None, "no certifying audit of such a row is reviewed")


@pytest.mark.parametrize(("simulated", "said"), [(0, ""), (5, ", partly simulated"), (10, ", simulated")])
def test_figures_of_simulated_audits_say_so(tmp_path: Path, store: Store, simulated: int, said: str) -> None:
    audited_round(store, right=10, simulated=simulated)
    exported = export(store, RUN, tmp_path / "out")
    assert re.search(rf"with 90% confidence: [0-9.]+{said}\n", exported.summary())
    assert f"by audits of their rounds: 0.000 (0.000 to 0.278, n=10{said})\n" in exported.summary()
    found = manifest_of(tmp_path / "out")["figures"]
    assert [found[name]["simulated"] for name in ("bound", "error")] == [simulated > 0] * 2
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert (f"{simulated} by a simulated reviewer" in card) == (simulated > 0)


def test_each_bar_that_is_missed_is_named_with_what_would_help(tmp_path: Path, campaign: Store) -> None:
    said = refused(campaign, tmp_path / "out", "bound<=0.05", "agreement>=0.6", "step_wrong<=0.1", "leaks=0")
    assert [line.split(" ")[0] for line in said.splitlines()[1:]] == [
        "bound<=0.05",
        "agreement>=0.6",
        "step_wrong<=0.1",
    ]
    assert "about 45 more certifying audits" in said
    assert "not measured (no two reviewers judged the same)" in said
    assert "review.second_share" in said


def test_what_stood_in_the_folder_stays_where_a_bar_is_missed(tmp_path: Path, campaign: Store) -> None:
    export(campaign, RUN, tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    refused(campaign, tmp_path / "out", "bound<=0.05")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("bar", "said"),
    [
        ("quality>=1", "quality is not known; known: bound, error, agreement, step_wrong, duplicates, leaks"),
        ("error>=0.05", "a bar on error is set with <="),
        ("agreement<=0.6", "a bar on agreement is set with >="),
        ("error<=five", "'five' is not a number"),
        ("error<=nan", "a bar on error is set with <="),
        ("error", "not a condition; expected NAME=VALUE"),
    ],
)
def test_a_bar_that_means_nothing_is_refused(tmp_path: Path, campaign: Store, bar: str, said: str) -> None:
    assert said in refused(campaign, tmp_path / "out", bar)


def test_rows_that_read_like_the_holdout_are_found_and_can_be_left_out(tmp_path: Path, store: Store) -> None:
    text = " ".join(f"word{number}" for number in range(40))
    items.add(store, [*a_holdout(2), an_item("h9", Split.HOLDOUT, question=f"{text} end")])
    items.add(store, [an_item("q1", question=f"{text.upper()}, end!"), an_item("q2", question="Another matter.")])
    opened = queried(store, a_round(store), ["q1", "q2"])
    for key in ("q1", "q2"):
        decided(store, opened, key, DecisionKind.GOLD, a_reply(store, opened, key, steps=["one"], answer=1))
    said = refused(store, tmp_path / "out", "leaks=0")
    assert "leaks=0 is not met" in said
    assert "--where 'key!=q1'" in said
    assert export(store, RUN, tmp_path / "out", Wanted(where=("key!=q1",), require=("leaks=0",))).examples == 1
    export(store, RUN, tmp_path / "all")
    assert "1 of its questions read like" in (tmp_path / "all" / "README.md").read_text(encoding="utf-8")


def test_a_leak_is_what_select_calls_a_duplicate_of_the_holdout(tmp_path: Path, store: Store) -> None:
    passage = " ".join(f"word{number}" for number in range(120))
    asks = "Where was she born in that year and why there?"
    items.add(store, [*a_holdout(2), an_item("h9", Split.HOLDOUT, question=asks, context=passage)])
    items.add(store, [an_item("q1", question="How old is he?", context=passage)])
    items.add(store, [an_item("q2", question=f"{asks} Say it.", context=passage)])
    config = Config(query=QueryConfig(holdout_similarity=0.6, duplicate_similarity=1.0))
    opened = queried(store, a_round(store, config), ["q1", "q2"])
    for key in ("q1", "q2"):
        decided(store, opened, key, DecisionKind.GOLD, a_reply(store, opened, key, steps=["one"], answer=1))
    found = export(store, RUN, tmp_path / "out").figures["leaks"]
    assert found.keys == ("q2",)
    assert set(contamination.look(store, config.query).pairs) == {"q2"}


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.9])
def test_likeness_finds_what_comparing_all_pairs_finds(similarity: float) -> None:
    chance = random.Random(0)
    texts = [" ".join(chance.choices("abc", k=chance.randint(1, 12))) for _ in range(150)]
    others = [" ".join(chance.choices("abc", k=chance.randint(1, 12))) for _ in range(150)]

    def shingles(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[at : at + 3]) for at in range(max(1, len(words) - 2))}

    def like(one: str, two: str) -> bool:
        a, b = shingles(one), shingles(two)
        return len(a & b) >= similarity * len(a | b)

    index = Alike(texts, similarity)
    expected = [any(like(other, text) for text in texts) for other in others]
    assert 0 < sum(expected) < len(expected)
    assert [bool(index.near(other)) for other in others] == expected


def test_rows_with_one_text_are_counted(tmp_path: Path, store: Store) -> None:
    items.add(store, [an_item("q1", question="Same?"), an_item("q2", question="Same?"), an_item("q3")])
    opened = queried(store, a_round(store), ["q1", "q2", "q3"])
    for key in ("q1", "q2", "q3"):
        decided(store, opened, key, DecisionKind.GOLD, a_reply(store, opened, key, steps=["one"], answer=1))
    assert "duplicates=0 is not met: rows that read like another one: 1 (q2)" in refused(
        store, tmp_path / "out", "duplicates=0"
    )


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        (("decision=gold",), ["q1", "q4"]),
        (("decision=rejected",), ["q2", "q5"]),
        (("decision!=silver",), ["q1", "q4"]),
        (("decision!=gold", "decision!=rejected"), ["q0", "q3"]),
        (("decision=gold", "decision=silver", "round=2"), ["q3", "q4"]),
        (("risk<0.2",), ["q0", "q3"]),
        (("risk>=0.5",), ["q1", "q4"]),
        (("reviewer=reviewer-1",), ["q1", "q4"]),
        (("reviewer=ann@example.org", "round=1"), ["q1"]),
        (("reviewer!=reviewer-1",), ["q0", "q3"]),
        (("domain=sums & <b>parts</b>", "key!=q0"), ["q1", "q3", "q4"]),
        (("teacher_model=panel", "key=q0", "key=q4"), ["q0", "q4"]),
    ],
)
def test_rows_are_chosen_by_what_is_known_of_them(
    tmp_path: Path, campaign: Store, where: tuple[str, ...], keys: list[str]
) -> None:
    export(campaign, RUN, tmp_path / "out", Wanted(where=where))
    assert keys_of(tmp_path / "out") == keys
    said = (tmp_path / "out" / "manifest.json").read_text(encoding="utf-8")
    assert len(json.loads(said)["where"]) == len(where)
    assert "ann@example.org" not in said


def test_an_empty_selection_says_what_there_is(tmp_path: Path, campaign: Store) -> None:
    with pytest.raises(
        PreceptorError, match=r"nothing to write as jsonl with domain=algebra; the run has decided 2 gold"
    ):
        export(campaign, RUN, tmp_path / "out", Wanted(where=("domain=algebra",)))
    with pytest.raises(PreceptorError, match="nothing to write as dpo with decision=silver; a pair needs a rationale"):
        export(campaign, RUN, tmp_path / "out", Wanted("dpo", where=("decision=silver",)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("mood=good", "mood is not known; known: decision, risk"),
        ("decision=golden", "no such decision; known: gold, silver"),
        ("risk<low", "'low' is not a number"),
        ("reviewer=zoe@example.org", "no such reviewer; known: reviewer-1"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(tmp_path: Path, campaign: Store, where: str, said: str) -> None:
    with pytest.raises(PreceptorError, match=said) as caught:
        export(campaign, RUN, tmp_path / "out", Wanted(where=(where,)))
    assert "ann@example.org" not in str(caught.value)


def test_a_folder_with_an_export_in_another_form_is_left_alone(tmp_path: Path, campaign: Store) -> None:
    export(campaign, RUN, tmp_path / "out")
    with pytest.raises(PreceptorError, match="holds an export as jsonl; name another folder, or --format jsonl"):
        export(campaign, RUN, tmp_path / "out", Wanted("csv"))
    assert len(keys_of(tmp_path / "out")) == 4


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv", "chat", "label-studio"])
def test_what_changed_between_two_exports_is_named_by_row_and_field(tmp_path: Path, campaign: Store, form: str) -> None:
    export(campaign, RUN, tmp_path / "old", Wanted(form, where=("key!=q0",)))
    opened = queried(campaign, a_round(campaign), ["q3"])
    rationale = a_reply(campaign, opened, "q3", steps=["another"], answer=2)
    decided(campaign, opened, "q3", DecisionKind.GOLD, rationale)
    decided(campaign, opened, "q4", DecisionKind.REJECTED, rationale)
    export(campaign, RUN, tmp_path / "new", Wanted(form))
    found = difference(tmp_path / "old", tmp_path / "new")
    assert (found.added, found.removed, found.same) == (["q0"], ["q4"], 1)
    assert found.changed.keys() == {"q3"}
    assert {"decision", "round", "reason"} <= set(found.changed["q3"])
    assert "key" not in found.changed["q3"]
    said = "\n".join(found.lines())
    assert "1 items added, 1 removed, 1 changed, 1 the same" in said
    assert "the filters differ: key!=q0 before, none after" in said


def test_an_export_differs_from_itself_in_nothing_and_a_touched_file_is_named(tmp_path: Path, campaign: Store) -> None:
    export(campaign, RUN, tmp_path / "one")
    assert difference(tmp_path / "one", tmp_path / "one").lines() == ["0 items added, 0 removed, 0 changed, 4 the same"]
    path = tmp_path / "one" / "examples.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("So it is 2.", "So it is 3."), encoding="utf-8")
    assert "is not as it was written" in difference(tmp_path / "one", tmp_path / "one").lines()[-1]
    path.write_text("".join(reversed(path.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8")
    with pytest.raises(PreceptorError, match="not in the order of an export"):
        difference(tmp_path / "one", tmp_path / "one")


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_exports_with_odd_keys_and_long_lists_are_compared(tmp_path: Path, store: Store, form: str) -> None:
    keys = ["1", "@a/b", "ann@example.org", "b"]
    items.add(store, [an_item(key) for key in keys])
    opened = queried(store, a_round(store), keys)
    for key in keys:
        number = a_reply(store, opened, key, steps=["y" * 140_000 if key == "1" else "one"], answer=1)
        a_verdict(store, number, VerdictKind.ACCEPT)
        decided(store, opened, key, DecisionKind.GOLD, number)
    export(store, RUN, tmp_path / "old", Wanted(form, where=("key!=@a/b",)))
    export(store, RUN, tmp_path / "new", Wanted(form))
    found = difference(tmp_path / "old", tmp_path / "new")
    assert (found.added, found.same, found.changed) == (["@a/b"], 3, {})


def test_exports_of_different_tasks_forms_or_makers_are_not_compared(tmp_path: Path, campaign: Store) -> None:
    export(campaign, RUN, tmp_path / "one")
    export(campaign, RUN, tmp_path / "table", Wanted("csv"))
    other = Config(task=TaskConfig(instructions="Say which colour it is."))
    trained(campaign, a_round(campaign, other), examples=0, right=0)
    export(campaign, RUN, tmp_path / "other")
    with pytest.raises(PreceptorError, match=r"different tasks \(task.instructions differ\)"):
        difference(tmp_path / "one", tmp_path / "other")
    with pytest.raises(PreceptorError, match=r"written as jsonl, .* as csv"):
        difference(tmp_path / "one", tmp_path / "table")
    (tmp_path / "mine").mkdir()
    with pytest.raises(PreceptorError, match="mine: holds no finished export"):
        difference(tmp_path / "one", tmp_path / "mine")


def test_the_command_refuses_below_a_bar_and_compares(tmp_path: Path, campaign: Store) -> None:
    (tmp_path / "config.toml").write_text(f'[run]\ndatabase = "{campaign.url}"\n', encoding="utf-8")
    config = ["--config", str(tmp_path / "config.toml")]
    out = str(tmp_path / "out")
    failed = CliRunner().invoke(app, ["export", out, "--require", "error<=0.05", *config])
    assert failed.exit_code != 0
    assert "error<=0.05 is not met" in str(failed.exception)
    made = CliRunner().invoke(app, ["export", out, "--require", "leaks=0", "--where", "decision=gold", *config])
    assert made.exit_code == 0
    assert "wrote 2 examples (2 gold)" in made.output
    assert "rows that read like one of the holdout: 0" in made.output
    same = CliRunner().invoke(app, ["export", "--diff", out, out])
    assert (same.exit_code, "2 the same" in same.output) == (0, True)
    assert CliRunner().invoke(app, ["export", "--diff", out]).exit_code == 2


def test_reading_rows_sees_one_state_on_every_database(tmp_path: Path, database: str) -> None:
    made = Store(database)
    made.migrate()
    items.add(made, [an_item(key) for key in ("Q", "a", "é")])
    opened = queried(made, a_round(made), ["Q", "a", "é"])
    for key in ("Q", "a", "é"):
        decided(made, opened, key, DecisionKind.SILVER, a_reply(made, opened, key, steps=["one"], answer=1))
    reading = dataset.origins(made, RUN, tuple(DecisionKind), dataset.Until(10_000))
    first = next(reading)
    last = next(each for each in (first, *reading))
    assert last is first
    again = dataset.origins(made, RUN, tuple(DecisionKind), dataset.Until(10_000))
    seen = [next(again).decided.key]
    second = queried(made, a_round(made), ["é"])
    decided(made, second, "é", DecisionKind.REJECTED, a_reply(made, second, "é", steps=["two"], answer=1))
    seen += [f"{each.decided.key} {each.decided.kind}" for each in again]
    assert seen == ["Q", "a silver", "é silver"]
    made.close()
