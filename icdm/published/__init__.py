"""Published language models: their weights, tokenizers and adapters, in and out; needs the extra `language`."""
