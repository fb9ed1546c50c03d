"""What a server may write its logs to: files, loggers, nothing."""

__all__ = ["LoggingLogAdapter"]


class _NoopLog:
    """Takes everything and keeps nothing."""

    def write(self, *args, **kwargs):
        """Nothing."""

    def writelines(self, *args, **kwargs):
        """Nothing."""

    def flush(self):
        """Nothing."""


class LoggingLogAdapter:
    """A logger (anything with ``log(level, message)``) as a file to write lines to.

    Every other attribute is the logger's own, to read, to set and to delete.
    """

    __slots__ = ("_logger", "_level")

    def __init__(self, logger, level=20):
        # Past __setattr__, which would hand them to the logger.
        object.__setattr__(self, "_logger", logger)
        object.__setattr__(self, "_level", level)

    def write(self, msg):
        # A logger ends its lines by itself.
        if msg and msg.endswith("\n"):
            msg = msg[:-1]
        self._logger.log(self._level, msg)

    def flush(self):
        """Nothing: a logger has no buffer of ours."""

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def __getattr__(self, name):
        return getattr(self._logger, name)

    def __setattr__(self, name, value):
        if name in __class__.__slots__:
            object.__setattr__(self, name, value)
        else:
            setattr(self._logger, name, value)

    def __delattr__(self, name):
        delattr(self._logger, name)
