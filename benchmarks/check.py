"""Re-runs every benchmark whose results are kept, in its quick form, and says what no longer holds.

A kept figure fails where its interval and that of the quick run do not meet, and a benchmark fails where the code that
it measures has changed since, or since some of its cells were measured. Figures that only the whole run gives are
counted. Run as `python -m benchmarks.check`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.kept import RESULTS, code_hash

Row = dict[str, Any]


def problems(kept: Row, quick: Row) -> list[str]:
    """What of the kept results does not hold in the quick run."""
    found, today = [], code_hash(kept["sources"])
    if kept["code"] != today:
        found.append("its code changed since; run it whole and keep the new results")
    if older := _older(kept.get("cells"), today):
        found.append(f"{older} of {len(kept['cells'])} cells are of older code; take them out and run it again")
    for name, figure in kept["figures"].items():
        now = quick["figures"].get(name)
        if now is not None and (now["low"] > figure["high"] or now["high"] < figure["low"]):
            found.append(
                f"{name}: kept {figure['value']} ({figure['low']} to {figure['high']}), "
                f"now {now['value']} ({now['low']} to {now['high']})"
            )
    return found


def _older(cells: Any, today: str) -> int:
    """How many cells say that they were measured with other code; benchmarks that run at once have no such cells."""
    if not isinstance(cells, list):
        return 0
    return sum(isinstance(cell, dict) and cell.get("code", today) != today for cell in cells)


def main() -> None:
    """Check all kept results; exit with 1 where one no longer holds."""
    failed = False
    files = sorted(RESULTS.glob("*.json"))
    for file in files:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / file.name
            subprocess.run([sys.executable, "-m", f"benchmarks.{file.stem}", "--quick", "--json", str(out)], check=True)
            kept, quick = (json.loads(each.read_text(encoding="utf-8")) for each in (file, out))
        found = problems(kept, quick)
        failed |= bool(found)
        again = len(kept["figures"].keys() & quick["figures"].keys())
        print(f"{file.stem}: {'; '.join(found) or 'holds'} ({again} of {len(kept['figures'])} figures measured again)")
    print(f"{len(files)} benchmarks checked")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
