from signal import getsignal as getsignal, set_wakeup_fd as set_wakeup_fd, signal as signal

__all__ = ["getsignal", "set_wakeup_fd", "signal"]
