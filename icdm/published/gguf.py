"""Reading GGUF files, the format of llama.cpp, by the package `gguf`; only the architecture llama.

A tensor of dimensions [in, out] lies in the file as `out` rows of `in` numbers. Rows of attn_q and attn_k are
permuted there for rotary pairs (2i, 2i + 1); here they are put back for pairs (i, i + D/2). Norms and embeddings are as
they are.
"""

import functools
import pathlib
import re

import gguf
import numpy as np
import tokenizers

from icdm.errors import UserError
from icdm.models.transformer import ModelConfig
from icdm.published.tokenizer import byte_pairs

NAMES = {  # of a weight, and whether the file holds it as (out, in)
    "embed": ("token_embd.weight", False),
    "unembed": ("output.weight", True),
    "norm": ("output_norm.weight", False),
    "blocks.attention_norm": ("blk.{}.attn_norm.weight", False),
    "blocks.q": ("blk.{}.attn_q.weight", True),
    "blocks.k": ("blk.{}.attn_k.weight", True),
    "blocks.v": ("blk.{}.attn_v.weight", True),
    "blocks.o": ("blk.{}.attn_output.weight", True),
    "blocks.mlp_norm": ("blk.{}.ffn_norm.weight", False),
    "blocks.gate": ("blk.{}.ffn_gate.weight", True),
    "blocks.up": ("blk.{}.ffn_up.weight", True),
    "blocks.down": ("blk.{}.ffn_down.weight", True),
}
ROTARY = "rope_freqs.weight"  # what the frequencies are divided by
# Metadata of the architecture that are read, or that say nothing about the computation.
READ = {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "vocab_size",
}


class GGUF:
    """An opened GGUF file (`icdm.published.model.Published`)."""

    def __init__(self, path: pathlib.Path, reader: gguf.GGUFReader):
        self.path, self.reader = path, reader
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.config = self._config()
        self.vocabulary = int(self.tensors["token_embd.weight"].shape[1])
        self._check_names()

    @functools.cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        def metadata(name: str, default: object = None):
            return self._metadata(f"tokenizer.ggml.{name}", default)

        if metadata("model") != "gpt2":
            raise UserError(
                f"{self.path}: tokenizer {metadata('model')!r} is not known, only byte-level pairs (gpt2) are: "
                "use the Hugging Face directory of the model"
            )
        kinds = zip(metadata("tokens"), metadata("token_type"))
        special = [word for word, kind in kinds if kind == gguf.TokenType.CONTROL]
        return byte_pairs(metadata("tokens"), metadata("merges"), special, metadata("pre", "default"), str(self.path))

    @property
    def bos(self) -> int | None:
        if not self._metadata("tokenizer.ggml.add_bos_token", False):
            return None
        return self._metadata("tokenizer.ggml.bos_token_id")

    def weight(self, name: str, layer: int | None) -> np.ndarray:
        stored, turned = NAMES[name]
        array = self._array(stored.format(layer))
        heads = {"blocks.q": self.config.heads, "blocks.k": self.config.kv_heads}
        if name in heads:
            array = _unpermuted(array, heads[name])
        return array.T if turned else array

    def _config(self) -> ModelConfig:
        architecture = self._metadata("general.architecture")
        if architecture != "llama":
            raise UserError(f"{self.path}: architecture {architecture!r} is not understood in GGUF, only llama is")
        prefix = f"{architecture}."
        for field in self.reader.fields:
            if field.startswith(prefix) and field.removeprefix(prefix) not in READ:
                raise UserError(f"{self.path}: attribute {field} is not understood")

        def of(name: str, default: object = None):
            return self._metadata(prefix + name, default)

        heads, width = of("attention.head_count"), of("embedding_length")
        head_width = of("attention.key_length", of("rope.dimension_count", width // heads))
        for name in ("attention.value_length", "rope.dimension_count"):
            if of(name, head_width) != head_width:
                raise UserError(f"{self.path}: {prefix}{name} {of(name)} differs from the width of a key {head_width}")
        divisors = tuple(self._array(ROTARY).tolist()) if ROTARY in self.tensors else ()
        return ModelConfig(
            width=width,
            layers=of("block_count"),
            heads=heads,
            kv_heads=of("attention.head_count_kv", heads),
            hidden=of("feed_forward_length"),
            rotary_base=float(of("rope.freq_base", 10_000.0)),
            rotary_divisors=divisors,
            max_length=of("context_length"),
            head_width=head_width,
            tied="output.weight" not in self.tensors,
            norm_epsilon=float(of("attention.layer_norm_rms_epsilon")),
        )

    def _check_names(self) -> None:
        """Raises UserError unless the file holds exactly the tensors of its architecture."""
        names = {stored for name, (stored, _) in NAMES.items() if not (name == "unembed" and self.config.tied)}
        wanted = {name.format(i) for name in names for i in range(self.config.layers if "{}" in name else 1)}
        missing, left = sorted(wanted - self.tensors.keys()), sorted(self.tensors.keys() - wanted - {ROTARY})
        if missing or left:
            what = f"is missing {', '.join(missing[:4])}" if missing else f"holds unknown tensors {', '.join(left[:4])}"
            raise UserError(f"{self.path} {what}: it is not a plain llama model, or it is damaged")

    def _array(self, name: str) -> np.ndarray:
        """A tensor as real numbers, in the file's order (out, in)."""
        tensor = self.tensors[name]
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        return array.reshape(tensor.shape[::-1].tolist())

    def _metadata(self, name: str, default: object = None):
        field = self.reader.fields.get(name)
        if field is None and default is None:
            raise UserError(f"{self.path}: the metadata {name} is missing")
        return default if field is None else field.contents()


def open_gguf(path: pathlib.Path) -> GGUF:
    """The model of a GGUF file.

    Raises:
      UserError: it is cut short or not GGUF, or it holds what is not understood.
    """
    try:
        return GGUF(path, gguf.GGUFReader(path))
    except (ValueError, IndexError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read as GGUF ({re.sub(chr(10), ' ', str(error))[:120]}): get it again"
        ) from None


def _unpermuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from the order 0, D/2, 1, D/2 + 1, ... back to 0, 1, 2, ..."""
    out, width = weight.shape
    return weight.reshape(heads, out // heads // 2, 2, width).swapaxes(1, 2).reshape(out, width)
