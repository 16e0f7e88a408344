"""One run of an experiment as a whole: its settings, its phases, its directory, and acting from it."""
