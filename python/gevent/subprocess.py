"""Child processes that one greenlet can wait for while others run.

:class:`Popen` is the standard library's, which starts the child, with three parts replaced: the
pipes are cooperative files, the end of the child comes from a watcher of the loop, and
``communicate`` runs in greenlets. So every argument of the interpreter's own version works, and a
child costs what it costs there. For POSIX; the loop must be that of the thread that started the
child, and has to run for its end to be noticed.
"""

import errno
import os
import subprocess as __subprocess__
import sys
from subprocess import PIPE, STDOUT, CalledProcessError, CompletedProcess, TimeoutExpired

from gevent._util import copy_globals
from gevent.event import AsyncResult
from gevent.greenlet import Greenlet, joinall, killall
from gevent.hub import _get_hub_noargs as get_hub
from gevent.hub import getcurrent, linkproxy, sleep
from gevent.monkey import is_module_patched
from gevent.os import _close, _watch_child

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__implements__ = [
    "Popen",
    "call",
    "check_call",
    "check_output",
    "run",
]

__imports__ = copy_globals(
    __subprocess__,
    globals(),
    only_names=[name for name in __subprocess__.__all__ if name not in __implements__],
)

__extra__ = ["list2cmdline", "MAXFD"]
list2cmdline = __subprocess__.list2cmdline

__all__ = list(__implements__ + __imports__)

spawn = Greenlet.spawn
os_close = _close
_set_inheritable = os.set_inheritable

mswindows = sys.platform.startswith("win")

try:
    MAXFD = os.sysconf("SC_OPEN_MAX")
except (AttributeError, OSError, ValueError):
    MAXFD = 256


def FileObject(*args, **kwargs):
    """The configured kind of cooperative file, which may be configured until it is first used."""
    from gevent import fileobject

    globals()["FileObject"] = fileobject.FileObject
    return fileobject.FileObject(*args, **kwargs)


