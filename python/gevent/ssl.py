"""TLS on cooperative sockets.

Everything of :mod:`ssl` is here; :class:`SSLContext` and :class:`SSLSocket` let other greenlets run
while they wait for the peer. OpenSSL is driven through the interpreter's own ``_ssl`` module, on
the non-blocking socket below ours.
"""

import errno
import ssl as __ssl__
from functools import wraps
from socket import AF_INET, SO_TYPE, SOCK_STREAM, SOL_SOCKET
from ssl import (
    CERT_NONE,
    CERT_REQUIRED,
    PROTOCOL_SSLv23,
    SSL_ERROR_EOF,
    DER_cert_to_PEM_cert,
    SSLEOFError,
    SSLError,
    SSLWantReadError,
    SSLWantWriteError,
    SSLZeroReturnError,
)
from time import monotonic
from types import FunctionType

from gevent import _core
from gevent._util import copy_globals
from gevent.socket import (
    _GLOBAL_DEFAULT_TIMEOUT,
    create_connection,
    socket,
    timeout_default,
)
from gevent.socket import timeout as _socket_timeout

_ssl = __ssl__._ssl

__implements__ = [
    "SSLContext",
    "SSLSocket",
    "get_server_certificate",
]
__extra__ = ["wrap_socket"]

if hasattr(__ssl__, "wrap_socket"):  # until 3.11
    __implements__ += __extra__
    __extra__ = []

__imports__ = copy_globals(
    __ssl__,
    globals(),
    # Two names that are not the module's to give, or are ours.
    names_to_ignore=[*__implements__, "socket", "create_connection"],
    dunder_names_to_keep=(),
)

__all__ = [name for name in __implements__ + __imports__ + __extra__ if name != "namedtuple"]

orig_SSLContext = __ssl__.SSLContext
_orig_SSLSocket = __ssl__.SSLSocket

#: What the standard library raises for methods that would bypass the encryption.
_NotOffered = NotImplementedError


def _SSLErrorHandshakeTimeout():
    return _socket_timeout("The handshake operation timed out")


class SSLContext(orig_SSLContext):
    """A :class:`ssl.SSLContext` whose sockets are cooperative."""

    __slots__ = ()

    #: Set below, to our :class:`SSLSocket`.
    sslsocket_class = None

    def wrap_socket(
        self,
        sock,
        server_side=False,
        do_handshake_on_connect=True,
        suppress_ragged_eofs=True,
        server_hostname=None,
        session=None,
    ):
        """Take *sock* over and speak TLS on it; returns a :attr:`sslsocket_class`."""
        return self.sslsocket_class(
            sock=sock,
            server_side=server_side,
            do_handshake_on_connect=do_handshake_on_connect,
            suppress_ragged_eofs=suppress_ragged_eofs,
            server_hostname=server_hostname,
            _context=self,
            _session=session,
        )


def _context_from_arguments(
    server_side, keyfile, certfile, cert_reqs, ssl_version, ca_certs, ciphers
):
    if server_side and not certfile:
        raise ValueError("certfile must be specified for server-side operations")
    if keyfile and not certfile:
        raise ValueError("certfile must be specified")
    context = SSLContext(ssl_version)
    context.verify_mode = cert_reqs
    if ca_certs:
        context.load_verify_locations(ca_certs)
    if certfile:
        context.load_cert_chain(certfile, keyfile or certfile)
    if ciphers:
        context.set_ciphers(ciphers)
    return context


