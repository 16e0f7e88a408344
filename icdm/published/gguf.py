"""Reading GGUF files, the format of llama.cpp, by the package `gguf`; only the architecture llama.

A tensor of dimensions [in, out] lies in the file as `out` rows of `in` numbers. Rows of attn_q and attn_k are permuted
there for rotary pairs (2i, 2i + 1); here they are put back for pairs (i, i + D/2). Norms and embeddings are as they
are.
"""

import dataclasses
import functools
import json
import math
import pathlib
import re

import gguf
import numpy as np
import tokenizers

from icdm.errors import UserError
from icdm.models.transformer import ModelConfig
from icdm.published.architectures.llama import llama_attributes
from icdm.published.tensors import check_names
from icdm.published.tokenizer import BEGIN, byte_pairs

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


@dataclasses.dataclass(frozen=True)
class _Stored:
    """Where a tensor lies in the file.

    Attributes:
      shape: as real numbers, (out, in).
      rows, dtype: shape and type of the encoded array.
      kind: of the encoding.
      offset: of the encoded array, in bytes.
    """

    shape: tuple[int, ...]
    rows: tuple[int, ...]
    dtype: np.dtype
    kind: gguf.GGMLQuantizationType
    offset: int

    @classmethod
    def of(cls, tensor: gguf.ReaderTensor) -> "_Stored":
        shape = tuple(tensor.shape[::-1].tolist())
        return cls(shape, tensor.data.shape, tensor.data.dtype, tensor.tensor_type, tensor.data_offset)


class GGUF:
    """An opened GGUF file (`icdm.published.model.Published`)."""

    def __init__(self, path: pathlib.Path, reader: gguf.GGUFReader):
        self.path = path
        # The reader is not kept: its view of each word of the vocabulary takes more memory than the words.
        self.metadata = {name: field.contents() for name, field in reader.fields.items()}
        self.tensors = {tensor.name: _Stored.of(tensor) for tensor in reader.tensors}
        self.config = self._config()
        self.vocabulary = int(self.tensors["token_embd.weight"].shape[0])
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
        begins = self._metadata("tokenizer.ggml.pre", "default") in BEGIN
        if not self._metadata("tokenizer.ggml.add_bos_token", begins):
            return None
        return self._metadata("tokenizer.ggml.bos_token_id")

    @functools.cached_property
    def attributes(self) -> dict:
        return llama_attributes(self.config, self.vocabulary) | {f"{name}_id": i for name, i in self._special().items()}

    def tokenizer_files(self) -> dict[str, str]:
        tokenizer = tokenizers.Tokenizer.from_str(self.tokenizer.to_str())
        settings = {name: tokenizer.id_to_token(id) for name, id in self._special().items()}
        if self.bos is not None:
            bos = settings["bos_token"]
            tokenizer.post_processor = tokenizers.processors.TemplateProcessing(f"{bos} $A", None, [(bos, self.bos)])
        if template := self._metadata("tokenizer.chat_template", ""):
            settings["chat_template"] = template
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": self.bos is not None}
        return {
            "tokenizer.json": tokenizer.to_str(pretty=True),
            "tokenizer_config.json": json.dumps(settings, indent=2),
        }

    def weight(self, name: str, layer: int | None) -> np.ndarray:
        stored, turned = NAMES[name]
        array = self._array(stored.format(layer))
        heads = {"blocks.q": self.config.heads, "blocks.k": self.config.kv_heads}
        if name in heads:
            array = _unpermuted(array, heads[name])
        return array.T if turned else array

    def _special(self) -> dict[str, int]:
        """The ids of the special tokens that there are."""
        names = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding"}
        ids = {name: self._metadata(f"tokenizer.ggml.{field}_token_id", -1) for name, field in names.items()}
        return {name: id for name, id in ids.items() if id >= 0}

    def _config(self) -> ModelConfig:
        architecture = self._metadata("general.architecture")
        if architecture != "llama":
            raise UserError(f"{self.path}: architecture {architecture!r} is not understood in GGUF, only llama is")
        prefix = f"{architecture}."
        for field in self.metadata:
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
            tied_embedding="output.weight" not in self.tensors,
            norm_epsilon=float(of("attention.layer_norm_rms_epsilon")),
        )

    def _check_names(self) -> None:
        """Raises UserError unless the file holds exactly the tensors of its architecture."""
        names = {
            stored for name, (stored, _) in NAMES.items() if not (name == "unembed" and self.config.tied_embedding)
        }
        wanted = {name.format(i) for name in names for i in range(self.config.layers if "{}" in name else 1)}
        check_names(self.path, wanted, self.tensors.keys() - {ROTARY})

    def _array(self, name: str) -> np.ndarray:
        """A tensor as real numbers, in the file's order (out, in)."""
        tensor = self.tensors[name]
        # Read anew each time: the pages of a file that is mapped count as memory of the process.
        data = np.fromfile(self.path, tensor.dtype, math.prod(tensor.rows), offset=tensor.offset)
        return gguf.quants.dequantize(data.reshape(tensor.rows), tensor.kind).reshape(tensor.shape)

    def _metadata(self, name: str, default: object = None):
        value = self.metadata.get(name, default)
        if value is None:
            raise UserError(f"{self.path}: the metadata {name} is missing")
        return value


@functools.lru_cache(maxsize=2)  # its tables of words take seconds to read
def open_gguf(path: pathlib.Path, changed: int) -> GGUF:
    """The model of a GGUF file.

    Args:
      changed: when the file was written; one that has changed is read again.

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
