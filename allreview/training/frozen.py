"""Backbones that nothing trains any more: as they came, or as a run left them, kept in memory and quick to ask."""

from functools import cached_property, lru_cache
from pathlib import Path

import keras
import numpy as np

from allreview.errors import UserError
from allreview.models.backbones import backbone_named
from allreview.models.building import build_backbone
from allreview.models.pretrained import file_hash
from allreview.models.saving import MODEL_FILE, trained_backbone
from allreview.recipe import BackboneName, Pooling
from allreview.settings import EngineName
from allreview.training.engines import Computing, Engine, engine_for, intended


class FrozenBackbone:
    """A backbone with its weights, built when it is needed first.

    `computing` says what computes its features, or will.
    """

    def __init__(
        self,
        name: BackboneName,
        image_size: int,
        pooling: Pooling,
        weights: Path,
        weights_hash: str,
        engine: EngineName,
    ) -> None:
        self.name: BackboneName = name
        self.weights_hash = weights_hash
        self._image_size, self._weights = image_size, weights
        self._pooling: Pooling = pooling
        self._asked: EngineName = engine

    @cached_property
    def model(self) -> keras.Model:
        """The network up to its pooled features: what `allreview.models.building.join` takes. Of a saved model it is
        that of the run which trained it.

        Raises:
            UserError: the file does not hold the backbone's weights, or is not the one it was.
        """
        if self._weights.name == MODEL_FILE:
            model = trained_backbone(self._weights)
        else:
            model = build_backbone(self.name, self._image_size, self._weights, self._pooling)
        if file_hash(self._weights) != self.weights_hash:
            raise UserError(f"{self._weights} was changed while it was read: start the run again.")
        return model

    @property
    def n_features(self) -> int:
        return int(self.model.output_shape[-1])

    @property
    def computing(self) -> Computing:
        return self.__dict__["_engine"].computing if "_engine" in self.__dict__ else intended(self._asked)

    @property
    def batch(self) -> int:
        """How many images are computed at once, at most."""
        return self._engine.batch

    def settle(self) -> bool:
        """Make the engine ready, and say whether it is another than was intended."""
        before = self.computing
        return self._engine.computing != before

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Features float32 [n, features] of pixels uint8 [n, size, size, 3], n at most `batch`."""
        return self._engine(pixels)

    @cached_property
    def _engine(self) -> Engine:
        return engine_for(backbone_named(self.name), self.model, intended(self._asked), self._asked)


def frozen_backbone(
    name: BackboneName, image_size: int, weights: Path, engine: EngineName = "auto", pooling: Pooling = "max"
) -> FrozenBackbone:
    """A frozen backbone. The last two are kept in memory, known by their weights' content."""
    return _known_backbone(name, image_size, pooling, weights, file_hash(weights), engine)


@lru_cache(maxsize=2)
def _known_backbone(
    name: BackboneName, size: int, pooling: Pooling, weights: Path, weights_hash: str, engine: EngineName
) -> FrozenBackbone:
    return FrozenBackbone(name, size, pooling, weights, weights_hash, engine)
