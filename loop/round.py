"""One round, top to bottom: the only place that knows the order of the stages."""

import asyncio
import json
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loop import acceptance, evaluation, saving
from loop.answer import Answer
from loop.checks import neighbours
from loop.checks.flag import Doubtful, check_set, doubts
from loop.checks.learn import Judged, Learned, learn
from loop.checks.risk import RiskModel, evidence
from loop.config import Config
from loop.errors import BadConfig, PoolEmpty
from loop.ledger import to_micro
from loop.ports import Example, Progress, Reviewers, Silent, Student, Teacher, Trained, Trainer
from loop.query import racing, select
from loop.query.acquisition import ACQUISITIONS, Candidates
from loop.query.cost import relative_costs, review_chances
from loop.query.domains import gap, shares
from loop.query.sieve import sieve
from loop.records import (
    Arm,
    Author,
    Checkpoint,
    Decision,
    DecisionKind,
    Flag,
    Item,
    Part,
    Prediction,
    Query,
    Rationale,
    Risk,
    RiskFit,
    Round,
    Shadow,
    Split,
    Stage,
)
from loop.store import asking, checkpoints, decisions, items, rationales, reading, reviews, rounds, shadows
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.ask import ask
from loop.teacher.demonstrations import nearest
from loop.teacher.prompt import most_input_tokens, request_for

PIECE = 64
"""Rationales checked, or holdout items predicted, between two commits."""
SHOWN = 0.1
"""Weight below which a doubt counts, but is no flag that anybody is shown."""


@dataclass(frozen=True)
class Parts:
    """What stands behind the ports in this process. `folder` takes the checkpoints."""

    trainer: Trainer
    teacher: Teacher
    reviewers: Reviewers
    progress: Progress
    folder: Path


