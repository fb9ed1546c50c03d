"""The modules of the gevent-websocket package, stood in for by ours."""

import importlib.util
import sys
import types

__all__ = ["install_as_geventwebsocket"]

#: Module -> the names in it.
_MODULES = {
    "geventwebsocket": ["WebSocketApplication", "Resource", "WebSocketServer", "WebSocketError"],
    "geventwebsocket.exceptions": ["WebSocketError", "ProtocolError", "FrameTooLargeException"],
    "geventwebsocket.handler": ["Client", "WebSocketHandler", "WebSocket", "Stream"],
    "geventwebsocket.resource": ["Resource", "WebSocketApplication"],
    "geventwebsocket.server": ["WebSocketServer", "WebSocketHandler"],
    "geventwebsocket.websocket": [
        "WebSocket",
        "Stream",
        "WebSocketError",
        "ProtocolError",
        "MSG_ALREADY_CLOSED",
        "MSG_CLOSED",
        "MSG_SOCKET_DEAD",
    ],
}


def install_as_geventwebsocket(force=False):
    """Make ``import geventwebsocket`` find this package, for programs that look for that one.

    Flask-SocketIO and python-engineio do in their ``gevent`` mode; call this before they are
    imported. Where the real package is installed it is left alone, unless *force* is true. Says
    whether ours is in place.
    """
    import gevent.websocket as ours

    present = sys.modules.get("geventwebsocket")
    if present is not None and not force:
        return getattr(present, "__gevent__", False)
    if not force and importlib.util.find_spec("geventwebsocket") is not None:
        return False
    for name, names in _MODULES.items():
        module = types.ModuleType(name, "Stood in for by gevent.websocket.")
        module.__gevent__ = True
        module.__path__ = []
        for each in names:
            setattr(module, each, getattr(ours, each))
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    sys.modules["geventwebsocket"].get_version = lambda *args: "0.10.1"
    return True
