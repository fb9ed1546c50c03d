"""What goes wrong with a WebSocket, seen from the application."""

__all__ = ["FrameTooLargeException", "ProtocolError", "WebSocketError"]


class WebSocketError(OSError):
    """The connection is closed, or broke."""


class ProtocolError(WebSocketError):
    """The other side, or the caller, does not keep to the protocol."""


class FrameTooLargeException(ProtocolError):
    """A message that is bigger than allowed."""
