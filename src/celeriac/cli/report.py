"""``celeriac report``: everything that helps to find a mistake."""

from __future__ import annotations

import click

from celeriac.cli.invocation import Invocation


@click.command(short_help="Show versions, settings and promises.")
@click.pass_obj
def report(invocation: Invocation) -> None:
    """Show what is installed, what is configured (without secrets), and what the broker promises.

    \b
    celeriac -A tasks report
    """
    from celeriac.report import report as make

    click.echo(make(invocation.whole_app()))
