"""gevent's settings: `gevent.config` and the environment variables behind it.

A setting is a class below. Its value is what code assigned to it, else what its environment
variable says, else its default; it is worked out at the first use and then kept.
``python -m gevent._config`` prints all of them.
"""

import importlib
import os
import textwrap

from gevent import _core
from gevent._compat import string_types

__all__ = [
    "config",
]

#: The classes of all settings, in the order of their definition.
ALL_SETTINGS = []


def validate_invalid(value):
    """Refuse every value."""
    raise ValueError(f"Not a valid value: {value!r}")


_WORDS = dict.fromkeys(("1", "true", "on", "yes"), True)
_WORDS.update(dict.fromkeys(("0", "false", "off", "no", ""), False))


def validate_bool(value):
    """
    A boolean. The environment variable takes ``1``, ``true``, ``on`` and ``yes``, or ``0``,
    ``false``, ``off``, ``no`` and nothing.
    """
    if not isinstance(value, string_types):
        return bool(value)
    word = value.lower().strip()
    if word not in _WORDS:
        raise ValueError(f"Invalid boolean string: {word!r}")
    return _WORDS[word]


def validate_anything(value):
    return value


convert_str_value_as_is = validate_anything


def word_of(variable, *words):
    """What the environment variable *variable* says: one of *words*, or ``''``."""
    value = os.environ.get(variable, "")
    if value and value not in words:
        raise ValueError(f"{variable}={value!r}: it takes one of {', '.join(words)}")
    return value


class SettingType(type):
    """Names a setting after its class, writes its documentation and registers it."""

    def __new__(mcs, name, bases, namespace):
        if name == "Setting":
            return super().__new__(mcs, name, bases, namespace)
        setting = namespace.setdefault("name", name.lower())
        namespace.setdefault("environment_key", "GEVENT_" + setting.upper())
        namespace["order"] = len(ALL_SETTINGS)
        cls = super().__new__(mcs, name, bases, namespace)
        cls.__doc__ = cls.fmt_desc(namespace.get("desc", ""))
        ALL_SETTINGS.append(cls)
        if cls.document:
            setattr(Config, setting, cls._property(setting))
        return cls

    def _property(cls, setting):
        return property(
            lambda self: self.settings[setting].get(),
            lambda self, value: self.settings[setting].set(value),
            doc=cls.__doc__,
        )

    def fmt_desc(cls, desc):
        """Return *desc* with what the class itself knows, and keep it as the class's ``desc``."""
        parts = [textwrap.dedent(desc).strip()]
        importable = hasattr(cls, "shortname_map")
        if importable:
            part = (
                "Takes an object, the dotted name of one, or a list of names (separated by commas "
                "in the environment variable) of which the first that can be imported is used."
            )
            if cls.shortname_map:
                part += f" Short names: {list(cls.shortname_map)!r}."
            parts.append(part)
        if cls.validate.__doc__:
            parts.append(textwrap.dedent(cls.validate.__doc__).strip())
        default = cls.default if importable and isinstance(cls.default, str) else repr(cls.default)
        parts.append(f"The default value is `{default}`")
        parts.append(
            f"The environment variable ``{cls.environment_key}`` can be used to control this."
        )
        cls.desc = "\n\n".join(parts)
        return cls.desc


class Setting(metaclass=SettingType):
    """One setting. ``desc`` describes it, its first line in one sentence."""

    name = None
    value = None
    default = None
    environment_key = None
    document = True
    validate = staticmethod(validate_invalid)
    desc = ""

    def _convert(self, value):
        """Turn the text of an environment variable into what `validate` takes."""
        return value.split(",") if isinstance(value, string_types) else value

    def _default(self):
        return self._convert(os.environ.get(self.environment_key, self.default))

    def get(self):
        """Return the value; the first call without a `set` before it reads the environment."""
        if "value" not in self.__dict__:
            self.value = self.validate(self._default())
        return self.value

    def set(self, val):
        """Set the value, after the same conversion and check as the environment variable's."""
        self.value = self.validate(self._convert(val))


