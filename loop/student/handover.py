"""A student as others run it: a plain model directory, or OpenVINO files, that know nothing of Preceptor.

The chat template frames a question as in training, so that whatever serves the directory asks the student what it was
taught: the user's message is the question alone, or the item as `loop.student.prompts.presented` writes it.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from transformers import GenerationConfig

from loop.errors import StudentError
from loop.records import Item
from loop.student import prompts
from loop.student.decoder import Decoder
from loop.student.encoder import Encoder
from loop.student.seq2seq import LINE, Seq2Seq
from loop.student.tagger import Tagger

Plain = Decoder | Seq2Seq | Encoder | Tagger

FRAME = """\
{{%- if messages | length != 1 or messages[0]["role"] != "user" -%}}
{{{{- raise_exception("the student answers one question: send one user message") -}}}}
{{%- endif -%}}
{{%- set item = messages[0]["content"] -%}}
{{%- if not item.startswith({question}) and not item.startswith({context}) -%}}
{{%- set item = {question} + item -%}}
{{%- endif -%}}
{{%- set messages = [{{"role": "user", "content": item + {task}}}] -%}}
"""
"""The beginning of every chat template: one question, framed as in training."""


def write_transformers(student: Plain, folder: Path) -> None:
    """What `from_pretrained` of transformers loads, adapters merged, in the number format that the student runs in."""
    _write_words(student, folder)
    student.model.save_pretrained(folder)


def write_openvino(student: Plain, folder: Path) -> None:
    """What OpenVINO (encoders that give a label) and OpenVINO GenAI (causal students) load.

    Raises:
        StudentError: OpenVINO is not installed, or cannot hold the model.
    """
    if isinstance(student, Seq2Seq | Tagger):
        raise StudentError(
            "OpenVINO files are written of causal students and of encoders that give a label; export --format "
            "transformers"
        )
    try:
        from loop.student import openvino  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise StudentError(f"{error}; install preceptor[openvino], or export --format transformers") from error
    half = student.model.dtype is not torch.float32
    _write_words(student, folder)
    student.model.config.save_pretrained(folder)
    model = student.model.float().cpu()
    if isinstance(student, Decoder):
        openvino.write_causal(model, student.tokenizer, folder, half=half)
    else:
        openvino.write_classifier(model, student.tokens(["a question"]), folder)


FORMATS: Mapping[str, Callable[[Plain, Path], None]] = {"transformers": write_transformers, "openvino": write_openvino}
"""What writes a student, by format."""


def _write_words(student: Plain, folder: Path) -> None:
    """Tokenizer with template and length, and how to write or which labels to give; the config is made to say so."""
    tokenizer, config = student.tokenizer, student.model.config
    if isinstance(student, Decoder):
        tokenizer.chat_template = framed(student)
        tokenizer.padding_side = tokenizer.truncation_side = "left"
        student.model.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=student.student.max_new_tokens,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=student.end,
            pad_token_id=student.pad,
        )
        student.model.generation_config.save_pretrained(folder)
    elif isinstance(student, Seq2Seq):
        student.model.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=student.student.max_new_tokens,
            decoder_start_token_id=student.start,
            eos_token_id=student.end,
            pad_token_id=student.pad,
        )
    else:
        tokenizer.model_max_length = student.longest()
        tags = ["O", *(f"{place}-{label}" for label in student.labels for place in "BI")]
        labels = tags if isinstance(student, Tagger) else [answer.value for answer in student.labels]
        config.id2label, config.label2id = dict(enumerate(labels)), {each: at for at, each in enumerate(labels)}
    tokenizer.save_pretrained(folder)


def asked(student: Seq2Seq, item: Item) -> str:
    """What the tokenizer of an encoder-decoder student is given for an item."""
    task = prompts.answer_prompt if student.student.answers_by == "answer" else prompts.rationale_prompt
    return task(item) if student.line is None else task(item).replace("\n", LINE)


def framed(student: Decoder) -> str:
    """The chat template: the question framed as in training, then the model's own template where it was used."""
    task = prompts.ANSWER_TASK if student.student.answers_by == "answer" else prompts.RATIONALE_TASK
    frame = FRAME.format(
        question=json.dumps(prompts.QUESTION), context=json.dumps(prompts.CONTEXT), task=json.dumps(f"\n{task}\n")
    )
    if student.student.chat_template:
        return frame + str(student.tokenizer.get_chat_template())
    return frame + f'{{{{- {json.dumps(student.tokenizer.decode(student.start))} + messages[0]["content"] -}}}}'
