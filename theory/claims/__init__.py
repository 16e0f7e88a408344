"""One module a claim: `check(config) -> (Claim, Figure)`."""
