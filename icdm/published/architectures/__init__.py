"""The architectures of Hugging Face directories, by the `model_type` of config.json."""

from icdm.published.architectures.llama import LLAMA
from icdm.published.architectures.qwen2 import QWEN2
from icdm.published.architectures.qwen3 import QWEN3

ARCHITECTURES = {"llama": LLAMA, "qwen2": QWEN2, "qwen3": QWEN3}
