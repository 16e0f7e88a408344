"""Compiles the programs of an experiment for TPUs that need not be there, and says what each chip would do.

    python -m experiments.compile --config=experiments/configs/demo.py --topology=v5e:2x4 [--config.mesh_model=2 ...]

It needs the extra `tpu`, whose compiler runs on any machine. Nothing is trained. Per chip it prints the arguments and
temporaries of a program and what is left of the memory, operations and bytes, collectives with their sizes, the time
that published peaks allow, and what bounds it.
"""

import math
import os
import pathlib
import re
import sys
import time
from collections import Counter
from typing import Any

from absl import app, flags

from experiments.flags import define_config, parse
from icdm.errors import UserError, one_line_errors

if __name__ == "__main__":
    define_config()
    flags.declare_key_flag("config")
    flags.DEFINE_string("topology", None, "chips as NAME:AxB, such as v5e:2x4, v6e:4x4 or v5p:2x2x2")
    flags.DEFINE_list("only", [], "these programs: pretrain, fine_tune, rollout, oracle")
    flags.DEFINE_string("json", None, "add what is found to this file")

# The compiler asks a machine's metadata for its TPUs unless it is told.
NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}
COLLECTIVE = re.compile(r"= (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
COMPUTATION = re.compile(r"^(?:ENTRY )?%([\w.-]+) \(.*?\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
LOOP = re.compile(r" while\(.*?condition=%([\w.-]+), body=%([\w.-]+)")
CALL = re.compile(r"(?:calls|to_apply)=%([\w.-]+)")
CONSTANT = re.compile(r"s32\[\]\S* constant\((\d+)\)")
ARRAY = re.compile(r"\b(pred|[subf]\d+|bf16)\[([\d,]*)\]")


def main(_: list[str]) -> None:
    with one_line_errors("experiments.compile"):
        found = compiled_programs(flags.FLAGS.config, flags.FLAGS.topology, flags.FLAGS.only)
        show(found)
        if flags.FLAGS.json:
            from icdm.files import read_json, write_json
            from icdm.provenance import provenance

            path = pathlib.Path(flags.FLAGS.json)
            earlier = read_json(path, "take another file")["compiled"] if path.exists() else []
            write_json(path, {"compiled": [*earlier, found], "made_with": provenance()})


def compiled_programs(config: Any, topology: str | None, only: list[str]) -> dict[str, Any]:
    """What every program of the config takes on each chip of the topology.

    Raises:
      UserError: a topology that there is not, a mesh that does not divide, or no compiler.
    """
    os.environ.update(NO_TPU)
    from icdm.chips import chip_of, compiling_for
    from icdm.errors import unknown
    from icdm.runs.programs import programs
    from icdm.runs.run import Run
    from icdm.runs.settings import as_json, completed
    from icdm.sharding import make_mesh

    devices = devices_of(topology)
    run = Run(pathlib.Path(), completed(as_json(config)))
    mesh = make_mesh(run.settings.mesh_model, devices)
    chip = chip_of(devices[0].device_kind)
    with compiling_for("tpu"):
        makers = programs(run, mesh)
        for name in only:
            if name not in makers:
                raise unknown("program", name, makers)
        rows = {}
        for name in only or makers:
            print(f"{name}: compiling", flush=True)
            began = time.perf_counter()
            rows[name] = analysed(makers[name](), chip, len(devices)) | {"compile_s": time.perf_counter() - began}
    about = {"family": run.settings.family_name, "topology": topology, "chip": devices[0].device_kind}
    return about | {"chips": len(devices), "mesh": dict(mesh.shape), "programs": rows}


def devices_of(topology: str | None) -> list:
    """The chips of a topology.

    Raises:
      UserError: there is no such topology, or no compiler for it.
    """
    from jax.experimental import topologies

    remedy = "give NAME:AxB, such as v5e:2x4, v6e:4x4 or v5p:2x2x2"
    if not topology:
        raise UserError(f"name the chips: --topology; {remedy}")
    alone = {"chips_per_host_bounds": [1, 1, 1]} if topology.endswith(":1x1") else {}  # a host has four elsewhere
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology, **alone).devices
    except Exception as error:  # RuntimeError without libtpu, JaxRuntimeError for what it does not know
        if "not installed" in str(error):
            raise UserError("no TPU compiler: pip install -e '.[tpu]'") from None
        reason = str(error).strip().split("\n")[0][:100]
        raise UserError(f"no topology {topology!r} ({reason}): {remedy}") from None


def analysed(program: Any, chip: Any, n_chips: int) -> dict[str, Any]:
    """What a program takes on each chip once it is compiled, in bytes, operations and seconds.

    Operations are those of the matrix products, shared evenly. Bytes are those that XLA counts, times the ratio of
    the operations to those that XLA counts, since it counts the body of a loop once. Times are what the published
    peaks of the chip allow: operations over peak, bytes over bandwidth, bytes of collectives over links; `bound` names
    the largest. A program that does not fit has `needs`, the temporaries that the compiler asked for, alone.
    """
    from icdm.runs.programs import operations

    flops = operations(program.jaxpr) / n_chips
    try:
        compiled = program.lowered.compile()
    except Exception as error:  # JaxRuntimeError
        needs = re.search(r"total memory required[^(]*\(([\d.]+)([MG])\)", str(error))
        if not needs:
            raise
        return {"flops": flops, "needs": float(needs[1]) * {"M": 2**20, "G": 2**30}[needs[2]]}
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    used += memory.output_size_in_bytes - memory.alias_size_in_bytes
    collectives = collectives_of(compiled.as_text())
    moved = cost["bytes accessed"] * max(flops / max(cost["flops"], 1), 1)
    seconds = {
        "operations": flops / chip.flops,
        "memory": moved / chip.bandwidth,
        "links": sum(size for _, size in collectives.values()) / chip.links,
    }
    return {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "left": chip.memory - used,
        "flops": flops,
        "bytes": moved,
        "collectives": {name: {"count": n, "bytes": size} for name, (n, size) in collectives.items()},
        "seconds": seconds,
        "bound": max(seconds, key=seconds.get),
    }


def collectives_of(text: str) -> dict[str, tuple[int, int]]:
    """(how many, bytes of their results) of each kind of collective in a program; in a loop, as often as it turns."""
    bodies = dict(COMPUTATION.findall(text))
    turns = dict.fromkeys(bodies, 1)
    for name in reversed(bodies):  # those that use a computation stand behind it in the text
        for condition, body in LOOP.findall(bodies[name]):
            ends = [int(n) for n in CONSTANT.findall(bodies[condition])]
            turns[body] = turns[name] * max(ends, default=1)
        for other in CALL.findall(bodies[name]):
            turns[other] = max(turns[other], turns[name])
    counts, sizes = Counter(), Counter()
    for name, body in bodies.items():
        for shapes, kind in COLLECTIVE.findall(body):
            counts[kind] += turns[name]
            sizes[kind] += turns[name] * sum(_bytes(dtype, sides) for dtype, sides in ARRAY.findall(shapes))
    return {kind: (counts[kind], sizes[kind]) for kind in sorted(counts)}


def _bytes(dtype: str, sides: str) -> int:
    bits = 8 if dtype == "pred" else int(re.sub(r"\D", "", dtype))
    return math.prod(int(side) for side in sides.split(",") if side) * bits // 8


def show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{found['family']} on {found['chips']} x {found['chip']}, mesh {found['mesh']}; per chip"
    table = Table(title=title, title_justify="left")
    for column in ("program", "arguments", "temporaries", "left", "GFLOP", "moved", "collectives", "at best", "bound"):
        table.add_column(column, justify="left" if column in ("program", "bound", "collectives") else "right")
    for name, row in found["programs"].items():
        if "needs" in row:
            gib = f"{row['needs'] / 2**30:,.2f} GiB"
            table.add_row(name, "", gib, "does not fit", f"{row['flops'] / 1e9:,.2f}", "", "", "", "size")
            continue
        sizes = (f"{row[part] / 2**20:,.1f} MiB" for part in ("arguments", "temporaries", "left"))
        collectives = ", ".join(
            f"{of['count']} {kind} {of['bytes'] / 2**20:,.2f} MiB" for kind, of in row["collectives"].items()
        )
        best = f"{1e3 * max(row['seconds'].values()):,.3g} ms"
        moved = f"{row['bytes'] / 2**20:,.1f} MiB"
        table.add_row(name, *sizes, f"{row['flops'] / 1e9:,.2f}", moved, collectives or "none", best, row["bound"])
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    if any(row.get("left", -1) < 0 for row in found["programs"].values()):
        print(
            "what does not fit: set --config.mesh_model, --config.mesh_fsdp or --config.model.remat, or lower a batch"
        )


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: parse(argv, "experiments.compile"))
