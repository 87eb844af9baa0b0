"""OpenVINO writes what torch would: the same greedy texts, samples of the same distribution, adapters and all."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from scipy.stats import chi2_contingency

from loop.config import StudentConfig
from loop.errors import StudentError
from loop.records import Item
from loop.student.decoder import Decoder
from loop.student.openvino import OpenVinoDecoder, exported
from loop.student.trainer import DecoderTrainer
from tests.test_campaign import preceptor
from tests.test_student import NUMBERS, QUIET, items, sums
from tests.tiny import tiny_model, tiny_project

ONE = {"lora_rank": 8, "epochs": 40, "batch_size": 4, "learning_rate": 1e-2, "max_new_tokens": 16, "dtype": "float32"}


def a_trainer(folder: Path, engine: str = "openvino", **changes: object) -> DecoderTrainer:
    settings = {"model": str(folder / "model"), **ONE, "engine": engine, **changes}
    return DecoderTrainer(StudentConfig.model_validate(settings), NUMBERS, folder / "cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and a checkpoint of adapters that it was trained to."""
    folder = tmp_path_factory.mktemp("openvino")
    tiny_model(folder / "model")
    a_trainer(folder).train(sums(8), seed=1, folder=folder / "one", progress=QUIET)
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Decoder:
    return a_trainer(folder).student(folder / "one")


def greedy(student: Decoder, asked: Sequence[Item]) -> list[str]:
    return [some[0].text for some in student.explain(asked, copies=[0], temperature=1.0, top_p=1.0, seed=0)]


def test_greedy_explanations_are_those_of_torch_with_and_without_adapters(folder: Path, trained: Decoder) -> None:
    asked = items(sums(12))
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


def first_words(student: Decoder, *, temperature: float, top_p: float, seed: int) -> Counter[str]:
    """How often 1,500 explanations of one item start with which two words."""
    [item] = items(sums(1))
    [rows] = student.explain([item], copies=range(1, 1501), temperature=temperature, top_p=top_p, seed=seed)
    return Counter(" ".join(each.text.split()[:2]) for each in rows)


def chance_that_alike(one: Counter[str], other: Counter[str]) -> float:
    """The p-value of a chi-squared test of homogeneity; what is rare is counted together."""
    common = [word for word, count in (one + other).items() if count >= 20]
    table = [[counts[word] for word in common] for counts in (one, other)]
    rare = [counts.total() - sum(row) for counts, row in zip((one, other), table, strict=True)]
    if sum(rare):
        table = [[*row, rest] for row, rest in zip(table, rare, strict=True)]
    return float(chi2_contingency(table).pvalue)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.5, 0.8)])
def test_samples_follow_the_distribution_of_torch(folder: Path, temperature: float, top_p: float) -> None:
    """The same test tells a slightly higher temperature apart."""
    settings = {"epochs": 8, "max_new_tokens": 8}
    a_trainer(folder, **settings).train(sums(8), seed=1, folder=folder / f"t{temperature}", progress=QUIET)
    ours, theirs = (
        a_trainer(folder, engine, **settings).student(folder / f"t{temperature}") for engine in ("openvino", "torch")
    )
    found = first_words(ours, temperature=temperature, top_p=top_p, seed=3)
    wanted = first_words(theirs, temperature=temperature, top_p=top_p, seed=4)
    hotter = first_words(theirs, temperature=temperature * 1.2, top_p=top_p, seed=4)
    assert len(found) > 10
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


def test_openvino_reports_nothing_to_anybody(tmp_path: Path) -> None:
    """Left alone, its packages note in the home folder who imports them, and send it."""
    code = "import loop.student.openvino, sys; assert sys.modules['openvino_telemetry'] is None"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "HOME": str(tmp_path)})
    assert not (tmp_path / "intel").exists()


def test_doctor_says_that_openvino_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = tiny_project(tmp_path)
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("lora_rank = 0", 'lora_rank = 4\nengine = "openvino"'), encoding="utf-8")
    said = preceptor("doctor", config=config)
    assert "loads; OpenVINO writes its explanations" in " ".join((said.stdout + said.stderr).split())
