"""Tools for debugging and tests: listings of threads and greenlets, checks for switching."""

import functools
import sys
import traceback

from greenlet import getcurrent

from gevent._compat import PYPY, perf_counter, thread_mod_name
from gevent._util import _NONE

__all__ = [
    "GreenletTree",
    "assert_switches",
    "format_run_info",
    "print_run_info",
    "wrap_errors",
]

# How many frames of a stack are shown unless asked otherwise.
_STACK_LIMIT = 20 if PYPY else None

_RULE = "*" * 80


def _pformat(value):
    # Slow to import, and seldom needed.
    from pprint import pformat

    return pformat(value)


class wrap_errors:
    """A function that returns certain exceptions instead of raising them.

    An exception that leaves a greenlet is printed. Where it is no error, this saves writing a
    function that catches it::

        wrapped_func = wrap_errors((TypeError, ValueError, AttributeError), func)

    The result looks like *func* in every other respect.
    """

    def __init__(self, errors, func):
        """*errors* is a class of exceptions or a tuple of some."""
        self.__errors = errors
        self.__func = func
        functools.update_wrapper(self, func)

    def __call__(self, *args, **kwargs):
        try:
            return self.__func(*args, **kwargs)
        except self.__errors as ex:
            return ex

    def __str__(self):
        return str(self.__func)

    def __repr__(self):
        return repr(self.__func)

    def __getattr__(self, name):
        return getattr(self.__func, name)


def print_run_info(thread_stacks=True, greenlet_stacks=True, limit=_NONE, file=None):
    """Print the lines of `format_run_info` to *file*, by default standard error."""
    if file is None:
        file = sys.stderr
    for line in format_run_info(thread_stacks, greenlet_stacks, limit):
        print(line, file=file)


def format_run_info(
    thread_stacks=True, greenlet_stacks=True, limit=_NONE, current_thread_ident=None
):
    """format_run_info(thread_stacks=True, greenlet_stacks=True, limit=None) -> [str]

    Return lines that describe all threads and greenlets of the process, for people to read.

    *thread_stacks* and *greenlet_stacks* say whether to show what they are executing, and *limit*
    how many frames of it. Where a greenlet was spawned is always shown. The stack of another
    thread's current greenlet is that of the thread.
    """
    if current_thread_ident is None:
        from gevent import monkey

        current_thread_ident = monkey.get_original(thread_mod_name, "get_ident")()
    if limit is _NONE:
        limit = _STACK_LIMIT
    lines = []
    _format_thread_info(lines, thread_stacks, limit, current_thread_ident)
    _format_greenlet_info(lines, greenlet_stacks, limit)
    return lines


#: The older name of `format_run_info`.
dump_stacks = format_run_info


def is_idle_threadpool_worker(frame):
    """Return whether *frame* is that of a pool's thread that waits for work."""
    return frame.f_locals and frame.f_locals.get("gevent_threadpool_worker_idle")


def _format_thread_info(lines, thread_stacks, limit, current_thread_ident):
    import threading

    threads = {thread.ident: thread for thread in threading.enumerate()}
    lines += [_RULE, "* Threads"]
    thread = frame = None
    for ident, frame in sys._current_frames().items():
        thread = threads.get(ident)
        show_stack = thread_stacks
        name = thread.name if thread else None
        if not thread and is_idle_threadpool_worker(frame):
            name = "idle threadpool worker"
            show_stack = False
        if getattr(thread, "gevent_monitoring_thread", None):
            name = repr(thread.gevent_monitoring_thread())
        if ident == current_thread_ident:
            name = f"{name}) (CURRENT"
        lines += [_RULE, f"Thread 0x{ident:x} ({name})\n"]
        if show_stack:
            lines.append("".join(traceback.format_stack(frame, limit)))
        elif not thread_stacks:
            lines.append("\t...stack elided...")
    # One of the frames is this one, which would be a cycle.
    del thread, frame, threads


def _format_greenlet_info(lines, greenlet_stacks, limit):
    lines += [_RULE, "* Greenlets", _RULE]
    forest = GreenletTree.forest()
    forest.sort(key=lambda tree: "" if tree.is_current_tree else repr(tree.greenlet))
    for tree in forest:
        lines.append("---- Thread boundary")
        details = {
            "running_stacks": greenlet_stacks and tree.is_current_tree,
            "running_stack_limit": limit,
        }
        lines += tree.format_lines(details=details)


