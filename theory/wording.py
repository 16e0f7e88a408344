"""The ledger's numbers in plain words, for readers; their names in claims.json are keys, for programs.

A key is what was measured, and then where: `share_of_reader_transition` is the share of the perfect reader's R2, in the
transition layout. What is not listed reads as it stands.
"""

import re

MEASURED = {
    "r2_q": "R2 of a linear probe for Q*(s, a)",
    "r2_differences": "R2 of a linear probe for differences of Q*",
    "r2_of_another_task": "R2 of a linear probe for the Q* of another task",
    "r2_of_the_perfect_reader": "R2 for Q* of the posterior-mean planner, the perfect reader",
    "share_of_reader": "share of the perfect reader's R2 for Q*",
    "share_of_reader_differences": "share of the perfect reader's R2 for differences of Q*",
    "selectivity": "R2 for Q*, less that for the Q* of another task",
    "margin": "margin over the strongest control",
    "r2_reader": "R2 of the logits against the posterior-mean planner's Q",
    "r2_reader_of_the_exact_minimiser": "R2 of the exact minimiser of the loss against the posterior-mean planner's Q",
    "slope_reader": "slope of the logits on the posterior-mean planner's Q",
    "r2_true": "R2 of the logits against the task's own Q*",
    "r2_true_of_the_reader": "R2 of the posterior-mean planner's Q against the task's own Q*",
    "slope_true": "slope of the logits on the task's own Q*",
    "rise_of_r2_reader": "rise of the R2 against the planner's Q, from one context episode to all",
    "rise_of_r2_true": "rise of the R2 against the task's own Q*, from one context episode to all",
    "best_head": "rank correlation with Q* of the best head's values",
    "largest_p_value": "largest p-value of the seeds",
    "attention_on_query_state": "share of the attention to the context that is on the query's state",
    "attention_on_one_action": "share of the attention to the context that is on the action attended to most",
    "all_steps_alike": "equal attention to all steps",
    "steps_at_the_query_state_alike": "equal attention to the steps in the query's state",
    "sign_agreement": "share of flipped rewards that move the logits in the planner's direction",
    "gap_rise_best_heads": "rise of the gap without the heads that read Q best",
    "gap_rise_random_heads": "rise of the gap without as many other heads",
    "gap_rise_excess": "rise of the gap without the heads that read Q best, less that without others",
    "gap_intact": "gap with all heads",
    "r2_here": "R2 against the exact posterior's change, reward of the query's own state",
    "r2_elsewhere": "R2 against the exact posterior's change, reward of another state",
    "slope_here": "slope on the exact posterior's change, reward of the query's own state",
    "slope_elsewhere": "slope on the exact posterior's change, reward of another state",
    r"slope_(\d)": r"slope on the exact posterior's change, reward \1 steps away",
    r"slope_(\d)_whole": r"slope with attention whole, reward \1 steps away",
    r"r2_(\d)": r"R2 against the exact posterior's change, reward \1 steps away",
    r"contexts_(\d)": r"contexts with a reward \1 steps away",
    r"share_left_(\d)": r"share of the slope that is left, reward \1 steps away",
    "slope": "slope on the exact posterior's change",
    "follows": "share of changed best actions that the model follows",
    "slope_whole": "slope with the whole other context",
    "follows_whole": "share of changed best actions followed with the whole other context",
    "follows_others": "share of changed best actions followed when as many other steps are swapped",
    "layers_before": "layers before the swap that moves most",
    "slope_into": "slope, steps swapped that lead to the state",
    "slope_at": "slope, steps swapped in the state",
    "slope_both": "slope, both kinds of steps swapped",
    "slope_others": "slope, as many other steps swapped",
    "hard_attention_error": "largest error with hard attention",
    "softmax_shortfall_over_bound": "shortfall of softmax attention over its bound",
    "slope_of_worst_shortfall_in_beta": "exponent of the shortfall in the inverse temperature",
    "distance_to_q_star_over_rate": "distance to Q* over the rate of convergence",
    r"softmax_relative_error_beta_(.+)": r"relative error of softmax attention, inverse temperature \1",
    "residual": "largest residual of Q* on the features",
    "residual_of_random_policy": "largest residual of a random policy's Q on the features",
    "flow_error": "error of gradient flow against the closed form",
    "flow_inert_mass": "weight in blocks that the closed form leaves empty, gradient flow",
    "sgd_error": "error of stochastic gradient descent against the closed form",
    "sgd_inert_mass": "weight in blocks that the closed form leaves empty, stochastic gradient descent",
    "sgd_error_mean_over_laws": "error of stochastic gradient descent, mean over laws of prompts",
    "iws": "similarity of implicit weights to those of temporal-difference learning",
    "ss": "similarity of sensitivities to those of temporal-difference learning",
    "vd": "difference of values from those of temporal-difference learning",
    "vd_last_over_first": "difference of values at the end of training over that before",
    "td_0": "largest error against TD(0)",
    "td_lambda": "largest error against TD(lambda)",
    "residual_gradient": "largest error against residual-gradient TD",
    "c_on_median": "on-policy concentrability, median",
    "c_on_99_percent": "on-policy concentrability, 99th percentile",
    "eps_q_simulated_over_exact": "simulated error of Q over the exact one",
    "violations": "violations of the bound",
    "bound_violations": "violations of the bound",
    "checked": "cases checked",
    "tightness": "gap over its bound",
    "share_within_3_se": "share of settings within 3 standard errors of theory",
    "largest_z": "largest deviation from theory, standard errors",
    "test_exponent": "exponent of the gap in test episodes",
    "training_exponent": "exponent of the gap in training episodes",
    "exact_error": "largest error of the sum of all terms, relative to the largest logit",
    r"share_(attention|mlp|embedding|own_state|other_states|elsewhere)": r"share of the logits' variance: \1",
    "partial_r2": "partial R2 of the next state's value in what a step adds, given its reward",
    r"partial_r2_written_by_(\d+)": r"the same of what layer \1 adds",
    r"probe_r2_(\d+)": r"R2 of the best layer's probe for what the iterate with \1 to come adds",
    r"probe_layer_(\d+)": r"stream in which it is best, \1 to come (0: before the first layer)",
    "least_selectivity": "least of these R2, less that for another task's iterate",
    "path_r2": "R2 of the change of the logits, when the largest head's path is cut, against its terms",
    "tau": "Kendall's tau of the best layer and the number of rewards to come",
    "aic_margin": "AIC of the better rival law, less that of one backup a layer",
    "aic": "AIC of the law",
    "width": "steps over which the law's slope falls",
    r"rho_(\d+)_layers_(\d)": r"slope of \1 layers, rewards \2 steps away",
    "rho_random_weights_0": "slope with random weights, rewards of the query's own state",
    "rho_random_weights_1": "slope with random weights, rewards 1 step away",
    "reach": "largest distance with half of the exact slope",
    "unreachable": "slope in a state beyond reach, as a share of that in the query's own",
    "unreachable_size": "size of the logits' change in a state beyond reach, as a share of that in the query's own",
    "tau_of_loops": "Kendall's tau of the loops and the iterate that the logits fit best",
    r"best_iterate_(\d+)_loops": r"rewards to come of the iterate that the logits fit best, \1 loops",
    r"error_(\d+)_loops_over_(\d+)": r"squared error after \1 loops over that after \2",
    r"r2_(\d+)_loops": r"R2 against the planner's Q, \1 loops",
    r"regret_(\d+)_loops": r"regret of the first decision, \1 loops",
    "regret": "regret of the first decision",
    "slope_in_M": "exponent of the estimation error in the length of test prompts, M",
    "slope_in_N": "exponent of the bias in the length of training prompts, N",
}

