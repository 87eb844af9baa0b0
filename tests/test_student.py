"""The causal student: it learns, it is a function of its seed, and it leaves whole checkpoints or none."""

import json
import resource
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from connectors.progress import RichProgress
from loop.answer import Answer, AnswerKind, number_steps
from loop.config import StudentConfig, TaskConfig
from loop.errors import StudentError
from loop.ports import Example
from loop.records import Item, Split
from loop.student import prompts
from loop.student.decoder import Decoder
from loop.student.distill_step_by_step import token_losses
from loop.student.reading import TOP_K, Reading, Sampling, continuations
from loop.student.trainer import DecoderTrainer
from loop.student.tree import greedy_continuations, grow, target_log_probabilities
from tests.tiny import tiny_model

QUIET = RichProgress(Console(quiet=True))
NUMBERS = TaskConfig(answer=AnswerKind.NUMBER)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def settings(model: Path, **changes: object) -> StudentConfig:
    small = {"lora_rank": 0, "epochs": 80, "batch_size": 4, "learning_rate": 1e-2, "max_new_tokens": 16}
    return StudentConfig.model_validate({"model": str(model), **small, **changes})


def a_trainer(model: Path, task: TaskConfig = NUMBERS, **changes: object) -> DecoderTrainer:
    return DecoderTrainer(settings(model, **changes), task, model.parent / "cache")


def sums(count: int) -> list[Example]:
    return [
        Example(
            Item(key=f"i{n}", question=f"What is {n} + 20 ?", split=Split.POOL, text_hash=""),
            (f"{n} + 20 = {n + 20} .",),
            Answer(kind=AnswerKind.NUMBER, value=str(n + 20)),
        )
        for n in range(count)
    ]


def items(examples: Sequence[Example]) -> list[Item]:
    return [each.item for each in examples]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def test_student_learns_what_it_is_taught(model: Path, tmp_path: Path) -> None:
    examples = sums(8)
    trainer = a_trainer(model)
    before = trainer.student(None).predict(items(examples))
    trained = trainer.train(examples, seed=1, folder=tmp_path / "one", progress=QUIET)
    losses = trained.card["loss_per_epoch"]
    assert losses[-1] < losses[0] / 10
    after = trainer.student(tmp_path / "one").predict(items(examples))
    assert [each.answer for each in before] != [each.answer for each in examples]
    assert [each.answer for each in after] == [each.answer for each in examples]
    assert [each.explanation.steps for each in after] == [each.steps for each in examples]


def test_same_seed_gives_the_same_weights_and_another_seed_others(model: Path, tmp_path: Path) -> None:
    trainer = a_trainer(model, epochs=2)
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        trainer.train(sums(8), seed=seed, folder=tmp_path / name, progress=QUIET)
    one, same, other = (weights(tmp_path / name) for name in ("one", "same", "other"))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_examples_of_no_weight_leave_the_direction_to_the_others(model: Path, tmp_path: Path) -> None:
    right = sums(4)
    wrong = [
        Example(each.item, ("0 + 0 = 0 .",), Answer(kind=AnswerKind.NUMBER, value="0"), weight=0.0) for each in right
    ]
    trainer = a_trainer(model, batch_size=8)
    trainer.train([*right, *wrong], seed=1, folder=tmp_path / "one", progress=QUIET)
    answers = trainer.student(tmp_path / "one").predict(items(right))
    assert [each.answer for each in answers] == [each.answer for each in right]


def test_adapters_are_stored_alone_and_merged_when_loaded(model: Path, tmp_path: Path) -> None:
    trainer = a_trainer(model, lora_rank=8)
    trained = trainer.train(sums(8), seed=1, folder=tmp_path / "one", progress=QUIET)
    assert trained.card["loss_per_epoch"][-1] < trained.card["loss_per_epoch"][0] - 0.3
    assert {name.split(".")[-2] for name in weights(tmp_path / "one")} == {"lora_A", "lora_B"}
    assert not hasattr(trainer.student(tmp_path / "one").model, "peft_config")


