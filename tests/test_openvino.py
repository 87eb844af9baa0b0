"""OpenVINO writes what torch would: the same greedy texts, samples of the same distribution, adapters and all."""

import gzip
import json
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chi2_contingency

from connectors.doctor import diagnose
from connectors.wiring import Project, cache_folder
from loop.answer import Answer, AnswerKind
from loop.config import StudentConfig
from loop.errors import StudentError
from loop.ports import Example, Explanation
from loop.records import Item, Split
from loop.student.decoder import Decoder
from loop.student.openvino import OpenVinoDecoder, exported
from loop.student.trainer import DecoderTrainer
from tests.test_student import NUMBERS, QUIET, items, sums
from tests.tiny import tiny_model, tiny_project

ADAPTERS = {"lora_rank": 8, "epochs": 20, "batch_size": 4, "learning_rate": 1e-2, "max_new_tokens": 16}


def a_trainer(folder: Path, engine: str = "openvino", **changes: object) -> DecoderTrainer:
    settings = {"model": str(folder / "model"), "dtype": "float32", **ADAPTERS, "engine": engine, **changes}
    return DecoderTrainer(StudentConfig.model_validate(settings), NUMBERS, folder / "cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that adds, and adapters with which it subtracts."""
    folder = tmp_path_factory.mktemp("openvino")
    tiny_model(folder / "untrained")
    a_trainer(folder, "torch", model=str(folder / "untrained"), lora_rank=0, epochs=40).train(
        sums(8), seed=1, folder=folder / "model", progress=QUIET
    )
    taken = [Example(each.item, (f"20 . {n} = {20 - n} .",), a_number(20 - n)) for n, each in enumerate(sums(8))]
    a_trainer(folder).train(taken, seed=1, folder=folder / "one", progress=QUIET)
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Decoder:
    return a_trainer(folder).student(folder / "one")


def greedy(student: Decoder, asked: Sequence[Item]) -> list[str]:
    return [some[0].text for some in student.explain(asked, copies=[0], temperature=1.0, top_p=1.0, seed=0)]


def test_greedy_explanations_are_those_of_torch_with_and_without_adapters(folder: Path, trained: Decoder) -> None:
    asked = items(sums(8))  # those it learned: what it never saw can be a near tie, which rounding decides
    written = {}
    for name, checkpoint in (("untrained", None), ("trained", folder / "one")):
        student = a_trainer(folder).student(checkpoint)
        written[name] = greedy(student, asked)
        assert written[name] == greedy(a_trainer(folder, "torch").student(checkpoint), asked)
    assert all(one != other for one, other in zip(written["untrained"], written["trained"], strict=True))
    assert [each.explanation.text for each in trained.predict(asked)] == written["trained"]


def test_adapters_that_openvino_leaves_out_are_found_out(folder: Path) -> None:
    on_torch = a_trainer(folder, "torch").student(folder / "one")
    base = exported(a_trainer(folder).config, folder / "cache", torch.float32, None)
    OpenVinoDecoder(on_torch, base, folder / "one")
    with pytest.raises(StudentError, match=r'another model than torch.* set student\.engine = "torch"'):
        OpenVinoDecoder(on_torch, base, None)


def test_the_base_is_exported_once_and_anew_where_it_changed(folder: Path, tmp_path: Path) -> None:
    tiny_model(tmp_path / "model")
    first = a_trainer(tmp_path).student(None)
    [made] = (tmp_path / "cache" / "openvino").iterdir()
    before = (made / "openvino_model.bin").stat().st_mtime_ns
    a_trainer(tmp_path).student(None)
    assert [(made / "openvino_model.bin").stat().st_mtime_ns] == [before]
    first.model.model.embed_tokens.weight.data.mul_(3)
    first.model.save_pretrained(tmp_path / "model")
    changed = a_trainer(tmp_path).student(None)
    assert len(list((tmp_path / "cache" / "openvino").iterdir())) == 2
    asked = items(sums(4))
    assert greedy(changed, asked) == greedy(a_trainer(tmp_path, "torch").student(None), asked)


def test_samples_depend_on_seed_and_item_and_not_on_the_company(trained: Decoder) -> None:
    asked = items(sums(6))

    def explained(some: Sequence[Item], seed: int, copies: Sequence[int]) -> dict[str, list[str]]:
        rows = trained.explain(some, copies=copies, temperature=2.0, top_p=1.0, seed=seed)
        return {item.key: [each.text for each in row] for item, row in zip(some, rows, strict=True)}

    everyone = explained(asked, 7, range(4))
    assert explained(asked[::-1], 7, range(4)) == everyone
    assert explained(asked[2:4], 7, [2, 3]) == {item.key: everyone[item.key][2:] for item in asked[2:4]}
    assert len({text for texts in everyone.values() for text in texts[1:]}) > 6
    other = explained(asked, 8, range(4))
    assert [texts[0] for texts in other.values()] == [texts[0] for texts in everyone.values()]
    assert [texts[1:] for texts in other.values()] != [texts[1:] for texts in everyone.values()]


def written(student: Decoder, *, temperature: float, top_p: float, seed: int, count: int = 1000) -> Counter[str]:
    """How often samples for one item start with which three words."""
    [item] = items(sums(1))
    [rows] = student.explain([item], copies=range(1, count + 1), temperature=temperature, top_p=top_p, seed=seed)
    return Counter(" ".join(each.text.split()[:3]) for each in rows)


def chance_that_alike(one: Counter[str], other: Counter[str]) -> float:
    """The p-value of a chi-squared test of homogeneity; what is rare is counted together."""
    common = [words for words, count in (one + other).items() if count >= 20]
    table = [[*(counts[words] for words in common), counts.total()] for counts in (one, other)]
    for row in table:
        row[-1] -= sum(row[:-1])
    return float(chi2_contingency([[each + 1 for each in row] for row in table]).pvalue)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.2, 1.0), (1.7, 0.8)])
