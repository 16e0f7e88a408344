"""Speed, measured: every benchmark against its reference in one run."""
