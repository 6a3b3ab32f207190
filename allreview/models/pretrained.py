"""Finding and checking ImageNet weights, without loading Keras.

The files, their addresses and their MD5 are those of `keras.applications` (3.x), the variants without the
classification top. Keras publishes no MD5 for MobileNetV2: a wrong file is then noticed when it is loaded.
"""

import hashlib
import os
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from allreview.errors import UserError
from allreview.recipe import BackboneName
from allreview.settings import Settings

HOST = "https://storage.googleapis.com/"
PROBE_SECONDS = 2.0


@dataclass(frozen=True)
class WeightFile:
    """One published weight file: its name in Keras, its address under the host, its MD5 and its size."""

    name: str
    folder: str
    md5: str | None
    megabytes: int

    @property
    def url(self) -> str:
        return f"{HOST}{self.folder}{self.name}"


WEIGHT_FILES: dict[BackboneName, WeightFile] = {
    "mobilenet_v2": WeightFile(
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        "tensorflow/keras-applications/mobilenet_v2/",
        None,
        9,
    ),
    "resnet50": WeightFile(
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "tensorflow/keras-applications/resnet/",
        "4d473c1dd8becc155b73f8504c6f6626",
        95,
    ),
    "efficientnet_b3": WeightFile(
        "efficientnetb3_notop.h5", "keras-applications/", "af6d107764bb5b1abb91932881670226", 44
    ),
    "vgg16": WeightFile(
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "tensorflow/keras-applications/vgg16/",
        "6d6bbae143d832006294945121d1f1fc",
        59,
    ),
}
"""Every backbone that has ImageNet weights. AlexNet has none in Keras."""


@dataclass(frozen=True)
class Availability:
    """Whether a backbone's ImageNet weights can be had here.

    `kind` is *file* (at `path`), *download* (the host can be asked), *missing* (no file, and no host), or
    *none-exist* (nobody publishes weights for this backbone). `sentence` says it to people.
    """

    kind: Literal["file", "download", "missing", "none-exist"]
    path: Path | None
    sentence: str


def availability(backbone: BackboneName, settings: Settings, *, probe: bool = False) -> Availability:
    """Where the ImageNet weights of a backbone would come from, without fetching or reading them.

    Looks in the weights folder (`ALLREVIEW_WEIGHTS`), then in Keras's cache. With `probe` it also asks the
    download host whether it answers, for at most two seconds; without, it is taken to answer.
    """
    file = WEIGHT_FILES.get(backbone)
    if file is None:
        return Availability(
            "none-exist",
            None,
            f"There are no pretrained weights for {backbone}: it trains from scratch "
            "(weights=none, mode=finetune).",
        )
    found = _find(file, settings)
    if found is not None:
        return Availability("file", found, f"The ImageNet weights of {backbone} are at {found}.")
    if not probe or _host_answers(file):
        return Availability(
            "download",
            None,
            f"The ImageNet weights of {backbone} ({file.megabytes} MB) are downloaded when training starts.",
        )
    return Availability("missing", None, _two_choices(backbone, file, settings))


def obtain(backbone: BackboneName, settings: Settings) -> Path:
    """The path of a backbone's ImageNet weights, downloaded into Keras's cache when they are nowhere else.

    Raises:
        UserError: no weights exist, can be found or fetched, or the file found is not the published one.
    """
    found = availability(backbone, settings, probe=True)
    if found.kind in ("missing", "none-exist"):
        raise UserError(found.sentence)
    file = WEIGHT_FILES[backbone]
    if found.path is None:
        return _download(backbone, file, settings)
    if file.md5 is not None and _digest(found.path, "md5") != file.md5:
        raise UserError(
            f"{found.path} is not the weight file that Keras publishes under that name (its MD5 differs): "
            f"remove it, or replace it by {file.url}."
        )
    return found.path


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return _digest(path, "sha256")


def files_hash(weights: Mapping[BackboneName, Path]) -> str | None:
    """What stands for the pretrained files of a model: the `joint_hash` of their SHA-256."""
    return joint_hash({name: file_hash(path) for name, path in weights.items()})


def joint_hash(hashes: Mapping[BackboneName, str]) -> str | None:
    """One hash for the weights of several backbones: the only one's own; for several, the SHA-256 of the lines
    `name hash`, sorted; None for none."""
    if len(hashes) <= 1:
        return next(iter(hashes.values()), None)
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _keras_models() -> Path:
    """Where Keras keeps downloaded weights: `KERAS_HOME`, or `.keras` in the user's home."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "models"


def _find(file: WeightFile, settings: Settings) -> Path | None:
    folders = [_keras_models()]
    if settings.weights is not None:
        folders.insert(0, settings.weights.expanduser())
    return next((folder / file.name for folder in folders if (folder / file.name).is_file()), None)


def _host_answers(file: WeightFile) -> bool:
    request = urllib.request.Request(file.url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def _download(backbone: BackboneName, file: WeightFile, settings: Settings) -> Path:
    """Fetch beside the final place and rename, so that a killed download never looks like a file."""
    import keras

    target = _keras_models() / file.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder, redirect_stdout(sys.stderr):
            fetched = keras.utils.get_file(
                file.name, file.url, file_hash=file.md5, cache_dir=folder, cache_subdir="."
            )
            Path(fetched).replace(target)
    except Exception as error:  # get_file raises bare Exception
        raise UserError(_two_choices(backbone, file, settings)) from error
    return target


def _two_choices(backbone: BackboneName, file: WeightFile, settings: Settings) -> str:
    folder = settings.weights
    place = f"the weights folder {folder}" if folder else "a folder and name that folder in ALLREVIEW_WEIGHTS"
    absent = " (which does not exist)" if folder and not folder.expanduser().is_dir() else ""
    return (
        f"The ImageNet weights of {backbone} are not on this machine and cannot be downloaded: put the file "
        f"{file.name} from {file.url} into {place}{absent}, or train from scratch with weights=none and "
        "mode=finetune."
    )
