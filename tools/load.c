/* A load for a server on the loopback: echo round trips, or one HTTP request a connection.
 *
 *     load PORT echo|http CONNECTIONS BYTES SECONDS
 *
 * One thread, one epoll set, every connection always busy. Prints "RATE per second, N errors".
 * An echo that comes back changed, an answer that does not start with "HTTP/1.1 200" and a
 * connection that breaks are errors. Ends by itself after SECONDS. BYTES is the echoed message's
 * size and means nothing for http.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_MESSAGE = 1 << 20, MAX_ERRORS = 1000 };
static const char REQUEST[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
static const char GOOD[] = "HTTP/1.1 200";

struct connection {
    int fd;
    size_t sent, received;
    char head[sizeof GOOD - 1];
};

static int set;
static unsigned short port;
static int http;
static size_t size;
static char message[MAX_MESSAGE], answer[MAX_MESSAGE];
static long done, errors;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void interest(struct connection *c, unsigned events, int how) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(set, how, c->fd, &e);
}

/* Sends what is left; returns -1 when the connection broke. */
static int push(struct connection *c) {
    while (c->sent < size) {
        ssize_t n = send(c->fd, message + c->sent, size - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) return errno == EAGAIN ? (interest(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD), 0) : -1;
        c->sent += n;
    }
    return 0;
}

static int start(struct connection *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    c->sent = c->received = 0;
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0) return -1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    interest(c, EPOLLIN, EPOLL_CTL_ADD);
    return push(c);
}

static void restart(struct connection *c) {
    do {
        if (c->fd >= 0) close(c->fd);
    } while (start(c) < 0 && ++errors < MAX_ERRORS);
}

/* Returns -1 when the connection is to be made anew. */
static int pull(struct connection *c) {
    ssize_t n = recv(c->fd, answer, sizeof answer, MSG_DONTWAIT);
    if (n < 0) return errno == EAGAIN ? 0 : (errors++, -1);
    if (http) {
        size_t room = sizeof c->head > c->received ? sizeof c->head - c->received : 0;
        memcpy(c->head + sizeof c->head - room, answer, (size_t)n < room ? (size_t)n : room);
        c->received += n;
        if (n > 0) return 0;
        if (c->received < sizeof c->head || memcmp(c->head, GOOD, sizeof c->head)) errors++;
        else done++;
        return -1;
    }
    if (n == 0 || c->received + n > size || memcmp(answer, message + c->received, n)) return errors++, -1;
    c->received += n;
    if (c->received < size) return 0;
    done++;
    c->sent = c->received = 0;
    return push(c) < 0 ? (errors++, -1) : 0;
}

int main(int argc, char **argv) {
    if (argc != 6) return fprintf(stderr, "load PORT echo|http CONNECTIONS BYTES SECONDS\n"), 2;
    port = atoi(argv[1]);
    http = !strcmp(argv[2], "http");
    int many = atoi(argv[3]);
    size = http ? sizeof REQUEST - 1 : (size_t)atol(argv[4]);
    if (many < 1 || size < 1 || size > MAX_MESSAGE) return 2;
    for (size_t i = 0; i < size; i++) message[i] = http ? REQUEST[i] : (char)('a' + i % 26);
    set = epoll_create1(EPOLL_CLOEXEC);
    struct connection *all = calloc(many, sizeof *all);
    for (int i = 0; i < many; i++) {
        all[i].fd = -1;
        restart(&all[i]);
    }
    double begun = now(), until = begun + atof(argv[5]);
    done = 0;
    while (now() < until && errors < MAX_ERRORS) {
        struct epoll_event ready[256];
        int n = epoll_wait(set, ready, 256, 100);
        for (int i = 0; i < n; i++) {
            struct connection *c = ready[i].data.ptr;
            int bad = 0;
            if (ready[i].events & EPOLLOUT) {
                interest(c, EPOLLIN, EPOLL_CTL_MOD);
                bad = push(c) < 0 && ++errors;
            }
            if (!bad && ready[i].events & ~EPOLLOUT) bad = pull(c) < 0;
            if (bad) restart(c);
        }
    }
    printf("%.0f per second, %ld errors\n", done / (now() - begun), errors);
    return errors > 0;
}
