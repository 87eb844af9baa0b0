"""Explanations written by OpenVINO GenAI, which is faster on a CPU than torch.

The base model is exported once, and a checkpoint's adapters are laid on it when it is loaded. Tokens go in and out as
numbers, so the tokenizer stays ours; forced answers, embeddings and training stay on torch.
"""

import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from loop.config import StudentConfig
from loop.errors import StudentError
from loop.records import Item, Split
from loop.student import checkpoint, packaged, prompts
from loop.student.decoder import Decoder
from loop.student.reading import TOP_K, Sampling
from loop.student.tree import grow, target_log_probabilities

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # or the next line reports to its makers

import openvino as ov  # noqa: E402
import openvino_genai as genai  # noqa: E402
from openvino import opset13 as ops  # noqa: E402
from openvino._offline_transformations import apply_make_stateful_transformation  # noqa: E402
from openvino.exceptions import OVTypeError  # noqa: E402
from openvino.frontend import OpConversionFailure  # noqa: E402
from openvino_tokenizers import convert_tokenizer  # noqa: E402

PROBE = Item(key="probe", question="What is 2 + 2 ?", split=Split.POOL, text_hash="")
PROBED_TOKENS = 12
LARGEST_DIFFERENCE = 0.2
"""Of the mean log-probability of a text that OpenVINO writes, between OpenVINO and torch; bfloat16 stays far below."""
MODEL = "openvino_model.xml"
"""The name that OpenVINO GenAI looks for."""
CURE = 'set student.engine = "torch"'
TOKENIZERS = "openvino_tokenizer.xml", "openvino_detokenizer.xml"
EXPORT_CURE = "export --format transformers"


class OpenVinoDecoder(Decoder):
    """A causal student whose explanations OpenVINO writes (`loop.ports.Student`)."""

    def __init__(self, student: Decoder, exported: Path, adapters: Path | None) -> None:
        super().__init__(student.model, student.tokenizer, student.student, student.task)
        self._pipeline = _pipeline(exported, adapters, self.model.dtype, self.student.generation_batch)
        self._refuse_another_model()

    def _continued(
        self, contexts: Sequence[list[int]], longest: int, *, sampling: Sampling | None = None
    ) -> list[list[list[int]]]:
        """Continuations of each context; a row's first draw is the seed of its request, and 0 is greedy as ever.

        The first of each context is written first, so that the others find most of the prompt read.
        """
        firsts = [[0.0]] * len(contexts) if sampling is None else sampling.draws[:, :, 0].tolist()
        rows = [
            [(context, _generation(longest, self.end, draw, sampling)) for draw in draws]
            for context, draws in zip(contexts, firsts, strict=True)
        ]
        found = [[written] for written in self._written([row for row, *_ in rows])]
        others = iter(self._written([row for _, *others in rows for row in others]))
        for some, (_, *more) in zip(found, rows, strict=True):
            some += [next(others) for _ in more]
        return [[ids for ids, _ in some] for some in found]

    def _written(self, asked: Sequence[tuple[list[int], genai.GenerationConfig]]) -> list[tuple[list[int], float]]:
        """The tokens after each context, and the sum of their log-probabilities where it was asked for."""
        if not asked:  # GenAI expects one
            return []
        contexts = [ov.Tensor(np.array([context], dtype=np.int64)) for context, _ in asked]
        results = self._pipeline.generate(contexts, [generation for _, generation in asked])
        return [(result.m_generation_ids[0], result.m_scores[0]) for result in results]

    def _refuse_another_model(self) -> None:
        """OpenVINO leaves out adapters that it cannot place and says nothing; what it writes must be what torch means.

        Raises:
            StudentError: torch gives the text that OpenVINO writes another probability.
        """
        context = self.encoded(prompts.rationale_prompt(PROBE))
        generation = _generation(PROBED_TOKENS, self.end, 0.0, None)
        generation.logprobs = 1
        [(written, total)] = self._written([(context, generation)])
        trees, counts = [grow([context + written])], [[len(written)]]
        [[expected]] = target_log_probabilities(self.model, trees, counts, self.pad)
        found = total / len(written)
        if abs(found - expected) > LARGEST_DIFFERENCE:
            raise StudentError(
                f"{self.student.model}: OpenVINO runs another model than torch (mean log-probability {found:.2f} and "
                f"{expected:.2f} of the same text), as where adapters are not applied; {CURE}"
            )


