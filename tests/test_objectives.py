"""Objectives of a student that sees its teacher's logits, each beside a slow recomputation."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft.tuners.lora import Linear
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from loop.config import WhiteBoxConfig
from loop.student import lora
from loop.student.distill_step_by_step import Rows
from loop.student.objectives import gkd, mgsr, minillm, online_kd
from loop.student.objectives.comparing import Compared, Pair, compared, said, written
from loop.student.objectives.divergences import generalised_jsd, log_probabilities
from loop.student.reading import Reading, continuations
from loop.student.white_box import OBJECTIVES
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PAD, END = 0, 1
ROWS: Rows = [([5, 6, 7], [20, 21, 7, 22, 1]), ([3], [30, 4, 1]), ([9, 10, 11, 12], [25])]
WEIGHTS = torch.tensor([1.0, 0.5, 1.0])


def a_model(seed: int, *, hidden: int = 16, vocabulary: int = len(TOKENIZER)) -> LlamaForCausalLM:
    """With large weights, so that its distributions are far from flat."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
    )
    model = LlamaForCausalLM(config)
    model.train(False)
    return model


def a_pair(teacher: Any = None, **changes: object) -> Pair:
    found = a_model(2, hidden=24) if teacher is None else teacher
    if teacher is None:
        found.requires_grad_(False)
    settings = WhiteBoxConfig.model_validate({"teacher": "teacher", **changes})
    return Pair(a_model(1), found, settings, PAD, END, 10, TOKENIZER)


def both(pair: Pair, rows: Rows = ROWS, weights: torch.Tensor = WEIGHTS, *, sampled: bool = False) -> Compared:
    return compared(pair, said(pair.student, rows, weights, PAD), rows, sampled=sampled)


def alone(model: torch.nn.Module, row: tuple[list[int], list[int]]) -> torch.Tensor:
    """Log-probabilities at the targets of one row, read without any other; (tokens, vocabulary), in float64."""
    context, target = row
    logits = model(input_ids=torch.tensor([context + target])).logits[0, len(context) - 1 : -1].detach()
    return logits.double().log_softmax(dim=-1)


def slow_mean(pair: Pair, each: Callable[[torch.Tensor, torch.Tensor, int], float]) -> float:
    """The mean of the weighed figures of target tokens, from the teacher's and the student's log-probabilities."""
    total = counted = 0.0
    for row, weight in zip(ROWS, WEIGHTS.tolist(), strict=True):
        for teacher, student, token in zip(alone(pair.teacher, row), alone(pair.student, row), row[1], strict=True):
            total += weight * each(teacher, student, token)
            counted += 1
    return total / counted


def kl(p: torch.Tensor, q: torch.Tensor) -> float:
    return sum(float(one.exp() * (one - other)) for one, other in zip(p, q, strict=True))


SLOW = {
    "forward_kl": lambda teacher, student, _: kl(teacher, student),
    "reverse_kl": lambda teacher, student, _: kl(student, teacher),
    "jsd": lambda teacher, student, _: float(generalised_jsd(teacher, student, 0.5)),
    "gkd": lambda teacher, student, _: float(generalised_jsd(teacher, student, 0.5)),
    "minillm": lambda teacher, student, _: kl(student, teacher),
}


@pytest.mark.parametrize("name", SLOW)
def test_an_objective_on_decided_texts_is_the_mean_over_their_tokens(name: str) -> None:
    pair = a_pair()
    assert OBJECTIVES[name].loss(both(pair)).item() == pytest.approx(slow_mean(pair, SLOW[name]), abs=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_student_learns_from_every_objective_and_the_teacher_does_not(name: str) -> None:
    teacher = a_model(2, hidden=24)
    OBJECTIVES[name].loss(both(pair := a_pair(teacher), sampled=name == "minillm")).backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in pair.student.parameters())
    assert all(each.grad is None for each in teacher.parameters())


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd", "mgsr"])
def test_nothing_is_lost_where_the_student_says_what_the_teacher_says(name: str) -> None:
    pair = a_pair(a_model(1))
    assert OBJECTIVES[name].loss(both(pair)).item() == pytest.approx(0, abs=1e-6)


