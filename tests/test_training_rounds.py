"""A round's training begins fresh or warm, and old students lose their weights but not their cards."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from connectors.handover import export_student
from connectors.history import history, history_text
from connectors.students import loaded, trained
from connectors.wiring import Project
from loop.errors import PreceptorError, StudentError
from loop.records import Certificate, Checkpoint, DecisionKind, Item, Part, Promise, RiskFit, Round, Split, Stage
from loop.round import advance, resume
from loop.stages.parts import Parts, in_force
from loop.stages.pruning import remove_old_weights
from loop.stages.select import select_batch
from loop.stages.train import train_student
from loop.store import certificates, checkpoints, items, rationales, reading, rounds
from loop.student import validation
from tests import builders
from tests.builders import NOON, a_holdout, a_reply, a_round, decided, id_of, queried
from tests.test_status import shown
from tests.test_student import sums, weights
from tests.test_training import Told
from tests.tiny import tiny_model, tiny_tokenizer
from tests.trained import CONFIG, QUIET

RUN = "tiny"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def a_project(folder: Path, model: Path, student: str, rest: str = "") -> Project:
    """A project with ten sums and a holdout, of which nothing was asked."""
    folder.mkdir(exist_ok=True)
    if not (folder / "model").exists():
        (folder / "model").symlink_to(model)
    text = CONFIG.format(task='answer = "number"', student=f"batch_size = 4\n{student}")
    (folder / "config.toml").write_text(f"{text}[evaluation]\nsaving_pairs = 0\n{rest}", encoding="utf-8")
    project = Project(folder / "config.toml", QUIET)
    items.add(project.store, [Item(**each.item.model_dump()) for each in sums(10)])
    items.add(project.store, a_holdout(8))
    return project


def a_round_of(project: Project, keys: Sequence[str], rejected: Sequence[str] = ()) -> Round:
    """The next round, about to train: the first items were accepted in it, the others rejected."""
    store, by_key = project.store, {each.item.key: each for each in sums(10)}
    opened = queried(store, a_round(store, project.config, run=RUN), [*keys, *rejected])
    for key in [*keys, *rejected]:
        taught = by_key[key]
        rationale = a_reply(store, opened, key, steps=taught.steps, answer=taught.answer.value)
        kind = DecisionKind.REJECTED if key in rejected else DecisionKind.SILVER
        decided(store, opened, key, kind, rationale)
    return rounds.enter(store, opened, Stage.TRAIN)


def the_parts(project: Project, told: Told) -> Parts:
    folder = project.folder / "checkpoints"
    return Parts(trainer=project.trainer(), teacher=None, reviewers=None, progress=told, folder=folder)  # type: ignore[arg-type] - training asks neither


def closed(project: Project, current: Round, told: Told) -> Round:
    return advance(current, project.store, the_parts(project, told), project.config)


def candidate(project: Project, current: Round) -> Checkpoint:
    assert current.candidate_id is not None
    return checkpoints.get(project.store, current.candidate_id)


KEYS = [f"i{number}" for number in range(10)]
STILL = 'start = "warm"\nlearning_rate = 1e-9\nepochs = 1\n'


@pytest.mark.parametrize("rank", [0, 8])
def test_a_warm_start_goes_on_from_the_student_with_what_is_new_and_a_share_of_the_old(
    model: Path, rank: int, tmp_path: Path
) -> None:
    told, settings = Told(), f"lora_rank = {rank}\n"
    first = a_project(tmp_path, model, f"{settings}learning_rate = 0.01\nepochs = 3")
    closed(first, a_round_of(first, KEYS[:6]), told)
    second = a_project(tmp_path, model, f"{settings}{STILL}replay_share = 0.5")
    done = closed(second, a_round_of(second, KEYS[6:]), told)
    made = candidate(second, done)
    assert (made.examples, made.card["examples"], made.card["started_from"]) == (10, 4 + 3, "round-1")
    folder = second.folder / "checkpoints"
    one, two = weights(folder / "round-1"), weights(folder / "round-2")
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    assert any((each != 0).any() for name, each in one.items() if "lora_B" in name) == bool(rank)


def test_a_start_is_fresh_where_something_that_was_learned_is_taken_back(model: Path, tmp_path: Path) -> None:
    told = Told()
    project = a_project(tmp_path, model, f"lora_rank = 0\n{STILL}")
    closed(project, a_round_of(project, KEYS[:6]), told)
    done = closed(project, a_round_of(project, KEYS[6:8], rejected=["i2"]), told)
    assert told.lines[-1] == "  the training starts fresh: round-1 learned what was taken back since (i2)"
    assert (candidate(project, done).examples, candidate(project, done).card["started_from"]) == (7, None)


def test_a_start_is_fresh_where_the_weights_do_not_fit(model: Path, tmp_path: Path) -> None:
    told = Told()
    project = a_project(tmp_path, model, f"lora_rank = 0\n{STILL}")
    closed(project, a_round_of(project, KEYS[:6]), told)
    other = a_project(tmp_path, model, f"lora_rank = 8\n{STILL}")
    done = closed(other, a_round_of(other, KEYS[6:]), told)
    assert told.lines[-1] == "  the training starts fresh: student.lora_rank is no longer 0"
    assert candidate(other, done).examples == 10


def test_nothing_new_leaves_a_warm_student_as_it_is(model: Path, tmp_path: Path) -> None:
    told = Told()
    project = a_project(tmp_path, model, f"lora_rank = 0\n{STILL}")
    first = closed(project, a_round_of(project, KEYS[:6]), told)
    second = closed(project, a_round_of(project, [], rejected=["i8"]), told)
    assert (second.candidate_id, second.student_id) == (None, first.student_id)
    assert told.lines[-1] == "nothing new was accepted: the student stays as it is"


HALF = f"lora_rank = 0\n{STILL}validation_share = 0.5\n"
HELD = ["i1", "i5", "i8"]
"""Those of the keys that validate at one half."""


def test_what_validates_teaches_in_no_round_of_warm_starts(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two new examples alone would be too few for a part."""
    monkeypatch.setattr(validation, "FEWEST", 3)
    project = a_project(tmp_path, model, f"{HALF}replay_share = 0.5")
    first = candidate(project, closed(project, a_round_of(project, KEYS[:8]), Told()))
    second = candidate(project, closed(project, a_round_of(project, KEYS[8:]), Told()))
    assert first.card["validation_keys"] == [key for key in KEYS[:8] if key in HELD]
    assert second.card["validation_keys"] == HELD
    new, old = (sum(key not in HELD for key in some) for some in (KEYS[8:], KEYS[:8]))
    assert second.card["started_from"] == "round-1"
    assert second.card["examples"] == len(HELD) + new + round(0.5 * old)


