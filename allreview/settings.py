"""Where everything lies and which limits hold: one `Settings` object, read from ALLREVIEW_* variables."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

EngineName = Literal["auto", "tensorflow", "openvino"]


class Settings(BaseSettings):
    """Settings of this process. Every field can be set as an environment variable `ALLREVIEW_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="ALLREVIEW_", frozen=True, extra="ignore")

    home: Path = Field(
        default=Path("data"), description="Folder for the store, thumbnails, features and runs."
    )
    database_url: str | None = Field(
        default=None,
        description="SQLAlchemy URL of a PostgreSQL store; unset means SQLite in the home folder.",
    )
    weights: Path | None = Field(
        default=None, description="Folder of pretrained weight files, for use offline."
    )
    max_pixels: int = Field(
        default=100_000_000, description="Images of more pixels than this are not imported."
    )
    engine: EngineName = Field(
        default="auto",
        description="What computes the features of frozen backbones: OpenVINO where it is installed and there is "
        "no GPU, else TensorFlow; or the one that is named.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="So many threads a worker computes with; unset means as many as it may use cores.",
    )
    artefacts: str | None = Field(
        default=None,
        description="Object storage (s3://bucket/folder) or a shared folder, through which workers on several "
        "machines share runs and features; unset means that they stay in the home folder.",
    )
    worker_idle_minutes: float = Field(
        default=15.0, description="A worker the app started leaves after this long without work."
    )

    @property
    def root(self) -> Path:
        """The home folder as an absolute path."""
        return self.home.expanduser().resolve()

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the store. `postgresql://` is read as psycopg 3."""
        if self.database_url:
            head, sep, tail = self.database_url.partition("://")
            return (
                "postgresql+psycopg" + sep + tail if head in ("postgresql", "postgres") else self.database_url
            )
        return f"sqlite:///{self.root / 'allreview.sqlite'}"

    @property
    def thumbnails(self) -> Path:
        return self.root / "thumbnails"

    @property
    def uploads(self) -> Path:
        """Images that came in a zip, unpacked; and the demo set."""
        return self.root / "uploads"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def run_folder(self, run_id: int) -> Path:
        """The folder of one run: model, backups, saliency."""
        return self.root / "runs" / str(run_id)


def current_settings() -> Settings:
    """The settings as the environment gives them now."""
    return Settings()
