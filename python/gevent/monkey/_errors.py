"""What this package raises and warns with."""

import logging

logger = logging.getLogger(__name__)


class _BadImplements(AttributeError):
    """A module that was to be patched in does not say what it implements."""

    def __init__(self, module):
        super().__init__("Module %r has a bad or missing value for __implements__" % (module,))


class MonkeyPatchWarning(RuntimeWarning):
    """Something about the patching is likely to surprise."""
