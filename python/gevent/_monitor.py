"""The native thread that watches over a hub: whether it is blocked, and the memory usage."""

import os
import sys
from weakref import ref as wref

from greenlet import getcurrent

from gevent import config as GEVENT_CONFIG
from gevent._compat import get_this_psutil_process, perf_counter, thread_mod_name
from gevent._core import helper_thread_begins
from gevent._threading import start_helper_thread
from gevent._tracer import GreenletTracer
from gevent.events import (
    EventLoopBlocked,
    IPeriodicMonitorThread,
    MemoryUsageThresholdExceeded,
    MemoryUsageUnderThreshold,
    implementer,
    notify,
)
from gevent.monkey import get_original

__all__ = [
    "PeriodicMonitoringThread",
]

get_thread_ident = get_original(thread_mod_name, "get_ident")
start_new_thread = get_original(thread_mod_name, "start_new_thread")
thread_sleep = get_original("time", "sleep")


class MonitorWarning(RuntimeWarning):
    """Something cannot be monitored."""


class _MonitorEntry:
    __slots__ = ("function", "last_run_time", "period")

    def __init__(self, function, period):
        self.function = function
        self.period = period
        self.last_run_time = 0

    def __eq__(self, other):
        return (self.function, self.period) == (other.function, other.period)

    def __hash__(self):
        return hash((self.function, self.period))

    def __repr__(self):
        return repr((self.function, self.period, self.last_run_time))


