"""POMDPs that solvers are compared on, written as .POMDP files from their published descriptions."""

import itertools
import math

COMPASS = "NESW"


def file_of(discount, states, actions, observations, start, lines):
    head = [
        f"discount: {discount}",
        "values: reward",
        f"states: {states}",
        f"actions: {actions}",
        f"observations: {observations}",
    ]
    return "\n".join([*head, start, *lines]) + "\n"


def tiger():
    """Kaelbling, Littman and Cassandra (1998): listen for the tiger, or open one of two doors."""
    lines = ["T: listen identity", *(f"T: {door} uniform" for door in ("left", "right"))]
    lines += ["O: * uniform", "O: listen\n0.85 0.15\n0.15 0.85", "R: listen: *: *: * -1"]
    lines += [
        f"R: {door}: {side}: *: * {-100 if door == side else 10}"
        for door in ("left", "right")
        for side in ("left", "right")
    ]
    return file_of(0.95, "left right", "listen left right", "left right", "start: uniform", lines)


def heaven_and_hell(arm):
    """Geffner and Bonet (1998): a corridor leads to a crossing, its arms to heaven and hell; a priest knows which.

    Cells: 0 to `arm` from the start to the crossing, then the arm to the west, the arm to the east, and the way from
    the start to the priest, each `arm` cells long; the last way begins with a cell below the start.
    """
    n_cells = 4 * arm + 2
    west, east, below, priest = 2 * arm, 3 * arm, 3 * arm + 1, n_cells - 1
    ways = {}  # (cell, direction) -> cell, each also the other way round
    for cell in range(arm):
        ways[cell, "N"] = cell + 1
    ways[0, "S"] = below
    for cell in range(arm, west):
        ways[cell, "W"] = cell + 1
    for cell in (arm, *range(west + 1, east)):
        ways[cell, "E"] = west + 1 if cell == arm else cell + 1
    for cell in range(below, priest):
        ways[cell, "E"] = cell + 1
    ways |= {(to, COMPASS[(COMPASS.index(d) + 2) % 4]): cell for (cell, d), to in ways.items()}
    lines = []
    for side, cell in itertools.product(range(2), range(n_cells)):
        state = side * n_cells + cell
        lines += [f"T: {d}: {state}: {side * n_cells + ways.get((cell, d), cell)} 1.0" for d in COMPASS]
        lines.append(f"O: *: {state}: {cell if cell < priest else priest + side} 1.0")
        if cell in (west, east):
            heaven = (west, east)[side]
            lines += [f"T: *: {state} reset", f"R: *: {state}: *: * {1 if cell == heaven else -1}"]
    return file_of(0.99, 2 * n_cells, " ".join(COMPASS), n_cells + 1, f"start include: 0 {n_cells}", lines)


def shopping(side):
    """A shopper on a square grid asks which item to buy, walks there and buys it; what is seen is the answer or the
    shopper's own cell (gym-pomdps of A. Baisero, the first version of its problem `shopping`)."""
    cells = list(itertools.product(range(side), repeat=2))
    steps = dict(left=(-1, 0), right=(1, 0), up=(0, 1), down=(0, -1))
    lines = ["T: query identity", "T: buy identity", "R: query: *: *: * -2", "R: buy: *: *: * -5"]
    lines += [f"R: {step}: *: *: * -1" for step in steps]
    n = len(cells)
    for (i, at), (j, item) in itertools.product(enumerate(cells), repeat=2):
        state = i * n + j
        for step, change in steps.items():
            to = tuple(min(max(x + d, 0), side - 1) for x, d in zip(at, change))
            lines += [f"T: {step}: {state}: {cells.index(to) * n + j} 1.0", f"O: {step}: {state}: {i} 1.0"]
        lines += [f"O: buy: {state}: {i} 1.0", f"O: query: {state}: {j} 1.0"]
        if at == item:
            lines += [f"T: buy: {state} reset", f"R: buy: {state}: *: * 10"]
    actions = " ".join(["query", *steps, "buy"])
    return file_of(0.99, n * n, actions, n, f"start include: {' '.join(map(str, range(n)))}", lines)