def test_a_start_is_fresh_once_where_a_validation_part_comes_into_being(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "FEWEST", 3)
    told, project = Told(), a_project(tmp_path, model, HALF)
    assert candidate(project, closed(project, a_round_of(project, KEYS[:5]), told)).card["validation_keys"] == []
    second = candidate(project, closed(project, a_round_of(project, KEYS[5:8]), told))
    known = ", ".join(key for key in HELD if key in KEYS[:5])
    assert told.lines[-1] == f"  the training starts fresh: round-1 learned what validates from now on ({known})"
    assert second.card["started_from"] is None
    third = candidate(project, closed(project, a_round_of(project, KEYS[8:]), told))
    assert (third.card["started_from"], third.card["validation_keys"]) == ("round-2", HELD)


def a_seed(key: str, question: str, **fields: object) -> Item:
    return builders.an_item(key, Split.SEED, question=question, answer=builders.a_number(31), **fields)


def test_a_warm_start_learns_seed_items_that_came_later_once(model: Path, tmp_path: Path) -> None:
    told, project = Told(), a_project(tmp_path, model, f"lora_rank = 0\n{STILL}replay_share = 0.0")
    items.add(project.store, [a_seed("s1", "What is 1 + 30 ?", steps=["1 + 30 = 31 ."])])
    closed(project, a_round_of(project, KEYS[:4]), told)
    items.add(project.store, [a_seed("s2", "What is 2 + 29 ?", steps=["2 + 29 = 31 ."])])
    second = candidate(project, closed(project, a_round_of(project, [], rejected=["i8"]), told))
    assert (second.card["examples"], second.card["seed_keys"]) == (1, ["s1", "s2"])
    assert [each["round"] for each in history(project.store, RUN, "s2")["trained_in"]] == [2]
    third = closed(project, a_round_of(project, [], rejected=["i9"]), told)
    assert third.candidate_id is None
    assert told.lines[-1] == "nothing new was accepted: the student stays as it is"


