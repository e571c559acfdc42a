"""`whyglass methods`: the catalogue as a table."""

from __future__ import annotations

import json
import shutil
import sys

import click

from whyglass.catalogue import table

SCHEMA = 1
COLUMNS = ("name", "family", "needs", "cost", "axioms", "paper")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The table as JSON, with every column.")
def methods(as_json: bool) -> None:
    """List the methods: name, family, needs, cost, axioms promised, paper."""
    rows = table()
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "methods": rows}, indent=2, ensure_ascii=False))
        return
    widths = {c: max(len(c), *(len(row[c]) for row in rows)) for c in COLUMNS}
    needed = sum(widths.values()) + 2 * len(COLUMNS)
    wide = not sys.stdout.isatty() or needed <= shutil.get_terminal_size().columns
    shown = COLUMNS if wide else ("name", "cost", "paper")
    click.echo("  ".join(column.upper().ljust(widths[column]) for column in shown).rstrip())
    for row in rows:
        click.echo("  ".join(row[column].ljust(widths[column]) for column in shown).rstrip())
    if not wide:
        click.echo("\nA wider terminal, or --json, shows the rest.")