def advance(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    """Carry a round on until it closes or waits for people; call it again to go on.

    Long stages store each piece of their work as it is made; the last piece and the move to the next stage share a
    transaction. A round that was cut off does only what the store lacks.

    Raises:
        StageMoved: another process carried the round on meanwhile.
    """
    if current.stage is Stage.SELECT:
        current = _select(current, store, parts, config)

    if current.stage is Stage.ASK:
        current = _ask(current, store, parts, config)

    if current.stage is Stage.CHECK:
        current = _check(current, store, parts, config)

    if current.stage is Stage.REVIEW:
        if not _reviewed(current, store, parts, config):
            return current
        reviews.release_open(store, id_of(current))
        current = rounds.enter(store, current, Stage.ACCEPT)

    if current.stage is Stage.ACCEPT:
        current = _accept(current, store, config)

    if current.stage is Stage.TRAIN:
        current = _train(current, store, parts, config)

    if current.stage is Stage.EVALUATE:
        _compare_arms(current, store, parts, config)
        current = _evaluate(current, store, parts, config)

    return current


def open_next(store: Store, config: Config) -> tuple[Round, list[str]]:
    """Open the next round; also the settings that changed since the last one, as `table.key: old -> new`.

    Raises:
        BadConfig: task, split or seed changed in mid-campaign.
        PoolEmpty: no item may be asked any more.
    """
    if not items.eligible(store, config.run.name, config.query.max_asks):
        raise PoolEmpty("no pool item is left to ask; ingest more items or raise query.max_asks")
    body = config.model_dump(mode="json")
    last = rounds.current(store, config.run.name)
    changed = _permitted_changes(store, last, body) if last else []
    return rounds.open_round(store, config.run.name, body), changed


def resume(store: Store, current: Round, config: Config) -> tuple[Round, list[str]]:
    """Give a round that was cut off today's settings; also those that changed, as `table.key: old -> new`.

    What was drawn when the round began stays: its queries and audits.

    Raises:
        BadConfig: task, split or seed changed in mid-campaign.
    """
    past = rounds.config_of(store, current)
    body = config.model_dump(mode="json")
    body["query"] = past["query"]
    body["review"]["audit_share"] = past["review"]["audit_share"]
    changed = _permitted_changes(store, current, body)
    return (rounds.take_config(store, current, body) if changed else current), changed


def in_force(store: Store, run: str) -> Checkpoint | None:
    """The checkpoint that answers for the run, if it has trained one."""
    past = [each.student_id for each in rounds.all_rounds(store, run) if each.student_id is not None]
    return checkpoints.get(store, past[-1]) if past else None


def id_of(current: Round) -> int:
    """The id of a stored round."""
    assert current.id is not None
    return current.id


# --- SELECT ---------------------------------------------------------------------------------------------------------


def _select(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    pool = items.eligible(store, current.run, config.query.max_asks)
    seed = _seed(config, current.number)
    student = _trained_student(current, store, parts, config)
    said, arm = config.query.acquisition.replace("_", " "), "random"
    if student is None and config.query.acquisition != "random":
        query = config.query.model_copy(update={"acquisition": config.query.cold_start})
        config = config.model_copy(update={"query": query})
        said = "cold start: the student is untrained, so its explanations mean nothing; the batch is "
        said += "random" if query.acquisition == "random" else f"chosen by {query.acquisition}"
        arm = "cold start"
    elif student is not None and _selection_loses(store, current.run, config):
        config = config.model_copy(update={"query": config.query.model_copy(update={"acquisition": "random"})})
        said = f"random: selection did worse than the control arm in {config.evaluation.fallback_after} rounds in a row"
    if config.query.acquisition == "random":
        chosen = select.random_batch(id_of(current), pool, config, seed=seed, arm=arm)
    else:
        looker = student or parts.trainer.student(None)
        candidates = _candidates(pool, student, parts, config, seed)
        known = _known(current, candidates, looker, store, parts, config)
        wanted = select.best(candidates, known, config.query, seed=seed)
        lagging = _domain_shares(current, store) if config.query.domain_share else None
        chosen = select.compose(id_of(current), wanted, pool, config, seed=seed, shares=lagging)
        said += f" of {len(candidates)} candidates"
    parts.progress.say(f"round {current.number}: {said}; {len(chosen)} items picked")
    return rounds.enter(store, current, Stage.ASK, chosen, selection=said)


def _candidates(pool: Sequence[Item], student: Student | None, parts: Parts, config: Config, seed: int) -> list[Item]:
    """The items that are looked at: drawn at random, then sieved where that is wanted and the student is trained."""
    size = config.query.candidates * config.query.batch_size
    if student is None or config.query.sieve == 1:
        return select.candidates(pool, size=size, seed=seed)
    drawn = select.candidates(pool, size=size * config.query.sieve, seed=seed)
    pieces = select.chunks(drawn, PIECE)
    with parts.progress.bar("student sieves the pool", len(pieces)) as bar:

        def scored() -> Iterator[tuple[list[str], NDArray[np.float32]]]:
            for piece in pieces:
                yield [item.key for item in piece], student.doubt(piece)
                bar.advance()

        kept = set(sieve(scored(), size))
    return [item for item in drawn if item.key in kept]


def _selection_loses(store: Store, run: str, config: Config) -> bool:
    """Whether what was measured of selection says that random picks are better."""
    by_round = shadows.of_run(store, run)
    past = [each for each in rounds.all_rounds(store, run) if each.stage is Stage.CLOSED]
    measured = [saving.saving(by_round.get(each.number, ())) for each in past]
    return saving.loses(measured, config.evaluation.fallback_after)


def _trained_student(current: Round, store: Store, parts: Parts, config: Config) -> Student | None:
    """The student whose explanations are worth looking at: in force, or trained on the seed items."""
    incumbent = in_force(store, current.run)
    if incumbent is not None:
        return parts.trainer.student(parts.folder / incumbent.folder)
    parts.trainer.student(None)  # a model that cannot be loaded is found before the teacher is paid
    seeds = _seed_examples(store)
    if not seeds or config.query.acquisition == "random":
        return None
    parts.progress.say(f"round {current.number}: the student starts from {len(seeds)} seed items")
    trained = _train_into("seed", seeds, parts, _seed(config, 0))
    return parts.trainer.student(trained.folder)


def _known(
    current: Round, candidates: Sequence[Item], student: Student, store: Store, parts: Parts, config: Config
) -> Candidates:
    """What the acquisition function looks at: scores, which are stored, and embeddings, which are made when needed."""
    signals = ACQUISITIONS[config.query.acquisition][1]
    scores: dict[str, Mapping[str, object]] = {}
    if signals & {"divergence", "probabilities"}:
        _score(current, candidates, student, store, parts, config)
        scores = {score.item_key: score.parts for score in rounds.scores(store, id_of(current))}
    embedded = select.needs_embeddings(config.query)
    decided = decisions.decided(store, current.run) if embedded else []
    scored = [scores.get(item.key, {}) for item in candidates]
    return select.known(
        scored,
        student.embed(candidates if embedded else []),
        student.embed([item for item, _, _ in decided]),
        np.array([rationale.author is Author.TEACHER for _, rationale, _ in decided], dtype=np.float64),
        _costs(candidates, store, current.run, parts.teacher, config),
        config.query,
    )


def _costs(candidates: Sequence[Item], store: Store, run: str, teacher: Teacher, config: Config) -> NDArray[np.float64]:
    """What each candidate is expected to use up of both budgets, relative to their mean."""
    tokens = reading.mean_output_tokens(store, run) or config.teacher.max_completion_tokens
    requests = [request_for(item, config.task, config.teacher, (), 0) for item in candidates]
    usd = [
        teacher.price(request, input_tokens=most_input_tokens(request), output_tokens=round(tokens)) / 1e6
        for request in requests
    ]
    domain, risks = reading.domains(store), reading.risks_of(store, run)
    past = [
        (domain[each.item_key], risks[each.id] >= _review_threshold(config))
        for each in reading.rationales_of(store, run)
        if each.id in risks
    ]
    chances = review_chances(candidates, past, config.review.audit_share)
    return relative_costs(usd, [each * config.review.minutes_per_review for each in chances], config.budget)


def _domain_shares(current: Round, store: Store) -> dict[str, float]:
    """Which domains lag, from every past round's student on dev and from what became of the teacher's rationales."""
    domain = reading.domains(store)
    kept = {
        item.key for item, rationale, _ in decisions.decided(store, current.run) if rationale.author is Author.TEACHER
    }
    teacher: dict[str, list[bool]] = defaultdict(list)
    for key, decision in decisions.newest(store, current.run).items():
        if decision.kind is not DecisionKind.UNDECIDED:
            teacher[domain[key]].append(key not in kept)
    gaps = []
    for past in rounds.all_rounds(store, current.run):
        if past.student_id is not None:
            student: dict[str, list[bool]] = defaultdict(list)
            for row in checkpoints.predictions(store, past.student_id, Part.DEV):
                student[domain[row.item_key]].append(not row.correct)
            gaps.append({name: gap(wrong, teacher[name]) for name, wrong in student.items()})
    return shares(gaps)


def _score(
    current: Round, candidates: Sequence[Item], student: Student, store: Store, parts: Parts, config: Config
) -> None:
    """Score the candidates chunk by chunk; chunks that are stored already are left alone."""
    seed = _seed(config, current.number)
    raced = _is_raced(config)
    query = config.query.model_copy(update={"samples": 1}) if raced else config.query
    chunks = select.chunks(candidates, config.query.chunk_size)
    done = rounds.scored_chunks(store, id_of(current))
    with parts.progress.bar("student looks at the candidates", len(chunks)) as bar:
        for number, chunk in enumerate(chunks):
            if number not in done:
                scored = select.score_chunk(id_of(current), number, chunk, student, query, seed=seed)
                rounds.keep_scores(store, scored)
            bar.advance()
    if raced:
        _race(current, candidates, student, store, parts, config)


def _is_raced(config: Config) -> bool:
    """Whether samples are taken one by one; an encoder's are too cheap for that."""
    return (
        config.query.acquisition == "explanation_divergence"
        and config.query.racing_confidence < 1
        and config.student.kind == "causal"
    )


def _race(
    current: Round, candidates: Sequence[Item], student: Student, store: Store, parts: Parts, config: Config
) -> None:
    """Sample again and again where the first samples leave open whether an item belongs to the batch."""
    query, seed = config.query, _seed(config, current.number)
    ordered = {item.key: item for item in sorted(candidates, key=lambda item: item.key)}
    cost = _costs(list(ordered.values()), store, current.run, parts.teacher, config) ** query.cost_weight
    sampled = len(candidates)
    for taken in range(1, query.samples):
        rows = rounds.scores(store, id_of(current))
        still = racing.undecided([row.parts for row in rows], taken, cost, query)
        running = [row for row, wanted in zip(rows, still, strict=True) if wanted]
        sampled += len(running)
        with parts.progress.bar(f"student explains {len(running)} open candidates again", len(running)) as bar:
            for start in range(0, len(running), query.chunk_size):
                chunk = running[start : start + query.chunk_size]
                if len(chunk[0].parts["sampled_answers"]) == taken:  # else the chunk is stored already
                    rounds.keep_scores(store, select.race_chunk(chunk, ordered, student, query, seed=seed))
                bar.advance(len(chunk))
    rounds.keep_scores(store, select.after_race(rounds.scores(store, id_of(current)), query))
    share = sampled / max(1, len(candidates) * query.samples)
    parts.progress.say(f"  racing: {sampled} sampled explanations, {share:.0%} of all")


# --- ASK ------------------------------------------------------------------------------------------------------------


def _ask(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    Purse(store, current.run).close_dead_holds()
    decided = [
        (item, tuple(rationale.steps), rationale.parsed)
        for item, rationale, decision in decisions.decided(store, current.run)
        if decision.kind is DecisionKind.GOLD and rationale.parsed is not None
    ]

    def demonstrations(item: Item) -> Sequence[tuple[Item, tuple[str, ...], Answer]]:
        return nearest(item, decided, config.teacher.demonstrations)

    outcome = asyncio.run(
        ask(
            asking.missing(store, id_of(current), config.teacher.samples),
            parts.teacher,
            asking.RoundAskBook(store, current.run, id_of(current)),
            config.task,
            config.teacher,
            round_id=id_of(current),
            demonstrations=demonstrations,
            progress=parts.progress,
        )
    )
    if outcome.unreadable or outcome.gave_up:
        parts.progress.say(
            f"  {outcome.replies} replies can be read, {outcome.unreadable} cannot, {outcome.gave_up} requests were "
            "given up; `preceptor history KEY` says why"
        )
    if outcome.budget_spent:
        parts.progress.say("the dollar budget is spent: the round goes on with the replies it has")
    return rounds.enter(store, current, Stage.CHECK)


# --- CHECK ----------------------------------------------------------------------------------------------------------


def _check(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    looked_at = _Looking(current, store, parts, config)
    audited = {query.item_key for query in rounds.queries(store, id_of(current)) if query.audit}
    learned = _learned(current, store, looked_at, config)
    version, todo = check_set(config.checks), rationales.unchecked(store, id_of(current))
    with parts.progress.bar("rationales are checked", len(todo)) as bar:
        for start in range(0, len(todo), PIECE):
            piece = todo[start : start + PIECE]
            flags: list[Flag] = []
            risks: list[Risk] = []
            for case in looked_at(piece):
                number = case.rationale.id
                assert number is not None
                found = doubts(
                    learned.knows(case),
                    config.checks,
                    settled=None
                    if case.item.key in audited
                    else lambda some: learned.risk(evidence(some)) >= config.checks.settled_risk,
                )
                seen = evidence(found)
                risks.append(Risk(rationale_id=number, value=learned.risk(seen), check_set=version, evidence=seen))
                flags += [
                    Flag(
                        rationale_id=number,
                        check_name=doubt.check,
                        step=doubt.step,
                        evidence=doubt.evidence,
                        weight=doubt.weight,
                    )
                    for doubt in found
                    if doubt.weight >= SHOWN
                ]
            rationales.keep_checked(store, risks, flags)
            bar.advance(len(piece))
    return rounds.enter(store, current, Stage.REVIEW, review_opened_at=datetime.now(UTC))


class _Looking:
    """Puts together what checks compare a rationale with, from what the store and the student in force know."""

    def __init__(self, current: Round, store: Store, parts: Parts, config: Config) -> None:
        self._store, self._config = store, config
        self._scored = {score.item_key: score.parts for score in rounds.scores(store, id_of(current))}
        incumbent = in_force(store, current.run)
        self._student = None if incumbent is None else parts.trainer.student(parts.folder / incumbent.folder)
        self._embed = _embedder(parts) if config.student.kind == "encoder" else None
        self._contexts = rationales.by_context(store, current.run)
        gold = [
            (item, rationale.parsed)
            for item, rationale, decision in decisions.decided(store, current.run)
            if decision.kind is DecisionKind.GOLD and rationale.parsed is not None
        ]
        self._decided = neighbours.decided([item for item, _ in gold], [answer for _, answer in gold])

    def __call__(self, some: Sequence[Rationale]) -> list[Doubtful]:
        wanted = items.existing(self._store, [rationale.item_key for rationale in some])
        return [
            replace(self._case(wanted[rationale.item_key], rationale), beside=self._beside(wanted[rationale.item_key]))
            for rationale in some
        ]

    def _beside(self, item: Item) -> list[Doubtful]:
        """What the teacher said of other items with the same context."""
        shared = self._contexts.get(item.context, []) if item.context else []
        return [self._case(other, rationale) for other, rationale in shared if other.key != item.key]

    def _case(self, item: Item, rationale: Rationale) -> Doubtful:
        student = self._student
        parts = [rationale.steps[:end] for end in range(len(rationale.steps) + 1)]
        return Doubtful(
            item=item,
            rationale=rationale,
            task=self._config.task,
            siblings=tuple(rationales.siblings(self._store, rationale)),
            student=self._scored.get(item.key),
            after=(lambda: student.answers_after([item], [parts])[0])
            if student is not None and self._config.student.kind == "causal"
            else None,
            probabilities=cache(lambda: student.probabilities([item])[0]) if student is not None else None,
            embed=self._embed,
            decided=self._decided,
        )


def _embedder(parts: Parts) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Vectors of texts by the untrained student, whose meaning no round changes."""
    student = parts.trainer.student(None)
    return lambda texts: student.embed(
        [Item(key=str(at), question=text, split=Split.POOL, text_hash="") for at, text in enumerate(texts)]
    )


def _learned(current: Round, store: Store, looked_at: _Looking, config: Config) -> Learned:
    """What people said in earlier rounds teaches the round; its risk model is stored, and stays."""
    stored = rationales.risk_fit(store, id_of(current))
    until = datetime.now(UTC) if stored is None else stored.fitted_at
    past = rationales.judged(store, current.run, until)
    bodies = {each.id: rounds.config_of(store, each) for each in rounds.all_rounds(store, current.run)}
    judged = [
        Judged(
            case,
            each.risk.evidence,
            each.wrong,
            1 / _review_chance(each, bodies[each.query.round_id]["review"]["risk_threshold"]),
            steps=not each.wrong or bool(each.wrong_steps),
            first_error=min(each.wrong_steps, default=None),
        )
        for case, each in zip(looked_at([each.rationale for each in past]), past, strict=True)
    ]
    pool = looked_at([each for each in rationales.of_round(store, id_of(current)) if is_reply(each)])
    learned = learn(judged, pool, seed=_seed(config, current.number))
    if stored is None:
        stored = rationales.keep_risk_fit(
            store,
            RiskFit(
                round_id=id_of(current),
                base=learned.risk.base,
                weights=dict(learned.risk.weights),
                reviewed=learned.risk.reviewed,
                fitted_at=until,
            ),
        )
    return replace(learned, risk=RiskModel(stored.base, stored.weights, stored.reviewed))


def _review_chance(judged: rationales.Judged, threshold: float) -> float:
    """How likely a rationale was to be reviewed: for certain from the threshold on, else as an audit."""
    return 1.0 if judged.risk.value >= threshold else judged.query.audit_probability or 1.0


# --- REVIEW ---------------------------------------------------------------------------------------------------------


def _reviewed(current: Round, store: Store, parts: Parts, config: Config) -> bool:
    """Push what is to be reviewed, pull what was; whether the stage may close."""
    wanted = _wanted(current, store, config)
    minutes = to_micro(config.review.minutes_per_review)
    reviews.open_tasks(store, current.run, id_of(current), wanted, minutes)
    pending = reviews.pending(store, id_of(current))
    if pending:
        parts.reviewers.push(pending)
        parts.reviewers.pull()
    total = len(reviews.tasks(store, id_of(current)))
    waiting = len(reviews.pending(store, id_of(current)))
    assert current.review_opened_at is not None
    deadline = _aware(current.review_opened_at) + timedelta(hours=config.review.deadline_hours)
    return total - waiting >= math.ceil(config.review.quorum * total) or datetime.now(UTC) >= deadline


def _wanted(current: Round, store: Store, config: Config) -> list[tuple[Rationale, str, str]]:
    """Rationales for reviewers with reason and uid: audits first, then the riskiest."""
    audited = {query.item_key for query in rounds.queries(store, id_of(current)) if query.audit}
    asked = [each for each in rationales.of_round(store, id_of(current)) if is_reply(each)]
    risks = rationales.risks(store, [each.id for each in asked if each.id is not None])
    ranked = sorted(asked, key=lambda each: (each.item_key not in audited, -risks[each.id or 0], each.item_key))
    threshold = _review_threshold(config)
    return [
        (each, "audit" if each.item_key in audited else "risk", f"{current.run}/{current.number}/{each.item_key}")
        for each in ranked
        if each.item_key in audited or risks[each.id or 0] >= threshold
    ]


def _review_threshold(config: Config) -> float:
    """The risk from which on a rationale is reviewed."""
    return 0.0 if config.acceptance.require_certificate else config.review.risk_threshold


def is_reply(rationale: Rationale) -> bool:
    """Whether it is the teacher's rationale that is reviewed and trained on."""
    return rationale.author is Author.TEACHER and rationale.sample == 0


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# --- ACCEPT ---------------------------------------------------------------------------------------------------------


def _accept(current: Round, store: Store, config: Config) -> Round:
    asked = {each.item_key: each for each in rationales.of_round(store, id_of(current)) if is_reply(each)}
    tasks = {task.rationale_id: task for task in reviews.tasks(store, id_of(current))}
    ids = [each.id for each in asked.values() if each.id is not None]
    verdicts = reviews.verdicts(store, ids)
    risks = rationales.risks(store, ids)
    rows: list[Decision] = []
    for query in rounds.queries(store, id_of(current)):
        rationale = asked.get(query.item_key)
        number = -1 if rationale is None or rationale.id is None else rationale.id
        decided = acceptance.decide(
            query,
            rationale,
            tasks.get(number),
            verdicts.get(number, []),
            risks.get(number),
            config.acceptance,
        )
        if decided.corrected is not None and rationale is not None:
            steps, answer = decided.corrected
            rationale = rationales.keep_correction(store, rationale, steps=list(steps), answer=answer)
        rows.append(_decision(current, query, rationale, decided))
    decisions.keep(store, rows)
    return rounds.enter(store, current, Stage.TRAIN)


def _decision(current: Round, query: Query, rationale: Rationale | None, decided: acceptance.Decided) -> Decision:
    return Decision(
        run=current.run,
        item_key=query.item_key,
        round_id=id_of(current),
        rationale_id=None if rationale is None else rationale.id,
        kind=decided.kind,
        certified=decided.certified,
        reason=decided.reason,
        decided_at=datetime.now(UTC),
    )


# --- TRAIN, EVALUATE ------------------------------------------------------------------------------------------------


def _train(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    examples = [*_seed_examples(store), *_accepted(store, current.run).values()]
    if not examples:
        parts.progress.say("nothing was accepted yet: the student stays as it is")
        return rounds.enter(store, current, Stage.EVALUATE)
    trained = _train_into(f"round-{current.number}", examples, parts, _seed(config, current.number))
    kept = checkpoints.keep(
        store,
        Checkpoint(
            run=current.run,
            round_id=id_of(current),
            folder=trained.folder.name,
            examples=len(examples),
            card=json.loads(json.dumps(dict(trained.card), default=str)),
            created_at=datetime.now(UTC),
        ),
    )
    return rounds.enter(store, current, Stage.EVALUATE, candidate_id=kept.id)


def _seed_examples(store: Store) -> list[Example]:
    """The seed items with their steps."""
    return [
        Example(item=item, steps=tuple(item.steps), answer=item.gold)
        for item in items.of_split(store, Split.SEED)
        if item.gold is not None and item.steps
    ]


def _accepted(store: Store, run: str) -> dict[str, Example]:
    """The gold and silver rationales in force, by item key."""
    return {
        item.key: Example(item=item, steps=tuple(rationale.steps), answer=rationale.parsed)
        for item, rationale, _ in decisions.decided(store, run)
        if rationale.parsed is not None
    }


def _train_into(name: str, examples: Sequence[Example], parts: Parts, seed: int) -> Trained:
    """Train into a folder of that name; one left by a run that was cut off is made again."""
    folder = parts.folder / name
    if folder.exists():
        shutil.rmtree(folder)
    return parts.trainer.train(examples, seed=seed, folder=folder, progress=parts.progress)


def _evaluate(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    incumbent = in_force(store, current.run)
    if current.candidate_id is None:
        return rounds.enter(
            store,
            current,
            Stage.CLOSED,
            closed_at=datetime.now(UTC),
            student_id=None if incumbent is None else incumbent.id,
        )
    candidate = checkpoints.get(store, current.candidate_id)
    _predict(candidate, store, parts)
    student_id = candidate.id
    if incumbent is not None:
        old, new = (_on_dev(store, each) for each in (incumbent, candidate))
        common = sorted(old.keys() & new.keys())
        before, after = [old[key] for key in common], [new[key] for key in common]
        passed, interval = evaluation.passes_gate(before, after, config.evaluation.gate_level)
        if not passed:
            parts.progress.say(f"the new student is worse on dev (difference within {interval}): the old one stays")
            student_id = incumbent.id
    return rounds.enter(store, current, Stage.CLOSED, closed_at=datetime.now(UTC), student_id=student_id)


def _compare_arms(current: Round, store: Store, parts: Parts, config: Config) -> None:
    """Train students of the control arm and of selected items for the same dollars; those that are there stay."""
    dev = [item for item in items.of_split(store, Split.HOLDOUT) if item.part is Part.DEV]
    asked = _asked_by_arm(store, current.run)
    pairs = config.evaluation.saving_pairs if dev and asked[Arm.SELECTED] else 0
    if not pairs:
        return
    quiet = replace(parts, progress=Silent())
    seeds, done = _seed_examples(store), {(each.pair, each.arm) for each in shadows.of_round(store, id_of(current))}
    with parts.progress.bar("shadow students show what selection saves", pairs * len(Arm)) as bar:
        for pair in range(pairs):
            seed = _seed(config, current.number) * pairs + pair
            bought = saving.equal_spend(asked[Arm.CONTROL], asked[Arm.SELECTED], seed=seed)
            if not all(map(saving.enough, bought.values())):
                parts.progress.say(
                    f"  saving: fewer than {saving.FEWEST} accepted rationales to compare on either side"
                )
                return
            for arm, some in bought.items():
                if (pair, arm) not in done:
                    examples = [each.example for each in some if each.example is not None]
                    trained = _train_into("shadow", [*seeds, *examples], quiet, seed)
                    right = evaluation.grade(dev, parts.trainer.student(trained.folder).predict(dev))
                    shutil.rmtree(trained.folder)
                    shadow = Shadow(
                        round_id=id_of(current),
                        pair=pair,
                        arm=arm,
                        asked=len(some),
                        examples=len(examples),
                        micro_usd=sum(each.micro_usd for each in some),
                        correct={item.key: correct for item, correct in zip(dev, right, strict=True)},
                    )
                    shadows.keep(store, shadow)
                bar.advance()


def _asked_by_arm(store: Store, run: str) -> dict[Arm, list[saving.Asked]]:
    """What was asked so far, in its order: items of the control arm have a probability."""
    spent, accepted = reading.spent_by_query(store, run), _accepted(store, run)
    asked: dict[Arm, list[saving.Asked]] = {arm: [] for arm in Arm}
    for query in reading.queries_of(store, run):
        arm = Arm.SELECTED if query.probability is None else Arm.CONTROL
        paid = spent.get((query.round_id, query.item_key), 0)
        asked[arm].append(saving.Asked(paid, accepted.get(query.item_key)))
    return asked


def _predict(candidate: Checkpoint, store: Store, parts: Parts) -> None:
    """Answer the holdout piece by piece; pieces that are stored already are left alone."""
    assert candidate.id is not None
    done = {row.item_key for row in checkpoints.predictions(store, candidate.id)}
    todo = [item for item in items.of_split(store, Split.HOLDOUT) if item.key not in done]
    if not todo:
        return
    student = parts.trainer.student(parts.folder / candidate.folder)
    with parts.progress.bar("student answers the holdout", len(todo)) as bar:
        for start in range(0, len(todo), PIECE):
            piece = todo[start : start + PIECE]
            answers = student.predict(piece)
            graded = evaluation.grade(piece, answers)
            checkpoints.keep_predictions(
                store,
                [
                    Prediction(
                        checkpoint_id=candidate.id,
                        item_key=item.key,
                        part=item.part or Part.DEV,
                        answer=None if given.answer is None else given.answer.canonical,
                        correct=correct,
                    )
                    for item, given, correct in zip(piece, answers, graded, strict=True)
                ],
            )
            bar.advance(len(piece))


def _on_dev(store: Store, checkpoint: Checkpoint) -> dict[str, bool]:
    """Right or wrong on `dev`, by key."""
    assert checkpoint.id is not None
    return {row.item_key: row.correct for row in checkpoints.predictions(store, checkpoint.id, Part.DEV)}


# --- settings -------------------------------------------------------------------------------------------------------


def _seed(config: Config, number: int) -> int:
    """The seed of a round."""
    return config.run.seed * 100_003 + number


def _permitted_changes(store: Store, last: Round, body: Mapping[str, object]) -> list[str]:
    """Settings that differ from those of the last round."""
    changed = _changes(rounds.config_of(store, last), body)
    frozen = [line for line in changed if line.startswith(("task.", "pool.", "run.seed"))]
    if frozen:
        raise BadConfig(
            "task, split and seed cannot change within a run; change them back or start a new run.name:\n"
            + "\n".join(frozen)
        )
    return changed


def _changes(before: Mapping[str, object], after: Mapping[str, object], prefix: str = "") -> list[str]:
    """Settings that differ, as `table.key: old -> new`."""
    lines: list[str] = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += _changes(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {old} -> {new}")
    return lines
