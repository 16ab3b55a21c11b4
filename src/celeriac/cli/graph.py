"""``celeriac graph``: the workflow that a task belongs to."""

from __future__ import annotations

import click

from celeriac.cli.invocation import Invocation
from celeriac.cli.params import option


@click.command(short_help="Show the workflow that a task belongs to.")
@click.argument("task_id", metavar="ID")
@option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid"]),
    default="text",
    show_default=True,
    help="How to draw it.",
)
@click.pass_context
def graph(ctx: click.Context, *, task_id: str, form: str) -> None:
    """Draw the chain, group or chord that the task with this ID is part of, with the state of
    each task: what has run as its results tell, what is still to come as its messages do.

    \b
    celeriac -A tasks graph 0199a1b2-…
    celeriac -A tasks graph 0199a1b2-… --format mermaid > workflow.mmd
    """
    from celeriac.workflow import drawn, mermaid, tree_of_id

    invocation: Invocation = ctx.obj
    app = invocation.app
    if app.backend_url is None:
        raise click.ClickException(
            "There is no result backend, so nothing is known of any workflow. Set result_backend."
        )
    root = tree_of_id(app, task_id)
    if root is None:
        raise click.ClickException(
            f"Nothing is known of the task {task_id}: its id is wrong, or its result has expired."
        )
    click.echo(drawn(root) if form == "text" else mermaid(root))
