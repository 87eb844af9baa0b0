"""Hands a student over: a folder that others load without Preceptor, with a card that says what it is."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from connectors.card import escaped
from connectors.measurements import evaluation_text, of_rounds
from connectors.students import Trained, loaded
from connectors.wiring import Project, cache_folder
from loop.answer import AnswerKind
from loop.errors import PreceptorError, extra
from loop.ports import Example
from loop.records import Decision, DecisionKind, Item, Part, Split
from loop.report import accuracy
from loop.stages.retrain import AGAIN
from loop.stages.train import seed_examples
from loop.store import checkpoints, evaluations, reading, rounds
from loop.student.packaged import LICENCES, model_directory
from loop.student.prompts import ANSWER_TASK, RATIONALE_TASK, presented

HOW = {
    "onnx": "this version writes no ONNX: export --format transformers, then `optimum-cli export onnx --model FOLDER "
    "OUT` in an environment with optimum-onnx",
    "gguf": "this version writes no GGUF: export --format transformers, then `python convert_hf_to_gguf.py FOLDER "
    "--outfile student.gguf` with the script of a checkout of llama.cpp",
}
"""How to come to formats that are not written here."""
FORMATS = ("transformers", "openvino")
UNKNOWN = "not known here; look it up before sharing it"
EXAMPLE = Item(
    key="", question="Which is heavier?", context="A stone lies beside a feather.", split=Split.POOL, text_hash=""
)
CHOOSING = EXAMPLE.model_copy(update={"choices": ["the stone", "the feather"]})
PIPELINES = {
    "causal": "text-generation",
    "seq2seq": "text2text-generation",
    "encoder": "text-classification",
    "tagger": "token-classification",
}
"""What model hubs call them."""


def refuse_folder(folder: Path, form: str) -> None:
    """Everything that can be refused before the model is loaded.

    Raises:
        PreceptorError: the format is not written, or the folder is in use.
    """
    if form not in FORMATS:
        raise PreceptorError(f"{form}: {HOW.get(form) or 'unknown format'}; written here: {', '.join(FORMATS)}")
    if folder.exists() and not folder.is_dir():
        raise PreceptorError(f"{folder}: a file is in the way; name another folder")
    if folder.exists() and any(folder.iterdir()):
        raise PreceptorError(f"{folder}: is not empty; name a new folder, or remove what is in it")


def export_student(project: Project, which: Trained, folder: Path, form: str) -> str:
    """Write a student whole or not at all; the same checkpoint gives the same bytes. What was written, in a sentence.

    Raises:
        StudentError: the folder cannot be written, or the student cannot be loaded.
    """
    with extra("student", "a student"):
        from loop.student import checkpoint, handover  # noqa: PLC0415 - torch takes seconds to load
        from loop.student.seq2seq import Seq2Seq  # noqa: PLC0415 - as above

    student = loaded(project, which, engine="torch")
    assert isinstance(student, handover.Plain)
    target = folder.absolute()
    cure = "free some space or name another folder, then export again"
    with checkpoint.whole(target, "the student", cure) as partial:
        dtype = str(student.model.dtype).removeprefix("torch.")
        if form == "openvino" and dtype == "bfloat16":
            dtype = "float16"  # it has no other half format on disk
        handover.FORMATS[form](student, partial)
        asked = handover.asked(student, _example(which)) if isinstance(student, Seq2Seq) else _asked(which)
        _, room = student.reads(EXAMPLE)
        (partial / "README.md").write_text(card(project, which, form, dtype, asked, room), encoding="utf-8")
    checkpoints.mark_exported(project.store, which.checkpoint.id or 0)
    return f"wrote the student of round {which.round.number} to {folder} ({form}); its README.md says how to ask it"


def card(project: Project, which: Trained, form: str, dtype: str, asked: str, room: int) -> str:
    """The model card; `asked` is how an item is given to the student, which reads `room` tokens of one."""
    task, base = which.config.task, which.config.student.model
    licence = _licence(project, base)
    labels = [f"- `{label}`: {escaped(said)}" for label, said in task.labels.items()]
    parts = [
        _front(which, licence),
        f"# Student of {escaped(which.round.run)}, round {which.round.number}",
        f"Task: {escaped(task.instructions)} Answers are of the kind `{task.answer.value}`.",
        *(["Labels:\n\n" + "\n".join(labels)] if labels else []),
        "## How to ask it\n\n" + _usage(which, form, asked),
        "## Where it comes from\n\n" + "\n".join(f"- {line}" for line in _origin(project, which, licence, dtype)),
        "## How good it is\n\n" + "\n".join(f"- {line}" for line in _figures(project, which)),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in _limits(which, room)),
    ]
    return "\n\n".join(parts) + "\n"


def _front(which: Trained, licence: str | None) -> str:
    """What model hubs read."""
    facts = {
        "library_name": "transformers",
        "pipeline_tag": PIPELINES[_kind(which)],
        "base_model": which.config.student.model,
        **({} if licence is None else {"license": licence}),
        "tags": ["distillation"],
    }
    return "---\n" + "".join(f"{name}: {json.dumps(value)}\n" for name, value in facts.items()) + "---"


def _kind(which: Trained) -> str:
    """The kind of the student, where encoders that mark spans are taggers."""
    spans = which.config.student.kind == "encoder" and which.config.task.answer is AnswerKind.SPANS
    return "tagger" if spans else which.config.student.kind


def _asked(which: Trained) -> str:
    """The example as a causal student or an encoder is given it."""
    example = _example(which)
    return {"causal": presented(example), "encoder": example.text, "tagger": EXAMPLE.context}[_kind(which)]


def _chooses(which: Trained) -> bool:
    return which.config.task.answer is AnswerKind.CHOICE


def _example(which: Trained) -> Item:
    """An item as the task has them, with choices or without."""
    return CHOOSING if _chooses(which) else EXAMPLE


def _usage(which: Trained, form: str, asked: str) -> str:
    """How the folder is loaded and asked."""
    direct = which.config.student.answers_by == "answer"
    adds = ANSWER_TASK if direct else RATIONALE_TASK
    writes = "`Answer:` and the answer" if direct else "numbered steps, a line each, then `Answer:` and the answer"
    shown = "a context or choices" if _chooses(which) else "a context"
    read = "context, question and choices" if _chooses(which) else "context and question"
    said = {
        "causal": f"Send one user message: the question, or the item as below where it has {shown}. The "
        f'chat template frames it as in training ("{adds}"), so any server that applies the template may serve this '
        f"folder. Ask for temperature 0: the figures below are of what it holds likeliest. It writes {writes}.",
        "seq2seq": f'Give it the item as below, framed as in training ("{adds}"). It writes {writes}. Where '
        "`<extra_id_0>` stands in the item, it means the end of a line, in what it writes too.",
        "encoder": f"It reads {read}, each on a line of its own, and gives a label:",
        "tagger": "It marks spans of the text that it is given. Where an item has a context and a question, it was "
        "trained to mark the context, with the question as the second text of a pair.",
    }[_kind(which)]
    code = CODE[_kind(which), form]
    return f"{said}\n\n```python\n{code.replace('ITEM', repr(asked))}\n```"


CODE = {
    ("causal", "transformers"): """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER")
