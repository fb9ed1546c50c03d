"""`Greenlet`, and waiting for and killing several of them.

The class is native; what is rare about it is added here.
"""

from greenlet import GreenletExit, greenlet

from gevent import _core
from gevent._compat import reraise
from gevent._config import config as GEVENT_CONFIG
from gevent._hub_local import get_hub_noargs as get_hub
from gevent._hub_primitives import iwait_on_objects as iwait
from gevent._hub_primitives import wait_on_objects as wait
from gevent._tblib import dump_traceback, load_traceback
from gevent._util import StandIn, readproperty
from gevent._waiter import Waiter
from gevent.timeout import Timeout

__all__ = [
    "Greenlet",
    "joinall",
    "killall",
]


class SpawnedLink(StandIn):
    """Calls a link in a raw greenlet of its own. To be called by the hub."""

    __slots__ = []

    def __init__(self, callback):
        if not callable(callback):
            raise TypeError(f"Expected callable: {callback!r}")
        super().__init__(callback)

    def __call__(self, source):
        caller = greenlet(self.callback, get_hub())
        try:
            caller.switch(source)
        except MemoryError:
            if not _core.had_no_stack(caller):
                raise
            # There is no memory for its stack. Whoever is linked has to be told all the same: here,
            # where the link must not block.
            self.callback(source)


class SuccessSpawnedLink(SpawnedLink):
    """A `SpawnedLink` for greenlets that end well."""

    __slots__ = []

    def __call__(self, source):
        if source.successful():
            return super().__call__(source)


class FailureSpawnedLink(SpawnedLink):
    """A `SpawnedLink` for greenlets that end with an error."""

    __slots__ = []

    def __call__(self, source):
        if not source.successful():
            return super().__call__(source)


class _Frame:
    """A frame as far as a spawning stack keeps it."""

    __slots__ = ("f_code", "f_lineno", "f_back")

    def __init__(self, f_code=None, f_lineno=0, f_back=None):
        self.f_code = f_code
        self.f_lineno = f_lineno
        self.f_back = f_back

    @property
    def f_globals(self):
        """Not kept."""
        return None


class Greenlet(_core.Greenlet):
    """
    Greenlet(run=None, *args, **kwargs)

    A unit of execution that gives way to others whenever it blocks. It calls *run*, or if that is
    None its own `_run`, with the other arguments.

    As a context manager it is joined at the end, or killed if the body raised.
    """

    #: How many frames `spawning_stack` has at most.
    spawning_stack_limit = 10

    @property
    def minimal_ident(self):
        """A small number that no other living greenlet of this hub has."""
        ident = self._ident
        if ident is None:
            ident = self._ident = self.parent.ident_registry.get_ident(self)
        return ident

    @readproperty
    def name(self):
        """Shown by ``repr``; unless assigned, made of `minimal_ident`."""
        return f"Greenlet-{self.minimal_ident}"

    @property
    def spawning_stack(self):
        """The frames that spawned it, as objects like frames, or None if that is not tracked."""
        made = self._spawning_made
        if made is not None:
            return made
        site = self._spawning_site
        if site is None:
            return None
        frame = None
        for code, line in reversed(site):
            frame = _Frame(code, line, frame)
        self._spawning_made = frame
        return frame

    @spawning_stack.setter
    def spawning_stack(self, value):
        self._spawning_made = value

    def __repr__(self):
        name = " "
        if "name" in self.__dict__ or self._ident is not None:
            name = f' "{self.name}" '
        text = f"<{self.__class__.__name__}{name}at {hex(id(self))}"
        formatted = self._formatinfo()
        if formatted:
            text += ": " + formatted
        return text + ">"

    def _formatinfo(self):
        info = self._formatted_info
        if info is not None:
            return info
        func = self._run
        owner = getattr(func, "__self__", None)
        if func is _core._nothing or owner is self:
            text = "_run"
        elif owner is not None:
            text = repr(func)
        else:
            text = getattr(func, "__name__", "") or repr(func)
        args = [repr(x)[:50] for x in self.args or ()]
        args.extend(f"{key}={repr(value)[:50]}" for key, value in self.kwargs.items())
        if args:
            text += "(" + ", ".join(args) + ")"
        # Kept, because what it runs is forgotten when it ends.
        self._formatted_info = text
        return text

    @property
    def exc_info(self):
        """The triple of the error that it ended with, or None."""
        info = self._exc_info
        if info is not None and info[0] is not None:
            return (info[0], info[1], load_traceback(info[2]) if info[2] else None)
        return None

    def _raise_exception(self):
        reraise(*self.exc_info)

    def _report_error(self, exc_info):
        """Called when it ends with an error, which is stored and handed to the hub."""
        if isinstance(exc_info[1], GreenletExit):
            self._exc_info = (None, None, None)
            self.value = exc_info[1]
            self._tell_links()
            return
        try:
            # The frames would keep everything that they refer to.
            tb = dump_traceback(exc_info[2])
        except:
            tb = None
        self._exc_info = (exc_info[0], exc_info[1], tb)
        self._tell_links()
        try:
            self.parent.handle_error(self, *exc_info)
        finally:
            del exc_info

    def link(self, callback, SpawnedLink=SpawnedLink):
        """Have *callback* called with this greenlet, in a raw greenlet, when it has ended."""
        self.rawlink(SpawnedLink(callback))

    def link_value(self, callback, SpawnedLink=SuccessSpawnedLink):
        """As `link`, if it ends well."""
        self.link(callback, SpawnedLink=SpawnedLink)

    def link_exception(self, callback, SpawnedLink=FailureSpawnedLink):
        """As `link`, if it ends with an error."""
        self.link(callback, SpawnedLink=SpawnedLink)

    @staticmethod
    def add_spawn_callback(callback):
        """Have *callback* called with each greenlet that is started."""
        _spawn_callbacks.add(callback)
        _core.set_spawn_callbacks(_spawn_callbacks)

    @staticmethod
    def remove_spawn_callback(callback):
        """Undo `add_spawn_callback`, if it was done."""
        _spawn_callbacks.discard(callback)
        _core.set_spawn_callbacks(_spawn_callbacks)

    def __enter__(self):
        return self

    def __exit__(self, t, v, tb):
        if t is None:
            try:
                self.join()
            finally:
                self.kill()
        else:
            self.kill((t, v, tb))