class SSLSocket(socket):
    """A socket that speaks TLS. See :class:`ssl.SSLSocket`; made by ``wrap_socket``.

    *sock* is taken over: it is detached, unless the constructor fails.
    """

    def __init__(
        self,
        sock=None,
        keyfile=None,
        certfile=None,
        server_side=False,
        cert_reqs=CERT_NONE,
        ssl_version=PROTOCOL_SSLv23,
        ca_certs=None,
        do_handshake_on_connect=True,
        family=AF_INET,
        type=SOCK_STREAM,
        proto=0,
        fileno=None,
        suppress_ragged_eofs=True,
        npn_protocols=None,
        ciphers=None,
        server_hostname=None,
        _session=None,
        _context=None,
    ):
        if _context:
            self._context = _context
        else:
            self._context = _context_from_arguments(
                server_side, keyfile, certfile, cert_reqs, ssl_version, ca_certs, ciphers
            )
            self.keyfile = keyfile or certfile
            self.certfile = certfile
            self.cert_reqs = cert_reqs
            self.ssl_version = ssl_version
            self.ca_certs = ca_certs
            self.ciphers = ciphers
        if sock is not None and sock.getsockopt(SOL_SOCKET, SO_TYPE) != SOCK_STREAM:
            raise _NotOffered("only stream sockets are supported")
        if server_side:
            if server_hostname:
                raise ValueError("server_hostname can only be specified in client mode")
            if _session is not None:
                raise ValueError("session can only be specified in client mode")
        if self._context.check_hostname and not server_hostname:
            raise ValueError("check_hostname requires server_hostname")
        self._session = _session
        self.server_side = server_side
        self.server_hostname = server_hostname
        self.do_handshake_on_connect = do_handshake_on_connect
        self.suppress_ragged_eofs = suppress_ragged_eofs
        self._sslobj = None

        limit = None
        if sock is not None:
            limit = sock.gettimeout()
            super().__init__(sock.family, sock.type, sock.proto, sock.fileno())
            # From here on nobody but us closes it.
            sock.detach()
        elif fileno is not None:
            super().__init__(fileno=fileno)
        else:
            super().__init__(family, type, proto)

        self._connected = self._find_connected()
        self.settimeout(limit)
        if self._connected:
            self._begin(server_side, _session, do_handshake_on_connect)

    def _find_connected(self):
        """Whether there is a peer. If there was one, and it left data, that is an error."""
        try:
            self._sock.getpeername()
            return True
        except OSError as ex:
            if ex.errno != errno.ENOTCONN:
                self.close()
                raise
            not_connected = ex.errno
        # Bytes that came without TLS, on a connection that is gone, must never be taken for
        # something that the peer said through it.
        try:
            data = self._sock.recv(1)
        except OSError as ex:
            if ex.errno not in (errno.ENOTCONN, errno.EINVAL, errno.EWOULDBLOCK):
                raise
            data = b""
        if data:
            reason = "Closed before TLS handshake with data in recv buffer."
            error = SSLError(not_connected, reason)
            error.reason = reason
            error.library = None
            self.close()
            raise error
        return False

    def _begin(self, server_side, session, handshake):
        try:
            self._sslobj = self._create_sslobj(server_side, session)
            if handshake:
                if self.gettimeout() == 0.0:
                    raise ValueError(
                        "do_handshake_on_connect should not be specified for non-blocking sockets"
                    )
                self.do_handshake()
        except OSError:
            self.close()
            raise

    def _create_sslobj(self, server_side=False, session=None):
        # OpenSSL works on the plain socket. Callbacks are handed the owner, and expect us.
        return self.context._wrap_socket(
            self._sock, server_side, self.server_hostname, owner=self, session=session
        )

    def _extra_repr(self):
        return " server=%s, cipher=%r" % (
            self.server_side,
            "" if self._sslobj is None else self._sslobj.cipher(),
        )

    @property
    def context(self):
        return self._context

    @context.setter
    def context(self, ctx):
        self._context = ctx
        self._sslobj.context = ctx

    @property
    def session(self):
        """The session of a client, for another connection to resume."""
        return None if self._sslobj is None else self._sslobj.session

    @session.setter
    def session(self, session):
        self._session = session
        if self._sslobj is not None:
            self._sslobj.session = session

    @property
    def session_reused(self):
        """Whether the handshake resumed a session."""
        return None if self._sslobj is None else self._sslobj.session_reused

    #: What encrypts, or None.
    _sslobj = _core.SocketBase._tls_object

    # Native, as everything that moves data.
    read = _core.tls_methods["read"]
    write = _core.tls_methods["write"]
    recv = _core.tls_methods["recv"]
    recv_into = _core.tls_methods["recv_into"]
    send = _core.tls_methods["send"]
    sendall = _core.tls_methods["sendall"]

    def _is_ragged_end(self, ex):
        """Whether this error of a read is an end that is not to be raised."""
        return self.suppress_ragged_eofs and (
            ex.args[0] == SSL_ERROR_EOF or isinstance(ex, SSLZeroReturnError)
        )

    def dup(self):
        raise _NotOffered("Can't dup() %s instances" % self.__class__.__name__)

    def _checkClosed(self, msg=None):
        """For subclasses that want to know of calls after the end."""

    def _check_connected(self):
        if not self._connected:
            # Raises ENOTCONN, unless connect() has succeeded behind our back.
            self.getpeername()

    def _forbid(self, name, flags):
        if flags != 0:
            raise ValueError(
                "non-zero flags not allowed in calls to %s() on %s" % (name, self.__class__)
            )

    def _drive(self, late, refusal, name, *args, timeout=timeout_default):
        """Call a method of the TLS object, and wait for what it wants, until it is done.

        *late* makes the timeout's error; *refusal* says what there is no TLS object for.
        """
        if timeout is timeout_default:
            timeout = self.timeout
        # The limit is for the whole: a peer that shakes hands in drops does not stretch it.
        deadline = monotonic() + timeout if timeout else None
        while True:
            # Looked up each time: somebody may have unwrapped it in the meantime.
            if self._sslobj is None:
                raise ValueError(refusal)
            try:
                return getattr(self._sslobj, name)(*args)
            except SSLWantReadError:
                if timeout == 0.0:
                    raise
                direction = 1
            except SSLWantWriteError:
                if timeout == 0.0:
                    raise
                direction = 2
            try:
                self._await(direction, deadline and max(deadline - monotonic(), 0.0))
            except _socket_timeout:
                raise late() from None

    def getpeercert(self, binary_form=False):
        """The peer's certificate: a dict (empty if it was not checked), DER bytes, or None."""
        self._checkClosed()
        self._check_connected()
        return self._sslobj.getpeercert(binary_form)

    def selected_npn_protocol(self):
        """None: the extension has been dead for years."""
        self._checkClosed()

    def selected_alpn_protocol(self):
        self._checkClosed()
        if self._sslobj is None or not __ssl__.HAS_ALPN:
            return None
        return self._sslobj.selected_alpn_protocol()

    def shared_ciphers(self):
        """The ciphers that both sides offered, or None for a client."""
        return None if self._sslobj is None else self._sslobj.shared_ciphers()

    def version(self):
        """The protocol in use, such as ``'TLSv1.3'``, or None."""
        return None if self._sslobj is None else self._sslobj.version()

    def cipher(self):
        self._checkClosed()
        return None if self._sslobj is None else self._sslobj.cipher()

    def compression(self):
        self._checkClosed()
        return None if self._sslobj is None else self._sslobj.compression()

    def pending(self):
        """How many decrypted bytes can be read without the network."""
        self._checkClosed()
        return 0 if self._sslobj is None else self._sslobj.pending()

    def sendto(self, data, flags_or_addr, addr=None):
        self._checkClosed()
        if self._sslobj is not None:
            raise ValueError("sendto not allowed on instances of %s" % self.__class__)
        if addr is None:
            return super().sendto(data, flags_or_addr)
        return super().sendto(data, flags_or_addr, addr)

    def sendmsg(self, *args, **kwargs):
        raise _NotOffered("sendmsg not allowed on instances of %s" % self.__class__)

    def recvfrom(self, buflen=1024, flags=0):
        self._checkClosed()
        if self._sslobj is not None:
            raise ValueError("recvfrom not allowed on instances of %s" % self.__class__)
        return super().recvfrom(buflen, flags)

    def recvfrom_into(self, buffer, nbytes=None, flags=0):
        self._checkClosed()
        if self._sslobj is not None:
            raise ValueError("recvfrom_into not allowed on instances of %s" % self.__class__)
        return super().recvfrom_into(buffer, nbytes or 0, flags)

    def recvmsg(self, *args, **kwargs):
        raise _NotOffered("recvmsg not allowed on instances of %s" % self.__class__)

    def recvmsg_into(self, *args, **kwargs):
        raise _NotOffered("recvmsg_into not allowed on instances of %s" % self.__class__)

    def shutdown(self, how):
        self._checkClosed()
        self._sslobj = None
        super().shutdown(how)

    def unwrap(self):
        """End the TLS session, keep the connection: this object then speaks plain text."""
        if self._sslobj is None:
            raise ValueError("No SSL wrapper around " + str(self))
        try:
            self._drive(_send_timeout, "No SSL wrapper around " + str(self), "shutdown")
        except (SSLWantReadError, SSLWantWriteError):
            # Not over. The caller is non-blocking, and has to come back.
            raise
        except (SSLEOFError, SSLZeroReturnError):
            # The peer was not that polite.
            pass
        except OSError as ex:
            if ex.errno != 0:
                raise
        self._sslobj = None
        return self

    def _real_close(self):
        self._sslobj = None
        super()._real_close()

    def do_handshake(self):
        """Agree with the peer on keys."""
        self._check_connected()
        self._drive(_SSLErrorHandshakeTimeout, "No SSL wrapper around this socket", "do_handshake")

    def _real_connect(self, addr, connect):
        if self.server_side:
            raise ValueError("can't connect in server-side mode")
        if self._connected:
            raise ValueError("attempt to connect already-connected SSLSocket!")
        self._sslobj = self._create_sslobj(False, self._session)
        try:
            result = connect(addr)
            if not result:
                if self.do_handshake_on_connect:
                    self.do_handshake()
                self._connected = True
            return result
        except OSError:
            self._sslobj = None
            raise

    def connect(self, addr):
        """Connect, and do the handshake unless it was declined."""
        self._real_connect(addr, super().connect)

    def connect_ex(self, addr):
        """:meth:`connect`; returns the number of an error of the connection, or zero."""
        return self._real_connect(addr, super().connect_ex)

    def accept(self):
        """Accept a connection, and do the handshake; returns ``(SSLSocket, address)``."""
        accepted, address = super().accept()
        try:
            return self._context.wrap_socket(
                accepted,
                do_handshake_on_connect=self.do_handshake_on_connect,
                suppress_ragged_eofs=self.suppress_ragged_eofs,
                server_side=True,
            ), address
        except BaseException:
            accepted.close()
            raise

    def get_channel_binding(self, cb_type="tls-unique"):
        """What ties authentication to this channel, as bytes; None before the handshake."""
        if self._sslobj is not None:
            return self._sslobj.get_channel_binding(cb_type)
        if cb_type not in __ssl__.CHANNEL_BINDING_TYPES:
            raise ValueError("%s channel binding type not implemented" % (cb_type,))
        return None

    def verify_client_post_handshake(self):
        if self._sslobj is None:
            raise ValueError("No SSL wrapper around " + str(self))
        return self._sslobj.verify_client_post_handshake()