class _Lines:
    """The lines for one greenlet: its label, data about it, and those of its children.

    A line of data is kept as a tuple, because a parent draws it without the line to the child.
    """

    def __init__(self, details, depth=0):
        self.lines = []
        self.details = details
        self.depth = depth

    def label(self, text):
        self.lines.append(text)

    def data(self, text, marker=":"):
        if self.details:
            self.lines.append((f" {' ' if self.depth else marker}    {text}",))

    def multidata(self, text):
        for line in text.splitlines():
            self.data(line)

    def child(self, lines, last):
        """Add the *lines* of a child, which may be the last one."""
        head, *rest = lines
        self.lines.append(f" +--- {head}")
        for line in rest:
            if isinstance(line, tuple):
                self.data(line[0], " " if last else ":")
            else:
                self.lines.append(f" {' ' if last else '|'}   {line}")


class GreenletTree:
    """A greenlet and the greenlets it spawned, for printing.

    The parent of most greenlets is the hub, so trees follow the order of spawning instead. Take
    them from `forest` or `current_tree`. A tree has the attributes of its greenlet. Its text shows
    the hierarchy; `format` shows more, in no fixed form.
    """

    #: The greenlet at the root of this tree.
    greenlet = None

    #: Whether this is the tree of the current thread.
    is_current_tree = False

    DEFAULT_DETAILS = {
        "running_stacks": True,
        "running_stack_limit": _STACK_LIMIT,
        "spawning_stacks": True,
        "locals": True,
    }

    _SUPPORTS_TRACEBACK = True

    def __init__(self, greenlet):
        self.greenlet = greenlet
        self.child_trees = []

    def add_child(self, tree):
        """Add the *tree* of a greenlet that this one spawned."""
        if tree is not self:
            self.child_trees.append(tree)

    @property
    def root(self):
        """Whether the greenlet is the main one of a thread."""
        return self.greenlet.parent is None

    def __getattr__(self, name):
        return getattr(self.greenlet, name)

    def format_lines(self, details=True):
        """Return the tree as a list of lines.

        *details* is false for the hierarchy alone, or a dictionary with entries that differ
        from `DEFAULT_DETAILS`.
        """
        if isinstance(details, dict):
            details = {**self.DEFAULT_DETAILS, **details}
        else:
            details = dict(self.DEFAULT_DETAILS) if details else {}
        lines = self._render(_Lines(details))
        return [line[0] if isinstance(line, tuple) else line for line in lines]

    def format(self, details=True):
        """Return the tree as text; see `format_lines`."""
        return "\n".join(self.format_lines(details))

    def __str__(self):
        return self.format(False)

    def _label(self):
        greenlet = self.greenlet
        label = repr(greenlet)
        if greenlet:
            return label
        if not getattr(greenlet, "ready", bool)():
            return label + "; not running"
        label += "; finished"
        if greenlet.value is not None:
            label += " with value " + repr(greenlet.value)[:30]
        elif getattr(greenlet, "exception", None) is not None:
            label += " with exception " + repr(greenlet.exception)
        return label

    def _render(self, out):
        greenlet, details = self.greenlet, out.details
        out.label(self._label())
        out.data("Parent: " + repr(greenlet.parent))
        monitor = getattr(greenlet, "gevent_monitoring_thread", None)
        if monitor is not None:
            out.data("Monitoring Thread:" + repr(monitor()))
        if details and details["running_stacks"] and greenlet:
            self._render_stack(out, "Running:", greenlet.gr_frame, details["running_stack_limit"])
        spawned_at = getattr(greenlet, "spawning_stack", None)
        if details and details["spawning_stacks"] and spawned_at:
            # Its depth was limited when it was captured.
            self._render_stack(out, "Spawned at:", spawned_at, None)
        tree_locals = getattr(greenlet, "spawn_tree_locals", None)
        inherited = getattr(self._spawning_parent(greenlet), "spawn_tree_locals", None)
        if tree_locals and tree_locals is not inherited:
            out.data("Spawn Tree Locals")
            out.multidata(_pformat(tree_locals))
        self._render_locals(out)
        try:
            self._render_children(out)
        except RecursionError:
            print("When rendering children", *sys.exc_info())
        return out.lines

    @classmethod
    def _render_stack(cls, out, label, frame, limit):
        out.data(label)
        if cls._SUPPORTS_TRACEBACK:
            out.multidata("".join(traceback.format_stack(frame, limit)))

    def _render_locals(self, out):
        from gevent.local import all_local_dicts_for_greenlet

        found = all_local_dicts_for_greenlet(self.greenlet)
        if not found:
            return
        out.data("Greenlet Locals:")
        for (kind, ident), values in found:
            if values:
                out.data(f"  Local {kind} at {hex(ident)}")
                out.multidata("    " + _pformat(values))

    def _render_children(self, out):
        # Raw greenlets first, then those that run, in the order of their numbers.
        trees = sorted(
            self.child_trees,
            key=lambda tree: (
                getattr(tree, "minimal_ident", -1),
                getattr(tree, "ready", bool)(),
                id(tree.parent),
            ),
        )
        for tree in trees:
            out.child(tree._render(_Lines(out.details, out.depth + 1)), tree is trees[-1])

    @staticmethod
    def _spawning_parent(greenlet):
        spawning = getattr(greenlet, "spawning_greenlet", None)
        return spawning() if spawning else None

    @staticmethod
    def _root_greenlet(greenlet):
        while greenlet.parent is not None and not getattr(greenlet, "greenlet_tree_is_root", False):
            greenlet = greenlet.parent
        return greenlet

    @classmethod
    def _forest(cls):
        from gevent._greenlet_primitives import get_reachable_greenlets

        trees, roots = {}, {}

        def tree_of(greenlet):
            if greenlet not in trees:
                trees[greenlet] = cls(greenlet)
            return trees[greenlet]

        main = cls._root_greenlet(getcurrent())
        current_tree = roots[main] = tree_of(main)
        current_tree.is_current_tree = True
        for greenlet in get_reachable_greenlets():
            parent = cls._spawning_parent(greenlet)
            if parent is None:
                # It is gone, or nobody kept track.
                parent = cls._root_greenlet(greenlet)
            if parent is cls._root_greenlet(parent):
                roots.setdefault(parent, tree_of(parent))
            tree_of(parent).add_child(tree_of(greenlet))
        return roots, current_tree

    @classmethod
    def forest(cls):
        """forest() -> sequence

        Return the trees of all native threads, as a list.
        """
        return list(cls._forest()[0].values())

    @classmethod
    def current_tree(cls):
        """current_tree() -> GreenletTree

        Return the tree of the current thread.
        """
        return cls._forest()[1]


