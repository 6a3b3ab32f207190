"""The mean of several models' probabilities, as one flat graph."""

from collections.abc import Sequence

import keras

from allreview.models.grafting import graft, prepared, raw_pixels
from allreview.models.saving import TrainedModel
from allreview.recipe import BackboneName


def average_models(members: Sequence[TrainedModel]) -> keras.Model:
    """RGB in 0..255 [n, size, size, 3] to the mean of the members' probabilities [n, classes], float32.

    The members have one backbone each, all different, and the same classes in the same order, image size and
    crop. Their layers are copied, their weights as they are now; each ends in its own softmax. Nothing trains.
    """
    first = members[0]
    for member in members[1:]:
        if member.classes != first.classes:
            raise ValueError(f"members disagree on the classes: {first.classes} and {member.classes}")
        if member.recipe.preparation != first.recipe.preparation:
            raise ValueError("members disagree on the image size, the crop or the colours")
    names: list[BackboneName] = [member.recipe.backbone for member in members]
    if len(set(names)) != len(names) or any(member.recipe.partner for member in members):
        raise ValueError(f"members need different backbones, one each, not {names}")
    pixels = raw_pixels(first.recipe.image_size)
    probabilities = [
        graft(member.model, prepared(pixels, name), prefix=name)
        for name, member in zip(names, members, strict=True)
    ]
    mean = keras.layers.Average(name="probabilities", dtype="float32")(probabilities)
    model = keras.Model(pixels, mean, name="average_of_" + "_".join(names))
    model.trainable = False
    return model
