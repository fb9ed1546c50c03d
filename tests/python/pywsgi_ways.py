"""The two ways in which gevent.pywsgi serves: by its own handler class, and by another one."""

from gevent import pywsgi


class Subclass(pywsgi.WSGIHandler):
    """Overrides something, so that the server has to call every method of the handler."""

    def get_environ(self):
        return super().get_environ()


WAYS = {"stock": {}, "subclass": {"handler_class": Subclass}}
