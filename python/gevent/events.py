"""Events that gevent publishes, and the interfaces that describe them.

`zope.event` does the delivery: whatever is in `subscribers` is called with each event object. Some
events also have an ``ENTRY_POINT_NAME``; installed distributions can then subscribe by an entry
point of that group, without having been imported before.
"""

import platform
from contextlib import suppress

from zope.event import notify, subscribers
from zope.interface import Attribute, Interface, implementer

__all__ = [
    "DoNotPatch",
    "EventLoopBlocked",
    "GeventDidPatchAllEvent",
    "GeventDidPatchBuiltinModulesEvent",
    "GeventDidPatchModuleEvent",
    "GeventPatchEvent",
    "GeventWillPatchAllEvent",
    "GeventWillPatchEvent",
    "GeventWillPatchModuleEvent",
    "IEventLoopBlocked",
    "IGeventDidPatchAllEvent",
    "IGeventDidPatchBuiltinModulesEvent",
    "IGeventDidPatchEvent",
    "IGeventDidPatchModuleEvent",
    "IGeventPatchEvent",
    "IGeventWillPatchAllEvent",
    "IGeventWillPatchEvent",
    "IGeventWillPatchModuleEvent",
    "IMemoryUsageThresholdExceeded",
    "IMemoryUsageUnderThreshold",
    "IPeriodicMonitorThread",
    "IPeriodicMonitorThreadStartedEvent",
    "MemoryUsageThresholdExceeded",
    "MemoryUsageUnderThreshold",
    "PeriodicMonitorThreadStartedEvent",
    "subscribers",
]

# The answer is cached by the standard library. Asked for later, it may start a process, which
# must not happen in the middle of monkey-patching.
with suppress(Exception):
    platform.uname()
del platform, suppress


def notify_and_call_entry_points(event):
    """Give *event* to the subscribers, then to the entry points of its ``ENTRY_POINT_NAME``."""
    notify(event)
    from importlib.metadata import entry_points

    for plugin in entry_points(group=event.ENTRY_POINT_NAME):
        plugin.load()(event)


class IPeriodicMonitorThread(Interface):
    """A native thread that watches over a hub."""

    def add_monitoring_function(function, period):
        """Call ``function(hub)`` about every *period* seconds, in the monitoring thread.

        The function must not use gevent's blocking functions. Adding it again changes its
        period; a period of `None` removes it. Other periods must be greater than zero.
        """


class IPeriodicMonitorThreadStartedEvent(Interface):
    """A hub started its monitor thread: the time to add monitoring functions."""

    monitor = Attribute("The `IPeriodicMonitorThread`.")


@implementer(IPeriodicMonitorThreadStartedEvent)
class PeriodicMonitorThreadStartedEvent:
    """See `IPeriodicMonitorThreadStartedEvent`."""

    ENTRY_POINT_NAME = "gevent.plugins.hub.periodic_monitor_thread_started"

    def __init__(self, monitor):
        self.monitor = monitor


class IEventLoopBlocked(Interface):
    """A greenlet kept the event loop from running. Sent in the monitor thread."""

    greenlet = Attribute("The greenlet that seems to block the loop.")
    blocking_time = Attribute("For about how many seconds.")
    info = Attribute("The lines of the report, a list that may be changed.")
    hub = Attribute("The hub that is blocked, or `None` if that is not known.")


@implementer(IEventLoopBlocked)
class EventLoopBlocked:
    """See `IEventLoopBlocked`."""

    def __init__(self, greenlet, blocking_time, info, *, hub=None):
        self.greenlet = greenlet
        self.blocking_time = blocking_time
        self.info = info
        self.hub = hub


class IMemoryUsageThresholdExceeded(Interface):
    """The process uses more memory than allowed. Sent in the monitor thread.

    While usage stays above the limit, it is sent again only when usage has grown.
    """

    mem_usage = Attribute("The memory in use, in bytes.")
    max_allowed = Attribute("The limit, in bytes.")
    memory_info = Attribute("All of psutil's figures, a tuple.")


class _AbstractMemoryEvent:
    def __init__(self, mem_usage, max_allowed, memory_info):
        self.mem_usage = mem_usage
        self.max_allowed = max_allowed
        self.memory_info = memory_info

    def __repr__(self):
        return "<%s used=%d max=%d details=%r>" % (
            type(self).__name__,
            self.mem_usage,
            self.max_allowed,
            self.memory_info,
        )


@implementer(IMemoryUsageThresholdExceeded)
class MemoryUsageThresholdExceeded(_AbstractMemoryEvent):
    """See `IMemoryUsageThresholdExceeded`."""


class IMemoryUsageUnderThreshold(Interface):
    """Memory usage has fallen below the limit after it was above. Sent in the monitor thread."""

    mem_usage = Attribute("The memory in use, in bytes.")
    max_allowed = Attribute("The limit, in bytes.")
    max_memory_usage = Attribute("The usage with which the limit was last exceeded, in bytes.")
    memory_info = Attribute("All of psutil's figures, a tuple.")


@implementer(IMemoryUsageUnderThreshold)
class MemoryUsageUnderThreshold(_AbstractMemoryEvent):
    """See `IMemoryUsageUnderThreshold`."""

    def __init__(self, mem_usage, max_allowed, memory_info, max_usage):
        super().__init__(mem_usage, max_allowed, memory_info)
        self.max_memory_usage = max_usage


