"""Llama 1 to 3 and SmolLM2."""

import numpy as np

from icdm.errors import UserError
from icdm.models.transformer import ModelConfig
from icdm.published.architectures.architecture import Architecture, decoder
from icdm.published.architectures.attributes import Attributes
from icdm.published.architectures.rotary import llama3_divisors

# Slices of a product for several devices; names of SmolLM2's own converters.
WITHOUT_EFFECT = ("pretraining_tp", "is_llama_config", "transformers.js_config")


def _shape(attributes: Attributes) -> ModelConfig:
    for name in ("attention_bias", "mlp_bias", "rope_interleaved"):
        attributes.only(name, False)
    attributes.without_effect(WITHOUT_EFFECT)
    return decoder(attributes, rotary_base=10_000.0)  # Llama 2 gives no base


LLAMA = Architecture("LlamaForCausalLM", _shape)


def llama_attributes(config: ModelConfig, vocabulary: int) -> dict:
    """The config.json of a Llama model that was not read from one.

    Raises:
      UserError: divisors of the rotary frequencies other than those of Llama 3.1 and 3.2.
    """
    return {
        "architectures": [LLAMA.class_name],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_length,
        "rms_norm_eps": config.norm_epsilon,
        "rope_parameters": _rope_parameters(config),
        "attention_bias": False,
        "mlp_bias": False,
    }


def _rope_parameters(config: ModelConfig) -> dict:
    if not config.rotary_divisors:
        return {"rope_type": "default", "rope_theta": config.rotary_base}
    scaling = {
        "rope_type": "llama3",
        "rope_theta": config.rotary_base,
        "factor": round(max(config.rotary_divisors), 4),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    found = llama3_divisors(Attributes(scaling, "llama3"), config.rotary_base, config.head_width)
    if not np.allclose(found, config.rotary_divisors, rtol=1e-5):
        raise UserError("these divisors of the rotary frequencies cannot be written in config.json, only Llama 3's can")
    return scaling
