"""The readers that need no training, by the kind of problem and by what the family can do."""

from collections.abc import Sequence

import jax

from icdm.evaluation.unseen import UnseenTasks
from icdm.oracles.belief import belief_model
from icdm.oracles.certify import OracleConfig
from icdm.oracles.pomdp_planners import BeliefPolicy, LinearQ, MostLikelyState, fast_informed, qmdp
from icdm.problems.family import HasGrid, HasRules
from icdm.readers.copying import Copying
from icdm.readers.counts_planners import CountsPlanner, planners_of
from icdm.readers.fitted_pomdp import FittedPOMDP
from icdm.readers.posterior_grid import GridReader, plan_grid
from icdm.readers.reader import Fixed, Reader
from icdm.readers.replanning import replanners_of
from icdm.trajectories.collect import to_float32

GRID = 16  # tasks along the first parameter of a family's grid


def references(unseen: UnseenTasks, further: Sequence[str] = ()) -> dict[str, Reader]:
    """The references by their names in results.json.

    Args:
      further: planners beside those that every experiment has, where states are observed.
    """
    found: dict[str, Reader] = {"oracle": Fixed(unseen.tasks.oracle)}
    if unseen.is_ambiguous:
        found[unseen.counted_from] = Fixed(to_float32(unseen.certified.critic))
    if unseen.context is None:
        return found | _rules(unseen)
    found["copy"] = Copying(unseen.family.n_actions)
    if unseen.tasks.problem.hides_state:
        return found | _of_hidden_states(unseen)
    if unseen.tasks.n > 1 or further:  # a single task need not be read from a context
        planners = *planners_of(unseen.family), *further
        found |= {planner: CountsPlanner(unseen.family, planner) for planner in planners}
        found |= replanners_of(unseen.family)
    return found


def _rules(unseen: UnseenTasks) -> dict[str, Reader]:
    """Published rules, where a family has some."""
    rules = unseen.family.rules() if isinstance(unseen.family, HasRules) else {}
    return {name: Fixed(rule) for name, rule in rules.items()}


def _of_hidden_states(unseen: UnseenTasks) -> dict[str, Reader]:
    """Planners that know the model but not the state, and the one that reads the context: by a posterior over a grid
    of tasks where the family has one, else by the likeliest POMDP."""
    nominal = unseen.world.problem
    observed, informed = (to_float32(table) for table in (qmdp(nominal), fast_informed(belief_model(nominal))))
    planners = {
        "qmdp": LinearQ(observed),
        "fast_informed": LinearQ(informed),
        "most_likely_state": MostLikelyState(observed),
    }
    found: dict[str, Reader] = {name: Fixed(BeliefPolicy(nominal, planner)) for name, planner in planners.items()}
    if isinstance(unseen.family, HasGrid):
        plans = plan_grid(unseen.family, GRID, OracleConfig(), jax.random.fold_in(unseen.key, 1))
        return found | {"posterior_mean": GridReader(plans)}
    return found | {"certainty_equivalence": FittedPOMDP(unseen.family, nominal)}
