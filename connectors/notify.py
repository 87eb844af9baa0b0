"""Runs a command of the user's when people are needed or money is low. It never stops a campaign."""

import json
import subprocess

from connectors.wiring import Project
from loop.events import happened
from loop.ledger import MICRO
from loop.records import Currency, Round, Stage
from loop.store import notices, reviews
from loop.store.money import Purse

REVIEWS, MONEY = "reviews_wait", "money_low"
LONGEST_SAID = 300
"""Characters of what a failing command said that are shown."""


def if_money_is_low(project: Project, current: Round) -> None:
    """Tell that few dollars are left, where the config says what few is."""
    below = project.config.notify.usd_below
    if below is None or not project.config.notify.command:
        return
    balance = Purse(project.store, current.run).balances()[Currency.USD]
    left, limit = (balance.limit - balance.spent - balance.reserved) / MICRO, balance.limit / MICRO
    if left < below:
        text = f"run {current.run}: ${left:.4f} of ${limit:g} are left; raise budget.usd where more is wanted"
        _tell(project, current, MONEY, {"text": text, "usd_left": left, "usd_limit": limit})


def if_reviews_wait(project: Project, current: Round, address: str) -> None:
    """Tell that a round waits for people, and where."""
    if current.stage is not Stage.REVIEW or not project.config.notify.command:
        return
    waiting = len(reviews.pending(project.store, current.id or 0))
    text = f"run {current.run}: round {current.number} waits for {waiting} reviews at {address}"
    _tell(project, current, REVIEWS, {"text": text, "open_reviews": waiting, "address": address})


def _tell(project: Project, current: Round, event: str, facts: dict[str, object]) -> None:
    """Run the command once for each event of a round, whatever comes of it; what goes wrong is said."""
    if not notices.take(project.store, current, event):
        return
    message = {"event": event, "run": current.run, "round": current.number, **facts}
    happened("people_told", notice=event)
    if (problem := _problem(project, json.dumps(message))) is not None:
        project.progress.say(f"  nobody was told ({message['text']}): notify.command {problem}")


def _problem(project: Project, message: str) -> str | None:
    """Why the command failed, if it did. It gets the message on standard input, and no shell sees it."""
    settings = project.config.notify
    try:
        done = subprocess.run(
            settings.command, input=message.encode(), capture_output=True, timeout=settings.timeout, check=False,
            cwd=project.home,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"took longer than notify.timeout = {settings.timeout:g} seconds"
    except OSError as error:
        return f"cannot be run: {error.strerror}: {settings.command[0]}"
    said = done.stderr.decode(errors="replace").strip()[:LONGEST_SAID]
    return f"ended with {done.returncode}" + (f": {said}" if said else "") if done.returncode else None
