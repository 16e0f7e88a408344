"""Qwen 2 and 2.5: biases of queries, keys and values, which no attribute announces."""

from icdm.models.transformer import ModelConfig
from icdm.published.architectures.architecture import LAYER, MODULES, TENSORS, Architecture, decoder
from icdm.published.architectures.attributes import Attributes
from icdm.published.architectures.windows import refuse_windows


def _shape(attributes: Attributes) -> ModelConfig:
    attributes.only("use_mrope", False)
    refuse_windows(attributes)
    return decoder(attributes, biases=True)


QWEN2 = Architecture(
    "Qwen2ForCausalLM", _shape, TENSORS | {f"blocks.{name}_bias": f"{LAYER}{MODULES[name]}.bias" for name in "qkv"}
)