def call(*popenargs, **kwargs):
    """``call(args, *, timeout=None, ...) -> returncode``: run a command to its end.

    Takes the arguments of :class:`Popen`. After *timeout* seconds, or any other exception, the
    child is killed first.
    """
    timeout = kwargs.pop("timeout", None)
    with Popen(*popenargs, **kwargs) as process:
        try:
            return process.wait(timeout=timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise


def check_call(*popenargs, **kwargs):
    """:func:`call`, but returns zero or raises :exc:`CalledProcessError`."""
    retcode = call(*popenargs, **kwargs)
    if retcode:
        command = kwargs.get("args")
        raise CalledProcessError(retcode, popenargs[0] if command is None else command)
    return 0


def check_output(*popenargs, **kwargs):
    """``check_output(args, *, input=None, timeout=None, ...)``: a command's standard output.

    Takes the arguments of :class:`Popen` other than *stdout*. *input* is what the child reads.

    :raises CalledProcessError: its exit code is not zero.
    :raises TimeoutExpired: it took longer than *timeout* seconds, and has been killed.
    """
    for name in ("stdout", "check"):
        if name in kwargs:
            raise ValueError("%s argument not allowed, it will be overridden." % name)
    if "input" in kwargs and "stdin" in kwargs:
        raise ValueError("stdin and input arguments may not both be used.")
    if "input" in kwargs:
        kwargs["stdin"] = PIPE
    return _run(
        popenargs,
        kwargs.pop("input", None),
        kwargs.pop("timeout", None),
        True,
        dict(kwargs, stdout=PIPE),
    ).stdout


def run(*popenargs, **kwargs):
    """``run(args, *, input=None, capture_output=False, timeout=None, check=False, ...)``.

    Runs a command to its end and returns a :class:`CompletedProcess`. Takes the arguments of
    :class:`Popen`. *input* is what the child reads; *capture_output* keeps what it writes; with
    *check* an exit code other than zero is a :exc:`CalledProcessError`; after *timeout* seconds
    the child is killed and :exc:`TimeoutExpired` raised, with what it wrote until then.
    """
    input = kwargs.pop("input", None)
    timeout = kwargs.pop("timeout", None)
    check = kwargs.pop("check", False)
    if input is not None:
        if "stdin" in kwargs:
            raise ValueError("stdin and input arguments may not both be used.")
        kwargs["stdin"] = PIPE
    if kwargs.pop("capture_output", False):
        if "stdout" in kwargs or "stderr" in kwargs:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        kwargs["stdout"] = kwargs["stderr"] = PIPE
    return _run(popenargs, input, timeout, check, kwargs)


def _run(popenargs, input, timeout, check, kwargs):
    with Popen(*popenargs, **kwargs) as process:
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        except TimeoutExpired:
            process.kill()
            process.wait()
            # Not until the pipes end: a grandchild may hold them open for as long as it likes.
            stdout, stderr = process._communicating_greenlets.give_up()
            raise TimeoutExpired(process.args, timeout, output=stdout, stderr=stderr)
        except BaseException:
            process.kill()
            process.wait()
            raise
        retcode = process.poll()
        if check and retcode:
            raise CalledProcessError(retcode, process.args, output=stdout, stderr=stderr)
    return CompletedProcess(process.args, retcode, stdout, stderr)


class _CommunicatingGreenlets:
    """The greenlets of :meth:`Popen.communicate`: one a pipe, made at the first call.

    They outlive a call that times out, so that the next one gets all the output: two readers of
    one buffered file are an error, and killing the first would lose what it has read.
    """

    __slots__ = ("_all_greenlets", "_parts", "stderr", "stdin", "stdout")

    def __init__(self, popen, input_data):
        #: What each reader has so far, and what to join it with.
        self._parts = {}
        self.stdin = popen.stdin and spawn(self._write_and_close, popen.stdin, input_data)
        self.stdout = self._spawn_reader("stdout", popen)
        self.stderr = self._spawn_reader("stderr", popen)
        self._all_greenlets = tuple(
            greenlet for greenlet in (self.stdin, self.stdout, self.stderr) if greenlet is not None
        )

    def _spawn_reader(self, name, popen):
        fobj = getattr(popen, name)
        if not fobj:
            return None
        empty = "" if popen.text_mode else b""
        parts = []
        self._parts[name] = (empty, parts)
        return spawn(self._read_and_close, fobj, empty, parts)

    def give_up(self):
        """Stop reading and writing; return ``(stdout, stderr)`` as far as they have been read."""
        joinall(self, timeout=0.01)
        killall(self)
        return tuple(
            empty.join(parts) if parts is not None else None
            for empty, parts in (
                self._parts.get("stdout", (b"", None)),
                self._parts.get("stderr", (b"", None)),
            )
        )

    def __iter__(self):
        return iter(self._all_greenlets)

    def __len__(self):
        return len(self._all_greenlets)

    @staticmethod
    def _close(fobj):
        try:
            fobj.close()
        except OSError:
            pass

    @classmethod
    def _write_and_close(cls, fobj, data):
        try:
            if data:
                fobj.write(data)
                fobj.flush()
        except BrokenPipeError:
            # A child need not read all it is offered.
            pass
        except OSError as ex:
            if ex.errno not in (errno.EPIPE, errno.EINVAL):
                raise
        finally:
            cls._close(fobj)

    @classmethod
    def _read_and_close(cls, fobj, empty, parts):
        # As much as there is at a time, or line by line where that would split a character.
        read = fobj.readline if empty == "" else getattr(fobj, "read1", fobj.read)
        try:
            while part := read(65536):
                parts.append(part)
            return empty.join(parts)
        finally:
            cls._close(fobj)


def _clear_nonblock(stream):
    """See to it that a child finds *stream*, which it will inherit, in blocking mode.

    The flag belongs to the open file, not to the descriptor: there is no setting it for one
    process alone.
    """
    try:
        fd = stream if isinstance(stream, int) else stream.fileno()
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        if flags & os.O_NONBLOCK:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
    except (AttributeError, OSError, ValueError):
        # Not open. The standard library says what it thinks of that.
        pass


def _may_have_ended(pid):
    """Whether the child *pid* is a zombie, or no child any more, or that cannot be told."""
    if not hasattr(os, "waitid"):
        return True
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _is_waited_in(pipe):
    """Whether a greenlet waits in *pipe*, of any kind or None."""
    return bool(getattr(getattr(pipe, "fileio", None), "_waiting", 0))


class Popen(__subprocess__.Popen):
    """A child process; see :class:`subprocess.Popen` for the arguments.

    *process_group* works on every version. *threadpool* was for Windows, and must be None.
    """

    _communicating_greenlets = None

    def __init__(
        self,
        args,
        bufsize=-1,
        executable=None,
        stdin=None,
        stdout=None,
        stderr=None,
        preexec_fn=None,
        close_fds=True,
        shell=False,
        cwd=None,
        env=None,
        universal_newlines=None,
        startupinfo=None,
        creationflags=0,
        restore_signals=True,
        start_new_session=False,
        pass_fds=(),
        encoding=None,
        errors=None,
        text=None,
        group=None,
        extra_groups=None,
        user=None,
        umask=-1,
        pipesize=-1,
        process_group=None,
        threadpool=None,
        **kwargs,
    ):
        if stdout is STDOUT:
            raise ValueError("STDOUT can only be used for stderr")
        if threadpool is not None:
            raise ValueError("threadpool is only supported on Windows platforms")
        if process_group is not None:
            if sys.version_info >= (3, 11):
                kwargs["process_group"] = process_group
            else:
                preexec_fn = self._then_set_process_group(preexec_fn, process_group)

        self.result = AsyncResult()
        self._loop = get_hub().loop
        if not self._loop.default and not is_module_patched("subprocess"):
            # As upstream, for those who ask for this class by name. A program that is patched
            # and starts a child in a native thread cannot know.
            raise TypeError("child watchers are only available on the default loop")
        # A child that is gone before its watcher starts must not be missed.
        self._loop.install_sigchld()
        for number, stream in enumerate((stdin, stdout, stderr)):
            if stream not in (__subprocess__.PIPE, STDOUT, __subprocess__.DEVNULL):
                _clear_nonblock(number if stream is None else stream)

        super().__init__(
            args,
            bufsize,
            executable,
            stdin,
            stdout,
            stderr,
            preexec_fn,
            close_fds,
            shell,
            cwd,
            env,
            universal_newlines,
            startupinfo,
            creationflags,
            restore_signals,
            start_new_session,
            pass_fds,
            encoding=encoding,
            errors=errors,
            text=text,
            group=group,
            extra_groups=extra_groups,
            user=user,
            umask=umask,
            pipesize=pipesize,
            **kwargs,
        )
        _watch_child(self.pid, self._on_child, self._loop, True)

        bufsize = -1 if bufsize is None else bufsize
        self.stdin = self._cooperative(self.stdin, "w", bufsize)
        self.stdout = self._cooperative(self.stdout, "r", bufsize)
        self.stderr = self._cooperative(self.stderr, "r", bufsize)

    @staticmethod
    def _then_set_process_group(preexec_fn, process_group):
        def in_child():
            os.setpgid(0, process_group)
            if preexec_fn is not None:
                preexec_fn()

        return in_child

    # For subclasses and other programs that start a child by `fork`: what it has to close. The
    # standard library's class does it in C.

    @classmethod
    def _close_fds(cls, keep, errpipe_write):
        """Close all descriptors from 3 on but *keep*, a sequence in order; those become
        inheritable, except *errpipe_write*."""
        for path in ("/proc/self/fd", "/dev/fd"):
            if os.path.isdir(path):
                return cls._close_fds_from_path(path, keep, errpipe_write)
        return cls._close_fds_brute_force(keep, errpipe_write)

    @classmethod
    def _close_fds_from_path(cls, path, keep, errpipe_write):
        try:
            fds = [int(name) for name in os.listdir(path)]
        except (ValueError, OSError):
            return cls._close_fds_brute_force(keep, errpipe_write)
        for fd in keep:
            if fd != errpipe_write:
                _set_inheritable(fd, True)
        for fd in fds:
            if fd <= 2 or fd in keep:
                continue
            try:
                os_close(fd)
            except OSError:
                # It was the listing's own.
                pass
        return None

    @classmethod
    def _close_fds_brute_force(cls, keep, errpipe_write):
        first, last = (min(keep), max(keep)) if keep else (3, 2)
        os.closerange(3, first)
        for fd in range(first, last + 1):
            if fd not in keep:
                try:
                    os_close(fd)
                except OSError:
                    pass
            elif fd != errpipe_write:
                _set_inheritable(fd, True)
        os.closerange(last + 1, MAXFD)

    def _cooperative(self, stream, mode, bufsize):
        """The same pipe as *stream*, which nobody has used yet, as a cooperative file."""
        if stream is None:
            return None
        while hasattr(stream, "detach"):
            stream = stream.detach()
        if self.text_mode:
            return FileObject(stream, mode, bufsize, encoding=self.encoding, errors=self.errors)
        return FileObject(stream, mode + "b", bufsize)

    def __repr__(self):
        return "<%s at 0x%x pid=%r returncode=%r>" % (
            self.__class__.__name__,
            id(self),
            self.pid,
            self.returncode,
        )

    def __del__(self):
        """A running child stays with its watcher, which keeps this object alive."""

    def __enter__(self):
        return self

    def __exit__(self, t, v, tb):
        # If communicate() was cut short, its greenlets are still inside the files. Each closes its
        # own as it dies; closing one under its reader is an error ("reentrant call").
        if self._communicating_greenlets is not None:
            killall([greenlet for greenlet in self._communicating_greenlets if not greenlet.dead])
        outputs = (self.stdout, self.stderr)
        failed = None
        if self.stdin and any(map(_is_waited_in, outputs)):
            # The child may not end before its input does, and so not the reader that is waited for.
            # Threads would wait for each other here.
            try:
                self._close_when_left(self.stdin)
            except OSError as error:
                failed = error
        for pipe in outputs:
            self._close_when_left(pipe)
        try:
            self._close_when_left(self.stdin)
            if failed is not None:
                raise failed
        finally:
            self.wait()

    @staticmethod
    def _close_when_left(pipe):
        """Close *pipe* when no other greenlet is in the middle of it, as threads do."""
        if not pipe:
            return
        if _is_waited_in(pipe):
            pipe.fileio._wait_until_left()
        pipe.close()

    def _close_outputs(self):
        for pipe in (self.stdout, self.stderr):
            if pipe:
                try:
                    pipe.close()
                except RuntimeError:
                    # Somebody else's greenlet reads it, and drops it when done.
                    pass

    def _on_child(self, watcher):
        status = watcher.rstatus
        if os.WIFSIGNALED(status):
            self.returncode = -os.WTERMSIG(status)
        else:
            self.returncode = os.WEXITSTATUS(status)
        self.result.set(self.returncode)

    def communicate(self, input=None, timeout=None):
        """Send *input*, read all the output, wait for the end; return ``(stdout, stderr)``.

        What is not a pipe is None. After :exc:`TimeoutExpired` it can be called again, and no
        output is lost.
        """
        if self._communicating_greenlets is None:
            self._communicating_greenlets = _CommunicatingGreenlets(self, input)
        greenlets = self._communicating_greenlets

        if not greenlets and timeout is not None:
            # Nothing to talk through; the limit still holds.
            self.wait(timeout=timeout)

        done = joinall(greenlets, timeout=timeout)
        for greenlet in done:
            # An error of theirs comes before the timeout.
            greenlet.get()
        if timeout is not None and len(done) != len(greenlets):
            raise TimeoutExpired(self.args, timeout)

        self._close_outputs()
        self.wait()
        return (
            None if greenlets.stdout is None else greenlets.stdout.get(),
            None if greenlets.stderr is None else greenlets.stderr.get(),
        )

    def rawlink(self, callback):
        """Have the hub call *callback* with this object when the child has ended."""
        self.result.rawlink(linkproxy(callback, self))

    def pipe_cloexec(self):
        """A pipe whose ends child processes do not inherit, as every ``os.pipe`` is now."""
        return os.pipe()

    def poll(self):
        """The child's exit code, or None while it runs. Lets the loop look first."""
        return self._internal_poll()

    def _internal_poll(self, _deadstate=None):
        # The status is the loop's to fetch; a look at whether there is one leaves it in place.
        if self.returncode is None and self.pid is not None and _may_have_ended(self.pid):
            hub = get_hub()
            if hub is not getcurrent():
                # A sleep that is over comes before the child in the same turn of the loop.
                # More turns would only wait for the loop of another thread.
                for _ in range(2 if hub.loop is self._loop else 1):
                    if self.returncode is None:
                        sleep(0.00001)
        return self.returncode

    def wait(self, timeout=None, _raise_exc=True):
        """Wait for the end of the child, *timeout* seconds at most; return its exit code.

        :raises TimeoutExpired: it still runs.
        """
        return self._gevent_result_wait(timeout, _raise_exc)

    def _gevent_result_wait(self, timeout=None, raise_exc=True):
        result = self.result.wait(timeout=timeout)
        if raise_exc and timeout is not None and not self.result.ready():
            raise TimeoutExpired(self.args, timeout)
        return result

    def send_signal(self, sig):
        """Send *sig* to the child, unless it is known to have ended."""
        if self.returncode is None:
            try:
                os.kill(self.pid, sig)
            except ProcessLookupError:
                # The loop has its status, and is about to say so.
                pass


def _gevent_did_monkey_patch(target_module, *_args, **_kwargs):
    # The other start methods talk to a helper process through descriptors that they expect to
    # block.
    if sys.platform == "darwin" or (not mswindows and sys.version_info >= (3, 14)):
        import multiprocessing

        multiprocessing.set_start_method("fork", force=True)
    from gevent.monkey import _patch_multiprocessing

    _patch_multiprocessing.patch()
