"""The tables of theory/README.md, from theory/results."""

from typing import Any

from tables import number, results_of, table, with_interval
from theory.wording import in_words

DEEP = {  # a row's name: claim, number, digits
    "`logits_are_q`: R2 of logit differences against the planner's Q (>= .9)": ("logits_are_q", "r2_reader", 3),
    "of the first decision": ("logits_are_q", "r2_reader_first_step", 3),
    "of the last": ("logits_are_q", "r2_reader_last_step", 3),
    "slope": ("logits_are_q", "slope_reader", 2),
    "rise of that R2 from 1 to 10 episodes (>= 0)": ("logits_are_q", "rise_of_r2_reader", 2),
    "R2 against the task's own Q*": ("logits_are_q", "r2_true", 2),
    "its rise (>= 0)": ("logits_are_q", "rise_of_r2_true", 2),
    "`attention_reads_returns`: best head's rank correlation with Q*": ("attention_reads_returns", "best_head", 2),
    "margin over the strongest control (>= 0)": ("attention_reads_returns", "margin", 2),
    "`q_is_decodable`: R2 of a probe for Q*(s, a)": ("q_is_decodable", "r2_q", 2),
    "less the R2 of another task's (>= .3)": ("q_is_decodable", "selectivity", 2),
    "share of the perfect reader's R2 (>= .8)": ("q_is_decodable", "share_of_reader", 2),
    "the same share for differences between actions": ("q_is_decodable", "share_of_reader_differences", 2),
    "probe's margin over the strongest control (>= 0)": ("q_is_decodable", "margin", 2),
    "`q_is_used`: sign agreement after a flipped reward (>= .8)": ("q_is_used", "sign_agreement_here", 2),
    "R2 of the changes": ("q_is_used", "r2_here", 3),
    "R2, reward of another state": ("q_is_used", "r2_elsewhere", 2),
    "slope, reward of another state": ("q_is_used", "slope_elsewhere", 2),
    "gap raised by removing the 2 best heads, less by 2 random ones (>= 0)": ("q_is_used", "gap_rise_excess", 2),
}
CONTROLS = ("random_start", "shuffled_context")


def linear() -> str:
    """Every number with a threshold of claims 1-11."""
    rows = []
    for found in results_of("full", "theory/results"):
        for i, (name, threshold) in enumerate(found["threshold"].items()):
            first = [f"`{found['id']}`", found["verdict"]] if i == 0 else ["", ""]
            rows.append([*first, in_words(name), _short(found, name), threshold])
    return table(["", "", "measured", "", "threshold"], rows)


def _short(claim: dict[str, Any], name: str) -> str:
    """Four digits, and the interval where there is one: 2.011 [1.986, 2.037], 6e-16."""
    value, ends = claim["measured"][name], claim["ci95"].get(name)
    if abs(value) < 1e-9:
        return f"{value:.0e}" if value else "0"
    return f"{value:.4g} [{ends[0]:.4g}, {ends[1]:.4g}]" if ends else f"{value:.4g}"


def depth() -> str:
    """How far a flipped reward moves the logits, by depth."""
    found, rows = _claim("depth_buys_planning"), []
    for layers in found["config"]["variants"]:
        slopes = [_measured(found, f"rho_{layers}_layers_{k}") for k in range(found["config"]["distances"])]
        rows.append([layers, *slopes, _measured(found, f"unreachable_{layers}_layers", 3)])
    return table(["layers", "k = 0", "1", "2", "3", "4", "5", "beyond reach (-.05 .. .05)"], rows)


def loops() -> str:
    """What a looped layer says after so many loops."""
    found, rows = _claim("loops_iterate_values"), []
    for n in found["config"]["loops"]:
        best = found["measured"][f"best_iterate_{n}_loops"]
        fits, regret = _measured(found, f"r2_{n}_loops", 3), _measured(found, f"regret_{n}_loops", 4)
        rows.append([str(n), f"{best:g}", fits, regret])
    return table(["loops", "rewards to come that fit best", "R2 against the planner's Q", "regret, reward"], rows)


def deep() -> str:
    """Claims 12-15 in the models of 4 and 8 layers."""
    rows = []
    for what, (claim, name, digits) in DEEP.items():
        found = _claim(claim)
        ours = [_measured(found, f"{name}_{layers}", digits) for layers in ("4", "8")]
        keys = [f"{name}_{control}_4" for control in CONTROLS]
        controls = (number(found["control"][key], 2) for key in keys if key in found["control"])
        rows.append([what, *ours, " / ".join(controls)])
    return table(["", "4 layers", "8 layers", "random weights / actions shuffled, 4 layers"], rows)


def _claim(name: str) -> dict[str, Any]:
    [found] = [claim for claim in results_of("depth", "theory/results") if claim["id"] == name]
    return found


def _measured(claim: dict[str, Any], name: str, digits: int = 2) -> str:
    return with_interval({"mean": claim["measured"][name], "ci95": claim["ci95"][name]}, digits=digits)
