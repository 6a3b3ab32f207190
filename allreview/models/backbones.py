"""The networks that see the cell: a registry of backbones without their classification top.

Each is registered under its recipe name by a decorator, as timm does. A backbone takes pixels that its own
`preprocess` has prepared and ends in a 4-D feature map; `allreview.models.building` adds the paper's head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from allreview.errors import UserError
from allreview.recipe import BackboneName

InputShape = tuple[int, int, int]
Graph = Callable[[InputShape], keras.Model]

AT_RANDOM: Any = None
"""Keras's word for untrained weights, which its annotations forget; the trained ones are loaded below."""

IMAGENET_STANDARD_DEVIATIONS = (0.229, 0.224, 0.225)
IMAGENET_BGR_MEANS = (103.939, 116.779, 123.68)


def minus_one_to_one(pixels: np.ndarray) -> np.ndarray:
    """RGB in 0..255 scaled to -1..1."""
    return np.asarray(pixels, dtype=np.float32) / np.float32(127.5) - np.float32(1)


def bgr_less_imagenet_means(pixels: np.ndarray) -> np.ndarray:
    """RGB in 0..255 as BGR less the ImageNet means, unscaled: what the Caffe models were trained on."""
    return np.asarray(pixels, dtype=np.float32)[..., ::-1] - np.array(IMAGENET_BGR_MEANS, dtype=np.float32)


def unchanged(pixels: np.ndarray) -> np.ndarray:
    """RGB in 0..255 as it is: the graph scales it itself."""
    return np.asarray(pixels, dtype=np.float32)


@dataclass(frozen=True)
class Backbone:
    """One network without its top.

    `preprocess` turns RGB pixels in 0..255, of any integer or float type and shape [..., 3], into what the
    graph expects, float32 of the same shape; it never changes its argument. `minimum_size` is the smallest
    image side, in pixels. `depths` are layers an eighth and a sixteenth as wide as the image, in the middle of the
    network: their maps show textures, where the last ones show objects.
    """

    name: BackboneName
    title: str
    preprocess: Callable[[np.ndarray], np.ndarray]
    minimum_size: int
    graph: Graph
    depths: tuple[str, ...]
    after_loading: Callable[[keras.Model], None] | None = None

    @property
    def preprocessing(self) -> str:
        """The name of the preprocessing, as stored with features and models."""
        return self.preprocess.__name__

    def build(self, input_shape: InputShape, weights: Path | None) -> keras.Model:
        """The headless graph, [n, height, width, 3] to [n, h, w, channels].

        With `weights`, a file of Keras's no-top format, every weight comes from it; without, all start at
        random (the caller says so to people).

        Raises:
            UserError: the image is too small for this network, or the file does not hold its weights.
        """
        if min(input_shape[:2]) < self.minimum_size:
            raise UserError(
                f"{self.title} needs images of at least {self.minimum_size} pixels a side: "
                f"set image_size to {self.minimum_size} or more."
            )
        model = self.graph(input_shape)
        if weights is not None:
            _load(model, weights, self.title)
            if self.after_loading is not None:
                self.after_loading(model)
        return model


BACKBONES: dict[BackboneName, Backbone] = {}
"""The registry. Filled by `register` below."""


def register(
    name: BackboneName,
    title: str,
    *,
    preprocess: Callable[[np.ndarray], np.ndarray],
    depths: tuple[str, ...],
    minimum_size: int = 32,
    after_loading: Callable[[keras.Model], None] | None = None,
) -> Callable[[Graph], Graph]:
    """Enter the decorated graph into the registry."""

    def enter(graph: Graph) -> Graph:
        BACKBONES[name] = Backbone(name, title, preprocess, minimum_size, graph, depths, after_loading)
        return graph

    return enter


def backbone_named(name: BackboneName) -> Backbone:
    """The backbone registered under a recipe's name."""
    return BACKBONES[name]


def _load(model: keras.Model, weights: Path, title: str) -> None:
    """Load a weight file whole: Keras refuses one with other layers, counts or shapes."""
    try:
        model.load_weights(weights)
    except Exception as error:  # h5py and Keras raise OSError, ValueError, KeyError, TypeError in turn
        raise UserError(
            f"{weights} does not hold the weights of {title}: remove it, or replace it by the published file."
        ) from error


@register(
    "mobilenet_v2",
    "MobileNetV2",
    preprocess=minus_one_to_one,
    depths=("block_6_expand_relu", "block_10_expand_relu", "block_13_expand_relu"),
)
def mobilenet_v2(input_shape: InputShape) -> keras.Model:
    """Sandler et al. 2018, arXiv:1801.04381, width 1.0."""
    return keras.applications.MobileNetV2(
        input_shape=input_shape, alpha=1.0, include_top=False, weights=AT_RANDOM
    )


