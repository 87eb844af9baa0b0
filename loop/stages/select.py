"""SELECT: which items the round asks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loop import saving
from loop.config import Config
from loop.errors import NothingToLearn
from loop.events import warned
from loop.ports import Cluster, Student, Teacher
from loop.query import racing, select
from loop.query.acquisition import ACQUISITIONS, Candidates
from loop.query.control import first_keys
from loop.query.cost import relative_costs, review_chances
from loop.query.sieve import sieve
from loop.records import Checkpoint, Contamination, Item, Round, Score, Stage
from loop.stages.composing import composed, dead_signals, is_measured
from loop.stages.contamination import look
from loop.stages.lagging import domain_shares
from loop.stages.parts import OF_SEEDS, PIECE, Parts, id_of, in_force, seed_of, student_of
from loop.stages.review import review_threshold
from loop.stages.train import seed_examples, train_into
from loop.store import decisions, doubts, items, pool, reading, rounds, shadows
from loop.store.database import Store
from loop.teacher.prompt import most_input_tokens, request_for

BLOCK = 16 * PIECE
"""Items that the sieve looks at between two commits."""


def select_batch(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    """Choose the batch, and move on to ASK."""
    found, asked = _looked_at(store, current.run, config)
    _say_duplicates(found, config, parts)
    if not asked.count:
        return rounds.enter(store, current, Stage.ASK, selection="nothing is left to ask; reviews are made again")
    seed = seed_of(config, current.number)
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
        said += " (the whole interval of what it saves lay below zero)"
    if config.query.acquisition == "random":
        chosen = select.random_batch(id_of(current), asked, config, seed=seed, arm=arm)
    else:
        looker = student or parts.trainer.student(None)
        candidates = _candidates(current, asked, student, store, parts, config)
        known, scored = _known(current, candidates, looker, store, parts, config)
        wanted = select.best(candidates, known, config.query, seed=seed)
        past = _past(store, current.run, config)
        chosen = select.compose(id_of(current), wanted, asked, config, seed=seed, past=past)
        said += f" of {len(candidates)} candidates: {composed(chosen, candidates, known, past, config, seed=seed)}"
        dead = dead_signals(known, scored, config.query)
        said += "".join(f"; but {each}" for each in dead)
        if dead:
            warned("scores_say_nothing", count=len(candidates))
    parts.progress.say(f"round {current.number}: {said}; {len(chosen)} items picked")
    return rounds.enter(store, current, Stage.ASK, chosen, selection=said)


def _looked_at(store: Store, run: str, config: Config) -> tuple[Contamination, select.Pool]:
    """What may be asked, with the look at just these items: what comes meanwhile waits for the next round."""
    found = look(store, config.query)

    def keys() -> Iterator[str]:
        return pool.keys(store, run, config, through=found.through)

    first = first_keys(keys(), config.query.batch_size, config.run.seed)
    return found, select.Pool(pool.count(store, run, config, through=found.through), _loaded(first, store), keys)


def _say_duplicates(found: Contamination, config: Config, parts: Parts) -> None:
    """Tell how many pool items read like holdout items, and what becomes of them."""
    if found.pairs:
        asked = "asked all the same" if config.query.allow_holdout_duplicates else "not asked"
        parts.progress.say(f"  {len(found.pairs)} pool items read like holdout items and are {asked}")


def _candidates(
    current: Round, asked: select.Pool, student: Student | None, store: Store, parts: Parts, config: Config
) -> list[Item]:
    """The items that are looked at: drawn at random, then sieved where that is wanted and the student is trained.

    The sieve goes by the student's doubt, which depends on nothing but the student and the item: it is stored, and a
    student that stays in force, or a round that was cut off, is asked about new items alone. What acquisition functions
    look at (explanations, distances to what is decided by today's embeddings) is made for the few that pass.
    """
    size, seed = config.query.candidates * config.query.batch_size, seed_of(config, current.number)
    if student is None or config.query.sieve == 1:
        return _loaded(select.candidates(asked.keys(), asked.count, size=size, seed=seed), store)
    drawn = tuple(select.candidates(asked.keys(), asked.count, size=size * config.query.sieve, seed=seed))
    blocks = [drawn[start : start + BLOCK] for start in range(0, len(drawn), BLOCK)]
    incumbent = in_force(store, current.run)
    if incumbent is not None:
        doubts.drop_older(store, current.run, incumbent.id or 0)
    with parts.progress.bar("student sieves the pool", len(blocks)) as bar:

        def scored() -> Iterator[tuple[list[str], NDArray[np.float64]]]:
            for block in blocks:
                there, values = _doubts(block, student, incumbent, store, parts.cluster)
                yield there, values
                bar.advance()

        return _loaded(sorted(sieve(scored(), size, seed=seed)), store)


def _doubts(
    keys: Sequence[str], student: Student, incumbent: Checkpoint | None, store: Store, cluster: Cluster
) -> tuple[list[str], NDArray[np.float64]]:
    """How unsure the student is of each of these items that is still there; a checkpoint's doubts are kept."""
    known = {} if incumbent is None else doubts.of_items(store, incumbent.id or 0, keys)
    todo = _loaded([key for key in keys if key not in known], store)
    pieces = [todo[start : start + PIECE] for start in range(0, len(todo), PIECE)]
    new: dict[str, float] = {}
    for number, values in cluster.map(student, _doubt, pieces):
        new |= zip([item.key for item in pieces[number]], values.astype(np.float64).tolist(), strict=True)
    if incumbent is not None:
        doubts.keep(store, incumbent.id or 0, {key: value for key, value in new.items() if np.isfinite(value)})
    found = known | new
    there = [key for key in keys if key in found]
    return there, np.array([found[key] for key in there])


def _loaded(keys: Iterable[str], store: Store) -> list[Item]:
    """The items of these keys in their order, but for those that are gone meanwhile."""
    wanted = list(keys)
    there = items.existing(store, wanted)
    return [there[key] for key in wanted if key in there]


def _doubt(student: Student, piece: Sequence[Item]) -> NDArray[np.float32]:
    return student.doubt(piece)


def _past(store: Store, run: str, config: Config) -> select.Past:
    """What earlier rounds say to the batch."""
    keys = [query.item_key for query in reading.queries_of(store, run)]
    asked = items.existing(store, keys)
    shares = domain_shares(store, run) if config.query.domain_share else {}
    return select.Past([asked[key] for key in keys], shares)


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
        return student_of(incumbent, parts)
    parts.trainer.student(None)  # a model that cannot be loaded is found before the teacher is paid
    seeds = seed_examples(store, config.query)
    explained = config.student.kind == "encoder" or any(each.steps for each in seeds)
    if not seeds or not explained or config.query.acquisition == "random":
        return None
    parts.progress.say(f"round {current.number}: the student starts from {len(seeds)} seed items")
    try:
        trained = train_into(parts.folder / OF_SEEDS, seeds, parts.trainer, seed_of(config, 0), parts.progress)
    except NothingToLearn as error:
        parts.progress.say(f"  {error}")
        return None
    return parts.trainer.student(trained.folder)


def _scored(
    current: Round, candidates: Sequence[Item], student: Student, store: Store, parts: Parts, config: Config
) -> list[Mapping[str, Any]]:
    """What the score of each candidate was made of, as it is stored; nothing where nothing is known of it."""
    if not ACQUISITIONS[config.query.acquisition][1] & {"divergence", "probabilities"}:
        return [{}] * len(candidates)
    _score(current, candidates, student, store, parts, config)
    scores = {score.item_key: score.parts for score in rounds.scores(store, id_of(current))}
    return [scores.get(item.key, {}) for item in candidates]


def _known(
    current: Round, candidates: Sequence[Item], student: Student, store: Store, parts: Parts, config: Config
) -> tuple[Candidates, list[Mapping[str, Any]]]:
    """What the acquisition function looks at: scores, which are stored, and embeddings, which are made when needed.

    Also what the scores were made of.

    To cover what is doubted, the untrained student embeds: one that learned from few items has drawn together what it
    confuses.
    """
    scored = _scored(current, candidates, student, store, parts, config)
    herded = select.is_herded(config.query)
    embedded = herded or "embeddings" in ACQUISITIONS[config.query.acquisition][1]
    decided = decisions.decided(store, current.run) if embedded else []
    embedder = parts.trainer.student(None) if herded else student
    found = select.known(
        scored,
        embedder.embed(candidates if embedded else []),
        embedder.embed([item for item, _, _ in decided]),
        np.array([rationale.is_reply for _, rationale, _ in decided], dtype=np.float64),
        np.array([*_costs(candidates, store, current.run, parts.teacher, config).values()]),
        config.query,
    )
    return found, scored


def _costs(candidates: Sequence[Item], store: Store, run: str, teacher: Teacher, config: Config) -> dict[str, float]:
    """What each candidate is expected to use up of both budgets, relative to their mean, by key in their order."""
    tokens = reading.mean_output_tokens(store, run) or config.teacher.max_completion_tokens
    requests = [request_for(item, config.task, config.teacher, (), 0) for item in candidates]
    usd = [
        teacher.price(request, input_tokens=most_input_tokens(request), output_tokens=round(tokens)) / 1e6
        for request in requests
    ]
    domain, risks = reading.domains(store), reading.risks_of(store, run)
    past = [
        (domain[each.item_key], risks[each.id] >= review_threshold(config, None))
        for each in reading.rationales_of(store, run)
        if each.id in risks
    ]
    chances = review_chances(candidates, past, config.review.audit_share)
    minutes = [each * config.review.minutes_per_review for each in chances]
    costs = relative_costs(usd, minutes, config.budget)
    return {item.key: float(cost) for item, cost in zip(candidates, costs, strict=True)}


def _score(
    current: Round, candidates: Sequence[Item], student: Student, store: Store, parts: Parts, config: Config
) -> None:
    """Score the candidates chunk by chunk; what is stored already is left alone, whatever the pool was then.

    But for what another acquisition function stored, before the settings were changed: that is scored anew.
    """
    seed = seed_of(config, current.number)
    raced = _is_raced(config)
    query = config.query.model_copy(update={"samples": 1}) if raced else config.query
    round_id, chunks = id_of(current), select.chunks(candidates, config.query.chunk_size)
    stored = rounds.scores(store, round_id)
    done = {row.item_key for row in stored if not row.parts or is_measured(row.parts, config.query)}
    missing = [(number, [item for item in chunk if item.key not in done]) for number, chunk in enumerate(chunks)]
    todo = [(number, chunk) for number, chunk in missing if chunk]

    def scored(student: Student, piece: tuple[int, Sequence[Item]]) -> list[Score]:
        number, chunk = piece
        return select.score_chunk(round_id, number, chunk, student, query, seed=seed)

    with parts.progress.bar("student looks at the candidates", len(chunks)) as bar:
        bar.advance(len(chunks) - len(todo))
        for _, scores in parts.cluster.map(student, scored, todo):
            rounds.keep_scores(store, scores)
            bar.advance()
    if raced:
        _race(current, candidates, student, store, parts, config)


def _is_raced(config: Config) -> bool:
    """Whether samples are taken one by one; an encoder's are too cheap for that."""
    return (
        config.query.acquisition == "explanation_divergence"
        and config.query.racing_confidence < 1
        and config.student.kind != "encoder"
    )


def _race(
    current: Round, candidates: Sequence[Item], student: Student, store: Store, parts: Parts, config: Config
) -> None:
    """Sample again and again where the first samples leave open whether an item belongs to the batch."""
    query, seed = config.query, seed_of(config, current.number)
    by_key = {item.key: item for item in candidates}
    cost = _costs(candidates, store, current.run, parts.teacher, config)
    sampled = len(candidates)

    def sampled_again(student: Student, piece: tuple[Sequence[Score], Mapping[str, Item]]) -> list[Score]:
        rows, items = piece
        return select.race_chunk(rows, items, student, query, seed=seed)

    def known() -> list[Score]:
        """Rows of today's candidates of which something is known, as they are stored now."""
        return [row for row in rounds.scores(store, id_of(current)) if row.item_key in by_key and row.parts]

    for taken in range(1, query.samples):
        rows = known()
        costs = np.array([cost[row.item_key] for row in rows]) ** query.cost_weight
        still = racing.undecided([row.parts for row in rows], taken, costs, query)
        running = [row for row, wanted in zip(rows, still, strict=True) if wanted]
        if not running:
            break
        sampled += len(running)
        chunks = [running[start : start + query.chunk_size] for start in range(0, len(running), query.chunk_size)]
        missing = [[row for row in chunk if len(row.parts["sampled_answers"]) == taken] for chunk in chunks]
        todo = [(chunk, {row.item_key: by_key[row.item_key] for row in chunk}) for chunk in missing if chunk]
        with parts.progress.bar(f"student explains {len(running)} open candidates again", len(running)) as bar:
            bar.advance(len(running) - sum(map(len, missing)))  # those are stored already
            for _, scores in parts.cluster.map(student, sampled_again, todo):
                rounds.keep_scores(store, scores)
                bar.advance(len(scores))
    rounds.keep_scores(store, select.after_race(known(), query))
    share = sampled / max(1, len(candidates) * query.samples)
    parts.progress.say(f"  racing: {sampled} sampled explanations, {share:.0%} of all")
