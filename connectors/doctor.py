"""Checks everything a campaign needs and says the cure where something is missing."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from connectors import students, tracking
from connectors.measurements import duplicates_text, seed_duplicates_text
from connectors.plan import redacted, redacted_text
from connectors.wiring import Project
from loop.config import Config, EndpointConfig, ServedConfig, StrongerConfig, TeacherConfig, load
from loop.errors import PreceptorError
from loop.ports import Student, Teacher
from loop.records import Item, Probe, Split
from loop.stages.contamination import look
from loop.store import items, probes, rounds
from loop.store.money import Purse
from loop.store.server import described
from loop.teacher.judge_prompt import LONG_STEP, a_step_request
from loop.teacher.prompt import request_for, worst_case


@dataclass(frozen=True)
class Finding:
    """One part that was looked at."""

    part: str
    fine: bool
    text: str


def diagnose(path: Path, open_project: Callable[[], Project], *, probe: bool = False) -> list[Finding]:
    """Look at each part; later parts are left out where the config cannot be read.

    With `probe` teacher and judge are asked a few tiny things to see what they support.
    """
    config = _try("config", lambda: _config(path))
    if not config.fine:
        return [config]
    project = open_project()
    looks: dict[str, Callable[[], str]] = {
        "database": lambda: described(project.store),
        "items": lambda: _items(project),
        "duplicates": lambda: _duplicates(project),
        "student": lambda: _student(project),
        "teacher": lambda: _teacher(project),
        **({"judge": lambda: _judge(project)} if project.config.judge.model else {}),
        **({"redaction": lambda: _redaction(project)} if project.config.teacher.redact.on else {}),
        "reviewers": lambda: _reviewers(project),
        "budget": lambda: _budget(project),
        **({"cluster": lambda: _cluster(project)} if project.config.cluster.kind == "ray" else {}),
        **({"notify": lambda: _notify(project)} if project.config.notify.command else {}),
        **({"tracking": lambda: _tracking(project)} if project.config.tracking.to != "none" else {}),
    }
    found = [config, *(_try(part, look) for part, look in looks.items())]
    return found + _probed(project) if probe else found


def _try(part: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(part, True, look())
    except PreceptorError as error:
        return Finding(part, False, str(error))


def _duplicates(project: Project) -> str:
    """Which items read like holdout items."""
    query = project.config.query
    seeds, said = look(project.store, query, Split.SEED), duplicates_text(look(project.store, query), query)
    return f"{said}; {seed_duplicates_text(seeds, query)}" if seeds.pairs else said


def _cluster(project: Project) -> str:
    """Whether the cluster is there and its nodes are alike."""
    from connectors.cluster import described  # noqa: PLC0415 - an extra

    return described(project.config.cluster)


def _notify(project: Project) -> str:
    """Whether the command is there; it is not run."""
    program = project.config.notify.command[0]
    if shutil.which(project.home / program if "/" in program else program) is None:
        raise PreceptorError(f"notify.command: {program} is no program; name one, or leave the list empty")
    return f"{program} is run when people are needed"


def _config(path: Path) -> str:
    load(path)
    return f"{path} is right"


def _items(project: Project) -> str:
    counts = items.count(project.store)
    pool, holdout = counts.get(Split.POOL, 0), counts.get(Split.HOLDOUT, 0)
    if not pool:
        raise PreceptorError("the pool is empty; `preceptor ingest FILE` fills it")
    if not holdout:
        raise PreceptorError(
            f"{pool} pool items but no holdout; `preceptor ingest FILE --split holdout` or `preceptor holdout label N`"
        )
    return f"{pool} pool items, {holdout} holdout items"


def _student(project: Project) -> str:
    student = project.config.student
    loaded = project.trainer().student(None)
    project.examine_white_box()
    writes = "; OpenVINO writes its explanations" if student.engine == "openvino" else ""
    if student.served is not None and student.engine == "openai":
        writes = f"; {_served(loaded, student.served)}"
    box = student.white_box
    learns = "" if box is None else f"; it learns from the logits of {box.teacher} ({box.objective})"
    return f"{student.model} loads{writes}{learns}{_in_force(project)}"


def _in_force(project: Project) -> str:
    """That the newest student loads too, where there is one."""
    if not any(each.student_id for each in rounds.all_rounds(project.store, project.config.run.name)):
        return ""
    which = students.trained(project)
    students.loaded(project, which)
    return f"; so does {which.folder.name}, the student in force"


def _served(student: Student, settings: ServedConfig) -> str:
    """That the server runs the untrained student, and how much of a long prompt it found read the second time."""
    from loop.student.served import ServedDecoder  # noqa: PLC0415 - torch takes seconds to load

    assert isinstance(student, ServedDecoder)
    found = student.cached_share()
    said = "says nothing of a prefix cache" if found is None else f"found {found:.0%} of a prompt in its prefix cache"
    return f"{settings.base_url} answers as it does, and {said}"


def _tracking(project: Project) -> str:
    settings = project.config.tracking
    tracking.check(settings)
    return f"the figures of each round go to {settings.to}, {settings.url or project.folder}"


def _probed(project: Project) -> list[Finding]:
    """A line for each feature of teachers and judge, and one for what seeing them cost."""
    config = project.config
    Purse(project.store, config.run.name).open(project.usd_limit, project.minutes_limit)
    asked = [config.teacher, *config.teacher.stronger, *([config.judge] if config.judge.model else [])]
    return [line for settings in asked for line in _seen(settings, project)]


def _seen(settings: EndpointConfig, project: Project) -> list[Finding]:
    """What was seen of one endpoint, or why nothing was."""
    from connectors.openai_teacher import OpenAITeacher  # noqa: PLC0415 - loads the openai package
    from connectors.probe import probe  # noqa: PLC0415 - as above

    try:
        with project.endpoint(settings) as endpoint:
            assert isinstance(endpoint, OpenAITeacher)
            return _features(probe(endpoint, settings, project.store, project.config.run.name), settings, project)
    except PreceptorError as error:
        return [Finding(f"{_name(settings)} probe", False, str(error))]


def _name(settings: EndpointConfig) -> str:
    """The table in the config; stronger teachers are told apart by their model."""
    return f"{settings.table} {settings.model}" if isinstance(settings, StrongerConfig) else settings.table


def _features(row: Probe, settings: EndpointConfig, project: Project) -> list[Finding]:
    """What a probe saw, and what is done where something is missing."""
    teacher = settings if isinstance(settings, TeacherConfig) else None
    samples, batch = (1, False) if teacher is None else (teacher.samples, teacher.batch)
    needed = {"sampling": samples > 1, "batches": batch}
    missing = {
        "json_schema": 'replies are asked for in plain text (as with format = "plain") and parsed',
        "logprobs": "how sure it is can only be asked (teacher.confidence)",
        "choices": "nothing is lost: every sample is a request of its own",
        "sampling": f"set {settings.table}.samples = 1, or have the server sample"
        if samples > 1
        else "one is asked for",
        "seed": f"with {settings.table}.replies a campaign can be repeated all the same",
        "batches": f"set {settings.table}.batch = false" if batch else "nothing is lost: requests are sent one by one",
    }
    lines = []
    for name, cure in missing.items():
        has = getattr(row, name)
        mark = "unknown" if has is None else "yes" if has else "no"
        text = f"{mark}: {row.seen[name]}" + (f"; {cure}" if has is False else "")
        lines.append(Finding(f"{_name(settings)} {name}", not (has is False and needed.get(name)), text))
    requests, micro_usd = probes.paid(project.store, row.purpose)
    lines.append(Finding(f"{_name(settings)} probe", True, f"{requests} requests, ${micro_usd / 1e6:.6f}"))
    return lines


def _teacher(project: Project) -> str:
    config = project.config
    item = items.first(project.store, Split.POOL)
    if item is None:
        raise PreceptorError("no item to price a request for; ingest first")
    with project.teacher() as teacher:
        request = request_for(item, config.task, config.teacher, (), 0)
        price = worst_case(request, teacher.price)
    with project.stronger() as stronger:
        dearer = [
            _priced(endpoint, each, item, project)
            for endpoint, each in zip(stronger, config.teacher.stronger, strict=True)
        ]
    said = f"{config.teacher.model}: one request costs at most ${price / 1e6:.6f} (nothing was asked)"
    return "; ".join([said, *dearer])


def _redaction(project: Project) -> str:
    return redacted_text(redacted(items.stream(project.store, Split.POOL), project.config.teacher.redact))


def _priced(endpoint: Teacher, config: StrongerConfig, item: Item, project: Project) -> str:
    price = worst_case(request_for(item, project.config.task, config, (), 0), endpoint.price)
    return f"{config.model}: at most ${price / 1e6:.6f}"


def _judge(project: Project) -> str:
    config = project.config
    item = items.first(project.store, Split.POOL)
    if item is None:
        raise PreceptorError("no item to price a request for; ingest first")
    with project.judge() as judge:
        assert judge is not None
        price = worst_case(a_step_request(item, config.task, config.judge), judge.price)
    same = "; it is the teacher itself: a model of another family finds more" if _same(config) else ""
    priced = f"a first step of {LONG_STEP} characters costs at most ${price / 1e6:.6f} (nothing was asked)"
    return f"{config.judge.model}: {priced}{same}"


def _same(config: Config) -> bool:
    return (config.judge.model, config.judge.base_url) == (config.teacher.model, config.teacher.base_url)


def _reviewers(project: Project) -> str:
    board, review = project.board(), project.config.review
    address, names = board.address(), [each.name for each in review.reviewers]
    if review.board == "label_studio" and (unknown := [name for name in names if name not in board.people()]):
        raise PreceptorError(f"no account for {', '.join(unknown)}; `preceptor review invite {' '.join(unknown)}`")
    wanted = 1 + (review.second_share > 0 or review.audit_share * review.certify_share > 0)
    wanted += wanted == 2 and review.disagreements == "person"
    if names and len(names) < wanted:
        raise PreceptorError(
            f"review.reviewers names {len(names)}, but with second reviews (review.second_share, review.certify_share) "
            f"{wanted} people are needed; name more, or leave review.reviewers empty"
        )
    return f"reviewers work at {address}"


def _budget(project: Project) -> str:
    budget = project.config.budget
    if budget.usd <= 0:
        raise PreceptorError("budget.usd is 0: nothing can be asked; set it to what the campaign may cost")
    also = " and the judge" if project.config.judge.model else ""
    return f"${budget.usd:g} for the teacher{also}, {budget.minutes:.0f} minutes for reviewers"
