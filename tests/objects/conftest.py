"""Object storage for tests: a real S3 server of moto's on this machine, and a bucket for each test."""

import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from allreview import artefacts


@dataclass(frozen=True)
class Bucket:
    """A bucket, by a client that is none of allreview's."""

    client: Any
    name: str

    @property
    def address(self) -> str:
        return f"s3://{self.name}"

    def put(self, key: str, data: bytes) -> str:
        """Write an object; gives its address."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data)
        return f"{self.address}/{key}"

    def put_folder(self, folder: Path, key: str) -> str:
        """Write all files of a folder; gives the address of the folder."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{key}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"{self.address}/{key}"

    def listed(self) -> set[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {entry["Key"] for page in pages for entry in page.get("Contents", [])}

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3 server of this test session's own."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, and the environment that leads to it."""
    import boto3

    reach(monkeypatch, s3_server)
    client = boto3.client("s3", endpoint_url=s3_server)
    name = f"b{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name)
    yield Bucket(client, name)
    forget()


def reach(patch: pytest.MonkeyPatch, url: str, *, key: str | None = "key") -> None:
    """Let object storage be at this URL, with these credentials or none."""
    patch.setenv("AWS_ENDPOINT_URL", url)
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        patch.setenv(name, "/nowhere")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        if key is None:
            patch.delenv(name, raising=False)
        else:
            patch.setenv(name, key)
    forget()


def forget() -> None:
    """Forget the connections of this process, as a new one would begin."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    artefacts._listings.clear()
