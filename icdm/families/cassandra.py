"""Reads and writes Cassandra's `.POMDP` and `.MDP` files.

The format (A. Cassandra, pomdp.org/code/pomdp-file-spec.html) is a preamble of `discount`, `values`, `states`,
`actions` and `observations`, a `start`, and statements `T`, `O` and `R`; later statements overrule earlier ones. A file
without observations is an MDP, whose `R` has no observation.

The reader also accepts the row keyword `reset` (the start distribution, wherever the file gives it), a list of names
after `start:` (the uniform distribution over them), a colon between the names of a statement and its numbers, a
byte-order mark, and comments in any encoding.
"""

import dataclasses
import itertools
import math
import pathlib
import re
import time
import warnings
from array import array

import numpy as np
from scipy import sparse

from icdm.errors import TooLarge, UserError
from icdm.files import write_text
from icdm.problems.mdp import check_horizon
from icdm.problems.pomdp import POMDP
from icdm.problems.sparse import SparsePOMDP

ROUNDED = 1e-4  # rows that miss 1 by less are renormalised with a warning
EXACT = 1e-12  # rows that miss 1 by less are kept as written
MOST_NAMES = 2**18  # most states, actions or observations
MOST_ROWS = 2**22  # most pairs of an action and a state
LARGEST = 2**23  # most entries that one statement assigns
MOST_ENTRIES = 2**24  # most entries of a table that are not 0, and of what rewards depend on
PENDING = 2**22  # entries that are assigned before equal ones are merged

