"""Figures that papers report, shown beside ours; gaps in %, as printed there."""

# arXiv 2605.09009 (Zhang, Aghaei, Saghafian, 2026), its MDP experiment: by horizon.
ENERGY = {
    5: {"random": "57.6", "fine_tuned": "about 3-5 (Llama-2-7B)"},
    10: {"random": "49.6", "fine_tuned": "about 15 (Llama-2-7B)"},
    15: {"random": "46.4", "fine_tuned": "about 15 (Llama-2-7B)", "in_context": "43.2"},
}


def published_gaps(family_name: str, horizon: int) -> dict[str, str]:
    """{policy: gap as published} for an experiment that a paper reports, else empty."""
    return ENERGY.get(horizon, {}) if family_name == "energy" else {}
