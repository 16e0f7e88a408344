"""A plain GPT in PyTorch, of the same shape as ours, as the reference for training speed."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        B, L, D = x.shape
        q, k, v = (
            y.view(B, L, self.heads, D // self.heads).transpose(1, 2)
            for y in self.qkv(self.attention_norm(x)).split(D, 2)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(B, L, D))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class GPT(nn.Module):
    """Learned positions, LayerNorm, GELU, tied embeddings: the common small GPT."""

    def __init__(self, vocabulary: int, length: int, width: int, layers: int, heads: int):
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.token.weight, std=1 / math.sqrt(width))

    def forward(self, tokens):
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.token.weight.T


def training_step(
    vocabulary: int, length: int, width: int, layers: int, heads: int, batch: int, compiled: bool = False
):
    """A function that does one step of AdamW on random tokens, and returns its loss without waiting for it.

    On a GPU products are in bfloat16 (autocast), weights and their updates in float32, as ours are.
    """
    torch.manual_seed(0)
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    model = GPT(vocabulary, length, width, layers, heads).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=on_gpu)
    tokens = torch.randint(0, vocabulary, (batch, length + 1), device=device)

    def loss_of(tokens):
        with torch.autocast(device, torch.bfloat16, enabled=on_gpu):
            logits = model(tokens[:, :-1])
            return F.cross_entropy(logits.reshape(-1, vocabulary), tokens[:, 1:].reshape(-1))

    loss_of = torch.compile(loss_of, dynamic=False) if compiled else loss_of

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(tokens)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
