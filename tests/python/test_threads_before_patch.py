"""Threads, and what makes threads, that were there before the patch: they start, end and are joined
after it. In processes of their own."""

import pytest
from scripts import lines_of, run

PATCH = """
import warnings
warnings.simplefilter("ignore")
from gevent import monkey
monkey.patch_all()
import gevent
"""

MADE = {
    "a thread": """
import threading
thread = threading.Thread(target=print, args=("ran",))
""",
    "one of a subclass": """
import threading
class Own(threading.Thread):
    def run(self):
        print("ran")
thread = Own()
""",
    "a timer": """
import threading
thread = threading.Timer(0.01, print, ("ran",))
""",
    "a daemon": """
import threading
thread = threading.Thread(target=print, args=("ran",), daemon=True)
""",
}

LATER = {
    "joined": ("thread.start(); thread.join(); print(thread.is_alive())", ["ran", "False"]),
    "joined in time": (
        "thread.start(); thread.join(60); print(thread.is_alive())",
        ["ran", "False"],
    ),
    "joined by a greenlet": (
        "thread.start(); gevent.spawn(thread.join).join(); print(thread.is_alive())",
        ["ran", "False"],
    ),
    "listed": (
        "thread.start(); thread.join(); print(thread in threading.enumerate())",
        ["ran", "False"],
    ),
}


@pytest.mark.ours
@pytest.mark.parametrize("how", LATER)
@pytest.mark.parametrize("what", MADE)
def test_made_before_and_started_after(what, how):
    code, lines = LATER[how]
    assert lines_of(MADE[what] + PATCH + code) == lines


def test_the_end_of_the_program_waits_for_it():
    assert lines_of(MADE["a thread"] + PATCH + "thread.start()") == ["ran"]
    assert lines_of(MADE["a timer"] + PATCH + "thread.start(); print('end')") == ["end", "ran"]


@pytest.mark.ours
def test_a_timer_that_is_cancelled():
    code = "thread.start(); thread.cancel(); thread.join(); print('joined')"
    made = MADE["a timer"].replace("0.01", "1000")
    assert lines_of(made + PATCH + code) == ["joined"]


@pytest.mark.ours
def test_it_fails():
    done = run(
        MADE["a thread"]
        + PATCH
        + "thread._target = int; thread._args = 'x'\n"
        + """
thread.start()
thread.join()
print(thread.is_alive())
"""
    )
    assert (done.code, done.lines) == (0, ["False"]) and "ValueError" in done.err


@pytest.mark.ours
def test_in_a_forked_child():
    code = """
import os
child = os.fork()
if not child:
    thread.start()
    thread.join()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    made = MADE["a thread"].replace("print", "str")
    assert lines_of(made + PATCH + code) == ["7"]


@pytest.mark.ours
def test_a_subclass_that_was_defined_before():
    code = "two = Own(); two.start(); two.join(); print(two.is_alive())"
    assert lines_of(MADE["one of a subclass"] + PATCH + code) == ["ran", "False"]


@pytest.mark.ours
def test_one_that_runs():
    made = """
import threading
go, going = threading.Event(), threading.Event()
def target():
    going.set()
    go.wait()
    print("ran")
thread = threading.Thread(target=target)
thread.start()
going.wait()
"""
    code = """
print(thread.is_alive(), thread in threading.enumerate())
go.set()
thread.join()
print(thread.is_alive(), thread in threading.enumerate())
"""
    assert lines_of(made + PATCH + code) == ["True True", "ran", "False False"]


EXECUTORS = {
    "unused": "executor = futures.ThreadPoolExecutor(2)",
    "of a subclass": """
class Own(futures.ThreadPoolExecutor):
    pass
executor = Own(2)
""",
    "used": """
executor = futures.ThreadPoolExecutor(2)
executor.submit(pow, 2, 3).result()
""",
    "busy": """
import threading
go = threading.Event()
executor = futures.ThreadPoolExecutor(4)
executor.submit(go.wait)
""",
}


@pytest.mark.ours
@pytest.mark.parametrize("end", ["executor.shutdown()", "pass"])
@pytest.mark.parametrize("kind", EXECUTORS)
def test_executors(kind, end):
    code = f"""