def make_settings():
    """Return a new instance of every setting, by name."""
    settings = {}
    for kind in ALL_SETTINGS:
        assert kind.name not in settings, kind
        settings[kind.name] = kind()
    return settings


class Config:
    """The settings of gevent as attributes; there is one instance, ``gevent.config``.

    A setting must be changed before the part of gevent that uses it is first used::

        >>> from gevent import config
        >>> config.fileobject = 'thread'

        >>> from gevent import fileobject
        >>> fileobject.FileObject.__name__
        'FileObjectThread'
    """

    def __init__(self):
        self.settings = make_settings()

    def _find(self, name):
        try:
            return self.settings[name]
        except KeyError:
            raise AttributeError(f"No configuration setting for: {name!r}") from None

    def __getattr__(self, name):
        return self._find(name).get()

    def __setattr__(self, name, value):
        if name != "settings" and name in self.settings:
            self.set(name, value)
        else:
            super().__setattr__(name, value)

    def set(self, name, value):
        """Set the setting *name*; `AttributeError` if there is none of that name."""
        self._find(name).set(value)

    def __dir__(self):
        return list(self.settings)

    def print_help(self):
        """Print the name and the description of every setting."""
        for name, setting in self.settings.items():
            print(f"{name}\n{textwrap.indent(setting.__doc__.lstrip(), ' ' * 4)}\n")


class ImportableSetting:
    """A setting whose value is an object that can be given by name."""

    shortname_map = {}

    def _import_one_of(self, candidates):
        assert isinstance(candidates, list)
        if not candidates:
            raise ImportError("Cannot import from empty list")
        for candidate in candidates[:-1]:
            try:
                return self._import_one(candidate)
            except ImportError:
                continue
        return self._import_one(candidates[-1])

    def _import_one(self, path, _MISSING=object()):  # noqa: B008 (a private marker)
        if not isinstance(path, string_types):
            return path
        if "/" in path or "." not in path:
            raise ImportError(
                f"Cannot import {path!r}. Required format: [package.]module.class. "
                f"Or choose from {list(self.shortname_map)!r}"
            )
        module, _, item = path.rpartition(".")
        module = importlib.import_module(module)
        found = getattr(module, item, _MISSING)
        if found is _MISSING:
            raise ImportError(f"Cannot import {item!r} from {module!r}")
        return found

    def validate(self, value):
        if isinstance(value, type):
            return value
        return self._import_one_of([self.shortname_map.get(name, name) for name in value])

    def get_options(self):
        """Return what each short name stands for: the object, or why it cannot be had."""
        return {name: self._try_import(path) for name, path in self.shortname_map.items()}

    def _try_import(self, path):
        try:
            return self._import_one(path)
        except ImportError as ex:
            return ex


class BoolSettingMixin:
    validate = staticmethod(validate_bool)
    _convert = staticmethod(convert_str_value_as_is)


class IntSettingMixin:
    validate = staticmethod(validate_anything)

    def _convert(self, value):
        return int(value) if value else None


class _PositiveValueMixin:
    def validate(self, value):
        if value is not None and value <= 0:
            raise ValueError("Must be positive")
        return value


class FloatSettingMixin(_PositiveValueMixin):
    def _convert(self, value):
        return float(value) if value else None


class ByteCountSettingMixin(_PositiveValueMixin):
    _MULTIPLES = {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}
    _SUFFIX_SIZE = 2

    def _convert(self, value):
        if not value or not isinstance(value, str):
            return value
        number, suffix = value[: -self._SUFFIX_SIZE], value[-self._SUFFIX_SIZE :].lower()
        if suffix in self._MULTIPLES:
            return int(number) * self._MULTIPLES[suffix]
        return int(value)


