from gevent import sleep as sleep

__all__ = ["sleep"]
