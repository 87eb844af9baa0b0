"""One fit of a model, whatever it is: batches, schedule, clipping, validation, progress, and the card of what was done.

Where some rows validate, their loss is taken after each epoch; training stops when it got no better for some epochs,
and ends with the weights of the epoch at which it was least.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version

import torch

from loop.config import StudentConfig
from loop.errors import Diverged, StudentError
from loop.ports import Bar, Example, Progress
from loop.student import checkpoint, ranks, sharding
from loop.student.state import Facts, TrainingState
from loop.student.validation import held

WARM_UP = 0.05
LONGEST_NORM = 1.0
GPU_RANDOM = "random/gpu"
"""What dropout is drawn from where the model is on a GPU, as it is kept."""
ALIKE = 16
"""Batches whose rows are sorted by length together."""


@dataclass(frozen=True)
class Beside:
    """What learns together with the model, at a rate of its own, and is left behind at the end."""

    model: torch.nn.Module
    learning_rate: float
    """Peak; the schedule is the model's."""


@dataclass(frozen=True)
class Lesson:
    """What is learned, and by what: one row an example."""

    examples: Sequence[Example]
    model: torch.nn.Module
    """Weights that need no gradient stay as they are."""
    losses: Callable[..., Iterator[torch.Tensor]]
    """(rows, batch): what the rows of some numbers add to the loss of a batch, which is these rows where none is named;
    task by task, and a task is looked at when its loss is asked for. Parts of a batch add up to its loss."""
    lengths: Sequence[int]
    """Of each row; those of like length share a batch."""
    figures: Mapping[str, object] = field(default_factory=dict)
    """What there is to say of it on the card."""
    beside: Beside | None = None


@dataclass
class Course:
    """How a training went so far."""

    losses: list[float] = field(default_factory=list)
    """Of each step."""
    validation: list[float] = field(default_factory=list)
    """Of each epoch, where some rows validate."""

    @property
    def best(self) -> int:
        """The epoch with the least validation loss, counted from 1; the first of several."""
        return 1 + min(range(len(self.validation)), key=self.validation.__getitem__)

    def stopped(self, patience: int) -> bool:
        """Whether the last epochs were no better than the best one, as many as one is patient."""
        return bool(self.validation) and len(self.validation) - self.best >= patience


def fit(
    lesson: Lesson, config: StudentConfig, *, seed: int, progress: Progress, state: TrainingState
) -> dict[str, object]:
    """Train the lesson's model; the figures of how it went, for the card.

    The seed decides the batches and their order. A training that was killed goes on from its state, and ends with the
    weights with which it would have ended.

    Raises:
        Diverged: the loss, a gradient or a weight is no number.
    """
    under_way = _Fit(lesson, config, seed)
    learned = len(lesson.examples) - len(under_way.held)
    if config.validation_share and not under_way.held:
        progress.say(f"  {learned} decided rationales are too few to spare some for validation; all are learned")
    if (kept := state.read()) is not None:
        under_way.go_on_from(*kept)
        progress.say(f"  the training that was cut off goes on at step {len(under_way.course.losses)}")
        del kept  # as large as the model and its optimiser
    try:
        with progress.bar(f"student learns from {learned} rationales", len(under_way.order)) as bar:
            under_way.run(bar, state)
    except StudentError:
        state.remove()  # it would lead there again
        raise
    return under_way.figures()