class Resolver(ImportableSetting, Setting):
    desc = """\
    The class of `gevent.hub.Hub.resolver`, which answers the socket module's DNS questions.

    ``thread`` asks the system's library in threads and ``block`` without one; ``native`` asks DNS
    servers on the hub, and ``ares`` and ``dnspython`` are other names of it.
    """
    default = ["thread", "dnspython", "ares", "block"]
    shortname_map = {
        "ares": "gevent.resolver.ares.Resolver",
        "thread": "gevent.resolver.thread.Resolver",
        "block": "gevent.resolver.blocking.Resolver",
        "dnspython": "gevent.resolver.dnspython.Resolver",
        "native": "gevent.resolver.native.Resolver",
    }


class Threadpool(ImportableSetting, Setting):
    desc = """\
    The class of `gevent.hub.Hub.threadpool`.
    """
    default = "gevent.threadpool.ThreadPool"


class ThreadpoolIdleTaskTimeout(FloatSettingMixin, Setting):
    name = "threadpool_idle_task_timeout"
    desc = """\
    After how many seconds without work a thread of the hub's pool ends.
    """
    default = 5.0


#: The loops that exist, and the names that leave the choice to the platform. The names of
#: upstream's loops are among them so that an environment written for it goes on working.
_LOOPS = ("epoll", "uring", "kqueue")
_AUTO_LOOPS = (
    "auto",
    "default",
    "libev",
    "libuv",
    "libev-cext",
    "libev-cffi",
    "libuv-cffi",
    "gevent.libev.corecext.loop",
    "gevent.libev.corecffi.loop",
    "gevent.libuv.loop.loop",
)
_LOOP_CLASS = "gevent._loop.loop"


class Loop(ImportableSetting, Setting):
    desc = """\
    The event loop: ``epoll``, ``uring`` (io_uring), ``kqueue`` or ``auto``.

    ``auto`` is epoll on Linux and kqueue on macOS and BSD; on Linux kqueue is an emulation, for
    tests, and only taken if it is asked for alone. In a list each loop is tried in turn;
    if the only or last one is refused by the machine, creating the hub fails with the error
    of the system call. Upstream's names (``libev``, ``libuv`` and their variants) mean ``auto``.
    """
    default = ["auto"]
    shortname_map = {
        "epoll": _LOOP_CLASS,
        "uring": _LOOP_CLASS,
        "kqueue": _LOOP_CLASS,
        "auto": _LOOP_CLASS,
        "libev-cext": "gevent.libev.corecext.loop",
        "libev-cffi": "gevent.libev.corecffi.loop",
        "libuv-cffi": "gevent.libuv.loop.loop",
        "libuv": "gevent.libuv.loop.loop",
    }

    #: The chosen loops in order of preference, ``("auto",)`` if nothing was chosen.
    preference = ("auto",)

    def validate(self, value):
        if isinstance(value, type):
            self.preference = ("auto",)
            return value
        names = [name.strip() if isinstance(name, str) else name for name in value]
        if names and all(name in _LOOPS or name in _AUTO_LOOPS for name in names):
            self.preference = tuple(name if name in _LOOPS else "auto" for name in names)
            names = [_LOOP_CLASS]
        else:
            self.preference = ("auto",)
        return super().validate(names)

    def get_options(self):
        """Return the loops that exist here; upstream's names give an `ImportError` each."""
        options = super().get_options()
        for name in options:
            if name.startswith(("libev", "libuv")):
                options[name] = ImportError(
                    f"This gevent has no {name}; as a setting it means auto"
                )
        return options


def loop_preference():
    """Return the names of the loops to try, in order: a tuple of epoll, uring, kqueue, auto.

    ``config.loop`` decides, then ``config.libev_backend`` if it names a loop that exists.
    """
    setting = config.settings["loop"]
    setting.get()
    if setting.preference != ("auto",):
        return setting.preference
    backend = config.libev_backend
    if not backend:
        return setting.preference
    if not isinstance(backend, (list, tuple)):
        backend = [backend]
    names = [name.strip() if isinstance(name, str) else name for name in backend]
    return tuple(name for name in names if name in _LOOPS) or setting.preference


