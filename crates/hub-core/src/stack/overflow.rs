//! What happens when a fiber runs into its guard: one sentence, and then a crash as any other.
//!
//! The handler runs on an alternate stack, because the faulting one is full. It must be async-signal-safe:
//! it takes no lock, allocates nothing and calls only write(2), sigaction(2) and raise(3).

use super::slab;
use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Writes the name of the running fiber into the buffer and returns its length. Async-signal-safe.
pub type Namer = fn(&mut [u8]) -> usize;

static NAMER: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Tells how the running fiber is called in the sentence about an overflow.
pub fn set_fiber_namer(namer: Namer) {
    NAMER.store(namer as *mut (), Ordering::Release);
}

/// The actions that were there before ours.
static PREVIOUS: OnceLock<[libc::sigaction; 2]> = OnceLock::new();
const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Installs the handler for the process, once, and prepares the calling thread for it. A fault that is not
/// a fiber's overflow goes to the handlers that were installed before, and so does an overflow after its
/// sentence was written.
///
/// # Errors
/// What sigaction(2) or [`guard_this_thread`] say.
pub fn install_guard_handler() -> io::Result<()> {
    guard_this_thread()?;
    static ONCE: OnceLock<Result<(), i32>> = OnceLock::new();
    ONCE.get_or_init(|| install().map_err(|e| e.raw_os_error().unwrap_or(libc::EINVAL)))
        .map_err(io::Error::from_raw_os_error)
}

fn install() -> io::Result<()> {
    // SAFETY: all zeros is a valid sigaction: the default action and an empty mask.
    let mut old: [libc::sigaction; 2] = unsafe { MaybeUninit::zeroed().assume_init() };
    for (signal, old) in SIGNALS.iter().zip(&mut old) {
        // SAFETY: a query into a valid out pointer.
        if unsafe { libc::sigaction(*signal, ptr::null(), old) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // Before the first fault can reach the handler.
    let _ = PREVIOUS.set(old);
    for signal in SIGNALS {
        // SAFETY: as above.
        let mut new: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        new.sa_sigaction = on_fault as *const () as usize;
        new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        // SAFETY: the handler keeps to what handlers may do.
        if unsafe { libc::sigaction(signal, &new, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo; its address means something for real faults only.
    let (code, addr) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let hit = if code > 0 {
        slab::find(addr).filter(|hit| hit.in_guard)
    } else {
        // Sent, perhaps by a handler that was installed after ours and has had its turn.
        // SAFETY: the kernel's context of this very signal.
        let Some(sp) = (unsafe { stack_pointer(context) }) else {
            return chain(signal, info, context, false);
        };
        let hit = slab::find(sp).filter(|hit| sp < hit.limit + 4096);
        // SAFETY: as above.
        if hit.is_none() && unsafe { put_off(signal, sp, context) } {
            return;
        }
        hit
    };
    if let Some(hit) = hit {
        report(hit.size);
    }
    chain(signal, info, context, code > 0);
}

/// If the signal was raised from within another handler on the alternate stack (as faulthandler does when it
/// is done), whose own signal we know nothing of: keeps it pending until that handler has returned. Then it
/// comes again, with the context of the code that faulted. Returns whether that is so; it happens once.
///
/// # Safety
/// `context` is the kernel's, of the signal being handled.
unsafe fn put_off(signal: c_int, sp: usize, context: *mut c_void) -> bool {
    static DONE: AtomicBool = AtomicBool::new(false);
    let here = ptr::from_ref(&sp) as usize;
    if here.abs_diff(sp) > ALT_SIZE || DONE.swap(true, Ordering::Relaxed) {
        return false;
    }
    // SAFETY: these calls are async-signal-safe, and the context may be changed by its handler.
    unsafe {
        let mut this: libc::sigset_t = MaybeUninit::zeroed().assume_init();
        libc::sigaddset(&mut this, signal);
        libc::pthread_sigmask(libc::SIG_BLOCK, &this, ptr::null_mut());
        libc::raise(signal);
        libc::sigaddset(
            &mut (*context.cast::<libc::ucontext_t>()).uc_sigmask,
            signal,
        );
    }
    true
}

/// The stack pointer of the interrupted code, where its place in the context is known.
///
/// # Safety
/// `context` is the kernel's.
#[allow(unused_variables, reason = "not every platform tells")]
unsafe fn stack_pointer(context: *mut c_void) -> Option<usize> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    // SAFETY: the caller's promise.
    return Some(unsafe {
        (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RSP as usize] as usize
    });
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    // SAFETY: the caller's promise.
    return Some(unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.sp as usize });
    #[allow(unreachable_code, reason = "where the platforms above do not apply")]
    None
}

/// Hands the signal to whoever handled it before; by default it kills when this returns.
fn chain(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, fault: bool) {
    let previous = PREVIOUS
        .get()
        .map(|p| &p[usize::from(signal == libc::SIGBUS)]);
    match previous {
        Some(p) if p.sa_sigaction != libc::SIG_DFL && p.sa_sigaction != libc::SIG_IGN => {
            if p.sa_flags & libc::SA_SIGINFO != 0 {
                type Action = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
                // SAFETY: with SA_SIGINFO the field holds a function of this type.
                let action: Action = unsafe { std::mem::transmute(p.sa_sigaction) };
                action(signal, info, context);
            } else {
                // SAFETY: without SA_SIGINFO it holds one of this type.
                let action: extern "C" fn(c_int) = unsafe { std::mem::transmute(p.sa_sigaction) };
                action(signal);
            }
        }
        Some(p) if p.sa_sigaction == libc::SIG_IGN && !fault => {}
        _ => {
            // SAFETY: the default action. A fault happens again on return; a sent signal is sent again.
            unsafe {
                let mut dfl: libc::sigaction = MaybeUninit::zeroed().assume_init();
                dfl.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &dfl, ptr::null_mut());
                if !fault {
                    libc::raise(signal);
                }
            }
        }
    }
}

/// A line put together without allocating.
struct Line {
    text: [u8; 384],
    len: usize,
}

impl Line {
    fn push(&mut self, bytes: &[u8]) {
        let n = bytes.len().min(self.text.len() - self.len);
        self.text[self.len..self.len + n].copy_from_slice(&bytes[..n]);
        self.len += n;
    }

    fn push_number(&mut self, mut n: usize) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }
}

fn report(size: usize) {
    let mut line = Line {
        text: [0; 384],
        len: 0,
    };
    line.push(b"gevent: the C stack of greenlet ");
    let namer = NAMER.load(Ordering::Acquire);
    if namer.is_null() {
        line.push(b"(unknown)");
    } else {
        // SAFETY: only `set_fiber_namer` stores here, and it stores a `Namer`.
        let namer: Namer = unsafe { std::mem::transmute::<*mut (), Namer>(namer) };
        let mut name = [0; 128];
        let n = namer(&mut name).min(name.len());
        line.push(&name[..n]);
    }
    line.push(b" overflowed its ");
    line.push_number(size >> 10);
    line.push(b" KiB; set the environment variable GEVENT_STACK_SIZE to a larger size, such as ");
    line.push_number((size >> 10) * 2);
    line.push(b"k, if such deep recursion is intended.\n");
    // SAFETY: the bytes are valid. A failure to write leaves nothing else to do.
    unsafe { libc::write(2, line.text.as_ptr().cast(), line.len) };
}

/// Says the sentence and aborts: for overflows that were noticed too late to be a fault.
#[expect(
    clippy::disallowed_methods,
    reason = "neighbouring memory is overwritten: nothing may go on"
)]
pub(super) fn die_of_overflow(size: usize) -> ! {
    report(size);
    std::process::abort()
}