messages = [{"role": "user", "content": ITEM}]
asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
written = model.generate(**asked)[0, asked["input_ids"].shape[1] :]
print(tokenizer.decode(written, skip_special_tokens=True))""",
    ("causal", "openvino"): """\
import openvino
import openvino_genai
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
messages = [{"role": "user", "content": ITEM}]
asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="np", return_dict=True)
model = openvino_genai.LLMPipeline("FOLDER", "CPU")
written = model.generate(openvino.Tensor(asked["input_ids"])).tokens[0]
print(tokenizer.decode(written, skip_special_tokens=True))""",
    ("seq2seq", "transformers"): """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForSeq2SeqLM.from_pretrained("FOLDER")
asked = tokenizer(ITEM, return_tensors="pt")
written = model.generate(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"])[0, 1:]
print(tokenizer.decode(written))""",
    ("tagger", "transformers"): """\
from transformers import pipeline

mark = pipeline("token-classification", model="FOLDER", aggregation_strategy="simple")
for found in mark(ITEM):
    print(found["start"], found["end"], found["entity_group"])""",
    ("encoder", "transformers"): """\
from transformers import pipeline

classify = pipeline("text-classification", model="FOLDER")
print(classify(ITEM, truncation=True))""",
    ("encoder", "openvino"): """\
import json
import openvino
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = openvino.Core().compile_model("FOLDER/openvino_model.xml", "CPU")
asked = tokenizer(ITEM, truncation=True, return_tensors="np")
logits = model({each.any_name: asked[each.any_name] for each in model.inputs})[0]
print(json.load(open("FOLDER/config.json"))["id2label"][str(logits.argmax())])""",
}


def _licence(project: Project, base: str) -> str | None:
    """Of the base model, where that is known: from the list of packaged models, or from the model's own card."""
    if base in LICENCES:
        return LICENCES[base]
    local = project.home / base
    page = (local if local.is_dir() else Path(model_directory(base, cache_folder()))) / "README.md"
    if not page.is_file():
        return None
    head = page.read_text(encoding="utf-8", errors="replace").split("---")[1:2]
    lines = [line for line in "".join(head).splitlines() if line.startswith("license:")]
    return lines[0].removeprefix("license:").strip().strip("\"'") or None if lines else None


def _origin(project: Project, which: Trained, licence: str | None, dtype: str) -> list[str]:
    """Base model, data and who stands behind it, with what was simulated named as such."""
    student, teacher = which.config.student, which.config.teacher
    trained_by = "LoRA, merged" if student.lora_rank else "all weights"
    seeds, decided = len(_seeds(project, which)), _decided(project, which)
    counts = Counter(each.kind for each in decided)
    gold, silver = counts[DecisionKind.GOLD], counts[DecisionKind.SILVER]
    recorded = " (**simulated:** its replies come from a recording)" if teacher.recorded else ""
    verdicts = [
        verdict
        for _, verdict in reading.verdicts_of(project.store, which.round.run)
        if verdict.pulled_at <= which.checkpoint.created_at
    ]
    simulated = sum(verdict.simulated for verdict in verdicts)
    lines = [
        f"base model: {escaped(student.model)}, licence: {escaped(licence or UNKNOWN)}",
        f"trained ({trained_by}) from {which.checkpoint.examples} examples: {gold} gold (people accepted or corrected "
        f"the rationale), {silver} silver (accepted unreviewed, its risk below the threshold), {seeds} seed items"
        + _without_effect(which),
        f"teacher: {escaped(teacher.model) or 'none named'}{recorded}; the terms of its maker hold for what it taught",
        f"reviews until then: {len(verdicts)} verdicts"
        + (f", **{simulated} of them simulated**, not by people" if simulated else ""),
        f"number format of the weights: {dtype}",
    ]
    if which.checkpoint.data_version:
        lines.append(
            f"version of the gold and silver examples (`preceptor versions`): `{which.checkpoint.data_version}`"
        )
    if student.white_box is not None:
        lines.append(
            f"learned from the logits of {escaped(student.white_box.teacher)} too (`{student.white_box.objective}`); "
            "the terms of its maker hold for what it taught"
        )
    if which.config.task.answer is AnswerKind.LABEL:
        lines.append(f"examples by label: {_by_label(project, which, decided)}")
    return lines


def _without_effect(which: Trained) -> str:
    """How many of the examples taught nothing in the student's last training, where some did not."""
    held, left_out = (len(which.checkpoint.card.get(name, ())) for name in ("validation_keys", "left_out"))
    return f"; {held} of these only validated, {left_out} could not be learned" if held or left_out else ""


def _decided(project: Project, which: Trained) -> list[Decision]:
    """The decisions that were in force when the student was trained."""
    rows = reading.decisions_of(project.store, which.round.run)
    card, trained_at = which.checkpoint.card, which.checkpoint.created_at
    newest = {
        row.item_key: row
        for row in rows
        if ((row.id or 0) <= card["last_decision"] if "last_decision" in card else row.decided_at <= trained_at)
    }
    return [row for row in newest.values() if row.kind in (DecisionKind.GOLD, DecisionKind.SILVER)]


def _seeds(project: Project, which: Trained) -> list[Example]:
    """The seed items that the student was trained on; of an old card, which names none, all of today."""
    found = seed_examples(project.store, which.config.query)
    known = which.checkpoint.card.get("seed_keys")
    return found if known is None else [each for each in found if each.item.key in set(known)]


def _by_label(project: Project, which: Trained, decided: Sequence[Decision]) -> str:
    """How often each label was seen; one that never was is named."""
    rationales = {each.id: each for each in reading.rationales_of(project.store, which.round.run)}
    answers = [rationales[row.rationale_id].parsed for row in decided if row.rationale_id in rationales]
    answers += [each.answer for each in _seeds(project, which)]
    seen: Counter[Any] = Counter(answer.value for answer in answers if answer is not None)
    return ", ".join(f"`{label}` {seen[label] or '**never seen**'}" for label in which.config.task.labels)


def _figures(project: Project, which: Trained) -> list[str]:
    """How it did on items that nobody trained on."""
    lines = []
    for part, use in (
        (Part.TEST, "only reported"),
        (Part.DEV, "which also decided whether it replaced the one before"),
    ):
        found = accuracy(checkpoints.predictions(project.store, which.checkpoint.id or 0, part))
        if found is not None:
            lines.append(
                f"accuracy on `{part.value}` ({use}): {found.accuracy:.3f}, 95 % interval {found.low:.3f} to "
                f"{found.high:.3f}, n = {found.n}"
            )
    return [*(lines or ["not measured: the run has no holdout"]), *_measured(project, which)]


def _measured(project: Project, which: Trained) -> list[str]:
    """What else was measured of it, and what the temperature is for where one was fitted."""
    uncalibrated = "calibration of its probabilities: not measured"
    found = evaluations.of(project.store, which.checkpoint.id or 0)
    if found is None:
        return [uncalibrated]
    every = rounds.all_rounds(project.store, which.round.run)
    numbers = {each.candidate_id: each.number for each in every if each.candidate_id is not None}
    lines = [escaped(line) for line in evaluation_text({"evaluation": of_rounds(found.figures, numbers)})]
    if found.figures["calibration"][Part.TEST.value]["before"] is None:
        lines.append(uncalibrated)
    return lines if found.temperature is None else [*lines, _use(which, found.temperature)]


def _use(which: Trained, temperature: float) -> str:
    """What is divided by the temperature."""
    query = which.config.query
    if _kind(which) == "encoder":
        return (
            f"use of the temperature: divide the logits by {temperature:.4f} before softmax, which the code above does "
            "not do"
        )
    if which.config.task.answer in (AnswerKind.CHOICE, AnswerKind.LABEL):
        return (
            "use of the temperature: it belongs to the allowed answers where the student is asked for one directly, "
            f"without steps; divide the mean log-probability of each one's tokens by {temperature:.4f} before softmax "
            "over all of them"
        )
    return (
        f"use of the temperature: it belongs to the share of {query.samples} sampled answers (temperature "
        f"{query.temperature:g}, top-p {query.top_p:g}) that agree with the greedy one, not to the logits of tokens; "
        "`preceptor answer` counts and tempers it"
    )


def _limits(which: Trained, room: int) -> list[str]:
    student = which.config.student
    again = which.checkpoint.card.get(AGAIN)
    limits = [
        *(
            [f"Its weights were lost and trained again on {again}; its figures are those of the lost ones."]
            if again
            else []
        ),
        f"It reads {room} tokens at most. Longer items were cut in training; Preceptor refuses them.",
        "It was trained on the questions of one pool; on others the accuracy above says nothing.",
    ]
    if _kind(which) == "tagger":
        return [*limits, "It marks no spans that overlap, and none that is not of one of its labels."]
    if student.kind == "encoder":
        return [*limits, "It gives one of its labels to everything, also where none fits."]
    return [*limits, "Its steps can be wrong where its answer is right, and the other way round."]
