"""A process that reserves and closes charges of a round until it is killed; it imports little, so it starts fast."""

import random
import time
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier

from loop.errors import BudgetSpent
from loop.records import Prompt, Reply
from loop.store.asking import RoundAskBook
from loop.store.database import Store

RUN = "run"
PROMPT = "the prompt"


def a_reply(round_id: int, key: str, sample: int) -> Reply:
    return Reply(
        round_id=round_id, item_key=key, sample=sample, prompt_hash=PROMPT, model="m", text="t", finish_reason="stop",
        input_tokens=1, output_tokens=1, created_at=datetime.now(UTC),
    )  # fmt: skip


def spend(url: str, round_id: int, number: int, start: Barrier) -> None:
    """Work on the item of that number, with a hold open at every moment."""
    book, dice, key = RoundAskBook(Store(url), RUN, round_id), random.Random(number), f"q{number}"
    book.reserve(f"ask/{round_id}/{key}/first/0", 1, item_key=key)
    start.wait()
    for sample in range(10**9):
        try:
            charge = book.reserve(f"ask/{round_id}/{key}/{sample}/0", dice.randint(1, 50), item_key=key)
        except BudgetSpent:
            time.sleep(0.01)
            continue
        deed = dice.choice(["keep", "keep", "keep", "settle", "release", "assume"])
        if deed == "keep":
            book.keep(charge, 1, Prompt(hash=PROMPT, body={}), a_reply(round_id, key, sample), None)
        elif deed == "settle":
            book.settle(charge, 1)
        else:
            getattr(book, deed)(charge)
