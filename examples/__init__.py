"""Runnable examples. Each is started with ``python -m examples.<name>`` from the project folder."""
