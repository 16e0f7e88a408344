"""How reports name, explain and draw the policies that are compared."""

from typing import NamedTuple


class Shown(NamedTuple):
    """A policy in tables and figures.

    Attributes:
      text: what it is.
      color, marker, line: of Matplotlib; colors are those of Okabe and Ito, which most colour-blind people can tell
        apart, and no two policies share all three.
      is_learned: whether a model of the run decides; references are drawn hollow.
    """

    text: str
    color: str
    marker: str
    line: str = "-"
    is_learned: bool = False


BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#222222", "#7A7A7A"

POLICIES = {
    "oracle": Shown("knows the task and plans exactly, or within a bracket", BLACK, "|"),
    "fine_tuned": Shown("the transformer after fine-tuning", BLUE, "o", is_learned=True),
    "fine_tuned_sampled": Shown("the same, actions drawn from its probabilities", BLUE, "P", ":", True),
    "in_context": Shown("the transformer before fine-tuning, same context", SKY, "s", "--", True),
    "from_scratch": Shown("trained without pretraining, on equally many tokens", PURPLE, "^", "-", True),
    "no_context": Shown("the fine-tuned transformer without a context", BLUE, "v", ":", True),
    "no_context_sampled": Shown("the same, actions drawn from its probabilities", BLUE, "<", "-.", True),
    "wrong_context": Shown("the fine-tuned transformer with another task's context", BLUE, "X", "-.", True),
    "posterior_mean": Shown("planner with posterior means, which knows the family's prior", GREEN, "D"),
    "posterior_mean_replanned": Shown("the same, planning anew in every step", GREEN, "d", "--"),
    "posterior_sampling": Shown("plans in one task drawn from the posterior", GREEN, "h", ":"),
    "myopic": Shown("posterior means, looking one reward ahead only: it does not plan", GREEN, "1", "-."),
    "memoriser": Shown("Bayes, whose prior is the run's own training tasks", PURPLE, "p", "--"),
    "certainty_equivalence": Shown("plans as if the context's frequencies were the truth", RED, "s"),
    "optimistic": Shown("the same, a standard error added to rewards", RED, "^", "--"),
    "pessimistic": Shown("the same, a standard error taken off rewards", RED, "v", ":"),
    "copy": Shown("does what the context's actor did in this state", ORANGE, "*"),
    "nominal_oracle": Shown("the oracle of the nominal model, which ignores the others", BLACK, "X", "--"),
    "qmdp": Shown("knows the model, and plans as if the state would be seen", ORANGE, "D", "--"),
    "fast_informed": Shown("knows the model, plans with the fast informed bound", ORANGE, "h", ":"),
    "most_likely_state": Shown("knows the model, acts for the likeliest state", ORANGE, "v", "-."),
    "expert": Shown("the policy that comes with the data", PURPLE, "D", ":"),
    "behavior": Shown("who acted in the recorded data", GREY, "s", "--"),
    "random": Shown("uniformly random actions", GREY, "x", ":"),
}
OTHER = Shown("", GREY, ".")  # a rule of a family, a model behind a server


def shown(policy: str) -> Shown:
    """How a policy is drawn; one in a further context, POLICY@CONTEXT, as the policy itself."""
    return POLICIES.get(policy.partition("@")[0], OTHER)
