"""The ledger for people: on the console, and as one self-contained page."""

import base64
import importlib.metadata
import pathlib

import jinja2
import markupsafe
import rich.console
import rich.table

from theory.ledger import Claim, lines, number

TEMPLATES = pathlib.Path(__file__).parent / "templates"


def console() -> rich.console.Console:
    return rich.console.Console(highlight=False)


def print_claim(out: rich.console.Console, claim: Claim, place: str) -> None:
    """One claim's verdict and numbers, as soon as they are known."""
    verdict = "[green]holds[/green]" if claim.holds else "[red]does not hold[/red]"
    out.print(f"[bold]{place} {claim.id}[/bold]: {verdict}  ({claim.seconds:.1f} s)\n  {claim.claim}")
    table = rich.table.Table(box=None, padding=(0, 2), show_header=False)
    for line in lines(claim):
        table.add_row(*line)
    for name, value in claim.control.items():
        table.add_row(f"[dim]control: {name.replace('_', ' ')}[/dim]", f"[dim]{number(value)}[/dim]")
    out.print(table)


def print_summary(out: rich.console.Console, claims: list[Claim], workdir: pathlib.Path) -> None:
    failing = [claim.id for claim in claims if not claim.holds]
    out.print(
        f"{len(claims) - len(failing)} of {len(claims)} claims hold"
        + (f"; not: {', '.join(failing)}" if failing else "")
    )
    out.print(f"{workdir / 'claims.json'}, {workdir / 'report.html'}", soft_wrap=True)


def write(path: pathlib.Path, claims: list[Claim], figures: pathlib.Path) -> None:
    """Writes the page with every claim's figure, numbers, controls and settings inside."""
    pictures = {claim.id: as_picture(figures / f"{claim.id}.png") for claim in claims}
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    page = environment.get_template("report.html").render(
        claims=claims, pictures=pictures, lines=lines, number=number, verdict=verdict, versions=versions()
    )
    path.write_text(page)


def as_picture(png: pathlib.Path) -> str:
    """The file as the source of an image inside a page."""
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode()


def verdict(claim: Claim) -> markupsafe.Markup:
    return markupsafe.Markup(
        '<span class="yes">holds</span>' if claim.holds else '<span class="no">does not hold</span>'
    )


def versions() -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("icdm", "jax", "numpy"))
