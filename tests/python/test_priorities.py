"""What is ready and what is due in the same turn of the loop: readiness goes before a `Timeout`.

The hub is held up past the deadlines with a real sleep, so that both are found at once.
"""

import time

import gevent
from gevent import event, queue, socket

#: Far longer than a loaded machine keeps this process waiting between two lines.
HELD_UP = 0.5


def outcome(function):
    def body():
        try:
            with gevent.Timeout(HELD_UP / 2):
                return function()
        except gevent.Timeout:
            return "timeout"

    return gevent.spawn(body)


def hold_up():
    time.sleep(HELD_UP)


def test_data_that_arrived_goes_before_a_timeout_that_is_due():
    near, far = socket.socketpair()
    with near, far:
        reader = outcome(lambda: far.recv(10))
        gevent.sleep(0)
        near.send(b"x")
        hold_up()
        assert reader.get(timeout=30) == b"x"


def test_a_sleep_that_is_over_goes_before_a_timeout_that_was_due_earlier():
    sleeper = outcome(lambda: gevent.sleep(HELD_UP * 0.6) or "slept")
    gevent.sleep(0)
    hold_up()
    assert sleeper.get(timeout=30) == "slept"


def test_a_timeout_goes_before_what_is_only_set_in_the_same_turn():
    done = event.Event()
    waiter = gevent.spawn(done.wait, HELD_UP / 2)
    gevent.sleep(0)
    gevent.spawn_later(HELD_UP * 0.4, done.set)
    hold_up()
    assert waiter.get(timeout=30) is False


def test_sleepers_wake_in_the_order_of_their_deadlines():
    log = []

    def sleeper(seconds):
        gevent.sleep(seconds)
        log.append(seconds)

    seconds = [0.03, 0.01, 0.02, 0.01]
    sleepers = [gevent.spawn(sleeper, s) for s in seconds]
    gevent.sleep(0)
    hold_up()
    gevent.joinall(sleepers, timeout=30)
    assert log == sorted(seconds)


def test_a_killer_goes_on_as_soon_as_its_victim_is_dead():
    log = []
    items = queue.Queue()

    def victim():
        try:
            items.get()
        finally:
            log.append("victim")

    def killer(parked):
        gevent.sleep(0)
        parked.kill()
        log.append("killer")

    def bystander():
        gevent.sleep(0)
        gevent.sleep(0)
        log.append("bystander")

    parked = gevent.spawn(victim)
    all_three = [gevent.spawn(killer, parked), parked, gevent.spawn(bystander)]
    gevent.joinall(all_three, timeout=30)
    assert log == ["victim", "killer", "bystander"]


def test_data_that_arrived_goes_before_the_sockets_own_timeout():
    near, far = socket.socketpair()
    with near, far:
        far.settimeout(HELD_UP / 2)
        reader = gevent.spawn(far.recv, 10)
        gevent.sleep(0)
        near.send(b"x")
        hold_up()
        assert reader.get(timeout=30) == b"x"


def test_limits_of_different_waits_end_in_the_order_in_which_they_began():
    log = []

    def wait(name, function):
        function()
        log.append(name)

    never = gevent.spawn(event.Event().wait)
    waits = [
        gevent.spawn(wait, "event", lambda: event.Event().wait(0)),
        gevent.spawn(wait, "join", lambda: never.join(0)),
        gevent.spawn(wait, "timeout", lambda: gevent.with_timeout(0, never.get, timeout_value=0)),
        gevent.spawn(wait, "wait", lambda: gevent.wait([never], timeout=0)),
    ]
    gevent.joinall(waits, timeout=30)
    never.kill()
    assert log == ["event", "join", "timeout", "wait"]


def test_links_added_by_whom_a_greenlet_woke_are_called_before_anything_else():
    log = []
    over = gevent.spawn(lambda: log.append("over"))
    gevent.joinall([over])
    others = [gevent.spawn(log.append, "other") for _ in range(2)]
    for first in gevent.iwait([*others, over], count=1):
        assert first is over
    assert log == ["over"]
    gevent.joinall(others)


def test_waiting_for_what_is_ready_lets_the_others_run_first():
    log = []
    over = gevent.spawn(lambda: None)
    gevent.sleep(0)
    gevent.sleep(0)
    other = gevent.spawn(log.append, "other")
    assert gevent.wait([over], count=1) == [over]
    assert log == ["other"]
    other.join()