def test_logits_of_tokens_that_do_not_exist_are_left_out() -> None:
    padded = a_model(2, hidden=24)
    plain = a_pair(padded)
    padded.resize_token_embeddings(len(TOKENIZER) + 6, mean_resizing=False)
    assert padded.get_output_embeddings().weight.shape[0] == len(TOKENIZER) + 6
    wide = both(replace(plain, teacher=padded))
    assert [each.shape[-1] for each in wide.log_probabilities()] == [len(TOKENIZER)] * 2
    assert OBJECTIVES["jsd"].loss(wide).isfinite()


# --- texts that the student writes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mix", [0.0, 0.3])
def test_a_token_is_drawn_from_the_mixture_of_both(mix: float) -> None:
    pair, context, count = a_pair(), [5, 6, 7], 20_000
    torch.manual_seed(5)
    texts = written(pair, [context] * count, [1] * count, temperature=1.3, mix=mix)
    drawn = torch.bincount(torch.tensor([token for [token] in texts]), minlength=len(TOKENIZER)) / count
    models = ((1 - mix, pair.student), (mix, pair.teacher))
    expected = sum(
        share * (model(input_ids=torch.tensor([context])).logits[0, -1] / 1.3).softmax(-1) for share, model in models
    )
    assert (drawn - expected).abs().sum().item() < 0.06
    assert mix == 0 or (drawn - expected).abs().sum() < (drawn - torch.roll(expected, 1)).abs().sum() / 5


def test_texts_end_at_their_end_or_their_length_and_are_those_of_the_student() -> None:
    pair = a_pair()
    contexts, longest = [[5, 6, 7], [3], [9, 10, 11, 12], [20, 21]], [7, 2, 10, 1]
    cold = written(pair, contexts, longest, temperature=1e-4)
    with torch.inference_mode():
        greedy = [continuations([Reading(pair.student, [one], PAD)], longest=10, stops=[END])[0] for one in contexts]
    assert cold == [text[:length] for text, length in zip(greedy, longest, strict=True)]
    assert written(pair, [], [], temperature=1.0) == []


def test_what_is_drawn_is_torchs_and_dropout_is_off_meanwhile() -> None:
    torch.manual_seed(0)
    loose = GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=32, resid_pdrop=0.9, eos_token_id=END)
    )
    pair = replace(a_pair(), student=loose.train())
    texts = []
    for _ in range(2):
        torch.manual_seed(3)
        texts.append(written(pair, [[5, 6], [7]], [8, 8], temperature=1e-4))
        assert loose.training
    assert texts[0] == texts[1] != written(pair, [[5, 6], [7]], [8, 8], temperature=5.0)


@pytest.mark.parametrize("objective", [gkd, mgsr])
def test_a_share_of_the_batches_is_the_students_own(objective: Any) -> None:
    never, half, always = (a_pair(student_share=share) for share in (0.0, 0.5, 1.0))
    torch.manual_seed(1)
    shares = [sum(objective.rows(pair, ROWS) is not ROWS for _ in range(20)) for pair in (never, half, always)]
    assert shares[::2] == [0, 20]
    assert 5 < shares[1] < 15
    written_rows = objective.rows(always, ROWS)
    assert [context for context, _ in written_rows] == [context for context, _ in ROWS]
    assert all(1 <= len(text) <= 10 for _, text in written_rows)


# --- MiniLLM --------------------------------------------------------------------------------------------------------


def test_returns_have_the_reference_values() -> None:
    rewards = torch.tensor([-0.5, -1.0, 0.2, -0.1])
    assert minillm.returns(rewards, torch.zeros(4)).tolist() == pytest.approx([-0.3, 0.05, -0.1, 0])
    assert minillm.returns(rewards, torch.zeros(4), normalised=False).tolist() == pytest.approx([-0.9, 0.1, -0.1, 0])


def test_returns_never_look_into_another_row() -> None:
    rewards = torch.tensor([-0.5, -1.0, 0.2, -0.1, 7.0, 1.0, 3.0])
    row = torch.tensor([0, 0, 0, 0, 1, 2, 2])
    assert minillm.returns(rewards, row).tolist() == pytest.approx([-0.3, 0.05, -0.1, 0, 0, 3.0, 0])


