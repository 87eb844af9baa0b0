"""What people did weighs in the loss exactly as the settings say, whatever the family; and how the targets look."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loop.config import StudentConfig
from loop.ports import Example, Silent
from loop.student import prompts
from loop.student.tagger import NO_TAG
from loop.student.validation import validating
from loop.student.writer import Writer
from tests import test_encoder, test_tagger, test_training
from tests.test_encoder import model as encoder  # noqa: F401 - a fixture
from tests.test_families import a_folder, decoders, seq2seqs
from tests.test_student import a_trainer, model, sums, weights  # noqa: F401 - a fixture
from tests.test_training import an_encoder_trainer, many

TAGGED = test_tagger.examples()
SETTINGS = {"gold_weight": 3.0, "risk_weight": True}
FAMILIES = {"gpt2": decoders, "llama": decoders, "t5": seq2seqs, "t5 without lines": seq2seqs, "bart": seq2seqs}


def worked_on(some: Sequence[Example]) -> list[Example]:
    """Every third one was decided by people, the others have a risk; one has no steps."""
    return [
        replace(
            each, gold=number % 3 == 0, risk=0.0 if number % 3 == 0 else number / 20, steps=each.steps * (number != 4)
        )
        for number, each in enumerate(some)
    ]


def repaired_sums() -> list[Example]:
    """Sums in three steps, of which people changed the second, or the first and the last."""
    long = [replace(each, steps=(*each.steps, "1 + 1 = 2 .", "So 2 .")) for each in sums(8)]
    changed = [frozenset({1}), frozenset(), frozenset({0, 2})]
    return [replace(each, repaired=changed[number % 3]) for number, each in enumerate(worked_on(long))]


def own_weight(example: Example) -> float:
    """As `SETTINGS` have it."""
    return 3.0 if example.gold else 1 - example.risk


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("weighed") / request.param.replace(" ", "-")
    return request.param, a_folder(request.param, folder)


def nll_alone(student: Writer, context: list[int], target: list[int]) -> list[float]:
    """Of each token of a target, with nothing beside it."""
    if student.student.kind == "seq2seq":
        written = torch.tensor([[student.start, *target[:-1]]])
        logits = student.model(input_ids=torch.tensor([context]), decoder_input_ids=written).logits[0]
    else:
        logits = student.model(input_ids=torch.tensor([context + target])).logits[0][len(context) - 1 : -1]
    said = logits.float().log_softmax(dim=-1)
    return [-said[at, token].item() for at, token in enumerate(target)]


def steps_of(student: Writer, target: list[int]) -> list[int]:
    """The step that each token of a target is of, counted by the ends of lines before it; the answer is the last."""
    [line] = student.tokens("\n")[-1:]
    found, now = [], 0
    for token in target:
        now += token == line
        found.append(now)
    return found


def row_of(student: Writer, example: Example, *, direct: bool) -> tuple[list[int], list[int]]:
    prompt = prompts.answer_prompt if direct else prompts.rationale_prompt
    target = prompts.rationale_target(example.item, () if direct else example.steps, example.answer)
    return student.encoded(prompt(example.item)), [*student.tokens(target), student.end]


def expected(
    student: Writer,
    examples: Sequence[Example],
    batch: Sequence[int],
    *,
    direct: bool,
    of: Callable[[int, int], bool] = lambda step, steps: True,
) -> float:
    """The weighted mean of the losses of a batch, token by token; the weights have the mean 1 over all."""
    total = count = 0.0
    whole: list[float] = []
    for number, each in enumerate(examples):
        if not direct and not each.steps:
            continue
        context, target = row_of(student, each, direct=direct)
        of_step = steps_of(student, target)
        nll = nll_alone(student, context, target) if number in batch else [0.0] * len(target)
        for loss, step in zip(nll, of_step, strict=True):
            if not of(step, len(each.steps)):
                continue
            weight = own_weight(each) * (2.0 if not direct and step in each.repaired else 1.0)
            whole.append(weight)
            if number in batch:
                total, count = total + weight * loss, count + 1
    return total / count / (sum(whole) / len(whole))


@pytest.mark.parametrize("share", [0.5, 0.2])
@torch.no_grad()
def test_the_loss_of_two_tasks_is_that_of_every_token_by_its_weight(family: tuple[str, Path], share: float) -> None:
    name, folder = family
    settings = {**SETTINGS, "repaired_weight": 2.0, "rationale_weight": share}
    trainer, examples, batch = FAMILIES[name](folder, **settings), repaired_sums(), [1, 2, 4, 6]
    base = trainer.base(None)
    loss = sum(trainer.lesson(base, base.model, examples).losses(batch)).item()
    answer, rationale = (expected(base, examples, batch, direct=direct) for direct in (True, False))
    assert loss == pytest.approx((1 - share) * answer + share * rationale, rel=1e-4)
    plain = FAMILIES[name](folder)
    assert loss != pytest.approx(sum(plain.lesson(base, base.model, examples).losses(batch)).item(), rel=1e-3)


@torch.no_grad()
def test_one_target_averages_steps_and_answer_apart(family: tuple[str, Path]) -> None:
    name, folder = family
    settings = {**SETTINGS, "repaired_weight": 2.0, "targets": "rationale_then_answer", "rationale_weight": 0.7}
    trainer, examples, batch = FAMILIES[name](folder, **settings), repaired_sums(), [0, 2, 5]
    base = trainer.base(None)
    [loss] = trainer.lesson(base, base.model, examples).losses(batch)
    steps = expected(base, examples, batch, direct=False, of=lambda step, steps: step < steps)
    answer = expected(base, examples, batch, direct=False, of=lambda step, steps: step == steps)
    assert loss.item() == pytest.approx(0.7 * steps + 0.3 * answer, rel=1e-4)


@pytest.mark.parametrize("share", [0.5, 0.2])
@torch.no_grad()
def test_an_encoder_weighs_its_examples(encoder: Path, share: float) -> None:  # noqa: F811
    trainer = an_encoder_trainer(encoder, **SETTINGS, rationale_weight=share)
    examples, batch = worked_on(test_encoder.examples()), [0, 2, 4, 7]
    base = trainer.base(None)
    losses = [each.item() for each in trainer.lesson(base, base.model, examples).losses(batch)]
    wanted = []
    for told in (False, True):
        counted = [each for each in examples if each.steps or not told]
        mean = sum(own_weight(each) for each in counted) / len(counted)
        some, total = [examples[number] for number in batch if examples[number].steps or not told], 0.0
        for each in some:
            text = base.read(each.item)
            with base.quick():
                logits = base.model(**base.tokens([base.only(text, each.steps) if told else text])).logits[0].float()
            total -= own_weight(each) * logits.log_softmax(0)[base.labels.index(each.answer)].item()
        wanted.append((share if told else 1 - share) * total / len(some) / mean)
    assert losses == pytest.approx(wanted, rel=2e-2)  # products of other shapes are rounded otherwise in bfloat16


@torch.no_grad()
def test_a_tagger_weighs_its_tokens_with_the_mean_1_over_all_of_them(encoder: Path) -> None:  # noqa: F811
    """What people decided has longer passages here than the rest."""
    trainer, batch = test_tagger.a_trainer(encoder, **SETTINGS), [0, 1, 5]
    wide = [test_tagger.an_example(each.item.key, f"{each.item.text} today and {each.item.text}") for each in TAGGED]
    mixed = [long if number % 3 == 0 else each for number, (long, each) in enumerate(zip(wide, TAGGED, strict=True))]
    examples = worked_on(mixed)
    base = trainer.base(None)
    [loss] = trainer.lesson(base, base.model, examples).losses(batch)
    read = [base.read([each.item]) for each in examples]
    tags = [base.tags(each.answer, own.offsets[0]) for each, own in zip(examples, read, strict=True)]
    tokens = [sum(tag != NO_TAG for tag in some) for some in tags]
    weights = [own_weight(each) for each in examples]
    mean = sum(weight * count for weight, count in zip(weights, tokens, strict=True)) / sum(tokens)
    total = 0.0
    for number in batch:
        said = base._logits(read[number])[0].log_softmax(dim=1)
        own = [row[tag].item() for row, tag in zip(said, tags[number], strict=True) if tag != NO_TAG]
        total -= weights[number] * sum(own)
    assert abs(mean / (sum(weights) / len(weights)) - 1) > 0.05
    assert loss.item() == pytest.approx(total / sum(tokens[number] for number in batch) / mean, rel=2e-2)


def test_settings_that_treat_all_alike_change_no_byte(model: Path, tmp_path: Path) -> None:  # noqa: F811
    trainer = a_trainer(model, epochs=2, gold_weight=3.0, repaired_weight=2.0)
    everyone = [replace(each, gold=True, repaired=frozenset()) for each in sums(8)]
    trainer.train(everyone, seed=1, folder=tmp_path / "gold", progress=Silent())
    a_trainer(model, epochs=2).train(sums(8), seed=1, folder=tmp_path / "plain", progress=Silent())
    one, other = weights(tmp_path / "gold"), weights(tmp_path / "plain")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_validates_has_no_say_in_the_scale_of_the_weights(model: Path, tmp_path: Path) -> None:  # noqa: F811
    examples = many(sums(10), 40)
    held = validating(examples, 0.5)
    for name, gold in (("one", False), ("other", True)):
        some = [replace(each, gold=gold if number in held else number % 3 == 0) for number, each in enumerate(examples)]
        trainer = a_trainer(model, epochs=1, validation_share=0.5, gold_weight=4.0)
        trainer.train(some, seed=1, folder=tmp_path / name, progress=Silent())
    one, other = weights(tmp_path / "one"), weights(tmp_path / "other")
    assert all(torch.equal(one[name], other[name]) for name in one)


REFUSED = [
    ({"kind": "encoder", "repaired_weight": 2.0}, "an encoder writes none: set 1"),
    ({"kind": "encoder", "targets": "rationale_then_answer"}, 'an encoder writes nothing: set "two_tasks"'),
    ({"targets": "rationale_then_answer", "rationale_weight": 1.0}, "set it between 0 and 1"),
    ({"targets": "rationale_then_answer", "answers_by": "answer"}, 'needs answers_by = "rationale"'),
    ({"repaired_weight": 2.0, "rationale_weight": 0.0}, "rationale_weight = 0 learns none"),
    ({"gold_weight": "validated"}, "set validation_share, e.g. to 0.1"),
    ({"gold_weight": 0.0}, 'gold_weight\n.*expected a number above 0, or "validated"'),
    ({"gold_weight": "often"}, 'gold_weight\n.*expected a number above 0, or "validated"'),
]


@pytest.mark.parametrize(("settings", "said"), REFUSED)
def test_what_a_student_cannot_do_is_refused_with_the_cure(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        StudentConfig.model_validate(settings)


def test_a_student_of_one_target_explains_and_answers_and_leaves_out_what_has_no_steps(
    model: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    told, examples = test_training.Told(), sums(8)
    trainer = a_trainer(model, targets="rationale_then_answer")
    silent = replace(sums(9)[8], steps=())
    card = trainer.train([*examples, silent], seed=1, folder=tmp_path / "one", progress=told).card
    assert (card["problems"], card["examples"]) == ({"empty": 1}, 8)
    found = trainer.student(tmp_path / "one").predict([each.item for each in examples])
    assert [each.answer for each in found] == [each.answer for each in examples]
    assert [each.explanation.steps for each in found] == [each.steps for each in examples]
