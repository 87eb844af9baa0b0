"""What a round hands to training of what people did: gold, risks, repaired steps, what was refused, and domains."""

from pathlib import Path

import pytest

from connectors.formats import replaced
from loop.answer import Answer, AnswerKind
from loop.ports import Example
from loop.query.domains import weights
from loop.records import Author, DecisionKind, Rationale, Round, Split, VerdictKind
from loop.stages import train
from loop.stages.train import accepted_examples, train_student
from loop.store import dataset, decisions, items, rationales, versions, withdrawals
from loop.store.database import Store, now
from loop.store.dataset import Until, Version
from loop.store.tainted import Grounds
from tests import builders
from tests.builders import a_reply, a_round, checked, decided, id_of, queried
from tests.test_student import model, sums  # noqa: F401 - a fixture
from tests.test_training import Told
from tests.test_training_rounds import RUN, a_project, closed, the_parts

RIGHT = Answer(kind=AnswerKind.NUMBER, value="21")


def test_gold_has_no_risk_silver_has_its_own_and_repaired_steps_are_known(tmp_path: Path) -> None:
    store = builders.a_store(tmp_path)
    items.add(store, [builders.an_item(key) for key in ("i1", "i2", "i3")])
    opened = queried(store, a_round(store, run=RUN), ["i1", "i2", "i3"])
    ids = {
        key: a_reply(store, opened, key, steps=["1 + 20 = 7 .", "So", "7 ."], answer=7) for key in ("i1", "i2", "i3")
    }
    for number in ids.values():
        checked(store, number, 0.25)
    [original] = [each for each in rationales.of_round(store, id_of(opened)) if each.id == ids["i1"]]
    steps = ["1 + 20 = 21 .", "So ", "21 ."]
    mended = rationales.keep_correction(store, original, steps=steps, answer=RIGHT)
    decided(store, opened, "i1", DecisionKind.GOLD, mended.id)
    decided(store, opened, "i2", DecisionKind.GOLD, ids["i2"])
    decided(store, opened, "i3", DecisionKind.SILVER, ids["i3"])
    found = accepted_examples(store, RUN)
    assert {key: (each.gold, each.risk, each.repaired) for key, each in found.items()} == {
        "i1": (True, 0.0, frozenset({0, 2})),
        "i2": (True, 0.0, frozenset()),
        "i3": (False, 0.25, frozenset()),
    }


def a_version(author: Author, *steps: str) -> Rationale:
    return Rationale(item_key="i1", round_id=1, author=author, steps=list(steps))


def test_where_the_teacher_went_on_only_the_persons_steps_count_as_repaired() -> None:
    first = a_version(Author.TEACHER, "a", "b is wrong", "c")
    prefix = a_version(Author.HUMAN, "a", "b is right")
    rest = a_version(Author.TEACHER, "a", "b is right", "d", "e")
    last = a_version(Author.HUMAN, "a", "b is right", "d", "f")
    assert rationales.repaired_steps([first, prefix, rest]) == {1}
    assert rationales.repaired_steps([first, prefix, rest, last]) == {1, 3}
    assert rationales.repaired_steps([first]) == frozenset()