def test_card_names_data_settings_and_figures(model: Path, tmp_path: Path) -> None:
    trainer = a_trainer(model, epochs=2)
    trainer.train(sums(8), seed=5, folder=tmp_path / "one", progress=QUIET)
    trainer.train(sums(7), seed=5, folder=tmp_path / "two", progress=QUIET)
    one, two = (json.loads((tmp_path / name / "card.json").read_text()) for name in ("one", "two"))
    assert (one["examples"], one["seed"], one["base"], len(one["loss_per_epoch"])) == (8, 5, str(model), 2)
    assert one["examples_sha256"] != two["examples_sha256"]
    assert one["settings"]["epochs"] == 2
    assert "8 decided rationales" in " ".join((tmp_path / "one" / "README.md").read_text().split())


def test_loss_counts_target_tokens_only(model: Path) -> None:
    student = a_trainer(model).student(None)
    rows = [([5, 6, 7], [8, 9]), ([3], [4])]
    nll, is_target = token_losses(student.model, rows, student.pad)
    assert is_target.tolist() == [[1, 1], [0, 1]]
    for number, (context, target) in enumerate(rows):
        ids = torch.tensor([context + target])
        logits = student.model(input_ids=ids).logits[0].log_softmax(dim=-1)
        expected = [-logits[len(context) + place - 1, token].item() for place, token in enumerate(target)]
        assert nll[number][is_target[number] == 1].tolist() == pytest.approx(expected, abs=1e-4)


SEQUENCES = [[[5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 8, 10, 11], [12, 6]], [[9, 4]], [[3, 4, 5], [3, 4]]]


def test_tree_holds_each_shared_token_once() -> None:
    tree = grow(SEQUENCES[0])
    assert sorted(tree.tokens) == [5, 6, 6, 7, 8, 9, 10, 11, 12]
    assert [[tree.tokens[node] for node in path] for path in tree.paths] == SEQUENCES[0]
    assert all(parent < node for node, parent in enumerate(tree.parents))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_branches_read_in_one_pass_are_scored_as_alone(model: Path, attention: str) -> None:
    student = a_trainer(model).student(None)
    student.model.set_attn_implementation(attention)
    counts = [[1, 2, 3, 1], [1], [2, 1]]
    together = target_log_probabilities(student.model, [grow(some) for some in SEQUENCES], counts, student.pad)
    for some, lengths, scores in zip(SEQUENCES, counts, together, strict=True):
        for sequence, length, score in zip(some, lengths, scores, strict=True):
            logits = student.model(input_ids=torch.tensor([sequence])).logits[0].log_softmax(dim=-1)
            alone = [logits[place - 1, sequence[place]].item() for place in range(-length, 0)]
            assert score == pytest.approx(sum(alone) / length, abs=1e-5)


def test_branches_are_continued_side_by_side_as_alone(model: Path) -> None:
    student = a_trainer(model).student(None)
    trees = [grow(some) for some in SEQUENCES]
    together = greedy_continuations(student.model, trees, longest=6, stops=[student.end], pad=student.pad)
    alone = [
        [
            continuations([Reading(student.model, [sequence], student.pad)], longest=6, stops=[student.end])[0]
            for sequence in some
        ]
        for some in SEQUENCES
    ]
    assert together == alone
    assert len({tuple(tokens) for some in alone for tokens in some}) > 2


def test_forced_answers_are_those_of_separate_passes(model: Path, tmp_path: Path) -> None:
    trainer = a_trainer(model, epochs=6)
    trainer.train(sums(8), seed=1, folder=tmp_path / "one", progress=QUIET)
    student = trainer.student(tmp_path / "one")
    asked = items(sums(8))
    steps = [("3 + 3 = 6 .", "6 + 20 = 26 .", "1 = 1 ."), (), ("2 + 2 = 4 .",)]
    parts = [[steps[number % 3][:count] for count in range(len(steps[number % 3]) + 1)] for number in range(8)]
    together = student.answers_after(asked, parts)
    alone = [
        [student.answers_after([item], [[part]])[0][0] for part in some]
        for item, some in zip(asked, parts, strict=True)
    ]
    assert together == alone


