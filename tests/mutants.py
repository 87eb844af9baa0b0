"""Says what became of the changed copies of the code that mutmut made: `python -m tests.mutants [FOLDER]`.

Ends with 1 where more than a tenth of a module's changes passed every test.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

ALLOWED = 0.1
"""The share of a module's changes that no test may see."""
KILLED, TIMED_OUT = {1, 3}, {-24, 24, 36, 152, 255}
"""What mutmut writes down of a change that a test saw, or that never came to an end. All else counts as survived."""


def counts(folder: Path) -> dict[str, Counter[str]]:
    """By module, how many changes were made, killed, timed out and survived."""
    found = {}
    for file in sorted(folder.rglob("*.py.meta")):
        codes = json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"].values()
        if codes:
            found[str(file.relative_to(folder)).removesuffix(".meta")] = Counter(map(_fate, codes))
    return found


def _fate(code: int | None) -> str:
    if code is None:
        return "not tried"
    return "killed" if code in KILLED else "timeout" if code in TIMED_OUT else "survived"


def share(fates: Counter[str]) -> float:
    """The share that is not known to be seen."""
    return (fates["survived"] + fates["not tried"]) / fates.total()


def main(folder: Path, console: Console) -> int:
    """Print the table; the exit code."""
    found = counts(folder)
    table = Table("module", *(["mutants", *(columns := ("killed", "survived", "timeout", "not tried"))]), "% survived")
    for name, fates in [*found.items(), ("all", sum(found.values(), Counter()))]:
        table.add_row(name, str(fates.total()), *(str(fates[each]) for each in columns), f"{share(fates):.1%}")
    console.print(table)
    return int(not found or any(share(fates) > ALLOWED for fates in found.values()))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "mutants"), Console(width=120)))
