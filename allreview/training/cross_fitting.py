"""What several heads are judged by, each on the cells it leaves out, and what is said of a cell by the heads that never
saw it."""

import keras
import numpy as np
from numpy.typing import NDArray

from allreview.models.cross_fitting import as_one_head, each_head
from allreview.recipe import Recipe
from allreview.training.batches import Batch, one_hot

_CELLS_TOGETHER = 4096
_LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)


def validation_of(
    features: np.ndarray, labels: np.ndarray, left_out: NDArray[np.bool_], n_classes: int
) -> Batch:
    """What each head is judged by: the cells it leaves out, as a batch for all heads.

    Where a head leaves out fewer, its cells come round again, with weight 0; each head's weights have a mean of 1.
    """
    most = int(left_out.sum(axis=1).max())
    rows = np.stack([np.resize(np.flatnonzero(own), most) for own in left_out], axis=1)
    counts = left_out.sum(axis=1)
    weights = np.where(np.arange(most)[:, None] < counts, most / counts, 0).astype(np.float32)
    return features[rows], one_hot(labels, n_classes)[rows], weights


def unseen_probabilities(
    heads: keras.Model, recipe: Recipe, features: np.ndarray, left_out: NDArray[np.bool_]
) -> np.ndarray:
    """What is said of cells by their pooled features [n, d], each by the heads that leave it out, by all heads where
    there are none: probabilities float32 [n, classes].

    Several heads speak by the mean of their logits, as the joined head does.
    """
    found = np.zeros((len(features), heads.output_shape[-1]), np.float32)
    seen_by_all = ~left_out.any(axis=0)
    found[seen_by_all] = _said(as_one_head(heads, recipe), features[seen_by_all])
    logits, voices = np.zeros(found.shape), left_out.sum(axis=0)
    for head, own in zip(each_head(heads, recipe), left_out, strict=True):
        logits[own] += np.log(np.maximum(_said(head, features[own]), _LEAST_PROBABILITY))
    mean = np.exp(logits[~seen_by_all] / voices[~seen_by_all, None])
    found[~seen_by_all] = mean / mean.sum(axis=1, keepdims=True)
    return found


def _said(head: keras.Model, features: np.ndarray) -> np.ndarray:
    found = np.empty((len(features), head.output_shape[-1]), dtype=np.float32)
    for start in range(0, len(features), _CELLS_TOGETHER):
        rows = slice(start, start + _CELLS_TOGETHER)
        found[rows] = np.asarray(head(features[rows], training=False))
    return found
