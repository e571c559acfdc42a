"""`whyglass`: its commands, and the exit codes that scripts rely on."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from whyglass.cli.explain import explain
from whyglass.cli.methods import methods
from whyglass.core.errors import WhyglassError

OK, INTERNAL, USAGE, BAD_INPUT, CHECK_FAILED, PARTLY, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Where a neural network's decision comes from, and how far to believe the answer.

    \b
    Exit codes: 0 ok, 1 internal error, 2 wrong usage, 3 bad input, 4 a check failed,
    5 some inputs failed, 130 interrupted.
    """,
)
@click.version_option(package_name="whyglass")
def cli() -> None:
    """The program; its help is above."""


cli.add_command(explain)
cli.add_command(methods)


def main() -> NoReturn:
    """Run the command line and exit."""
    debug = "--debug" in sys.argv
    try:
        code = cli(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        code = USAGE
    except click.ClickException as error:
        error.show()
        code = BAD_INPUT
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        code = INTERRUPTED
    except WhyglassError as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        code = BAD_INPUT
    except Exception as error:
        if debug:
            raise
        click.echo(
            f"Internal error: {type(error).__name__}: {error}\n"
            "Run again with --debug for the traceback.",
            err=True,
        )
        code = INTERNAL
    sys.exit(code if isinstance(code, int) else OK)
