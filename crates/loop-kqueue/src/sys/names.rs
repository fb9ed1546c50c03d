//! The numbers of filters and flags: the system's, or on Linux FreeBSD's, which libkqueue has too.

macro_rules! names {
    ($($kind:ty: $($name:ident = $linux:expr,)*;)*) => {
        $($(
            #[doc = concat!("`", stringify!($name), "` of kevent(2).")]
            #[cfg(not(target_os = "linux"))]
            pub const $name: $kind = libc::$name as $kind;
            #[doc = concat!("`", stringify!($name), "` of kevent(2).")]
            #[cfg(target_os = "linux")]
            pub const $name: $kind = $linux;
        )*)*
    };
}

names! {
    i16:
        EVFILT_READ = -1,
        EVFILT_WRITE = -2,
        EVFILT_VNODE = -4,
        EVFILT_PROC = -5,
        EVFILT_SIGNAL = -6,
        EVFILT_TIMER = -7,
        EVFILT_USER = -11,
    ;
    u16:
        EV_ADD = 0x0001,
        EV_DELETE = 0x0002,
        EV_ENABLE = 0x0004,
        EV_DISABLE = 0x0008,
        EV_ONESHOT = 0x0010,
        EV_CLEAR = 0x0020,
        EV_RECEIPT = 0x0040,
        EV_DISPATCH = 0x0080,
        EV_ERROR = 0x4000,
        EV_EOF = 0x8000,
    ;
    u32:
        NOTE_TRIGGER = 0x0100_0000,
        NOTE_FFAND = 0x4000_0000,
        NOTE_FFOR = 0x8000_0000,
        NOTE_FFCOPY = 0xc000_0000,
        NOTE_FFCTRLMASK = 0xc000_0000,
        NOTE_FFLAGSMASK = 0x00ff_ffff,
        NOTE_EXIT = 0x8000_0000,
        NOTE_DELETE = 0x0001,
        NOTE_WRITE = 0x0002,
        NOTE_EXTEND = 0x0004,
        NOTE_ATTRIB = 0x0008,
        NOTE_LINK = 0x0010,
        NOTE_RENAME = 0x0020,
        NOTE_REVOKE = 0x0040,
    ;
}

/// The filter of exceptional conditions, where there is one: with [`NOTE_OOB`], urgent data.
#[cfg(target_vendor = "apple")]
pub const EVFILT_EXCEPT: Option<i16> = Some(libc::EVFILT_EXCEPT);
/// The filter of exceptional conditions: here with Apple's number.
#[cfg(all(target_os = "linux", not(libkqueue)))]
pub const EVFILT_EXCEPT: Option<i16> = Some(-15);
/// The filter of exceptional conditions, where there is one: not here.
#[cfg(not(any(target_vendor = "apple", all(target_os = "linux", not(libkqueue)))))]
pub const EVFILT_EXCEPT: Option<i16> = None;

/// Urgent data.
pub const NOTE_OOB: u32 = 0x0002;
