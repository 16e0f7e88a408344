"""Figures that papers report, shown beside ours; gaps in %, as printed there."""

# arXiv 2605.09009 (Zhang, Aghaei, Saghafian, 2026), its MDP experiment, by horizon; fine-tuned is Llama-2-7B, about.
ENERGY = {
    5: {"random": "57.6", "fine_tuned": "3-5"},
    10: {"random": "49.6", "fine_tuned": "15"},
    15: {"random": "46.4", "fine_tuned": "15", "in_context": "43.2"},
}


def published_gaps(family_name: str, horizon: int) -> dict[str, str]:
    """{policy: gap as published} for an experiment that a paper reports, else empty."""
    return ENERGY.get(horizon, {}) if family_name == "energy" else {}
