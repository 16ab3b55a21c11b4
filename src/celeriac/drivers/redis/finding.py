"""Which server to talk to: the one of the URL, the master that sentinels name, or the node of a
cluster that keeps our hash slot."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from celeriac.drivers.redis.connection import Connection, pack
from celeriac.drivers.redis.options import Address, Options, Tls, hash_tag
from celeriac.exceptions import OperationalError

__all__ = ["find_server"]


def find_server(options: Options, protocol: int = 2) -> Connection:
    """A new connection to it. Raises OperationalError."""
    connection = _master(options, protocol) if options.master else Connection(options, protocol)
    try:
        if connection.info.get("mode") == "cluster":
            connection = _node(connection, protocol)
    except BaseException:
        connection.close()
        raise
    return connection


# --- sentinels


def _master(options: Options, protocol: int) -> Connection:
    reasons = []
    addresses = list(options.addresses)
    random.shuffle(addresses)  # so that not all clients ask the same one
    for address in addresses:
        try:
            master = _ask(options, address)
            if master is None:
                reasons.append(f"{address[0]}:{address[1]} knows no master {options.master!r}")
                continue
            connection = Connection(options, protocol, address=master)
        except OperationalError as error:
            reasons.append(str(error))
            continue
        if connection.info.get("role") == "master":
            return connection
        connection.close()
        reasons.append(f"{master[0]}:{master[1]} is not the master (yet): a fail-over is going on")
    raise OperationalError(
        f"No sentinel of {options.shown} leads to the master {options.master!r}: "
        + "; ".join(reasons)
    )


def _ask(options: Options, sentinel: Address) -> Address | None:
    asking = msgspec.structs.replace(
        options,
        addresses=(sentinel,),
        master="",
        username=options.sentinel_username,
        password=options.sentinel_password,
        credentials=None,
        tls=(options.tls or Tls()) if options.sentinel_tls else None,
        client_name="",
        db=0,
        socket_timeout=min(options.socket_timeout, options.socket_connect_timeout),
    )
    connection = Connection(asking)
    try:
        answer = connection.call(pack(("SENTINEL", "get-master-addr-by-name", options.master)))
    finally:
        connection.close()
    return (answer[0].decode(), int(answer[1])) if answer else None


# --- clusters


def _node(connection: Connection, protocol: int) -> Connection:
    """The node that keeps the slot of our prefix; the connection given, if it is this one."""
    options = connection.options
    if not hash_tag(options.prefix):
        raise OperationalError(
            f"The server of {options.shown} is a node of a Redis Cluster. Celeriac changes several "
            "keys in one step, which a cluster permits in one hash slot only: give a "
            "global_keyprefix with a hash tag, such as '{shop}:', in broker_transport_options and "
            "result_backend_transport_options."
        )
    slot = connection.call(pack(("CLUSTER", "KEYSLOT", options.prefix)))
    for first, last, master, *_ in connection.call(pack(("CLUSTER", "SLOTS"))):
        if first <= slot <= last:
            return _moved(connection, (master[0].decode(), int(master[1])), master[2:3], protocol)
    raise OperationalError(
        f"No node of the cluster of {options.shown} keeps the hash slot {slot} of the prefix "
        f"{options.prefix!r} (now)."
    )


def _moved(connection: Connection, address: Address, node: list[Any], protocol: int) -> Connection:
    own = connection.call(pack(("CLUSTER", "MYID")))
    if not address[0] or (node and node[0] == own):
        return connection
    connection.close()
    return Connection(connection.options, protocol, address=address)
