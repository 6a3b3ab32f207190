"""Everything that decides a training, as one frozen, validated object.

The defaults are the paper's head and optimiser on a split by leak group. `allreview.recipes` has the named ones.
"""

import difflib
import hashlib
import json
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from allreview.errors import UserError

BackboneName = Literal["mobilenet_v2", "resnet50", "efficientnet_b3", "vgg16", "alexnet"]
BACKBONE_NAMES: tuple[BackboneName, ...] = get_args(BackboneName)
Pooling = Literal["max", "average", "depths", "cell"]
Fraction = Annotated[float, Field(gt=0, lt=0.8)]
Strength = Annotated[float, Field(ge=0, le=0.9)]

LATER_SETTINGS = (
    "quarter_turns",
    "test_time_augmentation",
    "colours",
    "pooling",
    "backbone_run",
    "tint",
    "weight_decay",
    "weight_averaging",
    "heads",
)
"""Settings that recipes of before did not have. While they have their default they are no part of what tells a recipe
from others, so that those recipes are still the same."""


_OF_THE_FIT = (
    "epochs",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "weight_averaging",
    "schedule",
    "warmup_epochs",
    "patience",
    "precision",
    "views",
)
_CHANGING_CELLS = (
    "flip", "flip_vertical", "quarter_turns", "rotation", "translation", "stain", "brightness", "tint",
    "mixup", "cutmix",
)  # fmt: skip


class Preparation(NamedTuple):
    """How a cell's picture becomes what a network sees: `size` pixels a side, from the centre square of `crop` source
    pixels (None: all of it), its colours `normalized` or as they are."""

    size: int
    crop: int | None = None
    normalized: bool = False


