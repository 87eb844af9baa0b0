"""Builds campaigns in a store through the store's own functions."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from loop.answer import Answer, AnswerKind
from loop.config import Config, TeacherConfig
from loop.records import (
    Author,
    Checkpoint,
    Currency,
    Decision,
    DecisionKind,
    Flag,
    Item,
    Part,
    Prediction,
    Prompt,
    Query,
    Rationale,
    Reply,
    ReviewTask,
    Risk,
    Round,
    Score,
    Split,
    Stage,
    Verdict,
    VerdictKind,
)
from loop.store import checkpoints, decisions, items, rationales, reviews, rounds
from loop.store.asking import RoundAskBook
from loop.store.database import Store
from loop.store.money import Purse

RUN = "main"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def a_store(folder: Path) -> Store:
    """A store in a file, empty where there is none yet."""
    file = folder / "store.db"
    if not file.exists():
        file.write_bytes(_migrated())
    return Store(f"sqlite:///{file}")


@cache
def _migrated() -> bytes:
    """The file of an empty store. To go through all revisions takes longer than most tests."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "store.db"
        store = Store(f"sqlite:///{file}")
        store.migrate()
        store.close()
        return file.read_bytes()


def a_number(value: object) -> str:
    """A canonical number."""
    return Answer(kind=AnswerKind.NUMBER, value=str(value)).canonical


def an_item(key: str = "q1", split: Split = Split.POOL, **fields: object) -> Item:
    """An item; its text is made of its key unless a question is given."""
    question = str(fields.pop("question", f"What is {key}?"))
    hashed = hashlib.sha256(question.encode()).hexdigest()
    return Item(key=key, question=question, split=split, text_hash=hashed, **fields)


