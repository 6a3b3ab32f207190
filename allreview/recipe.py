"""Everything that decides a training, as one frozen, validated object.

The defaults are the paper's: 224 × 224 × 3, horizontal flips, batch normalisation, dense 256 ReLU with
regularisers, dropout, softmax, Adamax 0.001, categorical cross-entropy, 15 to 25 epochs.
"""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from allreview.errors import UserError

BackboneName = Literal["mobilenet_v2", "resnet50", "efficientnet_b3", "vgg16", "alexnet"]
Fraction = Annotated[float, Field(gt=0, lt=0.8)]


class Recipe(BaseModel):
    """How to train one model. Two runs of one recipe on one snapshot on one machine give the same numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: BackboneName = Field(default="mobilenet_v2", description="The network that sees the cell.")
    weights: Literal["imagenet", "none"] = Field(
        default="imagenet", description="Where the backbone starts: pretrained on ImageNet, or from scratch."
    )
    mode: Literal["features", "finetune"] = Field(
        default="features",
        description="Train the head on the frozen backbone's features, or everything end to end.",
    )
    epochs: int = Field(default=20, ge=1, le=500, description="Passes over the training cells.")
    batch_size: int = Field(default=32, ge=1, le=1024, description="Cells per step.")
    optimizer: Literal["adamax", "adam", "adamw", "sgd"] = Field(
        default="adamax", description="How weights are updated."
    )
    learning_rate: float = Field(default=0.001, gt=0, le=1, description="Step size of the optimiser.")
    dense_units: int = Field(default=256, ge=1, le=4096, description="Width of the head's hidden layer.")
    dropout: float = Field(default=0.45, ge=0, lt=1, description="Share of hidden units dropped in training.")
    kernel_l2: float = Field(default=0.016, ge=0, description="L2 penalty on the hidden layer's weights.")
    activity_l1: float = Field(default=0.006, ge=0, description="L1 penalty on the hidden layer's output.")
    bias_l1: float = Field(default=0.006, ge=0, description="L1 penalty on the hidden layer's bias.")
    image_size: int = Field(
        default=224, ge=32, le=1024, description="Side of the network's input, in pixels."
    )
    crop: int | None = Field(
        default=None,
        ge=32,
        le=4096,
        description="Centre square kept before resizing, in source pixels; empty keeps all.",
    )
    flip: bool = Field(default=True, description="Mirror training cells left to right at random.")
    class_weights: bool = Field(default=True, description="Weigh rare classes up.")
    best_by: Literal["val_loss", "val_accuracy"] = Field(
        default="val_loss", description="Which validation figure decides the epoch that is kept."
    )
    validation_fraction: Fraction = Field(default=0.15, description="Share of cells for choosing the epoch.")
    test_fraction: Fraction = Field(default=0.2, description="Share of cells never used in training.")
    seed: int = Field(
        default=0, ge=0, le=2**31 - 1, description="Decides the split, the start and the order."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.validation_fraction + self.test_fraction > 0.8:
            raise ValueError("validation_fraction and test_fraction leave less than 20 % for training")
        if self.backbone == "alexnet" and self.weights == "imagenet":
            raise ValueError("alexnet has no pretrained weights: set weights=none to train it from scratch")
        if self.weights == "none" and self.mode == "features":
            raise ValueError(
                "a frozen backbone from scratch sees nothing: set mode=finetune with weights=none"
            )
        return self

    @property
    def hash(self) -> str:
        """SHA-256 of the recipe as canonical JSON."""
        body = json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(body.encode()).hexdigest()


def make_recipe(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values (strings are converted).

    Raises:
        UserError: an unknown setting, a value out of range, or settings that contradict each other.
    """
    unknown = sorted(set(values) - set(Recipe.model_fields))
    if unknown:
        raise UserError(
            f"Unknown recipe setting {unknown[0]!r}. The settings are: {', '.join(sorted(Recipe.model_fields))}."
        )
    try:
        return Recipe(**values)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"Recipe setting {where}: {message}." if where else f"Recipe: {message}.") from None
