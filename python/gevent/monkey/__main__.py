"""``python -m gevent.monkey``."""

from ._main import main

main()
