"""The encoder student: it learns labels, points at the words it rests on, and answers with the others masked."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split as Cut
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from connectors.progress import RichProgress
from loop.answer import Answer, AnswerKind
from loop.config import QueryConfig, StudentConfig, TaskConfig, Unit
from loop.errors import StudentError
from loop.ports import Example
from loop.query.divergence import divergences_of, order_disagreement
from loop.records import Item, Split
from loop.student.encoder import Encoder
from loop.student.evidence import named, spans
from loop.student.trainer import EncoderTrainer

QUIET = RichProgress(Console(quiet=True))
TASK = TaskConfig(answer=AnswerKind.LABEL, labels={"warm": "It is warm.", "cold": "It is cold."}, max_steps=3)
WORDS = ["[PAD]", "[UNK]", "[MASK]", "the", "sun", "burns", "snow", "falls", "on", "a", "hill", "today", "and", "lake"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained BERT with a word-level tokenizer as a model directory."""
    folder = tmp_path_factory.mktemp("tiny") / "encoder"
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[MASK]"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]", model_max_length=64
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def an_encoder_of_64_places(kind: str, model: Path, folder: Path) -> Path:
    """As many older ones are: the tokenizer does not say how long a text may be."""
    fast = PreTrainedTokenizerFast.from_pretrained(model)
    fast.model_max_length = int(1e30)
    fast.save_pretrained(folder)
    small = {"vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    if kind == "bert":
        BertModel(BertConfig(**small, num_attention_heads=2, max_position_embeddings=64)).save_pretrained(folder)
    else:  # its first places are the padding's
        config = RobertaConfig(**small, num_attention_heads=2, max_position_embeddings=65, pad_token_id=0)
        RobertaModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_no_more_is_read_than_the_model_has_places_for(kind: str, model: Path, tmp_path: Path) -> None:
    trainer = a_trainer(an_encoder_of_64_places(kind, model, tmp_path / kind), epochs=1)
    long = Item(key="long", question="the sun burns and " * 50, split=Split.POOL, text_hash="")
    student = trainer.student(None)
    assert student.reads(long) == (200, 64)
    assert student.predict([long])
    assert student.explain([long], copies=(0, 1), temperature=1.0, top_p=1.0, seed=1)
    told = [replace(each, item=long) for each in examples()[:2]]
    card = trainer.train(told, seed=1, folder=tmp_path / "one", progress=QUIET).card
    assert card["problems"] == {"cut": 2}


def test_a_long_context_leaves_the_question_whole_where_a_line_s_end_is_a_token(trained: Encoder) -> None:
    words = [*WORDS[:3], "\n", *WORDS[3:]]
    made = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = Cut(Regex(r"\n|[^\s]+"), behavior="removed", invert=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]", model_max_length=12
    )
    student = Encoder(trained.model, fast, trained.student, TASK)
    item = Item(key="l", context="the snow falls " * 5, question="the sun burns today", split=Split.POOL, text_hash="")
    read = student.read(item)
    assert read.endswith("\nthe sun burns today")
    assert len(fast(read)["input_ids"]) == student.longest() == 12


def test_an_encoder_that_was_trained_for_another_task_gets_a_new_last_layer(model: Path, tmp_path: Path) -> None:
    config = BertConfig.from_pretrained(model, num_labels=5)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "five")
    PreTrainedTokenizerFast.from_pretrained(model).save_pretrained(tmp_path / "five")
    trainer = a_trainer(tmp_path / "five", epochs=1)
    assert len(trainer.student(None).probabilities([examples()[0].item])[0]) == 2
    trainer.train(examples(), seed=1, folder=tmp_path / "one", progress=QUIET)
    assert trainer.student(tmp_path / "one").predict([examples()[0].item])


def a_trainer(model: Path, **changes: object) -> EncoderTrainer:
    settings = {"kind": "encoder", "model": str(model), "epochs": 20, "batch_size": 4, "learning_rate": 3e-3, **changes}
    return EncoderTrainer(StudentConfig.model_validate(settings), TASK, model.parent / "cache")


def examples() -> list[Example]:
    """The sun is warm and the snow is cold, wherever it is told."""
    told = [("sun burns", "warm"), ("snow falls", "cold")]
    places = ["on the hill", "on a lake", "today", "and the hill", "today on a hill", "and a lake today"]
    return [
        Example(
            Item(key=f"{label}{n}", question=f"the {words} {place}", split=Split.POOL, text_hash=""),
            (f"the {words.split()[0].upper()} makes it {label}",),
            Answer(kind=AnswerKind.LABEL, value=label),
        )
        for n, place in enumerate(places)
        for words, label in told
    ]