def a_holdout(n: int) -> list[Item]:
    """Holdout items, the first half of them `dev`; the gold answer is a number found nowhere else."""
    return [
        an_item(f"h{number}", Split.HOLDOUT, part=Part.DEV if number < n // 2 else Part.TEST, answer=a_number(987654))
        for number in range(n)
    ]


def a_round(store: Store, config: Config | None = None, run: str = RUN, budget: int = 1_000_000) -> Round:
    """A round that was just opened, with an open purse."""
    Purse(store, run).open(usd=budget, minutes=60_000_000)
    return rounds.open_round(store, run, (config or Config()).model_dump(mode="json"))


def id_of(opened: Round) -> int:
    """The id of a stored round."""
    assert opened.id is not None
    return opened.id


def queried(store: Store, opened: Round, keys: Sequence[str], audits: Sequence[str] = (), arm: str = "random") -> Round:
    """The round after these items were picked."""
    queries = [
        Query(
            round_id=id_of(opened), item_key=key, position=place, arm=arm, probability=0.5, audit=key in audits,
            audit_probability=0.1,
        )
        for place, key in enumerate(keys)
    ]  # fmt: skip
    scores = [
        Score(round_id=id_of(opened), item_key=key, chunk=0, score=0.75, parts={"intra": 0.5, "inter": 1.0})
        for key in keys
    ]
    rounds.keep_scores(store, scores)
    return rounds.enter(store, opened, Stage.ASK, queries, selection="random batch")


def a_reply(
    store: Store,
    opened: Round,
    key: str,
    *,
    steps: Sequence[str],
    answer: object,
    cost: int = 1000,
    stated: str | None = None,
) -> int:
    """A stored and paid reply with its rationale; the rationale's id."""
    book = RoundAskBook(store, opened.run, id_of(opened), TeacherConfig(model="panel"))
    charge = book.reserve(f"ask/{opened.id}/{key}/0/1", 2 * cost)
    asked = [{"role": "system", "content": "Explain."}, {"role": "user", "content": key}]
    prompt = Prompt(hash=hashlib.sha256(f"{opened.id}/{key}".encode()).hexdigest(), body={"messages": asked})
    reply = Reply(
        round_id=id_of(opened), item_key=key, prompt_hash=prompt.hash, teacher="panel", model="panel", text="raw reply",
        finish_reason="stop", input_tokens=100, output_tokens=20, created_at=NOON,
    )  # fmt: skip
    rationale = Rationale(
        item_key=key, round_id=id_of(opened), author=Author.TEACHER, steps=list(steps), answer=a_number(answer),
        stated=stated or str(answer),
    )  # fmt: skip
    book.keep(charge, cost, prompt, reply, rationale)
    return next(each.id or 0 for each in rationales.of_round(store, id_of(opened)) if each.item_key == key)


def checked(store: Store, rationale_id: int, risk: float, evidence: str | None = None) -> None:
    """What the checks found on a rationale."""
    flags = [Flag(rationale_id=rationale_id, check_name="arithmetic", step=0, evidence=evidence, weight=0.9)]
    risks = [Risk(rationale_id=rationale_id, value=risk, check_set="checks-1")]
    rationales.keep_checked(store, risks, flags if evidence else [])


def sent_to_review(store: Store, opened: Round, keys: Sequence[str]) -> list[ReviewTask]:
    """Review tasks for the replies to these items."""
    rows = {each.item_key: each for each in rationales.of_round(store, id_of(opened))}
    wanted = [reviews.Wanted(rows[key], "risk", f"{opened.run}/{opened.number}/{key}") for key in keys]
    return reviews.open_tasks(store, opened.run, id_of(opened), wanted, 1_500_000)


def a_verdict(
    store: Store,
    rationale_id: int,
    kind: VerdictKind,
    *,
    reviewer: str = "ann@example.org",
    simulated: bool = False,
    minute: int = 0,
    **fields: object,
) -> None:
    """A verdict of 30 seconds; given again for the same rationale in a later minute it is a newer version."""
    fields.setdefault("annotation", f"a{rationale_id}")
    verdict = Verdict(
        board="fake", project="1", updated_at=f"2026-01-01T12:{minute:02}:00.000001Z", rationale_id=rationale_id,
        reviewer=reviewer, kind=kind, seconds=30.0, simulated=simulated, raw={"completed_by": reviewer},
        pulled_at=NOON + timedelta(minutes=minute), **fields,
    )  # fmt: skip
    reviews.RunReviewBook(store, RUN).keep_verdict(verdict)


def decided(store: Store, opened: Round, key: str, kind: DecisionKind, rationale_id: int | None) -> None:
    """A decision about an item."""
    row = Decision(
        run=opened.run, item_key=key, round_id=id_of(opened), rationale_id=rationale_id, kind=kind,
        reason=f"because it is {kind}", decided_at=NOON,
    )  # fmt: skip
    decisions.keep(store, [row])


def trained(store: Store, opened: Round, *, examples: int, right: int) -> Round:
    """The closed round with a new student that answers that many items of each part right."""
    row = Checkpoint(
        run=opened.run, round_id=id_of(opened), folder=f"round-{opened.number}", examples=examples, created_at=NOON
    )
    number = checkpoints.keep(store, row).id
    assert number is not None
    for part in Part:
        held = items.of_split(store, Split.HOLDOUT, part)
        answers = [
            Prediction(checkpoint_id=number, item_key=item.key, part=part, correct=place < right)
            for place, item in enumerate(held)
        ]
        checkpoints.keep_predictions(store, answers)
    return rounds.enter(store, opened, Stage.CLOSED, candidate_id=number, student_id=number, closed_at=NOON)


def a_campaign(store: Store, *, simulated: bool = True) -> Round:
    """Two closed rounds: per round three items asked, of which one is silver, one corrected, and one rejected."""
    config = Config()
    items.add(store, [an_item(f"q{number}", domain="sums & <b>parts</b>") for number in range(8)])
    items.add(store, a_holdout(20))
    for number in range(2):
        keys = [f"q{3 * number + place}" for place in range(3)]
        opened = queried(store, a_round(store, config), keys, audits=keys[:1])
        ids = [a_reply(store, opened, key, steps=["1 + 1 = 2", "So it is 2."], answer=2) for key in keys]
        for rationale_id, risk in zip(ids, (0.1, 0.5, 0.9), strict=True):
            checked(store, rationale_id, risk, "1 + 1 = 3 <script>alert(1)</script>" if risk > 0.4 else None)
        sent_to_review(store, opened, keys[1:])
        a_verdict(store, ids[1], VerdictKind.EDIT, simulated=simulated)
        a_verdict(store, ids[2], VerdictKind.REJECT, simulated=simulated)
        original = next(each for each in rationales.of_round(store, id_of(opened)) if each.id == ids[1])
        value = Answer(kind=AnswerKind.NUMBER, value="3")
        corrected = rationales.keep_correction(store, original, steps=["1 + 2 = 3"], answer=value)
        decided(store, opened, keys[0], DecisionKind.SILVER, ids[0])
        decided(store, opened, keys[1], DecisionKind.GOLD, corrected.id)
        decided(store, opened, keys[2], DecisionKind.REJECTED, ids[2])
        closed = trained(store, opened, examples=2 * (number + 1), right=3 * (number + 1))
    return closed


def spent(store: Store, run: str = RUN) -> tuple[int, int]:
    """Micro-dollars and micro-minutes spent."""
    balances = Purse(store, run).balances()
    return balances[Currency.USD].spent, balances[Currency.MINUTES].spent


def decided_kinds(store: Store) -> dict[str, str]:
    """What became of each item, by the newest decision."""
    return {key: row.kind.value for key, row in decisions.newest(store, RUN).items()}
