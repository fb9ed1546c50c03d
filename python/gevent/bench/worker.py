"""What a child process of :mod:`gevent.bench` runs: cases on one loop, for so many seconds each.

``python -c <this file> KIND`` answers lines of JSON, ``[case, seconds, detail, ...]``, by such
lines: how many rounds were made, in how many seconds on the wall and of the processors. KIND is
``gevent`` (whichever the interpreter has), ``asyncio`` or ``uvloop``. Both ends of a connection are
in this process, so that no client limits what a server can show.
"""

import json
import os
import random
import socket
import sys
import threading
import time

__all__ = [
    "Asyncio",
    "Gevent",
    "Watch",
    "answer",
    "contestant",
    "describe",
    "file_names",
    "forget",
    "main",
]

now = time.perf_counter
READERS = 100
MANY = 100


class Watch:
    """Time that passes, on the wall and of this process's processors, and what is done in it."""

    def __init__(self):
        self.rounds, self.wall, self.cpu = 0, 0.0, 0.0

    def begin(self, done=0):
        self.before, self.begun, self.used = done, now(), time.process_time()

    def end(self, done):
        self.wall += now() - self.begun
        self.cpu += time.process_time() - self.used
        self.rounds += done - self.before


def file_names(folder):
    """The files that the runner has put there, in some order."""
    paths = [os.path.join(folder, name) for name in os.listdir(folder)]
    random.Random(1).shuffle(paths)
    return paths


