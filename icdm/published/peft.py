"""Low-rank adapters as the package `peft` writes them: adapter_config.json, adapter_model.safetensors."""

import dataclasses
import math
import pathlib
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from icdm.errors import UserError
from icdm.files import write_json, write_tensors
from icdm.models.adapters import Adapters
from icdm.models.lora import Adapted
from icdm.models.transformer import ModelConfig, Transformer
from icdm.published.architectures.architecture import LAYER, MODULES
from icdm.published.architectures.attributes import Attributes
from icdm.published.huggingface import read_names, read_object
from icdm.published.tensors import check_names

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
KEY = "base_model.model." + LAYER + "{}.lora_{}.weight"  # layer, module, A or B
KEYS = re.compile(re.escape(KEY).replace(r"\{\}", r"(\d+)", 1).replace(r"\{\}", "(.+)"))
# Attributes that change nothing of what an adapter computes; the tensors say which modules have factors.
WITHOUT_EFFECT = {
    *("task_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "megatron_core", "runtime_config"),
    *("qalora_group_size", "ensure_weight_tying"),
}


def read_adapter(directory: pathlib.Path, config: ModelConfig) -> Adapters:
    """The adapters of a directory for a base model of this shape, float32.

    Ranks and scales may differ from layer to layer: factors of a smaller rank are filled up with zeros, a layer
    without factors has zeros alone, and B is multiplied by the scale.

    Raises:
      UserError: a file is missing or damaged, what the adapter does is not understood, or it was made for a base of
        another shape.
    """
    settings = _read_settings(directory)
    names = read_names(directory / WEIGHTS)
    found = [match.groups() for match in map(KEYS.fullmatch, names) if match]
    pairs = {(int(layer), module) for layer, module, _ in found if module in MODULES.values()}
    wanted = [KEY.format(*pair, part) for pair in pairs for part in "AB"]
    check_names(directory / WEIGHTS, wanted, names)
    if not pairs:
        raise UserError(f"{directory / WEIGHTS} holds no factors: get it again")
    arrays = safetensors.numpy.load_file(directory / WEIGHTS)
    matrices = Transformer.described(config, vocabulary=1).blocks.matrices()
    factors = {}
    for name, module in MODULES.items():
        a, b = ({layer: arrays[KEY.format(layer, m, part)].T for layer, m in pairs if m == module} for part in "AB")
        if not a:
            continue
        _, fan_in, fan_out = matrices[name].shape
        rank = max(low.shape[1] for low in a.values())
        all_a, all_b = (np.zeros((config.layers, *shape), np.float32) for shape in ((fan_in, rank), (rank, fan_out)))
        for layer, low in sorted(a.items()):
            r, high = low.shape[1], b[layer]
            if layer >= config.layers or low.shape != (fan_in, r) or high.shape != (r, fan_out):
                raise UserError(
                    f"{directory} is an adapter for another base: {module} of layer {layer} maps {len(low)} to "
                    f"{high.shape[1]} numbers in it, {fan_in} to {fan_out} in each of the {config.layers} layers here"
                )
            all_a[layer, :, :r] = low
            all_b[layer, :r] = settings.scale(LAYER.format(layer) + module, r) * high.astype(np.float32)
        factors[name] = {"a": jnp.asarray(all_a), "b": jnp.asarray(all_b)}
    return Adapters(factors, dropout=settings.dropout)


def write_adapter(directory: pathlib.Path, adapted: Adapted, base_name: str) -> None:
    """Writes the adapters of a model, float32; adapter_config.json comes last, each file whole or not at all.

    Args:
      base_name: the name of the base model, which `peft` loads if it is given no other.
    """
    adapters, tensors = adapted.adapters, {}
    for name, pair in adapters.factors.items():
        for layer in range(adapted.config.layers):
            for part, factor in (("A", pair["a"]), ("B", pair["b"])):
                array = np.asarray(factor[layer], np.float32).T
                tensors[KEY.format(layer, MODULES[name], part)] = np.ascontiguousarray(array)
    ranks = {MODULES[name].split(".")[-1]: pair["a"].shape[-1] for name, pair in adapters.factors.items()}
    rank = max(ranks.values())
    others = {module: r for module, r in ranks.items() if r != rank}
    directory.mkdir(parents=True, exist_ok=True)
    write_tensors(directory / WEIGHTS, tensors, {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "target_modules": sorted(ranks),
        "r": rank,
        "lora_alpha": _number(adapters.scale * rank),
        "rank_pattern": others,
        "alpha_pattern": {module: _number(adapters.scale * r) for module, r in others.items()},
        "lora_dropout": adapters.dropout,
        "bias": "none",
        "use_rslora": False,
    }
    write_json(directory / CONFIG, config)


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What an adapter_config.json says of the scales.

    Attributes:
      ranks, alphas: {pattern of the end of a module's name: the value in place of rank or alpha}.
      root: whether alpha is divided by the root of the rank (rank-stabilised).
    """

    where: str
    rank: int
    alpha: float
    ranks: dict[str, Any]
    alphas: dict[str, Any]
    root: bool
    dropout: float

    def scale(self, module: str, rank: int) -> float:
        """What the product of a module's factors, of this rank, is multiplied by."""
        said = _by_pattern(self.ranks, module, self.rank)
        if said != rank:
            raise UserError(f"{self.where}: the rank of {module} is {said}, its factors have {rank}: one is damaged")
        return _by_pattern(self.alphas, module, self.alpha) / (math.sqrt(rank) if self.root else rank)


def _read_settings(directory: pathlib.Path) -> _Settings:
    content = read_object(directory / CONFIG)
    # What is false or empty is a method that is not used.
    attributes = Attributes({n: x for n, x in content.items() if x or n == "lora_alpha"}, str(directory / CONFIG))
    attributes.only("peft_type", "LORA")
    attributes.only("bias", "none")
    attributes.only("init_lora_weights", True, "gaussian")  # some others change the base too
    attributes.without_effect(WITHOUT_EFFECT)
    settings = _Settings(
        where=attributes.where,
        rank=attributes.integer("r"),
        alpha=attributes.real("lora_alpha"),
        ranks=attributes.table("rank_pattern"),
        alphas=attributes.table("alpha_pattern"),
        root=attributes.value("use_rslora", False),
        dropout=attributes.real("lora_dropout") if "lora_dropout" in attributes else 0.0,
    )
    attributes.check_all_read()
    return settings


def _by_pattern(patterns: dict[str, Any], module: str, default: float) -> float:
    """The value of the first pattern that matches the end of a module's name, as `peft` finds it."""
    return next((x for pattern, x in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)), default)


def _number(x: float) -> float:
    return int(x) if x == int(x) else x
