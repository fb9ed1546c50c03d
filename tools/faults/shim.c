/* A preload library that lets one kind of system call go wrong, on command.
 *
 * tools/faults/calls.py builds it, loads it with LD_PRELOAD and drives it by ctypes: faults_arm() says
 * which calls fail and how, faults_disarm() ends it and says how often it did. What is told is what the
 * kernel could have said: a call that fails has done nothing, and a short count has moved what it says. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS(X) \
    X(recv) X(send) X(read) X(write) X(accept) X(connect) X(socket) X(pipe) X(eventfd) X(epoll_create) \
    X(epoll_ctl) X(epoll_wait) X(poll) X(ring_setup) X(ring_enter) X(ring_register) X(timerfd) X(signalfd) \
    X(inotify) X(open) X(dup) X(fcntl) X(setsockopt) X(getsockopt) X(bind) X(listen) X(getsockname) \
    X(shutdown) X(close) X(sendfile) X(mmap) X(mprotect) X(madvise) X(wait) X(pidfd) X(fork) X(thread) \
    X(sigaltstack) X(fsync)

#define AS_ENUM(name) CALL_##name,
#define AS_TEXT(name) #name,
enum call { CALLS(AS_ENUM) CALL_COUNT };
static const char *const names[] = {CALLS(AS_TEXT)};

/* What a fault is, where it is no errno. */
#define ONE_BYTE (-1)
#define NO_EVENTS (-2)

static int armed = -1;      /* which call, or -1 */
static int fault;           /* an errno, or one of the above */
static long from, to;       /* which of the calls since it was armed: [from, to) */
static unsigned rate;       /* or how many of 65,536 */
static uint64_t seed;
static long seen, told;

static int hit(enum call call)
{
    if (__atomic_load_n(&armed, __ATOMIC_ACQUIRE) != (int)call)
        return 0;
    long number = __atomic_add_fetch(&seen, 1, __ATOMIC_RELAXED);
    if (rate) {
        uint64_t x = seed + (uint64_t)number * 0x9e3779b97f4a7c15u;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        if (((x >> 40) & 0xffff) >= rate)
            return 0;
    } else if (number < from || number >= to) {
        return 0;
    }
    return fault;
}

static void tell(void) { __atomic_add_fetch(&told, 1, __ATOMIC_RELAXED); }

int faults_arm(const char *name, int what, long first, long last, unsigned per_65536, uint64_t with)
{
    __atomic_store_n(&armed, -1, __ATOMIC_RELEASE);
    for (int i = 0; i < CALL_COUNT; i++) {
        if (strcmp(names[i], name) == 0) {
            fault = what, from = first, to = last, rate = per_65536, seed = with, seen = told = 0;
            __atomic_store_n(&armed, i, __ATOMIC_RELEASE);
            return 0;
        }
    }
    return -1;
}

long faults_disarm(long *calls)
{
    __atomic_store_n(&armed, -1, __ATOMIC_RELEASE);
    *calls = seen;
    return told;
}

static int stream(int fd)
{
    struct stat s;
    if (fstat(fd, &s) != 0)
        return 0;
    if (S_ISFIFO(s.st_mode))
        return 1;
    int type = 0;
    socklen_t size = sizeof type;
    return S_ISSOCK(s.st_mode) && syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0
           && type == SOCK_STREAM;
}

static int nonblocking(int fd)
{
    int flags = (int)syscall(SYS_fcntl, fd, F_GETFL);
    return flags >= 0 && (flags & O_NONBLOCK) && stream(fd);
}

/* What to do about a transfer: an errno, or 0 and maybe a shorter length. */
static int transfer(enum call call, int fd, size_t *length, int flags)
{
    int what = hit(call);
    struct stat s;
    if (what == 0 || what == NO_EVENTS)
        return 0;
    if (what == ONE_BYTE) {
        if (*length < 2 || fstat(fd, &s) != 0 || !(stream(fd) || S_ISREG(s.st_mode)))
            return 0;
        *length = 1;
        tell();
        return 0;
    }
    if (what == EAGAIN && !(nonblocking(fd) || ((flags & MSG_DONTWAIT) && stream(fd))))
        return 0;
    int file = call == CALL_read || call == CALL_write;
    /* An eventfd or a timer knows no such error. */
    if (file && what != EINTR && what != EAGAIN
        && !(stream(fd) || (fstat(fd, &s) == 0 && S_ISREG(s.st_mode))))
        return 0;
    tell();
    return what;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) \
    real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define FAIL(what) \
    do { \
        errno = (what); \
        return -1; \
    } while (0)