class FormatContext(ImportableSetting, Setting):
    name = "format_context"
    desc = """\
    The function that turns a callback's context into text when its error is printed.
    """
    # Not pprint.pformat: that shows subclasses of dict and list without asking their __repr__,
    # which may be hiding a secret.
    default = "pprint.saferepr"


class LibevBackend(Setting):
    name = "libev_backend"
    environment_key = "GEVENT_BACKEND"
    desc = """\
    The loop to use if `loop` was left alone, under the name of libev's variable.

    libev's other names leave the choice to `loop`; ``poll`` and ``select`` are then what the
    hub's ``loop.backend`` says.
    """
    default = None
    validate = staticmethod(validate_anything)


class FileObject(ImportableSetting, Setting):
    desc = """\
    The class that `gevent.fileobject.FileObject` stands for.
    """
    environment_key = "GEVENT_FILE"
    default = ["posix", "thread"]
    shortname_map = {
        "thread": "gevent._fileobjectcommon.FileObjectThread",
        "posix": "gevent._fileobjectposix.FileObjectPosix",
        "block": "gevent._fileobjectcommon.FileObjectBlock",
    }


class WatchChildren(BoolSettingMixin, Setting):
    name = "disable_watch_children"
    environment_key = "GEVENT_NOWAITPID"
    desc = """\
    Leave child processes to the program: no child watchers, and `os.fork` and `os.waitpid`
    are not replaced.
    """
    default = False


class ForkKill(BoolSettingMixin, Setting):
    name = "fork_kill"
    environment_key = "GEVENT_FORK_KILL"
    desc = """\
    In a forked child, have only the greenlet that forked go on, as only its thread would.

    By default, as upstream, the others go on in the child too: a server's greenlets serve in both.
    """
    default = False

    def _default(self):
        text = os.environ.get(self.environment_key, "")
        try:
            validate_bool(text)
        except ValueError:
            words = ", ".join(filter(None, _WORDS))
            raise ValueError(
                f"{self.environment_key}={text!r}: it takes one of {words}, or nothing"
            ) from None
        return text

    def check(self):
        """Raise now what would be raised in a child."""
        self._default()


class TraceMalloc(IntSettingMixin, Setting):
    name = "trace_malloc"
    environment_key = "PYTHONTRACEMALLOC"
    desc = """\
    The interpreter's own variable for tracing allocations; gevent only reports it.
    """
    default = False


class TrackGreenletTree(BoolSettingMixin, Setting):
    name = "track_greenlet_tree"
    desc = """\
    Whether a greenlet remembers where, by which greenlet and with which tree locals it was spawned.

    Without, spawning is faster and takes less memory, and ``spawning_greenlet``,
    ``spawning_stack`` and ``spawn_tree_locals`` are not set.
    """
    default = True

    def set(self, val):
        super().set(val)
        _core.set_tracking(self.get())


class MonitorThread(BoolSettingMixin, Setting):
    name = "monitor_thread"
    environment_key = "GEVENT_MONITOR_THREAD_ENABLE"
    desc = """\
    Whether each hub starts a native thread that watches over it.

    The thread reports when the loop has been blocked for longer than `max_blocking_time`. It
    starts when the hub first runs, or by `gevent.hub.Hub.start_periodic_monitoring_thread`,
    and more functions can be given to it: see `gevent.events.IPeriodicMonitorThread`.
    """
    default = False


class MaxBlockingTime(FloatSettingMixin, Setting):
    name = "max_blocking_time"
    # Without the prefix of the other monitoring variables, as other projects use this name too.
    environment_key = "GEVENT_MAX_BLOCKING_TIME"
    desc = """\
    How long, in seconds, the loop may be blocked before the `monitor_thread` reports it.

    The measurement uses `greenlet.settrace`: a trace function set before is still called, one
    that is set later must pass the events on.
    """
    default = 0.1


