"""Sliding windows of attention, which Qwen's config.json describes even where no layer has one."""

from icdm.errors import UserError
from icdm.published.architectures.attributes import Attributes


def refuse_windows(attributes: Attributes) -> None:
    """Raises UserError if a layer attends within a window; the attributes that then say nothing are read."""
    layers = attributes.integer("num_hidden_layers")
    attributes.only("layer_types", ["full_attention"] * layers)
    windows = attributes.value("use_sliding_window", False) and "layer_types" not in attributes
    if windows and attributes.integer("max_window_layers", 28) < layers:
        raise UserError(
            f"{attributes.where}: attribute use_sliding_window: attention within a window is not understood"
        )
    attributes.without_effect(("sliding_window", "max_window_layers"))
