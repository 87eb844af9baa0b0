"""The student goes home whole: others load the folder without Preceptor and get the very same answers."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline
from typer.testing import CliRunner

from connectors import handover as handing
from connectors.cli import app
from connectors.doctor import Finding, diagnose
from connectors.handover import FORMATS, export_student, refuse_folder
from connectors.students import loaded, trained
from connectors.wiring import Project
from loop.answer import AnswerKind
from loop.errors import PreceptorError, StudentError
from loop.records import Item, Split, VerdictKind
from loop.store import items, rationales, reading
from loop.student import handover, prompts
from loop.student.decoder import Decoder
from loop.student.encoder import Encoder
from tests.builders import a_verdict
from tests.test_encoder import examples as told
from tests.test_encoder import model as encoder  # noqa: F401 - a fixture
from tests.tiny import beginning_with, tiny_model
from tests.trained import a_trained_project, pool_item

LORA = "lora_rank = 8\nepochs = 20\nbatch_size = 4\nlearning_rate = 0.01"
LABELS = 'answer = "label"\n[task.labels]\nwarm = "It is warm."\ncold = "It is cold."\nwet = "It rains."'
QUESTION = "What is 3 + 20 ?"


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a causal student, trained by LoRA."""
    folder = tmp_path_factory.mktemp("causal")
    tiny_model(folder / "model")
    return a_trained_project(folder, student=LORA)


@pytest.fixture(scope="module")
def classifying(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:  # noqa: F811
    """A project with an encoder student, one of whose labels no example has."""
    folder = tmp_path_factory.mktemp("classifying")
    (folder / "model").symlink_to(encoder)
    settings = 'kind = "encoder"\nepochs = 20\nbatch_size = 4\nlearning_rate = 3e-3'
    return a_trained_project(folder, task=LABELS, student=settings, examples=told())


def exported(project: Project, folder: Path, form: str = "transformers") -> Path:
    export_student(project, trained(project), folder, form)
    return folder


def in_preceptor(project: Project) -> Decoder | Encoder:
    student = loaded(project, trained(project))
    assert isinstance(student, Decoder | Encoder)
    return student


def test_a_causal_student_has_the_same_logits_and_writes_the_same_text_without_preceptor(
    causal: Project, tmp_path: Path
) -> None:
    folder, student = exported(causal, tmp_path / "home"), in_preceptor(causal)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert not list(folder.glob("adapter*"))
    items = [
        pool_item(QUESTION),
        pool_item(QUESTION, context="1 + 1 = 2 .", choices=["23", "24"]),
    ]
    texts = student.explain(items, copies=[0], temperature=1.0, top_p=1.0, seed=0)
    for item, content, [greedy] in zip(items, [QUESTION, prompts.presented(items[1])], texts, strict=True):
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        assert asked["input_ids"][0].tolist() == student.encoded(prompts.rationale_prompt(item))
        with torch.inference_mode():
            assert torch.equal(model(**asked).logits, student.model(**asked).logits)
        written = model.generate(**asked)[0, asked["input_ids"].shape[1] :]
        assert tokenizer.decode(written, skip_special_tokens=True) == greedy.text != ""


def test_the_folder_loads_where_preceptor_is_not(causal: Project, tmp_path: Path) -> None:
    folder = exported(causal, tmp_path / "home")
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0].replace("FOLDER", str(folder))
    blocked = "import sys\nfor name in ('loop', 'review', 'connectors', 'peft'):\n    sys.modules[name] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("others", [{}, {"tool_use": "tools"}])
def test_a_model_s_own_chat_template_is_kept_inside(others: dict[str, str], tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model(tmp_path / "model"))
    template = (
        "{% for message in messages %}= {{ message['content'] | trim }} = {% endfor %}"
        "{% if add_generation_prompt %}. {% endif %}"
    )
    tokenizer.chat_template = {"default": template, **others} if others else template
    tokenizer.save_pretrained(tmp_path / "model")
    project = a_trained_project(tmp_path, student="lora_rank = 0\nepochs = 1\nchat_template = true")
    home = AutoTokenizer.from_pretrained(exported(project, tmp_path / "home"))
    messages = [{"role": "user", "content": QUESTION}]
    asked = home.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    student = in_preceptor(project)
    assert isinstance(student, Decoder)
    assert asked == student.encoded(prompts.rationale_prompt(pool_item(QUESTION)))
    assert home.decode(asked).startswith("= Question :")