def test_a_round_goes_on_where_nothing_of_what_is_new_can_be_learned(model: Path, tmp_path: Path) -> None:
    told, project = Told(), a_project(tmp_path, model, f"lora_rank = 0\n{STILL}replay_share = 0.0")
    first = closed(project, a_round_of(project, KEYS[:4]), told)
    opened = queried(project.store, a_round(project.store, project.config, run=RUN), ["i5"])
    wordy = a_reply(project.store, opened, "i5", steps=["5 + 20 = 25 ."] * 40, answer=25)
    decided(project.store, opened, "i5", DecisionKind.SILVER, wordy)
    second = closed(project, rounds.enter(project.store, opened, Stage.TRAIN), told)
    assert (second.stage, second.candidate_id, second.student_id) == (Stage.CLOSED, None, first.student_id)
    assert told.lines[-1].startswith("nothing can be learned: 1 of 1 examples are left out: what is to be written")
    assert told.lines[-1].endswith("i5. The student stays as it is")


def test_seed_items_that_cannot_be_learned_leave_a_cold_start(model: Path, tmp_path: Path) -> None:
    told, project = Told(), a_project(tmp_path, model, "lora_rank = 0\nepochs = 1")
    items.add(project.store, [a_seed("s1", "What is 1 + 30 ?", steps=["1 + 30 = 31 ."] * 40)])
    picked = selected(project, told)
    assert (picked.stage, "cold start" in picked.selection) == (Stage.ASK, True)
    assert any(line.startswith("  nothing can be learned: 1 of 1 examples are left out") for line in told.lines)


def test_a_seed_item_without_steps_teaches_its_answer_and_is_named(model: Path, tmp_path: Path) -> None:
    told, project = Told(), a_project(tmp_path, model, "lora_rank = 0\nepochs = 1")
    items.add(project.store, [a_seed("s1", "What is 1 + 30 ?"), a_seed("s2", "What is 2 + 29 ?", steps=["31 ."])])
    made = candidate(project, closed(project, a_round_of(project, []), told))
    assert (made.examples, made.card["problems"]) == (2, {"silent": 1})
    assert "  1 of 2 examples have no steps, and teach the answer alone: s1" in told.lines


def test_a_warm_start_from_a_checkpoint_that_was_cut_off_names_it(model: Path, tmp_path: Path) -> None:
    project = a_project(tmp_path, model, f"lora_rank = 8\n{STILL}")
    closed(project, a_round_of(project, KEYS[:6]), Told())
    [file] = (project.folder / "checkpoints" / "round-1").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    current = a_round_of(project, KEYS[6:])
    with pytest.raises(StudentError, match="round-1: cannot be loaded"):
        train_student(current, project.store, the_parts(project, Told()), project.config)
    assert current.stage is Stage.TRAIN


def test_a_loss_that_is_no_number_stops_the_round_and_the_old_student_stays(model: Path, tmp_path: Path) -> None:
    project = a_project(tmp_path, model, "lora_rank = 0\nepochs = 1")
    first = closed(project, a_round_of(project, KEYS[:6]), Told())
    other = a_project(tmp_path, model, "lora_rank = 0\nepochs = 9\nlearning_rate = 1e30")
    current = a_round_of(other, KEYS[6:])
    with pytest.raises(StudentError, match=r"on the batch of items 'i\d'"):
        closed(other, current, Told())
    student = in_force(other.store, RUN)
    assert student is not None
    assert student.id == first.student_id
    assert rounds.by_id(other.store, id_of(current)).stage is Stage.TRAIN


