"""Fits what is asked to what endpoints were seen to support: what is missing is emulated, or refused with the cure."""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jsonschema import Draft202012Validator

from connectors.openai_teacher import endpoint_of
from connectors.wiring import Project
from loop.config import AskedConfig, Config, EndpointConfig, TeacherConfig
from loop.errors import BadConfig
from loop.records import Judgement, Probe, Reply
from loop.store import probes
from loop.store.database import now

NEWEST = 10
"""So many of the newest replies say whether schemas are held; more than half must not be for it to be denied."""
FEATURES = ("json_schema", "logprobs", "choices", "sampling", "seed", "batches")

Settings = TypeVar("Settings", bound=EndpointConfig)


def fitted(project: Project, say: Callable[[str], object] = lambda _: None) -> Config:
    """The config with which teacher and judge are asked; `say` is told what is not as in the file, and why.

    Where an endpoint does not hold schemas, replies are asked for in plain text, which is parsed in any case.

    Raises:
        BadConfig: several samples are wanted of a teacher whose samples are all equal.
    """
    config = project.config
    stronger = tuple(_fitted(project, each, say) for each in config.teacher.stronger)
    teacher = _fitted(project, config.teacher, say).model_copy(update={"stronger": stronger})
    judge = _fitted(project, config.judge, say) if config.judge.model else config.judge
    return config.model_copy(update={"teacher": teacher, "judge": judge})


def known(project: Project, settings: EndpointConfig) -> Probe | None:
    """What is known of an endpoint, put right by the newest replies of the run."""
    store, endpoint = project.store, endpoint_of(settings)
    row = probes.newest(store, endpoint, settings.model)
    if settings.recorded is not None or settings.format == "plain" or (row is not None and row.json_schema is False):
        return row
    noun = Reply if isinstance(settings, AskedConfig) else Judgement
    since = None if row is None else row.probed_at
    replies = probes.newest_replies(store, project.config.run.name, noun, since=since, most=NEWEST)
    asked = [(text, body) for text, body in replies if body["model"] == settings.model and body["settings"]["schema"]]
    broken = sum(not holds(text, body["settings"]["schema"]) for text, body in asked)
    if len(asked) < NEWEST or 2 * broken <= len(asked):
        return row
    kept = {} if row is None else {name: getattr(row, name) for name in FEATURES}
    said = {} if row is None else row.seen
    corrected = Probe(
        endpoint=endpoint,
        model=settings.model,
        source="replies",
        **(kept | {"json_schema": False}),
        seen=said | {"json_schema": f"{broken} of the newest {len(asked)} replies do not hold the schema"},
        probed_at=now(),
    )
    return probes.keep(store, corrected)


def holds(text: str, schema: Mapping[str, Any]) -> bool:
    """Whether a reply is JSON of the form that a schema asks for."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return bool(Draft202012Validator(schema).is_valid(value))


def _fitted(project: Project, settings: Settings, say: Callable[[str], object]) -> Settings:
    """The settings of one endpoint, as it can be asked."""
    row = known(project, settings)
    if row is None:
        return settings
    seen = f"{settings.model} at {row.endpoint} (seen {row.probed_at:%Y-%m-%d})"
    if row.sampling is False and isinstance(settings, TeacherConfig) and settings.samples > 1:
        raise BadConfig(
            f"{project.path}: teacher.samples = {settings.samples}, but all samples of {seen} are equal: set "
            "teacher.samples = 1, or have the server sample and call `preceptor doctor --probe` again"
        )
    if row.logprobs is False and isinstance(settings, AskedConfig) and settings.logprobs:
        say(f"   {settings.table}.logprobs = false: {seen} leaves them out")
        settings = settings.model_copy(update={"logprobs": False})
    if row.json_schema is False and settings.format == "json_schema":
        say(f'   {settings.table}.format = "plain": {seen} does not hold JSON schemas')
        return settings.model_copy(update={"format": "plain"})
    return settings
