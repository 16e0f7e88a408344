"""One module for each claim, with `check(config) -> (Claim, Figure)`."""
