/* The least that an echo server can do: one thread, one epoll set, recv and send.
 *
 *     echo_limit PORT
 *
 * What a server in any language is measured against. It ends when it is told to.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOM = 1 << 16, EVENTS = 1024, BACKLOG = 4096 };

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

/* False when the connection is over. The load never has more under way than a socket holds. */
static int echo(int fd)
{
    static char room[ROOM];
    ssize_t got = recv(fd, room, ROOM, 0);
    for (ssize_t sent = 0; sent < got;) {
        ssize_t n = send(fd, room + sent, (size_t)(got - sent), MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) return 0;
        if (n > 0) sent += n;
    }
    return got > 0 || (got < 0 && errno == EAGAIN);
}

int main(int argc, char **argv)
{
    if (argc != 2) return fprintf(stderr, "echo_limit PORT\n"), 2;
    int on = 1, epoll = epoll_create1(0), listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in here = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)atoi(argv[1])),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) < 0) die("bind");
    if (listen(listener, BACKLOG) < 0) die("listen");
    watch(epoll, listener);
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll, events, EVENTS, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                if (!echo(fd)) close(fd);
                continue;
            }
            int conn = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (conn < 0) continue;
            setsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            watch(epoll, conn);
        }
    }
}