WHERE = {
    "transition": "transition layout",
    "interleaved": "interleaved layout",
    "random_start": "random weights",
    "random_weights": "random weights",
    "pretrained_only": "pretrained only",
    "shuffled_context": "the context's actions shuffled",
    "myopic": "a myopic reader",
    "before_training": "before training",
    "of_another_task": "another task's values",
    "counted": "a probe of counts and mean rewards in the stream's place",
    "of_all_steps": "its share of all steps of the context",
    "first_step": "first decision",
    "last_step": "last decision",
    "here": "reward of the query's own state",
    "elsewhere": "reward of another state",
    "of_typical_tasks": "typical tasks",
    r"(\d+)_layers": r"\1 layers",
    "one_backup_a_layer": "one backup a layer",
    "doubling": "doubling",
    "none": "no planning",
    "layers_of_their_own": "layers with weights of their own",
    "last_layer": "cut in the last layer alone",
    r"layer_(\d+)": r"cut in layer \1 alone",
    "embed": "before layer 0",
    r"(\d+)_out": r"after layer \1",
    r"(\d+)": r"\1 layers",  # a variant of the runs
}


def in_words(key: str) -> str:
    """A number's name for readers: what, then where."""
    places = []
    while not (what := _looked_up(key, MEASURED)):
        found = next((m for place in WHERE if (m := re.fullmatch(f"(?P<rest>.+)_(?P<place>{place})", key))), None)
        if not found:
            what = key.replace("_", " ")
            break
        places.insert(0, _looked_up(found["place"], WHERE))
        key = found["rest"]
    return ", ".join([what, *places])


def _looked_up(key: str, words: dict[str, str]) -> str:
    """The words of the pattern that the whole key matches; "" if none does."""
    return next((m.expand(text) for pattern, text in words.items() if (m := re.fullmatch(pattern, key))), "")
