"""Byte-level pair encodings from the vocabulary and the merges that a GGUF file holds."""

from collections.abc import Sequence

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from icdm.errors import unknown

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


def _by_pattern(digits: int) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(_SPLIT % digits), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


# How a text is cut before pairs are merged, by the names of llama.cpp.
CUTS = {
    "default": _gpt2,
    "gpt-2": _gpt2,
    "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()]),
    "llama-bpe": lambda: _by_pattern(3),
    "qwen2": lambda: _by_pattern(1),
}
WHOLE = {"llama-bpe"}  # a word of the vocabulary is one id, whatever the merges say
BEGIN = {"llama-bpe"}  # every text begins with BOS, unless the file says otherwise


def byte_pairs(
    words: Sequence[str], merges: Sequence[str], special: Sequence[str], cut: str, path: str
) -> tokenizers.Tokenizer:
    """A tokenizer that adds no tokens of its own.

    Args:
      words: the text of each id.
      merges: "left right" pairs, the first to be merged first.
      special: words that stand for themselves wherever they occur.
      cut: one of CUTS.

    Raises:
      UserError: a cut that is not known.
    """
    if cut not in CUTS:
        raise unknown(f"way to cut a text in {path}, tokenizer.ggml.pre", cut, CUTS)
    ids = {word: i for i, word in enumerate(words)}
    pairs = [tuple(pair.split(" ")) for pair in merges]
    built = tokenizers.Tokenizer(models.BPE(ids, pairs, ignore_merges=cut in WHOLE))
    built.pre_tokenizer = CUTS[cut]()
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    return built
