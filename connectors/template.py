"""Writes the commented config.toml of a new project from the settings' own explanations."""

import json
import textwrap
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from loop.config import Config
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

    Keys without a default, or whose default other keys decide, are commented out.
    """
    parts = ["# A Preceptor project. Every key is optional; the values below are the defaults.\n"]
    for name, field in Config.model_fields.items():
        table = field.annotation
        assert isinstance(table, type)
        assert issubclass(table, BaseModel)
        parts.append(f"\n# {table.__doc__}\n[{name}]\n")
        defaults = table()
        for key, setting in table.model_fields.items():
            parts += [f"# {line}\n" for line in textwrap.wrap(setting.description or "", 110)]
            value = getattr(defaults, key)
            unset = value in (None, {}, ()) or isinstance(value, BaseModel) or setting.default_factory is not None
            parts.append(f"# {key} =\n" if unset else f"{key} = {_toml(value)}\n")
    return "".join(parts)


def _toml(value: Any) -> str:
    """A default as TOML."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(each) for each in value)}]"
    return json.dumps(str(value))
