"""uqlm's black-box scorers that need no model from a hub: `flags` runs this file in an environment of its own.

Reads {"model", "asked": {teacher: [{"response", "samples"}]}} from the file that is named first, and writes
{teacher: {scorer: confidences}} to the one named second. The cosine scorer looks for its encoder by a relative name,
so this runs in a folder where that name leads to the model. Its scorers that read with an NLI model or BERTScore are
left out: their models are on a hub alone.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from uqlm.black_box.cosine import CosineScorer
from uqlm.black_box.match import MatchScorer

torch.set_num_threads(1)
asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
found: dict[str, dict[str, list[float]]] = {}
with tempfile.TemporaryDirectory() as folder:
    link = Path(folder) / "sentence-transformers" / "all-MiniLM-L6-v2"
    link.parent.mkdir()
    link.symlink_to(asked["model"])
    os.chdir(folder)
    scorers = {"exact match": MatchScorer(), "cosine": CosineScorer()}
    for teacher, rows in asked["asked"].items():
        said = ([row["response"] for row in rows], [row["samples"] for row in rows])
        found[teacher] = {
            name: list(map(float, scorer.evaluate(*said, progress_bar=False))) for name, scorer in scorers.items()
        }
    os.chdir("/")
Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