def selected(project: Project, told: Told) -> Round:
    """The next round, with its batch picked; a recorded teacher says what asking costs."""
    priced = configured(project, '"tiny-teacher"', '"tiny-teacher"\ninput_price = 0.5\noutput_price = 1.0')
    row = {"key": "i0", "question": "What is 0 + 20 ?", "model": "tiny-teacher", "steps": ["20 ."], "answer": "20"}
    (project.home / "recorded.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with priced.teacher() as teacher:
        parts = replace(the_parts(priced, told), teacher=teacher)
        return select_batch(a_round(priced.store, priced.config, run=RUN), priced.store, parts, priced.config)


def configured(project: Project, old: str, new: str) -> Project:
    """The project after a change of its config file."""
    text = project.path.read_text(encoding="utf-8")
    assert old in text
    project.path.write_text(text.replace(old, new), encoding="utf-8")
    return Project(project.path, QUIET)


@pytest.fixture
def five_rounds(model: Path, tmp_path: Path) -> Project:
    """Five closed rounds; the second one's student is the best on `dev`, the last one's is in force."""
    project = a_project(tmp_path, model, "lora_rank = 0")
    for number, right in enumerate([1, 4, 2, 2, 3], start=1):
        builders.trained(project.store, a_round(project.store, project.config, run=RUN), examples=3, right=right)
        folder = project.folder / "checkpoints" / f"round-{number}"
        folder.mkdir(parents=True)
        for name in ("card.json", "README.md", "config.json", "model.safetensors"):
            (folder / name).write_text("{}")
    return project


def pruned(project: Project, keep: int) -> list[str]:
    """Which students have weights afterwards."""
    current = rounds.current(project.store, RUN)
    assert current is not None
    remove_old_weights(current, project.store, the_parts(project, Told()), keep)
    return sorted(each.parent.name for each in (project.folder / "checkpoints").glob("*/*.safetensors"))


def test_weights_stay_where_they_are_new_or_in_force_or_best(five_rounds: Project) -> None:
    assert len(pruned(five_rounds, 0)) == 5
    assert pruned(five_rounds, 3) == ["round-2", "round-3", "round-4", "round-5"]
    assert pruned(five_rounds, 1) == ["round-2", "round-5"]
    assert pruned(five_rounds, 1) == ["round-2", "round-5"]
    assert sorted(file.name for file in (five_rounds.folder / "checkpoints" / "round-1").iterdir()) == [
        "README.md",
        "card.json",
    ]
    known = reading.checkpoints_of(five_rounds.store, RUN)
    assert [row.removed_at is None for row in known.values()] == [False, True, False, False, True]
    assert all(len(checkpoints.predictions(five_rounds.store, number, Part.DEV)) == 4 for number in known)


def test_weights_stay_where_they_went_home_or_a_threshold_rests_on_them(five_rounds: Project) -> None:
    store = five_rounds.store
    every = rounds.all_rounds(store, RUN)
    checkpoints.mark_exported(store, every[0].student_id or 0)
    rationales.keep_risk_fit(store, RiskFit(round_id=id_of(every[4]), base=-2.0, reviewed=0, fitted_at=NOON))
    row = Certificate(
        run=RUN, round_id=id_of(every[4]), promise=Promise.THRESHOLD, look=1, alpha=0.1, delta=0.1, audited=9, wrong=0,
        bound=0.1, threshold=0.2, issued_at=NOON,
    )  # fmt: skip
    certificates.keep(store, row, [])
    assert pruned(five_rounds, 1) == ["round-1", "round-2", "round-4", "round-5"]


def test_the_student_of_the_seed_items_goes_once_there_is_another(model: Path, tmp_path: Path) -> None:
    project = a_project(tmp_path, model, f"lora_rank = 0\n{STILL}")
    seeds = project.folder / "checkpoints" / "seed"
    seeds.mkdir(parents=True)
    closed(project, a_round_of(project, [], rejected=["i1"]), Told())
    assert seeds.exists()
    closed(project, a_round_of(project, KEYS[2:6]), Told())
    assert not seeds.exists()


def test_a_student_without_weights_says_so_with_the_cure(five_rounds: Project) -> None:
    pruned(five_rounds, 1)
    with pytest.raises(PreceptorError, match=r"checkpoints\.keep.* --round \(there is one after round 2, 5\)"):
        trained(five_rounds, 3)
    with pytest.raises(StudentError, match=r"round-3: the weights are not there \(checkpoints\.keep"):
        five_rounds.trainer().student(five_rounds.folder / "checkpoints" / "round-3")
    decided(five_rounds.store, rounds.all_rounds(five_rounds.store, RUN)[0], "i1", DecisionKind.SILVER, None)
    found = history(five_rounds.store, RUN, "i1")
    assert [each["weights_removed"] is None for each in found["trained_in"]] == [False, True, False, False, True]
    assert "round 3: checkpoint round-3 (weights removed" in shown(history_text(found))


def test_old_weights_go_also_where_the_round_closed_in_a_process_that_was_killed(model: Path, tmp_path: Path) -> None:
    project = a_project(tmp_path, model, "lora_rank = 0\nepochs = 1", "[checkpoints]\nkeep = 1\n")
    closed(project, a_round_of(project, KEYS[:3]), Told())
    again, folder = a_round_of(project, KEYS[3:6]), project.folder / "checkpoints" / "round-1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("loop.stages.pruning.remove_old_weights", lambda *_: None)
        again = closed(project, again, Told())
    assert (folder / "model.safetensors").exists()
    closed(project, again, Told())
    assert sorted(each.name for each in folder.iterdir()) == ["README.md", "card.json"]


def test_a_student_that_went_home_is_noted(model: Path, tmp_path: Path) -> None:
    project = a_project(tmp_path, model, "lora_rank = 0\nepochs = 1", "[checkpoints]\nkeep = 1\n")
    closed(project, a_round_of(project, KEYS[:6]), Told())
    export_student(project, trained(project), tmp_path / "home", "transformers")
    student = in_force(project.store, RUN)
    assert student is not None
    assert student.exported_at is not None
    assert loaded(project, trained(project))


def another_model(folder: Path, hidden: int = 48) -> Path:
    """A model of another shape with the same tokens."""
    fast = tiny_tokenizer()
    torch.manual_seed(1)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(fast), hidden_size=hidden, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=128, pad_token_id=0, bos_token_id=None, eos_token_id=1,
        )
    ).save_pretrained(folder)  # fmt: skip
    fast.save_pretrained(folder)
    return folder


