"""What counts greenlet switches, to find out what keeps a hub from running."""

import sys
import traceback

from greenlet import getcurrent, settrace

from gevent._compat import perf_counter
from gevent._core import SwitchWatch, set_quiet_tracer
from gevent._util import gmctime
from gevent.util import format_run_info

__all__ = [
    "GreenletTracer",
    "HubSwitchTracer",
    "MaxSwitchTracer",
]


class GreenletTracer:
    """Counts the switches of the thread in which it is made, until `kill` is called there.

    It looks at a number that the native core counts, and is a trace function only in name: a real
    one would slow each switch down. If another one is set, or a subclass has a `_trace` of its
    own, it is called like any, and calls the other one. `did_block_hub` may be called from another
    thread, and then misses a switch now and again.
    """

    def __init__(self):
        self._killed = False
        # What calls of this object add to the native count, since that was `_seen`.
        self._counted = 0
        self._active = None
        self._watch = SwitchWatch()
        self._base = self._seen = self._watch.switches()
        self.previous_trace_function = None
        if type(self)._trace is not __class__._trace or not set_quiet_tracer(self):
            self._watch = None
            self.previous_trace_function = settrace(self)

    def kill(self):
        """Put the previous trace function back."""
        if not self._killed:
            self._killed = True
            settrace(self.previous_trace_function)
            self.previous_trace_function = None
            # What was seen until now stays.
            counted, active = self.greenlet_switch_counter, self.active_greenlet
            self._watch = None
            self.greenlet_switch_counter, self.active_greenlet = counted, active

    def _switches(self):
        return self._watch.switches() if self._watch is not None else self._base

    @property
    def greenlet_switch_counter(self):
        """Switches since `did_block_hub` was last called."""
        return self._counted + self._switches() - self._base

    @greenlet_switch_counter.setter
    def greenlet_switch_counter(self, value):
        self._counted = value
        self._base = self._switches()

    @property
    def active_greenlet(self):
        """The greenlet that was switched to last, or `None` if there is nothing to watch."""
        if self._watch is None or self._watch.switches() == self._seen:
            return self._active
        return self._watch.current()

    @active_greenlet.setter
    def active_greenlet(self, value):
        self._active = value
        if self._watch is not None:
            self._seen = self._watch.switches()

    def _trace(self, event, args):
        self.greenlet_switch_counter += 1
        self.active_greenlet = args[1] if event in ("switch", "throw") else None
        if self.previous_trace_function is not None:
            self.previous_trace_function(event, args)

    def __call__(self, event, args):
        return self._trace(event, args)

    def did_block_hub(self, hub):
        """Return ``(True, greenlet)`` if *greenlet* has run all the time since the last call.

        Otherwise return false.
        """
        greenlet = self.active_greenlet
        switches, self.greenlet_switch_counter = self.greenlet_switch_counter, 0
        if switches or greenlet is None or greenlet is hub:
            return False
        return True, greenlet

    def ignore_current_greenlet_blocking(self):
        """Do not report the greenlet that runs now, until the next switch."""
        self.active_greenlet = None

    def monitor_current_greenlet_blocking(self):
        """Watch the greenlet that runs now; called in its thread."""
        self.active_greenlet = getcurrent()

    def did_block_hub_report(self, hub, active_greenlet, format_kwargs):
        """Return the lines of a report on *active_greenlet*, which blocks *hub*.

        *format_kwargs* are arguments for `gevent.util.format_run_info`.
        """
        frame = sys._current_frames().get(hub.thread_ident)
        if frame is None:
            stack = [f"Unknown: No thread found for hub {hub!r}\n"]
        else:
            stack = traceback.format_stack(frame)
        return [
            "=" * 80,
            f"\n{gmctime()} : Greenlet {active_greenlet} appears to be blocked",
            f"    Reported by {self}",
            f"Blocked Stack (for thread id {hex(hub.thread_ident)}):",
            "".join(stack),
            "Info:",
            *format_run_info(**format_kwargs),
        ]


class _HubTracer(GreenletTracer):
    def __init__(self, hub, max_blocking_time):
        super().__init__()
        self.max_blocking_time = max_blocking_time
        self.hub = hub

    def kill(self):
        self.hub = None
        super().kill()


class HubSwitchTracer(_HubTracer):
    """Reports if the hub was not switched to for *max_blocking_time* seconds."""

    def __init__(self, hub, max_blocking_time):
        super().__init__(hub, max_blocking_time)
        self.last_entered_hub = 0

    def _trace(self, event, args):
        super()._trace(event, args)
        if self.active_greenlet is self.hub:
            self.last_entered_hub = perf_counter()

    def did_block_hub(self, hub):
        if perf_counter() - self.last_entered_hub > self.max_blocking_time:
            return True, self.active_greenlet
        return False


class MaxSwitchTracer(_HubTracer):
    """Reports if any greenlet but the hub ran for *max_blocking_time* seconds at a stretch."""

    def __init__(self, hub, max_blocking_time):
        super().__init__(hub, max_blocking_time)
        self.last_switch = perf_counter()
        self.max_blocking = 0

    def _trace(self, event, args):
        left = self.active_greenlet
        super()._trace(event, args)
        if left is not None and left is not self.hub:
            self.max_blocking = max(self.max_blocking, perf_counter() - self.last_switch)

    def did_block_hub(self, hub):
        if self.max_blocking == 0:
            # There was no switch at all.
            self.max_blocking = perf_counter() - self.last_switch
        if self.max_blocking > self.max_blocking_time:
            return True, self.active_greenlet
        return False