@implementer(IPeriodicMonitorThread)
class PeriodicMonitoringThread:
    """Calls its functions about as often as each wants, from a thread of its own.

    The thread is a native one that `threading` does not know of. It ends with the hub.
    """

    #: How long to sleep, in seconds, if no function wants to be called.
    inactive_sleep_time = 2.0
    #: The shortest sleep, whatever the functions want.
    min_sleep_time = 0.005
    #: The shortest period for looking at the memory usage, which is a costly thing to ask for.
    min_memory_monitor_period = 2

    # Of _MonitorEntry; the first is always that of monitor_blocking.
    _monitoring_functions = None
    _calculated_sleep_time = None
    # The memory usage when it was last found to be too high, or 0.
    _memory_exceeded = 0
    _greenlet_tracer = None

    def __init__(self, hub):
        """Start the thread. Called in the thread of *hub*, whose switches will be traced."""
        assert get_thread_ident() == hub.thread_ident
        self._hub_wref = wref(hub, self._on_hub_gc)
        self.should_run = True
        self._greenlet_tracer = GreenletTracer()
        period = GEVENT_CONFIG.max_blocking_time
        self._monitoring_functions = [_MonitorEntry(self.monitor_blocking, period)]
        self._calculated_sleep_time = period
        self.monitor_thread_ident = start_helper_thread(start_new_thread, self)
        self.pid = os.getpid()

    def _on_fork(self):
        """In the child of a fork: start the thread again."""
        if self.pid != os.getpid():
            self.pid = os.getpid()
            self.monitor_thread_ident = start_helper_thread(start_new_thread, self)

    @property
    def hub(self):
        """The hub, or `None` if it is gone."""
        return self._hub_wref()

    def monitoring_functions(self):
        """Return the entries of all functions, after adopting a changed ``max_blocking_time``."""
        entries = self._monitoring_functions
        if entries[0].period != GEVENT_CONFIG.max_blocking_time:
            entries[0].period = GEVENT_CONFIG.max_blocking_time
            self._calculated_sleep_time = min(entry.period for entry in entries)
        return entries

    def add_monitoring_function(self, function, period):
        """See `gevent.events.IPeriodicMonitorThread`."""
        if not callable(function):
            raise ValueError("function must be callable")
        if period is not None and period <= 0:
            raise ValueError("Period must be positive.")
        # A new list, as the thread may be iterating over the old one.
        entries = list(self._monitoring_functions)
        known = [index for index, entry in enumerate(entries) if entry.function == function]
        if period is None:
            entries = [entry for entry in entries if entry.function != function]
        elif known:
            entries[known[0]] = _MonitorEntry(function, period)
        else:
            entries.append(_MonitorEntry(function, period))
        self._monitoring_functions = entries
        self._calculated_sleep_time = min(entry.period for entry in entries)

    def calculate_sleep_time(self):
        """Return for how many seconds to sleep."""
        wanted = self._calculated_sleep_time
        return max(wanted, self.min_sleep_time) if wanted > 0 else self.inactive_sleep_time

    def kill(self):
        """Tell the thread to end. Called in the hub's thread, where the tracer is."""
        if self.should_run:
            self.should_run = False
            self._greenlet_tracer.kill()

    def _on_hub_gc(self, _):
        self.kill()

    def __call__(self):
        """Run in the monitoring thread."""
        # For listings. threading.current_thread() would make an object that never goes away.
        getcurrent().gevent_monitoring_thread = wref(self)
        helper_thread_begins()
        try:
            while self.should_run:
                self._run_once()
        except SystemExit:
            pass
        except:  # noqa: E722 (there is nobody to raise it to)
            # Without these the interpreter is being shut down, and the thread is not waited for.
            if sys and sys.stderr:
                hub = self.hub
                if hub is not None:
                    hub.handle_error(self, *sys.exc_info())

    def _run_once(self):
        entries = self.monitoring_functions()
        assert entries
        thread_sleep(self.calculate_sleep_time())
        # Not before the sleep, or it would keep the hub alive.
        hub = self.hub
        if hub is None or getattr(hub, "dead", False):
            self.kill()
        if not self.should_run:
            return
        now = perf_counter()
        for entry in entries:
            if entry.period and entry.last_run_time + entry.period <= now:
                entry.last_run_time = now
                entry.function(hub)

    def monitor_blocking(self, hub):
        """Report if a greenlet has kept *hub* from running since the last call."""
        did_block = self._greenlet_tracer.did_block_hub(hub)
        if not did_block:
            return None
        _, greenlet = did_block
        report = self._greenlet_tracer.did_block_hub_report(
            hub,
            greenlet,
            {"greenlet_stacks": False, "current_thread_ident": self.monitor_thread_ident},
        )
        # Before it is printed: subscribers may change the lines.
        notify(EventLoopBlocked(greenlet, GEVENT_CONFIG.max_blocking_time, report, hub=hub))
        return self._show_blocking_report(hub, report, greenlet)

    def _show_blocking_report(self, hub, report, active_greenlet):
        """Print *report*. May be overridden to send it elsewhere."""
        if GEVENT_CONFIG.print_blocking_reports:
            for line in report:
                # One at a time: printing much at once can fail as "reentrant".
                print(line, file=hub.exception_stream)
        return (active_greenlet, report)

    def ignore_current_greenlet_blocking(self):
        """Do not report the greenlet that runs now, until the next switch."""
        self._greenlet_tracer.ignore_current_greenlet_blocking()

    def monitor_current_greenlet_blocking(self):
        """Watch the greenlet that runs now; called in its thread."""
        self._greenlet_tracer.monitor_current_greenlet_blocking()

    def _get_process(self):
        process = get_this_psutil_process()
        self._get_process = lambda: process
        return process

    def can_monitor_memory_usage(self):
        """Return whether psutil can tell the memory usage."""
        return self._get_process() is not None

    def install_monitor_memory_usage(self):
        """Begin to look at the memory usage, or warn that that is not possible."""
        if self.can_monitor_memory_usage():
            self.add_monitoring_function(
                self.monitor_memory_usage,
                max(GEVENT_CONFIG.memory_monitor_period, self.min_memory_monitor_period),
            )
            return
        import warnings

        warnings.warn(
            "Unable to monitor memory usage. Install psutil.", MonitorWarning, stacklevel=2
        )

    def monitor_memory_usage(self, _hub):
        """Send an event if the memory usage has risen above the limit, or fallen below it again.

        Returns the event, `None`, or -1 if there is no limit.
        """
        max_allowed = GEVENT_CONFIG.max_memory_usage
        if not max_allowed:
            return -1
        info = self._get_process().memory_full_info()
        # What would be freed if the process ended, where the system can tell.
        usage = getattr(info, "uss", 0) or info.rss
        before = self._memory_exceeded
        event = None
        if usage <= max_allowed:
            self._memory_exceeded = 0
            if before:
                event = MemoryUsageUnderThreshold(usage, max_allowed, info, before)
        else:
            self._memory_exceeded = usage
            if usage > before:
                event = MemoryUsageThresholdExceeded(usage, max_allowed, info)
        if event is not None:
            notify(event)
        return event

    def __repr__(self):
        return "<%s at %s in thread %s greenlet %r for %r>" % (
            type(self).__name__,
            hex(id(self)),
            hex(self.monitor_thread_ident),
            getcurrent(),
            self._hub_wref(),
        )
