"""Hugging Face directories: config.json, safetensors of one file or several, tokenizer.json."""

import dataclasses
import functools
import json
import pathlib
import re

import numpy as np
import safetensors
import tokenizers

from icdm.errors import UserError, unknown
from icdm.published.architectures import ARCHITECTURES
from icdm.published.architectures.architecture import is_turned
from icdm.published.architectures.attributes import Attributes
from icdm.published.tensors import check_names

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
TOKENIZER_FILES = (TOKENIZER, TOKENIZER_CONFIG, "special_tokens_map.json", "chat_template.jinja")
DTYPES = ("F32", "F16", "BF16")
FREQUENCIES = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")  # Llama 2's converter wrote them


class Directory:
    """An opened Hugging Face directory (`icdm.published.model.Published`)."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.attributes = read_object(path / CONFIG)
        attributes = Attributes(self.attributes, str(path / CONFIG))
        kind = str(attributes.value("model_type"))
        if kind not in ARCHITECTURES:
            raise unknown(f"model_type in {attributes.where}", kind, ARCHITECTURES)
        self.architecture = ARCHITECTURES[kind]
        attributes.only("architectures", [self.architecture.class_name])
        self.vocabulary = attributes.integer("vocab_size")
        shape = self.architecture.shape(attributes)
        attributes.check_all_read()
        self.files = _files_of_tensors(path)
        self.config = dataclasses.replace(shape, tied_embedding=self._is_tied())
        self._check_names()

    @functools.cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        tokenizer = self._read_tokenizer()
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing("$A")  # adds no tokens of its own
        return tokenizer

    @functools.cached_property
    def bos(self) -> int | None:
        """What add_bos_token says; without it, the token that the tokenizer itself puts before a text."""
        file = self.path / TOKENIZER_CONFIG
        settings = read_object(file) if file.exists() else {}
        if settings.get("add_bos_token") is None:
            encoded = self._read_tokenizer().encode("0")
            return encoded.ids[0] if encoded.special_tokens_mask[0] else None
        if not settings["add_bos_token"]:
            return None
        token = settings.get("bos_token")
        id = self.tokenizer.token_to_id(token["content"] if isinstance(token, dict) else str(token))
        if id is None:
            raise UserError(f"{file}: add_bos_token is set, but bos_token {token!r} is not in the vocabulary")
        return id

    def weight(self, name: str, layer: int | None) -> np.ndarray:
        array = self._tensor(self.architecture.tensors[name].format(layer))
        return array.T if is_turned(name) else array

    def tokenizer_files(self) -> dict[str, str]:
        files = (self.path / name for name in TOKENIZER_FILES)
        return {file.name: file.read_text(encoding="utf-8") for file in files if file.exists()}

    def _read_tokenizer(self) -> tokenizers.Tokenizer:
        file = self.path / TOKENIZER
        if not file.is_file():
            raise UserError(f"{file} is missing: write it with save_pretrained of the model's fast tokenizer")
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the package raises nothing more special
            raise UserError(f"{file} cannot be read ({_line(error)}): get it again") from None
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    def _tensor(self, stored: str) -> np.ndarray:
        # Opened anew each time: the pages of a file that stays open count as memory of the process.
        with safetensors.safe_open(self.files[stored], framework="numpy") as file:
            return file.get_tensor(stored)

    def _is_tied(self) -> bool:
        """Whether there is no output matrix; one that is there although the config says tied must be the embedding."""
        embed, unembed = (self.architecture.tensors[name] for name in ("embed", "unembed"))
        if unembed not in self.files:
            return True
        tied = bool(self.attributes.get("tie_word_embeddings"))
        if tied and embed in self.files and not np.array_equal(self._tensor(embed), self._tensor(unembed)):
            raise UserError(f"{self.path}: {unembed} differs from {embed}, but tie_word_embeddings is set: unset it")
        return tied

    def _check_names(self) -> None:
        """Raises UserError unless the files hold exactly the tensors of the architecture."""
        unembed = self.architecture.tensors["unembed"]
        wanted = {
            name.format(layer)
            for name in self.architecture.tensors.values()
            for layer in range(self.config.layers if "{}" in name else 1)
            if not (name == unembed and self.config.tied_embedding)
        }
        frequencies = {name for name in self.files if FREQUENCIES.fullmatch(name)}
        check_names(
            self.path, wanted, self.files.keys() - frequencies - ({unembed} if self.config.tied_embedding else set())
        )
        c = self.config
        divisors = np.array(c.rotary_divisors or 1.0)
        expected = c.rotary_base ** (-2 * np.arange(c.head_width // 2) / c.head_width) / divisors
        for name in frequencies:
            found = self._tensor(name).astype(np.float64)
            if found.shape != expected.shape or not np.allclose(found, expected, rtol=0.01):
                raise UserError(f"{self.path}: {name} holds other frequencies than {CONFIG} describes")


def open_directory(path: pathlib.Path) -> Directory:
    """The model of a Hugging Face directory.

    Raises:
      UserError: a file is missing or damaged, or an attribute or a tensor is not understood.
    """
    return Directory(path)


def read_object(path: pathlib.Path) -> dict:
    """The JSON object of a file.

    Raises:
      UserError: the file is missing, or it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: give a directory that has one") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({_line(error)}): get it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object: get it again")
    return content


def read_names(path: pathlib.Path) -> list[str]:
    """The names of the tensors of a safetensors file.

    Raises:
      UserError: the file is missing, damaged or cut short, or a tensor has another type than DTYPES.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: get it again")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (no dictionary)
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} cannot be read as safetensors ({_line(error)}): get it again") from None
    for name, dtype in types.items():
        if dtype not in DTYPES:
            raise UserError(f"{path}: tensor {name} of type {dtype} is not understood, only {', '.join(DTYPES)} are")
    return list(types)


def _files_of_tensors(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """The file of each tensor; the index of several files has to say the same as the files themselves."""
    if (path / WEIGHTS).is_file():
        return dict.fromkeys(read_names(path / WEIGHTS), path / WEIGHTS)
    if not (path / INDEX).is_file():
        raise UserError(f"{path} holds neither {WEIGHTS} nor {INDEX}: save the model with safetensors")
    weight_map = Attributes(read_object(path / INDEX), str(path / INDEX)).table("weight_map")
    indexed = {name: path / str(file) for name, file in weight_map.items()}
    files = sorted(set(indexed.values()))
    found = {f"{name} of {file.name}" for file in files for name in read_names(file)}
    check_names(path / INDEX, found, {f"{name} of {file.name}" for name, file in indexed.items()})
    return indexed


def _line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:120]
