"""Writes the commented config.toml of a new project from the settings' own explanations."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from loop.config import Config, Table
from loop.errors import BadConfig


def write_template(folder: Path) -> Path:
    """Write `config.toml` into the folder.

    Raises:
        BadConfig: there is one already, or the folder cannot be written.
    """
    path = folder / "config.toml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError as error:
        raise BadConfig(f"{path} is there already; nothing was changed") from error
    except OSError as error:
        raise BadConfig(f"{path}: cannot be written: {error}") from error
    return path


def template() -> str:
    """Every key with its explanation and default.

    Keys without a default, or whose default other keys decide, are commented out, and so are tables within tables.
    """
    parts = ["# A Preceptor project. Every key is optional; the values below are the defaults.\n"]
    for name, field in Config.model_fields.items():
        table = held(field)
        assert table is not None
        parts.append(f"\n# {table.__doc__}\n[{name}]\n")
        within = {key: setting for key, setting in table.model_fields.items() if held(setting)}
        for key, setting in table.model_fields.items():
            if key not in within:
                parts += _key(key, setting)
        for key, setting in within.items():
            parts += _inner(f"{name}.{key}", setting, table)
    return "".join(parts)


def held(setting: FieldInfo) -> type[Table] | None:
    """The table that a key holds, one or a list of them; None where it holds a value."""
    kinds = (setting.annotation, *get_args(setting.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Table)), None)


def is_list(setting: FieldInfo) -> bool:
    """Whether a key holds a list."""
    return get_origin(setting.annotation) is tuple


def own_keys(table: type[Table], outer: type[Table]) -> dict[str, FieldInfo]:
    """Those of a table within another that are not told of the outer one already."""
    return {key: each for key, each in table.model_fields.items() if key not in outer.model_fields or key == "model"}


def _key(key: str, setting: FieldInfo) -> list[str]:
    """A key below its explanation."""
    value = setting.get_default()
    line = f"# {key} =\n" if value in (None, {}, (), PydanticUndefined) else f"{key} = {_toml(value)}\n"
    return [*_wrapped(setting.description), line]


def _inner(name: str, setting: FieldInfo, outer: type[Table]) -> Iterator[str]:
    """A table within another, all of it commented out."""
    table = held(setting)
    assert table is not None
    yield from ("#\n", *_wrapped(setting.description), f"# [[{name}]]\n" if is_list(setting) else f"# [{name}]\n")
    for key, each in own_keys(table, outer).items():
        explained, line = _key(key, each)[:-1], _key(key, each)[-1]
        yield from (*explained, f"# {line.removeprefix('# ')}")


def _wrapped(text: str | None) -> list[str]:
    return [f"# {line}\n" for line in textwrap.wrap(text or "", 110)]


def _toml(value: Any) -> str:
    """A default as TOML."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(each) for each in value)}]"
    return json.dumps(str(value))