if "go" in globals():
    gevent.spawn_later(0.01, go.set)
print(list(executor.map(abs, [-1, 2, -3])), executor.submit(pow, 2, 3).result())
{end}
print("end")
"""
    made = "import concurrent.futures as futures\n" + EXECUTORS[kind]
    assert lines_of(made + PATCH + code) == ["[1, 2, 3] 8", "end"]


@pytest.mark.ours
@pytest.mark.parametrize(
    "made, used",
    [
        ("q = mp.Queue()", "q.put(2); print(q.get()); q.close(); q.join_thread()"),
        (
            "q = mp.Queue(); q.put(2)",
            "q.put(3); print(q.get()); q.get(); q.close(); q.join_thread()",
        ),
        ("q = mp.JoinableQueue()", "q.put(2); print(q.get()); q.task_done(); q.join()"),
        ("pool = mp.Pool(1)", "print(pool.map(abs, [-2])[0]); pool.close(); pool.join()"),
        (
            "import multiprocessing.pool as mpp; pool = mpp.ThreadPool(1)",
            "print(pool.map(abs, [-2])[0])",
        ),
        ("m = mp.Manager(); d = m.dict()", "d[1] = 2; print(d[1]); m.shutdown()"),
        ("p = mp.Process(target=print, args=(2,))", "p.start(); p.join()"),
        (
            "from concurrent.futures import *; e = ProcessPoolExecutor(1); e.submit(abs, 0)",
            "print(e.submit(abs, -2).result()); e.shutdown()",
        ),
    ],
)
def test_multiprocessing(made, used):
    # Not `spawn`, whose children import the main program, which is none here.
    start = "import multiprocessing as mp\nmp.set_start_method('fork')\n"
    assert lines_of(start + made + PATCH + used) == ["2"]


@pytest.mark.ours
def test_a_warning_names_them():
    code = """
import threading
go = threading.Event()
running = threading.Thread(target=go.wait, name="one that runs")
running.start()
ended = threading.Thread(target=int, name="one that has ended")
ended.start()
ended.join()
made = threading.Timer(1, int)
made.name = "one for later"
import warnings
from gevent import monkey
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    monkey.patch_all()
    go.set()
    monkey.patch_all()
texts = [str(w.message) for w in caught if w.category is monkey.MonkeyPatchWarning]
[text] = [text for text in texts if "one that runs" in text]
print("one that runs (running)" in text, "one for later (not started)" in text)
print("ended" in text, "MainThread" in text)
"""
    assert lines_of(code) == ["True True", "False False"]


@pytest.mark.ours
def test_no_warning_without_them():
    code = "import threading, warnings; warnings.simplefilter('error')\n"
    patch = "from gevent import monkey; monkey.patch_all(); monkey.patch_all(); print('patched')"
    assert lines_of(code + patch) == ["patched"]


@pytest.mark.ours
def test_two_threads_make_their_hubs_at_once():
    code = (
        PATCH
        + """
import sys
from importlib.machinery import PathFinder
start, lock = (monkey.get_original("_thread", n) for n in ("start_new_thread", "allocate_lock"))
got, go, made = lock(), lock(), []
got.acquire(); go.acquire()
# What a hub imports when it is made is just being imported by another thread.
def find_spec(name, path=None, target=None):
    if name != "pprint":
        return None
    spec = PathFinder.find_spec(name)
    class Slow(type(spec.loader)):
        def exec_module(self, module):
            got.release()
            go.acquire()
            super().exec_module(module)
    spec.loader = Slow(name, spec.origin)
    return spec
class Finder:
    find_spec = staticmethod(find_spec)
sys.modules.pop("pprint", None)
sys.meta_path.insert(0, Finder)
def other():
    import pprint
start(other, ())
got.acquire()
def release():
    # Once the main thread waits for the import.
    while not any(frame.f_code.co_name == "acquire" and "importlib" in frame.f_code.co_filename
                  for frame in frames()):
        pass
    go.release()
def frames():
    frame = sys._current_frames().get(main)
    while frame is not None:
        yield frame
        frame = frame.f_back
main = monkey.get_original("_thread", "get_ident")()
start(release, ())
gevent.sleep(0)
print("made")
"""
    )
    assert lines_of(code) == ["made"]
