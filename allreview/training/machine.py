"""What a fit is computed on: which devices, and in what precision."""

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from allreview.recipe import Recipe

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]

FIRST_TENSOR_CORES = (7, 0)
"""The compute capability from which NVIDIA's GPUs multiply 16-bit numbers faster (Volta)."""
FEWEST_CELLS = 4
"""A device gets at least so many cells of a training batch, or is not used."""
CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
"""CPUs that say one of these multiply 16-bit numbers (bfloat16) faster."""


def describe(recipe: Recipe, most: int | None = None) -> dict[str, Any]:
    """What a run by the recipe will be computed on here, on at most so many devices, as the store keeps it.

    `device` in words, `replicas` that share each batch, `precision` of the fit, `cores`, and the versions of the
    libraries that compute.
    """
    names = gpus()
    shared = len(names[:most]) if recipe.mode == "finetune" else 1
    return {
        "device": _gpu_title(names[0]) if names else _cpu_title(),
        "replicas": max(shared, 1),
        "precision": precision(recipe),
        "cores": os.cpu_count(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def gpus() -> list[str]:
    """The names of the GPUs TensorFlow sees here."""
    return [device.name for device in tf.config.list_logical_devices("GPU")]


def precision(recipe: Recipe) -> Precision:
    """The numbers the recipe's fit computes in on this machine: 16 bits only where they are faster."""
    if recipe.precision != "mixed":
        return "float32"
    found = tf.config.list_physical_devices("GPU")
    if found:
        capable = all(_compute_capability(gpu) >= FIRST_TENSOR_CORES for gpu in found)
        return "mixed_float16" if capable else "float32"
    return "mixed_bfloat16" if _cpu_flags() & CPU_FLAGS and _bfloat16_works() else "float32"


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Layers built inside compute in this precision; their weights are float32 all the same."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def strategy(devices: Sequence[str] | None = None, most: int | None = None) -> tf.distribute.Strategy:
    """How a fit uses the devices, all visible GPUs unless named: with several, each gets a part of every batch.

    At most so many, see `most_devices`. With one device or none it is TensorFlow's default, which changes
    nothing. Batch normalisation sees each device's part by itself: with `synchronized` layers Keras 3.15 counts
    the head's activity penalty of one device for the next one too.
    """
    names = list(gpus() if devices is None else devices)[:most]
    return tf.distribute.MirroredStrategy(names) if len(names) > 1 else tf.distribute.get_strategy()


def most_devices(training_batch: int, validation_batch: int) -> int:
    """How many devices can share batches of these sizes, the smallest there are: none may go without cells, and
    in training each needs enough for batch normalisation."""
    return max(min(training_batch // FEWEST_CELLS, validation_batch), 1)


def build_by(trainer: keras.Model, batch: Sequence[np.ndarray]) -> None:
    """Have a compiled model that several devices share build itself by the shapes of this batch.

    Keras 3.15 would average the first batch over the devices to learn its shape, which fails when it cannot be
    shared evenly.
    """
    model: Any = trainer
    build = model._maybe_symbolic_build
    model._maybe_symbolic_build = lambda *_, **__: build(data_batch=tuple(batch))


@cache
def _bfloat16_works() -> bool:
    """Whether a convolution in bfloat16 gives what it gives in float32, to bfloat16's three digits."""
    random = np.random.default_rng(0)
    images, kernel = random.normal(size=(4, 32, 32, 16)), random.normal(size=(3, 3, 16, 32))

    def convolved(dtype: Any) -> np.ndarray:
        result: Any = tf.nn.conv2d(tf.cast(images, dtype), tf.cast(kernel, dtype), 1, "SAME")
        return tf.cast(result, tf.float32).numpy()

    try:
        exact, short = convolved(tf.float32), convolved(tf.bfloat16)
    except (tf.errors.OpError, TypeError):
        return False
    return bool(np.abs(short - exact).max() < 0.05 * exact.std())


def _compute_capability(gpu: Any) -> tuple[int, int]:
    return tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))


def _cpu_flags() -> set[str]:
    return set(_cpu_line("flags").split())


def _cpu_title() -> str:
    return _cpu_line("model name") or platform.processor() or platform.machine()


def _gpu_title(name: str) -> str:
    found = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(found[0]) if found else {}
    return details.get("device_name", name)


def _cpu_line(name: str) -> str:
    """The value after this name in Linux's description of the first processor; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.split("\t")[0].strip() == name), "")
