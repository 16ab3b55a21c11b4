"""The worker: a tree of processes that claims messages, runs their tasks and settles them.

``supervisor`` makes and watches the processes, ``agent`` keeps the lease, ``runner`` runs tasks;
``slots`` is the little memory they share. Nothing is imported here, so that each process loads
only what it needs.
"""
