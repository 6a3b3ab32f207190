"""What computes a frozen backbone's features: OpenVINO where it is installed, TensorFlow otherwise and on a GPU.

OpenVINO gets the backbone as a frozen TensorFlow graph, without a detour through another format, and works on
several images at once, one a request: an image's features never depend on its neighbours.
"""

import logging
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import keras
import numpy as np
import tensorflow as tf

from allreview.errors import UserError
from allreview.models.backbones import Backbone
from allreview.models.grafting import PREPARE
from allreview.settings import EngineName, current_settings

log = logging.getLogger("allreview.engines")

BATCH = 32
"""Images per forward pass of TensorFlow. Fixed and padded, so that features do not depend on the neighbours."""
LEAST_COSINE = 0.999
"""How alike an image's features must be to those TensorFlow computes, or the engine is not used."""

_TENSOR_FLOAT_32 = (
    8,
    0,
)  # the compute capability from which NVIDIA's GPUs round what they multiply to 19 bits
_PROBES = 2


@dataclass(frozen=True)
class Computing:
    """What computes, and in which numbers: the part of it that features depend on."""

    engine: Literal["tensorflow", "tensorflow-gpu", "openvino"]
    precision: Literal["float32", "tensorfloat32", "bfloat16"]


class Engine(Protocol):
    """Computes the pooled features of one backbone.

    `batch` is how many images it likes to be given at once, and takes at most.
    """

    computing: Computing
    batch: int

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Features float32 [n, features] of RGB pixels uint8 [n, size, size, 3]."""
        ...


def intended(asked: EngineName = "auto") -> Computing:
    """What will compute here, as far as can be said without a network. `asked` is `Settings.engine`.

    Raises:
        UserError: OpenVINO is asked for, and cannot be loaded.
    """
    gpu = tf.config.list_physical_devices("GPU")
    if asked == "openvino" and _openvino() is None:
        raise UserError(
            "ALLREVIEW_ENGINE asks for OpenVINO, which cannot be loaded here: install it, or set it to auto."
        )
    if asked == "openvino" or (asked == "auto" and not gpu and _openvino() is not None):
        return Computing("openvino", "bfloat16" if _multiplies_bfloat16() else "float32")
    if not gpu:
        return Computing("tensorflow", "float32")
    capable = tf.config.experimental.get_device_details(gpu[0]).get("compute_capability", (0, 0))
    rounds = capable >= _TENSOR_FLOAT_32 and tf.config.experimental.tensor_float_32_execution_enabled()
    return Computing("tensorflow-gpu", "tensorfloat32" if rounds else "float32")


def engine_for(
    backbone: Backbone, network: keras.Model, computing: Computing, asked: EngineName = "auto"
) -> Engine:
    """The engine that computes a backbone's pooled features as was intended; `network` is the backbone up to them.

    OpenVINO's are compared with TensorFlow's on two images first. Where they differ by more than rounding, or the
    network cannot be had, 16 bits give way to 32, and OpenVINO to TensorFlow, unless OpenVINO is asked for.

    Raises:
        UserError: OpenVINO is asked for, and does not do.
    """
    reason: object = None
    while computing.engine == "openvino":
        try:
            engine = OpenVino(backbone, network, computing)
            alike = _least_cosine(engine, backbone, network)
            if alike >= LEAST_COSINE:
                return engine
            reason = f"its features differ (cosine {alike:.4f})"
        except Exception as error:
            reason = error
        log.warning("OpenVINO does not compute %s in %s: %s", backbone.title, computing.precision, reason)
        exact = computing.precision == "float32"
        computing = Computing("tensorflow" if exact else "openvino", "float32")
    if asked == "openvino":
        raise UserError(
            f"OpenVINO cannot compute {backbone.title} here: set ALLREVIEW_ENGINE=auto, and TensorFlow does."
        )
    return TensorFlow(backbone, network, computing)


class TensorFlow:
    """The network traced once, in batches of a fixed size."""

    batch = BATCH

    def __init__(self, backbone: Backbone, network: keras.Model, computing: Computing) -> None:
        self.computing = computing
        signature = [tf.TensorSpec((BATCH, *network.input_shape[1:]), tf.uint8)]
        self._forward: Any = tf.function(_from_pixels(backbone, network), input_signature=signature)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        padded = np.zeros((BATCH, *pixels.shape[1:]), dtype=np.uint8)
        padded[: len(pixels)] = pixels
        return self._forward(tf.constant(padded)).numpy()[: len(pixels)]


class OpenVino:
    """The network compiled by OpenVINO for this processor, an image a request, several requests at once."""

    def __init__(self, backbone: Backbone, network: keras.Model, computing: Computing) -> None:
        self.computing = computing
        self._width = int(network.output_shape[-1])
        limit = current_settings().threads
        self._compiled = _core().compile_model(
            _converted(backbone, network),
            "CPU",
            {
                "PERFORMANCE_HINT": "THROUGHPUT",
                "INFERENCE_PRECISION_HINT": "bf16" if computing.precision == "bfloat16" else "f32",
                **({"INFERENCE_NUM_THREADS": limit} if limit else {}),
            },
        )
        self._requests = _openvino().AsyncInferQueue(self._compiled)
        self._one_caller = threading.Lock()
        # Each batch ends with requests that wait for the last one, so it is several times as long as those.
        self.batch = max(BATCH, 4 * len(self._requests))

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        found = np.empty((len(pixels), self._width), dtype=np.float32)

        def keep(request: Any, place: int) -> None:
            found[place] = request.get_output_tensor(0).data[0]

        with self._one_caller:
            self._requests.set_callback(keep)
            for place in range(len(pixels)):
                self._requests.start_async({0: pixels[place : place + 1]}, place)
            self._requests.wait_all()
        return found


def _from_pixels(backbone: Backbone, network: keras.Model) -> Callable[[Any], Any]:
    """RGB uint8 [n, size, size, 3] to pooled features, with the preprocessing inside the graph."""
    prepare = PREPARE[backbone.preprocessing]
    return lambda pixels: network(prepare(tf.cast(pixels, tf.float32)), training=False)


def _converted(backbone: Backbone, network: keras.Model) -> Any:
    """The network as OpenVINO knows it, for one image at a time, its weights as constants."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = tf.TensorSpec((1, *network.input_shape[1:]), tf.uint8, name="pixels")
    traced: Any = tf.function(_from_pixels(backbone, network))
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function(signature))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "backbone.pb"
        path.write_bytes(frozen.graph.as_graph_def().SerializeToString())
        return _core().read_model(path)


def _least_cosine(engine: Engine, backbone: Backbone, network: keras.Model) -> float:
    """The least cosine of the features of two drawn images to those TensorFlow computes."""
    random = np.random.default_rng(0)
    height, width, channels = network.input_shape[1:]
    coarse = random.integers(256, size=(_PROBES, -(-height // 8), -(-width // 8), channels), dtype=np.uint8)
    pixels = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    found, wanted = engine(pixels), np.asarray(network(backbone.preprocess(pixels), training=False))
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((found * wanted).sum(axis=1) / lengths).min())


@cache
def _openvino() -> Any:
    """The library, None where there is none that works. It is kept from telling its makers who imports it."""
    if find_spec("openvino") is None:
        return None
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    try:
        import openvino
    except Exception as error:  # what it is built on may be missing or of another version
        log.warning("OpenVINO is installed, but cannot be loaded: %s", error)
        return None
    return openvino


@cache
def _core() -> Any:
    return _openvino().Core()


def _multiplies_bfloat16() -> bool:
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
