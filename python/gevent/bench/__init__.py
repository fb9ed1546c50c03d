"""Compare event loops on this machine: ``python -m gevent.bench``.

Each loop that this machine allows is measured in child processes, in turn, several times, and the
best of each counts, because whatever else runs only ever makes things slower. ``asyncio``,
``uvloop`` if it is installed, and the gevent of another interpreter (``--python``) take part too.

- ``worker`` is what a child runs. It does without this package, since other interpreters run it.
- ``runner`` starts children and keeps their results; ``report`` makes the table and the JSON of
  them, ``plot`` the picture.

Nothing of this is loaded by ``import gevent``.
"""

__all__ = [
]