def _send_timeout():
    return _socket_timeout("timed out")


def _offer_newer_methods():
    """Methods that only some versions' TLS objects have."""

    def chain_of(name):
        def method(self):
            chain = getattr(self._sslobj, name)() or ()
            return [cert.public_bytes(_ssl.ENCODING_DER) for cert in chain]

        return method

    def plain(name):
        def method(self):
            self._checkClosed()
            return None if self._sslobj is None else getattr(self._sslobj, name)()

        return method

    makers = {
        "get_verified_chain": chain_of,  # 3.13
        "get_unverified_chain": chain_of,
        "group": plain,  # 3.15
        "client_sigalg": plain,
        "server_sigalg": plain,
    }
    for name, maker in makers.items():
        original = getattr(_orig_SSLSocket, name, None)
        if original is not None:
            method = maker(name)
            method.__name__ = name
            method.__qualname__ = "SSLSocket." + name
            method.__doc__ = original.__doc__
            setattr(SSLSocket, name, method)


_offer_newer_methods()
SSLContext.sslsocket_class = SSLSocket
_core.bind_tls(SSLSocket)


def wrap_socket(
    sock,
    keyfile=None,
    certfile=None,
    server_side=False,
    cert_reqs=CERT_NONE,
    ssl_version=PROTOCOL_SSLv23,
    ca_certs=None,
    do_handshake_on_connect=True,
    suppress_ragged_eofs=True,
    ciphers=None,
):
    """Speak TLS on *sock* by a context made for the purpose. Contexts can do more."""
    return SSLSocket(
        sock=sock,
        keyfile=keyfile,
        certfile=certfile,
        server_side=server_side,
        cert_reqs=cert_reqs,
        ssl_version=ssl_version,
        ca_certs=ca_certs,
        do_handshake_on_connect=do_handshake_on_connect,
        suppress_ragged_eofs=suppress_ragged_eofs,
        ciphers=ciphers,
    )


