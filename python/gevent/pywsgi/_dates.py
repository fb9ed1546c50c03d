"""An answer's ``Date``, as RFC 9110 §5.6.7 wants it: English, whatever the locale."""

import time

__all__ = ["format_date_time", "date_now"]

_WEEKDAYNAME = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

#: By number of the month: January is 1.
_MONTHNAME = (
    None,
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
)


def format_date_time(timestamp):
    """A POSIX time as bytes: ``b'Sun, 06 Nov 1994 08:49:37 GMT'``."""
    year, month, day, hour, minute, second, weekday, _, _ = time.gmtime(timestamp)
    text = "%s, %02d %3s %4d %02d:%02d:%02d GMT" % (
        _WEEKDAYNAME[weekday],
        day,
        _MONTHNAME[month],
        year,
        hour,
        minute,
        second,
    )
    return text.encode("latin-1")


_last = (0, b"")


def date_now():
    """The date of now; made once a second."""
    global _last
    now = int(time.time())
    if _last[0] != now:
        _last = (now, format_date_time(now))
    return _last[1]
