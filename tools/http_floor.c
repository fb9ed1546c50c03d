/* What a request costs a server that does nothing but receive and send.
 *
 *     http_floor PORT
 *
 * One thread, one epoll set; to whatever comes in one piece it answers hello, unread. The rate that
 * a load has of it is the load's own limit on this machine.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 256 };
static const char ANSWER[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n"
    "Date: Wed, 25 Nov 2026 12:00:00 GMT\r\n\r\nHello, World!\n";

static void watch(int set, int fd, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) < 0) {
        perror("epoll_ctl");
        exit(1);
    }
}

int main(int argc, char **argv) {
    int on = 1, set = epoll_create1(EPOLL_CLOEXEC);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {
        .sin_family = AF_INET,
        .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 4096) < 0) {
        perror("listen");
        return 1;
    }
    watch(set, listener, EPOLLIN);
    for (;;) {
        struct epoll_event events[BATCH];
        int n = epoll_wait(set, events, BATCH, -1);
        for (int i = 0; i < n; i++) {
            static char request[65536];
            int fd = events[i].data.fd;
            if (fd == listener) {
                int flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
                while ((fd = accept4(listener, NULL, NULL, flags)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                    watch(set, fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
                }
                continue;
            }
            ssize_t got = recv(fd, request, sizeof request, 0);
            if (got > 0)
                send(fd, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL);
            else if (got == 0 || errno != EAGAIN)
                close(fd);
        }
    }
}