def exported(config: StudentConfig, cache: Path, dtype: torch.dtype, revision: str | None) -> Path:
    """The folder of the exported base model; it is exported when first needed, and anew where its files changed.

    Raises:
        StudentError: the model cannot be exported, or the folder cannot be written.
    """
    source = packaged.model_directory(config.model, cache)
    folder = cache / "openvino" / f"{Path(source).name}-{_fingerprint(source, dtype, revision)}"
    if folder.is_dir():
        return folder
    base, _ = checkpoint.load_causal(None, config, cache, torch.float32)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            partial = Path(scratch) / folder.name
            partial.mkdir()
            ov.save_model(_stateful(base.cpu()), partial / MODEL, compress_to_fp16=dtype is not torch.float32)
            if not folder.is_dir():
                partial.rename(folder)
    except (RuntimeError, OpConversionFailure) as error:
        raise StudentError(
            f"{config.model}: cannot be exported to OpenVINO ({checkpoint.first_line(error)}); {CURE}"
        ) from error
    except OSError as error:
        if not folder.is_dir():  # another process may have been first
            raise StudentError(f"{folder}: cannot be written ({error}); free some space, or {CURE}") from error
    return folder


def write_causal(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, half: bool) -> None:
    """A causal model in float32 with its tokenizer, as OpenVINO GenAI loads a folder.

    Raises:
        StudentError: OpenVINO cannot hold the model or the tokenizer.
    """
    try:
        ov.save_model(_stateful(model), folder / MODEL, compress_to_fp16=half)
        for graph, name in zip(convert_tokenizer(tokenizer, with_detokenizer=True), TOKENIZERS, strict=True):
            ov.save_model(graph, folder / name)
    except (RuntimeError, OpConversionFailure, OVTypeError) as error:
        raise StudentError(f"cannot be exported to OpenVINO ({checkpoint.first_line(error)}); {EXPORT_CURE}") from error


def write_classifier(model: PreTrainedModel, example: Mapping[str, torch.Tensor], folder: Path) -> None:
    """An encoder in float32 with its last layer; its outputs are the logits.

    Raises:
        StudentError: OpenVINO cannot hold the model.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as below
            graph = ov.convert_model(model, example_input=dict(example))
        ov.save_model(graph, folder / MODEL, compress_to_fp16=False)
    except (RuntimeError, OpConversionFailure) as error:
        raise StudentError(f"cannot be exported to OpenVINO ({checkpoint.first_line(error)}); {EXPORT_CURE}") from error


def _fingerprint(source: str, dtype: torch.dtype, revision: str | None) -> str:
    """Changes with the model's files, the number format and OpenVINO."""
    known = [source, str(dtype), revision, packaged.files(source), ov.get_version()]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def _generation(longest: int, end: int, draw: float, sampling: Sampling | None) -> genai.GenerationConfig:
    generation = genai.GenerationConfig()
    generation.max_new_tokens = longest
    generation.eos_token_id = end
    generation.stop_token_ids = {end}
    if sampling is not None and draw > 0:
        generation.do_sample = True
        generation.temperature = sampling.temperature
        generation.top_p = sampling.top_p
        generation.top_k = TOP_K
        generation.rng_seed = int(draw * 2**32)
    return generation


