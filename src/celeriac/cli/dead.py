"""``celeriac dead``: the messages that will not be tried again until a person decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from celeriac.cli.dead_letter import COLUMNS, described, fields, row
from celeriac.cli.invocation import Invocation
from celeriac.cli.output import as_json as print_json
from celeriac.cli.output import confirm, counted, table
from celeriac.cli.params import force_option, json_option, option
from celeriac.message import MessageState

if TYPE_CHECKING:
    from celeriac.contracts import QueueAdmin
    from celeriac.message import Peeked

_PAGE = 500  # messages in one round trip


@click.group(short_help="List, show, retry and delete dead letters.")
def dead() -> None:
    """Dead letters: messages that will not be tried again by themselves.

    Kept whole, with the reason, until somebody decides (or dead_letter_expires has passed).

    \b
    celeriac -A tasks dead list
    celeriac -A tasks dead show 0199a1b2-…
    celeriac -A tasks dead retry --queue mail --all
    """


@dead.command("list", short_help="Show them, the latest first.")
@option("-Q", "--queue", metavar="NAME", help="Of this queue only.")
@option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many."
)
@json_option
@click.pass_obj
def list_(invocation: Invocation, *, queue: str | None, limit: int, as_json: bool) -> None:
    """Show the dead letters, the latest first.

    \b
    celeriac -A tasks dead list
    celeriac -A tasks dead list -Q mail --limit 500 --json
    """
    found = []
    letters = _all(invocation.app.admin(), queue)
    for letter in letters:
        found.append(letter)
        if len(found) == limit:
            break
    more = next(letters, None) is not None
    invocation.note_unshared()
    if as_json:
        print_json([fields(one) for one in found])
    elif found:
        table(COLUMNS, [row(one) for one in found])
    else:
        click.echo("There are no dead letters." if queue is None else f"None in {queue}.")
    if more:
        invocation.note(f"The latest {limit} are shown; there are more: --limit.")


@dead.command(short_help="Show everything about one.")
@click.argument("task_id", metavar="ID")
@json_option
@click.pass_obj
def show(invocation: Invocation, *, task_id: str, as_json: bool) -> None:
    """Show the message whole: headers, arguments, the reason, what it has been through, and the
    traceback that its result keeps.

    \b
    celeriac -A tasks dead show 0199a1b2-…
    """
    app = invocation.app
    letters = _only_dead(app.admin(), [task_id])
    shown = [described(app, letter) for letter in letters]
    if as_json:
        print_json(shown if len(shown) > 1 else shown[0])
        return
    for one in shown:
        _print(one)


def _print(one: dict[str, object]) -> None:
    for name, value in one.items():
        if isinstance(value, dict):
            click.echo(f"{name}:")
            for key, inner in value.items():
                click.echo(f"  {key}: {inner}")
        elif isinstance(value, str) and "\n" in value:
            click.echo(f"{name}:")
            for line in value.rstrip().splitlines():
                click.echo(f"  {line}")
        elif value not in (None, ""):
            click.echo(f"{name}: {value}")


@dead.command(short_help="Send them once more.")
@click.argument("ids", nargs=-1, metavar="ID…")
@option("-Q", "--queue", metavar="NAME", help="With --all: those of this queue.")
@option("--all", "everything", is_flag=True, help="All there are.")
@force_option
@click.pass_obj
def retry(
    invocation: Invocation,
    *,
    ids: tuple[str, ...],
    queue: str | None,
    everything: bool,
    force: bool,
) -> None:
    """Put dead letters back to the end of their queues, to be tried as if never lost.

    \b
    celeriac -A tasks dead retry 0199a1b2-… 0199a1b3-…
    celeriac -A tasks dead retry --queue mail --all
    """
    admin = invocation.app.admin()
    chosen = _chosen(invocation, ids, queue, everything)
    if everything and chosen:
        confirm(f"Try {counted(len(chosen), 'dead letter')} again?", force)
    count = _in_pages(chosen, admin.revive)
    click.echo(f"Put {counted(count, 'dead letter')} back into the queues.")


@dead.command(short_help="Remove them for good.")
@click.argument("ids", nargs=-1, metavar="ID…")
@option("-Q", "--queue", metavar="NAME", help="With --all: those of this queue.")
@option("--all", "everything", is_flag=True, help="All there are.")
@force_option
@click.pass_obj
def delete(
    invocation: Invocation,
    *,
    ids: tuple[str, ...],
    queue: str | None,
    everything: bool,
    force: bool,
) -> None:
    """Remove dead letters. It asks first; nothing removed comes back.

    \b
    celeriac -A tasks dead delete 0199a1b2-…
    celeriac -A tasks dead delete --queue mail --all
    """
    chosen = _chosen(invocation, ids, queue, everything)
    if chosen:
        question = f"Remove {counted(len(chosen), 'dead letter')}? Nothing removed comes back."
        confirm(question, force)
    count = _in_pages(chosen, lambda page: _delete(invocation, page))
    click.echo(f"Removed {counted(count, 'dead letter')}.")


def _delete(invocation: Invocation, ids: Sequence[str]) -> int:
    """Remove what is dead of these ids; an id that was sent again since is left alone, because
    the waiting message of the same id would go with it."""
    app = invocation.app
    admin = app.admin()
    alive = {
        one.message.id: one
        for one in admin.find(ids)
        if one.state in (MessageState.WAITING, MessageState.DELAYED)
    }
    for task_id, one in alive.items():
        click.echo(
            f"{task_id} is left: it was sent again and is {one.state.value} in "
            f"{one.message.queue}. Cancel it first: celeriac revoke {task_id}",
            err=True,
        )
    with app.operating() as owner:
        removed = admin.delete(owner, [task_id for task_id in ids if task_id not in alive])
        app.settle_removed(removed.parts, "deleted")
    return removed.count


# --- choosing -----------------------------------------------------------------------------------


def _chosen(
    invocation: Invocation, ids: Sequence[str], queue: str | None, everything: bool
) -> list[str]:
    """The ids that were named, or all of a queue."""
    if bool(ids) == everything:
        raise click.UsageError("Name the ids, or a queue with --all: --queue mail --all.")
    if ids and queue:
        raise click.UsageError("--queue goes with --all, not with ids.")
    admin = invocation.app.admin()
    invocation.note_unshared()
    if everything:
        return list(dict.fromkeys(letter.message.id for letter in _all(admin, queue)))
    return list(dict.fromkeys(letter.message.id for letter in _only_dead(admin, ids)))


def _all(admin: QueueAdmin, queue: str | None) -> Iterator[Peeked]:
    after = ""
    while page := admin.peek(queue, MessageState.DEAD, _PAGE, after):
        yield from page
        after = page[-1].cursor


def _only_dead(admin: QueueAdmin, ids: Sequence[str]) -> list[Peeked]:
    """The dead letters with these ids. An id that has none is an error, and says where it is."""
    found = admin.find(ids)
    letters = [one for one in found if one.state is MessageState.DEAD]
    known = {one.message.id for one in letters}
    missing = [task_id for task_id in dict.fromkeys(ids) if task_id not in known]
    if not missing:
        return letters
    elsewhere = {one.message.id: one for one in found}
    said = [
        f"{task_id} is no dead letter: it is {elsewhere[task_id].state.value} in "
        f"{elsewhere[task_id].message.queue}."
        if task_id in elsewhere
        else f"There is no dead letter {task_id}. celeriac dead list shows those there are."
        for task_id in missing
    ]
    raise click.ClickException("\n".join(said))


def _in_pages(ids: Sequence[str], act: Callable[[Sequence[str]], int]) -> int:
    return sum(act(ids[start : start + _PAGE]) for start in range(0, len(ids), _PAGE))
