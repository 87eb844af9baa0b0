"""What endpoints were seen to support, and what replies say of it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlmodel import col, select

from loop.records import Charge, ChargeState, Judgement, Probe, Prompt, Rationale, Reply, Round
from loop.store.database import Store


def keep(store: Store, probe: Probe) -> Probe:
    """Store what was seen; the same row."""
    with store.writing() as session:
        session.add(probe)
    return probe


def newest(store: Store, endpoint: str, model: str) -> Probe | None:
    """What is known of a model behind an endpoint, if anything."""
    query = select(Probe).where(Probe.endpoint == endpoint, Probe.model == model).order_by(col(Probe.id).desc())
    with store.reading() as session:
        return session.exec(query).first()


def paid(store: Store, purpose: str) -> tuple[int, int]:
    """How many charges' purposes begin so, and what they came to in micro-dollars."""
    query = select(Charge.settled).where(col(Charge.purpose).startswith(purpose, autoescape=True))
    with store.reading() as session:
        settled = session.exec(query).all()
    return len(settled), sum(settled)


def paid_by_purpose(store: Store, start: str) -> dict[str, int]:
    """Micro-dollars by purpose, of the settled charges whose purposes begin so."""
    query = select(Charge.purpose, Charge.settled).where(
        col(Charge.purpose).startswith(start, autoescape=True), Charge.state == ChargeState.SETTLED
    )
    with store.reading() as session:
        return dict(session.exec(query).all())


def newest_replies(
    store: Store, run: str, noun: type[Reply] | type[Judgement], *, since: datetime | None, most: int
) -> list[tuple[str, Mapping[str, Any]]]:
    """The newest replies of the teacher or of the judge in a run, since then, that were not cut off.

    The text of each with the prompt that it answers.
    """
    query = select(noun.text, Prompt.body).join(Prompt, col(Prompt.hash) == noun.prompt_hash)
    if noun is Judgement:
        query = query.join(Rationale, col(Rationale.id) == Judgement.rationale_id)
        query = query.join(Round, col(Round.id) == Rationale.round_id)
    else:
        query = query.join(Round, col(Round.id) == Reply.round_id)
    query = query.where(Round.run == run, noun.finish_reason != "length")
    if since is not None:
        query = query.where(col(noun.created_at) > since)
    with store.reading() as session:
        return list(session.exec(query.order_by(col(noun.created_at).desc()).limit(most)).all())
