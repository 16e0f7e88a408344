"""The tables of docs/accelerators.md: speed on a GPU, and what a compiler for TPUs says."""

from tables import results_of, table

BENCHMARKS = "benchmarks/results"
MIB, GIB = 2**20, 2**30


def gpu() -> str:
    """Training of large models beside PyTorch. Where both cards of the file have measured a shape, the row is that of
    the second, which ran PyTorch; a star marks the rows of the first."""
    found: dict[str, tuple[float, str]] = {}
    for run in results_of("NVIDIA_H200", BENCHMARKS)["runs"]:
        found |= {row["name"]: (row["value"], run["card"]) for row in run["rows"]}
    rows = []
    for shape, name in (("100 M", "100 M: width 768, 14 layers"), ("350 M", "350 M: width 1,024, 28 layers")):
        for length in ("1,024", "2,048"):
            at = f"{shape}, length {length}"
            speed, card = found[f"{at}: training"]
            rows.append(
                [
                    name if length == "1,024" else "",
                    length,
                    f"{speed:,.0f}" + (" *" if card == "first" else ""),
                    _share(found[f"{at}: MFU"][0]),
                    _share(found[f"{at}: share of a matrix product"][0]),
                    f"{found[f'{at}: first step with compilation'][0]:.0f} s",
                    f"{found[f'{at}: training in PyTorch, compiled'][0]:,.0f}",
                    f"{eager[0]:,.0f}" if (eager := found.get(f"{at}: training in PyTorch, eager")) else "",
                ]
            )
    head = ["shape", "length", "tokens/s", "MFU of 989 TFLOP/s", "of a matrix product", "first step"]
    return table([*head, "PyTorch compiled", "PyTorch eager"], rows)


def _share(x: float) -> str:
    return f"{x:.3f}".removeprefix("0")


def tpu() -> str:
    """The programs of every config, for the chips of a topology."""
    rows = []
    for compiled in results_of("tpu_compile", BENCHMARKS)["compiled"]:
        for name, program in compiled["programs"].items():
            config = compiled["config"] + ("" if compiled["config"].startswith("large") else f": {name}")
            rows.append([config, f"{compiled['chips']}", *_program(program)])
    head = ["config, program", "chips", "arguments + temporaries, MiB", "left, GiB", "GFLOP", "GB moved"]
    return table([*head, "collectives, MB", "ms at best", "bound"], rows)


def _program(program: dict) -> list[str]:
    gflop = program["flops"] / 1e9
    operations = f"{gflop:,.0f}" if gflop >= 1000 else f"{gflop:.2f}"
    if "needs" in program:
        return [f"{program['needs'] / MIB:,.0f}", "does not fit", operations, "", "", "", "size"]
    sent = sum(kind["bytes"] for kind in program["collectives"].values()) / 1e6
    least = 1000 * max(program["seconds"].values())
    return [
        f"{(program['arguments'] + program['temporaries']) / MIB:,.0f}",
        f"{program['left'] / GIB:.1f}",
        operations,
        f"{program['bytes'] / 1e9:.2f}",
        f"{sent:,.1f}" if sent else "",
        f"{least:,.0f}" if least >= 100 else f"{least:.3g}",
        program["bound"],
    ]
