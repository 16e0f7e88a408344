"""The transformer acts on the Q-function that it reads from its context: two interventions.

Flips. One reward of each context is replaced by its opposite, at a step in the query's own state (or, reported beside
it, in another state, from which it matters through planning alone). The change of centred logits times tau is compared
with the change of the posterior-mean planner's centred Q: sign agreement on the action that the planner moves most,
R2 and slope through the origin over all actions.

Ablations. The output of the heads that read Q best (claim attention_reads_returns, chosen on one half of the tasks)
is set to 0, and so is that of as many other heads, set after set. The optimality gap is the regret of the
greedy decisions in the recorded query episode over that of uniformly random ones, on the other half of the tasks.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from icdm.errors import UserError
from theory.book import Book
from theory.circuits import trained
from theory.circuits.heads import ranked_heads
from theory.circuits.influence import one_of, planned_change
from theory.circuits.regressions import pair_products, r_squared, slope
from theory.circuits.trained import centred
from theory.figures import BLUE, GREY, ORANGE, RED, panels
from theory.ledger import Claim

PLACES = ("here", "elsewhere")


def check(config) -> tuple[Claim, Figure]:
    rng = np.random.default_rng(config.seed)
    book, pictures = Book(config, rng), {}
    studies = trained.studies(config)
    for layout, seeds in studies.items():
        flips = {place: flip(seeds[0].rows, place, np.random.default_rng(config.seed)) for place in PLACES}
        changes = {
            (place, name): np.stack([logit_changes(study, name, flips[place]) for study in seeds], axis=1)
            for place in PLACES
            for name in (seeds[0].readings if place == "here" else ("fine_tuned",))
        }
        for place in PLACES:
            moved_NA, ours_NQA = flips[place].q_change, changes[place, "fine_tuned"]
            sums_NQ3 = np.stack([pair_products(ours_NA, moved_NA) for ours_NA in ours_NQA.swapaxes(0, 1)], axis=1)
            agrees_N = agreement(ours_NQA, moved_NA)
            limit = 0.8 if place == "here" else None
            book.measure(f"sign_agreement_{place}_{layout}", np.mean, agrees_N, at_least=limit)
            book.measure(f"r2_{place}_{layout}", r_squared, sums_NQ3)
            book.measure(f"slope_{place}_{layout}", slope, sums_NQ3)
        for name in seeds[0].controls:
            agrees_N = agreement(changes["here", name], flips["here"].q_change)
            book.control(f"sign_agreement_{name}_{layout}", agrees_N.mean())
        gaps = [ablation(study, config, rng) for study in seeds]
        intact_NQ, best_NQ, random_NQ = (
            np.stack([g[kind] for g in gaps], axis=1) for kind in ("intact", "best", "random")
        )
        uniform_N = gaps[0]["uniform"]
        best_rise_NQ, random_rise_NQ = best_NQ - intact_NQ, random_NQ - intact_NQ
        book.measure(f"gap_rise_best_heads_{layout}", over_uniform, best_rise_NQ, uniform_N)
        book.measure(f"gap_rise_random_heads_{layout}", over_uniform, random_rise_NQ, uniform_N)
        excess_NQ = best_rise_NQ - random_rise_NQ
        book.measure(f"gap_rise_excess_{layout}", over_uniform, excess_NQ, uniform_N, at_least=0)
        book.control(f"gap_intact_{layout}", over_uniform(intact_NQ, uniform_N))
        pictures[layout] = flips, changes
    claim = book.close(
        id="q_is_used",
        claim="a changed reward moves the logits as it moves the posterior's Q, and without the heads that read Q the "
        "decisions are worse than without as many others",
        source="derived here",
        metric="one context reward flipped at the query's state (here) or at another (elsewhere): sign agreement "
        "on the action that the posterior-mean planner moves most, R2 and slope of all changes; rise of regret over "
        "the uniform policy's when heads are ablated; mean over seeds",
    )
    return claim, draw(pictures, claim)


@dataclasses.dataclass(frozen=True)
class Flip:
    """One flipped reward in some of the rows.

    Attributes:
      rows_I: which I of the N rows have such a step.
      episode_I, step_I: its place.
      q_change: (I, A) the change of the posterior-mean planner's centred Q at the query.
    """

    rows_I: np.ndarray
    episode_I: np.ndarray
    step_I: np.ndarray
    q_change: np.ndarray

    def applied(self, episodes, family):
        """The N rows with that reward r replaced by lowest + highest - r."""
        index = (self.rows_I, self.episode_I, self.step_I)
        reward = np.asarray(episodes.reward).copy()
        reward[index] = sum(family.reward_range) - reward[index]
        return dataclasses.replace(episodes, reward=jnp.asarray(reward))


def flip(rows, place: str, rng) -> Flip:
    """One random context step of each row in the query's state, or in another, whose flip moves the planner's Q."""
    here_NET = np.asarray(rows.episodes.observation)[..., :-1] == rows.queries[:, None, None]
    episode_N, step_N, found_N = one_of(rows.context_steps & (here_NET if place == "here" else ~here_NET), rng)
    every = np.arange(len(found_N))
    chosen = Flip(every, episode_N, step_N, np.empty(0))
    change_NA = planned_change(rows, chosen.applied(rows.episodes, rows.family).reward)
    kept = found_N & (np.abs(change_NA).max(-1) > 1e-6)
    if not kept.any():
        raise UserError(f"no context has a reward {place} that matters to its query: show more episodes or states")
    return Flip(every[kept], chosen.episode_I[kept], chosen.step_I[kept], change_NA[kept])


def logit_changes(study, name: str, flipped: Flip) -> np.ndarray:
    """tau times the change of the model's centred logits at the query, (I, A)."""
    model = study.models[name]
    episodes = study.shuffled if name == "shuffled_context" else study.rows.episodes
    after = trained.read(study.run.layout, model, flipped.applied(episodes, study.run.family))
    change_NA = after.logits[:, -1, 0].astype(np.float64) - study.readings[name].logits[:, -1, 0]
    return study.temperature * centred(change_NA)[flipped.rows_I]