def test_a_rejected_rationale_is_refused_in_favour_of_one_that_was_accepted_later(
    model: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    project = a_project(tmp_path, model, "lora_rank = 0\nepochs = 1\npreference_weight = 0.5")
    store, told = project.store, Told()
    first = queried(store, a_round(store, project.config, run=RUN), ["i1", "i2"])
    for key in ("i1", "i2"):
        number = a_reply(store, first, key, steps=["1 = 7 ."], answer=7)
        builders.a_verdict(store, number, VerdictKind.REJECT)
        decided(store, first, key, DecisionKind.REJECTED, number)
    closed(project, builders.rounds.enter(store, first, builders.Stage.TRAIN), told)
    assert told.lines[0] == (
        "  2 rejected rationales teach no preference: nothing of their items was accepted to prefer"
    )
    second = queried(store, a_round(store, project.config, run=RUN), ["i1"])
    later = a_reply(store, second, "i1", steps=["1 + 20 = 21 ."], answer=21)
    decided(store, second, "i1", DecisionKind.SILVER, later)
    done = train_student(
        builders.rounds.enter(store, second, builders.Stage.TRAIN), store, the_parts(project, told), project.config
    )
    assert builders.checkpoints.get(store, done.candidate_id or 0).card["preference_pairs"] == 1
    assert told.lines[-1].startswith("  1 rejected rationales teach no preference")


def test_what_was_taken_back_is_not_refused(tmp_path: Path) -> None:
    store = builders.a_store(tmp_path)
    items.add(store, [builders.an_item("i1")])
    opened = queried(store, a_round(store, run=RUN), ["i1"])
    number = a_reply(store, opened, "i1", steps=["1 = 7 ."], answer=7)
    builders.a_verdict(store, number, VerdictKind.REJECT)
    decided(store, opened, "i1", DecisionKind.REJECTED, number)
    assert decisions.refused(store, RUN)["i1"].id == number
    [now] = decisions.newest(store, RUN).values()
    kept = now.model_dump(exclude={"id", "kind", "supersedes"})
    decisions.supersede(store, [builders.Decision(**kept, kind=DecisionKind.UNDECIDED, supersedes=now.id)])
    assert decisions.refused(store, RUN) == {}


@pytest.mark.parametrize("grounds", [Grounds(reviewer="ann@example.org"), Grounds(teacher_model="panel")])
def test_what_a_recall_took_back_is_not_refused_though_a_later_round_decided(tmp_path: Path, grounds: Grounds) -> None:
    store = builders.a_store(tmp_path)
    items.add(store, [builders.an_item("i1")])
    first = queried(store, a_round(store, run=RUN), ["i1"])
    number = a_reply(store, first, "i1", steps=["1 = 7 ."], answer=7)
    builders.a_verdict(store, number, VerdictKind.REJECT)
    decided(store, first, "i1", DecisionKind.REJECTED, number)
    builders.trained(store, first, examples=0, right=0)
    second = queried(store, a_round(store, run=RUN), ["i1"])
    decided(store, second, "i1", DecisionKind.SILVER, other_reply(store, second))
    builders.trained(store, second, examples=1, right=0)
    last = decisions.last_id(store, RUN)
    until = Until(last, now())
    assert decisions.refused(store, RUN, last)["i1"].id == number
    assert decisions.refused(store, RUN, 0) == {}
    assert [each.id for each in rejected_in(store, until)] == [number]
    withdrawals.withdraw(store, RUN, grounds, "doubted")
    assert decisions.refused(store, RUN, last) == {}
    assert rejected_in(store, Until(last)) == []
    assert [each.id for each in rejected_in(store, until)] == [number]  # as it was then


def other_reply(store: Store, opened: Round) -> int:
    """A rationale of another model for `i1`."""
    with store.writing() as session:
        row = Rationale(
            item_key="i1", round_id=id_of(opened), author=Author.TEACHER, steps=["1 + 20 = 21 ."],
            answer=builders.a_number(21), teacher="newcomer",
        )  # fmt: skip
        session.add(row)
        session.flush()
    assert row.id is not None
    return row.id


def rejected_in(store: Store, until: Until) -> list[Version]:
    """What a dataset of that state pairs with what took its place."""
    (origin,) = dataset.origins(store, RUN, versions.TEACHING, until)
    return replaced(origin)


def test_corrected_steps_from_which_the_teacher_went_on_refuse_what_was_there_before(tmp_path: Path) -> None:
    store = builders.a_store(tmp_path)
    items.add(store, [builders.an_item("i1")])
    opened = queried(store, a_round(store, run=RUN), ["i1"])
    first = a_reply(store, opened, "i1", steps=["1 = 7 ."], answer=7)
    fields = {"item_key": "i1", "round_id": id_of(opened)}
    with store.writing() as session:
        prefix = Rationale(**fields, author=Author.HUMAN, steps=["1 = 1 ."], version=2, supersedes=first)
        session.add(prefix)
        session.flush()
        rest = Rationale(
            **fields, author=Author.TEACHER, steps=["1 = 1 .", "So 1 ."], answer=builders.a_number(1), version=3,
            supersedes=prefix.id,
        )  # fmt: skip
        session.add(rest)
        session.flush()
        number = rest.id
    builders.a_verdict(store, first, VerdictKind.CONTINUE)
    decided(store, opened, "i1", DecisionKind.GOLD, number)
    assert decisions.refused(store, RUN)["i1"].id == first
    [example] = accepted_examples(store, RUN).values()
    assert (example.steps, example.repaired) == (("1 = 1 .", "So 1 ."), {0})


def test_domains_get_their_shares_of_the_weight() -> None:
    found = weights({"a": 0.25, "b": 0.5, "gone": 0.25}, {"a": 10, "b": 2, "new": 3})
    assert found["new"] == 1.0
    assert found["a"] * 10 / (found["b"] * 2) == pytest.approx(0.5)
    assert found["a"] * 10 + found["b"] * 2 == pytest.approx(12)
    assert weights({}, {"a": 10}) == {"a": 1.0}


def test_a_domain_of_one_example_does_not_outweigh_all_others() -> None:
    found = weights({"few": 0.5, "many": 0.3, "rest": 0.2}, {"few": 1, "many": 60, "rest": 39})
    assert found["few"] == 4.0  # it would be 50
    assert 60 * found["many"] / (39 * found["rest"]) == pytest.approx(1.5)
    assert 4.0 + 60 * found["many"] + 39 * found["rest"] == pytest.approx(100)
    nearly = weights({"a": 0.7, "b": 0.25, "c": 0.05}, {"a": 1, "b": 1, "c": 98})
    assert (nearly["a"], nearly["b"]) == (4.0, 4.0)
    assert nearly["c"] == pytest.approx(92 / 98)


def test_a_round_weighs_domains_by_how_far_the_student_lags_in_them(
    model: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The student in force got no question of the domain `hard` right, and all others."""
    project = a_project(tmp_path, model, "lora_rank = 0\nepochs = 1\nmixture = true")
    store, told = project.store, Told()
    more = [
        builders.an_item(f"x{number}", domain="hard", question=f"What is {number} + 20 + 1 ?") for number in range(8)
    ]
    hard = [
        builders.an_item(
            f"z{number}", Split.HOLDOUT, part=builders.Part.DEV, answer=builders.a_number(7), domain="hard"
        )
        for number in range(6)
    ]
    items.add(store, [*more, *hard])
    builders.trained(store, a_round(store, project.config, run=RUN), examples=3, right=4)
    dev = items.of_split(store, Split.HOLDOUT, builders.Part.DEV)
    assert len(dev) == 10
    keys = [*(f"i{number}" for number in range(4)), *(f"x{number}" for number in range(4))]
    opened = queried(store, a_round(store, project.config, run=RUN), keys)
    for key in keys:
        number = a_reply(store, opened, key, steps=["1 + 20 = 21 ."], answer=21)
        decided(store, opened, key, DecisionKind.SILVER, number)
    learned: list[Example] = []

    def noted(folder: Path, examples: list[Example], *rest: object) -> object:
        learned.extend(examples)
        return train_into(folder, examples, *rest)

    train_into = train.train_into
    monkeypatch.setattr(train, "train_into", noted)
    train_student(
        builders.rounds.enter(store, opened, builders.Stage.TRAIN), store, the_parts(project, told), project.config
    )
    weight = {each.item.domain: each.weight for each in learned}
    assert weight["hard"] > 1.2
    assert weight["default"] < 0.8
    assert sum(each.weight for each in learned) == pytest.approx(8)
    assert any(line.startswith("  an example of each domain weighs: default 0.") for line in told.lines)
