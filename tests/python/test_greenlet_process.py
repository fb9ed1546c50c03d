"""Threads that end, forks and the end of the interpreter, each seen from outside."""

import os

import pytest
import scripts

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def run(source, *, status=0, stderr=""):
    """Runs a script; returns the words of its output."""
    done = scripts.run(source, timeout=60)
    assert done.code == status, done.err
    if stderr is not None:
        assert done.err == stderr
    return done.out.split()


def test_the_end_of_the_process_with_parked_greenlets():
    out = run(
        """
        import atexit, gc, greenlet, threading

        class Noisy:
            def __del__(self):
                greenlet.getcurrent

        def park():
            keep = Noisy()
            try:
                greenlet.getcurrent().parent.switch(keep)
            finally:
                print('finally')

        parked = greenlet.greenlet(park)
        parked.switch()
        cyclic = greenlet.greenlet(park)
        cyclic.me = cyclic
        cyclic.switch()
        late = greenlet.greenlet(lambda: print('in atexit'))

        def thread():
            global of_thread
            of_thread = greenlet.greenlet(park)
            of_thread.switch()

        t = threading.Thread(target=thread)
        t.start()
        t.join()
        atexit.register(late.switch)
        print('end')
        """
    )
    assert out[:3] == ["end", "in", "atexit"]


def test_getcurrent_at_the_very_end():
    out = run(
        """
        import greenlet, sys

        class Last:
            def __del__(self, getcurrent=greenlet.getcurrent, print=print):
                try:
                    getcurrent()
                except RuntimeError as error:
                    print(str(error).replace(' ', '-'))
                else:
                    print('still-there')

        greenlet.getcurrent()
        sys.last = Last()
        """
    )
    assert out in (["greenlet-is-being-finalized"], ["still-there"], [])


def test_a_daemon_thread_in_a_greenlet_at_the_end():
    run(
        """
        import greenlet, threading, time

        started = threading.Event()

        def work():
            started.set()
            while True:
                time.sleep(0.001)

        threading.Thread(target=lambda: greenlet.greenlet(work).switch(), daemon=True).start()
        started.wait()
        """,
        stderr=None,
    )


def test_exit_in_a_greenlet():
    run(
        """
        import greenlet, sys
        greenlet.greenlet(lambda: greenlet.greenlet(sys.exit).switch(7)).switch()
        """,
        status=7,
    )


def test_no_finally_runs_for_an_ended_thread():
    out = run(
        """
        import gc, greenlet, threading

        def park():
            try:
                greenlet.getcurrent().parent.switch()
            finally:
                print('finally')

        kept = []

        def thread():
            kept.append(greenlet.greenlet(park))
            kept[0].switch()

        t = threading.Thread(target=thread)
        t.start()
        t.join()
        print(kept[0].dead)
        del kept[:]
        gc.collect()
        """
    )
    assert out == ["True"]


def test_a_greenlet_dropped_elsewhere_ends_in_its_thread():
    out = run(
        """
        import greenlet, threading

        ident = threading.get_ident
        box, ready, dropped = [], threading.Event(), threading.Event()

        def park():
            try:
                greenlet.getcurrent().parent.switch()
            finally:
                print('same' if ident() == home else 'other')

        def thread():
            global home
            home = ident()
            box.append(greenlet.greenlet(park))
            box[0].switch()
            ready.set()
            dropped.wait()
            greenlet.getcurrent()
            print('after')

        t = threading.Thread(target=thread)
        t.start()
        ready.wait()
        del box[:]
        print('dropped')
        dropped.set()
        t.join()
        """
    )
    assert out == ["dropped", "same", "after"]


def test_main_greenlets_are_freed_with_their_threads():
    out = run(
        """
        import gc, greenlet, threading
        from greenlet._greenlet import get_total_main_greenlets as mains

        greenlet.getcurrent()
        before = mains()

        def thread():
            g = greenlet.greenlet(lambda: greenlet.getcurrent().parent.switch())
            g.switch()
            greenlet.greenlet(lambda: None).switch()

        for _ in range(20):
            t = threading.Thread(target=thread)
            t.start()
            t.join()
        gc.collect()
        print(mains() - before)
        """
    )
    assert out == ["0"]


@needs_fork
def test_fork_in_a_greenlet():
    out = run(
        """
        import greenlet, os, sys, warnings

        main = greenlet.getcurrent()

        def work():
            child = os.fork()
            main.switch(child)
            return child

        g = greenlet.greenlet(work)
        child = g.switch()
        again = g.switch()
        assert child == again and g.dead
        if child == 0:
            print('child', flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print('parent')
        """
    )
    assert out == ["child", "parent"]


@pytest.mark.ours
@needs_fork
def test_fork_ends_the_greenlets_of_other_threads():
    out = run(
        """
        import gc, greenlet, os, threading, warnings

        warnings.simplefilter('ignore')
        box, ready, done = {}, threading.Event(), threading.Event()

        def park():
            try:
                greenlet.getcurrent().parent.switch()
            finally:
                print('never')

        def thread():
            box['main'] = greenlet.getcurrent()
            box['parked'] = greenlet.greenlet(park)
            box['parked'].switch()
            ready.set()
            done.wait()
            os._exit(0)

        t = threading.Thread(target=thread)
        t.start()
        ready.wait()
        child = os.fork()
        if child == 0:
            for g in box.values():
                try:
                    g.switch()
                except greenlet.error as error:
                    print('exited' in str(error), g.dead)
            del g, box['parked']
            gc.collect()
            print(greenlet.greenlet(lambda: 'works').switch(), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        done.set()
        """,
        stderr=None,
    )
    assert out == ["True", "True", "True", "True", "works"]


def test_foreign_threads_have_a_state_for_each_call():
    out = run(
        """
        import ctypes, greenlet

        seen = []

        @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
        def callback(_):
            here = greenlet.getcurrent()
            g = greenlet.greenlet(lambda: here.switch(1) or 2)
            seen.append((here.parent, g.switch(), g.switch()))
            return 0

        libc = ctypes.CDLL(None)
        for _ in range(20):
            thread = ctypes.c_ulong()
            assert libc.pthread_create(ctypes.byref(thread), None, callback, None) == 0
            assert libc.pthread_join(thread, None) == 0
        print(seen == [(None, 1, 2)] * 20)
        """
    )
    assert out == ["True"]


def test_callbacks_from_c_park_and_end_in_any_order():
    out = run(
        """
        import ctypes, greenlet

        main = greenlet.getcurrent()
        TYPE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)

        def work(i):
            return TYPE(lambda n: main.switch(n) or 2 * n)(i)

        many = [greenlet.greenlet(work) for _ in range(10)]
        print(*[g.switch(i) for i, g in enumerate(many)])
        print(*[many[i].switch() for i in (3, 1, 9, 0, 2, 4, 8, 5, 7, 6)])
        """
    )
    assert out[:10] == [str(i) for i in range(10)]
    assert out[10:] == [str(2 * i) for i in (3, 1, 9, 0, 2, 4, 8, 5, 7, 6)]


def test_an_exception_nobody_catches_leaves_with_its_traceback():
    done = scripts.run("import greenlet\ndef f(): 1/0\ngreenlet.greenlet(f).switch()")
    assert done.code == 1
    assert "in f" in done.err
    assert "ZeroDivisionError" in done.err
