"""What a fit is computed on: precision where the machine has it, and one fit on several devices."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from allreview.models.building import build_model
from allreview.recipe import make_recipe
from allreview.training import machine
from allreview.training.compiling import compiled

ROOT = Path(__file__).parent.parent.parent
MIXED = make_recipe({"mode": "finetune", "precision": "mixed"})
SMALL = make_recipe(
    {
        "mode": "finetune", "precision": "mixed", "backbone": "alexnet", "weights": "none", "image_size": 64,
        "dense_units": 8,
    }
)  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "works", "expected"),
    [
        ("fpu sse avx512_bf16", True, "mixed_bfloat16"),
        ("amx_bf16 fpu", True, "mixed_bfloat16"),
        ("fpu amx_bf16", False, "float32"),
        ("fpu avx512f", True, "float32"),
    ],
)
def test_sixteen_bits_on_a_cpu_that_says_so_and_can(flags, works, expected, monkeypatch):
    monkeypatch.setattr(machine, "_cpu_line", lambda name: flags if name == "flags" else "A processor")
    monkeypatch.setattr(machine, "_bfloat16_works", lambda: works)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    assert machine.precision(MIXED) == expected
    assert machine.precision(make_recipe({"mode": "finetune"})) == "float32"
    assert machine.describe(MIXED)["precision"] == expected
    assert machine.describe(MIXED)["device"] == "A processor"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [([(8, 0)], "mixed_float16"), ([(7, 0), (9, 0)], "mixed_float16"), ([(8, 0), (6, 1)], "float32")],
)
def test_sixteen_bits_on_gpus_with_tensor_cores(capabilities, expected, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: capabilities)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": gpu})
    assert machine.precision(MIXED) == expected


def test_this_machine_is_described_in_plain_values():
    found = machine.describe(make_recipe({}))
    assert json.loads(json.dumps(found)) == found
    assert found["precision"] == "float32"
    assert found["replicas"] == 1
    assert found["device"]
    assert machine._bfloat16_works() in (True, False)


def test_one_device_changes_nothing():
    assert machine.strategy(["CPU:0"]) is tf.distribute.get_strategy()
    assert machine.strategy(["CPU:0", "CPU:1"], most=1) is tf.distribute.get_strategy()


@pytest.mark.parametrize(
    ("training", "validation", "most"), [(32, 32, 8), (15, 32, 3), (32, 2, 2), (3, 1, 1)]
)
def test_no_device_goes_without_cells(training, validation, most):
    assert machine.most_devices(training, validation) == most


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_computes_in_sixteen_bits_and_keeps_float32_weights(precision):
    """A step of training on this CPU, which can do it, if slowly; the head stays in float32."""
    with machine.computing_in(precision):
        network = build_model(SMALL, ["all", "hem"], {})
    assert keras.config.dtype_policy().name == "float32"
    assert network.get_layer("convolution_2").compute_dtype == precision.removeprefix("mixed_")
    assert {network.get_layer(name).compute_dtype for name in ("hidden", "probabilities")} == {"float32"}
    assert {weight.dtype for weight in network.weights} == {"float32"}
    trainer = compiled(keras.Model(network.inputs, network.outputs), SMALL, 1)
    random = np.random.default_rng(0)
    images, targets = random.normal(size=(4, 64, 64, 3)).astype(np.float32), np.eye(2)[[0, 1, 0, 1]]
    before = [weight.numpy() for weight in network.trainable_weights]
    assert np.isfinite(trainer.train_on_batch(images, targets)).all()
    after = [weight.numpy() for weight in network.trainable_weights]
    assert any((one != other).any() for one, other in zip(before, after, strict=True))


@pytest.mark.slow
def test_two_devices_give_what_one_gives_and_resume_exactly(tmp_path):
    """With two logical CPUs, in a process of its own: devices cannot be changed once TensorFlow has begun."""
    command = [sys.executable, "-m", "tests.training.two_devices", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for one, two in zip(found["one"], found["two"], strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy", "val_cross_entropy", "learning_rate"):
            assert two[name] == pytest.approx(one[name], rel=2e-3), name
    for rows in (found["two"], found["resumed"]):
        for row in rows:
            del row["seconds"]
    assert found["resumed"] == found["two"]
    # The best weights, kept from two devices, say the same in a model on one.
    best = min(row["val_cross_entropy"] for row in found["two"])
    assert found["kept_cross_entropy"] == pytest.approx(best, rel=1e-4)