def agreement(ours_IQA, q_change_IA) -> np.ndarray:
    """Share of Q seeds whose logits move with the planner's Q on the action that it moves most, (I,)."""
    most_I11 = np.abs(q_change_IA).argmax(-1)[:, None, None]
    ours_IQ = np.take_along_axis(ours_IQA, most_I11, -1)[..., 0]
    theirs_I1 = np.take_along_axis(q_change_IA, most_I11[..., 0], -1)
    return (np.sign(ours_IQ) == np.sign(theirs_I1)).mean(-1)


def ablation(study, config, rng) -> dict[str, np.ndarray]:
    """Regret of each task of the second half, (N / 2, ): intact, without the best heads, without others, uniform."""
    heads = ranked_heads(study)
    best = frozenset(heads[: config.heads])
    others = [s for s in map(frozenset, itertools.combinations(heads, config.heads)) if s != best]
    others = [others[i] for i in rng.permutation(len(others))[: config.head_sets]]
    half = len(study.rows.queries) // 2
    episodes = jax.tree.map(lambda x: x[half:], study.rows.episodes)
    model, layout = study.models["fine_tuned"], study.run.layout

    def regret_without(removed):
        return regrets(trained.read(layout, model, episodes, without=removed).logits, episodes)

    return {
        "intact": regret_without(()),
        "best": regret_without(best),
        "random": np.mean([regret_without(removed) for removed in others], axis=0),
        "uniform": regrets(np.zeros(episodes.q.shape), episodes),
    }


def regrets(logits_NETA, episodes) -> np.ndarray:
    """Sum over the query episode's steps of max_a Q*(s, a) - Q*(s, greedy action), (N,); ties share it evenly."""
    q_NTA = np.asarray(episodes.q, np.float64)[:, -1]
    best_NTA = logits_NETA[:, -1] == logits_NETA[:, -1].max(-1, keepdims=True)
    value_NT = (best_NTA * q_NTA).sum(-1) / best_NTA.sum(-1)
    return ((q_NTA.max(-1) - value_NT) * np.asarray(episodes.valid)[:, -1]).sum(-1)


def over_uniform(regret_NQ, uniform_N) -> float:
    """Mean regret of Q seeds over the mean regret of the uniform policy."""
    return float(regret_NQ.mean() / uniform_N.mean())


def draw(pictures, claim) -> Figure:
    figure, axes = panels(2 * len(pictures))
    for (scatter, bars), (layout, (flips, changes)) in zip(zip(axes[::2], axes[1::2]), pictures.items()):
        for place, color in zip(reversed(PLACES), (ORANGE, BLUE)):
            x, y = flips[place].q_change.ravel(), changes[place, "fine_tuned"][:, 0].ravel()
            scatter.plot(x, y, ".", color=color, alpha=0.3, markersize=3, markeredgewidth=0, label=f"flipped {place}")
        limit = 1.05 * np.abs(flips["here"].q_change).max()
        scatter.plot([-limit, limit], [-limit, limit], color=GREY, linewidth=0.8)
        scatter.set(xlabel="change of the posterior-mean planner's Q", ylabel="change of $\\tau$ logit")
        scatter.set(title=f"{layout}, seed 0")
        scatter.legend(markerscale=2)
        names = [f"gap_rise_{kind}_heads_{layout}" for kind in ("best", "random")]
        means = np.array([claim.measured[name] for name in names])
        ends = np.array([claim.ci95[name] for name in names]).T
        bars.bar(["best readers", "random heads"], means, yerr=np.abs(ends - means), color=(RED, GREY))
        bars.set(ylabel="rise of regret / uniform's regret", title=f"heads ablated, {layout}")
    return figure
