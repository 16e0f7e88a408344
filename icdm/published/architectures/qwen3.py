"""Qwen 3: queries and keys of each head are normalised, and the width of a head is an attribute of its own."""

from icdm.models.transformer import ModelConfig
from icdm.published.architectures.architecture import LAYER, TENSORS, Architecture, decoder
from icdm.published.architectures.attributes import Attributes
from icdm.published.architectures.windows import refuse_windows


def _shape(attributes: Attributes) -> ModelConfig:
    attributes.only("attention_bias", False)
    refuse_windows(attributes)
    return decoder(attributes, head_width=128, head_norms=True)  # 128 is what transformers takes for a missing one


QWEN3 = Architecture(
    "Qwen3ForCausalLM",
    _shape,
    TENSORS | {f"blocks.{name}_norm": f"{LAYER}self_attn.{name}_norm.weight" for name in "qk"},
)
