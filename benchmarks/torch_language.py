"""A published Llama with adapters in PyTorch (transformers and peft), on the same rows as ours: the reference.

    python -m benchmarks.torch_language DIRECTORY [--again]

Does three training steps on the rows that benchmarks.language wrote there, for the memory that they take.
"""

import pathlib
import sys

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")


def load(directory: pathlib.Path):
    """The model in float32, without adapters."""
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def training_step(directory: pathlib.Path, again: bool, *, id_BL, acting, action_BI, action_ids, rank: int):
    """A function that does one step of AdamW on adapters and waits for it.

    `again`: activations are computed again in the backward pass (gradient checkpointing).
    The loss is the cross-entropy of the actions among themselves at the acting positions, as ours is: the base model is
    run to its last hidden states, and only the rows of the head that stand for actions are multiplied.
    """
    model = load(directory)
    names = [f"{name}_proj" for name in PROJECTIONS]
    model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=rank, target_modules=names, lora_dropout=0.0)).train()
    if again:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    inner = model.get_base_model()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    ids, target = torch.from_numpy(id_BL).long(), torch.from_numpy(action_BI).long()
    head = inner.lm_head.weight[torch.from_numpy(action_ids)]

    def step():
        optimizer.zero_grad(set_to_none=True)
        hidden = inner.model(input_ids=ids, use_cache=False).last_hidden_state[:, acting]
        loss = torch.nn.functional.cross_entropy((hidden @ head.T).flatten(0, 1), target.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def play(directory: pathlib.Path, read: int, steps: int, *, id_BL, action_ids, **_):
    """A function that reads the first tokens of each row and then decides so many times, each time after four more."""
    model = load(directory)
    context, more = (torch.from_numpy(part).long() for part in (id_BL[:, :read], id_BL[:, read : read + 4]))
    head = model.lm_head.weight[torch.from_numpy(action_ids)]

    @torch.no_grad()
    def play():
        cache = model.model(input_ids=context, use_cache=True).past_key_values
        for _ in range(steps):
            output = model.model(input_ids=more, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            action = (output.last_hidden_state[:, -1] @ head.T).argmax(-1)
        return action.sum().item()

    return play


if __name__ == "__main__":
    directory = pathlib.Path(sys.argv[1])
    with np.load(directory / "rows.npz") as arrays:
        given = dict(arrays)
    step = training_step(directory, "--again" in sys.argv, **given | {"rank": int(given["rank"])})
    for _ in range(3):
        step()