def forget(paths):
    """Have the kernel drop what it has of files in memory."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


class Gevent:
    """The cases as one writes them with gevent."""

    def __init__(self):
        import gevent

        self.gevent = gevent

    def for_a_while(self, jobs, seconds):
        """Run *jobs*, functions of a list to count in, as greenlets for so long."""
        gevent = self.gevent
        counts = [[0] for _ in jobs]
        greenlets = [gevent.spawn(job, count) for job, count in zip(jobs, counts, strict=True)]
        settled = now() + 3
        while not all(c[0] for c in counts[:1] + counts[-1:]) and now() < settled:
            gevent.sleep(0.005)
        watch = Watch()
        watch.begin(sum(c[0] for c in counts))
        gevent.sleep(seconds)
        watch.end(sum(c[0] for c in counts))
        gevent.killall(greenlets)
        return watch

    def switch(self, seconds):
        sleep = self.gevent.sleep

        def job(count):
            while True:
                sleep(0)
                count[0] += 1

        return self.for_a_while([job] * MANY, seconds)

    def spawn(self, seconds):
        gevent = self.gevent

        def job(count):
            while True:
                gevent.joinall([gevent.spawn(int) for _ in range(MANY)])
                count[0] += MANY

        return self.for_a_while([job], seconds)

    def timers(self, seconds):
        start = self.gevent.Timeout.start_new

        def job(count):
            while True:
                for _ in range(MANY):
                    timers = [start(10 + n) for n in range(MANY)]
                    for timer in timers:
                        timer.close()
                    count[0] += MANY
                self.gevent.sleep(0)

        return self.for_a_while([job], seconds)

    def sleepers(self, seconds):
        sleep = self.gevent.sleep

        def job(count):
            while True:
                sleep(0.0005)
                count[0] += 1

        return self.for_a_while([job] * 1000, seconds)

    def queue(self, seconds):
        from gevent.queue import Queue

        there, back = Queue(), Queue()

        def one(count):
            while True:
                there.put(1)
                back.get()
                count[0] += 0.5

        def other(count):
            while True:
                back.put(there.get())
                count[0] += 0.5

        return self.for_a_while([one, other], seconds)

    def thread(self, seconds):
        import queue

        from gevent.event import Event

        loop, asked = self.gevent.get_hub().loop, queue.SimpleQueue()

        def answer():
            while (event := asked.get()) is not None:
                loop.run_callback_threadsafe(event.set)

        thread = threading.Thread(target=answer)
        thread.start()

        def job(count):
            while True:
                event = Event()
                asked.put(event)
                event.wait()
                count[0] += 1

        try:
            return self.for_a_while([job] * 4, seconds)
        finally:
            asked.put(None)
            thread.join()

    def echo(self, seconds, size, connections):
        from gevent import socket as gsocket

        listener = gsocket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(connections)
        message = b"x" * size

        def serve(conn):
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := conn.recv(65536):
                conn.sendall(data)

        def accept():
            while True:
                self.gevent.spawn(serve, listener.accept()[0])

        acceptor = self.gevent.spawn(accept)

        def job(count):
            conn = gsocket.create_connection(listener.getsockname())
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                conn.sendall(message)
                left = size
                while left:
                    left -= len(conn.recv(left))
                count[0] += 1

        result = self.for_a_while([job] * connections, seconds)
        acceptor.kill(block=False)
        return result

    def files(self, seconds, folder, cold=False, kind="FileObject"):
        from gevent import fileobject

        cls, paths = getattr(fileobject, kind), file_names(folder)

        def reader(rest):
            for path in rest:
                with cls(path, "rb") as file:
                    if not file.read():
                        raise ValueError("a short read")

        def read_all():
            rest = iter(paths)
            readers = [self.gevent.spawn(reader, rest) for _ in range(READERS)]
            self.gevent.joinall(readers, raise_error=True)

        read_all()
        watch, until = Watch(), now() + seconds
        while not watch.rounds or now() < until:
            if cold:
                forget(paths)
            watch.begin()
            read_all()
            watch.end(len(paths))
        return watch

    def files_cold(self, seconds, folder):
        return self.files(seconds, folder, cold=True)

    def files_pool(self, seconds, folder):
        return self.files(seconds, folder, kind="FileObjectThread")

    def run(self, case, *args):
        return getattr(self, case)(*args)


class Asyncio:
    """The same as one writes it with asyncio: tasks and streams."""

    def __init__(self, policy=None):
        import asyncio

        self.asyncio = asyncio
        self.policy = policy

    async def for_a_while(self, jobs, seconds):
        asyncio = self.asyncio
        counts = [[0] for _ in jobs]
        tasks = [asyncio.ensure_future(job(count)) for job, count in zip(jobs, counts, strict=True)]
        settled = now() + 3
        while not all(c[0] for c in counts[:1] + counts[-1:]) and now() < settled:
            await asyncio.sleep(0.005)
        watch = Watch()
        watch.begin(sum(c[0] for c in counts))
        await asyncio.sleep(seconds)
        watch.end(sum(c[0] for c in counts))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return watch

    async def switch(self, seconds):
        sleep = self.asyncio.sleep

        async def job(count):
            while True:
                await sleep(0)
                count[0] += 1

        return await self.for_a_while([job] * MANY, seconds)

    async def spawn(self, seconds):
        asyncio = self.asyncio

        async def nothing():
            return 0

        async def job(count):
            while True:
                await asyncio.gather(*[asyncio.ensure_future(nothing()) for _ in range(MANY)])
                count[0] += MANY

        return await self.for_a_while([job], seconds)

    async def timers(self, seconds):
        loop = self.asyncio.get_running_loop()

        async def job(count):
            while True:
                for _ in range(MANY):
                    timers = [loop.call_later(10 + n, int) for n in range(MANY)]
                    for timer in timers:
                        timer.cancel()
                    count[0] += MANY
                await self.asyncio.sleep(0)

        return await self.for_a_while([job], seconds)

    async def sleepers(self, seconds):
        sleep = self.asyncio.sleep

        async def job(count):
            while True:
                await sleep(0.0005)
                count[0] += 1

        return await self.for_a_while([job] * 1000, seconds)

    async def queue(self, seconds):
        there, back = self.asyncio.Queue(), self.asyncio.Queue()

        async def one(count):
            while True:
                there.put_nowait(1)
                await back.get()
                count[0] += 0.5

        async def other(count):
            while True:
                back.put_nowait(await there.get())
                count[0] += 0.5

        return await self.for_a_while([one, other], seconds)

    async def thread(self, seconds):
        import queue

        loop, asked = self.asyncio.get_running_loop(), queue.SimpleQueue()

        def answer():
            while (event := asked.get()) is not None:
                loop.call_soon_threadsafe(event.set)

        thread = threading.Thread(target=answer)
        thread.start()

        async def job(count):
            while True:
                event = self.asyncio.Event()
                asked.put(event)
                await event.wait()
                count[0] += 1

        try:
            return await self.for_a_while([job] * 4, seconds)
        finally:
            asked.put(None)
            thread.join()

    async def echo(self, seconds, size, connections):
        asyncio = self.asyncio
        message = b"x" * size

        async def serve(reader, writer):
            try:
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            except (ConnectionError, asyncio.CancelledError):
                pass

        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=connections)
        address = server.sockets[0].getsockname()

        async def job(count):
            reader, writer = await asyncio.open_connection(*address)
            while True:
                writer.write(message)
                await writer.drain()
                await reader.readexactly(size)
                count[0] += 1

        return await self.for_a_while([job] * connections, seconds)

    async def files(self, seconds, folder, cold=False):
        loop, paths = self.asyncio.get_running_loop(), file_names(folder)

        def read(path):
            with open(path, "rb") as file:
                return len(file.read())

        async def reader(rest):
            for path in rest:
                if not await loop.run_in_executor(None, read, path):
                    raise ValueError("a short read")

        async def read_all():
            rest = iter(paths)
            await self.asyncio.gather(*[reader(rest) for _ in range(READERS)])

        await read_all()
        watch, until = Watch(), now() + seconds
        while not watch.rounds or now() < until:
            if cold:
                forget(paths)
            watch.begin()
            await read_all()
            watch.end(len(paths))
        return watch

    async def files_cold(self, seconds, folder):
        return await self.files(seconds, folder, cold=True)

    #: All that asyncio has for files is a pool of threads.
    files_pool = files

    def run(self, case, *args):
        if self.policy is None:
            return self.asyncio.run(getattr(self, case)(*args))
        loop = self.policy()
        self.asyncio.set_event_loop(loop)
        return loop.run_until_complete(getattr(self, case)(*args))


def contestant(kind):
    if kind == "gevent":
        return Gevent()
    if kind == "uvloop":
        import uvloop

        return Asyncio(uvloop.new_event_loop)
    return Asyncio()


def describe(kind):
    """The versions of what *kind* is here."""
    python = "CPython %d.%d.%d" % sys.version_info[:3]
    if kind == "gevent":
        import gevent

        return {"version": gevent.__version__, "python": python}
    if kind == "uvloop":
        import uvloop

        return {"version": uvloop.__version__, "python": python}
    return {"version": python, "python": python}


def answer(kind, who, case, seconds, *details):
    """One case, or what *kind* is if the case is ``describe``."""
    if case != "describe":
        watch = who.run(case, seconds, *details)
        return {"rounds": watch.rounds, "wall": watch.wall, "cpu": watch.cpu}
    about = describe(kind)
    if kind == "gevent":
        about["backend"] = str(getattr(who.gevent.get_hub().loop, "backend", ""))
    return about


def main(kind):
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ImportError, ValueError):
        pass
    who = contestant(kind)
    for line in sys.stdin:
        try:
            result = answer(kind, who, *json.loads(line))
        except Exception as ex:
            result = {"error": "%s: %s" % (type(ex).__name__, ex)}
        print(json.dumps(result), flush=True)
    # What still runs need not be ended in order.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
