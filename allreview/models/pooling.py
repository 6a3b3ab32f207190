"""From feature maps to one vector: the paper's global max pooling, the mean, or statistics of several depths."""

from collections.abc import Sequence
from typing import Any

import keras

from allreview.recipe import Pooling

_LEAST_VARIANCE = 1e-6  # the slope of a root is infinite at 0


@keras.saving.register_keras_serializable(package="allreview")
class MeanAndDeviation(keras.layers.Layer):
    """Feature maps [n, h, w, channels] to each channel's mean and standard deviation over the map [n, 2 channels].

    The means come first. First and second moments of feature maps describe texture: Huang and Belongie 2017,
    arXiv:1703.06868, section 3.
    """

    def call(self, inputs: Any) -> Any:
        mean = keras.ops.mean(inputs, axis=(1, 2), keepdims=True)
        variance = keras.ops.mean(keras.ops.square(inputs - mean), axis=(1, 2))
        deviation = keras.ops.sqrt(variance + _LEAST_VARIANCE)
        return keras.ops.concatenate([keras.ops.squeeze(mean, axis=(1, 2)), deviation], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], 2 * input_shape[-1])


def pooled(body: keras.Model, pooling: Pooling, depths: Sequence[str]) -> keras.Model:
    """The backbone up to its pooled vector [n, features].

    `depths` names the layers whose maps *depths* pooling describes; what comes after the last of them is left out.
    """
    if pooling == "depths":
        vectors = [
            MeanAndDeviation(name=f"{name}_statistics")(body.get_layer(name).output) for name in depths
        ]
        vector: Any = keras.layers.Concatenate(name="statistics_of_depths")(vectors)
    elif pooling == "average":
        vector = keras.layers.GlobalAveragePooling2D(name="global_average_pooling")(body.output)
    else:
        vector = keras.layers.GlobalMaxPooling2D(name="global_max_pooling")(body.output)
    return keras.Model(body.input, vector, name=f"{body.name}_features")