_spawn_callbacks = set()
_core.set_greenlet_class(Greenlet)
_core.set_tracking(GEVENT_CONFIG.track_greenlet_tree)


# Called by the native class, where Python serves as well.


def _raise_exception_of(g):
    g._raise_exception()


def _join_under(g, timeout):
    """`Greenlet.join` with a `Timeout` object."""
    timeout = Timeout.start_new(timeout)
    try:
        g.join()
    except Timeout as ex:
        if ex is not timeout:
            raise
    finally:
        timeout.cancel()


def _get_under(g, timeout):
    """`Greenlet.get` with a `Timeout` object."""
    timeout = Timeout.start_new(timeout)
    try:
        return g.get()
    finally:
        timeout.cancel()


def _died_before_start(g, exception):
    """Report the end of a greenlet that was killed before it ran."""
    triple = isinstance(exception, tuple) and len(exception) == 3
    _died_before_start_args(g, exception if triple else (exception,))


def _died_before_start_args(g, args):
    if not args:
        args = (GreenletExit, GreenletExit(), None)
    elif len(args) == 1:
        (arg,) = args
        if isinstance(arg, type) and issubclass(arg, BaseException):
            args = (arg, arg(), None)
        else:
            args = (type(arg), arg, None)
    if not issubclass(args[0], BaseException):
        args = (BaseException, BaseException(args), None)
    g._report_error(args)


def joinall(greenlets, timeout=None, raise_error=False, count=None):
    """
    Wait until *greenlets* have ended, or *count* of them, or for *timeout* seconds.

    With *raise_error* the first error that one ends with is raised. Returns those that have ended,
    in the order in which they did.
    """
    if not raise_error:
        return wait(greenlets, timeout=timeout, count=count)
    done = []
    for obj in iwait(greenlets, timeout=timeout, count=count):
        if getattr(obj, "exception", None) is not None:
            if hasattr(obj, "_raise_exception"):
                obj._raise_exception()
            else:
                raise obj.exception
        done.append(obj)
    return done


def _killall3(greenlets, exception, waiter):
    waiter.switch(_core.throw_all(greenlets, exception))


def killall(greenlets, exception=GreenletExit, block=True, timeout=None):
    """
    Raise *exception* in all *greenlets*; one that has not run yet never will.

    With *block*, return when all are dead, or raise `Timeout` after *timeout* seconds.
    """
    alive = []
    glet = None
    for glet in greenlets:
        try:
            cancel = glet._maybe_kill_before_start
        except AttributeError:
            alive.append(glet)
        else:
            if not cancel(exception):
                alive.append(glet)
    if not alive:
        return
    loop = glet.loop
    if not block:
        loop.run_callback(_core.throw_all, alive, exception)
        return
    waiter = Waiter()
    loop.run_callback(_killall3, alive, exception, waiter)
    timer = Timeout._start_new_or_dummy(timeout)
    try:
        diehards = waiter.get()
        if diehards:
            joinall(diehards, raise_error=False)
    finally:
        timer.cancel()


