"""Students on disk: a base model with or without what training left in a checkpoint folder.

Weights are read from safetensors alone: other files are pickles, which can hold a program.
"""

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from loop.config import StudentConfig, WhiteBoxConfig
from loop.errors import StudentError
from loop.student import packaged

KINDS = {
    "causal": f"a causal language model, a hub name that can be downloaded, or {packaged.SMOLLM2}",
    "seq2seq": "a model with an encoder and a decoder, or a hub name that can be downloaded",
    "encoder": f"an encoder, a hub name that can be downloaded, or {packaged.MINILM}",
}
"""What may be loaded, by the kind of the student."""
TODAYS = ("engine", "served", "generation_batch", "trust_remote_code")
"""Settings that change nothing of a student that is there."""


def load_causal(
    folder: Path | None, config: StudentConfig, cache: Path, dtype: torch.dtype, *, trains: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer of a checkpoint, adapters merged into the base; the untrained base where none is named.

    `dtype` is what it computes in. Under QLoRA a base that `trains` holds its linear layers in four bits; a student has
    the same values as numbers of `dtype`, so that it answers by what its adapters learned to correct.

    Raises:
        StudentError: the model or the checkpoint cannot be loaded.
    """
    return _load_writer(AutoModelForCausalLM, folder, config, cache, dtype, trains=trains)


def load_teacher(config: StudentConfig, settings: WhiteBoxConfig, cache: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The local teacher of a white-box objective.

    Raises:
        StudentError: it is not on this disk, or no causal language model.
    """
    with _told_of_teacher(settings):
        source = packaged.model_directory(settings.teacher, cache)
        options = _options(source, config) | {"local_files_only": True}
        teacher = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, use_safetensors=True, **options)
    teacher.train(False)
    teacher.requires_grad_(False)
    return _placed(teacher)


def tokenizers(
    config: StudentConfig, settings: WhiteBoxConfig, cache: Path
) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    """Those of the untrained student and of its local teacher.

    Raises:
        StudentError: one cannot be loaded.
    """
    with _told(None, config):
        source = packaged.model_directory(config.model, cache)
        own = AutoTokenizer.from_pretrained(source, **_options(source, config))
    with _told_of_teacher(settings):
        source = packaged.model_directory(settings.teacher, cache)
        options = _options(source, config) | {"local_files_only": True}
        return own, AutoTokenizer.from_pretrained(source, **options)


