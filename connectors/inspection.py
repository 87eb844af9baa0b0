"""Looks at one thing without changing the campaign: a prompt, the reviews, a pilot."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from connectors.endpoints import fitted
from connectors.reviewers import review_figures, review_text
from connectors.wiring import Project
from loop.errors import BadConfig, PreceptorError, extra
from loop.interval import wilson
from loop.records import Split, Stage, VerdictKind
from loop.report import pseudonyms
from loop.stages.demonstrating import Demonstrating
from loop.stages.parts import id_of
from loop.store import items, rationales, reading, reviews, rounds
from loop.store.money import Purse
from loop.teacher.demonstrations import as_shown
from loop.teacher.judge_prompt import a_step_request
from loop.teacher.prompt import prompt_of, request_for, worst_case

if TYPE_CHECKING:
    from connectors.invitations import Invitation


def show_prompt(project: Project, key: str) -> dict[str, object]:
    """The exact request for one item and its worst-case price in dollars; nothing is sent.

    Raises:
        PreceptorError: there is no such pool item.
    """
    item = items.get(project.store, key)
    if item is None or item.split is not Split.POOL:
        raise PreceptorError(f"{key}: not a pool item; only pool items are shown to a teacher")
    config = fitted(project)
    demonstrating = Demonstrating(project.store, config.run.name, lambda: project.trainer().student(None), config)
    worked = demonstrating.shown(item)
    request = request_for(item, config.task, config.teacher, as_shown(worked), 0)
    with project.teacher() as teacher, project.judge() as judge:
        price = worst_case(request, teacher.price)
        judging = None if judge is None else worst_case(a_step_request(item, config.task, config.judge), judge.price)
    prompt = prompt_of(request)
    shown: dict[str, object] = {"prompt_hash": prompt.hash, "worst_case_usd": price / 1e6}
    if judging is not None:
        shown["judge_worst_case_usd_per_step"] = judging / 1e6
    shown["demonstrations"] = {
        "shown": [each.item.key for each in worked],
        "when_asked_again": [each.item.key for each in demonstrating.more(item)],
        "new_set_to_be_tried_first": demonstrating.to_be_tried,
    }
    if config.teacher.redact.on:
        shown["stays_here"] = dict(request.hidden)
    return shown | {"request": prompt.body}


def push_reviews(project: Project) -> str:
    """Put the round's open reviews on the board by hand; two at a time would put them there twice.

    Raises:
        AlreadyWorking: a run is at work, and does it itself.
    """
    current = rounds.current(project.store, project.config.run.name)
    if current is None or current.stage is not Stage.REVIEW:
        raise PreceptorError("no round is in review; `preceptor run` brings one there")
    with project.held():
        pending = reviews.pending(project.store, id_of(current))
        project.desk().push(pending)
    return f"{len(pending)} reviews stand at {project.desk().address()}"


def invite(project: Project, emails: Sequence[str], *, link_only: bool) -> list[str]:
    """Bring people into Label Studio; in lines, what to send to each.

    Raises:
        BadConfig: the reviews are not on Label Studio.
        BoardRefused: the server does not take an address.
    """
    if project.config.review.board != "label_studio":
        raise BadConfig('review.board = "fake" has no accounts; set it to "label_studio"')
    with extra("label-studio", "Label Studio"):
        from connectors.invitations import Invitations  # noqa: PLC0415 - seconds, and an extra

    url, token, _ = project.label_studio()
    invitations = Invitations(url, token)
    if link_only:
        lines = [f"send to {', '.join(emails)}: {invitations.link()} (whoever has the link can make an account)"]
    else:
        lines = [line for email in emails for line in _invited(project, invitations.invite(email.lower()), url)]
    if invitations.is_open():
        lines.append(
            "warning: anybody who reaches this server can make an account and see all; "
            "start it with LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK=true"
        )
    return lines


def _invited(project: Project, invitation: "Invitation", url: str) -> list[str]:
    """What to send to one person."""
    known = {each.name for each in project.config.review.reviewers}
    email, password = invitation.email, invitation.password
    slots = reviews.RunReviewBook(project.store, project.config.run.name).slots() or [0]
    boards = [project.board(slot) for slot in slots]
    work = [board.address_of(email) if email in known else board.address() for board in boards]
    had = f"{email} has an account already" if password is None else f"made an account for {email}"
    logs_in = "" if password is None else f", first password {password}"
    lines = [f"{had}; send to them:", f"  Log in at {url}/user/login/ as {email}{logs_in}."]
    lines += [f"  Your reviews: {address}" for address in work]
    if known and email not in known:
        lines.append(f'  (nothing is assigned to them; add {{name = "{email}"}} to review.reviewers)')
    return lines


def review_state(project: Project) -> str:
    """How many reviews of the newest round are open and done, whose they are, and how far to trust reviewers."""
    store, run = project.store, project.config.run.name
    current = rounds.current(store, run)
    if current is None:
        return "no round yet"
    total, waiting = len(reviews.tasks(store, id_of(current))), reviews.pending(store, id_of(current))
    lines = [f"round {current.number} ({current.stage}): {total - len(waiting)} of {total} reviewed"]
    owners = Counter(task.assignee for task, _, _ in waiting)
    if owners.keys() - {""}:
        lines += [f"  {name or 'nobody in particular'}: {count} open" for name, count in sorted(owners.items())]
    known = [f"{shown} is {name} on the board" for name, shown in pseudonyms(reading.reviewers_of(store, run)).items()]
    return "\n".join([*lines, *review_text(review_figures(store, run)), *known])


def forecast(project: Project) -> str:
    """What a pilot found, and what the budget reaches at that price."""
    store, run = project.store, project.config.run.name
    current = rounds.current(store, run)
    assert current is not None
    asked = [each for each in rationales.of_round(store, id_of(current)) if each.is_reply]
    ids = [each.id for each in asked if each.id is not None]
    verdicts = [each for rows in reviews.verdicts(store, ids).values() for each in rows if each.kind is not None]
    right = sum(each.kind is VerdictKind.ACCEPT for each in verdicts)
    flagged = sum(bool(rows) for rows in rationales.flags(store, ids).values())
    seconds = sum(each.seconds for each in verdicts) / len(verdicts) if verdicts else 0.0
    usd = next(each for key, each in Purse(store, run).balances().items() if key == "usd")
    each_costs = sum(reading.spent_by_query(store, run).values()) / 1e6 / max(1, len(asked))
    low, high = wilson(right, len(verdicts)) if verdicts else (0.0, 1.0)
    reach = int((usd.limit - usd.spent) / 1e6 / each_costs) if each_costs else 0
    simulated = " (simulated reviewer)" if any(each.simulated for each in verdicts) else ""
    return (
        f"pilot of {len(asked)} random items:\n"
        f"  rationales accepted as they were: {right} of {len(verdicts)} reviewed{simulated}"
        f" (95 % interval {low:.2f} to {high:.2f})\n"
        f"  flagged: {flagged} of {len(asked)}\n"
        f"  a review took {seconds:.0f} s on average\n"
        f"  a reply cost ${each_costs:.6f}; what is left of budget.usd reaches about {reach} more\n"
        f"  budget.minutes reaches about {int(project.config.budget.minutes * 60 / seconds) if seconds else 0} reviews"
    )
