"""Copies and pickles of timeouts and locks."""

import copy
import pickle

import pytest

import gevent
from gevent.lock import RLock


class Own(gevent.Timeout):
    def __init__(self):
        super().__init__(7, ValueError)
        self.more = [1]


def test_a_copied_timeout():
    one = gevent.Timeout(3, KeyError)
    two = copy.copy(one)
    assert type(two) is gevent.Timeout and (two.seconds, two.exception) == (3, KeyError)
    assert str(two) == str(one)
    text = copy.copy(gevent.Timeout(3, "text"))
    assert text.exception == "text"
    assert copy.copy(gevent.Timeout()).seconds is None


def test_a_copy_does_not_run_and_can():
    with gevent.Timeout(1000) as one:
        two = copy.copy(one)
        assert not two.pending or two.timer is one.timer
    two = copy.copy(gevent.Timeout(0.001))
    with pytest.raises(gevent.Timeout) as caught, two:
        gevent.sleep(1000)
    assert caught.value is two


def test_a_copy_of_a_subclass():
    one = Own()
    two = copy.copy(one)
    assert type(two) is Own and (two.seconds, two.exception) == (7, ValueError)
    assert two.more is one.more


@pytest.mark.ours
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_timeout(protocol):
    for one in (gevent.Timeout(3, KeyError), Own(), gevent.Timeout(0.5, False)):
        two = pickle.loads(pickle.dumps(one, protocol))
        assert type(two) is type(one) and vars(two) == vars(one)
        assert (two.seconds, two.exception) == (one.seconds, one.exception)
        assert not two.pending
    assert copy.deepcopy(Own()).more == [1]


def test_a_copied_rlock():
    one = RLock()
    one.acquire()
    one.acquire()
    two = copy.copy(one)
    assert type(two) is RLock and (two._count, two._owner) == (2, gevent.getcurrent())
    assert two._block is one._block
    two.release()
    assert (one._count, two._count) == (2, 1)
    two.release()
    # The semaphore is one.
    assert two._owner is None and two._block.counter == 1
    free = copy.copy(RLock())
    with free:
        assert free._count == 1


@pytest.mark.ours
def test_a_copied_rlock_of_a_subclass():
    class Named(RLock):
        pass

    one = Named()
    one.name = "name"
    two = copy.copy(one)
    assert type(two) is Named and two.name == "name"
    two.name = "other"
    assert one.name == "name"


def test_locks_are_not_pickled():
    with pytest.raises(TypeError):
        pickle.dumps(RLock())