def hallway():
    """Littman, Cassandra and Kaelbling (1995): a robot with four sensors of walls in a corridor of 11 cells with four
    cells to the south, of which the last is the goal. A state is a cell and a heading."""
    south = {2: 11, 4: 12, 6: 13, 8: 14}
    north = {room: cell for cell, room in south.items()}

    def neighbour(cell, heading):
        if COMPASS[heading] in "NS":
            return (north if COMPASS[heading] == "N" else south).get(cell)
        to = cell + (1 if COMPASS[heading] == "E" else -1)
        return to if cell <= 10 and 0 <= to <= 10 else None

    turns = {2: (0.1, 0.7, 0.1, 0.1), 3: (0.1, 0.15, 0.6, 0.15), 4: (0.1, 0.1, 0.1, 0.7)}
    lines = []
    for cell, heading in itertools.product(range(15), range(4)):
        state = 4 * cell + heading
        if cell == 14:
            lines += [f"T: *: {state} reset", f"O: *: {state}: 20 1.0", f"R: *: *: {state}: * 1.0"]
            continue
        lines.append(f"T: 0: {state}: {state} 1.0")
        forward = {}
        for turn, chance in enumerate((0.8, 0.05, 0.05, 0.05)):
            way = (heading + turn) % 4
            to = neighbour(cell, way)
            for facing in () if to is None else (way, heading) if turn == 2 else (way,):
                forward[4 * to + facing] = chance / (2 if turn == 2 else 1)
        forward[state] = 1 - sum(forward.values())
        lines += [f"T: 1: {state}: {to} {chance:.6f}" for to, chance in forward.items()]
        for action, chances in turns.items():
            lines += [f"T: {action}: {state}: {4 * cell + (heading + turn) % 4} {p}" for turn, p in enumerate(chances)]
        if COMPASS[heading] == "S" and cell in south:  # a landmark
            lines.append(f"O: *: {state}: {16 + list(south).index(cell)} 1.0")
            continue
        walls = [neighbour(cell, (heading + turn) % 4) is None for turn in range(4)]
        for code, seen in enumerate(itertools.product((False, True), repeat=4)):
            chance = math.prod((0.9 if s else 0.1) if w else (0.05 if s else 0.95) for w, s in zip(walls, seen))
            lines.append(f"O: *: {state}: {code} {chance:.9f}")
    start = "start: " + " ".join(["0.017865", *["0.017857"] * 55, *["0.0"] * 4])
    return file_of(0.95, 60, 5, 21, start, lines)


def rock_sample(size, rocks):
    """RockSample (Smith and Simmons 2004) as a file; the rocks lie on the diagonal."""
    cells = list(itertools.product(range(size), range(size)))
    place = [(i % size, i % size) for i in range(rocks)] if rocks <= size else cells[:rocks]
    states = {pair: i for i, pair in enumerate(itertools.product(cells, itertools.product((0, 1), repeat=rocks)))}
    gone = len(states)
    moves = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}
    checks = [f"check{i}" for i in range(rocks)]
    first = [states[(0, size // 2), bits] for bits in itertools.product((0, 1), repeat=rocks)]
    lines = ["O: * : * : none 1"]
    lines += [f"T: * : {gone} : {gone} 1"]
    for ((x, y), bits), s in states.items():
        for name, (dx, dy) in moves.items():
            inside = x + dx >= 0 and 0 <= y + dy < size
            to = gone if x + dx >= size else states[((x + dx, y + dy) if inside else (x, y)), bits]
            lines += [f"T: {name} : {s} : {to} 1"] + [f"R: {name} : {s} : * : * 10"] * (to == gone)
        here = place.index((x, y)) if (x, y) in place else None
        sampled = tuple(0 if i == here else bit for i, bit in enumerate(bits))
        lines += [f"T: sample : {s} : {states[(x, y), sampled]} 1"]
        lines += [f"R: sample : {s} : * : * {-100 if here is None else 10 if bits[here] else -10}"]
        for i, check in enumerate(checks):
            right = (1 + 2 ** (-math.dist((x, y), place[i]) / 20)) / 2
            good = right if bits[i] else 1 - right
            lines += [f"T: {check} : {s} : {s} 1", f"O: {check} : {s} : none 0"]
            lines += [f"O: {check} : {s} : good {good!r}", f"O: {check} : {s} : bad {1 - good!r}"]
    actions = " ".join([*moves, "sample", *checks])
    start = f"start include: {' '.join(map(str, first))}"
    return file_of(0.95, gone + 1, actions, "none good bad", start, lines)