class IGeventPatchEvent(Interface):
    """What all events of monkey-patching have in common."""

    source = Attribute("The object the patches come from.")
    target = Attribute("The object that is patched.")


@implementer(IGeventPatchEvent)
class GeventPatchEvent:
    """See `IGeventPatchEvent`."""

    def __init__(self, source, target):
        self.source = source
        self.target = target

    def __repr__(self):
        return "<%s source=%r target=%r at %x>" % (
            type(self).__name__,
            self.source,
            self.target,
            id(self),
        )


class IGeventWillPatchEvent(IGeventPatchEvent):
    """Something is going to be patched, unless a subscriber raises `DoNotPatch`."""


class DoNotPatch(BaseException):
    """Raised by a subscriber so that what the event announced is not done."""


@implementer(IGeventWillPatchEvent)
class GeventWillPatchEvent(GeventPatchEvent):
    """See `IGeventWillPatchEvent`."""


class IGeventDidPatchEvent(IGeventPatchEvent):
    """Something has been patched."""


@implementer(IGeventDidPatchEvent)
class GeventDidPatchEvent(GeventPatchEvent):
    """See `IGeventDidPatchEvent`."""


class IGeventWillPatchModuleEvent(IGeventWillPatchEvent):
    """A module is going to be patched; ``source`` and ``target`` are modules."""

    module_name = Attribute("The name of the module, that of ``target``.")
    target_item_names = Attribute("The names to patch, a list that may be changed with care.")


@implementer(IGeventWillPatchModuleEvent)
class GeventWillPatchModuleEvent(GeventWillPatchEvent):
    """See `IGeventWillPatchModuleEvent`."""

    ENTRY_POINT_NAME = "gevent.plugins.monkey.will_patch_module"

    def __init__(self, module_name, source, target, items):
        super().__init__(source, target)
        self.module_name = module_name
        self.target_item_names = items


class IGeventDidPatchModuleEvent(IGeventDidPatchEvent):
    """A module has been patched."""

    module_name = Attribute("The name of the module, that of ``target``.")


@implementer(IGeventDidPatchModuleEvent)
class GeventDidPatchModuleEvent(GeventDidPatchEvent):
    """See `IGeventDidPatchModuleEvent`."""

    ENTRY_POINT_NAME = "gevent.plugins.monkey.did_patch_module"

    def __init__(self, module_name, source, target):
        super().__init__(source, target)
        self.module_name = module_name


class IGeventWillPatchAllEvent(IGeventWillPatchEvent):
    """``patch_all`` begins; if a subscriber raises `DoNotPatch` it ends at once.

    There follow the events of each module, `IGeventDidPatchBuiltinModulesEvent` when gevent's own
    list is done, and `IGeventDidPatchAllEvent`. ``source`` and ``target`` mean nothing here.
    """

    patch_all_arguments = Attribute("The arguments of ``patch_all``, a copy.")
    patch_all_kwargs = Attribute("Its further keyword arguments, a copy.")

    def will_patch_module(module_name):
        """Tell whether ``patch_all`` is going to patch the module *module_name*."""


class _PatchAllMixin:
    def __init__(self, patch_all_arguments, patch_all_kwargs):
        super().__init__(None, None)
        self._patch_all_arguments = patch_all_arguments
        self._patch_all_kwargs = patch_all_kwargs

    @property
    def patch_all_arguments(self):
        return dict(self._patch_all_arguments)

    @property
    def patch_all_kwargs(self):
        return dict(self._patch_all_kwargs)

    def __repr__(self):
        return "<%s %r at %x>" % (type(self).__name__, self._patch_all_arguments, id(self))


@implementer(IGeventWillPatchAllEvent)
class GeventWillPatchAllEvent(_PatchAllMixin, GeventWillPatchEvent):
    """See `IGeventWillPatchAllEvent`."""

    ENTRY_POINT_NAME = "gevent.plugins.monkey.will_patch_all"

    def will_patch_module(self, module_name):
        return self._patch_all_arguments.get(module_name)


class IGeventDidPatchBuiltinModulesEvent(IGeventDidPatchEvent):
    """``patch_all`` has patched the standard library: the time to patch other libraries."""

    patch_all_arguments = Attribute("The arguments of ``patch_all``, a copy.")
    patch_all_kwargs = Attribute("Its further keyword arguments, a copy.")


@implementer(IGeventDidPatchBuiltinModulesEvent)
class GeventDidPatchBuiltinModulesEvent(_PatchAllMixin, GeventDidPatchEvent):
    """See `IGeventDidPatchBuiltinModulesEvent`."""

    ENTRY_POINT_NAME = "gevent.plugins.monkey.did_patch_builtins"


class IGeventDidPatchAllEvent(IGeventDidPatchEvent):
    """``patch_all`` is done, with what subscribers to the events before did."""


@implementer(IGeventDidPatchAllEvent)
class GeventDidPatchAllEvent(_PatchAllMixin, GeventDidPatchEvent):
    """See `IGeventDidPatchAllEvent`."""

    ENTRY_POINT_NAME = "gevent.plugins.monkey.did_patch_all"