def test_its_gradient_is_that_of_the_reverse_kl_of_whole_texts() -> None:
    """Over all texts of two tokens, without length normalisation and mixing, which trade truth for calm."""
    torch.manual_seed(4)
    first, second = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((3,), (3, 3)))
    t_first, t_second = torch.randn(3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    exact = surrogate = torch.zeros((), dtype=torch.float64)
    for text in product(range(3), repeat=2):
        student = torch.stack([first, second[text[0]]]).log_softmax(dim=-1)
        teacher = torch.stack([t_first, t_second[text[0]]]).log_softmax(dim=-1)
        targets, row = torch.tensor(text), torch.tensor([0, 0])
        of_student, of_teacher = (each.gather(1, targets[:, None]).sum() for each in (student, teacher))
        exact = exact + of_student.exp() * (of_student - of_teacher)
        single = (student.exp() * (student - teacher)).sum(dim=-1)
        long = minillm.long_term(teacher, student, targets, row, mix=0.0, normalised=False)
        surrogate = surrogate + of_student.exp().detach() * (single + long).sum()
    gradients = [torch.autograd.grad(each, [first, second], retain_graph=True) for each in (exact, surrogate)]
    assert all(torch.allclose(one, other, atol=1e-9) for one, other in zip(*gradients, strict=True))
    assert all(each.abs().max() > 0.01 for each in gradients[0])


def test_a_token_counts_by_how_much_likelier_the_student_alone_draws_it() -> None:
    """Beside loops over rows and tokens in float64."""
    pair, mix = a_pair(), 0.2
    some = both(pair, sampled=True)
    total = counted = 0.0
    for row, weight in zip(ROWS, WEIGHTS.tolist(), strict=True):
        teacher, student = alone(pair.teacher, row), alone(pair.student, row)
        rewards = [float(teacher[at, token] - student[at, token]) for at, token in enumerate(row[1])]
        for at, token in enumerate(row[1]):
            after = rewards[at + 1 :]
            mean = sum(after) / len(after) if after else 0.0
            p, q = float(teacher[at, token].exp()), float(student[at, token].exp())
            long = -(q / (mix * p + (1 - mix) * q)) * mean * float(student[at, token])
            total += weight * (kl(student[at], teacher[at]) + long)
            counted += 1
    assert minillm.loss(some).item() == pytest.approx(total / counted, abs=1e-5)


def test_rewards_without_bound_are_cut() -> None:
    teacher, student = log_probabilities(torch.tensor([[0.0, -torch.inf]] * 2)), torch.zeros(2, 2).log_softmax(dim=-1)
    own = student.requires_grad_()
    found = minillm.long_term(teacher, own, torch.tensor([1, 1]), torch.tensor([0, 0]), mix=0.2)
    assert found.isfinite().all()
    assert found[0].item() == pytest.approx(-1 / 0.8 * (-minillm.LARGEST_REWARD + 0.6931) * -0.6931, rel=1e-2)


# --- Multi-granularity semantic revision ----------------------------------------------------------------------------


def worst_token(pair: Pair, row: tuple[list[int], list[int]]) -> list[int]:
    """The text up to the token at which both are farthest apart, where the teacher would write another one."""
    teacher, student = alone(pair.teacher, row), alone(pair.student, row)
    differing = [at for at, token in enumerate(row[1]) if int(teacher[at].argmax()) != token]
    if not differing:
        return row[1]
    worst = max(differing, key=lambda at: kl(teacher[at], student[at]))
    return [*row[1][:worst], int(teacher[worst].argmax())]


def test_the_worst_token_is_replaced_by_the_teachers() -> None:
    pair = a_pair()
    greedy = [int(alone(pair.teacher, ([9, 10], [0]))[0].argmax())]
    drafts = [*ROWS, ([9, 10], greedy)]
    found = mgsr.corrected(pair, drafts)
    assert found == [worst_token(pair, row) for row in drafts]
    assert found[3] == greedy
    assert found[0] != ROWS[0][1]


def test_the_student_goes_on_from_the_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = a_pair(student_share=1.0, sample_temperature=1e-4)
    contexts = [context for context, _ in ROWS]
    drafts = written(pair, contexts, [10] * 3, temperature=1e-4)
    begun = mgsr.corrected(pair, list(zip(contexts, drafts, strict=True)))
    revised = mgsr.rows(pair, ROWS)
    for (context, text), start, draft in zip(revised, begun, drafts, strict=True):
        rest = written(pair, [context + start], [10 - len(start)], temperature=1e-4)[0]
        assert text == (start if pair.is_whole(start) else start + rest)
        assert text != draft
    monkeypatch.setattr(mgsr, "corrected", lambda _, some: [text for _, text in some])
    assert [text for _, text in mgsr.rows(pair, ROWS)] == drafts


@given(st.lists(st.floats(-8, 8), min_size=6, max_size=6), st.floats(0.05, 1.0), st.integers(0, 5))
@example([0.0, 7.0, 8.0, 8.0, -3.0, -4.0], 1.0, 0)
@settings(max_examples=80, deadline=None)
def test_the_kept_classes_are_the_fewest_that_hold_the_minimum_mass(
    scores: list[float], mass: float, target: int
) -> None:
    shares = torch.tensor(scores).softmax(dim=-1)
    kept = mgsr.dense(shares.log()[None], torch.tensor([target]), mass)[0]
    assert kept[target]
    assert shares[kept].sum().item() >= mass - 1e-5
    order = sorted(range(6), key=lambda at: -shares[at])
    others = [at for at in order if kept[at] and at != target]
    needed = next((n for n in range(1, 7) if sum(shares[at].item() for at in order[:n]) >= mass + 1e-6), 6)
    assert len(others) <= needed


@pytest.mark.parametrize("mass", [0.5, 0.95, 1.0])
def test_many_classes_are_looked_at_where_the_likeliest_hold_too_little(mass: float) -> None:
    torch.manual_seed(1)
    shares = torch.stack([torch.randn(700), 12 * torch.randn(700)]).softmax(dim=-1)
    kept = mgsr.dense(shares.log(), torch.tensor([0, 699]), mass)
    assert ((shares * kept).sum(dim=-1) >= mass - 1e-4).all()
    for row in range(2):
        least = shares[row].sort(descending=True).values
        needed = int((least.cumsum(0) < mass - 1e-4).sum()) + 1
        assert mass == 1.0 or abs(int(kept[row].sum()) - needed) <= 2
    assert kept[0].sum() > mgsr.LIKELIEST > kept[1].sum() or mass == 1.0


def test_clipped_kl_is_that_of_both_on_the_kept_classes() -> None:
    teacher, student = (torch.tensor([shares]).log() for shares in ((0.7, 0.2, 0.06, 0.04), (0.1, 0.3, 0.2, 0.4)))
    own = student.requires_grad_()
    kept = mgsr.dense(teacher, torch.tensor([3]), 0.85)
    assert kept.tolist() == [[True, True, False, True]]
    found = mgsr.clipped_kl(teacher, own, kept)
    p, q = ([each / sum(some) for each in some] for some in ((0.7, 0.2, 0.04), (0.1, 0.3, 0.4)))
    expected = kl(torch.tensor(p, dtype=torch.float64).log(), torch.tensor(q, dtype=torch.float64).log())
    assert found.item() == pytest.approx(expected, abs=1e-6)
    [gradient] = torch.autograd.grad(found.sum(), own)
    assert gradient[0, 2] == 0
    assert gradient.isfinite().all()


def test_the_whole_mass_is_plain_forward_kl() -> None:
    pair = a_pair(minimum_mass=1.0, span_weight=0.0)
    assert mgsr.loss(both(pair)).item() == pytest.approx(slow_mean(pair, SLOW["forward_kl"]), abs=1e-4)


def spans(row: tuple[list[int], list[int]]) -> list[int]:
    """Places of the tokens that stand in a span with the next one."""
    words = [any(sign.isalnum() for sign in TOKENIZER.decode([token])) and token > 2 for token in row[1]]
    return [at for at in range(len(words) - 1) if words[at] and words[at + 1]]


def test_spans_are_runs_of_words_and_what_their_neighbours_share_is_compared() -> None:
    pair = a_pair(span_weight=2.0)
    assert [TOKENIZER.decode(row[1]) for row in ROWS] == ["2 3 . 4 <eos>", "12 Question <eos>", "7"]
    assert [spans(row) for row in ROWS] == [[0], [0], []]
    total = 0.0
    for row, weight in zip(ROWS[:2], (1.0, 0.5), strict=True):
        teacher, student = alone(pair.teacher, row), alone(pair.student, row)
        products = [(each[0] + each[1]).exp().tolist() for each in (teacher, student)]
        total += weight * sum(abs(one - other) for one, other in zip(*products, strict=True))
    expected = total / 2
    with_spans, without = (
        mgsr.loss(both(replace(pair, settings=pair.settings.model_copy(update=changes)))).item()
        for changes in ({}, {"span_weight": 0.0})
    )
    assert with_spans - without == pytest.approx(2 * expected, abs=1e-5)


def test_neighbours_stand_in_one_row() -> None:
    row, words = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([True, True, False, True, True])
    assert mgsr.neighbours(row, words).tolist() == [1, 0, 0, 1]
    assert mgsr.neighbours(row, torch.ones(5, dtype=torch.bool)).tolist() == [1, 1, 0, 1]
    nothing = mgsr.span_difference(torch.zeros(5, 3), torch.zeros(5, 3), torch.zeros(4))
    assert nothing.item() == 0


# --- Online knowledge distillation ----------------------------------------------------------------------------------


def learning(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: each for name, each in module.named_parameters() if each.requires_grad}


def an_online_pair(**changes: object) -> Pair:
    pair = a_pair(objective="online_kd", **changes)
    return replace(pair, teacher=online_kd.adapted(pair.teacher, 4), teacher_learns=True)


def opened(pair: Pair) -> Pair:
    """Adapters that already say something."""
    torch.manual_seed(6)
    for each in learning(pair.teacher).values():
        each.data.normal_(std=0.3)
    return pair


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_adapters_stand_on_the_attention_alone(family: str) -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    names = learning(online_kd.adapted(a_model(2) if family == "llama" else gpt2, 4))
    assert names
    assert all("att" in name and "lora" in name for name in names)
    assert not any("mlp" in name for name in names)


def test_adapters_of_the_teacher_compute_in_its_number_format() -> None:
    module = online_kd.adapted(a_model(2), 4)
    layers = [each for each in module.modules() if isinstance(each, Linear)]
    assert len(layers) == 4
    assert all(each.forward.__func__ is lora._forward for each in layers)


def test_untrained_adapters_change_nothing_and_the_loss_is_its_three_parts() -> None:
    plain, pair = a_pair(), an_online_pair(online_weight=0.3)
    assert torch.equal(both(plain).log_probabilities()[0], both(pair).log_probabilities()[0])
    pair = opened(pair)
    anchored = slow_mean(pair, lambda teacher, _, token: -float(teacher[token]))
    apart = slow_mean(pair, SLOW["forward_kl"])
    assert online_kd.loss(both(pair)).item() == pytest.approx(apart + anchored + 0.3 * apart, abs=1e-4)


def test_student_and_adapters_have_gradients_of_their_own_parts_alone() -> None:
    pair = opened(an_online_pair(online_weight=0.3))
    online_kd.loss(both(pair)).backward()
    of_student = {name: each.grad.clone() for name, each in pair.student.named_parameters()}
    of_adapters = {name: each.grad.clone() for name, each in learning(pair.teacher).items()}
    assert all(each.abs().sum() > 0 for each in of_adapters.values())
    pair.student.zero_grad()
    pair.teacher.zero_grad()
    frozen = replace(pair, teacher_learns=False)
    OBJECTIVES["forward_kl"].loss(both(frozen)).backward()
    assert all(torch.allclose(each.grad, of_student[name], atol=1e-6) for name, each in pair.student.named_parameters())
    assert all(each.grad is None or not each.grad.any() for each in learning(pair.teacher).values())
    some = both(pair)
    teacher, student = some.log_probabilities()
    parts = (
        some.by_teacher.cross_entropy()
        + 0.3 * ((teacher.exp() * (teacher - student.detach())).sum(dim=-1) * some.weight).mean()
    )
    expected = torch.autograd.grad(parts, list(learning(pair.teacher).values()))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(of_adapters.values(), expected, strict=True))


def test_without_an_anchor_the_adapters_come_to_the_student_and_with_it_they_keep_to_the_texts() -> None:
    """What the pull alone would do, and what the cross-entropy holds against it."""

    def trained(pull: float) -> tuple[float, float]:
        pair = opened(an_online_pair(online_weight=pull))
        optimiser = torch.optim.AdamW(learning(pair.teacher).values(), lr=0.05)
        before = both(pair).by_teacher.cross_entropy().item()
        for _ in range(30):
            online_kd.loss(both(pair)).backward()
            optimiser.step()
            optimiser.zero_grad()
        some = both(pair)
        return before - some.by_teacher.cross_entropy().item(), OBJECTIVES["forward_kl"].loss(some).item()

    (gained, far), (pulled, near) = trained(0.1), trained(50.0)
    assert gained > 0.5
    assert near < far
    assert pulled < gained
