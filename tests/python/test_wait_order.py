"""When a wait for greenlets that are over returns, among everything else that is due."""

import weakref

import gevent
from gevent import get_hub


def ended(count):
    greenlets = [gevent.spawn(int) for _ in range(count)]
    gevent.sleep(0)
    assert all(greenlet.dead for greenlet in greenlets)
    return greenlets


class TestWaitsForTheFinished:
    def test_it_gives_way_to_what_is_queued_once(self):
        log = []
        one = ended(1)
        get_hub().loop.run_callback(log.append, "before")
        gevent.spawn(lambda: (gevent.wait(one), log.append("waited")))
        gevent.sleep(0)
        gevent.sleep(0)
        assert log == ["before", "waited"]

    def test_the_next_wait_goes_on_with_the_same_notice(self):
        log = []
        two = ended(2)

        def waits():
            for number in range(3):
                get_hub().loop.run_callback(log.append, f"callback {number}")
                gevent.wait(two, count=1)
                log.append(f"waited {number}")

        gevent.spawn(waits).join()
        gevent.sleep(0)
        waits = [f"waited {n}" for n in range(3)]
        assert log == ["callback 0", *waits, "callback 1", "callback 2"]

    def test_the_same_for_one_that_ended_while_it_was_waited_for(self):
        log = []
        one = gevent.spawn(gevent.sleep, 0)

        def waits():
            for number in range(3):
                gevent.wait([one])
                log.append(f"waited {number}")

        waiting = gevent.spawn(waits)
        gevent.sleep(0)
        gevent.spawn(log.append, "other")
        waiting.join()
        gevent.sleep(0)
        assert log == ["other", "waited 0", "waited 1", "waited 2"]

    def test_a_link_of_the_finished_comes_after_the_waiters_that_were_there(self):
        log = []
        one = gevent.spawn(gevent.sleep, 0)

        def waits():
            gevent.wait([one])
            log.append("waited")
            get_hub().loop.run_callback(log.append, "callback")
            one.rawlink(lambda _: log.append("linked"))
            gevent.wait([one])
            log.append("again")

        gevent.spawn(waits).join()
        gevent.sleep(0)
        assert log == ["waited", "linked", "again", "callback"]

    def test_waiters_of_one_notice_go_on_in_the_order_in_which_they_came(self):
        log = []
        three = ended(3)

        def waits(name, greenlets):
            gevent.wait(greenlets, count=1)
            log.append(name)

        gevent.spawn(waits, "first", three[:1])
        # The second asks first for one that has ended later in the list.
        gevent.spawn(waits, "second", [three[2], three[0]])
        gevent.spawn(waits, "third", [three[0]])
        gevent.sleep(0)
        gevent.sleep(0)
        assert log == ["first", "second", "third"]

    def test_an_end_is_not_heard_of_before_an_earlier_notice(self):
        log = []
        dead = ended(1)

        def waits(name, greenlets):
            gevent.wait(greenlets, count=1)
            log.append(name)

        last = gevent.Greenlet(int)
        gevent.spawn(waits, "both", [*dead, last])
        gevent.spawn(waits, "one", dead)
        last.start()
        gevent.sleep(0)
        gevent.sleep(0)
        assert log == ["both", "one"]

    def test_iwait_yields_each_in_its_turn(self):
        log = []
        three = ended(3)

        def waits():
            for one in gevent.iwait(three):
                log.append(three.index(one))

        gevent.spawn(waits)
        gevent.sleep(0)
        get_hub().loop.run_callback(log.append, "callback")
        gevent.sleep(0)
        assert log == [0, 1, 2, "callback"]

    def test_a_wait_that_timed_out_leaves_nothing(self):
        one = ended(1)[0]
        parked = gevent.spawn(gevent.sleep, 10)
        assert gevent.wait([parked, one], timeout=0.001) == [one]
        assert gevent.wait([parked], timeout=0.001) == []
        assert not parked.has_links()
        assert gevent.wait([one]) == [one]
        parked.kill()
        assert gevent.wait([parked, one]) in ([parked, one], [one, parked])


def test_a_wait_for_what_has_ended_untold_goes_before_what_is_queued_later():
    log = []

    def waits():
        gevent.sleep(0)
        gevent.wait([greenlet for greenlet in waiters if greenlet is not last], count=1)
        log.append("waited")

    def spawns():
        gevent.sleep(0)
        gevent.spawn_raw(log.append, "raw")

    # What the first two wait for is over by the end of the third; other ends wake nobody.
    waiters = [gevent.spawn(lambda n=n: gevent.wait(others(n), count=1)) for n in (0, 1)]

    def others(n):
        return [greenlet for greenlet in waiters if greenlet is not waiters[n]]

    waiters += [gevent.spawn(lambda: None), gevent.spawn(spawns)]
    last = gevent.spawn(waits)
    waiters.append(last)
    gevent.joinall(waiters)
    gevent.sleep(0)
    assert log == ["waited", "raw"]


def test_the_hub_has_a_greenlet_in_its_hands_while_those_who_joined_it_go_on():
    greenlet = gevent.spawn(lambda: None)
    other = gevent.spawn(lambda: None)
    alive = weakref.ref(greenlet)
    greenlet.join()
    del greenlet
    assert alive() is not None
    other.join()
    gevent.sleep(0)
    assert alive() is None