class Recipe(BaseModel):
    """How to train one model. Two runs of one recipe on one snapshot on one machine give the same numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    # The network
    backbone: BackboneName = Field(default="mobilenet_v2", description="The network that sees the cell.")
    partner: BackboneName | None = Field(
        default=None, description="A second backbone, for an ensemble of two; empty for none."
    )
    combine: Literal["concatenate", "average"] = Field(
        default="concatenate",
        description="With a partner: one head on both backbones' features, or the mean of two models' "
        "probabilities.",
    )
    weights: Literal["imagenet", "none"] = Field(
        default="imagenet", description="Where the backbone starts: pretrained on ImageNet, or from scratch."
    )
    mode: Literal["features", "finetune"] = Field(
        default="features",
        description="Train the head on the frozen backbone's features, or everything end to end.",
    )
    backbone_run: int | None = Field(
        default=None,
        ge=1,
        description="In features mode, the run whose backbone, trained end to end, is the frozen one; empty for the "
        "pretrained one. Retraining only the head of that run sets it.",
    )
    backbone_normalization: Literal["frozen", "trained"] = Field(
        default="frozen",
        description="In end-to-end training, whether batch normalisation in a pretrained backbone keeps the "
        "statistics it came with, or learns those of the training cells.",
    )
    image_size: int = Field(
        default=224, ge=32, le=1024, description="Side of the network's input, in pixels."
    )
    crop: int | None = Field(
        default=None,
        ge=32,
        le=4096,
        description="Centre square kept before resizing, in source pixels; empty keeps all.",
    )
    colours: Literal["original", "normalized"] = Field(
        default="original",
        description="Cells as they were photographed, or each with its colours brought to the same mean and spread of "
        "optical density, so that the stain of a slide says less.",
    )
    pooling: Pooling = Field(
        default="max",
        description="What the head is told of the backbone's feature maps: the maximum of each of the last ones, their "
        "average, or average and spread of those at several middle depths, which tell textures; the last over the "
        "whole picture, or only where the cell is in its black frame.",
    )
    # The head
    dense_units: int = Field(default=256, ge=1, le=4096, description="Width of the head's hidden layer.")
    dropout: float = Field(default=0.45, ge=0, lt=1, description="Share of hidden units dropped in training.")
    kernel_l2: float = Field(default=0.016, ge=0, description="L2 penalty on the hidden layer's weights.")
    activity_l1: float = Field(default=0.006, ge=0, description="L1 penalty on the hidden layer's output.")
    bias_l1: float = Field(default=0.006, ge=0, description="L1 penalty on the hidden layer's bias.")
    heads: int = Field(
        default=1,
        ge=1,
        le=10,
        description="On the features of a pretrained backbone, how many heads are trained side by side. Of several "
        "each leaves out another part of the subjects that are not test, by which the epoch and the calibration are "
        "judged; the model is their mean.",
    )
    # The fit
    epochs: int = Field(default=20, ge=1, le=500, description="Passes over the training cells.")
    batch_size: int = Field(default=32, ge=1, le=1024, description="Cells per step.")
    optimizer: Literal["adamax", "adam", "adamw", "sgd"] = Field(
        default="adamax", description="How weights are updated."
    )
    learning_rate: float = Field(default=0.001, gt=0, le=1, description="Step size of the optimiser.")
    weight_decay: float = Field(
        default=0.004,
        ge=0,
        le=1,
        description="With AdamW, the share of each weight taken off in a step, times the learning rate.",
    )
    weight_averaging: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="Keep a moving average of the weights over the steps with this momentum (0.99 looks back on some "
        "hundred steps); it is what is validated and kept. 0 is off.",
    )
    schedule: Literal["constant", "cosine", "exponential"] = Field(
        default="constant",
        description="How the learning rate falls over the epochs: not at all, along a cosine to 0, or evenly "
        "on a log scale to a hundredth.",
    )
    warmup_epochs: int = Field(
        default=0, ge=0, le=100, description="Epochs in which the learning rate rises from 0 to its value."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, le=0.5, description="Share of certainty taken from every label in the loss."
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        le=500,
        description="Stop early after so many epochs without a better one; empty runs all epochs.",
    )
    best_by: Literal["val_cross_entropy", "val_loss", "val_accuracy"] = Field(
        default="val_cross_entropy",
        description="Which validation figure decides the epoch that is kept; val_loss is the cross-entropy with "
        "the head's penalties.",
    )
    precision: Literal["float32", "mixed"] = Field(
        default="float32",
        description="Numbers in end-to-end training; mixed uses 16 bits where the machine computes faster with "
        "them, and float32 elsewhere.",
    )
    # The cells: classes and augmentation
    imbalance: Literal["class_weights", "augment", "none"] = Field(
        default="class_weights",
        description="What is done for rare classes: weigh them up in the loss, show their cells more often in "
        "augmented versions (the paper's way), or nothing.",
    )
    flip: bool = Field(default=True, description="Mirror training cells left to right at random.")
    flip_vertical: bool = Field(default=False, description="Mirror training cells top to bottom at random.")
    quarter_turns: bool = Field(
        default=False,
        description="Turn training cells by a quarter, half or three quarters at random; with mirroring, all eight "
        "ways a square can lie.",
    )
    rotation: float = Field(
        default=0, ge=0, le=180, description="Rotate training cells by up to so many degrees either way."
    )
    translation: float = Field(
        default=0, ge=0, le=0.25, description="Shift training cells by up to this share of the image's side."
    )
    stain: Strength = Field(
        default=0,
        description="Scale the optical density of each colour by a random factor, exp(±stain); the black frame "
        "stays black.",
    )
    brightness: Strength = Field(
        default=0,
        description="Scale the brightness of a cell by a random factor, 1 ± brightness; the black frame stays "
        "black.",
    )
    tint: Strength = Field(
        default=0,
        description="Scale the brightness of each colour of a cell by a random factor, 1 ± tint; the black frame stays "
        "black.",
    )
    mixup: float = Field(
        default=0, ge=0, le=4, description="MixUp: alpha of its Beta distribution; 0 is off."
    )
    cutmix: float = Field(
        default=0, ge=0, le=4, description="CutMix: alpha of its Beta distribution; 0 is off."
    )
    views: int = Field(
        default=4,
        ge=1,
        le=32,
        description="In features mode, how many augmented versions of each training cell are computed.",
    )
    # What is said of a cell
    test_time_augmentation: Literal["none", "flip", "symmetries"] = Field(
        default="none",
        description="Predictions are of the cell as it is, the mean over it and its mirror image, or the mean over "
        "all eight ways a square can lie.",
    )
    # The split
    split: Literal["leak_group", "dataset_folds", "image"] = Field(
        default="leak_group",
        description="How test cells are chosen: whole leak groups, the dataset's own folds, or single images "
        "at random as in the paper, so that training and test share patients.",
    )
    folds: int | None = Field(
        default=None, ge=2, le=50, description="Cross-validate in so many folds; empty makes one split."
    )
    fold: int = Field(default=0, ge=0, lt=50, description="Which of the folds is the test part, from 0.")
    validation_fraction: Fraction = Field(default=0.15, description="Share of cells for choosing the epoch.")
    test_fraction: Fraction = Field(
        default=0.2, description="Share of cells never used in training; folds decide it otherwise."
    )
    seed: int = Field(
        default=0, ge=0, le=2**31 - 1, description="Decides the split, the start and the order."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        for wrong, sentence in self._contradictions():
            if wrong:
                raise ValueError(sentence)
        return self

    def _contradictions(self) -> list[tuple[bool, str]]:
        from_scratch = self.weights == "none"
        return [
            (
                self.validation_fraction + self.test_fraction > 0.8,
                "validation_fraction and test_fraction leave less than 20 % for training",
            ),
            (
                "alexnet" in self.backbones and not from_scratch,
                "alexnet has no pretrained weights: set weights=none to train it from scratch",
            ),
            (
                from_scratch and self.mode == "features" and self.backbone_run is None,
                "a frozen backbone from scratch sees nothing: set mode=finetune with weights=none",
            ),
            (
                self.backbone_run is not None and self.mode == "finetune",
                "backbone_run freezes the backbone that a run trained: set mode=features with it",
            ),
            (
                self.backbone_run is not None and self.partner is not None,
                "backbone_run is for one backbone: leave partner empty with it",
            ),
            (
                self.partner == self.backbone,
                f"an ensemble needs two different backbones: set partner to one of "
                f"{', '.join(name for name in BACKBONE_NAMES if name != self.backbone)}",
            ),
            (
                bool(self.cutmix) and self.mode == "features",
                "cutmix cuts images, which features mode sees only once: set mode=finetune, or use mixup",
            ),
            (
                bool(self.mixup and self.cutmix),
                "mixup and cutmix both mix a batch: set one of them to 0",
            ),
            (
                self.warmup_epochs >= self.epochs and self.warmup_epochs > 0,
                "warmup_epochs leaves no epoch to train at the full learning rate: set it below epochs",
            ),
            (
                self.precision == "mixed" and self.mode == "features",
                "features are computed in float32: set mode=finetune with precision=mixed",
            ),
            (
                self.folds is not None and self.fold >= self.folds,
                f"there is no fold {self.fold} of {self.folds}: folds count from 0",
            ),
            (
                self.folds is not None and self.split == "dataset_folds",
                "the dataset's own folds decide how many there are: leave folds empty with split=dataset_folds",
            ),
        ]

    @property
    def backbones(self) -> tuple[BackboneName, ...]:
        """The backbone, and its partner in an ensemble."""
        return (self.backbone,) if self.partner is None else (self.backbone, self.partner)

    @property
    def n_heads(self) -> int:
        """How many heads are trained. A network that is trained itself has one, and so has what it was trained to see:
        only the validation cells are new to it."""
        return self.heads if self.mode == "features" and self.backbone_run is None else 1

    @property
    def members(self) -> tuple["Recipe", ...]:
        """The recipes whose runs an averaged ensemble is made of; empty for all others."""
        if self.partner is None or self.combine != "average":
            return ()
        return tuple(map(self.alone, self.backbones))

    def alone(self, name: BackboneName) -> "Recipe":
        """The recipe by one of its backbones only."""
        return self.model_copy(update={"partner": None, "combine": "concatenate", "backbone": name})

    def of_its_head(self, run_id: int) -> "Recipe":
        """The recipe that trains only the head anew, on what the backbone sees that run `run_id` trained by this one.

        Cells are shown as they are, so that their features are computed once, and the fit is the head's own.
        """
        own = {name: Recipe.model_fields[name].default for name in _OF_THE_FIT}
        as_they_are = dict.fromkeys(_CHANGING_CELLS, 0)
        update = own | as_they_are | {"mode": "features", "backbone_run": run_id}
        return make_recipe(self.model_dump() | update)

    @property
    def preparation(self) -> Preparation:
        """How a cell's picture becomes what the network sees."""
        return Preparation(self.image_size, self.crop, self.colours == "normalized")

    @property
    def augments_pixels(self) -> bool:
        """Whether training cells are changed by more than mirroring left to right and quarter turns."""
        upside_down = (
            self.flip_vertical and not self.quarter_turns
        )  # with them, it is a mirrored cell that is turned
        return upside_down or any((self.rotation, self.translation, self.stain, self.brightness, self.tint))

    @property
    def shares_patients(self) -> bool:
        """Whether patients may be in training and in test at once, which flatters every figure."""
        return self.split == "image"

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that tell the recipe from others."""
        fields = Recipe.model_fields
        same = {name for name in LATER_SETTINGS if getattr(self, name) == fields[name].default}
        return self.model_dump(exclude=same)

    @property
    def hash(self) -> str:
        """SHA-256 of what tells the recipe from others, as canonical JSON."""
        body = json.dumps(self.identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(body.encode()).hexdigest()


def make_recipe(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values (strings are converted). Recipes stored by older versions are understood.

    Raises:
        UserError: an unknown setting, a value out of range, or settings that contradict each other.
    """
    values = _as_now(values)
    unknown = sorted(set(values) - set(Recipe.model_fields))
    if unknown:
        known = sorted(Recipe.model_fields)
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"Unknown recipe setting {unknown[0]!r}.{hint} The settings are: {', '.join(known)}.")
    try:
        return Recipe(**values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise UserError(f"Recipe: {first['msg'].removeprefix('Value error, ')}.") from None
        name = str(first["loc"][0])
        raise UserError(
            f"Recipe setting {name} cannot be {_shown(values[name])}: it takes {allowed_values(name)}."
        ) from None


def allowed_values(name: str) -> str:
    """What a setting takes, in words: 'adam or sgd', 'a whole number from 1 to 500, or nothing'."""
    field = Recipe.model_fields[name]
    kinds = [kind for kind in _kinds(field.annotation) if kind is not type(None)]
    optional = ", or nothing" if len(kinds) < len(_kinds(field.annotation)) else ""
    if get_args(kinds[0]):
        return _either([str(value) for value in get_args(kinds[0])]) + optional
    if kinds[0] is bool:
        return "true or false"
    noun = "a whole number" if kinds[0] is int else "a number"
    return noun + _bounds(field.metadata) + optional


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _either(names: list[str]) -> str:
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _bounds(metadata: list[Any]) -> str:
    """The limits of a number; every one of ours has a lower one."""
    found = {
        key: getattr(one, key) for one in metadata for key in ("ge", "gt", "le", "lt") if hasattr(one, key)
    }
    low, high = found.get("ge"), found.get("le")
    if low is not None and high is not None:
        return f" from {low:,} to {high:,}"
    lower = f" above {found['gt']}" if low is None else f" of {low} or more"
    if high is not None:
        return f"{lower}, up to {high}"
    return f"{lower} and below {found['lt']}" if "lt" in found else lower


def _shown(value: Any) -> str:
    text = "nothing" if value is None or value == "" else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _as_now(values: dict[str, Any]) -> dict[str, Any]:
    """Settings that an earlier version wrote, in today's words."""
    if "class_weights" not in values or "imbalance" in values:
        return values
    rest = {key: value for key, value in values.items() if key != "class_weights"}
    weighed = str(values["class_weights"]).lower() not in ("false", "0", "no", "off")
    return {**rest, "imbalance": "class_weights" if weighed else "none"}