def test_greedy_explanation_is_what_transformers_generates(model: Path, tmp_path: Path) -> None:
    trainer = a_trainer(model, epochs=6)
    trainer.train(sums(8), seed=1, folder=tmp_path / "one", progress=QUIET)
    student = trainer.student(tmp_path / "one")
    asked = items(sums(8))
    greedy = [some[0] for some in student.explain(asked, copies=[0, 1], temperature=0.7, top_p=0.9, seed=3)]
    for item, ours in zip(asked, greedy, strict=True):
        ids = torch.tensor([student.encoded(prompts.rationale_prompt(item))])
        theirs = student.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, pad_token_id=student.pad
        )
        assert ours.text == student.tokenizer.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True)


def test_a_student_goes_on_from_given_steps_as_it_would_from_its_own(model: Path, tmp_path: Path) -> None:
    trainer = a_trainer(model)
    trained = trainer.train(sums(8), seed=1, folder=tmp_path / "student", progress=QUIET)
    student, asked = trainer.student(trained.folder), items(sums(8))
    own = [each for [each] in student.explain(asked, copies=[0], temperature=1.0, top_p=1.0, seed=0)]
    assert all(each.steps for each in own)
    again = student.go_on(asked, [each.steps for each in own])
    assert [(each.steps, each.answer) for each in again] == [(each.steps, each.answer) for each in own]
    other = student.go_on(asked[:1], [["1 + 1 = 3"]])[0]
    assert other.steps[0] == "1 + 1 = 3"
    assert other.text.startswith("1. 1 + 1 = 3\n")


def test_samples_depend_on_seed_and_item_and_not_on_the_company(model: Path) -> None:
    student = a_trainer(model).student(None)
    asked = items(sums(6))

    def explained(some: Sequence[Item], seed: int) -> dict[str, list[str]]:
        rows = student.explain(some, copies=range(4), temperature=1.0, top_p=0.95, seed=seed)
        return {item.key: [each.text for each in row] for item, row in zip(some, rows, strict=True)}

    everyone = explained(asked, 7)
    assert explained(asked[::-1], 7) == everyone
    assert explained(asked[2:4], 7) == {item.key: everyone[item.key] for item in asked[2:4]}
    other = explained(asked, 8)
    assert [texts[0] for texts in other.values()] == [texts[0] for texts in everyone.values()]
    assert [texts[1:] for texts in other.values()] != [texts[1:] for texts in everyone.values()]


