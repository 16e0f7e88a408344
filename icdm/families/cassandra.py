"""Reads and writes Cassandra's `.POMDP` files.

The format (A. Cassandra, pomdp.org/code/pomdp-file-spec.html) is a preamble of `discount`, `values`, `states`,
`actions` and `observations`, a `start`, and statements `T`, `O` and `R`; later statements overrule earlier ones.
The reader also accepts the row keyword `reset` (the start distribution) and a list of names after `start:` (the
uniform distribution over them).
"""

import dataclasses
import itertools
import pathlib
import re
import warnings

import numpy as np

from icdm.errors import UserError
from icdm.files import write_text
from icdm.problems.mdp import MDP, check_horizon
from icdm.problems.pomdp import POMDP, silent_start

ROUNDED = 1e-4  # rows that miss 1 by less are renormalised with a warning
EXACT = 1e-12  # rows that miss 1 by less are kept as written
LARGEST = 20_000_000  # most entries of a table, so that a mistyped count does not fill the memory

_TOKEN = re.compile(r":|[^\s:]+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NAME = re.compile(r"[A-Za-z][\w.\-]*")
_STATEMENTS = ("discount", "values", "states", "actions", "observations", "start", "T", "O", "R")


@dataclasses.dataclass(frozen=True)
class NamedPOMDP:
    """A POMDP with the names in its file, or with numbers if the file has no names."""

    problem: POMDP
    states: tuple[str, ...]
    actions: tuple[str, ...]
    observations: tuple[str, ...]


def read_pomdp(path: str | pathlib.Path, *, horizon: int, discount: float | None = None) -> NamedPOMDP:
    """Reads a `.POMDP` file.

    The problem keeps the mean rewards given (s, a), r(s, a) = sum P(s'|s,a) O(o|a,s') R(a, s, s', o), which
    determine the values because the decider does not observe the rewards. Costs are negated. Rows that miss 1 by
    less than 1e-4 are renormalised with a warning.

    Args:
      discount: replaces the file's discount unless it is None.

    Raises:
      UserError: the file cannot be read, or breaks the format (`file:line: message`).
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a text file in UTF-8"
        raise UserError(f"{path}: cannot be read ({reason})") from None
    return parse_pomdp(text, horizon=horizon, discount=discount, name=str(path))


def parse_pomdp(text: str, *, horizon: int, discount: float | None = None, name: str = "text") -> NamedPOMDP:
    """`read_pomdp` for the text of a file; messages call the file `name`."""
    check_horizon(horizon)
    if discount is not None and not 0 < discount <= 1:
        raise UserError(f"discount {discount}: give a number in (0, 1]")
    return _Reader(text, name).read(int(horizon), discount)


def write_pomdp(named: NamedPOMDP, path: str | pathlib.Path) -> None:
    """Writes a `.POMDP` file that `read_pomdp` reads back to the same numbers.

    Raises:
      UserError: the format cannot describe the problem (observed rewards, an observation before the first
        action, terminal states), or the file cannot be written.
    """
    try:
        write_text(pathlib.Path(path), format_pomdp(named))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def format_pomdp(named: NamedPOMDP) -> str:
    """The text of a `.POMDP` file; see `write_pomdp`."""
    problem, mdp = named.problem, named.problem.mdp
    for fault, what in (
        (problem.shows_reward, "observed rewards"),
        (problem.observes_first, "an observation before the first action"),
        (bool(np.any(mdp.terminal)), "terminal states"),
    ):
        if fault:
            raise UserError(f"a .POMDP file cannot describe {what}")
    reward = np.asarray(mdp.reward) + np.einsum("axy,y->xa", mdp.transition, mdp.arrival_reward)
    lines = [f"discount: {float(mdp.discount)!r}", "values: reward"]
    lines += [f"{kind}: {_listed(getattr(named, kind))}" for kind in ("states", "actions", "observations")]
    lines += ["start: " + _numbers(mdp.initial)]
    for a in range(problem.n_actions):
        lines += ["", f"T: {a}"] + [_numbers(row) for row in mdp.transition[a]]
        lines += [f"O: {a}"] + [_numbers(row) for row in problem.emission[a]]
    lines += [""] + [
        f"R: {a} : {s} : * : * {float(reward[s, a])!r}"
        for a, s in itertools.product(range(problem.n_actions), range(problem.n_states))
    ]
    return "\n".join(lines) + "\n"


def _listed(names: tuple[str, ...]) -> str:
    return str(len(names)) if names == tuple(map(str, range(len(names)))) else " ".join(names)


def _numbers(row: np.ndarray) -> str:
    return " ".join(repr(float(number)) for number in row)


class _Reader:
    """A recursive-descent parser; every method consumes the tokens of its statement or word."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.tokens = [
            (token, line)
            for line, content in enumerate(text.split("\n"), 1)
            for token in _TOKEN.findall(content.split("#")[0])
        ]
        self.end = self.tokens[-1][1] if self.tokens else 1
        self.at = 0
        self.discount = None
        self.sign = 1.0
        self.names = {}
        self.start = None
        self.start_line = self.end
        self.rewards = []
        self.transition = None

    def read(self, horizon: int, discount: float | None) -> NamedPOMDP:
        while self.at < len(self.tokens):
            word = self.word("a statement")
            if word not in _STATEMENTS:
                raise self.error(f"{word!r} begins no statement (known: {', '.join(_STATEMENTS)})")
            if word in ("T", "O", "R"):
                self.tables()
            getattr(self, "read_" + word)()
        for what in ("states", "actions", "observations"):
            self.declared(what)
        if self.discount is None:
            raise self.error("the file gives no discount")
        self.tables()
        transition = self.rows("T", self.transition, self.transition_line)
        emission = self.rows("O", self.emission, self.emission_line)
        start = self.uniform() if self.start is None else self.start
        start = self.rows("start", start[None, None], np.full((1, 1), self.start_line))[0, 0]
        n_states, n_observations = emission.shape[1:]
        reward = self.sign * self.mean_reward(transition, emission)
        if not np.isfinite(reward).all():
            raise self.error("the rewards are too large to add")
        mdp = MDP(
            transition=transition,
            reward=reward,
            arrival_reward=np.zeros(n_states),
            initial=start,
            terminal=np.zeros(n_states, bool),
            discount=np.float64(self.discount if discount is None else discount),
            horizon=horizon,
        )
        problem = POMDP(mdp, emission, silent_start(n_states, n_observations))
        return NamedPOMDP(problem, *(tuple(self.names[kind]) for kind in ("states", "actions", "observations")))

    # The preamble

    def read_discount(self) -> None:
        self.colon()
        self.discount = self.number("the discount")
        if not 0 < self.discount <= 1:
            raise self.error(f"discount {self.discount:g}: give a number in (0, 1]")

    def read_values(self) -> None:
        self.colon()
        word = self.word("reward or cost")
        if word not in ("reward", "cost"):
            raise self.error(f"values {word!r}: give reward or cost")
        self.sign = 1.0 if word == "reward" else -1.0

    def read_states(self) -> None:
        self.read_names("states")

    def read_actions(self) -> None:
        self.read_names("actions")

    def read_observations(self) -> None:
        self.read_names("observations")

    def read_names(self, kind: str) -> None:
        if kind in self.names:
            raise self.error(f"{kind} are given twice")
        self.colon()
        words = self.list()
        if not words:
            raise self.error(f"{kind}: give a count or names")
        if len(words) == 1 and words[0].isdecimal():
            count = int(words[0]) if len(words[0]) < 10 else LARGEST + 1
            if not 0 < count <= LARGEST:
                raise self.error(f"{kind}: {words[0]} is no usable count")
            words = [str(i) for i in range(count)]
        else:
            for word in words:
                if not _NAME.fullmatch(word):
                    raise self.error(f"{kind}: {word!r} is no name (a letter, then letters, digits, - and _)")
                if words.count(word) > 1:
                    raise self.error(f"{kind}: {word!r} is named twice")
        self.names[kind] = {word: i for i, word in enumerate(words)}

    def read_start(self) -> None:
        names = self.declared("states")
        exclude = self.peek() == "exclude"
        chosen = exclude or self.peek() == "include"
        if chosen:
            self.at += 1
        self.colon()
        words = self.list()
        self.start_line = self.line()
        if not words:
            raise self.error("start: give a distribution, a state, or include: or exclude: with states")
        if words == ["uniform"] and "uniform" not in names:
            self.start = self.uniform()
        elif not chosen and len(words) == len(names) and all(map(_NUMBER.fullmatch, words)):
            self.start = np.array([float(word) for word in words])
        elif not chosen and len(words) > 1 and any(map(_NUMBER.fullmatch, words)):
            raise self.error(f"start gives {len(words)} values for {len(names)} states")
        else:
            member = np.isin(np.arange(len(names)), [self.index(word, "states") for word in words]) ^ exclude
            if not member.any():
                raise self.error("start excludes every state")
            self.start = member / member.sum()

    # The tables

    def tables(self) -> None:
        """Allocates the tables if they do not exist yet; the sizes must be declared."""
        if self.transition is not None:
            return
        n_states, n_actions, n_observations = (
            len(self.declared(kind)) for kind in ("states", "actions", "observations")
        )
        if n_actions * n_states * max(n_states, n_observations) > LARGEST:
            raise self.error(f"{n_actions} actions, {n_states} states, {n_observations} observations are too many")
        self.transition = np.zeros((n_actions, n_states, n_states))
        self.emission = np.zeros((n_actions, n_states, n_observations))
        self.transition_line = np.full((n_actions, n_states), self.end)
        self.emission_line = np.full((n_actions, n_states), self.end)

    def read_T(self) -> None:
        where = self.selectors("actions", "states", "states")
        words = ("uniform", "identity") if len(where) == 1 else ("uniform", "reset")
        self.assign(self.transition, self.transition_line, where, words)

    def read_O(self) -> None:
        where = self.selectors("actions", "states", "observations")
        self.assign(self.emission, self.emission_line, where, ("uniform",))

    def read_R(self) -> None:
        where = self.selectors("actions", "states", "states", "observations")
        shape = tuple(len(self.names[kind]) for kind in ("states", "observations"))[max(len(where) - 2, 0) :]
        if len(where) == 1:
            raise self.error("R needs at least an action and a state")
        self.rewards.append((where, self.block(shape)))

    def assign(self, table: np.ndarray, lines: np.ndarray, where: tuple, words: tuple[str, ...]) -> None:
        shape = table.shape[len(where) :]
        word = self.peek()
        if shape and word in words:
            self.at += 1
            if word == "uniform":
                values = np.full(shape, 1 / shape[-1])
            elif word == "identity":
                values = np.eye(shape[0])
            else:
                values = self.uniform() if self.start is None else self.start
        else:
            values = self.block(shape)
        if values.min() < 0:
            raise self.error(f"{values.min():g} is no probability")
        table[where] = values
        rows_read = values.ndim == 2 and word not in words
        lines[where[:2]] = self.lines_of_rows(*shape) if rows_read else self.line()

    def lines_of_rows(self, n_rows: int, width: int) -> list[int]:
        """The line on which each row of the last block ends."""
        return [self.line(self.at - 1 - width * row) for row in reversed(range(n_rows))]

    def mean_reward(self, transition: np.ndarray, emission: np.ndarray) -> np.ndarray:
        """r(s, a), (S, A); an axis of R has length 1 during the sum if every statement has a star there."""
        n_actions, n_states, n_observations = emission.shape
        starred = [
            all(len(where) > axis and where[axis] == slice(None) for where, _ in self.rewards) for axis in (2, 3)
        ]
        shape = (n_actions, n_states, 1 if starred[0] else n_states, 1 if starred[1] else n_observations)
        if np.prod(shape) > LARGEST:
            raise self.error(f"rewards by {shape} (action, state, next state, observation) are too many")
        reward = np.zeros(shape)
        for where, values in self.rewards:
            reward[where] = values
        if shape[2:] == (1, 1):
            return reward[:, :, 0, 0].T.copy()
        pay = np.broadcast_to(reward, shape[:2] + (n_states, shape[3]))
        if shape[3] == 1:
            return np.einsum("ast,ast->sa", transition, pay[..., 0])
        return np.einsum("ast,ato,asto->sa", transition, emission, pay)

    def rows(self, what: str, table: np.ndarray, lines: np.ndarray) -> np.ndarray:
        """The rows as distributions; rounded rows are renormalised with a warning.

        Raises:
          UserError: a row misses 1 by `ROUNDED` or more.
        """
        total = table.sum(-1)
        miss = np.abs(total - 1)
        for index in np.argwhere(~(miss < ROUNDED))[:1]:
            a, s = index
            of = f"{what}: {self.called('actions', a)} : {self.called('states', s)}" if what != "start" else what
            raise self.error(f"{of} sums to {total[a, s]:.9g}, not 1", lines[a, s])
        rounded = miss > EXACT
        if rounded.any():
            first = lines[rounded].min()
            rows = "1 row" if rounded.sum() == 1 else f"{rounded.sum()} rows"
            message = f"{rows} of {what} renormalised (off by {miss.max():.1e})"
            warnings.warn(f"{self.name}:{first}: {message}", stacklevel=5)
        return np.where(rounded[..., None], table / np.where(rounded, total, 1)[..., None], table)

    def uniform(self) -> np.ndarray:
        n_states = len(self.declared("states"))
        return np.full(n_states, 1 / n_states)

    # Words

    def selectors(self, *kinds: str) -> tuple:
        """The index that `: action : state ...` of a statement selects; the action is required."""
        where = []
        for kind in kinds:
            if where and self.peek() != ":":
                break
            self.colon()
            word = self.word(f"one of the {kind}, or *")
            where.append(slice(None) if word == "*" else self.index(word, kind))
        return tuple(where)

    def index(self, word: str, kind: str) -> int:
        names = self.declared(kind)
        if word in names:
            return names[word]
        if word.isdecimal() and len(word) < 10 and int(word) < len(names):
            return int(word)
        raise self.error(f"{word!r} is not one of the {len(names)} {kind}")

    def called(self, kind: str, index: int) -> str:
        return list(self.names[kind])[index]

    def declared(self, kind: str) -> dict[str, int]:
        if kind not in self.names:
            fault = f"the {kind} are not declared yet" if self.at < len(self.tokens) else f"the file gives no {kind}"
            raise self.error(fault)
        return self.names[kind]

    def block(self, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape, dtype=int))
        return np.array([self.number(f"number {i + 1} of {count}") for i in range(count)]).reshape(shape)

    def number(self, what: str) -> float:
        word = self.word(what)
        if not _NUMBER.fullmatch(word) or not np.isfinite(float(word)):
            raise self.error(f"{word!r} where {what} should stand")
        return float(word)

    def list(self) -> list[str]:
        words = []
        while self.at < len(self.tokens) and not self.at_statement():
            words.append(self.word("a name"))
            if words[-1] == ":":
                raise self.error("a colon inside a list")
        return words

    def at_statement(self) -> bool:
        following = self.tokens[self.at + 1][0] if self.at + 1 < len(self.tokens) else ""
        word = self.peek()
        return word in _STATEMENTS and (following == ":" or (word == "start" and following in ("include", "exclude")))

    def colon(self) -> None:
        if self.peek() != ":":
            raise self.error("a colon is missing", self.line(self.at))
        self.at += 1

    def peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def word(self, what: str) -> str:
        if self.at >= len(self.tokens):
            raise self.error(f"the file ends where {what} should stand")
        self.at += 1
        return self.tokens[self.at - 1][0]

    def line(self, at: int | None = None) -> int:
        """The line of the token at `at`, or of the last token if `at` is None."""
        at = max(self.at - 1, 0) if at is None else at
        return self.tokens[at][1] if at < len(self.tokens) else self.end

    def error(self, message: str, line: int | None = None) -> UserError:
        return UserError(f"{self.name}:{self.line() if line is None else line}: {message}")
