"""What an architecture of the Llama family consists of: its attributes in config.json and the names of its tensors."""

import dataclasses
from collections.abc import Callable
from typing import Any

from icdm.models.transformer import MATRICES, ModelConfig
from icdm.published.architectures.attributes import Attributes
from icdm.published.architectures.rotary import rotary

MODULES = {  # the linear maps of a layer
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
LAYER = "model.layers.{}."
TENSORS = {
    "embed": "model.embed_tokens.weight",
    "unembed": "lm_head.weight",
    "norm": "model.norm.weight",
    "blocks.attention_norm": LAYER + "input_layernorm.weight",
    "blocks.mlp_norm": LAYER + "post_attention_layernorm.weight",
} | {f"blocks.{name}": f"{LAYER}{module}.weight" for name, module in MODULES.items()}
# Attributes of every architecture that change nothing in the computation of logits. `tie_word_embeddings` is decided
# by the tensors, and the precision by the tensors too.
WITHOUT_EFFECT = {
    *("_name_or_path", "model_type", "transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range"),
    *("attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"),
    "_attn_implementation_autoset",
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How one architecture is written in a Hugging Face directory.

    Attributes:
      class_name: its class in transformers.
      shape: the model that the attributes describe, `tied_embedding` aside; it reads or refuses each of them.
      tensors: the tensor of each weight of a `Transformer`, with {} for the layer.
    """

    class_name: str
    shape: Callable[[Attributes], ModelConfig]
    tensors: dict[str, str] = dataclasses.field(default_factory=lambda: TENSORS)


def is_turned(name: str) -> bool:
    """Whether a weight of a `Transformer`, (in, out), is stored as (out, in)."""
    return name == "unembed" or name.removeprefix("blocks.") in MATRICES


def decoder(
    attributes: Attributes, head_width: int | None = None, rotary_base: float | None = None, **special: Any
) -> ModelConfig:
    """The shape that all architectures of the family share.

    Args:
      head_width, rotary_base: of a config.json that lacks them; head_width is then width / heads if it is None.
      special: further fields of the config.
    """
    attributes.only("hidden_act", "silu")
    attributes.without_effect(WITHOUT_EFFECT)
    width, heads = attributes.integer("hidden_size"), attributes.integer("num_attention_heads")
    head_width = attributes.integer("head_dim", head_width or width // heads)
    base, divisors = rotary(attributes, head_width, rotary_base)
    return ModelConfig(
        width=width,
        layers=attributes.integer("num_hidden_layers"),
        heads=heads,
        kv_heads=attributes.integer("num_key_value_heads", heads),
        hidden=attributes.integer("intermediate_size"),
        rotary_base=base,
        rotary_divisors=divisors,
        max_length=attributes.integer("max_position_embeddings"),
        head_width=head_width,
        norm_epsilon=attributes.real("rms_norm_eps"),
        **special,
    )
