"""How a batch came about, in words, and what is wrong with the scores that it was chosen by."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loop.config import Config, QueryConfig
from loop.query import select
from loop.query.acquisition import ACQUISITIONS, HERDED, Candidates
from loop.records import Item, Query
from loop.stages.lagging import BY

SAME = 1e-9
"""Scores that differ by no more are alike."""
SILENT = 0.95
"""From this share of candidates without steps on, what is measured within explanations says nothing."""
NAMED = 5
"""So many domains are named."""
CURE = (
    "let the student learn more first (seed items, student.epochs), or set query.acquisition to typiclust or coreset, "
    "which go by embeddings"
)
Parts = Sequence[Mapping[str, Any]]


def composed(
    chosen: Sequence[Query], items: Sequence[Item], found: Candidates, past: select.Past, config: Config, *, seed: int
) -> str:
    """What each part of the batch was picked by. `items` are the candidates, of which `found` is known."""
    query = config.query
    own = [each.item_key for each in chosen if each.probability is None]
    said = [_picked(own, items, found, query, seed=seed)] if own else []
    if query.domain_share:
        said.append(_domains(own, items, past.shares, query))
    if len(own) < len(chosen):
        said.append(f"{len(chosen) - len(own)} at random (the control arm)")
    return "; ".join(said)


def _picked(own: Sequence[str], items: Sequence[Item], found: Candidates, query: QueryConfig, *, seed: int) -> str:
    """How those were picked that are not the control arm."""
    if query.acquisition not in HERDED:
        return f"{len(own)} picked"
    plain = select.best(items, found, query.model_copy(update={"diversity": 1}), seed=seed)
    price = " for their cost" if _are_priced(found) else ""
    if not select.is_herded(query):
        return f"{len(own)} picked by score{price}"
    short = min(len(items), query.diversity * query.batch_size)
    among = "" if short == len(items) else f" of the {short} with the highest scores{price}"
    within = len(own) if short > len(plain) else len({item.key for item in plain[:short]}.intersection(own))
    said = f"{within} picked{among} to cover what is doubted, "
    if within < len(own):
        why = "near-duplicates wait" + (" and domains have their places" if query.domain_share else "")
        said += f"and {len(own) - within} by score{price}, as {why}; "
    top = len({item.key for item in plain[: len(own)]}.intersection(own))
    counted = f"of which {top}" if within == len(own) else f"{top} of all {len(own)}"
    return f"{said}{counted} {'is' if top == 1 else 'are'} among the {len(own)} with the highest scores{price}"


def _are_priced(found: Candidates) -> bool:
    """Whether what the candidates cost has a say."""
    return bool(np.ptp(found.cost) > SAME)


def _domains(own: Sequence[str], items: Sequence[Item], shares: Mapping[str, float], query: QueryConfig) -> str:
    """How many of the picks went to which domain because the student lags there."""
    if not shares:
        return "no student has answered dev yet, so no domain is known to lag"
    domain, wanted = {item.key: item.domain for item in items}, set(own)
    got = Counter(domain[key] for key in wanted)
    ordered = sorted(shares, key=lambda name: (-shares[name], name))
    named = ", ".join(f"{name or 'no domain'} {got[name]} (share {shares[name]:.2f})" for name in ordered[:NAMED])
    more = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return f"{round(query.domain_share * len(own))} of them spread over domains {BY}, in all {named}{more}"


def is_measured(parts: Mapping[str, Any], query: QueryConfig) -> bool:
    """Whether what a score was made of is what the acquisition function looks at."""
    return ("intra" if "divergence" in ACQUISITIONS[query.acquisition][1] else "probabilities") in parts


def dead_signals(found: Candidates, scored: Parts, query: QueryConfig) -> list[str]:
    """What of the scores tells no candidates apart, what that means for the batch, and what helps."""
    if not ACQUISITIONS[query.acquisition][1] & {"divergence", "probabilities"} or len(found) < 2:
        return []
    by_steps = query.acquisition == "explanation_divergence"
    said, known = [], [each for each in scored if is_measured(each, query)]
    silent = sum(not each.get("steps") for each in known) if by_steps else 0
    if known and silent >= SILENT * len(known):
        said.append(
            f"the student wrote no steps for {silent} of {len(known)} candidates, so what is measured within "
            "explanations tells none apart: train it on rationales with steps, or longer (student.epochs), and look "
            "whether student.max_new_tokens cuts them off"
        )
    if not known:
        said.append(f"no candidate has a score that is a number, so the batch is as good as random: {CURE}")
    elif _alike([_row(each, query) for each in known]):
        said.append(f"all candidates have the same score, so the batch is {_instead(found, query)}: {CURE}")
    return said


def _row(known: Mapping[str, Any], query: QueryConfig) -> list[float]:
    """What the score of a candidate goes by; which answer is the likelier one matters to badge alone."""
    if query.acquisition == "explanation_divergence":
        return [known["intra"], known["inter"]]
    probabilities = list(known["probabilities"])
    return probabilities if query.acquisition == "badge" else sorted(probabilities, reverse=True)


def _alike(rows: Sequence[Sequence[float]]) -> bool:
    """Whether all are the same, filled up with zeros."""
    widest = max(map(len, rows))
    table: NDArray[np.float64] = np.array([[*row, *[0.0] * (widest - len(row))] for row in rows])
    return bool((np.ptp(table, axis=0) <= SAME).all())


def _instead(found: Candidates, query: QueryConfig) -> str:
    """What chose the batch where no score did: where nothing is doubted, there is nothing to cover or to weigh."""
    herded, signals = select.is_herded(query), ACQUISITIONS[query.acquisition][1]
    doubt = found.mean_divergence if "divergence" in signals else 1 - found.probabilities.max(axis=1, initial=0)
    if (herded or "probabilities" in signals) and not np.nan_to_num(doubt).any():
        return "as good as random"
    if herded:
        return f"chosen by coverage {'and price' if _are_priced(found) else 'alone'}"
    if "embeddings" in signals:
        return "chosen by embeddings alone"
    return "chosen by price alone" if _are_priced(found) else "as good as random"