_TOKEN = re.compile(r":|[^\s:]+")
_COMMENT = re.compile(rb"#[^\n]*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NAME = re.compile(r"[A-Za-z][\w.\-]*")
_STATEMENTS = ("discount", "values", "states", "actions", "observations", "start", "T", "O", "R")
_KINDS = ("states", "actions", "observations")


@dataclasses.dataclass(frozen=True)
class NamedPOMDP:
    """A POMDP with the names in its file, or with numbers if the file has no names."""

    problem: POMDP | SparsePOMDP
    states: tuple[str, ...]
    actions: tuple[str, ...]
    observations: tuple[str, ...]


def read_pomdp(path: str | pathlib.Path, *, horizon: int, discount: float | None = None) -> NamedPOMDP:
    """Reads a `.POMDP` or `.MDP` file; the problem is a `POMDP`.

    The problem keeps the mean rewards given (s, a), r(s, a) = sum P(s'|s,a) O(o|a,s') R(a, s, s', o), which
    determine the values because the decider does not observe the rewards. Costs are negated. Rows that miss 1 by
    less than 1e-4 are renormalised with a warning.

    Args:
      discount: replaces the file's discount unless it is None.

    Raises:
      UserError: the file cannot be read, breaks the format (`file:line: message`), or its dense tables are too large.
    """
    check_horizon(horizon)
    return _dense(read_sparse(path, discount=discount), horizon)


def read_sparse(path: str | pathlib.Path, *, discount: float | None = None, deadline: float = math.inf) -> NamedPOMDP:
    """`read_pomdp` with a `SparsePOMDP`, which has no horizon.

    Args:
      deadline: on the clock of `time.monotonic`.

    Raises:
      UserError: as `read_pomdp`, or the deadline has passed.
    """
    path = pathlib.Path(path)
    try:
        content = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        text = _COMMENT.sub(b"", content).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a text file in UTF-8"
        raise UserError(f"{path}: cannot be read ({reason})") from None
    return parse_sparse(text, discount=discount, name=str(path), deadline=deadline)


def parse_pomdp(text: str, *, horizon: int, discount: float | None = None, name: str = "text") -> NamedPOMDP:
    """`read_pomdp` for the text of a file; messages call the file `name`."""
    check_horizon(horizon)
    return _dense(parse_sparse(text, discount=discount, name=name), horizon)


def parse_sparse(
    text: str, *, discount: float | None = None, name: str = "text", deadline: float = math.inf
) -> NamedPOMDP:
    """`read_sparse` for the text of a file; messages call the file `name`."""
    if discount is not None and not 0 < discount <= 1:
        raise UserError(f"discount {discount}: give a number in (0, 1]")
    return _Reader(text, name, deadline).read(discount)


def _dense(named: NamedPOMDP, horizon: int) -> NamedPOMDP:
    return dataclasses.replace(named, problem=named.problem.dense(int(horizon)))


def in_the_order_of(named: NamedPOMDP, first: NamedPOMDP) -> NamedPOMDP:
    """The same problem (a `SparsePOMDP`) with states, actions and observations in the order of another one.

    Raises:
      UserError: the two problems do not have the same names.
    """
    order = {}
    for kind in _KINDS:
        ours, theirs = getattr(named, kind), getattr(first, kind)
        if missing := set(ours) ^ set(theirs):
            raise UserError(f"{kind} are matched by name, but only one file has {min(missing)!r}: make them agree")
        index = {word: i for i, word in enumerate(ours)}
        order[kind] = [index[word] for word in theirs]
    states, actions, observations = (order[kind] for kind in _KINDS)
    problem = dataclasses.replace(
        named.problem,
        transition=tuple(named.problem.transition[a][states][:, states] for a in actions),
        emission=tuple(named.problem.emission[a][states][:, observations] for a in actions),
        reward=named.problem.reward[np.ix_(states, actions)],
        initial=named.problem.initial[states],
    )
    return NamedPOMDP(problem, first.states, first.actions, first.observations)


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


class _Table:
    """Numbers (A, S, W), of which most are 0; later assignments overrule earlier ones."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.keys, self.values = np.zeros(0, np.int64), np.zeros(0)  # merged entries that are not 0, in order
        self.blocks = []  # assignments since the last merge
        self.cells, self.numbers = [], []  # assignments of single entries since the last block
        self.pending = 0

    def assign(self, where: tuple, values: np.ndarray) -> None:
        """`table[where] = values`; an index is a number or `slice(None)`.

        Raises:
          TooLarge: the statement assigns too many entries, or too many are not 0.
        """
        if len(where) == 3 and slice(None) not in where:
            self.cells.append((where[0] * self.shape[1] + where[1]) * self.shape[2] + where[2])
            self.numbers.append(float(values))
            self.pending += 1
        else:
            index = [i for i, _ in itertools.zip_longest(where, self.shape, fillvalue=slice(None))]
            widths = [n if i == slice(None) else 1 for i, n in zip(index, self.shape)]
            _fits(math.prod(widths), LARGEST, "entries in one statement")
            a, s, w = (np.arange(n) if i == slice(None) else np.array([i]) for i, n in zip(index, self.shape))
            keys = np.add.outer(np.add.outer(a * self.shape[1], s) * self.shape[2], w)
            self.add(keys.ravel(), np.broadcast_to(values, widths).ravel())
        if self.pending > PENDING:
            self.merge()

    def assign_identity(self, action: int | slice) -> None:
        """`table[action] = np.eye(S)`."""
        self.merge()
        n_actions, n_states, width = self.shape
        actions = np.arange(n_actions)[action].ravel()
        others = ~np.isin(self.keys // (n_states * width), actions)
        self.keys, self.values = self.keys[others], self.values[others]
        diagonal = np.add.outer(actions * n_states * width, np.arange(n_states) * (width + 1)).ravel()
        self.add(diagonal, np.ones(diagonal.size))

    def add(self, keys: np.ndarray, values: np.ndarray) -> None:
        self.blocks += [(np.array(self.cells, np.int64), np.array(self.numbers)), (keys, values)]
        self.cells, self.numbers = [], []
        self.pending += keys.size

    def merge(self) -> None:
        """Keeps the last assignment of every entry."""
        self.add(np.zeros(0, np.int64), np.zeros(0))
        keys, values = (np.concatenate(parts) for parts in zip((self.keys, self.values), *self.blocks))
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], values[order]
        last = np.append(keys[1:] != keys[:-1], True)[: keys.size] & (values != 0)
        self.keys, self.values, self.blocks, self.pending = keys[last], values[last], [], 0
        _fits(self.keys.size, MOST_ENTRIES, "entries that are not 0")

    def by_action(self) -> list[sparse.csr_array]:
        """A arrays (S, W)."""
        self.merge()
        n_actions, n_states, width = self.shape
        ends = np.searchsorted(self.keys, np.arange(n_actions * n_states + 1) * width)
        tables = []
        for a in range(n_actions):
            rows = ends[a * n_states : (a + 1) * n_states + 1]
            within = slice(rows[0], rows[-1])
            columns = (self.keys[within] % width).astype(np.int32)
            starts = (rows - rows[0]).astype(np.int32)
            tables.append(sparse.csr_array((self.values[within], columns, starts), shape=(n_states, width)))
        return tables


def _fits(size: int, limit: int, what: str) -> None:
    if size > limit:
        raise TooLarge(size, limit, what)


class _Numbers(dict):
    """The number that a word writes, or nan; each word is converted once."""

    def __missing__(self, word: str) -> float:
        number = float(word) if _NUMBER.fullmatch(word) else math.nan
        self[word] = number = number if math.isfinite(number) else math.nan
        return number


class _Reader:
    """A recursive-descent parser; every method consumes the tokens of its statement or word."""

    def __init__(self, text: str, name: str, deadline: float) -> None:
        self.name = name
        self.deadline = deadline
        self.tokens, self.lines = [], array("l")
        known = {}  # so that equal words are one object
        for line, content in enumerate(text.split("\n"), 1):
            words = [known.setdefault(word, word) for word in _TOKEN.findall(content.split("#")[0])]
            self.tokens += words
            self.lines.extend([line] * len(words))
        self.end = self.lines[-1] if self.tokens else 1
        self.at = 0
        self.numbers = _Numbers()
        self.discount = None
        self.sign = 1.0
        self.names = {}
        self.observes_state = False
        self.start = None
        self.start_line = None
        self.rewards = []
        self.transition = self.emission = None

    def read(self, discount: float | None) -> NamedPOMDP:
        while self.at < len(self.tokens):
            if time.monotonic() > self.deadline:
                raise self.error("the time limit has passed while the file was read: give more --time-limit")
            word = self.word("a statement")
            if word not in _STATEMENTS:
                raise self.error(f"{word!r} begins no statement (known: {', '.join(_STATEMENTS)})")
            if word in ("T", "O", "R"):
                self.tables()
            try:
                getattr(self, "read_" + word)()
            except TooLarge as error:
                raise self.error(str(error)) from None
        if self.discount is None and discount is None:
            raise self.error("the file gives no discount: add a line 'discount:', or give --discount")
        self.tables()
        try:
            transition = self.rows("T", self.transition.by_action(), self.transition_line)
            emission = transition
            if self.observes_state:
                emission = [sparse.eye_array(len(self.names["states"]), format="csr")] * len(transition)
            else:
                emission = self.rows("O", self.emission.by_action(), self.emission_line)
            reward = self.sign * self.mean_reward(transition, emission)
        except TooLarge as error:
            raise self.error(str(error)) from None
        start = self.initial()
        start = start / self.divisor("start", start.sum().reshape(1, 1), np.full((1, 1), self.start_line or self.end))
        if not np.isfinite(reward).all():
            raise self.error("the rewards are too large to add")
        discount = self.discount if discount is None else discount
        problem = SparsePOMDP(
            tuple(transition), tuple(emission), reward, start[0], float(discount), observes_state=self.observes_state
        )
        return NamedPOMDP(problem, *(tuple(self.names[kind]) for kind in _KINDS))

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
        if self.observes_state:
            raise self.error("observations: declare them before the first T, O or R")
        self.read_names("observations")

    def read_names(self, kind: str) -> None:
        if kind in self.names:
            raise self.error(f"{kind} are given twice")
        self.colon()
        words = self.list()
        if not words:
            raise self.error(f"{kind}: give a count or names")
        if len(words) == 1 and words[0].isdecimal():
            count = int(words[0]) if len(words[0]) < 10 else MOST_NAMES + 1
            if not 0 < count <= MOST_NAMES:
                raise self.error(f"{kind}: {words[0]} is no usable count (1 to {MOST_NAMES:,})")
            self.names[kind] = {str(i): i for i in range(count)}
            return
        names = self.names[kind] = {}
        for word in words:
            if not _NAME.fullmatch(word):
                raise self.error(f"{kind}: {word!r} is no name (a letter, then letters, digits, - and _)")
            if word in names:
                raise self.error(f"{kind}: {word!r} is named twice")
            names[word] = len(names)

    def read_start(self) -> None:
        if self.start_line is not None:
            raise self.error("start is given twice")
        self.start, self.start_line = self.start_here(), self.line()

    def start_here(self) -> np.ndarray:
        """The distribution of the `start` statement whose first word has been read."""
        names = self.declared("states")
        exclude = self.peek() == "exclude"
        chosen = exclude or self.peek() == "include"
        if chosen:
            self.at += 1
        self.colon()
        words = self.list()
        if not words:
            raise self.error("start: give a distribution, a state, or include: or exclude: with states")
        if words == ["uniform"] and "uniform" not in names:
            return self.uniform()
        if not chosen and len(words) == len(names) and all(map(_NUMBER.fullmatch, words)):
            return np.array([float(word) for word in words])
        if not chosen and len(words) > 1 and any(map(_NUMBER.fullmatch, words)):
            raise self.error(f"start gives {len(words)} values for {len(names)} states")
        member = np.isin(np.arange(len(names)), [self.index(word, "states") for word in words]) ^ exclude
        if not member.any():
            raise self.error("start excludes every state")
        return member / member.sum()

    def initial(self) -> np.ndarray:
        """The start distribution, (S,), even if its statement is still to come; uniform if there is none."""
        if self.start is None:
            here = self.at
            for at in range(here, len(self.tokens) - 1):
                if self.at_statement(at) and self.tokens[at] == "start" and self.tokens[at - 1] != ":":
                    self.at = at + 1
                    self.start = self.start_here()
                    break
            else:
                self.start = self.uniform()
            self.at = here
        return self.start

    # The tables

    def tables(self) -> None:
        """Allocates the tables if they do not exist yet; the sizes must be declared."""
        if self.transition is not None:
            return
        states, actions = self.declared("states"), self.declared("actions")
        self.observes_state = "observations" not in self.names
        observations = self.names.setdefault("observations", states)
        if len(actions) * len(states) > MOST_ROWS:
            rows = f"{len(actions):,} actions x {len(states):,} states"
            raise self.error(f"too large: {rows}, the limit is {MOST_ROWS:,} rows of a table")
        shape = len(actions), len(states)
        self.transition, self.emission = _Table((*shape, len(states))), _Table((*shape, len(observations)))
        self.transition_line, self.emission_line = np.full(shape, self.end), np.full(shape, self.end)

    def read_T(self) -> None:
        where = self.selectors("actions", "states", "states")
        words = ("uniform", "identity") if len(where) == 1 else ("uniform", "reset")
        self.assign(self.transition, self.transition_line, where, words)

    def read_O(self) -> None:
        if self.observes_state:
            raise self.error("the observations are not declared yet")
        where = self.selectors("actions", "states", "observations")
        self.assign(self.emission, self.emission_line, where, ("uniform",))

    def read_R(self) -> None:
        kinds = ("states", "observations")[: 1 if self.observes_state else 2]
        where = self.selectors("actions", "states", *kinds)
        if len(where) == 1:
            raise self.error("R needs at least an action and a state")
        if self.observes_state and self.peek() == ":":
            raise self.error("R has no observation in a file that declares none")
        values = self.block(tuple(len(self.names[kind]) for kind in kinds)[len(where) - 2 :])
        if self.observes_state:  # an axis of observations on which nothing depends
            where, values = (where, values[:, None]) if len(where) == 2 else ((*where, slice(None)), values)
        self.rewards.append((where, values))

    def assign(self, table: _Table, lines: np.ndarray, where: tuple, words: tuple[str, ...]) -> None:
        shape = table.shape[len(where) :]
        word = self.peek()
        if shape and word in words:
            self.at += 1
            lines[where[:2]] = self.line()
            if word == "identity":
                table.assign_identity(where[0])
            else:
                values = np.array(1 / shape[-1]) if word == "uniform" else self.initial()
                if values.min() < 0:
                    raise self.error(f"{values.min():g} is no probability")
                table.assign(where, values)
            return
        values = self.block(shape)
        if values.min() < 0:
            raise self.error(f"{values.min():g} is no probability")
        table.assign(where, values)
        lines[where[:2]] = self.lines_of_rows(*shape) if values.ndim == 2 else self.line()

    def lines_of_rows(self, n_rows: int, width: int) -> list[int]:
        """The line on which each row of the last block ends."""
        return [self.line(self.at - 1 - width * row) for row in reversed(range(n_rows))]

    def mean_reward(self, transition: list[sparse.csr_array], emission: list[sparse.csr_array]) -> np.ndarray:
        """r(s, a), (S, A).

        R is a table of actions and states if every statement has stars for the next state and the observation.
        Otherwise it is kept for the transitions that are possible, and for all observations if a statement names one.
        """
        shape = len(self.names["states"]), len(self.names["actions"])
        whole = slice(None)
        if all(len(where) == 4 and where[2:] == (whole, whole) for where, _ in self.rewards):
            reward = np.zeros(shape)
            for (a, s, _, _), value in self.rewards:
                reward[s, a] = value
            return reward
        observed = any(len(where) < 4 or where[3] != whole for where, _ in self.rewards) and not self.observes_state
        n_observations = len(self.names["observations"]) if observed else 1
        most = max(table.nnz for table in transition) * n_observations
        _fits(most, MOST_ENTRIES, "rewards by transition and observation")
        by_action = [[] for _ in transition]
        for where, values in self.rewards:
            for a in range(shape[1])[where[0]] if where[0] == whole else [where[0]]:
                by_action[a].append((where[1:], values))
        reward = [self.mean_of(*rest, n_observations) for rest in zip(by_action, transition, emission)]
        return np.stack(reward, 1)

    def mean_of(
        self, statements: list, transition: sparse.csr_array, emission: sparse.csr_array, n_observations: int
    ) -> np.ndarray:
        """r(s, a) of one action, (S,), from its statements of R."""
        starts, next_state = transition.indptr, transition.indices
        by_next = np.argsort(next_state, kind="stable")
        ends = np.searchsorted(next_state[by_next], np.arange(transition.shape[1] + 1))
        pay = np.zeros((transition.nnz, n_observations))
        for (s, *rest), values in statements:
            row = slice(None) if s == slice(None) else slice(starts[s], starts[s + 1])
            if not rest:
                pay[row] = values[next_state[row]]
                continue
            t, *observation = rest
            if t == slice(None):
                entries = row
            elif s == slice(None):
                entries = by_next[ends[t] : ends[t + 1]]
            else:
                entries = starts[s] + np.flatnonzero(next_state[row] == t)
            pay[entries, observation[0] if observation and n_observations > 1 else slice(None)] = values
        weight = transition.data[:, None]
        if n_observations > 1:
            weight = weight * emission.toarray()[next_state]
        with np.errstate(over="ignore", invalid="ignore"):
            paid = (weight * pay).sum(1)
            return np.bincount(np.repeat(np.arange(starts.size - 1), np.diff(starts)), paid, starts.size - 1)

    def rows(self, what: str, tables: list[sparse.csr_array], lines: np.ndarray) -> list[sparse.csr_array]:
        """The rows as distributions; rounded rows are renormalised with a warning."""
        total = np.stack([table @ np.ones(table.shape[1]) for table in tables])
        divisor = self.divisor(what, total, lines)
        for table, by in zip(tables, divisor):
            table.data /= np.repeat(by, np.diff(table.indptr))
        return tables

    def divisor(self, what: str, total: np.ndarray, lines: np.ndarray) -> np.ndarray:
        """What rows with these sums (A, S) are divided by.

        Raises:
          UserError: a row misses 1 by `ROUNDED` or more.
        """
        miss = np.abs(total - 1)
        for a, s in np.argwhere(~(miss < ROUNDED))[:1]:
            of = f"{what}: {self.called('actions', a)} : {self.called('states', s)}" if what != "start" else what
            raise self.error(f"{of} sums to {total[a, s]:.9g}, not 1", lines[a, s])
        rounded = miss > EXACT
        if rounded.any():
            first = lines[rounded].min()
            rows = "1 row" if rounded.sum() == 1 else f"{rounded.sum()} rows"
            message = f"{rows} of {what} renormalised (off by {miss.max():.1e})"
            warnings.warn(f"{self.name}:{first}: {message}", stacklevel=5)
        return np.where(rounded, total, 1)

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
        numbers_follow = self.at + 1 < len(self.tokens) and not math.isnan(self.numbers[self.tokens[self.at + 1]])
        if len(where) == len(kinds) and self.peek() == ":" and numbers_follow:
            self.at += 1
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
        count = math.prod(shape)
        words = self.tokens[self.at : self.at + count]
        values = np.fromiter(map(self.numbers.__getitem__, words), float, len(words))
        for i in np.flatnonzero(np.isnan(values))[:1]:
            self.at += int(i)
            self.number(f"number {i + 1} of {count}")
        self.at += len(words)
        if len(words) < count:
            raise self.error(f"the file ends where number {len(words) + 1} of {count} should stand")
        return values.reshape(shape)

    def number(self, what: str) -> float:
        word = self.word(what)
        if math.isnan(self.numbers[word]):
            raise self.error(f"{word!r} where {what} should stand")
        return self.numbers[word]

    def list(self) -> list[str]:
        words = []
        while self.at < len(self.tokens) and not self.at_statement(self.at):
            words.append(self.word("a name"))
            if words[-1] == ":":
                raise self.error("a colon inside a list")
        return words

    def at_statement(self, at: int) -> bool:
        following = self.tokens[at + 1] if at + 1 < len(self.tokens) else ""
        word = self.tokens[at]
        return word in _STATEMENTS and (following == ":" or (word == "start" and following in ("include", "exclude")))

    def colon(self) -> None:
        if self.peek() != ":":
            raise self.error("a colon is missing", self.line(self.at))
        self.at += 1

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def word(self, what: str) -> str:
        if self.at >= len(self.tokens):
            raise self.error(f"the file ends where {what} should stand")
        self.at += 1
        return self.tokens[self.at - 1]

    def line(self, at: int | None = None) -> int:
        """The line of the token at `at`, or of the last token if `at` is None."""
        at = max(self.at - 1, 0) if at is None else at
        return self.lines[at] if at < len(self.lines) else self.end

    def error(self, message: str, line: int | None = None) -> UserError:
        return UserError(f"{self.name}:{self.line() if line is None else line}: {message}")
