"""The locks hold the versions that `constraints.txt` chooses, each with its hashes."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock")


def pins(name: str) -> dict[str, str]:
    """Version by package."""
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    return {plain(package): version for package, version in found}


def hashes(name: str) -> dict[str, set[str]]:
    """The hashes of each package's files."""
    parts = re.split(r"^([\w.-]+)==", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {plain(package): set(re.findall(r"--hash=sha256:([0-9a-f]{64})", text)) for package, text in pairs(parts)}


def pairs(parts: list[str]) -> list[tuple[str, str]]:
    return list(zip(parts[::2], parts[1::2], strict=True))


def plain(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def test_everything_but_torch_is_locked_at_the_version_that_is_chosen() -> None:
    chosen = pins("constraints.txt")
    del chosen["torch"]
    assert pins("requirements-dev.lock") == chosen


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_has_a_hash(lock: str) -> None:
    assert len(hashes(lock)) > 100
    assert [package for package, known in hashes(lock).items() if not known] == []


def test_the_image_gets_nothing_that_the_other_lock_does_not_hold() -> None:
    whole = hashes("requirements-dev.lock")
    assert {
        package: known for package, known in hashes("requirements.lock").items() if whole.get(package) != known
    } == {}


def test_every_package_that_is_asked_for_has_a_chosen_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    names = {plain(match.group()) for each in asked if (match := re.match(r"[\w.-]+", each)) is not None}
    assert names - pins("constraints.txt").keys() == {"preceptor"}
