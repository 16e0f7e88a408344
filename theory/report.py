"""The ledger for readers: on the console, and as one self-contained page."""

import pathlib

import markupsafe
import rich.console
import rich.table

from icdm import pages
from theory.ledger import Claim, lines, number


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
    pictures = {claim.id: pages.as_source((figures / f"{claim.id}.png").read_bytes()) for claim in claims}
    made_with = ", ".join(f"{name} {version}" for name, version in pages.versions().items())
    content = dict(lines=lines, number=number, verdict=verdict, versions=made_with)
    pages.render(path, "theory", "report.html", claims=claims, pictures=pictures, **content)


def verdict(claim: Claim) -> markupsafe.Markup:
    return markupsafe.Markup(
        '<span class="yes">holds</span>' if claim.holds else '<span class="no">does not hold</span>'
    )