class _FailedToSwitch(AssertionError):
    pass


class assert_switches:
    """A context manager that raises an `AssertionError` if its block did not let others run.

    Without arguments the block has to switch at least once. With *max_blocking_time*, it must not
    go on for more seconds than that without a switch, or, with *hub_only*, without a switch
    to the hub. An exception of the block is left alone::

        # Always an error: nothing switches.
        with assert_switches():
            pass

        # Never one: it does not take long.
        with assert_switches(max_blocking_time=1.0):
            pass
    """

    hub = None
    tracer = None
    _entered = None

    def __init__(self, max_blocking_time=None, hub_only=False):
        self.max_blocking_time = max_blocking_time
        self.hub_only = hub_only

    def __enter__(self):
        from gevent import _tracer, get_hub

        self.hub = get_hub()
        if not self.max_blocking_time:
            self.tracer = _tracer.GreenletTracer()
        elif self.hub_only:
            self.tracer = _tracer.HubSwitchTracer(self.hub, self.max_blocking_time)
        else:
            self.tracer = _tracer.MaxSwitchTracer(self.hub, self.max_blocking_time)
        self._entered = perf_counter()
        self.tracer.monitor_current_greenlet_blocking()
        return self

    def __exit__(self, t, v, tb):
        hub, tracer = self.hub, self.tracer
        self.hub = self.tracer = None
        tracer.kill()
        did_block = tracer.did_block_hub(hub) if t is None else False
        if not did_block:
            return
        where = "To the hub" if self.hub_only else "To any greenlet"
        message = f"{where} in {perf_counter() - self._entered:.4f} seconds"
        if self.max_blocking_time:
            message += f" (max allowed {self.max_blocking_time:.4f} seconds)"
        report = tracer.did_block_hub_report(hub, did_block[1], {})
        raise _FailedToSwitch("\n".join([message, *report]))


def clear_stack_frames(frame):
    """Drop the variables of *frame* and of its callers, as far as the interpreter lets us."""
    while frame is not None:
        try:
            frame.clear()
        except (RuntimeError, AttributeError):
            # Of a thread that is running, or was when the process forked.
            pass
        try:
            frame.f_locals.clear()
        except AttributeError:
            # From 3.13 on a view that cannot be cleared.
            pass
        frame = frame.f_back
