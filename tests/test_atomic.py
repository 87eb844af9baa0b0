"""A file is replaced whole or not at all."""

import stat
from pathlib import Path

import pytest

from connectors import atomic


def test_the_text_is_written_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    atomic.write_text(file, "one\r\ntwo\n")
    assert file.read_bytes() == b"one\r\ntwo\n"
    assert [*tmp_path.iterdir()] == [file]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    atomic.write_text(file, "old")

    def full(*_: object, **__: object) -> int:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space"):
            atomic.write_text(file, "new")
    assert file.read_text() == "old"
    atomic.write_text(file, "new")
    assert file.read_text() == "new"


def test_private_files_are_never_readable_by_others(tmp_path: Path) -> None:
    file = tmp_path / "key"
    atomic.write_text(file, "secret", mode=0o600)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    atomic.write_text(file, "log", mode=0o640)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