class _Fit:
    """A training under way."""

    def __init__(self, lesson: Lesson, config: StudentConfig, seed: int) -> None:
        self.lesson, self.config, self.seed = lesson, config, seed
        self.held = held(lesson.examples)
        learned = sorted(set(range(len(lesson.examples))).difference(self.held))
        lengths = [lesson.lengths[number] for number in learned]
        drawn = batches(lengths, config.batch_size, config.epochs, seed)
        self.order = [[learned[place] for place in batch] for batch in drawn]
        self.course = Course()
        self._per_epoch = math.ceil(len(learned) / config.batch_size)
        self._rate = _warm_up_and_decay(len(self.order))
        self._weights = _learning(lesson.model)
        self._best: dict[str, torch.Tensor] = {}
        groups = [{"params": list(self._weights.values()), "peak": config.learning_rate}]
        if lesson.beside is not None:
            more = {f"beside.{name}": each for name, each in _learning(lesson.beside.model).items()}
            groups.append({"params": list(more.values()), "peak": lesson.beside.learning_rate})
            self._weights |= more
        self._optimiser = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)

    def go_on_from(self, tensors: Mapping[str, torch.Tensor], facts: Facts) -> None:
        """Take up what was kept."""
        self.course = Course(**facts)
        for full_name, tensor in tensors.items():
            part, _, name = full_name.partition("/")
            if full_name == GPU_RANDOM:
                torch.cuda.set_rng_state(tensor)
            elif part == "random":
                torch.set_rng_state(tensor)
            else:
                weight = self._weights[name]
                self._take_up(part, name, sharding.laid_out(tensor, weight))

    def _take_up(self, part: str, name: str, tensor: torch.Tensor) -> None:
        """Take up what was kept of a weight."""
        if part == "weight":
            self._weights[name].data.copy_(tensor)
        elif part == "best":
            self._best[name] = tensor
        else:
            self._optimiser.state[self._weights[name]][part] = tensor

    def run(self, bar: Bar, state: TrainingState) -> None:
        """Take the steps that are left; the model ends with the weights of the best epoch."""
        self.lesson.model.train()
        done = len(self.course.losses)
        if done:
            bar.advance(done)
        for batch in self.order[done:]:
            if self.course.stopped(self.config.patience):
                break
            self._step(batch)
            if self.held and self._epoch_ended():
                self._validate()
            if state.due:
                state.write(self._kept(), asdict(self.course))
            bar.advance()
        for name, each in self._best.items():
            self._weights[name].data.copy_(each)
        self.lesson.model.train(False)
        self._examine()

    def figures(self) -> dict[str, object]:
        """Losses of both parts, the epoch that was taken and why no further one came."""
        course, size = self.course, self._per_epoch
        epochs = [course.losses[start : start + size] for start in range(0, len(course.losses), size)]
        since = len(course.validation) - course.best if self.held else 0
        stopped = course.stopped(self.config.patience)
        return {
            "loss_per_epoch": [round(sum(each) / len(each), 4) for each in epochs],
            "validation_loss_per_epoch": [round(each, 4) for each in course.validation],
            "validation_keys": [self.lesson.examples[number].item.key for number in self.held],
            "epoch": course.best if self.held else len(epochs),
            "stopped": f"no better for {since} epochs" if stopped else "all epochs are done",
        }

    def _step(self, batch: Sequence[int]) -> None:
        """Learn one batch, one task after the other."""
        for group in self._optimiser.param_groups:
            group["lr"] = group["peak"] * self._rate(len(self.course.losses))
        ranks.draw_apart(self.seed, len(self.course.losses))
        total = 0.0
        for loss in _own(self.lesson, batch):
            torch.autograd.backward(loss)
            total += loss.item()
        self.course.losses.append(_checked(ranks.added(total), batch, self.lesson))
        if not sharding.is_sharded(self.lesson.model):  # whose gradients come added up
            ranks.add_gradients(self._weights.values())
        for group in self._optimiser.param_groups:
            norm = torch.nn.utils.clip_grad_norm_(group["params"], LONGEST_NORM)
            _checked(sharding.together(norm).item(), batch, self.lesson, "gradient")
        self._optimiser.step()
        self._optimiser.zero_grad()

    def _examine(self) -> None:
        """See that the weights are numbers with which the last batch has a loss; no further step would tell."""
        last = self.order[len(self.course.losses) - 1]
        broken = sum(not sharding.local(each).isfinite().all() for each in self._weights.values())
        if ranks.added(broken):
            _checked(math.nan, last, self.lesson, "weight that was learned")
        if not self.held:
            mean_loss(self.lesson, last, len(last))

    def _epoch_ended(self) -> bool:
        done = len(self.course.losses)
        return done % self._per_epoch == 0 or done == len(self.order)

    def _validate(self) -> None:
        """Note the mean loss of the rows that validate, and keep the best weights."""
        self.lesson.model.train(False)
        self.course.validation.append(mean_loss(self.lesson, self.held, self.config.batch_size))
        self.lesson.model.train()
        if self.course.best == len(self.course.validation):
            self._best = {name: each.detach().clone() for name, each in self._weights.items()}

    def _kept(self) -> dict[str, torch.Tensor]:
        """Everything that decides how the training goes on, but for the course; whole in the process that writes it."""
        kept = {f"weight/{name}": each.detach() for name, each in self._weights.items()}
        kept |= {f"best/{name}": each for name, each in self._best.items()}
        for name, weight in self._weights.items():
            kept |= {f"{part}/{name}": each for part, each in self._optimiser.state[weight].items()}
        kept = sharding.gathered(kept)
        kept["random"] = torch.get_rng_state()
        return kept | ({GPU_RANDOM: torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def mean_loss(lesson: Lesson, numbers: Sequence[int], size: int) -> float:
    """The mean loss of some rows, in batches that never change; nothing is learned.

    Raises:
        Diverged: it is no number.
    """
    ordered = sorted(numbers, key=lambda number: lesson.lengths[number])
    total = 0.0
    with torch.no_grad():
        for batch in (ordered[start : start + size] for start in range(0, len(ordered), size)):
            loss = sum(each.item() for each in _own(lesson, batch))
            total += _checked(ranks.added(loss), batch, lesson) * len(batch)
    return total / len(ordered)


def _own(lesson: Lesson, batch: Sequence[int]) -> Iterator[torch.Tensor]:
    """What this process's rows add to the loss of a batch, pass by pass."""
    rows, counts = sharding.to_read(lesson.model, ranks.mine(batch), batch)
    for loss in lesson.losses(rows, batch) if rows else ():
        yield loss * counts


def batches(lengths: Sequence[int], size: int, epochs: float, seed: int) -> Iterator[list[int]]:
    """Numbers of the rows in each step: shuffled, rows of like length together, a pure function of the seed."""
    chance = torch.Generator().manual_seed(seed)
    steps = max(1, round(epochs * math.ceil(len(lengths) / size)))
    while steps:
        order = torch.randperm(len(lengths), generator=chance).tolist()
        pools = [order[start : start + ALIKE * size] for start in range(0, len(order), ALIKE * size)]
        sorted_pools = [sorted(pool, key=lambda number: lengths[number]) for pool in pools]
        found = [pool[start : start + size] for pool in sorted_pools for start in range(0, len(pool), size)]
        for place in torch.randperm(len(found), generator=chance).tolist()[:steps]:
            yield found[place]
        steps -= min(steps, len(found))


def card(examples: Sequence[Example], config: StudentConfig, model: torch.nn.Module, *, seed: int) -> dict[str, object]:
    """What a checkpoint says of itself: data, settings, versions."""
    weight = next(model.parameters())
    return {
        "examples": len(examples),
        "examples_sha256": _digest(examples),
        "base": config.model,
        "seed": seed,
        "settings": config.model_dump(mode="json"),
        "device": checkpoint.place(),
        "dtype": str(weight.dtype),
        "versions": {name: version(name) for name in ("preceptor", "torch", "transformers", "peft", "safetensors")},
        "threads": torch.get_num_threads(),
    }


def fingerprint(card: Mapping[str, object], models: Sequence[Sequence[object]]) -> str:
    """A hash of what a card says before a training began, and of the files of the models that take part.

    The same one ends with the same weights.
    """
    return hashlib.sha256(json.dumps([card, models], sort_keys=True).encode()).hexdigest()


def computes_bfloat16() -> bool:
    """Whether what trains here multiplies bfloat16 in hardware: the GPU, where there is one."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _checked(value: float, batch: Sequence[int], lesson: Lesson, what: str = "loss") -> float:
    """The loss, or what else came of a batch.

    Raises:
        Diverged: it is no number.
    """
    if not math.isfinite(value):
        keys = ", ".join(repr(lesson.examples[number].item.key) for number in batch)
        raise Diverged(
            f"the {what} is {value} on the batch of items {keys}; lower student.learning_rate, or look at these items "
            "with `preceptor history KEY`"
        )
    return value


def _learning(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The weights that learn, by name."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def _warm_up_and_decay(steps: int) -> Callable[[int], float]:
    """Factor of the learning rate at each step: linear up, then linear down."""
    warm_up = max(1, round(WARM_UP * steps))
    return lambda step: min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))


def _refused(example: Example) -> list[object]:
    """What was refused, where something was."""
    return [] if example.refused is None else [example.refused[0], example.refused[1].canonical]


def _digest(examples: Sequence[Example]) -> str:
    """A hash of everything that is trained on."""
    lines = [
        json.dumps(
            [
                *(each.item.key, each.item.text, each.steps, each.answer.canonical, each.weight, *_refused(each)),
                *(each.gold, each.risk, sorted(each.repaired)),
                *(["validates"] if each.validates else []),
            ]
        )
        for each in examples
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
