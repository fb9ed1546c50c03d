"""The first process of the command: sockets, workers, signals. It runs no application and no hub.

Each worker has a listening socket of its own on the address (``SO_REUSEPORT``), so that the kernel
spreads the connections. The sockets are this process's: a worker that ends or is replaced leaves
its queue of connections to the next one, and none is lost.
"""

import errno
import os
import select
import signal
import socket
import sys
import time
import traceback

import gevent
from gevent._bind import bind
from gevent.baseserver import parse_address

__all__ = ["Master"]

#: Seconds before a worker is started again: doubled each time, back to the first once one lived.
FIRST_DELAY = 0.5
LONGEST_DELAY = 30
LIVED = 10

#: A worker that ends by this did not get as far as serving, and would not the next time.
EXIT_NOT_LOADED = 3

_HANDLED = ("SIGHUP", "SIGTERM", "SIGINT", "SIGQUIT", "SIGTTIN", "SIGTTOU", "SIGCHLD", "SIGUSR1")


class Worker:
    """A process."""

    def __init__(self, pid, slot, pipe):
        self.pid = pid
        self.slot = slot
        #: It writes here: a byte when it serves, and one now and then while its hub runs.
        self.pipe = pipe
        self.started = self.seen = time.monotonic()
        self.ready = self.leaving = self.killed = False
        #: When it is killed, if it has not ended by then.
        self.deadline = 0.0


class Slot:
    """A place for a worker, with its sockets."""

    def __init__(self, sockets):
        self.sockets = sockets
        self.worker = None
        #: Whom the worker replaces once it is ready.
        self.old = []
        self.delay = FIRST_DELAY
        self.due = None


class Master:
    """Starts workers and keeps them running."""

    def __init__(self, options):
        self.options = options
        self.slots = []
        self.workers = {}
        self.shared = []
        self.paths = []
        #: Slots whose worker is still to be replaced by one with new code.
        self.to_reload = []
        self.stopping = None
        self.ever_ready = False
        self.code = 0
        self.pid = os.getpid()
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)

    def log(self, text, *args):
        sys.stderr.write("[%d] %s\n" % (os.getpid(), text % args if args else text))
        sys.stderr.flush()

    # Sockets.

    def bind(self):
        """Bind every address; those without SO_REUSEPORT are shared by all workers."""
        self.addresses = []
        for name in self.options.bind:
            if name.startswith("unix:"):
                path = name[5:]
                self.shared.append(_unix_listener(path, self.options.backlog))
                self.paths.append(path)
                continue
            family, address = parse_address(int(name) if name.isdigit() else name)
            sock = self._listener(family, address)
            # The port that was found, if none was asked for.
            self.addresses.append((family, sock.getsockname(), sock))

    def _listener(self, family, address):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "SO_REUSEPORT"):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bind(sock, address)
            sock.listen(self.options.backlog)
        except OSError as ex:
            sock.close()
            raise OSError(ex.errno, "%s: %s" % (ex.strerror, address)) from None
        return sock

    def new_slot(self):
        sockets = list(self.shared)
        for index, (family, address, first) in enumerate(self.addresses):
            if first is not None and hasattr(socket, "SO_REUSEPORT"):
                self.addresses[index] = (family, address, None)
                sockets.append(first)
            elif first is not None:
                sockets.append(first)
            else:
                sockets.append(self._listener(family, address))
        slot = Slot(sockets)
        self.slots.append(slot)
        return slot

    def where(self):
        scheme = "https" if self.options.certfile else "http"
        names = []
        for _, address, _ in self.addresses:
            host = "[%s]" % address[0] if ":" in address[0] else address[0]
            names.append("%s://%s:%d" % (scheme, host, address[1]))
        return ", ".join(names + ["unix:" + path for path in self.paths])

    # Life.

    def run(self):
        """Serve until a signal says stop; gives the exit code."""
        try:
            self.bind()
        except (OSError, ValueError) as ex:
            self.log("%s", ex)
            return 1
        where = self.where()
        for _ in range(self.options.workers):
            self.new_slot()
        for name in _HANDLED:
            signal.signal(getattr(signal, name), self._on_signal)
        signal.set_wakeup_fd(self._writer)
        for slot in self.slots:
            self.start(slot)
        self.log(
            "gevent.pywsgi %s: %s, loop %s, %d worker%s",
            gevent.__version__,
            where,
            _loop_name(),
            len(self.slots),
            "" if len(self.slots) == 1 else "s",
        )
        while self.workers or self.stopping is None:
            self.wait()
            self.reap()
            self.look_after()
        for path in self.paths:
            try:
                os.unlink(path)
            except OSError:
                pass
        return self.code

    def _on_signal(self, *_args):
        """The number is in the pipe already."""

    def wait(self):
        """Sleep until there is something to do, and do what signals and workers say."""
        now = time.monotonic()
        times = [slot.due for slot in self.slots if slot.due is not None]
        times += [worker.deadline for worker in self.workers.values() if worker.deadline]
        if self.options.timeout:
            times.append(now + 1)
        seconds = max(0.0, min(times) - now) if times else None
        pipes = {worker.pipe: worker for worker in self.workers.values() if worker.pipe >= 0}
        readable, _, _ = select.select([self._reader, *pipes], [], [], seconds)
        for fd in readable:
            if fd == self._reader:
                for number in os.read(fd, 4096):
                    self.signalled(signal.Signals(number))
            else:
                self.heard(pipes[fd])

    def signalled(self, number):
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            graceful = number == signal.SIGTERM and self.stopping is None
            if self.stopping is None or not graceful:
                self.stop(graceful)
        elif number == signal.SIGHUP:
            self.log("reloading")
            self.to_reload = list(self.slots)
        elif number == signal.SIGTTIN and self.stopping is None:
            self.start(self.new_slot())
        elif number == signal.SIGTTOU and len(self.slots) > 1:
            slot = self.slots.pop()
            self.release(slot)

    def release(self, slot):
        """Give up a slot: its connections are accepted by its worker as long as that serves."""
        for sock in slot.sockets:
            if sock not in self.shared:
                sock.close()
        for worker in [slot.worker, *slot.old]:
            if worker is not None:
                self.dismiss(worker)
        slot.due = None

    def start(self, slot):
        """Fork a worker."""
        reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            code = EXIT_NOT_LOADED
            try:
                os.close(reader)
                signal.set_wakeup_fd(-1)
                for name in _HANDLED:
                    signal.signal(getattr(signal, name), signal.SIG_DFL)
                # Only the slot's own sockets, or a socket would have ears that nobody listens with.
                for other in self.slots:
                    if other is not slot:
                        for sock in other.sockets:
                            if sock not in self.shared:
                                sock.close()
                from gevent.pywsgi._worker import work

                code = work(self.options, slot.sockets, writer, self.pid)
            except SystemExit as ex:
                code = ex.code if isinstance(ex.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                try:
                    sys.stdout.flush()
                    sys.stderr.flush()
                finally:
                    os._exit(code or 0)
        os.close(writer)
        os.set_blocking(reader, False)
        worker = Worker(pid, slot, reader)
        self.workers[pid] = worker
        if slot.worker is not None:
            slot.old.append(slot.worker)
        slot.worker = worker
        slot.due = None

    def heard(self, worker):
        try:
            data = os.read(worker.pipe, 4096)
        except BlockingIOError:
            return
        if not data:
            # It ended, or is about to.
            os.close(worker.pipe)
            worker.pipe = -1
            return
        worker.seen = time.monotonic()
        if not worker.ready:
            worker.ready = self.ever_ready = True
            for old in worker.slot.old:
                self.dismiss(old)

    def dismiss(self, worker, graceful=True):
        """Ask a worker to finish; it is killed when it does not."""
        seconds = self.options.graceful_timeout if graceful else 0
        deadline = time.monotonic() + seconds + 2
        worker.deadline = min(worker.deadline or deadline, deadline)
        worker.leaving = True
        _kill(worker.pid, signal.SIGTERM if graceful else signal.SIGQUIT)

    def stop(self, graceful):
        self.log("stopping" if graceful else "stopping at once")
        self.stopping = time.monotonic()
        self.to_reload = []
        for slot in self.slots:
            slot.due = None
        for worker in list(self.workers.values()):
            self.dismiss(worker, graceful)

    def reap(self):
        """Take note of workers that ended."""
        while self.workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            worker = self.workers.pop(pid, None)
            if worker is not None:
                self.ended(worker, os.waitstatus_to_exitcode(status))

    def ended(self, worker, code):
        if worker.pipe >= 0:
            os.close(worker.pipe)
        slot = worker.slot
        if worker in slot.old:
            slot.old.remove(worker)
            return
        slot.worker = None
        if self.stopping is not None or worker.leaving or slot not in self.slots:
            return
        how = "by signal %d" % -code if code < 0 else "with %d" % code
        if code == EXIT_NOT_LOADED and not self.ever_ready:
            self.log("the application could not be loaded")
            self.code = EXIT_NOT_LOADED
            self.stop(graceful=False)
            return
        if slot.old:
            # The new code does not run; what ran before goes on.
            slot.worker = slot.old.pop()
            self.to_reload = []
            self.log("worker %d ended %s; the reload is called off", worker.pid, how)
            return
        if time.monotonic() - worker.started >= LIVED:
            slot.delay = FIRST_DELAY
        slot.due = time.monotonic() + slot.delay
        self.log("worker %d ended %s; again in %g s", worker.pid, how, slot.delay)
        slot.delay = min(LONGEST_DELAY, slot.delay * 2)

    def look_after(self):
        """Start what is due, kill what is late, go on with a reload."""
        now = time.monotonic()
        for slot in self.slots:
            if slot.due is not None and slot.due <= now:
                self.start(slot)
        for worker in self.workers.values():
            silent = self.options.timeout and now - worker.seen > self.options.timeout
            if silent and worker.ready and not worker.leaving and not worker.killed:
                self.log("worker %d was silent for %g s", worker.pid, self.options.timeout)
                worker.killed = True
                _kill(worker.pid, signal.SIGKILL)
            if worker.deadline and worker.deadline <= now:
                worker.deadline = 0.0
                _kill(worker.pid, signal.SIGKILL)
        # One at a time: the next when this one's successor serves.
        if self.to_reload and not any(self._is_changing(slot) for slot in self.slots):
            slot = self.to_reload.pop(0)
            if slot in self.slots and slot.worker is not None:
                self.start(slot)

    @staticmethod
    def _is_changing(slot):
        return slot.worker is None or not slot.worker.ready


def _unix_listener(path, backlog):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            # One that nobody listens at is left over.
            sock.connect(path)
        except OSError as ex:
            if ex.errno == errno.ECONNREFUSED:
                os.unlink(path)
        else:
            raise OSError(errno.EADDRINUSE, "somebody serves there: " + path)
        finally:
            sock.close()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(path)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _loop_name():
    """What the workers' loop is called, without making one here."""
    name = os.environ.get("GEVENT_LOOP") or "auto"
    if name in ("auto", "default", "libev", "libev-cext", "libuv"):
        return "epoll" if sys.platform == "linux" else "kqueue"
    return name
