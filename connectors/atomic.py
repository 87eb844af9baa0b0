"""Files that are replaced whole or not at all: others may read them at any time, and a kill leaves the old one."""

from pathlib import Path


def write_text(path: Path, text: str, *, mode: int | None = None) -> None:
    """Write beside the file's name and rename; `mode` are the file's rights where they are not the usual ones.

    Raises:
        OSError: the disk is full, or the folder may not be written; the file is as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.touch(0o666 if mode is None else 0o600)
    if mode is not None:
        partial.chmod(mode)
    partial.write_text(text, encoding="utf-8", newline="")
    partial.replace(path)
