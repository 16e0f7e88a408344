"""Linear attention on random prompts: laws, closed forms and simulations."""
