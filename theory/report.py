"""The ledger for readers: on the console, and as one self-contained page."""

import pathlib

import markupsafe
import rich.console
import rich.table

from icdm import pages, provenance
from theory.ledger import VERDICTS, Claim, lines, number, sentence
from theory.wording import in_words

COLORS = dict(zip(VERDICTS, ("red", "yellow", "green")))  # on the console


def console() -> rich.console.Console:
    return rich.console.Console(highlight=False)


def print_claim(out: rich.console.Console, claim: Claim, place: str) -> None:
    """One claim's verdict and numbers, as soon as they are known."""
    verdict = f"[{COLORS[claim.verdict]}]{claim.verdict}[/{COLORS[claim.verdict]}]"
    out.print(f"[bold]{place} {claim.id}[/bold]: {verdict}  ({claim.seconds:.1f} s)\n  {claim.claim}")
    table = rich.table.Table(box=None, padding=(0, 2), show_header=False)
    for line in lines(claim):
        table.add_row(*line)
    for name, value in claim.control.items():
        table.add_row(f"[dim]control: {in_words(name)}[/dim]", f"[dim]{number(value)}[/dim]")
    out.print(table)


def print_summary(out: rich.console.Console, claims: list[Claim], workdir: pathlib.Path) -> None:
    ids = {verdict: [claim.id for claim in claims if claim.verdict == verdict] for verdict in VERDICTS}
    others = [f"; {verdict}: {', '.join(ids[verdict])}" for verdict in ("fails", "undecided") if ids[verdict]]
    out.print(f"{len(ids['holds'])} of {len(claims)} claims hold" + "".join(others))
    out.print(f"{workdir / 'claims.json'}, {workdir / 'report.html'}", soft_wrap=True)


def write(path: pathlib.Path, claims: list[Claim], figures: pathlib.Path) -> None:
    """Writes the page with every claim's figure, numbers, controls and settings inside; those that fail come first."""
    claims = sorted(claims, key=lambda claim: VERDICTS.index(claim.verdict))
    pictures = {claim.id: pages.as_source((figures / f"{claim.id}.png").read_bytes()) for claim in claims}
    content = dict(lines=lines, number=number, sentence=sentence, in_words=in_words, marked=marked)
    pages.render(
        path, "theory", "report.html", claims=claims, pictures=pictures, made_with=provenance.in_words(), **content
    )


def marked(verdict: str) -> markupsafe.Markup:
    """A verdict in its colour."""
    return markupsafe.Markup(f'<span class="{verdict}">{verdict}</span>')
