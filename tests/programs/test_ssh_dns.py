"""paramiko, client and server, and dnspython against a name server of the test's own."""

import io
import socket
import threading

import pytest

import gevent


def test_paramiko():
    paramiko = pytest.importorskip("paramiko")
    host_key = paramiko.ECDSAKey.generate()

    class Server(paramiko.ServerInterface):
        def check_auth_password(self, username, password):
            return paramiko.AUTH_SUCCESSFUL if password == "right" else paramiko.AUTH_FAILED

        def check_channel_request(self, kind, chanid):
            return paramiko.OPEN_SUCCEEDED

        def check_channel_exec_request(self, channel, command):
            threading.Thread(target=run, args=(channel, command)).start()
            return True

    def run(channel, command):
        channel.sendall(command * 1000)
        channel.send_exit_status(3)
        channel.close()

    listener = socket.create_server(("127.0.0.1", 0), backlog=50)
    transports = []

    def serve():
        while True:
            conn, _ = listener.accept()
            transport = paramiko.Transport(conn)
            transports.append(transport)
            transport.add_server_key(host_key)
            transport.start_server(server=Server())

    server = gevent.spawn(serve)
    port = listener.getsockname()[1]

    def session(n):
        with paramiko.SSHClient() as client:
            client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
            options = {"look_for_keys": False, "allow_agent": False, "timeout": 60}
            client.connect(
                "127.0.0.1", port, "user", "right", auth_timeout=60, banner_timeout=60, **options
            )
            _, stdout, _ = client.exec_command(f"command {n};", timeout=60)
            text = stdout.read()
            return text == b"command %d;" % n * 1000, stdout.channel.recv_exit_status()

    sessions = [gevent.spawn(session, n) for n in range(6)]
    gevent.joinall(sessions, raise_error=True)
    assert [g.value for g in sessions] == [(True, 3)] * 6
    with paramiko.SSHClient() as client, pytest.raises(paramiko.AuthenticationException):
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect("127.0.0.1", port, "user", "wrong", look_for_keys=False, allow_agent=False)
    server.kill()
    listener.close()
    for transport in transports:
        transport.close()
    assert paramiko.ECDSAKey.from_private_key(_written(host_key)) == host_key


def _written(key):
    text = io.StringIO()
    key.write_private_key(text)
    text.seek(0)
    return text


def test_dnspython():
    pytest.importorskip("dns")
    import dns.message
    import dns.resolver
    import dns.rrset

    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))

    def serve():
        while True:
            data, address = sock.recvfrom(4096)
            query = dns.message.from_wire(data)
            answer = dns.message.make_response(query)
            name = query.question[0].name
            number = name.labels[0].decode().removeprefix("host")
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "A", f"10.0.0.{number}"))
            gevent.spawn_later(0.01, sock.sendto, answer.to_wire(), address)

    server = gevent.spawn(serve)
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = sock.getsockname()[1]

    def ask(n):
        return [str(record) for record in resolver.resolve(f"host{n}.test.", "A", lifetime=30)]

    asking = [gevent.spawn(ask, n) for n in range(100)]
    gevent.joinall(asking, raise_error=True)
    assert [g.value for g in asking] == [[f"10.0.0.{n}"] for n in range(100)]
    server.kill()
    sock.close()