def test_sampled_tokens_follow_the_model_s_distribution(model: Path) -> None:
    student = a_trainer(model).student(None)
    draws = torch.rand((20_000, 1), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        reading = Reading(student.model, [[5, 6, 7]], student.pad)
        shares = (reading.logits[0] / 0.5).softmax(dim=-1)
        reading.take(torch.zeros(20_000, dtype=torch.long))
    written = continuations([reading], longest=1, stops=[student.end], sampling=Sampling(0.5, 1.0, draws))
    kept = shares.topk(TOP_K)
    seen = torch.bincount(torch.tensor([tokens[0] for tokens in written]), minlength=len(shares))[kept.indices]
    expected = kept.values / kept.values.sum() * 20_000
    assert seen.sum() == 20_000
    assert ((seen - expected) ** 2 / expected).sum() < 85.4  # the 99.9th percentile with 49 degrees of freedom


def test_nucleus_keeps_the_likeliest_tokens_only(model: Path) -> None:
    student = a_trainer(model).student(None)
    with torch.inference_mode():
        reading = Reading(student.model, [[5, 6, 7]], student.pad)
        reading.take(torch.zeros(500, dtype=torch.long))
    kept, tokens = reading.logits[0].softmax(dim=-1).topk(TOP_K)
    draws = torch.rand((500, 1), generator=torch.Generator().manual_seed(0))
    mass = float(kept[:3].sum() / kept.sum()) - 1e-4
    written = continuations([reading], longest=1, stops=[student.end], sampling=Sampling(1.0, mass, draws))
    assert {token for some in written for token in some} == set(tokens[:3].tolist())


def test_answer_is_forced_after_each_part(model: Path, tmp_path: Path) -> None:
    trainer = a_trainer(model)
    examples = sums(4)
    trainer.train(examples, seed=1, folder=tmp_path / "one", progress=QUIET)
    student = trainer.student(tmp_path / "one")
    forced = student.answers_after(items(examples), [[()], *([(), each.steps] for each in examples[1:])])
    assert [len(some) for some in forced] == [1, 2, 2, 2]
    assert [each.answer for some in forced for each in some] == [
        examples[0].answer,
        *(each.answer for each in examples[1:] for _ in range(2)),
    ]


def test_labels_are_scored_not_generated(model: Path) -> None:
    task = TaskConfig(answer=AnswerKind.LABEL, labels={"1": "one", "2": "two", "3 4": "three"})
    student = a_trainer(model, task, answers_by="answer").student(None)
    asked = items(sums(3))
    labels = [Answer(kind=AnswerKind.LABEL, value=value) for value in task.labels]
    forced = [each for [each] in student.answers_after(asked, [[()]] * 3)]
    for item, each in zip(asked, forced, strict=True):
        means = []
        for label in ("1", "2", "3 4"):
            context = student.encoded(prompts.answer_prompt(item)) + student.tokens(f"Answer: {label}")
            count = len(student.tokens(label))
            logits = student.model(input_ids=torch.tensor([context])).logits[0].log_softmax(dim=-1)
            means.append(sum(logits[place - 1, context[place]].item() for place in range(-count, 0)) / count)
        assert each.probabilities == pytest.approx(torch.tensor(means).softmax(dim=0).tolist(), abs=1e-5)
        assert each.answer == labels[means.index(max(means))]
    assert [each.answer for each in student.predict(asked)] == [each.answer for each in forced]


def test_embeddings_do_not_depend_on_the_company(model: Path) -> None:
    student = a_trainer(model).student(None)
    asked = [*items(sums(5)), Item(key="l", question="What is 1 + 2 + 3 + 4 ?", split=Split.POOL, text_hash="")]
    together = student.embed(asked)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    for item, vector in zip(asked, together, strict=True):
        assert student.embed([item])[0] == pytest.approx(vector, abs=1e-5)
    assert student.embed([]).shape == (0, together.shape[1])


def test_doubt_is_what_the_likeliest_first_token_of_the_answer_leaves(model: Path) -> None:
    student = a_trainer(model).student(None)
    asked = [*items(sums(5)), Item(key="l", question="What is 1 + 2 + 3 + 4 ?", split=Split.POOL, text_hash="")]
    for item, doubt in zip(asked, student.doubt(asked), strict=True):
        context = student.encoded(prompts.answer_prompt(item)) + student.tokens("Answer:")
        logits = student.model(input_ids=torch.tensor([context])).logits[0, -1].detach()
        assert doubt == pytest.approx(1 - float(logits.softmax(dim=-1).max()), abs=1e-5)
    assert student.doubt([]).shape == (0,)


@pytest.mark.parametrize("name", ["/no/such/model", "not a repository", "a/b/c"])
def test_unknown_model_is_an_error_with_the_cure(name: str, tmp_path: Path) -> None:
    trainer = DecoderTrainer(StudentConfig(model=name), NUMBERS, tmp_path)
    with pytest.raises(StudentError, match=r"student\.model takes a local directory"):
        trainer.student(None)


def test_missing_and_broken_checkpoints_are_named(model: Path, tmp_path: Path) -> None:
    trainer = a_trainer(model, epochs=1)
    with pytest.raises(StudentError, match="gone: no such checkpoint"):
        trainer.student(tmp_path / "gone")
    trainer.train(sums(4), seed=1, folder=tmp_path / "cut", progress=QUIET)
    [file] = (tmp_path / "cut").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(StudentError, match="cut: cannot be loaded"):
        trainer.student(tmp_path / "cut")


def test_nothing_to_train_on_and_a_loss_that_is_no_number_are_errors(model: Path, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="nothing to train on"):
        a_trainer(model).train([], seed=1, folder=tmp_path / "one", progress=QUIET)
    with pytest.raises(StudentError, match=r"lower student\.learning_rate"):
        a_trainer(model, learning_rate=1e30).train(sums(4), seed=1, folder=tmp_path / "one", progress=QUIET)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rank", [0, 8])
def test_full_disk_leaves_no_half_checkpoint(model: Path, tmp_path: Path, rank: int) -> None:
    """A limit on the size of files stands for the full disk: the same call fails in the middle of the weights."""
    trainer = a_trainer(model, epochs=1, lora_rank=rank)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StudentError, match="the checkpoint cannot be written"):
            trainer.train(sums(4), seed=1, folder=tmp_path / "one", progress=QUIET)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_long_questions_keep_their_end(model: Path) -> None:
    student = a_trainer(model, max_prompt_tokens=32).student(None)
    long = Item(key="l", question="1 + " * 100 + "2 ?", split=Split.POOL, text_hash="")
    ids = student.encoded(prompts.answer_prompt(long))
    assert len(ids) == 32
    assert "Answer directly" in student.tokenizer.decode(ids)