class PrintBlockingReports(BoolSettingMixin, Setting):
    name = "print_blocking_reports"
    environment_key = "GEVENT_MONITOR_PRINT_BLOCKING_REPORTS"
    desc = """\
    Whether the `monitor_thread` prints its reports of a blocked loop.

    The event is sent in either case.
    """
    default = True


class MonitorMemoryPeriod(FloatSettingMixin, Setting):
    name = "memory_monitor_period"
    environment_key = "GEVENT_MONITOR_MEMORY_PERIOD"
    desc = """\
    How often, in seconds, the `monitor_thread` looks at the memory usage.

    Looking is costly on some systems, so there is a lower bound.
    """
    default = 5


class MonitorMemoryMaxUsage(ByteCountSettingMixin, Setting):
    name = "max_memory_usage"
    environment_key = "GEVENT_MONITOR_MEMORY_MAX"
    desc = """\
    The memory usage, in bytes, above which the `monitor_thread` sends events.

    The suffixes ``kb``, ``mb`` and ``gb`` are understood. Without a value nothing is checked.
    """
    default = None


class AresSettingMixin:
    """A setting that a resolver takes as it is, as the keyword argument ``kwarg_name``."""

    document = False
    validate = staticmethod(validate_anything)
    _convert = staticmethod(convert_str_value_as_is)

    @property
    def kwarg_name(self):
        return self.name.partition("_")[2]


class AresFlags(AresSettingMixin, Setting):
    name = "ares_flags"
    environment_key = "GEVENTARES_FLAGS"


class AresTimeout(AresSettingMixin, Setting):
    name = "ares_timeout"
    environment_key = "GEVENTARES_TIMEOUT"
    document = True
    desc = """\
    The older name of `resolver_timeout`; set only one of them.
    """


class AresTries(AresSettingMixin, Setting):
    name = "ares_tries"
    environment_key = "GEVENTARES_TRIES"


class AresNdots(AresSettingMixin, Setting):
    name = "ares_ndots"
    environment_key = "GEVENTARES_NDOTS"


class AresUDPPort(AresSettingMixin, Setting):
    name = "ares_udp_port"
    environment_key = "GEVENTARES_UDP_PORT"


class AresTCPPort(AresSettingMixin, Setting):
    name = "ares_tcp_port"
    environment_key = "GEVENTARES_TCP_PORT"


class AresServers(AresSettingMixin, Setting):
    name = "ares_servers"
    environment_key = "GEVENTARES_SERVERS"
    document = True
    desc = """\
    The older name of `resolver_nameservers`; set only one of them.
    """


class ResolverNameservers(AresSettingMixin, Setting):
    name = "resolver_nameservers"
    environment_key = "GEVENT_RESOLVER_NAMESERVERS"
    document = True
    desc = """\
    The addresses of the nameservers to ask, instead of those that the system is configured for.

    Only the resolver ``native``, by any of its names, uses it. In the environment variable the
    addresses are separated by commas.
    """
    _convert = Setting._convert

    @property
    def kwarg_name(self):
        return "servers"


class ResolverTimeout(FloatSettingMixin, AresSettingMixin, Setting):
    name = "resolver_timeout"
    environment_key = "GEVENT_RESOLVER_TIMEOUT"
    document = True
    desc = """\
    How many seconds the resolver may spend on a question in all.

    Only the resolver ``native``, by any of its names, uses it.
    """

    @property
    def kwarg_name(self):
        return "timeout"


config = Config()

# The hub is of no use without its loop, so the loop's module is imported now, by the one thread
# that imports gevent, and not by whichever threads first ask for a hub at the same time. The
# value is not kept: code may still choose another one.
try:
    Loop().get()
except ImportError:  # The hub will raise it where it can be seen.
    pass


if __name__ == "__main__":
    config.print_help()
