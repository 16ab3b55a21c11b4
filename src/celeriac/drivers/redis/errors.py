"""Redis's errors in Celeriac's words: what happened, at which URL, what to do."""

from __future__ import annotations

import socket
import ssl

from celeriac.exceptions import OperationalError

__all__ = ["IS_FULL", "Refused", "is_fatal", "lost_connection", "refusal", "unreachable"]


class Refused(OperationalError):
    """The server answered a command with an error; ``code`` is its first word."""

    def __init__(self, message: str, code: str) -> None:
        self.code = code
        super().__init__(message)


IS_FULL = "OOM command not allowed"

# After these the connection is thrown away: the next one may lead to another server, or in.
_FATAL = frozenset(
    "READONLY LOADING MASTERDOWN MOVED ASK CLUSTERDOWN NOAUTH WRONGPASS NOMASTERLINK".split()
)

_ADVICE = {
    "READONLY": "is a read-only replica. Give the URL of its master (or sentinel://, which finds "
    "it).",
    "LOADING": "is loading its data after a start. It goes on by itself when it is ready.",
    "OOM": "is full (maxmemory) and takes no more messages; workers go on emptying it. Let it use "
    "more memory, or start more workers.",
    "MISCONF": "cannot save to its disk and takes no writes. Look at its log and its disk.",
    "NOAUTH": "wants a password: redis://user:password@host:port/db.",
    "WRONGPASS": "refused the user or password of the URL.",
    "NOPERM": "does not permit this to the user of the URL ({error}). It needs all keys and "
    "channels, and the commands that docs/redis.md lists.",
    "BUSY": "is busy with somebody's script. Wait, or end it with SCRIPT KILL.",
    "CLUSTERDOWN": "belongs to a cluster that is down ({error}).",
    "MASTERDOWN": "is a replica that has lost its master.",
    "NOREPLICAS": "has fewer replicas than it must have to take writes.",
    "MOVED": "is a node of a cluster that no longer keeps our hash slot ({error}). It goes on by "
    "itself.",
    "CROSSSLOT": "is a node of a cluster, and the keys are not in one hash slot. Give "
    "global_keyprefix='{{name}}:' in the transport options of broker and results.",
    "NOGOODSLAVE": "has no replica to take over.",
}


def is_fatal(code: str) -> bool:
    return code in _FATAL


def refusal(error: BaseException, shown: str) -> Refused:
    """``error``: hiredis's; its text begins with a code."""
    text = str(error)
    code = text.partition(" ")[0].rstrip(":")
    if "invalid password" in text.lower() or "no password is set" in text.lower():
        code = "WRONGPASS"
    if "DB index is out of range" in text:
        return Refused(
            f"The Redis server of {shown} has no such database ({text}). Give a smaller number in "
            "the URL, or raise `databases` in the server's configuration.",
            code,
        )
    if "write against a read only replica" in text:  # so it says within a script
        code = "READONLY"
    if "The user executing the script can't" in text:
        code = "NOPERM"
    if IS_FULL in text:  # Redis 6 tells it within another error
        code = "OOM"
    advice = _ADVICE.get(code)
    if advice is None:
        return Refused(f"The Redis server of {shown} refused: {text}", code)
    return Refused(f"The Redis server of {shown} " + advice.format(error=text), code)


def unreachable(error: OSError, shown: str, seconds: float) -> OperationalError:
    """No connection could be made."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = (
            f"its certificate is not trusted ({error.verify_message}). Give the authority's "
            "certificate with ssl_ca_certs, or use the host name that the certificate is for."
        )
    elif isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or error.args[-1]
        why = f"no TLS connection can be made ({reason}). Does the server speak TLS?"
    elif isinstance(error, socket.gaierror):
        why = f"its host name is not known ({error.strerror})."
    elif isinstance(error, TimeoutError):
        why = f"it did not answer within {seconds:g} s."
    else:
        why = f"{(error.strerror or str(error)).lower()}. Is it running, and the URL right?"
    return OperationalError(f"The Redis server of {shown} cannot be reached: {why}")


def lost_connection(error: BaseException, shown: str, seconds: float) -> OperationalError:
    """A connection that was there failed in the middle of a call."""
    if isinstance(error, TimeoutError):
        why = f"it did not answer within {seconds:g} s"
    else:
        why = f"the connection was lost ({str(error) or type(error).__name__})"
    return OperationalError(
        f"The Redis server of {shown} did not confirm: {why}. What was sent may or may not have "
        "been carried out; the next call connects again."
    )
