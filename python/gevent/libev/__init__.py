"""Names of upstream's libev package. There is no libev here: the loop is native."""

__all__ = []
