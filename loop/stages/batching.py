"""The part of ASK that goes through the batch API of the teacher's endpoint."""

import asyncio

from loop.errors import TeacherRefused
from loop.ports import BatchBook
from loop.records import Round
from loop.stages.parts import Parts, id_of
from loop.store import asking, batches
from loop.store.database import Store
from loop.teacher.ask import Asking
from loop.teacher.batch import ask_in_batches


def ask_by_batches(current: Round, store: Store, parts: Parts, asked: Asking, book: BatchBook) -> None:
    """Store what comes of batches under way and, where the config says so, of new ones for what is missing.

    Raises:
        TeacherRefused: batches are asked for and the teacher's endpoint can have none.
    """
    if not asked.config.batch and not batches.are_open(store, id_of(current)):
        return
    if parts.batches is None:
        raise TeacherRefused("this teacher has no batch API; set teacher.batch = false")
    asyncio.run(
        ask_in_batches(
            lambda: asking.missing(store, id_of(current), 1),
            parts.batches,
            parts.teacher,
            book,
            asked,
            progress=parts.progress,
        )
    )
