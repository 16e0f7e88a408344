"""Makes tests/data/published: tiny models of random weights, an adapter, and their logits by transformers and peft.

Run by a Python of its own: python -m venv ENV; ENV/bin/pip install torch==2.13.0 transformers peft; then
ENV/bin/python tests/make_published.py. The versions are kept in versions.json.

Each model is a Hugging Face directory; beside it NAME.safetensors holds 128 ids, 16 columns, and the float32 logits of
these columns after each id.
"""

import json
import pathlib
import shutil

import numpy as np
import peft
import safetensors.numpy
import tokenizers
import torch
import transformers
from transformers_logits import logits

FOLDER = pathlib.Path(__file__).parent / "data" / "published"
LENGTH, COLUMNS = 128, 16
WORDS = 264  # 256 bytes, 5 pairs, 3 special
COMMON = dict(
    vocab_size=WORDS,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    initializer_range=0.25,  # attention that is far from uniform, so that a wrong rotation moves the logits
)


def randomize(model):
    """Norms and biases begin at one and zero, where an error in them would not show."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight") or name.endswith("bias"):
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)


def make(name, config, dtype, shard="1GB"):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    randomize(model)
    model.to(dtype).save_pretrained(FOLDER / name, max_shard_size=shard)
    (FOLDER / name / "generation_config.json").unlink()
    # The weights as they were rounded, the computation in float32.
    expect(name, transformers.AutoModelForCausalLM.from_pretrained(FOLDER / name, dtype=torch.float32).eval())


def expect(name, model):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, WORDS, LENGTH).astype(np.int32)
    columns = np.sort(rng.choice(WORDS, COLUMNS, replace=False)).astype(np.int32)
    expected = {"ids": ids, "columns": columns, "logits": np.ascontiguousarray(logits(model, ids)[:, columns])}
    safetensors.numpy.save_file(expected, FOLDER / f"{name}.safetensors")


def add_tokenizer(directory):
    """Byte-level pairs; a post-processor begins every text with <bos>, as in Llama 3, and no add_bos_token says so."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    pairs = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("1", "2"), ("A", "4")]
    words = ["<bos>", "<eos>", "<pad>", *alphabet, *(a + b for a, b in pairs)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({word: i for i, word in enumerate(words)}, pairs))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<bos>", "<eos>", "<pad>"])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("<bos> $A", None, [("<bos>", 0)])
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings) + "\n")


def add_adapter(name, base):
    model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER / base, dtype=torch.float32)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=True,
        lora_dropout=0.1,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
        rank_pattern={"layers.1.self_attn.q_proj": 2, "down_proj": 3},
        alpha_pattern={"layers.0.self_attn.v_proj": 11, "up_proj": 2.5},
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(0)
    model = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(2)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:  # they begin at zero
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(FOLDER / name)
    (FOLDER / name / "README.md").unlink()
    file = FOLDER / name / "adapter_config.json"
    saved = json.loads(file.read_text())
    saved |= {"base_model_name_or_path": base, "target_modules": sorted(saved["target_modules"])}
    file.write_text(json.dumps(saved, indent=2) + "\n")
    expect(name, model.eval())


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    scaling = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
    rope = dict(rope_type="llama3", rope_theta=10_000.0, **scaling)
    llama = transformers.LlamaConfig(**COMMON, rope_parameters=rope, tie_word_embeddings=True, bos_token_id=0)
    make("llama", llama, torch.bfloat16)
    add_tokenizer(FOLDER / "llama")
    rope = dict(rope_type="default", rope_theta=1_000_000.0)
    make("qwen2", transformers.Qwen2Config(**COMMON, rope_parameters=rope, tie_word_embeddings=False), torch.float16)
    make("qwen3", transformers.Qwen3Config(**COMMON, rope_parameters=rope, head_dim=16), torch.float32, "80kB")
    add_adapter("adapter", "qwen2")
    versions = {package.__name__: package.__version__ for package in (torch, transformers, peft)}
    (FOLDER / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
