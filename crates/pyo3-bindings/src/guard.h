/* GUARDED: a call whose frame a thread does not leave alive once the interpreter has ended: see outlive.c.
 * The file has to be compiled with -fexceptions. */
void gl_stay(void);

/* Costs nothing where the call returns: the flag lives in the unwinder's tables alone. */
static inline void leave(const int *returned)
{
    if (!*returned) {
        gl_stay();
    }
}

#define GUARDED(expression)                               \
    int returned __attribute__((__cleanup__(leave))) = 0; \
    expression;                                           \
    returned = 1