def get_server_certificate(
    addr, ssl_version=PROTOCOL_SSLv23, ca_certs=None, timeout=_GLOBAL_DEFAULT_TIMEOUT
):
    """The certificate of the server at *addr*, as PEM text; checked if there are *ca_certs*."""
    host, _ = addr
    context = SSLContext(ssl_version)
    context.check_hostname = False
    context.verify_mode = CERT_NONE if ca_certs is None else CERT_REQUIRED
    if ca_certs is not None:
        context.load_verify_locations(ca_certs)
    with (
        create_connection(addr, timeout=timeout) as sock,
        context.wrap_socket(sock, server_hostname=host) as sslsock,
    ):
        certificate = sslsock.getpeercert(True)
    return DER_cert_to_PEM_cert(certificate)


def _bound_to(function, view):
    """*function* with *view* for its module, if it looks for the names that change hands there."""
    if not isinstance(function, FunctionType) or not {"SSLContext", "SSLSocket"}.intersection(
        function.__code__.co_names
    ):
        return None
    bound = FunctionType(
        function.__code__, view, function.__name__, function.__defaults__, function.__closure__
    )
    bound.__kwdefaults__ = function.__kwdefaults__
    bound.__qualname__ = function.__qualname__
    bound.__doc__ = function.__doc__
    return bound


