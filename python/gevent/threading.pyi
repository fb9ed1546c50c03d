import threading as _threading

from gevent.local import local as local
from gevent.lock import RLock as RLock
from gevent.thread import (
    allocate_lock as allocate_lock,
    get_ident as get_ident,
    start_new_thread as start_new_thread,
)
from greenlet import getcurrent as getcurrent

class Thread(_threading.Thread): ...
class Timer(Thread, _threading.Timer): ...

def main_native_thread() -> _threading.Thread: ...