@pytest.mark.slow
def test_smollm2_is_converted_once_and_learns(tmp_path: Path) -> None:
    config = StudentConfig(epochs=4, batch_size=4, max_new_tokens=24)
    trainer = DecoderTrainer(config, NUMBERS, tmp_path / "cache")
    student = trainer.student(None)
    assert sum(each.numel() for each in student.model.parameters()) == pytest.approx(134.5e6, rel=0.01)
    [converted] = (tmp_path / "cache").iterdir()
    written = (converted / "config.json").stat().st_mtime_ns
    trained = trainer.train(sums(8), seed=1, folder=tmp_path / "one", progress=QUIET)
    assert trained.card["loss_per_epoch"][-1] < trained.card["loss_per_epoch"][0] / 2
    again: Decoder = trainer.student(tmp_path / "one")
    assert (converted / "config.json").stat().st_mtime_ns == written
    assert sum(each.answer is not None for each in again.predict(items(sums(8)))) >= 6


def test_rows_that_join_others_are_continued_as_alone(model: Path, tmp_path: Path) -> None:
    trainer = a_trainer(model, epochs=1)
    examples = sums(9)
    trainer.train(examples, seed=1, folder=tmp_path / "one", progress=QUIET)
    asked = items(examples)
    settings = {"copies": range(3), "temperature": 1.0, "top_p": 1.0, "seed": 4}
    together = trainer.student(tmp_path / "one")
    together.student = together.student.model_copy(update={"generation_batch": 8})
    alone = trainer.student(tmp_path / "one")
    texts = [[each.text for each in some] for some in together.explain(asked, **settings)]
    assert texts == [[each.text for each in alone.explain([item], **settings)[0]] for item in asked]
    assert len({text for some in texts for text in some}) > 9


def test_each_step_is_as_likely_as_alone_behind_the_steps_before(model: Path) -> None:
    student = a_trainer(model).student(None)
    asked = items(sums(3))
    steps = [["1 + 2 = 3 .", "3 + 4 = 7 .", "7 is 7 ."], [], ["5 + 5 = 10 ."]]
    together = student.step_likelihoods(asked, steps)
    assert [len(each) for each in together] == [3, 0, 1]
    for item, some, scores in zip(asked, steps, together, strict=True):
        for at, score in enumerate(scores):
            before = student.encoded(prompts.rationale_prompt(item)) + student.tokens(number_steps(some[:at]))
            whole = student.encoded(prompts.rationale_prompt(item)) + student.tokens(number_steps(some[: at + 1]))
            logits = student.model(input_ids=torch.tensor([whole])).logits[0].log_softmax(dim=-1)
            alone = [logits[place - 1, whole[place]].item() for place in range(len(before), len(whole))]
            assert score == pytest.approx(sum(alone) / len(alone), abs=1e-4)


def test_a_step_that_was_taught_is_likelier_than_another(model: Path, tmp_path: Path) -> None:
    trainer = a_trainer(model)
    trainer.train(sums(8), seed=1, folder=tmp_path / "one", progress=QUIET)
    student = trainer.student(tmp_path / "one")
    asked = items(sums(8))[:2]
    ((right,), (wrong,)) = student.step_likelihoods([asked[1], asked[1]], [["1 + 20 = 21 ."], ["1 + 20 = 27 ."]])
    assert right > wrong + 0.5