def _repair_original_classes():
    """Make the original classes sound for those who keep them after the names have changed hands.

    Their methods look for the classes by name, would find ours, and so call themselves without
    end or fail: they get a view of the module in which the names stay. And a context of the
    original class that is to wrap a cooperative socket, because that name has changed hands too,
    wraps it cooperatively.
    """
    wrap_original = orig_SSLContext.wrap_socket
    if hasattr(wrap_original, "_gevent_monkey"):
        return

    view = dict(vars(__ssl__))
    for cls in (orig_SSLContext, _orig_SSLSocket):
        for name, attribute in list(vars(cls).items()):
            if isinstance(attribute, property):
                setter = _bound_to(attribute.fset, view)
                bound = setter and attribute.setter(setter)
            elif isinstance(attribute, (classmethod, staticmethod)):
                function = _bound_to(attribute.__func__, view)
                bound = function and type(attribute)(function)
            else:
                bound = _bound_to(attribute, view)
            if bound is not None:
                setattr(cls, name, bound)

    @wraps(wrap_original)
    def wrap_socket(self, sock, *args, **kwargs):
        if isinstance(sock, socket) and self.sslsocket_class is _orig_SSLSocket:
            return _wrap_cooperatively(self, sock, *args, **kwargs)
        return wrap_original(self, sock, *args, **kwargs)

    wrap_socket._gevent_monkey = True
    orig_SSLContext.wrap_socket = wrap_socket


def _wrap_cooperatively(
    context,
    sock,
    server_side=False,
    do_handshake_on_connect=True,
    suppress_ragged_eofs=True,
    server_hostname=None,
    session=None,
):
    return SSLSocket(
        sock=sock,
        server_side=server_side,
        do_handshake_on_connect=do_handshake_on_connect,
        suppress_ragged_eofs=suppress_ragged_eofs,
        server_hostname=server_hostname,
        _context=context,
        _session=session,
    )


def _gevent_do_monkey_patch(patch_request):
    _repair_original_classes()
    patch_request.default_patch_items()
