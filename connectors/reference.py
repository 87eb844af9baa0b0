"""Writes the reference pages of settings and commands from the code: `python -m connectors.reference FOLDER`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

from connectors.cli import app
from connectors.template import held, is_list, own_keys
from loop.config import Config, Table

EVERYWHERE = ("config", "run", "help")
"""Options that are told once for all commands."""
MOST = {"maximum": "at most", "exclusiveMaximum": "below"}
LEAST = {"minimum": "at least", "exclusiveMinimum": "above"}


def settings_page() -> str:
    """Every table of the config file with its keys, from the settings' own explanations."""
    parts = [
        "# Settings\n\nWritten from `loop/config.py` by `make docs`. `preceptor init` writes a `config.toml` with all "
        "of them and their defaults. An unknown key or a wrong value is refused, with what was expected.\n"
    ]
    for name, field in Config.model_fields.items():
        parts += _table(f"[{name}]", held(field))
    return "\n".join(parts)


def commands_page() -> str:
    """Every command with its arguments and options, from the command line's own help."""
    lines = [
        "# Commands\n\nWritten from `connectors/cli.py` by `make docs`; `preceptor COMMAND --help` says the same.\n",
        "Nearly all commands take `--config PATH` (default: `config.toml`), and `--run NAME` where a database holds "
        "several runs.\n",
    ]
    for name, command in _leaves("preceptor", typer.main.get_command(app)):
        lines.append(f"## {name}\n\n```text\n{_usage(name, command)}\n```\n\n{command.help}\n")
        own = [each for each in command.params if each.name not in EVERYWHERE]
        if own:
            lines += ["| | default | what it is |", "|---|---|---|", *map(_parameter, own), ""]
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Write both pages into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.md").write_text(settings_page(), encoding="utf-8")
    (folder / "commands.md").write_text(commands_page(), encoding="utf-8")


def _table(title: str, model: type[Table] | None, outer: type[Table] | None = None) -> Iterator[str]:
    """A table's rows, and behind it the tables that it holds; keys that the outer one has are left out."""
    assert model is not None
    schema = model.model_json_schema()
    fields = model.model_fields if outer is None else own_keys(model, outer)
    yield f"## `{title}`\n\n{_cell(model.__doc__ or '')}\n"
    if len(fields) < len(model.model_fields):
        yield f"It has the keys of `[{title.strip('[]').rpartition('.')[0]}]` that are named there, and:\n"
    yield "| key | default | allowed | what it is |\n|---|---|---|---|"
    for name, field in fields.items():
        told = schema["properties"][name]
        allowed = _allowed(told, schema.get("$defs", {}))
        default = "needed" if field.is_required() else _default(told.get("default"))
        if field.default_factory is not None:
            default = "by others"
        yield f"| `{name}` | {default} | {allowed} | {_cell(field.description or '')} |"
    yield ""
    for name, field in fields.items():
        if row := held(field):
            own = f"[{title.strip('[]')}.{name}]"
            yield from _table(f"[{own}]" if is_list(field) else own, row, model)


def _allowed(told: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """What a key may be, in words."""
    if "$ref" in told:
        return _allowed(others[told["$ref"].rpartition("/")[2]], others)
    if "anyOf" in told:
        some = [_allowed(each, others) for each in told["anyOf"] if each.get("type") != "null"]
        return " or ".join(some) + ", or unset" * (len(some) < len(told["anyOf"]))
    if "const" in told:
        return f"`{told['const']}`"
    if "enum" in told:
        return ", ".join(f"`{each}`" for each in told["enum"])
    if told.get("type") == "array":
        row = _allowed(told["items"], others)
        return f"list of {row if row.startswith('`') else f'{row}s'}"
    kind = {
        "string": "path" if told.get("format") == "path" else "text",
        "boolean": "`true`, `false`",
        "integer": "whole number",
        "object": "table",
    }.get(told.get("type", ""), "number")
    bounds = [f"{word} {told[name]:g}" for name, word in (LEAST | MOST).items() if name in told]
    return ", ".join([kind, *bounds])


def _default(value: object) -> str:
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, list):
        return ", ".join(f"`{each}`" for each in value)
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """All commands with their whole names; groups have none of their own."""
    if not isinstance(command, TyperGroup):
        yield name, command
        return
    for word, each in command.commands.items():
        yield from _leaves(f"{name} {word}", each)


def _usage(name: str, command: Any) -> str:
    arguments = [_shown(each) for each in command.params if isinstance(each, TyperArgument)]
    return " ".join([name, "[OPTIONS]", *arguments])


def _parameter(parameter: Any) -> str:
    """An argument or option as a row."""
    text = _cell(parameter.help or "")
    if choices := _choices(parameter):
        text += f" One of {', '.join(f'`{each}`' for each in choices)}."
    if isinstance(parameter, TyperArgument):
        default = "needed" if parameter.required else f"`{parameter.default}`"
        return f"| `{_shown(parameter)}` | {default} | {text} |"
    assert isinstance(parameter, TyperOption)
    name = parameter.opts[0] if parameter.is_flag else f"{parameter.opts[0]} {_value(parameter)}"
    default = "needed" if parameter.required else _option_default(parameter)
    return f"| `{name}` | {default} | {text} |"


def _option_default(option: TyperOption) -> str:
    return "off" if option.is_flag else "none" if option.default in (None, (), "") else f"`{option.default}`"


def _shown(argument: TyperArgument) -> str:
    name = (argument.metavar or str(argument.name).upper()).removesuffix("...")
    return f"{name}..." if argument.nargs == -1 or argument.metavar else name


def _value(option: TyperOption) -> str:
    """What stands behind an option, in capitals."""
    if _choices(option):
        return str(option.name).upper()
    return {int: "N", float: "NUMBER", Path: "PATH"}.get(option.type_descriptor.annotation, "TEXT")


def _choices(parameter: Any) -> list[str]:
    """The words that a parameter may be, where there are only some."""
    return [each for each in get_args(parameter.type_descriptor.annotation) if isinstance(each, str)]


def _cell(text: str) -> str:
    """A text in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    typer.run(write)
