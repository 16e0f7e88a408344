"""What trained transformers compute: activations, attention and their figures."""
