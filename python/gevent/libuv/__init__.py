"""Names of upstream's libuv package. There is no libuv here: the loop is native."""

__all__ = []
