/* Writes the C frames of a process that a signal ends to standard error: loaded by the tools beside it, to
 * tell whose crash it is. */
#define _GNU_SOURCE
#include <execinfo.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static char stack[1 << 16];

static void tell(int number)
{
    static const char text[] = "frames:\n";
    void *frames[64];
    ssize_t told = write(2, text, sizeof text - 1);
    (void)told;
    backtrace_symbols_fd(frames, backtrace(frames, 64), 2);
    signal(number, SIG_DFL);
    raise(number);
}

/* To be called in the thread that may crash: the other stack is its. */
void tell_frames(void)
{
    static const int ends[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM};
    void *warm[1];
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action;

    backtrace(warm, 1); /* the first call loads a library */
    sigaltstack(&other, NULL);
    memset(&action, 0, sizeof action);
    action.sa_handler = tell;
    action.sa_flags = SA_ONSTACK | SA_NODEFER;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        sigaction(ends[i], &action, NULL);
    }
}
