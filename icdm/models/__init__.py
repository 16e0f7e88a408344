"""Who learns: a decoder-only transformer, adapters for it, and its life as a policy."""
