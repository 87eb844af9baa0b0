"""A version of the dataset is known by what its rows say, keeps its name, and can be written again as it was."""

import hashlib
import json
import shutil
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
from rich.console import Console
from sqlmodel import col, select
from typer.testing import CliRunner

from benchmarks import postgres
from connectors import sources, states, versions
from connectors.campaign import run as run_campaign
from connectors.cli import app
from connectors.exports import Wanted, export
from connectors.formats import FORMATS
from connectors.history import history, history_text
from connectors.progress import RichProgress
from connectors.promises import promises
from connectors.status import status, status_text
from connectors.wiring import Project
from loop.config import AcceptanceConfig, Config
from loop.errors import PreceptorError
from loop.records import DataVersion, DecisionKind, Rationale, Split, Verdict, VerdictKind, VersionName
from loop.store import forgetting, items, reading, reviews, withdrawals
from loop.store import versions as stored
from loop.store.database import Store, now
from loop.store.tainted import Grounds
from tests.builders import (
    NOON,
    RUN,
    a_campaign,
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
from tests.tiny import tiny_project

ROW = ("key", "question", "context", "choices", "steps", "answer_kind", "answer", "decision")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a campaign that two people reviewed, to be copied."""
    folder = tmp_path_factory.mktemp("campaign")
    made = a_store(folder)
    a_campaign(made, simulated=False)
    made.close()
    return folder / "store.db"


@pytest.fixture
def store(tmp_path: Path, campaign: Path) -> Store:
    return Store(f"sqlite:///{shutil.copy(campaign, tmp_path)}")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def decided_anew(store: Store, key: str, kind: DecisionKind) -> None:
    """A third round decides otherwise about an item."""
    opened = queried(store, a_round(store), [key])
    number = a_reply(store, opened, key, steps=["Three rounds on."], answer=3)
    checked(store, number, 0.2)
    decided(store, opened, key, kind, number)
    trained(store, opened, examples=3, right=0)


def said_later(store: Store, key: str, kind: VerdictKind) -> None:
    """Somebody else judges what stands."""
    number = next(each.id for each in reading.rationales_of(store, RUN) if each.item_key == key)
    later = datetime.now(UTC) + timedelta(seconds=1)
    verdict = Verdict(
        board="fake", project="2", annotation=f"late-{key}", updated_at="2026-06-01T12:00:00.000001Z", slot=1,
        rationale_id=number, reviewer="late@example.org", kind=kind, seconds=9.0, raw={}, pulled_at=later,
    )  # fmt: skip
    reviews.RunReviewBook(store, RUN).keep_verdict(verdict)


# --- the hash ---------------------------------------------------------------------------------------------------------


def test_two_identical_states_have_one_hash_that_anybody_can_compute_from_the_rows(
    tmp_path: Path, store: Store
) -> None:
    (tmp_path / "other").mkdir()
    other = a_store(tmp_path / "other")
    a_campaign(other, simulated=True)  # who reviewed is no part of what the rows say
    one, two = (versions.name(each, RUN, "v1").hash for each in (store, other))
    export(store, RUN, tmp_path / "out")
    written = [json.loads(line) for line in (tmp_path / "out" / "examples.jsonl").read_bytes().splitlines()]
    lines = [json.dumps([row[name] for name in ROW], separators=(",", ":")) + "\n" for row in written]
    assert one == two == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert json.loads((tmp_path / "out" / "manifest.json").read_bytes())["version"] == one
    assert one in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [DecisionKind.REJECTED, DecisionKind.GOLD])
def test_another_decision_makes_another_version(store: Store, kind: DecisionKind) -> None:
    before = versions.name(store, RUN, "v1").hash
    decided_anew(store, "q0", kind)
    assert versions.name(store, RUN, "v2").hash != before


def test_a_rejected_item_more_leaves_the_version_as_it_is(store: Store) -> None:
    before = versions.name(store, RUN, "v1").hash
    decided_anew(store, "q7", DecisionKind.REJECTED)
    assert versions.name(store, RUN, "v2").hash == before


def test_half_a_character_has_a_hash_too(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    items.add(store, [an_item("q1")])
    opened = queried(store, a_round(store), ["q1"])
    number = a_reply(store, opened, "q1", steps=["half \ud800"], answer=1)
    checked(store, number, 0.1)
    decided(store, opened, "q1", DecisionKind.SILVER, number)
    named = versions.name(store, RUN, "v1")
    export(store, RUN, tmp_path / "out", Wanted(version="v1"))
    assert stored.of_run(store, RUN)[0].hash == named.hash


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_name_never_moves_to_another_version(tmp_path: Path, store: Store) -> None:
    before = versions.name(store, RUN, "v1")
    assert versions.name(store, RUN, "v1").named_at == before.named_at
    decided_anew(store, "q0", DecisionKind.REJECTED)
    for attempt in (
        lambda: versions.name(store, RUN, "v1"),
        lambda: export(store, RUN, tmp_path / "out", Wanted(name="v1")),
    ):
        with pytest.raises(PreceptorError, match=r"v1: is the name of version .* never moves; .* give it another name"):
            attempt()
    assert [row.hash for row in stored.names_of(store, RUN)] == [before.hash]
    assert not (tmp_path / "out").exists()


def test_what_may_not_be_called_so_is_not_stored_as_a_version(store: Store) -> None:
    versions.name(store, RUN, "v1")
    decided_anew(store, "q0", DecisionKind.REJECTED)
    with pytest.raises(PreceptorError, match="a name never moves"):
        versions.name(store, RUN, "v1")
    assert len(stored.of_run(store, RUN)) == 1


def test_two_that_name_at_once_cannot_both_have_the_name(store: Store) -> None:
    first = versions.name(store, RUN, "v1")
    raced = VersionName(**first.model_dump(exclude={"hash"}), hash="f" * 64)
    with pytest.raises(PreceptorError, match="a name never moves"):
        stored.give_name(store, raced)


def test_two_that_see_a_version_first_at_once_store_it_once(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(postgres.new_database(postgresql, uuid.uuid4().hex))
    store.migrate()
    number = a_round(store).id or 0
    meeting = Barrier(2, timeout=20)

    def together() -> datetime:
        meeting.wait()
        return now()

    monkeypatch.setattr(stored, "now", together)
    with closing(store), ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(stored.keep, store, RUN, stored.Digest(), round_id=number, last_decision=0) for _ in range(2)
        ]
        assert both[0].result() == both[1].result() == stored.of_run(store, RUN)[0]


@pytest.mark.parametrize("bad", ["", "with space", "-v1", "a/b", "x" * 65, "naïve"])
def test_what_is_no_name_is_refused(store: Store, bad: str) -> None:
    with pytest.raises(PreceptorError, match="not a name for a version; expected"):
        versions.name(store, RUN, bad)


def test_a_name_that_looks_like_a_hash_is_refused(store: Store) -> None:
    with pytest.raises(PreceptorError, match="deadbeef: could be taken for the hash"):
        versions.name(store, RUN, "deadbeef")


def test_nothing_cannot_be_named(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    with pytest.raises(PreceptorError, match="has no round yet"):
        versions.name(store, RUN, "v1")
    a_round(store)
    with pytest.raises(PreceptorError, match="nothing is gold or silver yet"):
        versions.name(store, RUN, "v1")


def test_an_unknown_version_is_told_which_are_known(tmp_path: Path, store: Store) -> None:
    with pytest.raises(PreceptorError, match="v1: no such version; known: none yet"):
        export(store, RUN, tmp_path / "out", Wanted(version="v1"))
    digest = versions.name(store, RUN, "v1").hash
    for wanted in ("v2", digest[:3]):
        with pytest.raises(PreceptorError, match=f"{wanted}: no such version; known: v1"):
            versions.shown(store, RUN, wanted)
    assert versions.shown(store, RUN, digest[:6])["names"] == ["v1"]


def test_a_hash_that_begins_like_another_is_not_guessed(store: Store) -> None:
    row = stored.of_run(store, RUN) or [versions.name(store, RUN, "v1")]
    twin = row[0].hash[:8] + "0" * 56
    with store.writing() as session:
        session.add(
            DataVersion(run=RUN, hash=twin, round_id=1, last_decision=1, gold=0, silver=1, recorded_at=NOON)
        )  # fmt: skip
    with pytest.raises(PreceptorError, match="several versions begin so"):
        versions.shown(store, RUN, twin[:7])


# --- written again ----------------------------------------------------------------------------------------------------


def test_a_named_version_is_written_with_the_same_bytes_whatever_happens_after(tmp_path: Path, store: Store) -> None:
    corrected = next(each for each in reading.rationales_of(store, RUN) if each.item_key == "q1")
    a_verdict(store, corrected.id or 0, VerdictKind.EDIT, minute=40, marks={"0": "wrong"})
    for form in FORMATS:
        export(store, RUN, tmp_path / "before" / form, Wanted(form, name="v1"))
    decided_anew(store, "q0", DecisionKind.REJECTED)
    decided_anew(store, "q1", DecisionKind.SILVER)
    said_later(store, "q4", VerdictKind.REJECT)
    withdrawals.withdraw(store, RUN, Grounds("ann@example.org"), "never looked")
    a_round(store, Config(acceptance=AcceptanceConfig(alpha=0.5)))
    for form in FORMATS:
        export(store, RUN, tmp_path / "after" / form, Wanted(form, version="v1"))
    before, after = (files_of(tmp_path / name) for name in ("before", "after"))
    assert before == after
    export(store, RUN, tmp_path / "now")
    for name, content in files_of(tmp_path / "now").items():
        assert before[f"jsonl/{name}"] != content


def test_a_name_fixes_what_is_certified_and_known_not_only_the_rows(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a promise can be given only later, the older name goes on to say what was known then."""
    versions.name(store, RUN, "v1")
    given = promises(store, RUN, Config())
    assert given is not None
    later = {**given, "export": {**given["export"], "bound": 0.01}}
    monkeypatch.setattr(states, "promises", lambda *_: later)
    for name, wanted in (("v1", Wanted(version="v1")), ("v2", Wanted(name="v2"))):
        export(store, RUN, tmp_path / name, wanted)
    rows = [(tmp_path / name / "examples.jsonl").read_text(encoding="utf-8") for name in ("v1", "v2")]
    assert ['"certified":true' in text for text in rows] == [False, True]
    assert len({row.hash for row in stored.names_of(store, RUN)}) == 1


def test_filters_choose_among_the_rows_of_a_version(tmp_path: Path, store: Store) -> None:
    versions.name(store, RUN, "v1")
    decided_anew(store, "q0", DecisionKind.REJECTED)
    done = export(store, RUN, tmp_path / "out", Wanted(where=("decision=silver",), version="v1"))
    assert done.decisions == {"silver": 2}


def test_an_earlier_version_that_was_only_recorded_can_be_named_and_written(tmp_path: Path, store: Store) -> None:
    export(store, RUN, tmp_path / "first")
    (recorded,) = stored.of_run(store, RUN)
    decided_anew(store, "q0", DecisionKind.REJECTED)
    cure = rf"has no name yet.* `preceptor versions name NAME {recorded.hash[:12]}`"
    with pytest.raises(PreceptorError, match=cure):
        export(store, RUN, tmp_path / "out", Wanted(version=recorded.hash[:8]))
    versions.name(store, RUN, "old", recorded.hash[:8])
    export(store, RUN, tmp_path / "out", Wanted(version="old"))
    one, two = (files_of(tmp_path / name)["examples.jsonl"] for name in ("first", "out"))
    assert one == two


def test_an_earlier_version_is_promised_nothing_that_is_true_of_other_rows(tmp_path: Path, store: Store) -> None:
    export(store, RUN, tmp_path / "first")
    (recorded,) = stored.of_run(store, RUN)
    withdrawals.withdraw(store, RUN, Grounds(teacher_model="panel"), "bad")
    assert states.current(store, RUN).promised["export"]["bound"] == 0.0  # no row is unreviewed now
    a_round(store, Config(acceptance=AcceptanceConfig(alpha=0.5)))
    versions.name(store, RUN, "old", recorded.hash[:12])
    with pytest.raises(PreceptorError, match=r"bound<=0\.01 is not met"):
        export(store, RUN, tmp_path / "out", Wanted(version="old", require=("bound<=0.01",)))
    export(store, RUN, tmp_path / "out", Wanted(version="old"))
    for name in ("examples.jsonl", "README.md"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_a_version_that_the_store_no_longer_gives_is_refused(tmp_path: Path, store: Store) -> None:
    versions.name(store, RUN, "v1")
    with store.writing() as session:
        row = session.exec(select(Rationale).where(col(Rationale.item_key) == "q0")).one()
        row.steps = ["somebody wrote into the database"]
        session.add(row)
    with pytest.raises(PreceptorError, match=r"nothing was written: version v1 is .* changed from outside"):
        export(store, RUN, tmp_path / "out", Wanted(version="v1"))
    assert not (tmp_path / "out").exists()


def test_a_version_whose_item_was_forgotten_is_not_written_without_it(tmp_path: Path, store: Store) -> None:
    versions.name(store, RUN, "v1")
    forgetting.remove(store, "q0", ["What is q0?"], taught=True)
    with pytest.raises(PreceptorError, match=r"nothing was written: version v1 is .*an item of it was forgotten"):
        export(store, RUN, tmp_path / "out", Wanted(version="v1"))
    assert export(store, RUN, tmp_path / "out", Wanted(name="v2")).rows == 3


def test_what_is_decided_after_the_newest_item_was_forgotten_comes_into_no_version_of_before(
    tmp_path: Path, store: Store
) -> None:
    decided_anew(store, "q7", DecisionKind.REJECTED)
    versions.name(store, RUN, "v1")
    export(store, RUN, tmp_path / "before", Wanted(version="v1"))
    forgetting.remove(store, "q7", ["What is q7?"], taught=False)
    decided_anew(store, "q6", DecisionKind.SILVER)
    export(store, RUN, tmp_path / "after", Wanted(version="v1"))
    assert files_of(tmp_path / "after") == files_of(tmp_path / "before")


def test_a_version_whose_verdicts_cannot_be_read_as_they_were_is_refused_and_can_be_named_anew(
    tmp_path: Path, store: Store
) -> None:
    named = versions.name(store, RUN, "v1")
    with store.writing() as session:
        for row in session.exec(select(Verdict)):
            row.deleted_at = NOON  # as if it had been deleted before, which an annotation that came back forgets
            session.add(row)
    with pytest.raises(PreceptorError, match=rf"`preceptor versions name NEWNAME {named.hash[:12]}`"):
        export(store, RUN, tmp_path / "out", Wanted(version="v1"))
    assert versions.name(store, RUN, "v1-anew", named.hash[:12]).hash == named.hash
    assert export(store, RUN, tmp_path / "out", Wanted(version="v1-anew")).rows == 4


def test_an_export_that_clears_no_bar_uses_up_no_name(tmp_path: Path, store: Store) -> None:
    with pytest.raises(PreceptorError, match="nothing was written"):
        export(store, RUN, tmp_path / "out", Wanted(require=("error<=0.01",), name="v1"))
    assert stored.names_of(store, RUN) == []


# --- who learned it ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_names_the_version_that_it_learned_everywhere(tmp_path: Path) -> None:
    file = tiny_project(tmp_path, rounds=1, sums=12)
    project = Project(file, RichProgress(Console(quiet=True)))
    for split in (Split.POOL, Split.HOLDOUT):
        sources.ingest(
            [tmp_path / f"{split.value}.jsonl"], project.store, split=split, pool=project.config.pool,
            task=project.config.task, progress=project.progress,
        )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_campaign(project, rounds_wanted=1, wait=False)

    run, there = CliRunner(), ["--config", str(file)]
    out = tmp_path / "out"
    assert run.invoke(app, ["export", str(out), "--name", "v1", *there]).exit_code == 0
    version = json.loads((out / "manifest.json").read_bytes())["version"]
    (listed,) = json.loads(run.invoke(app, ["versions", "--json", *there]).stdout)
    assert (listed["hash"], listed["names"], listed["checkpoints"]) == (version, ["v1"], ["round-1"])
    assert (listed["round"], listed["exports"]) == (1, [str(out)])
    table = run.invoke(app, ["versions", *there]).stdout
    assert "v1" in table
    assert version[:12] in table

    state = status(project.store, "tiny", project.config)
    assert state["learned"] == [
        {"round": 1, "checkpoint": "round-1", "version": version, "names": ["v1"], "in_force": True}
    ]
    key = next(iter(versions.shown(project.store, "tiny", "v1")["decisions"]))
    past = history(project.store, "tiny", key)
    assert [each["names"] for each in past["versions"]] == [["v1"]]
    assert [each["version"] for each in past["trained_in"]] == [version]
    assert [each["folder"] for each in past["exports"]] == [str(out)]
    console = Console(width=250)
    with console.capture() as captured:
        console.print(status_text(state))
        console.print(history_text(past))
    assert f"the student in force (round-1) learned version {version[:12]} (v1)" in captured.get()
    assert f"round 1: checkpoint round-1 of version {version[:12]}" in captured.get()
    assert f"{out} (jsonl of version {version[:12]})" in captured.get()

    card = run.invoke(app, ["student", "export", str(tmp_path / "home"), *there])
    assert card.exit_code == 0, card.output
    assert version in (tmp_path / "home" / "README.md").read_text(encoding="utf-8")
    shown = run.invoke(app, ["versions", "show", version[:8], *there])
    assert "learned by: round-1" in shown.stdout
    assert "decided anew since: 0 rows" in shown.stdout
    again = run.invoke(app, ["versions", "name", "v1", *there])
    assert (again.exit_code, version in again.stdout) == (0, True)
    project.store.close()


def test_a_version_says_what_was_decided_anew_since(store: Store) -> None:
    versions.name(store, RUN, "v1")
    decided_anew(store, "q0", DecisionKind.REJECTED)
    found = versions.shown(store, RUN, "v1")
    assert list(found["decisions"]) == ["q0", "q1", "q3", "q4"]
    assert found["since"] == {"q0": "was silver, is rejected (because it is rejected)"}
    assert "  q0: was silver, is rejected (because it is rejected)" in versions.shown_text(found)