def test_an_encoder_gives_its_labels_by_name_with_the_same_logits(classifying: Project, tmp_path: Path) -> None:
    folder, student = exported(classifying, tmp_path / "home"), in_preceptor(classifying)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    items = [each.item for each in told()]
    classify = pipeline("text-classification", model=str(folder))
    for item, predicted in zip(items, student.predict(items), strict=True):
        asked = tokenizer(item.text, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            assert torch.equal(model(**asked).logits, student.model(**asked).logits)
        assert predicted.answer is not None
        assert classify(item.text)[0]["label"] == predicted.answer.value
    assert tokenizer.model_max_length == student.longest() == 40


def test_openvino_writes_what_the_student_writes(causal: Project, tmp_path: Path) -> None:
    genai = pytest.importorskip("openvino_genai")
    folder = exported(causal, tmp_path / "home", "openvino")
    assert not list(folder.glob("*.safetensors"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, tokenize=False
    )
    model = genai.LLMPipeline(str(folder), "CPU", INFERENCE_PRECISION_HINT="f32")
    [[greedy]] = in_preceptor(causal).explain([pool_item(QUESTION)], copies=[0], temperature=1.0, top_p=1.0, seed=0)
    ids = tokenizer(asked, add_special_tokens=False, return_tensors="np")["input_ids"]
    written = model.generate(pytest.importorskip("openvino").Tensor(ids)).tokens[0]
    assert tokenizer.decode(written, skip_special_tokens=True) == greedy.text
    assert str(model.generate(asked, apply_chat_template=False)).split() == greedy.text.split()


def test_the_code_of_an_openvino_card_gives_the_model_its_start_once(tmp_path: Path) -> None:
    pytest.importorskip("openvino_genai")
    tiny_model(tmp_path / "model")
    beginning_with("Explain").save_pretrained(tmp_path / "model")
    project = a_trained_project(tmp_path, student=LORA)
    [[greedy]] = in_preceptor(project).explain([pool_item(QUESTION)], copies=[0], temperature=1.0, top_p=1.0, seed=0)
    card = (exported(project, tmp_path / "home", "openvino") / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0].replace("FOLDER", str(tmp_path / "home"))
    code = code.replace(repr(prompts.presented(handing.EXAMPLE)), repr(QUESTION))
    code = code.replace('"CPU"', '"CPU", INFERENCE_PRECISION_HINT="f32"')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == greedy.text.strip() != ""


def test_openvino_holds_an_encoder_too(classifying: Project, tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    folder = exported(classifying, tmp_path / "home", "openvino")
    tokenizer, student = AutoTokenizer.from_pretrained(folder), in_preceptor(classifying)
    model = ov.Core().compile_model(str(folder / "openvino_model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for each in told():
        asked = tokenizer(each.item.text, truncation=True, return_tensors="np")
        found = model({port.any_name: asked[port.any_name] for port in model.inputs})[0]
        with torch.inference_mode():
            expected = student.model(**student.tokens([each.item.text])).logits
        assert torch.allclose(torch.tensor(found), expected, atol=1e-4)


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_student_gives_the_same_bytes(form: str, causal: Project, tmp_path: Path) -> None:
    one, other = (exported(causal, tmp_path / name, form) for name in ("one", "other"))
    names = {file.name for file in one.iterdir()}
    assert {"README.md", "config.json", "generation_config.json", "chat_template.jinja"} < names
    assert names == {file.name for file in other.iterdir()}
    for name in names:  # OpenVINO numbers its nodes anew in each process
        assert name.endswith(".xml") or (one / name).read_bytes() == (other / name).read_bytes()
    assert not any(str(causal.home).encode() in (one / name).read_bytes() for name in names)
    assert set(FORMATS) == set(handover.FORMATS)


def test_the_card_says_what_the_student_saw_and_how_good_it_is(classifying: Project, tmp_path: Path) -> None:
    rationale, *_ = rationales.of_round(classifying.store, trained(classifying).checkpoint.round_id or 0)
    a_verdict(classifying.store, rationale.id or 0, VerdictKind.ACCEPT, simulated=True)
    card = " ".join((exported(classifying, tmp_path / "home") / "README.md").read_text().split())
    assert "12 examples: 6 gold" in card
    assert "6 silver" in card
    assert "`warm` 6, `cold` 6, `wet` **never seen**" in card
    assert "accuracy on `test` (only reported): 0.700, 95 % interval 0.397 to 0.892, n = 10" in card
    assert "calibration of its probabilities: not measured" in card
    assert "teacher: tiny-teacher (**simulated:** its replies come from a recording" in card
    assert "reviews until then: 1 verdicts, **1 of them simulated**, not by people" in card
    assert "licence: not known here" in card


def test_the_card_counts_the_seed_items_and_decisions_of_its_training(classifying: Project) -> None:
    which = trained(classifying)
    first = min(row.id or 0 for row in reading.decisions_of(classifying.store, which.round.run))
    for key in ("then", "since"):
        fields = {"key": key, "text_hash": key, "split": Split.SEED, "answer": told()[0].answer.canonical}
        items.add(classifying.store, [Item(**{**told()[0].item.model_dump(), **fields})])
    then = which.checkpoint.model_copy(update={"card": {"last_decision": first + 2, "seed_keys": ["then"]}})
    said = handing.card(classifying, replace(which, checkpoint=then), "transformers", "float32", "", 9)
    assert "2 gold (people accepted or corrected the rationale), 1 silver" in said
    assert "below the threshold), 1 seed items" in said
    assert "`warm` 3, `cold` 1, `wet` **never seen**" in said


def test_the_card_names_the_room_that_the_student_reads(classifying: Project, tmp_path: Path) -> None:
    which = trained(classifying)
    longer = which.config.student.model_copy(update={"max_prompt_tokens": 4000})
    which = replace(which, config=which.config.model_copy(update={"student": longer}))
    export_student(classifying, which, tmp_path / "home", "transformers")
    positions = AutoTokenizer.from_pretrained(tmp_path / "home").model_max_length
    assert f"It reads {positions} tokens at most" in (tmp_path / "home" / "README.md").read_text()
    assert positions < 4000


def test_the_example_has_choices_where_the_task_has(classifying: Project, causal: Project, tmp_path: Path) -> None:
    for project, name in ((classifying, "label"), (causal, "number")):
        card = (exported(project, tmp_path / name) / "README.md").read_text()
        assert "Which is heavier?" in card
        assert "the feather" not in card
        assert "choices" not in card
    which = trained(causal)
    task = which.config.task.model_copy(update={"answer": AnswerKind.CHOICE})
    which = replace(which, config=which.config.model_copy(update={"task": task}))
    card = handing.card(causal, which, "transformers", "float32", handing._asked(which), 40)
    assert r"Which is heavier?\n(A) the stone\n(B) the feather" in card


def test_a_folder_in_use_and_formats_that_are_not_written_are_refused_with_the_cure(
    causal: Project, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for folder, form, said in [
        (tmp_path, "transformers", "is not empty; name a new folder"),
        (tmp_path / "mine.txt", "transformers", "a file is in the way"),
        (tmp_path / "new", "onnx", "optimum-cli export onnx"),
        (tmp_path / "new", "gguf", r"convert_hf_to_gguf\.py"),
        (tmp_path / "new", "tflite", "unknown format; written here: transformers, openvino"),
    ]:
        with pytest.raises(PreceptorError, match=said):
            refuse_folder(folder, form)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.txt"]


def test_the_command_exports_and_refuses_to_write_among_other_files(causal: Project, tmp_path: Path) -> None:
    words = ["student", "export", str(tmp_path / "home"), "--round", "1", "--config", str(causal.path)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert (done.exit_code, done.stdout.startswith("wrote the student of round 1 to ")) == (0, True)
    with pytest.raises(PreceptorError, match="is not empty"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_nothing_is_left_where_the_folder_cannot_be_written(causal: Project, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "came meanwhile").write_text("mine")
    with pytest.raises(StudentError, match=r"home: the student cannot be written .* name another folder"):
        exported(causal, tmp_path / "home")
    assert [file.name for file in tmp_path.rglob("*")] == ["home", "came meanwhile"]


def test_without_a_student_the_cure_is_named(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model")
    project = a_trained_project(tmp_path, student="lora_rank = 0\nepochs = 1")
    with pytest.raises(PreceptorError, match=r"no student after round 7; there is one after round 1"):
        trained(project, 7)
    other = Project(project.path, project.progress, run="other")
    with pytest.raises(PreceptorError, match=r"no student was trained yet; `preceptor run` trains one"):
        trained(other)


@pytest.mark.parametrize("student", ["lora_rank = 0\nepochs = 1", "lora_rank = 8\nepochs = 1"])
@pytest.mark.parametrize("damage", ["cut off", "gone", "card"])
def test_a_checkpoint_that_was_cut_off_is_named_with_the_cure(student: str, damage: str, tmp_path: Path) -> None:
    tiny_model(tmp_path / "model")
    project = a_trained_project(tmp_path, student=student)
    assert _examined(project).text.endswith("; so does round-1, the student in force")
    folder = project.folder / "checkpoints" / "round-1"
    [weights] = folder.glob("*.safetensors")
    if damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:-500])
    elif damage == "gone":
        weights.unlink()
    else:
        config = next(
            each for each in folder.glob("*config.json") if each.name in ("config.json", "adapter_config.json")
        )
        config.write_text(config.read_text()[:20])
    with pytest.raises(
        StudentError, match=r"round-1: .*copy it back from a backup, or take the student of another round"
    ):
        export_student(project, trained(project), tmp_path / "home", "transformers")
    assert not (tmp_path / "home").exists()
    assert json.loads((folder / "card.json").read_text())["examples"] == 8
    found = _examined(project)
    assert not found.fine
    assert "round-1" in found.text


def _examined(project: Project) -> Finding:
    """What `doctor` says of the student."""
    [found] = [each for each in diagnose(project.path, lambda: project) if each.part == "student"]
    return found
