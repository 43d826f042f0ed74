"""How many tokens the images of a request are: patches that the vision encoder sees, tokens that the decoder sees.

    stride = patch x merge; height and width are rounded to multiples of it, at least one
    patches = (height / patch) x (width / patch), tokens = patches / merge^2

With data parallel encoding every rank of a tensor parallel group takes whole images and the results are gathered;
otherwise all ranks share every image. Operators of an encoder see patches; those behind the merge a share of them.
Source: specs/search_model.md 1.7.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from serveopt.errors import ConfigError
from serveopt.perfdata.model_config import ModelConfig
from serveopt.solver.families.table import Setting, ceil_div

ENCODED_FAMILIES = frozenset(("QWEN3VL", "QWEN3VL_MOE"))
ELEMENT_BYTES = 2  # bfloat16
LEAST_BYTES = 32 * 2**20  # of activations of an encoder


@dataclass(frozen=True, slots=True)
class Images:
    """Images and what each becomes: patches that the encoder sees, tokens that the decoder sees."""

    images: int = 0
    patches_per_image: int = 0
    tokens_per_image: int = 0

    @property
    def patches(self) -> int:
        """Patches of all images: tokens of the operators of an encoder."""
        return self.images * self.patches_per_image

    @property
    def tokens(self) -> int:
        """Tokens of all images, which the decoder sees beside the text of the prompt."""
        return self.images * self.tokens_per_image


def vision_config(model: ModelConfig) -> Mapping[str, Any]:
    """The encoder's part of the config; empty for a model without one."""
    section: Mapping[str, Any] = model.extra.get("vision_config", {})
    return section


def measure_images(model: ModelConfig, height: int, width: int, images: int) -> Images:
    """``images`` of one size; none for a size of zero, ConfigError for a model whose encoder is not described.

    >>> from serveopt.perfdata.catalogue import load_model
    >>> measure_images(load_model("Qwen/Qwen3-VL-8B-Instruct"), 448, 448, 2)
    Images(images=2, patches_per_image=784, tokens_per_image=196)
    """
    if not height or not width or not images:
        return Images()
    if model.family not in ENCODED_FAMILIES:
        raise ConfigError(f"{model.name} takes no images here", field="image_height", hint="only Qwen3-VL does")
    vision = vision_config(model)
    patch, merge = vision["patch_size"], vision.get("spatial_merge_size", 1)
    stride = patch * merge
    rows, columns = (max(stride, round(side / stride) * stride) for side in (height, width))
    return Images(images, (rows // patch) * (columns // patch), (rows // stride) * (columns // stride))


def request_images(setting: Setting) -> Images:
    """The images of one request."""
    return measure_images(setting.model, *setting.image)


def count_images(setting: Setting, batch: int = 1) -> Images:
    """The images that the encoder of one GPU takes in for ``batch`` requests."""
    if not setting.encodes:
        return Images()
    request = request_images(setting)
    images = batch * request.images
    return replace(request, images=ceil_div(images, setting.layout.tp) if setting.encoder_dp else images)


def encoder_bytes(setting: Setting, batch: int) -> float:
    """Bytes of activations of the encoder on one GPU, without its weights."""
    request, vision = request_images(setting), vision_config(setting.model)
    if not request.images or not setting.encodes:
        return 0.0
    instances = 1 + len(vision.get("deepstack_visual_indexes", ()))
    seen = count_images(setting, batch).patches * vision["hidden_size"] * 3
    merged = batch * request.tokens * vision["out_hidden_size"] * instances
    return float(max(ELEMENT_BYTES * (seen + merged), LEAST_BYTES))
