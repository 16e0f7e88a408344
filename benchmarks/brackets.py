"""What `icdm solve --infinite` brackets published POMDPs between, after some seconds of processor time.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.brackets [--name now] [--out benchmarks/results/brackets.json]

SARSOP's (Kurniawati, Hsu and Lee 2008) are published values, or what it has after some 10 s. The results of another
version of the code are kept under its own name.
"""

import argparse
import pathlib
import time
from unittest import mock

from benchmarks.published_pomdps import hallway, heaven_and_hell, rock_sample, shopping, tiger
from icdm.families.cassandra import parse_sparse
from icdm.files import read_json, write_json
from icdm.oracles import first_bounds, trials
from icdm.provenance import provenance

CANCER = pathlib.Path(__file__).parent.parent / "tests/data/pomdp/cancer.POMDP"
MODELS = {  # its file, seconds, SARSOP's bracket
    "tiger": (tiger, 10, [19.3713, 19.3713]),
    "heaven and hell, arms of 4": (lambda: heaven_and_hell(4), 10, [4.8008, 4.8008]),
    "cancer": (CANCER.read_text, 10, [74.38, 77.29]),
    "shopping, 3 x 3": (lambda: shopping(3), 10, [145.0, 150.3]),
    "hallway": (hallway, 15, [0.972, 1.219]),
    "RockSample, 5 x 5, 4 rocks": (lambda: rock_sample(5, 4), 10, None),
    "RockSample, 5 x 5, 7 rocks": (lambda: rock_sample(5, 7), 15, None),
}


def measure() -> dict[str, dict]:
    """Seconds of processor time, bracket and number of trials of each model."""
    found = {}
    for name, (text, seconds, sarsop) in MODELS.items():
        problem = parse_sparse(text()).problem
        # Limits are looked at on a clock that stands while other processes have the processor.
        clock = mock.Mock(monotonic=time.process_time)
        with mock.patch.object(trials, "time", clock), mock.patch.object(first_bounds, "time", clock):
            began = time.process_time()
            bracket = trials.bracket(problem, None, tolerance=1e-6, deadline=began + seconds)
            took = time.process_time() - began
        found[name] = {
            "limit": seconds,
            "seconds": round(took, 2),
            "bracket": [bracket.lower, bracket.upper],
            "trials": bracket.n_trials,
            "sarsop": sarsop,
        }
        print(f"{name:28} {took:5.1f} s  [{bracket.lower:.6f}, {bracket.upper:.6f}]  SARSOP {sarsop}", flush=True)
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.brackets")
    parser.add_argument("--name", default="now", help="of this version of the code (%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmarks/results/brackets.json"))
    arguments = parser.parse_args(argv)
    earlier = read_json(arguments.out, "take another --out") if arguments.out.exists() else {}
    write_json(arguments.out, earlier | {arguments.name: {"problems": measure(), "made_with": provenance()}})


if __name__ == "__main__":
    main()