@register(
    "resnet50",
    "ResNet50",
    preprocess=bgr_less_imagenet_means,
    depths=("conv3_block4_out", "conv4_block3_out", "conv4_block6_out"),
)
def resnet50(input_shape: InputShape) -> keras.Model:
    """He et al. 2015, arXiv:1512.03385."""
    return keras.applications.ResNet50(input_shape=input_shape, include_top=False, weights=AT_RANDOM)


@register(
    "vgg16",
    "VGG16",
    preprocess=bgr_less_imagenet_means,
    depths=("block3_conv3", "block4_conv3", "block5_conv3"),
)
def vgg16(input_shape: InputShape) -> keras.Model:
    """Simonyan and Zisserman 2014, arXiv:1409.1556."""
    return keras.applications.VGG16(input_shape=input_shape, include_top=False, weights=AT_RANDOM)


def _scale_as_imagenet(model: keras.Model) -> None:
    """Give a loaded EfficientNet the input scale that its ImageNet weights were trained on.

    With `weights="imagenet"` Keras inserts a layer after the normalisation that divides by the root of the
    standard deviation once more (tensorflow issue 49930); loading the same file by path leaves it out, and
    the features come out wrong. Here the factor goes into the stored variance, which gives the same numbers:
    (x - m) / sqrt(v) / sqrt(s) = (x - m) / sqrt(v s).
    """
    layer: Any = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    variance = np.asarray(layer.adapt_variance) * np.array(IMAGENET_STANDARD_DEVIATIONS, dtype=np.float32)
    layer.adapt_variance.assign(variance)
    layer.finalize_state()


@register(
    "efficientnet_b3",
    "EfficientNetB3",
    preprocess=unchanged,
    depths=("block4a_expand_activation", "block5a_expand_activation", "block6a_expand_activation"),
    after_loading=_scale_as_imagenet,
)
def efficientnet_b3(input_shape: InputShape) -> keras.Model:
    """Tan and Le 2019, arXiv:1905.11946."""
    return keras.applications.EfficientNetB3(input_shape=input_shape, include_top=False, weights=AT_RANDOM)


@keras.saving.register_keras_serializable(package="allreview")
class LocalResponseNormalization(keras.layers.Layer):
    """Krizhevsky et al. 2012, section 3.3: each channel divided by the activity of its neighbours.

    b_i = a_i / (bias + alpha * sum over |j - i| <= depth_radius of a_j^2) ** beta; shape kept.
    """

    def __init__(
        self,
        depth_radius: int = 2,
        bias: float = 2.0,
        alpha: float = 1e-4,
        beta: float = 0.75,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.depth_radius, self.bias, self.alpha, self.beta = depth_radius, bias, alpha, beta

    def call(self, inputs: Any) -> Any:
        # In float32 whatever the precision of the rest: TensorFlow has no such operation for 16 bits on a GPU.
        normalized = tf.nn.local_response_normalization(
            tf.cast(inputs, tf.float32),
            depth_radius=self.depth_radius,
            bias=self.bias,
            alpha=self.alpha,
            beta=self.beta,
        )
        return tf.cast(normalized, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {
            "depth_radius": self.depth_radius,
            "bias": self.bias,
            "alpha": self.alpha,
            "beta": self.beta,
        }
        return {**super().get_config(), **own}


@register(
    "alexnet",
    "AlexNet",
    preprocess=minus_one_to_one,
    depths=("convolution_3", "convolution_4", "convolution_5"),
    minimum_size=64,
)
def alexnet(input_shape: InputShape) -> keras.Model:
    """Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks", section 3.5.

    The five convolutions with local response normalisation and overlapping pooling, as one tower (the paper
    cut it in two for its GPUs). 224 pixels are padded to 227, which is what the paper's numbers need.
    Weights start as He et al. 2015 propose: the paper's own start hardly moves on small sets.
    """
    layers = keras.layers

    def convolution(name: str, filters: int, size: int, **more: Any) -> keras.layers.Layer:
        return layers.Conv2D(
            filters, size, activation="relu", kernel_initializer="he_normal", name=name, **more
        )

    def pooling(name: str) -> keras.layers.Layer:
        return layers.MaxPooling2D(pool_size=3, strides=2, name=name)

    inputs = layers.Input(shape=input_shape, name="image")
    x = layers.ZeroPadding2D(((1, 2), (1, 2)), name="padding")(inputs)
    x = convolution("convolution_1", 96, 11, strides=4)(x)
    x = LocalResponseNormalization(name="normalization_1")(x)
    x = pooling("pooling_1")(x)
    x = convolution("convolution_2", 256, 5, padding="same")(x)
    x = LocalResponseNormalization(name="normalization_2")(x)
    x = pooling("pooling_2")(x)
    x = convolution("convolution_3", 384, 3, padding="same")(x)
    x = convolution("convolution_4", 384, 3, padding="same")(x)
    x = convolution("convolution_5", 256, 3, padding="same")(x)
    x = pooling("pooling_5")(x)
    return keras.Model(inputs, x, name="alexnet")
