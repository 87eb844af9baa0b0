"""LM-Polygraph's own samples and scores, timed: `divergence` runs this file in an environment of its own.

Reads {"model", "texts", "batch", "samples", "temperature", "top_p", "longest"} from the file that is named first, and
writes CPU seconds per generated token for each batch, and the threads, to the one named second.
"""

import json
import sys
import time
from pathlib import Path

import torch
from lm_polygraph.estimators import LexicalSimilarity
from lm_polygraph.stat_calculators import GreedyProbsCalculator, SamplingGenerationCalculator
from lm_polygraph.utils.generation_parameters import GenerationParameters
from lm_polygraph.utils.model import WhiteboxModel
from transformers import AutoModelForCausalLM, AutoTokenizer

asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
torch.set_num_threads(asked["threads"])
tokenizer = AutoTokenizer.from_pretrained(asked["model"], padding_side="left")
model = WhiteboxModel(
    AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.bfloat16),
    tokenizer,
    asked["model"],
    generation_parameters=GenerationParameters(
        temperature=asked["temperature"], top_p=asked["top_p"], top_k=50, do_sample=True, allow_newlines=True
    ),
)
greedy = GreedyProbsCalculator(output_attentions=False, output_hidden_states=False)
sampling = SamplingGenerationCalculator(samples_n=asked["samples"])
estimator = LexicalSimilarity("rougeL")


def seconds_per_token(texts: list[str]) -> float:
    """CPU seconds per generated token for one batch: greedy text, samples and their similarity."""
    started = time.process_time()
    stats = greedy({}, texts, model, max_new_tokens=asked["longest"])
    stats |= sampling(stats, texts, model, max_new_tokens=asked["longest"])
    estimator(stats)
    spent = time.process_time() - started
    written = [*stats["greedy_tokens"], *(tokens for some in stats["sample_tokens"] for tokens in some)]
    return spent / sum(len(tokens) + 1 for tokens in written)


seconds_per_token(asked["texts"][:1])
pieces = [asked["texts"][start : start + asked["batch"]] for start in range(0, len(asked["texts"]), asked["batch"])]
found = {"seconds": [seconds_per_token(piece) for piece in pieces], "threads": torch.get_num_threads()}
Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
