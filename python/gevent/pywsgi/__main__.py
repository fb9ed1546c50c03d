"""``python -m gevent.pywsgi package.module:application``: see :mod:`gevent.pywsgi._command`."""

import sys

from gevent.pywsgi._command import main

if __name__ == "__main__":
    sys.exit(main())
