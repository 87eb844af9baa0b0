"""The reviews by hand: put open ones on the board, say how they stand, bring people in who make them."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from connectors.reviewers import review_figures, review_text
from connectors.wiring import Project
from loop.errors import BadConfig, PreceptorError, extra
from loop.records import Stage
from loop.report import pseudonyms
from loop.stages.parts import id_of
from loop.store import reading, reviews, rounds

if TYPE_CHECKING:
    from connectors.invitations import Invitation


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
    work = [board.address_of(email) if email in known else board.address() for board in project.open_boards()]
    had = f"{email} has an account already" if password is None else f"made an account for {email}"
    logs_in = "" if password is None else f", first password {password}"
    lines = [f"{had}; send to them:", f"  Log in at {url}/user/login/ as {email}{logs_in}."]
    lines += [f"  Your reviews: {address}" for address in work]
    if known and email not in known:
        lines.append(f'  (nothing is assigned to them; add {{name = "{email}"}} to review.reviewers)')
    return lines
