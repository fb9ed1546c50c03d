"""Dictionaries for the environ of a request; the secure ones keep secrets out of logs."""

__all__ = ["Environ", "SecureEnviron", "WSGISecureEnviron"]


class Environ(dict):
    """A dict that an application may take for the environ, and that pickles as a plain dict."""

    __slots__ = ()

    def iteritems(self):
        return self.items()

    def __reduce_ex__(self, proto):
        # A dict, whatever the protocol: pickles outlive the server's choice of class.
        return (dict, (), None, None, iter(self.items()))

    def copy(self):
        return self.__class__(self)


class SecureEnviron(Environ):
    """An environ whose ``repr`` does not tell what is in it.

    Cookies and credentials stand in an environ, and error logs print it. Each of the three
    settings can be made on an instance (without the ``default_``) or for a class.
    """

    #: Whether the ``repr`` hides values at all.
    default_secure_repr = True

    #: Keys whose values are shown. Without any, not even keys are.
    default_whitelist_keys = ()

    #: Whether hidden values are printed as masks (or else only counted).
    default_print_masked_keys = True

    __slots__ = ("secure_repr", "whitelist_keys", "print_masked_keys")

    def __getattr__(self, name):
        # Only for a slot that was not set.
        if name in __class__.__slots__:
            return getattr(type(self), "default_" + name)
        raise AttributeError(name)

    def __repr__(self):
        if not self.secure_repr:
            return dict.__repr__(self)
        if not self.whitelist_keys:
            return "<pywsgi.SecureEnviron dict (keys: %d) at %s>" % (len(self), id(self))
        shown = self.whitelist_keys
        if self.print_masked_keys:
            masked = {key: value if key in shown else "<MASKED>" for key, value in self.items()}
            return dict.__repr__(masked)
        visible = {key: value for key, value in self.items() if key in shown}
        hidden = len(self) - len(visible)
        if not hidden:
            return dict.__repr__(visible)
        return "%s, (hidden keys: %d)}" % (dict.__repr__(visible)[:-1], hidden)

    __str__ = __repr__


class WSGISecureEnviron(SecureEnviron):
    """What errors of an application are reported with: who asked, and nothing of what was said."""

    default_whitelist_keys = ("REMOTE_ADDR", "REMOTE_PORT", "HTTP_HOST")
    default_print_masked_keys = False