def items(some: Sequence[Example]) -> list[Item]:
    return [each.item for each in some]


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("trained") / "one"
    card = a_trainer(model).train(examples(), seed=1, folder=folder, progress=QUIET).card
    losses = card["loss_per_epoch"]
    assert isinstance(losses, list)
    assert losses[-1] < losses[0] / 4
    return a_trainer(model).student(folder)


def test_encoder_learns_its_labels_and_keeps_them_on_disk(trained: Encoder) -> None:
    assert [each.answer for each in trained.predict(items(examples()))] == [each.answer for each in examples()]


def test_direct_answers_are_the_same_without_evidence(trained: Encoder) -> None:
    direct = Encoder(
        trained.model, trained.tokenizer, trained.student.model_copy(update={"answers_by": "answer"}), TASK
    )
    asked = items(examples())
    assert [each.answer for each in direct.predict(asked)] == [each.answer for each in trained.predict(asked)]
    assert {each.explanation.steps for each in direct.predict(asked)} == {()}


def test_evidence_is_words_of_the_item_the_deciding_ones_first(trained: Encoder) -> None:
    for example, prediction in zip(examples(), trained.predict(items(examples())), strict=True):
        steps = prediction.explanation.steps
        assert len(steps) == len(set(steps)) <= TASK.max_steps
        assert set(steps) <= set(example.item.question.split())
    default = trained.answers_after(items(examples()[:1]), [[()]])[0][0].answer
    deciding = {"warm": {"sun", "burns"}, "cold": {"snow", "falls"}}
    told = [each for each in trained.predict(items(examples())) if each.answer != default]
    assert len(told) == 6
    for each in told:
        assert each.answer is not None
        assert set(each.explanation.steps[:2]) == deciding[each.answer.value]


def test_answer_after_some_words_is_that_of_the_text_with_the_others_masked(trained: Encoder) -> None:
    [item] = items(examples()[:1])
    forced = trained.answers_after([item], [[(), ("sun",), tuple(item.question.split())]])[0]
    texts = ["[MASK] [MASK] [MASK] [MASK] [MASK] [MASK]", "[MASK] sun [MASK] [MASK] [MASK] [MASK]", item.question]
    logits = trained.model(**trained.tokens(texts)).logits.softmax(dim=1)
    for each, shares in zip(forced, logits, strict=True):
        assert each.probabilities == pytest.approx(shares.tolist(), abs=5e-3)  # products may be in bfloat16
    assert forced[1].answer == forced[2].answer == examples()[0].answer
    assert trained.probabilities([item])[0] == pytest.approx(forced[2].probabilities, abs=1e-6)


@pytest.mark.parametrize(
    ("unit", "found"),
    [
        ("words", ["The", "sun", "burns", "today", "on", "a", "Hill", "Snow", "falls", "A", "lake"]),
        ("phrases", ["sun burns today", "Hill", "Snow falls", "lake"]),
        ("sentences", ["The sun burns today\ton a Hill", "Snow falls", "A lake"]),
    ],
)
def test_evidence_is_found_in_units(unit: Unit, found: list[str]) -> None:
    text = "The sun burns today\ton a Hill. Snow falls\n A lake?"
    assert [text[start:end] for start, end in spans(text, unit)] == found
    assert spans("", unit) == spans("?!\n", unit) == []


@pytest.mark.parametrize(
    ("unit", "steps", "seen"),
    [
        ("words", ("sun", "hill"), "[MASK] Sun [MASK], [MASK] [MASK] hill"),
        ("phrases", ("sun burns",), "the Sun  burns, on a [MASK]"),
        ("sentences", ("the sun burns, on a hill",), "the Sun  burns, on a hill"),
        ("sentences", (), "[MASK] [MASK]  [MASK], [MASK] [MASK] [MASK]"),
    ],
)
def test_what_is_no_step_is_masked_word_for_word(
    unit: Unit, steps: tuple[str, ...], seen: str, trained: Encoder
) -> None:
    student = by_units(trained, unit)
    [item] = [items(examples())[0].model_copy(update={"question": "the Sun  burns, on a hill"})]
    forced = student.answers_after([item], [[steps]])[0][0]
    logits = trained.model(**trained.tokens([seen])).logits.softmax(dim=1)[0]
    assert forced.probabilities == pytest.approx(logits.tolist(), abs=5e-3)


@pytest.mark.parametrize("unit", ["phrases", "sentences"])
def test_the_answer_after_all_evidence_is_that_of_the_item_whatever_its_units(unit: Unit, trained: Encoder) -> None:
    student = by_units(trained, unit)
    asked = items(examples())
    moved = []
    for item, [told] in zip(asked, student.explain(asked, copies=[0], temperature=1.0, top_p=1.0, seed=1), strict=True):
        assert set(told.steps) <= {named(item.question[start:end]) for start, end in spans(item.question, unit)}
        [[first, last]] = student.answers_after([item], [[(), told.steps]])
        assert last.probabilities == pytest.approx(student.probabilities([item])[0], abs=1e-6)
        moved.append(first.answer != last.answer)
    assert sum(moved) == len(asked) / 2


def by_units(trained: Encoder, unit: Unit) -> Encoder:
    return Encoder(trained.model, trained.tokenizer, trained.student.model_copy(update={"evidence": unit}), TASK)


def test_only_what_the_rationale_mentions_stays_in_sight(trained: Encoder) -> None:
    assert trained.only("The Sun burns, today", ["the SUN is warm"]) == "The Sun [MASK], [MASK]"


def test_dropout_gives_other_probabilities_and_the_seed_the_same_again(trained: Encoder) -> None:
    asked = items(examples())
    one, same, other = (
        trained.explain(asked, copies=range(5), temperature=1.0, top_p=1.0, seed=seed) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other
    assert [row[0] for row in one] == [row[0] for row in other] == [each.explanation for each in trained.predict(asked)]
    for row in one:
        sampled = [each.probabilities for each in row[1:]]
        assert len(set(sampled)) > 1  # products in bfloat16 may meet
        assert [sum(shares) for shares in sampled] == pytest.approx([1] * 4)
        assert [each.answer for each in row[1:]] == [trained.labels[int(np.argmax(shares))] for shares in sampled]


def test_samples_that_say_what_they_rest_on_add_the_order_of_evidence_to_the_divergence(trained: Encoder) -> None:
    asked = items(examples())
    seeing = Encoder(
        trained.model, trained.tokenizer, trained.student.model_copy(update={"sampled_evidence": True}), TASK
    )
    plain, told = (
        student.explain(asked, copies=range(5), temperature=1.0, top_p=1.0, seed=1) for student in (trained, seeing)
    )
    assert [[each.probabilities for each in row] for row in plain] == [
        [each.probabilities for each in row] for row in told
    ]
    assert {each.steps for row in plain for each in row[1:]} == {()}
    assert any(len({each.steps for each in row}) > 1 for row in told)
    query = QueryConfig(samples=4)
    alone, both = (divergences_of(asked, some, trained, query) for some in (plain, told))
    orders = [order_disagreement([each.steps for each in row[1:]]) for row in told]
    halves = [(each["inter"] + order) / 2 for each, order in zip(alone, orders, strict=True)]
    assert [each["inter"] for each in both] == pytest.approx(halves)
    assert max(orders) > 0


def test_rationales_that_mention_the_deciding_word_make_it_suffice(model: Path, tmp_path: Path) -> None:
    told = examples()
    silent = [Example(each.item, ("no reason",), each.answer) for each in told]
    trainer = a_trainer(model, rationale_weight=0.5)
    shares = []
    for name, some in (("told", told), ("silent", silent)):
        trainer.train(some, seed=1, folder=tmp_path / name, progress=QUIET)
        words = [[(each.steps[0].split()[1].lower(),)] for each in told]
        forced = trainer.student(tmp_path / name).answers_after(items(told), words)
        shares.append(np.mean([max(each.probabilities) for [each] in forced]))
    assert shares[0] > shares[1]


ADAPTED = {"lora_rank": 4, "learning_rate": 3e-2, "epochs": 60}


def test_adapters_and_the_last_layer_learn_and_the_base_stays(model: Path, tmp_path: Path) -> None:
    trainer = a_trainer(model, **ADAPTED)
    card = trainer.train(examples(), seed=1, folder=tmp_path / "one", progress=QUIET).card
    kept = load_file(tmp_path / "one" / "adapter_model.safetensors")
    assert {name.split(".")[-2] for name in kept if "lora_" not in name} == {"classifier"}
    assert any("lora_B" in name and each.abs().sum() > 0 for name, each in kept.items())
    student, base = trainer.student(tmp_path / "one"), trainer.student(None)
    assert [each.answer for each in student.predict(items(examples()))] == [each.answer for each in examples()]
    before, after = (each.model.state_dict()["bert.embeddings.word_embeddings.weight"] for each in (base, student))
    assert torch.equal(before, after)
    assert card["settings"]["lora_rank"] == 4  # type: ignore[index]


def test_adapters_go_on_from_those_of_a_checkpoint(model: Path, tmp_path: Path) -> None:
    a_trainer(model, **ADAPTED).train(examples(), seed=1, folder=tmp_path / "one", progress=QUIET)
    still = a_trainer(model, lora_rank=4, learning_rate=1e-9, epochs=1)
    still.train(examples(), seed=2, folder=tmp_path / "two", progress=QUIET, start=tmp_path / "one")
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


def test_an_encoder_has_no_adapters_unless_they_are_asked_for(model: Path, tmp_path: Path) -> None:
    a_trainer(model, epochs=1).train(examples(), seed=1, folder=tmp_path / "one", progress=QUIET)
    assert not (tmp_path / "one" / "adapter_config.json").exists()


@pytest.mark.parametrize("kind", ["distilbert", "deberta-v2"])
def test_all_that_is_new_behind_an_encoder_is_kept_beside_its_adapters(kind: str, model: Path, tmp_path: Path) -> None:
    """Both have a second random layer before the last one."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    small = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = (
        DistilBertModel(DistilBertConfig(vocab_size=len(tokenizer), dim=16, n_layers=1, n_heads=2, hidden_dim=32))
        if kind == "distilbert"
        else DebertaV2Model(DebertaV2Config(**small, intermediate_size=32))
    )
    made.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    trainer = a_trainer(tmp_path / "model", **{**ADAPTED, "epochs": 2})
    trainer.train(examples(), seed=1, folder=tmp_path / "one", progress=QUIET)
    before = {"distilbert": "pre_classifier.weight", "deberta-v2": "pooler.dense.weight"}[kind]
    kept = load_file(tmp_path / "one" / "adapter_model.safetensors")
    [own] = [each for name, each in kept.items() if name.endswith(before)]
    weights = trainer.student(tmp_path / "one").model.state_dict()
    assert torch.equal(weights[before], own)
    assert not torch.equal(own, trainer.student(None).model.state_dict()[before])


def test_same_seed_gives_the_same_weights(model: Path, tmp_path: Path) -> None:
    trainer = a_trainer(model, epochs=2)
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        trainer.train(examples(), seed=seed, folder=tmp_path / name, progress=QUIET)
    one, same, other = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "same", "other"))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_embeddings_do_not_depend_on_the_company(trained: Encoder) -> None:
    asked = items(examples())
    together = trained.embed(asked)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    for item, vector in zip(asked, together, strict=True):
        assert trained.embed([item])[0] == pytest.approx(vector, abs=1e-5)


def test_item_without_words_is_answered_without_evidence(trained: Encoder) -> None:
    [[only]] = trained.explain(
        [Item(key="x", question="?!", split=Split.POOL, text_hash="")], copies=[0], temperature=1.0, top_p=1.0, seed=0
    )
    assert only.steps == ()
    assert only.answer in trained.labels


def test_model_without_a_mask_token_is_refused(tmp_path: Path, model: Path) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(model / "tokenizer.json"), pad_token="[PAD]")
    folder = tmp_path / "model"
    BertModel.from_pretrained(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with pytest.raises(StudentError, match="no mask token"):
        a_trainer(folder).student(None)


def test_unknown_encoder_is_an_error_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="of an encoder"):
        a_trainer(tmp_path / "no-such-model").student(None)


@pytest.mark.slow
def test_minilm_of_the_package_learns(tmp_path: Path) -> None:
    config = StudentConfig(kind="encoder", model="all-minilm-l6-v2", epochs=10, batch_size=4, learning_rate=1e-4)
    trainer = EncoderTrainer(config, TASK, tmp_path)
    trainer.train(examples(), seed=1, folder=tmp_path / "one", progress=QUIET)
    student = trainer.student(tmp_path / "one")
    assert [each.answer for each in student.predict(items(examples()))] == [each.answer for each in examples()]
