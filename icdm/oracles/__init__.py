"""Who decides best: oracles give Q over an information state, with a certificate."""
