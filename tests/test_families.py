"""Students of other families: causal ones (Qwen2, GPT-2, Llama with tied heads), and those with encoder and decoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from connectors.handover import export_student
from connectors.students import loaded
from connectors.students import trained as student_of
from loop.answer import Answer, AnswerKind, number_steps
from loop.config import QueryConfig, StudentConfig, TaskConfig
from loop.errors import StudentError
from loop.ports import Example, Silent
from loop.query.divergence import divergences_of
from loop.records import Item
from loop.student import prompts
from loop.student.distill_step_by_step import token_losses
from loop.student.seq2seq import LINE, Seq2Seq, pair_losses
from loop.student.trainer import DecoderTrainer, Seq2SeqTrainer
from tests.test_student import NUMBERS, items, sums, weights
from tests.test_training import an_item
from tests.tiny import beginning_with, tiny_model, tiny_tokenizer
from tests.trained import a_trained_project

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
QUIET = Silent()


def qwen2(vocabulary: int) -> PreTrainedModel:
    config = Qwen2Config(
        vocab_size=vocabulary, num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=None, eos_token_id=1, **SMALL,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def gpt2(vocabulary: int) -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=128, n_embd=32, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def llama(vocabulary: int) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=vocabulary, max_position_embeddings=128, tie_word_embeddings=True, pad_token_id=0,
        bos_token_id=None, eos_token_id=1, **SMALL,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def t5(vocabulary: int) -> PreTrainedModel:
    config = T5Config(
        vocab_size=vocabulary, d_model=32, d_ff=64, d_kv=16, num_layers=2, num_heads=2, dropout_rate=0.0,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0,
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


def bart(vocabulary: int) -> PreTrainedModel:
    config = BartConfig(
        vocab_size=vocabulary, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, dropout=0.0,
        init_std=0.1,
        pad_token_id=0, bos_token_id=None, eos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=None,
    )  # fmt: skip
    return BartForConditionalGeneration(config)


CAUSAL = {"qwen2": qwen2, "gpt2": gpt2, "llama": llama}
PAIRS = {"t5": t5, "bart": bart, "t5 without lines": t5}


def a_folder(name: str, folder: Path) -> Path:
    """An untrained model of that family; GPT-2 has no token for padding, and one T5 no end of a line."""
    if name == "gpt2":
        tokenizer = tiny_tokenizer(pad_token=None)
    elif name == "t5 without lines":
        tokenizer = tiny_tokenizer(LINE, without=["\n"], additional_special_tokens=[LINE])
    else:
        tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    (CAUSAL | PAIRS)[name](len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=CAUSAL)
def causal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_folder(request.param, tmp_path_factory.mktemp("causal") / request.param)


@pytest.fixture(scope="module", params=PAIRS)
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_folder(request.param, tmp_path_factory.mktemp("pairs") / request.param.replace(" ", "-"))


def settings(folder: Path, **changes: object) -> StudentConfig:
    small = {"lora_rank": 0, "epochs": 3, "batch_size": 4, "learning_rate": 1e-2, "max_new_tokens": 16}
    return StudentConfig.model_validate({"model": str(folder), "dtype": "float32", **small, **changes})


def decoders(folder: Path, task: TaskConfig = NUMBERS, **changes: object) -> DecoderTrainer:
    return DecoderTrainer(settings(folder, **changes), task, folder.parent / "cache")


def seq2seqs(folder: Path, task: TaskConfig = NUMBERS, **changes: object) -> Seq2SeqTrainer:
    return Seq2SeqTrainer(settings(folder, kind="seq2seq", **changes), task, folder.parent / "cache")


MIXED = [*items(sums(5)), an_item("What is 1 + 2 + 3 + 4 ?"), an_item("What ?")]


def test_a_causal_family_is_read_beside_others_as_alone(causal: Path) -> None:
    student = decoders(causal).student(None)
    rows = [([5, 6, 7], [8, 9]), ([3], [4]), ([3, 5, 6, 7, 8], [9])]
    nll, is_target = token_losses(student.model, rows, student.pad)
    alone = [token_losses(student.model, [row], student.pad)[0][0] for row in rows]
    for some, told, own in zip(nll, is_target, alone, strict=True):
        assert torch.allclose(some[told == 1], own, atol=1e-5)
    parts = [[(), ("1 + 2 = 3 .",)], [()], [("3 + 3 = 6 .", "6 = 6 .")], *[[()]] * 4]
    together = student.answers_after(MIXED, parts)
    assert together == [student.answers_after([item], [some])[0] for item, some in zip(MIXED, parts, strict=True)]


def test_a_causal_family_writes_what_transformers_generates(causal: Path, tmp_path: Path) -> None:
    trainer = decoders(causal, epochs=30)
    trainer.train(sums(8), seed=1, folder=tmp_path / "one", progress=QUIET)
    student = trainer.student(tmp_path / "one")
    explained = student.explain(MIXED, copies=[0], temperature=1.0, top_p=1.0, seed=0)
    assert len({ours.text for [ours] in explained}) > 1
    for item, [ours] in zip(MIXED, explained, strict=True):
        ids = torch.tensor([student.encoded(prompts.rationale_prompt(item))])
        theirs = student.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, pad_token_id=student.pad
        )
        assert ours.text == student.tokenizer.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("rank", [0, 8])
def test_a_causal_family_learns_and_is_the_same_from_disk(causal: Path, rank: int, tmp_path: Path) -> None:
    trainer = decoders(causal, lora_rank=rank, epochs=10)
    card = trainer.train(sums(8), seed=1, folder=tmp_path / "one", progress=QUIET).card
    assert card["loss_per_epoch"][-1] < card["loss_per_epoch"][0] - 0.2
    student = trainer.student(tmp_path / "one")
    assert student.model.get_output_embeddings().weight is student.model.get_input_embeddings().weight
    taught, untaught = (
        each.step_likelihoods(items(sums(8)), [example.steps for example in sums(8)])
        for each in (student, trainer.student(None))
    )
    assert np.mean(taught) > np.mean(untaught) + 0.1
    layers = {name.split(".lora_")[0].split(".")[-1] for name in weights(tmp_path / "one") if "lora_" in name}
    expected = {"c_attn", "c_proj", "c_fc"} if "gpt2" in str(causal) else {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip
    assert layers == (expected if rank else set())


def test_a_model_without_room_for_a_question_is_refused(causal: Path) -> None:
    with pytest.raises(StudentError, match=r"max_new_tokens = 128 leaves no room .* in the 128 tokens"):
        decoders(causal, max_new_tokens=128).student(None)


LABELS = TaskConfig(answer=AnswerKind.LABEL, labels={"1": "one", "2 3 4": "several"})


@pytest.mark.parametrize("task", [NUMBERS, LABELS], ids=["number", "label"])
@pytest.mark.parametrize("steps", [["1 + 2 = 3 ."] * 3, ["1 + 2 = 3 ."] * 25], ids=["some", "more than it reads"])
def test_what_stands_behind_a_full_prompt_fits_the_positions(causal: Path, task: TaskConfig, steps: list[str]) -> None:
    student = decoders(causal, task=task).student(None)
    full = an_item("What is " + "1 + " * 100 + "2 ?")
    [forced] = student.answers_after([full], [[[], steps[:1], steps]])
    [on], [surprise] = student.go_on([full], [steps]), student.step_likelihoods([full], [steps])
    assert len(forced) == 3
    assert len(on.steps) >= min(len(steps), task.max_steps)
    assert np.isfinite(surprise).all()
    assert len(surprise) == len(steps)


def test_a_model_that_begins_texts_with_its_end_reads_it_at_the_start(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model")
    beginning_with("<eos>").save_pretrained(tmp_path / "model")
    student = decoders(tmp_path / "model").student(None)
    assert student.start == [student.end]
    prompt = prompts.answer_prompt(an_item("What is 1 + 2 ?"))
    assert student.encoded(prompt) == student.tokenizer(prompt)["input_ids"]
    student.room = 9
    assert student.encoded(prompt)[0] == student.end
    assert len(student.encoded(prompt)) == 9


def test_a_full_prompt_is_cut_from_its_left_by_what_stands_behind_it(causal: Path) -> None:
    student = decoders(causal).student(None)
    prompt = prompts.rationale_prompt(an_item("What is " + "1 + " * 100 + "2 ?"))
    begun = prompts.forced(["1 + 2 = 3 ."] * 3)
    whole, written = student.tokens(prompt), student.tokens(begun)
    assert student.context(prompt) == whole[-(128 - 16) :]
    assert student.context(prompt, begun, 20) == whole[-(128 - 20 - len(written)) :] + written
    assert student.context(prompt, prompts.forced([]), 15) == whole[-(128 - 16) :] + student.tokens("Answer:")
    short = prompts.rationale_prompt(an_item("What ?"))
    assert student.context(short, begun, 20) == student.tokens(short) + written


@pytest.fixture(scope="module")
def taught(pairs: Path) -> Seq2Seq:
    """A seq2seq student that learned eight sums."""
    trainer, folder = seq2seqs(pairs, epochs=80, learning_rate=5e-3), pairs.parent / "taught"
    card = trainer.train(sums(8), seed=1, folder=folder, progress=QUIET).card
    assert card["loss_per_epoch"][-1] < card["loss_per_epoch"][0] / 10
    return trainer.student(folder)


def test_a_seq2seq_student_learns_what_it_is_taught(taught: Seq2Seq) -> None:
    examples, student = sums(8), taught
    told = student.predict(items(examples))
    assert [each.answer for each in told] == [each.answer for each in examples]
    assert [each.explanation.steps for each in told] == [each.steps for each in examples]
    direct = student.answers_after(items(examples), [[(), each.steps] for each in examples])
    assert [each.answer for some in direct for each in some] == [each.answer for each in examples for _ in range(2)]
    again = student.go_on(items(examples), [each.explanation.steps for each in told])
    assert [(each.steps, each.answer) for each in again] == [(each.steps, each.answer) for each in examples]
    other = student.go_on(items(examples)[:1], [["1 + 1 = 3"]])[0]
    assert other.steps[0] == "1 + 1 = 3"


def forced(student: Seq2Seq, item: Item, begun: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids, own = torch.tensor([student.encoded(prompts.rationale_prompt(item))]), student.tokens(begun)
    return ids, torch.tensor([[student.start, *own]])


def test_a_seq2seq_student_writes_what_transformers_generates_after_any_beginning(taught: Seq2Seq) -> None:
    student = taught
    steps = [("1 + 1 = 2 .",), (), ("2 + 2 = 4 .", "4 = 4 ."), (), ("1 = 1 .",), ("2 = 2 .",), ()]
    ours = student.go_on(MIXED, steps)
    for item, some, each in zip(MIXED, steps, ours, strict=True):
        begun = f"{number_steps(some)}\n"
        ids, own = forced(student, item, begun)
        theirs = student.model.generate(
            ids, attention_mask=torch.ones_like(ids), decoder_input_ids=own, max_new_tokens=16, do_sample=False,
            num_beams=1,
        )[0, own.shape[1] :]  # fmt: skip
        assert each.text == begun + student.decoded([theirs.tolist()])[0]


def test_samples_of_a_seq2seq_student_depend_on_seed_and_item_and_not_on_the_company(taught: Seq2Seq) -> None:
    def explained(some: Sequence[Item], seed: int) -> dict[str, list[str]]:
        rows = taught.explain(some, copies=range(4), temperature=3.0, top_p=1.0, seed=seed)
        return {item.key: [each.text for each in row] for item, row in zip(some, rows, strict=True)}

    everyone = explained(MIXED, 7)
    assert explained(MIXED[::-1], 7) == everyone
    assert explained(MIXED[2:4], 7) == {item.key: everyone[item.key] for item in MIXED[2:4]}
    other = explained(MIXED, 8)
    assert [texts[0] for texts in other.values()] == [texts[0] for texts in everyone.values()]
    assert [texts[1:] for texts in other.values()] != [texts[1:] for texts in everyone.values()]
    rows = taught.explain(MIXED, copies=range(5), temperature=3.0, top_p=1.0, seed=7)
    found = divergences_of(MIXED, rows, taught, QueryConfig(samples=4))
    assert max(each["inter"] for each in found) > 0


def test_labels_and_steps_are_scored_by_the_decoder_as_they_stand(pairs: Path) -> None:
    task = TaskConfig(answer=AnswerKind.LABEL, labels={"1": "one", "2": "two", "3 4": "three"})
    student = seq2seqs(pairs, task).student(None)
    steps = ("1 + 2 = 3 .", "3 = 3 .")

    def alone(item: Item, prompt: str, begun: str, target: list[int]) -> list[float]:
        ids, own = torch.tensor([student.encoded(prompt)]), [student.start, *student.tokens(begun)]
        logits = student.model(input_ids=ids, decoder_input_ids=torch.tensor([[*own, *target[:-1]]])).logits[0]
        shares = logits.log_softmax(dim=-1)
        return [shares[len(own) - 1 + at, token].item() for at, token in enumerate(target)]

    asked = MIXED[:2]
    for item, some in zip(asked, student.answers_after(asked, [[(), steps]] * 2), strict=True):
        for part, each in zip([(), steps], some, strict=True):
            prompt = prompts.rationale_prompt(item) if part else prompts.answer_prompt(item)
            scores = [alone(item, prompt, prompts.forced(part), student.tokens(label)) for label in ("1", "2", "3 4")]
            means = torch.tensor([sum(some) / len(some) for some in scores])
            assert each.probabilities == pytest.approx(means.softmax(dim=0).tolist(), abs=1e-5)
            assert each.answer == Answer(kind=AnswerKind.LABEL, value=list(task.labels)[int(means.argmax())])
    together = student.step_likelihoods(asked, [steps, ()])
    whole, first = student.tokens(number_steps(steps)), len(student.tokens(number_steps(steps[:1])))
    each = alone(asked[0], prompts.rationale_prompt(asked[0]), "", whole)
    expected = [sum(each[:first]) / first, sum(each[first:]) / (len(each) - first)]
    assert together[0] == pytest.approx(expected, abs=1e-5)
    assert together[1] == []


def test_a_seq2seq_student_is_trained_on_its_targets_alone_and_embeds_what_it_reads(pairs: Path) -> None:
    student = seq2seqs(pairs).student(None)
    losses = pair_losses(student.start, student.pad)
    rows = [([5, 6, 7], [8, 9, 1]), ([3], [4, 1])]
    nll, is_target = losses(student.model, rows)
    assert is_target.tolist() == [[1, 1, 1], [1, 1, 0]]
    for row, some, told in zip(rows, nll, is_target, strict=True):
        assert torch.allclose(some[told == 1], losses(student.model, [row])[0][0], atol=1e-5)
    together = student.embed(MIXED)
    for item, vector, doubt in zip(MIXED, together, student.doubt(MIXED), strict=True):
        assert student.embed([item])[0] == pytest.approx(vector, abs=1e-5)
        assert student.doubt([item])[0] == pytest.approx(doubt, abs=1e-5)


def test_adapters_of_a_seq2seq_student_are_stored_alone_and_merged_when_loaded(pairs: Path, tmp_path: Path) -> None:
    trainer = seq2seqs(pairs, lora_rank=8, epochs=10)
    card = trainer.train(sums(8), seed=1, folder=tmp_path / "one", progress=QUIET).card
    assert card["loss_per_epoch"][-1] < card["loss_per_epoch"][0] - 0.2
    assert {name.split(".")[-2] for name in weights(tmp_path / "one")} == {"lora_A", "lora_B"}
    assert not hasattr(trainer.student(tmp_path / "one").model, "peft_config")


def test_a_long_rationale_is_refused_by_the_positions_of_the_decoder_alone(tmp_path: Path) -> None:
    trainer = seq2seqs(a_folder("bart", tmp_path / "bart"))
    [plain] = sums(1)
    long = Example(an_item("1 + " * 50 + "2 ?"), plain.steps, plain.answer)
    wordy = Example(an_item("What ?"), ("1 + 1 = 2 .",) * 12, plain.answer)
    card = trainer.train([plain, long, wordy], seed=1, folder=tmp_path / "one", progress=QUIET).card
    assert (card["examples"], card["problems"]) == (2, {"cut": 1, "crowded": 1})


def test_a_tokenizer_without_lines_and_without_a_token_to_stand_for_them_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(without=["\n"])
    t5(len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(StudentError, match="knows neither the end of a line nor <extra_id_0>"):
        seq2seqs(tmp_path / "model").student(None)


def test_a_seq2seq_student_goes_home_and_writes_there_what_it_writes_here(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(pairs)
    project = a_trained_project(tmp_path, student='kind = "seq2seq"\nlora_rank = 8\nepochs = 4\nlearning_rate = 0.01')
    export_student(project, student_of(project), tmp_path / "home", "transformers")
    student = loaded(project, student_of(project))
    assert isinstance(student, Seq2Seq)
    home = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "home")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "home")
    prompt = prompts.rationale_prompt(MIXED[0])
    asked = tokenizer(prompt if student.line is None else prompt.replace("\n", LINE), return_tensors="pt")
    assert asked["input_ids"][0].tolist() == student.encoded(prompt)
    written = home.generate(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"])[0, 1:]
    [[ours]] = student.explain(MIXED[:1], copies=[0], temperature=1.0, top_p=1.0, seed=0)
    assert student.decoded([written.tolist()])[0] == ours.text
    code = (tmp_path / "home" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    exec(code.replace("FOLDER", str(tmp_path / "home")), {})
    with pytest.raises(StudentError, match="OpenVINO files are written of causal students"):
        export_student(project, student_of(project), tmp_path / "other", "openvino")
