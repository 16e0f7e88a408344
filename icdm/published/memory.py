"""The memory of training adapters beside a published model, from shapes alone: nothing is read or allocated."""

import jax
import jax.numpy as jnp
import numpy as np

from icdm.models.lora import LoraConfig, init_factors
from icdm.models.transformer import ModelConfig, Transformer

LLAMA_2_7B = ModelConfig(
    width=4096,
    layers=32,
    heads=32,
    kv_heads=32,
    hidden=11_008,
    max_length=4096,
    dtype="bfloat16",
    remat=True,
    norm_epsilon=1e-5,
)
LLAMA_2_WORDS = 32_000


def adapter_training_bytes(
    config: ModelConfig, vocabulary: int, lora: LoraConfig, rows: int, length: int, scored: int
) -> dict[str, int]:
    """Bytes of one step of AdamW on adapters, by what they hold; on one device, with rematerialisation.

    Weights are in the precision of the computation, of s bytes a number; adapters, their gradients and the two moments
    are float32. Activations are, for B rows of L positions (D width, F hidden units, H heads, N and M numbers of a
    query and of a key or value in all heads):

    - inputs of layers, which are kept: s X B L D;
    - one layer, computed again, and as much for its gradients:
      2 B L (s (6 D + 3 N + 4 M + 4 F) + 8 D + (4 + s) 5/8 H L), the last term being the weights of attention, in
      blocks of queries that leave out 3/8 of the keys; 8 D are two norms in float32;
    - logits of the scored positions of each row and their gradients: 8 B scored V.

    In float32 on CPU, XLA reserves within a tenth of this. In bfloat16 it needs more there, because it computes in
    float32.

    Args:
      scored: positions of a row at which the loss reads the whole vocabulary.
    """
    model = Transformer.described(config, vocabulary, numbers=0)
    factors = jax.eval_shape(lambda m: init_factors(m, lora, jax.random.key(0)), model)
    size = jnp.dtype(config.dtype).itemsize
    weights, adapters = (sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree)) for tree in (model, factors))
    D, F, H, L = config.width, config.hidden, config.heads, length
    N, M = config.heads * config.head_width, config.kv_heads * config.head_width
    layer = size * (6 * D + 3 * N + 4 * M + 4 * F) + 8 * D + (4 + size) * 5 * H * L // 8
    return {
        "weights": size * weights,
        "adapters": 4 * adapters,
        "moments": 8 * adapters,
        "gradients": 4 * adapters,
        "inputs of layers": size * config.layers * rows * L * D,
        "one layer": 2 * rows * L * layer,
        "logits": 8 * rows * scored * vocabulary,
    }
