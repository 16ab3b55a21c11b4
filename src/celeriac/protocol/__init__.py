"""The bytes of messages and results, as in wire-format.md: pure functions, no I/O, no application.

``serialization`` and ``json_codec`` turn values into bytes and back, ``compression`` makes bytes
smaller, ``task`` is about task messages, ``results`` about result documents, ``saferepr`` about
the short texts that people read. Whatever bytes arrive, decoding ends in a value or in one of
``DecodeError``, ``ContentDisallowed`` and ``InvalidTaskError``.
"""
