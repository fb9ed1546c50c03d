import subprocess as _subprocess
from collections.abc import Callable
from subprocess import (
    DEVNULL as DEVNULL,
    PIPE as PIPE,
    STDOUT as STDOUT,
    CalledProcessError as CalledProcessError,
    CompletedProcess as CompletedProcess,
    SubprocessError as SubprocessError,
    TimeoutExpired as TimeoutExpired,
    call as call,
    check_call as check_call,
    check_output as check_output,
    getoutput as getoutput,
    getstatusoutput as getstatusoutput,
    list2cmdline as list2cmdline,
    run as run,
)
from typing import AnyStr

from gevent.event import AsyncResult
from typing_extensions import Self

class Popen(_subprocess.Popen[AnyStr]):
    result: AsyncResult[int]
    def rawlink(self, callback: Callable[[Self], object]) -> None: ...