def load_seq2seq(
    folder: Path | None, config: StudentConfig, cache: Path, dtype: torch.dtype, *, trains: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load_causal`, for a model with an encoder and a decoder.

    Raises:
        StudentError: the model or the checkpoint cannot be loaded.
    """
    return _load_writer(AutoModelForSeq2SeqLM, folder, config, cache, dtype, trains=trains)


def _load_writer(
    kind: type[AutoModelForCausalLM] | type[AutoModelForSeq2SeqLM],
    folder: Path | None,
    config: StudentConfig,
    cache: Path,
    dtype: torch.dtype,
    *,
    trains: bool,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model that writes."""
    adapter = _adapter(folder)
    four_bits = _four_bits(dtype) if config.dtype == "nf4" else {}
    with _told(folder, config):
        source = packaged.model_directory(config.model, cache) if folder is None or adapter else str(folder)
        tokenizer = AutoTokenizer.from_pretrained(source, **_options(source, config))
        options = {"dtype": dtype, "use_safetensors": True, **four_bits, **_options(source, config)}
        model = kind.from_pretrained(source, **options)
        if four_bits and not trains:
            model = model.dequantize()
        if adapter:
            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    if tokenizer.eos_token_id is None:
        raise StudentError(f"{source}: its tokenizer has no end-of-text token, so it cannot stop; take another")
    if config.chat_template and not tokenizer.chat_template:
        raise StudentError(f"{source}: its tokenizer has no chat template; set student.chat_template = false")
    sliced = trains and config.sharded  # block by block, so that a device need not hold all of it
    return model if sliced else _placed(model), tokenizer


def _adapter(folder: Path | None) -> Path | None:
    """The folder, where it holds adapters and not a whole model."""
    return folder if folder is not None and (folder / "adapter_config.json").exists() else None


def _four_bits(dtype: torch.dtype) -> dict[str, Any]:
    """How QLoRA holds a base (Dettmers and others 2023, arXiv 2305.14314): NormalFloat, its scales quantized too.

    Raises:
        StudentError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise StudentError('student.dtype = "nf4" needs bitsandbytes: install preceptor[qlora], or set dtype = "auto"')
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    }


def load_classifier(
    folder: Path | None, config: StudentConfig, cache: Path, classes: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The encoder and tokenizer of a checkpoint with its last layer; the untrained base where none is named.

    Raises:
        StudentError: the model or the checkpoint cannot be loaded.
    """
    return _load_encoder(AutoModelForSequenceClassification, folder, config, cache, classes)


def load_tagger(
    folder: Path | None, config: StudentConfig, cache: Path, classes: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load_classifier`, for an encoder that classifies every token.

    Raises:
        StudentError: the model or the checkpoint cannot be loaded.
    """
    return _load_encoder(AutoModelForTokenClassification, folder, config, cache, classes)


def _load_encoder(
    kind: type[AutoModelForSequenceClassification] | type[AutoModelForTokenClassification],
    folder: Path | None,
    config: StudentConfig,
    cache: Path,
    classes: int,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """An encoder with its last layer, which is new where the model has none for so many classes."""
    adapter = _adapter(folder)
    with _told(folder, config):
        source = packaged.model_directory(config.model, cache) if folder is None or adapter else str(folder)
        tokenizer = AutoTokenizer.from_pretrained(source, **_options(source, config))
        with _quiet():  # that the last layer of an untrained encoder is new is known
            model = kind.from_pretrained(
                source,
                dtype=torch.float32,
                num_labels=classes,
                use_safetensors=True,
                ignore_mismatched_sizes=source != str(folder),  # that of another task makes room
                **_options(source, config),
            )
            if adapter:
                model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    if tokenizer.mask_token is None:
        raise StudentError(f"{source}: its tokenizer has no mask token, so evidence cannot be masked")
    tokenizer.padding_side = "right"
    return _placed(model), tokenizer


def load_adapters(model: PreTrainedModel, folder: Path, config: StudentConfig) -> torch.nn.Module:
    """The base model with the adapters of a checkpoint, which go on learning.

    Raises:
        StudentError: the checkpoint cannot be loaded, or holds no adapters.
    """
    with _told(folder, config):
        adapted: torch.nn.Module = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    return adapted


def save(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    card: Mapping[str, object],
    folder: Path,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write the checkpoint beside its name and rename it; nothing half-written is left.

    `weights` are what is to be kept of a model that does not hold all of it itself.

    Raises:
        StudentError: the disk is full or the folder cannot be written.
    """
    cure = (
        "free some space or change run.folder, then `preceptor run` trains again from the rationales, which are stored"
    )
    with whole(folder, "the checkpoint", cure) as partial:
        _write(model, tokenizer, card, partial, weights)


def settings(folder: Path, config: StudentConfig) -> Mapping[str, Any]:
    """Those that the student of a checkpoint was trained by, as its card says.

    Raises:
        StudentError: the card cannot be read.
    """
    with _told(folder, config):
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        if "settings" not in card:
            raise ValueError("its card.json names no settings")
        found: Mapping[str, Any] = card["settings"]
    return found


def as_trained(folder: Path, today: StudentConfig) -> StudentConfig:
    """The settings by which a checkpoint is loaded: those on its card, for its weights fit no others.

    Today's say how fast it is, and whether code that comes with a model may run. Where the directory of its model is
    gone and today's has its name, the project was moved, and today's is the one.

    Raises:
        StudentError: the card cannot be read.
    """
    ours = StudentConfig.model_fields.keys() - {*TODAYS, "white_box"}
    then = {name: value for name, value in settings(folder, today).items() if name in ours}
    model, here = Path(then["model"]), Path(today.model)
    if model.is_absolute() and not model.exists() and here.is_dir() and here.name == model.name:
        then["model"] = today.model
    return StudentConfig().model_copy(update={**then, **{name: getattr(today, name) for name in TODAYS}})


@contextmanager
def whole(folder: Path, what: str, cure: str) -> Iterator[Path]:
    """A folder beside the named one that takes its name when the block ends well; else nothing is left.

    All of it is on the disk before it has its name, so that a power cut leaves no folder with half of its files.

    Raises:
        StudentError: the disk is full or the folder cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        for each in (*partial.rglob("*"), partial):
            _to_disk(each)
        partial.rename(folder)
        _to_disk(folder.parent)
    except Exception as error:
        # The tokenizer's Rust part raises a bare Exception that ends in "(os error N)".
        if not isinstance(error, OSError | SafetensorError) and "(os error" not in str(error):
            raise
        raise StudentError(f"{folder}: {what} cannot be written ({first_line(error)}); {cure}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _to_disk(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, outlive a power cut."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def first_line(error: Exception) -> str:
    """What happened, in one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


@contextmanager
def _told(folder: Path | None, config: StudentConfig) -> Iterator[None]:
    """Turns what goes wrong in loading into an error that names the cure."""
    if folder is not None and not folder.is_dir():
        raise StudentError(f"{folder}: no such checkpoint; train again, or restore the folder of the run")
    weights = "adapter_model" if _adapter(folder) else "*"
    if folder is not None and not any(folder.glob(f"{weights}.safetensors")):
        raise StudentError(
            f"{folder}: the weights are not there (checkpoints.keep removes old ones); take the student of another "
            "round, or copy the folder back from a backup"
        )
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        raise StudentError(
            f"{folder or config.model}: cannot be loaded ({first_line(error)}); {_cure(folder, config)}"
        ) from error


def _cure(folder: Path | None, config: StudentConfig) -> str:
    """What the user can do where a model cannot be loaded."""
    if folder is not None:
        return (
            "where its files are damaged copy the folder back from a backup; a checkpoint also needs the model that it "
            f"was trained from, student.model = {config.model!r}"
        )
    if config.model == packaged.SMOLLM2:
        return f"delete the folder {packaged.SMOLLM2} in Preceptor's cache: it is made again from its package"
    return f"student.model takes a local directory of {KINDS[config.kind]}, with weights as safetensors"


@contextmanager
def _told_of_teacher(settings: WhiteBoxConfig) -> Iterator[None]:
    """As `_told`, for the local teacher."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise StudentError(
            f"student.white_box.teacher = {settings.teacher!r}: cannot be loaded ({first_line(error)}); it takes "
            "a causal language model that is on this disk already: a directory (relative to the config file), a hub "
            f"name that was downloaded before, or {packaged.SMOLLM2}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _options(source: str, config: StudentConfig) -> dict[str, bool]:
    """Whether the hub may be asked, and whether code that comes with the model may run."""
    local = Path(source).is_dir()
    if not local and (source.startswith(("/", ".", "~")) or source.count("/") > 1):
        raise FileNotFoundError("no such directory")
    return {"local_files_only": local, "trust_remote_code": config.trust_remote_code}


def _placed(model: PreTrainedModel) -> PreTrainedModel:
    return model.to(place())


def place() -> str:
    """The kind of device on which models compute."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _write(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    card: Mapping[str, object],
    folder: Path,
    weights: Mapping[str, torch.Tensor] | None,
) -> None:
    (folder / "card.json").write_text(json.dumps(card, indent=1), encoding="utf-8")
    if isinstance(model, PeftModel):
        # Asked for embedding layers, it would look the base up on the hub.
        model.save_pretrained(folder, save_embedding_layers=False, state_dict=weights)
    else:
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder, state_dict=weights)  # type: ignore[operator]
    (folder / "README.md").write_text(_readme(card), encoding="utf-8")


def _readme(card: Mapping[str, Any]) -> str:
    held, left_out = len(card["validation_keys"]), len(card["left_out"])
    return (
        f"# A student trained by Preceptor\n\nBase model: {card['base']}. Trained on {card['examples'] - held} decided "
        f"rationales; {held} more only validated, {left_out} could not be learned (sha256 {card['examples_sha256']}), "
        f"seed {card['seed']}, in {card['seconds']} s.\n\n"
        f"Loss per epoch: {card['loss_per_epoch']}; of the validation part: "
        f"{card['validation_loss_per_epoch'] or 'there is none'}. The weights are those of epoch {card['epoch']}; "
        f"training ended: {card['stopped']}. Settings and versions stand in card.json.\n"
    )