def test_a_student_answers_by_its_own_model_after_another_one_was_named(model: Path, tmp_path: Path) -> None:
    project = a_project(tmp_path, model, "lora_rank = 8\nepochs = 3")
    closed(project, a_round_of(project, KEYS[:6]), Told())
    folder, asked = project.folder / "checkpoints" / "round-1", [sums(1)[0].item]
    before = project.trainer().student(folder).embed(asked)
    another_model(tmp_path / "other")
    other = configured(project, 'model = "model"', 'model = "other"')
    assert other.trainer().student(None).embed(asked).shape == (1, 48)
    assert (other.trainer().student(folder).embed(asked) == before).all()


def test_a_run_goes_on_from_select_where_another_model_was_named(model: Path, tmp_path: Path) -> None:
    told = Told()
    project = a_project(tmp_path, model, 'lora_rank = 8\nepochs = 1\nstart = "warm"')
    closed(project, a_round_of(project, KEYS[:4]), told)
    another_model(tmp_path / "other")
    other = configured(project, 'model = "model"', 'model = "other"')
    picked = selected(other, told)
    assert picked.stage is Stage.ASK
    assert {row.item_key for row in rounds.scores(other.store, id_of(picked))} == set(KEYS[4:])
    by_key = {each.item.key: each for each in sums(10)}
    for key in KEYS[4:6]:
        rationale = a_reply(other.store, picked, key, steps=by_key[key].steps, answer=by_key[key].answer.value)
        decided(other.store, picked, key, DecisionKind.SILVER, rationale)
    done = closed(other, rounds.enter(other.store, picked, Stage.TRAIN), told)
    assert "  the training starts fresh: student.model is no longer model" in told.lines
    assert candidate(other, done).card["started_from"] is None
    assert other.trainer().student(other.folder / "checkpoints" / "round-2").embed([sums(1)[0].item]).shape == (1, 48)


def test_a_candidate_is_measured_and_served_by_what_it_was_trained_by(model: Path, tmp_path: Path) -> None:
    """The round took up other settings after it had trained."""
    project = a_project(tmp_path, model, f"lora_rank = 8\n{STILL}")
    current = train_student(a_round_of(project, KEYS[:6]), project.store, the_parts(project, Told()), project.config)
    another_model(tmp_path / "other")
    other = configured(project, 'model = "model"', 'model = "other"')
    current, changed = resume(other.store, current, other.config)
    assert changed == ["student.model: model -> other"]
    done = closed(other, current, Told())
    assert len(checkpoints.predictions(other.store, candidate(other, done).id or 0)) == 8
    found = trained(other)
    assert found.config.student.model == "model"
    assert loaded(other, found).embed([sums(1)[0].item]).shape == (1, 32)
    told = Told()
    closed(other, a_round_of(other, KEYS[6:]), told)
    assert "  the training starts fresh: student.model is no longer model" in told.lines


def test_a_project_may_be_moved_with_its_students(model: Path, tmp_path: Path) -> None:
    project = a_project(tmp_path / "here", model, "lora_rank = 8\nepochs = 1")
    closed(project, a_round_of(project, KEYS[:6]), Told())
    project.store.close()
    (tmp_path / "here").rename(tmp_path / "there")
    moved = Project(tmp_path / "there" / "config.toml", QUIET)
    assert moved.trainer().student(moved.folder / "checkpoints" / "round-1").embed([sums(1)[0].item]).shape == (1, 32)