def _pipeline(
    exported: Path, adapters: Path | None, dtype: torch.dtype, sequences: int
) -> genai.ContinuousBatchingPipeline:
    """The exported model with a checkpoint's adapters, in torch's number format and on as many threads.

    Raises:
        StudentError: OpenVINO cannot run the model.
    """
    schedule = genai.SchedulerConfig()
    schedule.max_num_seqs = sequences
    schedule.enable_prefix_caching = True
    precision = "bf16" if dtype is torch.bfloat16 else "f32"
    settings: dict[str, object] = {
        "INFERENCE_PRECISION_HINT": precision,
        "KV_CACHE_PRECISION": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    if adapters is not None:
        lora = json.loads((adapters / "adapter_config.json").read_text(encoding="utf-8"))
        # The file of the weights does not hold alpha, and without it the adapters would count half here.
        strength = lora["lora_alpha"] / lora["r"]
        fused = genai.AdapterConfig.Mode.MODE_FUSE
        weights = genai.Adapter(adapters / "adapter_model.safetensors")
        settings["adapters"] = genai.AdapterConfig(weights, strength, fused)
    try:
        return genai.ContinuousBatchingPipeline(exported, schedule, "CPU", settings)
    except RuntimeError as error:
        raise StudentError(f"{exported}: OpenVINO cannot run it ({checkpoint.first_line(error)}); {CURE}") from error


class _Step(torch.nn.Module):
    """One step of a causal model in plain tensors: the keys and values that it keeps come in and go out."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor, *kept: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Logits, then keys and values of each layer; OpenVINO looks for these names."""
        past = DynamicCache()
        past.layers = [_layer(*pair) for pair in zip(kept[::2], kept[1::2], strict=True)]
        rows, columns = input_ids.shape[1], attention_mask.shape[1]
        seen = torch.arange(columns)[None] <= torch.arange(rows)[:, None] + (columns - rows)
        hidden = torch.where(seen & (attention_mask[:, None, None] > 0), 0.0, torch.finfo(torch.float32).min)
        out = self.model(
            input_ids=input_ids,
            attention_mask=hidden,
            position_ids=position_ids,
            past_key_values=past,
            use_cache=True,
        )
        return (out.logits, *(each for layer in out.past_key_values.layers for each in (layer.keys, layer.values)))


def _layer(keys: torch.Tensor, values: torch.Tensor) -> DynamicLayer:
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


def _stateful(model: PreTrainedModel) -> ov.Model:
    """The model as OpenVINO GenAI wants it: it keeps keys and values itself and is told which row goes on where."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about constants in the trace, which are constants
        layers = model(input_ids=torch.zeros((2, 3), dtype=torch.long), use_cache=True).past_key_values.layers
        if not all(type(layer) is DynamicLayer for layer in layers):
            raise RuntimeError("not every layer keeps all that it has read")
        kept = [each for layer in layers for each in (layer.keys, layer.values)]
        plain = [torch.ones((2, 2)).long(), torch.ones((2, 5)).long(), torch.arange(3, 5).repeat(2, 1)]
        graph = ov.convert_model(_Step(model), example_input=(*plain, *kept))
    states = [f"{number}.{name}" for number in range(len(layers)) for name in ("key", "value")]
    names = ["input_ids", "attention_mask", "position_ids", *(f"past_key_values.{state}" for state in states)]
    shapes = [[-1, -1]] * len(plain) + [[-1, each.shape[1], -1, each.shape[3]] for each in kept]
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(graph.outputs, ["logits", *(f"present.{state}" for state in states)], strict=True):
        port.get_tensor().set_names({name})
    graph.reshape({name: ov.PartialShape(shape) for name, shape in zip(names, shapes, strict=True)})
    _choose_rows(graph, graph.inputs[len(plain) :])
    apply_make_stateful_transformation(graph, {f"past_key_values.{state}": f"present.{state}" for state in states})
    _start_empty(graph)
    return graph


def _choose_rows(graph: ov.Model, kept: Sequence[ov.Output]) -> None:
    """Keys and values are read through an input that says which row of them goes on in which place."""
    rows = ops.parameter(ov.PartialShape([-1]), dtype=ov.Type.i32, name="beam_idx")
    rows.output(0).get_tensor().add_names({"beam_idx"})
    graph.add_parameters([rows])
    for port in kept:
        readers = port.get_target_inputs()
        chosen = ops.gather(port, rows, ops.constant(0))
        for reader in readers:
            reader.replace_source_output(chosen.output(0))
    graph.validate_nodes_and_infer_types()


def _start_empty(graph: ov.Model) -> None:
    """What is kept starts with a row for each row of the input, and no columns."""
    batch = ops.gather(ops.shape_of(graph.input("input_ids")), ops.constant([0]), ops.constant(0))
    for state in graph.get_ops():
        if state.get_type_name() == "ReadValue":
            _, heads, _, width = state.get_output_partial_shape(0)
            rest = [ops.constant(np.array([size])) for size in (heads.get_length(), 0, width.get_length())]
            state.set_arguments([ops.broadcast(ops.constant(np.float32(0)), ops.concat([batch, *rest], axis=0))])
    graph.validate_nodes_and_infer_types()
