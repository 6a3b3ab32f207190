"""Finding, fetching and checking pretrained weights, without a network and without Keras."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from allreview.errors import UserError
from allreview.models import pretrained
from allreview.models.pretrained import WEIGHT_FILES, availability, file_hash, obtain
from allreview.settings import current_settings

MOBILENET = WEIGHT_FILES["mobilenet_v2"].name


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Keras cache, and a proxy that nobody answers at. Returns the cache's models folder."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "keras" / "models"


class Truncating(SimpleHTTPRequestHandler):
    """Promises a file and breaks off; or serves it, when the server says so."""

    def log_message(self, format: str, *args: object) -> None: ...

    def copyfile(self, source, outputfile) -> None:
        if getattr(self.server, "whole", True):
            super().copyfile(source, outputfile)
        else:
            outputfile.write(source.read(1000))


@pytest.fixture
def host(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A download host on this machine, with MobileNetV2's real weights."""
    folder = tmp_path / "host" / WEIGHT_FILES["mobilenet_v2"].folder
    folder.mkdir(parents=True)
    shutil.copy(weights / MOBILENET, folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Truncating, directory=str(tmp_path / "host")))
    monkeypatch.setattr(pretrained, "HOST", f"http://127.0.0.1:{server.server_port}/")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_does_not_load_keras():
    code = "import sys, allreview.models.pretrained; print({'keras', 'tensorflow'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_the_table_is_kerass_own():
    from keras.src.applications import efficientnet, mobilenet_v2, resnet, vgg16

    urls = {name: file.url for name, file in WEIGHT_FILES.items()}
    hashes = {name: file.md5 for name, file in WEIGHT_FILES.items()}
    assert urls == {
        "mobilenet_v2": f"{mobilenet_v2.BASE_WEIGHT_PATH}{MOBILENET}",
        "resnet50": f"{resnet.BASE_WEIGHTS_PATH}resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "efficientnet_b3": f"{efficientnet.BASE_WEIGHTS_PATH}efficientnetb3_notop.h5",
        "vgg16": vgg16.WEIGHTS_PATH_NO_TOP,
    }
    assert hashes["resnet50"] == resnet.WEIGHTS_HASHES["resnet50"][1]
    assert hashes["efficientnet_b3"] == efficientnet.WEIGHTS_HASHES["b3"][1]
    assert str(hashes["vgg16"]) in Path(vgg16.__file__).read_text()


def test_the_weights_folder_comes_before_kerass_cache(offline, weights, monkeypatch):
    offline.mkdir(parents=True)
    (offline / MOBILENET).write_bytes(b"cached")
    assert availability("mobilenet_v2", current_settings()).path == offline / MOBILENET
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    found = availability("mobilenet_v2", current_settings(), probe=True)
    assert (found.kind, found.path) == ("file", weights / MOBILENET)
    assert obtain("mobilenet_v2", current_settings()) == weights / MOBILENET


def test_without_file_and_host_two_choices_are_offered(tmp_path, monkeypatch):
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(tmp_path / "nowhere"))
    settings = current_settings()
    assert availability("vgg16", settings).kind == "download"
    found = availability("vgg16", settings, probe=True)
    assert found.kind == "missing"
    for words in (
        WEIGHT_FILES["vgg16"].name,
        "(which does not exist)",
        "weights=none",
        "mode=finetune",
    ):
        assert words in found.sentence
    with pytest.raises(UserError, match="put the file vgg16_weights"):
        obtain("vgg16", settings)


def test_alexnet_has_none():
    assert availability("alexnet", current_settings()).kind == "none-exist"
    with pytest.raises(UserError, match="no pretrained weights for alexnet"):
        obtain("alexnet", current_settings())


def test_a_file_with_other_content_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(tmp_path))
    wrong = tmp_path / WEIGHT_FILES["resnet50"].name
    wrong.write_bytes(b"not the weights")
    with pytest.raises(UserError, match=r"resnet50_weights.* is not the weight file"):
        obtain("resnet50", current_settings())
    assert wrong.read_bytes() == b"not the weights"


def test_download_into_kerass_cache(host, offline, weights):
    settings = current_settings()
    assert availability("mobilenet_v2", settings, probe=True).kind == "download"
    fetched = obtain("mobilenet_v2", settings)
    assert fetched == offline / MOBILENET
    assert file_hash(fetched) == file_hash(weights / MOBILENET)
    assert [path.name for path in offline.iterdir()] == [MOBILENET]


def test_a_download_that_breaks_off_leaves_nothing_behind(host, offline):
    host.whole = False
    with pytest.raises(UserError, match="cannot be downloaded"):
        obtain("mobilenet_v2", current_settings())
    assert list(offline.iterdir()) == []
