"""A model as ONNX Runtime and OpenVINO compute it, in the files in which sentence-transformers looks for them.

sentence-transformers exports through optimum, of which every release (optimum-onnx 0.1, optimum-intel 2.2) asks for an
older transformers than hbtrain does. So the same files are made by the libraries beneath it: torch.onnx, onnxruntime,
openvino and nncf. `SentenceTransformer(folder, backend="onnx")` loads them where optimum is installed.

Exported is the transformer, from token ids to a vector of each token; pooling and what follows it stay what they are.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hbtrain.errors import ConfigError, ModelError, is_full
from hbtrain.modeling.adapters import merged
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.saving import replace_folder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

    from hbtrain.modeling.features import Features

Target = Literal["onnx", "openvino"]

NEEDED: Mapping[Target, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino", "nncf"),
}
"""The packages that a target needs, by the names they are imported by."""
FILES: Mapping[Target, str] = {"onnx": "onnx/model.onnx", "openvino": "openvino/openvino_model.xml"}
"""Where sentence-transformers looks for a model of each kind."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "last_hidden_state"  # [texts, tokens, D]
ONE_FILE_BYTES = 1_500_000_000  # a file of ONNX holds at most 2 GB; larger weights lie beside it
SAME_COSINE = 0.999  # of vectors by a model that was exported in full and the model itself; rounding leaves 0.99999

SAMPLE = ("Where does the Danube rise?", "Die Donau entspringt im Schwarzwald, bei Donaueschingen.", "是", "a " * 40)
"""Texts of different lengths, on which the export is tried out."""


def check_packages(target: Target) -> None:
    """Raise ConfigError if a package is not installed that the export needs."""
    missing = [name for name in NEEDED[target] if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--to {target} needs {', '.join(missing)}; install what is missing: pip install 'hbtrain[export]'"
        )


def export_model(encoder: Encoder, folder: Path, target: Target, int8: bool = False) -> tuple[Encoder, float]:
    """Write a model with its exported transformer into `folder`, without the weights that were exported.

    Args:
        encoder: on the CPU, in float32.
        folder: a model that is there is replaced.
        target: what is to compute it.
        int8: whether its weights are kept in bytes. ONNX Runtime then computes in them too, with ranges of activations
            that it takes from each batch; OpenVINO computes in float.

    Returns:
        An encoder that computes with what was written, and the least cosine between its vectors of some texts and the
        model's own.

    Raises:
        ModelError: there is no transformer, it cannot be exported, or gives other vectors afterwards.
        StorageError: the folder cannot be written.
    """
    plain = merged(encoder.model)
    if not hasattr(plain[0], "auto_model"):
        raise ModelError("the model has no transformer to export: a static one is small, and as fast on CPUs as it is")
    features = {name: value for name, value in encoder.tokenize(SAMPLE, "passage").items() if name in INPUTS}

    def write(unfinished: Path) -> None:
        plain.save(str(unfinished), create_model_card=False)
        for weights in unfinished.glob("*.safetensors*"):
            weights.unlink()
        made = unfinished / FILES[target]
        made.parent.mkdir()
        if target == "onnx" and not int8:
            _write_onnx(plain, features, made)
            return
        with TemporaryDirectory(dir=unfinished) as scratch:
            graph = Path(scratch) / "model.onnx"
            _write_onnx(plain, features, graph)
            if target == "onnx":
                _quantize_onnx(graph, made)
            else:
                _write_openvino(graph, made, int8)

    with _quiet_exporters():
        replace_folder(folder, write)
    exported = exported_encoder(encoder, folder, target)
    least = least_cosine(encoder, exported)
    if not int8 and not least >= SAME_COSINE:  # so that NaN is an error as well
        raise ModelError(f"the exported model gives other vectors (cosine {least:.4f}); do not use {folder}")
    return exported, least


def exported_encoder(encoder: Encoder, folder: Path, target: Target) -> Encoder:
    """The encoder with its transformer replaced by an exported one, which computes on CPUs."""
    found = encoder.on("cpu")
    run = _runner(folder / FILES[target], target)

    def forward(features: Features, **_: Any) -> Features:
        import torch

        given = {name: features[name].numpy() for name in INPUTS if name in features}
        features["token_embeddings"] = torch.from_numpy(run(given))
        return features

    found.model[0].forward = forward
    return found


def least_cosine(one: Encoder, other: Encoder) -> float:
    """The least cosine between the vectors that two encoders give of the texts of `SAMPLE`; texts without tokens, which
    have no direction, are left out."""
    x_ND, y_ND = (encoder.encode(SAMPLE, "passage") for encoder in (one, other))
    lengths_2N = np.linalg.norm([x_ND, y_ND], axis=2)
    there_N = lengths_2N.any(axis=0)
    products_N = np.einsum("nd,nd->n", x_ND, y_ND)[there_N]
    return float(np.min(products_N / np.maximum(lengths_2N.prod(axis=0)[there_N], np.finfo(np.float32).tiny)))


@contextmanager
def _quiet_exporters() -> Iterator[None]:
    """Keep back warnings and advice of exporters, and print their progress apart from results."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _runner(file: Path, target: Target) -> Callable[[Mapping[str, Any]], Any]:
    """Gives what an exported transformer computes of numpy arrays."""
    if target == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        return lambda given: session.run([OUTPUT], dict(given))[0]
    import openvino

    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda given: compiled(dict(given))[0].copy()


def _write_onnx(model: SentenceTransformer, features: Mapping[str, Tensor], file: Path) -> None:
    import torch

    transformer = model[0].auto_model
    transformer.set_attn_implementation("eager")
    more = {"use_cache": False} if hasattr(transformer.config, "use_cache") else {}

    class TokenVectors(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            found = self.transformer(
                input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **types, **more
            )
            vectors: Tensor = found[OUTPUT]
            return vectors

    weight_bytes = sum(weight.numel() * weight.element_size() for weight in transformer.parameters())
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        torch.onnx.export(
            TokenVectors().eval(),
            kwargs=dict(features),
            f=str(file),
            input_names=list(features),
            output_names=[OUTPUT],
            dynamic_shapes=dict.fromkeys(features, dynamic),
            external_data=weight_bytes > ONE_FILE_BYTES,
            verbose=False,
        )
    except Exception as error:  # of exporters, each of which has errors of its own
        if isinstance(error, OSError) or is_full(error):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"torch cannot export {type(transformer).__name__}: {reason}") from error


def _quantize_onnx(graph: Path, file: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    apart = len(list(graph.parent.iterdir())) > 1  # weights beside the graph
    # Unsigned: CPUs without VNNI add products of unsigned and signed bytes in 16 bits, which saturate. A step for each
    # column of a matrix costs next to nothing, and leaves a third of the error.
    quantize_dynamic(graph, file, weight_type=QuantType.QUInt8, per_channel=True, use_external_data_format=apart)


def _write_openvino(graph: Path, file: Path, int8: bool) -> None:
    import openvino

    model = openvino.convert_model(str(graph))
    if int8:
        import nncf

        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    openvino.save_model(model, str(file), compress_to_fp16=False)
