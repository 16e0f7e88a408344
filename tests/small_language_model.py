"""A language model of a few thousand random weights, in a GGUF file as llama.cpp writes it; one byte is one token."""

import gguf
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

WIDTH, LAYERS, HEADS, KV_HEADS, HIDDEN = 16, 2, 2, 1, 32


def permuted(weight, heads):
    """Rows of each head from the order i, i + D/2 to the order of rotary pairs in GGUF, 2i, 2i + 1."""
    out, width = weight.shape
    return weight.reshape(heads, 2, out // heads // 2, width).swapaxes(1, 2).reshape(out, width)


def write_language_model(path, *, merges=("Ā ā",), left_out=(), context=2048, seed=0, **metadata):
    """Writes the file and returns its tensors by their names there, rows of q and k not permuted.

    Args:
      merges: "left right" pairs that the tokenizer joins; by default of two bytes that no text holds.
      left_out: names of tensors that the file lacks.
      metadata: further fields of the architecture.
    """
    words = sorted(ByteLevel.alphabet()) + [pair.replace(" ", "") for pair in merges]
    rng = np.random.default_rng(seed)
    head_width = WIDTH // HEADS
    shapes = {"token_embd.weight": (len(words), WIDTH), "output_norm.weight": (WIDTH,)}
    for i in range(LAYERS):
        layer = {
            "attn_norm": (WIDTH,),
            "attn_q": (HEADS * head_width, WIDTH),
            "attn_k": (KV_HEADS * head_width, WIDTH),
            "attn_v": (KV_HEADS * head_width, WIDTH),
            "attn_output": (WIDTH, HEADS * head_width),
            "ffn_norm": (WIDTH,),
            "ffn_gate": (HIDDEN, WIDTH),
            "ffn_up": (HIDDEN, WIDTH),
            "ffn_down": (WIDTH, HIDDEN),
        }
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in layer.items()}
    tensors = {
        name: (1 + 0.1 * rng.normal(size=shape) if len(shape) == 1 else rng.normal(size=shape) / shape[-1] ** 0.5)
        for name, shape in shapes.items()
    }
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(words))
    writer.add_token_merges(list(merges))
    for name, value in metadata.items():
        writer.add_float32(f"llama.{name}", value)
    for name, tensor in tensors.items():
        if name not in left_out:
            heads = HEADS if "attn_q" in name else KV_HEADS if "attn_k" in name else 0
            stored = permuted(tensor, heads) if heads else tensor
            writer.add_tensor(name, np.ascontiguousarray(stored, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors
