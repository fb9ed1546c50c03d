"""The first process of the command: sockets, workers, signals. It runs no application and no hub.

Each worker has a listening socket of its own on the address (``SO_REUSEPORT``), so that the kernel
spreads the connections. The sockets are this process's, and stay open until the service ends: a
worker that ends or is replaced leaves its queue of connections to the next one, and none is lost.
While a socket has no worker of its own (its worker starts, has died, or was one too many) all
others accept from it: they are sent its descriptor.
"""

import errno
import itertools
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

#: What a worker writes: that it serves, that its hub runs, that it accepts nothing more.
READY, ALIVE, ENDING = b"!.x"

_HANDLED = (
    "SIGHUP",
    "SIGTERM",
    "SIGINT",
    "SIGQUIT",
    "SIGTTIN",
    "SIGTTOU",
    "SIGCHLD",
    "SIGUSR1",
    "SIGUSR2",
)


class Worker:
    """A process."""

    def __init__(self, pid, slot, channel):
        self.pid = pid
        self.slot = slot
        #: A Unix socket: it writes how it is, and reads whose sockets it shall accept from.
        self.channel = channel
        self.started = self.seen = time.monotonic()
        self.ready = self.ending = self.leaving = self.killed = False
        #: It is asked to finish as soon as it serves: connections wait for it.
        self.leave_when_ready = False
        #: When it is killed, if it has not ended by then.
        self.deadline = 0.0
        #: The numbers of the slots that it accepts for, besides its own.
        self.adopted = set()

    @property
    def serving(self):
        return self.ready and not (self.ending or self.leaving or self.killed)


class Slot:
    """A place for a worker, with its sockets."""

    def __init__(self, number, sockets):
        self.number = number
        #: Those that no other slot has.
        self.sockets = sockets
        self.worker = None
        #: Whom the worker replaces once it is ready.
        self.old = []
        self.delay = FIRST_DELAY
        self.due = None

    @property
    def workers(self):
        return [worker for worker in [self.worker, *self.old] if worker is not None]

    @property
    def served(self):
        return any(worker.serving for worker in self.workers)

    @property
    def waited_for(self):
        """Whether connections wait to be accepted."""
        return bool(self.sockets and select.select(self.sockets, [], [], 0)[0])


class Master:
    """Starts workers and keeps them running."""

    def __init__(self, options):
        self.options = options
        self.slots = []
        #: Slots that were one too many. Their sockets stay open, as some connection may wait there.
        self.spare = []
        self.numbers = itertools.count()
        self.workers = {}
        self.shared = []
        self.paths = []
        #: Slots whose worker is still to be replaced by one with new code.
        self.to_reload = []
        self.stopping = None
        self.at_once = False
        #: A worker could not be told something, and is to be told again.
        self.untold = False
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
            if hasattr(socket, "SO_REUSEPORT"):
                # The port that was found, if none was asked for.
                self.addresses.append((family, sock.getsockname(), sock))
            else:
                self.addresses.append((family, sock.getsockname(), None))
                self.shared.append(sock)

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
        """A place for one worker more."""
        if self.spare:
            slot = self.spare.pop()
            slot.delay = FIRST_DELAY
        else:
            sockets = []
            if hasattr(socket, "SO_REUSEPORT"):
                for index, (family, address, first) in enumerate(self.addresses):
                    self.addresses[index] = (family, address, None)
                    sockets.append(first or self._listener(family, address))
            slot = Slot(next(self.numbers), sockets)
        self.slots.append(slot)
        return slot

    def close_sockets(self):
        """Accept nothing more, as soon as the workers do not either."""
        for slot in [*self.slots, *self.spare]:
            for sock in slot.sockets:
                sock.close()
            slot.sockets = []
        for sock in self.shared:
            sock.close()
        self.shared = []

    def share_out(self):
        """Have the workers that serve accept from sockets that have no worker of their own."""
        self.untold = False
        if self.stopping is not None:
            return
        orphans = {
            slot.number: slot
            for slot in [*self.slots, *self.spare]
            if slot.sockets and not slot.served
        }
        for worker in self.workers.values():
            if not worker.serving or worker.channel is None:
                continue
            for number in worker.adopted - orphans.keys():
                if self.tell(worker, "drop", number):
                    worker.adopted.discard(number)
            for number in orphans.keys() - worker.adopted:
                if self.tell(worker, "adopt", number, orphans[number].sockets):
                    worker.adopted.add(number)

    def tell(self, worker, what, number, sockets=()):
        line = "%s %d %d\n" % (what, number, len(sockets))
        try:
            socket.send_fds(worker.channel, [line.encode()], [sock.fileno() for sock in sockets])
        except OSError:
            # It does not read, or is gone. In the first case it will read again.
            self.untold = True
            return False
        return True

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
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for name in _HANDLED:
            signal.signal(getattr(signal, name), self._on_signal)
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
            self.share_out()
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
        if self.options.timeout or self.untold:
            times.append(now + 1)
        seconds = max(0.0, min(times) - now) if times else None
        channels = {
            worker.channel: worker for worker in self.workers.values() if worker.channel is not None
        }
        readable, _, _ = select.select([self._reader, *channels], [], [], seconds)
        for each in readable:
            if each == self._reader:
                for number in os.read(each, 4096):
                    self.signalled(number)
            else:
                self.heard(channels[each])

    def signalled(self, number):
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self.stop(graceful=number == signal.SIGTERM)
        elif self.stopping is not None:
            return
        elif number == signal.SIGHUP:
            self.reload()
        elif number == signal.SIGTTIN:
            try:
                slot = self.new_slot()
            except OSError as ex:
                self.log("no worker more: %s", ex)
            else:
                self.start(slot)
        elif number == signal.SIGTTOU and len(self.slots) > 1:
            # The one that serves least.
            slot = min(
                reversed(self.slots),
                key=lambda slot: (slot.worker is not None) + slot.served,
            )
            self.slots.remove(slot)
            self.spare.append(slot)
            slot.due = None
            for worker in slot.workers:
                self.dismiss(worker)

    def reload(self):
        self.log("reloading")
        self.to_reload = [slot for slot in self.slots if slot.worker is not None]
        for slot in self.slots:
            if slot.worker is None:
                # The new code may be what it waits for.
                slot.delay = FIRST_DELAY
                slot.due = time.monotonic()

    def start(self, slot):
        """Fork a worker. Without the means for it, it is tried again later."""
        slot.due = None
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            ours, theirs = socket.socketpair()
        except OSError as ex:
            self.not_started(slot, ex)
            return
        # A signal to the child must not run this process's handler there: its number would come
        # out of the pipe here.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if not pid:
                self.be_worker(slot, theirs, mask)
        except OSError as ex:
            ours.close()
            self.not_started(slot, ex)
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        ours.setblocking(False)
        self.workers[pid] = worker = Worker(pid, slot, ours)
        if slot.worker is not None:
            slot.old.append(slot.worker)
        slot.worker = worker

    def not_started(self, slot, error):
        if slot.worker is not None:
            self.log("%s; the reload is called off", error)
            self.to_reload = []
            return
        self.log("no worker could be started: %s; again in %g s", error, slot.delay)
        self.start_later(slot)

    def be_worker(self, slot, channel, mask):
        """In the child; does not return."""
        code = EXIT_NOT_LOADED
        try:
            signal.set_wakeup_fd(-1)
            for name in _HANDLED:
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(self._reader)
            os.close(self._writer)
            # Only the slot's own sockets, or a socket would have ears that nobody listens with.
            for other in [*self.slots, *self.spare]:
                if other is not slot:
                    for sock in other.sockets:
                        sock.close()
            for worker in self.workers.values():
                if worker.channel is not None:
                    worker.channel.close()
            from gevent.pywsgi._worker import work

            code = work(self.options, [*self.shared, *slot.sockets], channel, self.pid)
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

    def heard(self, worker):
        try:
            data = worker.channel.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            # It ended, or is about to.
            worker.channel.close()
            worker.channel = None
            return
        worker.seen = time.monotonic()
        if READY in data and not worker.ready:
            worker.ready = self.ever_ready = True
            if worker.leave_when_ready:
                self.dismiss(worker)
            elif worker is worker.slot.worker:
                for old in worker.slot.old:
                    self.dismiss(old)
        if ENDING in data:
            worker.ending = True

    def dismiss(self, worker, graceful=True):
        """Ask a worker to finish; it is killed when it does not."""
        self.expect_end(worker, self.options.graceful_timeout if graceful else 0)
        worker.leaving = True
        # One that starts has no handlers yet, and ends at once.
        quick = worker.ready and not graceful
        _kill(worker.pid, signal.SIGQUIT if quick else signal.SIGTERM)

    @staticmethod
    def expect_end(worker, seconds):
        deadline = time.monotonic() + seconds + 2
        worker.deadline = min(worker.deadline or deadline, deadline)

    def stop(self, graceful):
        """End the service. To be told again changes nothing, unless it is to end sooner now."""
        if self.at_once or (graceful and self.stopping is not None):
            return
        self.at_once = not graceful
        self.log("stopping" if graceful else "stopping at once")
        if self.stopping is None:
            self.stopping = time.monotonic()
        self.to_reload = []
        # Those that serve accept what waits for the others, too.
        alone = graceful and not any(worker.serving for worker in self.workers.values())
        for slot in [*self.slots, *self.spare]:
            slot.due = None
            for worker in slot.workers:
                if alone and not worker.ready and worker is slot.worker and self.has_work(slot):
                    self.expect_end(worker, self.options.graceful_timeout)
                    worker.leave_when_ready = True
                else:
                    self.dismiss(worker, graceful)
        self.close_sockets()

    def has_work(self, slot):
        return slot.waited_for or bool(
            self.shared and select.select(self.shared, [], [], 0)[0]
        )

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
        if worker.channel is not None:
            # What it wrote last counts: whether it had served.
            self.heard(worker)
        if worker.channel is not None:
            worker.channel.close()
        slot = worker.slot
        if worker in slot.old:
            slot.old.remove(worker)
            return
        slot.worker = None
        if self.stopping is not None or slot not in self.slots:
            return
        how = "by signal %d" % -code if code < 0 else "with %d" % code
        before = [old for old in slot.old if not old.leaving]
        if before and not worker.ready:
            # The new code does not run; what ran before goes on.
            slot.worker = before[-1]
            slot.old.remove(slot.worker)
            self.to_reload = []
            self.log("worker %d ended %s; the reload is called off", worker.pid, how)
            return
        if code == EXIT_NOT_LOADED and not self.ever_ready:
            self.log("the application could not be loaded")
            self.code = EXIT_NOT_LOADED
            self.stop(graceful=False)
            return
        if time.monotonic() - worker.started >= LIVED:
            slot.delay = FIRST_DELAY
        self.log("worker %d ended %s; again in %g s", worker.pid, how, slot.delay)
        self.start_later(slot)

    @staticmethod
    def start_later(slot):
        slot.due = time.monotonic() + slot.delay
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
        changing = any(slot.old and not slot.worker.ready for slot in self.slots if slot.worker)
        if self.to_reload and not changing:
            slot = self.to_reload.pop(0)
            if slot in self.slots and slot.worker is not None:
                self.start(slot)


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
