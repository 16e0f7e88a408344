"""Logits of the libraries transformers and peft, run by a Python that has them; imports nothing of this project.

python transformers_logits.py MODEL IDS.npy OUT.npy [ADAPTER]
"""

import sys

import numpy as np
import torch
import transformers


def logits(model, ids):
    """(L, V) float32 logits after each of L ids."""
    with torch.no_grad():
        return model(torch.as_tensor(np.asarray(ids, np.int64))[None]).logits[0].float().numpy()


def main(directory, ids, out, adapter=None):
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    if adapter:
        import peft

        model = peft.PeftModel.from_pretrained(model, adapter).eval()
    np.save(out, logits(model, np.load(ids)))


if __name__ == "__main__":
    main(*sys.argv[1:])