def test_samples_follow_the_distribution_of_torch(
    folder: Path, trained: Decoder, temperature: float, top_p: float
) -> None:
    """The same statistic tells a slightly higher temperature apart."""
    on_torch = a_trainer(folder, "torch").student(folder / "one")
    found = written(trained, temperature=temperature, top_p=top_p, seed=3)
    wanted = written(on_torch, temperature=temperature, top_p=top_p, seed=4)
    hotter = written(on_torch, temperature=1.3 * temperature, top_p=top_p, seed=5)
    assert len(found) > 2
    assert chance_that_alike(found, wanted) > 0.001
    assert chance_that_alike(found, hotter) < 0.001


def test_a_checkpoint_of_all_weights_is_refused(folder: Path) -> None:
    a_trainer(folder, "torch", lora_rank=0, epochs=1).train(sums(4), seed=1, folder=folder / "all", progress=QUIET)
    with pytest.raises(StudentError, match=r'all: all weights were trained.* student\.engine = "torch"'):
        a_trainer(folder).student(folder / "all")


def test_without_the_packages_the_error_names_the_cure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("loop.student.openvino")
    monkeypatch.delitem(sys.modules, "loop.student.openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(StudentError, match=r"install preceptor\[openvino\]"):
        a_trainer(folder).student(None)


def test_openvino_reports_nothing_to_anybody() -> None:
    """Left alone, it tells its makers that it was imported; without that package a stand-in says nothing."""
    assert sys.modules["openvino_telemetry"] is None
    from openvino.tools.ovc import telemetry_utils  # noqa: PLC0415 - after ours, or it would report

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


def test_doctor_says_that_openvino_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = tiny_project(tmp_path)
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("lora_rank = 0", 'lora_rank = 4\nengine = "openvino"'), encoding="utf-8")
    found = {each.part: each for each in diagnose(config, lambda: Project(config, QUIET))}
    assert found["student"].fine
    assert found["student"].text == "model loads; OpenVINO writes its explanations"


@pytest.mark.slow
def test_smollm2_says_on_openvino_what_it_says_on_torch(shared_data: Path, tmp_path: Path) -> None:
    """Greedy texts are the same in float32, and sampled answers agree across engines as often as within torch."""
    rows = real_rows(shared_data)
    examples = [
        Example(an_item(row), (f"{row['meta']['equation'].strip('() ')} = {row['gold']}",), a_number(row["gold"]))
        for row in rows[-24:]
    ]
    asked = [an_item(row) for row in rows[:24]]
    config = StudentConfig(epochs=2, max_new_tokens=64)
    DecoderTrainer(config, NUMBERS, cache_folder()).train(examples, seed=0, folder=tmp_path / "one", progress=QUIET)

    def student(engine: str, dtype: str) -> Decoder:
        changed = config.model_copy(update={"engine": engine, "dtype": dtype})
        return DecoderTrainer(changed, NUMBERS, cache_folder()).student(tmp_path / "one")

    one, other = (greedy(student(engine, "float32"), asked) for engine in ("openvino", "torch"))
    assert sum(map(str.__eq__, one, other)) >= 0.9 * len(asked)
    ours, theirs = (
        student(engine, "auto").explain(asked, copies=range(1, 5), temperature=0.7, top_p=0.95, seed=0)
        for engine in ("openvino", "torch")
    )
    across = agreement([pair for pairs in map(product, ours, theirs) for pair in pairs])
    within = agreement([pair for some in theirs for pair in combinations(some, 2)])
    assert across == pytest.approx(within, abs=0.12)


def agreement(pairs: Sequence[tuple[Explanation, Explanation]]) -> float:
    return sum(one.answer == other.answer for one, other in pairs) / len(pairs)


def real_rows(folder: Path) -> list[dict[str, Any]]:
    with gzip.open(folder / "rationales" / "svamp.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def an_item(row: dict[str, Any]) -> Item:
    return Item(key=row["id"], question=row["question"], split=Split.POOL, text_hash="")


def a_number(value: object) -> Answer:
    return Answer(kind=AnswerKind.NUMBER, value=str(value))
