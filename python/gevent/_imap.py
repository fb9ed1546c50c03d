"""The iterators behind ``imap`` and ``imap_unordered`` of groups and pools."""

from gevent import Greenlet, GreenletExit
from gevent._core import ImapSink
from gevent.lock import Semaphore
from gevent.queue import UnboundQueue

__all__ = [
    "IMap",
    "IMapUnordered",
]


class Failure:
    """What goes through the queue in place of a result: an exception to raise in the reader."""

    __slots__ = ("exc", "raise_exception")

    def __init__(self, exc, raise_exception=None):
        self.exc = exc
        self.raise_exception = raise_exception


def _raise_exc(failure):
    if failure.raise_exception:
        # Keeps the traceback of the greenlet that failed.
        failure.raise_exception()
    raise failure.exc


class IMapUnordered(Greenlet):
    """A greenlet that spawns a task for each item, and an iterator over results as they come."""

    _ordered = False

    def __init__(self, func, iterable, spawn, maxsize=None, _zipped=False):
        """*spawn* is called with *func* and an item, or with *_zipped* the elements of the item.

        With *maxsize*, a task is only spawned while no more than that many results are unread.
        """
        super().__init__()
        self.spawn = spawn
        self._zipped = _zipped
        self.func = func
        self.iterable = iterable
        self.queue = UnboundQueue()
        # Not a bound of the queue: a task whose result does not fit would still keep it in
        # memory, and another task would be spawned in its place.
        self._result_semaphore = Semaphore(maxsize) if maxsize else None
        #: The index of the last task that was spawned.
        self._max_index = -1
        self.finished = False

    def __iter__(self):
        return self

    def __next__(self):
        if self._result_semaphore is not None:
            self._result_semaphore.release()
        value = self._inext()
        if isinstance(value, Failure):
            _raise_exc(value)
        return value

    next = __next__

    def _inext(self):
        return self.queue.get()

    def _run(self):
        # It has a reference to this object, which so is there as long as there are tasks.
        sink = ImapSink(self, self.queue, self._ordered)
        try:
            func, spawn, zipped = self.func, self.spawn, self._zipped
            semaphore, expect = self._result_semaphore, sink.expect
            for item in self.iterable:
                self._max_index += 1
                if semaphore is not None:
                    semaphore.acquire()
                expect(spawn(func, *item) if zipped else spawn(func, item), self._max_index)
            self._on_finish(None, sink.outstanding)
        except BaseException as ex:
            self._on_finish(ex, sink.outstanding)
            raise
        finally:
            self.spawn = self.func = self.iterable = self._result_semaphore = None

    def _report_error(self, exc_info):
        super()._report_error(exc_info)
        if not self.finished:
            # It ended before it ran, and nothing was spawned.
            if isinstance(exc_info[1], GreenletExit):
                self._finish(self._iqueue_value_for_self_finished())
            else:
                self._finish(self._iqueue_value_for_self_failure(exc_info[1]))

    def _on_result(self, greenlet):
        """In the hub: a task has ended, otherwise than with a value, or it is no plain greenlet."""
        if greenlet.successful():
            self.queue.put(self._iqueue_value_for_success(greenlet))
        else:
            self.queue.put(self._iqueue_value_for_failure(greenlet))

    def _on_last_result(self):
        """In the hub: the result of the last task is in the queue, and there will be no others."""
        if not self.finished:
            self._finish(self._iqueue_value_for_self_finished())

    def _on_finish(self, exception, outstanding):
        """In this greenlet: everything has been spawned, or *exception* stopped that."""
        if self.finished:
            return
        if exception is not None:
            self._finish(self._iqueue_value_for_self_failure(exception))
        elif outstanding <= 0:
            self._finish(self._iqueue_value_for_self_finished())

    def _finish(self, last_value):
        self.finished = True
        self.queue.put(last_value)

    def _iqueue_value_for_success(self, greenlet):
        return greenlet.value

    def _iqueue_value_for_failure(self, greenlet):
        return Failure(greenlet.exception, greenlet._raise_exception)

    def _iqueue_value_for_self_finished(self):
        return Failure(StopIteration())

    def _iqueue_value_for_self_failure(self, exception):
        return Failure(exception, self._raise_exception)


class IMap(IMapUnordered):
    """Returns the results in the order of the items. The queue's values are (index, result)."""

    _ordered = True

    def __init__(self, *args, **kwargs):
        #: Results that came before their turn, by index.
        self._results = {}
        #: The index of the next result.
        self.index = 0
        super().__init__(*args, **kwargs)

    def _inext(self):
        results = self._results
        while self.index not in results:
            index, value = self.queue.get()
            results[index] = value
        self.index += 1
        return results.pop(self.index - 1)

    def _iqueue_value_for_success(self, greenlet):
        return (greenlet._imap_task_index, super()._iqueue_value_for_success(greenlet))

    def _iqueue_value_for_failure(self, greenlet):
        return (greenlet._imap_task_index, super()._iqueue_value_for_failure(greenlet))

    def _iqueue_value_for_self_finished(self):
        return (self._max_index + 1, super()._iqueue_value_for_self_finished())

    def _iqueue_value_for_self_failure(self, exception):
        return (self._max_index + 1, super()._iqueue_value_for_self_failure(exception))