/// Bytes of an alternate stack: room for faulthandler to write a traceback of the interpreter.
const ALT_SIZE: usize = 64 << 10;

struct AltStack(*mut c_void);

impl Drop for AltStack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours; if it is still the thread's alternate stack, it is taken out first.
        unsafe {
            let mut now: libc::stack_t = MaybeUninit::zeroed().assume_init();
            libc::sigaltstack(ptr::null(), &mut now);
            if now.ss_sp == self.0 {
                let off = libc::stack_t {
                    ss_sp: ptr::null_mut(),
                    ss_flags: libc::SS_DISABLE,
                    ss_size: ALT_SIZE,
                };
                libc::sigaltstack(&off, ptr::null_mut());
            }
            libc::munmap(self.0, ALT_SIZE);
        }
    }
}

thread_local! {
    static ALT: RefCell<Option<AltStack>> = const { RefCell::new(None) };
}

/// Gives the calling thread an alternate stack for signals if it has none. Each thread that runs fibers
/// calls it once; without it an overflow there ends the process without a sentence.
///
/// # Errors
/// `ENOMEM`.
pub fn guard_this_thread() -> io::Result<()> {
    // SAFETY: a query into a valid out pointer.
    let present = unsafe {
        let mut now: libc::stack_t = MaybeUninit::zeroed().assume_init();
        libc::sigaltstack(ptr::null(), &mut now) == 0 && now.ss_flags & libc::SS_DISABLE == 0
    };
    if present {
        return Ok(());
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh anonymous mapping.
    let lo = unsafe {
        libc::mmap(
            ptr::null_mut(),
            ALT_SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        )
    };
    if lo == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let stack = AltStack(lo);
    let new = libc::stack_t {
        ss_sp: lo,
        ss_flags: 0,
        ss_size: ALT_SIZE,
    };
    // SAFETY: the memory stays mapped until the thread ends, or takes another.
    if unsafe { libc::sigaltstack(&new, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let _ = ALT.try_with(|alt| *alt.borrow_mut() = Some(stack));
    Ok(())
}

#[cfg(test)]
#[path = "overflow_tests.rs"]
mod tests;
