"""A published model, its adapters merged into it, as a Hugging Face directory."""

import pathlib

import numpy as np

from icdm.files import write_json, write_tensors, write_text
from icdm.models.transformer import Transformer
from icdm.published.architectures import ARCHITECTURES
from icdm.published.architectures.architecture import is_turned
from icdm.published.huggingface import CONFIG, WEIGHTS
from icdm.published.model import Published


def write_merged(directory: pathlib.Path, model: Transformer, published: Published) -> None:
    """Writes a Hugging Face directory that transformers loads; config.json comes last, each file whole or not at all.

    Args:
      model: the published model, its adapters merged into it; its weights are written in their own precision.
      published: where its architecture and its tokenizer come from.

    Raises:
      UserError: the architecture cannot say how the model's positions are stretched.
    """
    attributes = {n: value for n, value in published.attributes.items() if n not in ("torch_dtype", "dtype")}
    names = ARCHITECTURES[attributes["model_type"]].tensors
    tensors = {}
    for name, weight in model.named_weights().items():
        layers = enumerate(weight) if name.startswith("blocks.") else [(None, weight)]
        for layer, array in layers:
            array = np.asarray(array)
            tensors[names[name].format(layer)] = np.ascontiguousarray(array.T if is_turned(name) else array)
    directory.mkdir(parents=True, exist_ok=True)
    write_tensors(directory / WEIGHTS, tensors, {"format": "pt"})
    for name, text in published.tokenizer_files().items():
        write_text(directory / name, text)
    dtype = str(model.embed[...].dtype)
    write_json(directory / CONFIG, attributes | {"dtype": dtype, "tie_word_embeddings": model.config.tied_embedding})
