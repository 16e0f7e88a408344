"""How many operations a training step asks for, whatever the program does to get them."""

from icdm.models.transformer import ModelConfig


def matrix_weights(config: ModelConfig) -> int:
    """Weights of the matrices that every position goes through: of the layers, and of what mixes positions."""
    c = config
    heads = (2 * c.heads + 2 * c.kv_heads) * c.head_width
    mlp = (3 if c.mlp == "gated" else 2) * c.hidden
    return c.layers * c.width * (heads + mlp) + c.mixing * c.width**2


def training_flops(config: ModelConfig, length: int, scored: int = 0, frozen: bool = False) -> float:
    """Operations of a training step for each position of a row (Kaplan et al., 2020; Chowdhery et al., 2022):

        3 (2 N + 2 X H D L)

    N weights are multiplied with every position, and 2 X H D L is causal attention counted once: a position of a row
    of L attends to L / 2 on average, in two products of 2 X H D each. The backward pass asks for twice the forward
    pass, or as much again if the weights are frozen and only adapters beside them learn. What is computed again to
    save memory does not count.

    Args:
      length: L, positions of a row.
      scored: over how many words each position has logits.
    """
    weights = matrix_weights(config) + config.width * scored
    attention = 2 * config.layers * config.heads * config.head_width * length
    return (2 if frozen else 3) * 2 * weights + 3 * attention