/* A call that fails or is done. */
#define PLAIN(group, result, name, parameters, arguments) \
    result name parameters \
    { \
        REAL(name); \
        int what = hit(CALL_##group); \
        if (what > 0) { \
            tell(); \
            FAIL(what); \
        } \
        return real arguments; \
    }

/* A transfer of `length` bytes. */
#define MOVES(group, name, flags, parameters, arguments) \
    ssize_t name parameters \
    { \
        REAL(name); \
        int what = transfer(CALL_##group, fd, &length, flags); \
        if (what) \
            FAIL(what); \
        return real arguments; \
    }

MOVES(recv, recv, flags, (int fd, void *b, size_t length, int flags), (fd, b, length, flags))
MOVES(recv, recvfrom, flags,
      (int fd, void *restrict b, size_t length, int flags, struct sockaddr *restrict a,
       socklen_t *restrict l),
      (fd, b, length, flags, a, l))
MOVES(send, send, flags, (int fd, const void *b, size_t length, int flags), (fd, b, length, flags))
MOVES(send, sendto, flags,
      (int fd, const void *b, size_t length, int flags, const struct sockaddr *a, socklen_t l),
      (fd, b, length, flags, a, l))
MOVES(read, read, 0, (int fd, void *b, size_t length), (fd, b, length))
MOVES(write, write, 0, (int fd, const void *b, size_t length), (fd, b, length))
MOVES(sendfile, sendfile, 0, (int fd, int in, off_t *o, size_t length), (fd, in, o, length))
MOVES(sendfile, sendfile64, 0, (int fd, int in, off64_t *o, size_t length), (fd, in, o, length))

/* The same over a list of buffers: the short form moves one byte of the first that has any. */
static int vector(enum call call, int fd, const struct iovec *v, int count, struct iovec *one, int flags)
{
    size_t length = 0;
    *one = (struct iovec){0};
    for (int i = 0; i < count; i++) {
        if (one->iov_len == 0)
            *one = v[i];
        length += v[i].iov_len;
    }
    size_t before = length;
    int what = transfer(call, fd, &length, flags);
    one->iov_len = length == before ? 0 : 1;
    return what;
}

#define VECTOR(group, name) \
    ssize_t name(int fd, const struct iovec *v, int count) \
    { \
        REAL(name); \
        struct iovec one; \
        int what = vector(CALL_##group, fd, v, count, &one, 0); \
        if (what) \
            FAIL(what); \
        return one.iov_len ? real(fd, &one, 1) : real(fd, v, count); \
    }
VECTOR(read, readv)
VECTOR(write, writev)

#define MESSAGE(group, name, pointer) \
    ssize_t name(int fd, pointer message, int flags) \
    { \
        REAL(name); \
        struct iovec one; \
        int what = vector(CALL_##group, fd, message->msg_iov, (int)message->msg_iovlen, &one, flags); \
        if (what) \
            FAIL(what); \
        if (!one.iov_len || message->msg_controllen) \
            return real(fd, message, flags); \
        struct msghdr shorter = *message; \
        shorter.msg_iov = &one; \
        shorter.msg_iovlen = 1; \
        return real(fd, &shorter, flags); \
    }
MESSAGE(send, sendmsg, const struct msghdr *)
MESSAGE(recv, recvmsg, struct msghdr *)

#define ACCEPTS(name, parameters, arguments) \
    int name parameters \
    { \
        REAL(name); \
        int what = hit(CALL_accept); \
        if (what > 0 && (what != EAGAIN || nonblocking(fd))) { \
            tell(); \
            FAIL(what); \
        } \
        return real arguments; \
    }
ACCEPTS(accept, (int fd, struct sockaddr *restrict a, socklen_t *restrict l), (fd, a, l))
ACCEPTS(accept4, (int fd, struct sockaddr *restrict a, socklen_t *restrict l, int f), (fd, a, l, f))

PLAIN(connect, int, connect, (int fd, const struct sockaddr *a, socklen_t l), (fd, a, l))
PLAIN(socket, int, socket, (int d, int t, int p), (d, t, p))
PLAIN(socket, int, socketpair, (int d, int t, int p, int fds[2]), (d, t, p, fds))
PLAIN(pipe, int, pipe, (int fds[2]), (fds))
PLAIN(pipe, int, pipe2, (int fds[2], int f), (fds, f))
PLAIN(eventfd, int, eventfd, (unsigned n, int f), (n, f))
PLAIN(epoll_create, int, epoll_create1, (int f), (f))
PLAIN(epoll_ctl, int, epoll_ctl, (int e, int o, int fd, struct epoll_event *v), (e, o, fd, v))
PLAIN(timerfd, int, timerfd_create, (clockid_t c, int f), (c, f))
PLAIN(timerfd, int, timerfd_settime,
      (int fd, int f, const struct itimerspec *n, struct itimerspec *o), (fd, f, n, o))
PLAIN(signalfd, int, signalfd, (int fd, const sigset_t *m, int f), (fd, m, f))
PLAIN(inotify, int, inotify_init1, (int f), (f))
PLAIN(inotify, int, inotify_add_watch, (int fd, const char *p, uint32_t m), (fd, p, m))
PLAIN(dup, int, dup, (int fd), (fd))
PLAIN(dup, int, dup2, (int a, int b), (a, b))
PLAIN(dup, int, dup3, (int a, int b, int f), (a, b, f))
PLAIN(setsockopt, int, setsockopt, (int fd, int l, int n, const void *v, socklen_t s), (fd, l, n, v, s))
PLAIN(getsockopt, int, getsockopt, (int fd, int l, int n, void *restrict v, socklen_t *restrict s),
      (fd, l, n, v, s))
PLAIN(bind, int, bind, (int fd, const struct sockaddr *a, socklen_t l), (fd, a, l))
PLAIN(listen, int, listen, (int fd, int n), (fd, n))
PLAIN(getsockname, int, getsockname, (int fd, struct sockaddr *restrict a, socklen_t *restrict l),
      (fd, a, l))
PLAIN(getsockname, int, getpeername, (int fd, struct sockaddr *restrict a, socklen_t *restrict l),
      (fd, a, l))
PLAIN(shutdown, int, shutdown, (int fd, int how), (fd, how))
PLAIN(mprotect, int, mprotect, (void *p, size_t l, int f), (p, l, f))
PLAIN(madvise, int, madvise, (void *p, size_t l, int f), (p, l, f))
PLAIN(wait, pid_t, waitpid, (pid_t p, int *s, int o), (p, s, o))
PLAIN(wait, int, waitid, (idtype_t t, id_t i, siginfo_t *s, int o), (t, i, s, o))
PLAIN(fork, pid_t, fork, (void), ())
PLAIN(sigaltstack, int, sigaltstack, (const stack_t *restrict n, stack_t *restrict o), (n, o))
PLAIN(fsync, int, fsync, (int fd), (fd))
PLAIN(fsync, int, fdatasync, (int fd), (fd))

/* Waits may also come back early, without an event. */
#define WAITS(group, result, name, parameters, arguments) \
    result name parameters \
    { \
        REAL(name); \
        int what = hit(CALL_##group); \
        if (what) \
            tell(); \
        if (what == NO_EVENTS) \
            return 0; \
        if (what > 0) \
            FAIL(what); \
        return real arguments; \
    }
WAITS(epoll_wait, int, epoll_wait, (int e, struct epoll_event *v, int n, int t), (e, v, n, t))
WAITS(epoll_wait, int, epoll_pwait,
      (int e, struct epoll_event *v, int n, int t, const sigset_t *s), (e, v, n, t, s))
WAITS(poll, int, poll, (struct pollfd * p, nfds_t n, int t), (p, n, t))

/* close(2) has closed whatever it says. */
int close(int fd)
{
    REAL(close);
    int what = hit(CALL_close), done = real(fd);
    if (what > 0 && done == 0) {
        tell();
        FAIL(what);
    }
    return done;
}

int pthread_create(pthread_t *restrict t, const pthread_attr_t *restrict a, void *(*f)(void *),
                   void *restrict x)
{
    REAL(pthread_create);
    int what = hit(CALL_thread);
    if (what > 0) {
        tell();
        return what;
    }
    return real(t, a, f, x);
}

#define MAPS(name, offset) \
    void *name(void *p, size_t l, int prot, int flags, int fd, offset o) \
    { \
        REAL(name); \
        int what = hit(CALL_mmap); \
        if (what > 0) { \
            tell(); \
            errno = what; \
            return MAP_FAILED; \
        } \
        return real(p, l, prot, flags, fd, o); \
    }
MAPS(mmap, off_t)
MAPS(mmap64, off64_t)

#define OPENS(name) \
    int name(const char *path, int flags, ...) \
    { \
        REAL(name); \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(list, mode_t) : 0; \
        va_end(list); \
        int what = hit(CALL_open); \
        if (what > 0) { \
            tell(); \
            FAIL(what); \
        } \
        return real(path, flags, mode); \
    }
OPENS(open)
OPENS(open64)

#define CONTROLS(name) \
    int name(int fd, int command, ...) \
    { \
        REAL(name); \
        va_list list; \
        va_start(list, command); \
        void *argument = va_arg(list, void *); \
        va_end(list); \
        int dup = command == F_DUPFD || command == F_DUPFD_CLOEXEC; \
        int what = hit(dup ? CALL_dup : CALL_fcntl); \
        if (what > 0) { \
            tell(); \
            FAIL(what); \
        } \
        return real(fd, command, argument); \
    }
CONTROLS(fcntl)
CONTROLS(fcntl64)

/* Rust calls what the C library does not wrap through syscall(3). */
long syscall(long number, ...)
{
    static long (*real)(long, ...);
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long), d = va_arg(list, long),
         e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    int what = 0;
    switch (number) {
#ifdef SYS_io_uring_setup
    case SYS_io_uring_setup: what = hit(CALL_ring_setup); break;
    case SYS_io_uring_enter: what = hit(CALL_ring_enter); break;
    case SYS_io_uring_register: what = hit(CALL_ring_register); break;
#endif
#ifdef SYS_epoll_pwait2
    case SYS_epoll_pwait2: what = hit(CALL_epoll_wait); break;
#endif
#ifdef SYS_pidfd_open
    case SYS_pidfd_open: what = hit(CALL_pidfd); break;
#endif
#ifdef SYS_openat2
    case SYS_openat2: what = hit(CALL_open); break;
#endif
    default: break;
    }
    if (what) {
        tell();
        if (what == NO_EVENTS)
            return 0;
        if (what > 0)
            FAIL(what);
    }
    return real(number, a, b, c, d, e, f);
}
