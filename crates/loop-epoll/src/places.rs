//! Where the registrations of a descriptor are, and how their events are told apart.

use gevent_hub_core::by_readiness::Entry;
use gevent_hub_core::event_loop::Mode;
use std::os::fd::RawFd;

/// In the data of an event next to the descriptor: a level watcher's.
pub(crate) const LEVEL: u32 = 1 << 31;

/// One of the two epoll sets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    Main,
    Nested,
}

/// A registration of a descriptor.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    pub(crate) armed: bool,
    /// Carried by its events; another one after each removal, so that events of a description which lives
    /// on under a closed number are told apart.
    pub(crate) generation: u32,
}

impl Place {
    pub(crate) fn leave(&mut self) {
        self.armed = false;
        self.generation = self.generation.wrapping_add(1);
    }
}

/// Both registrations of a descriptor.
#[derive(Default)]
pub(crate) struct Places {
    pub(crate) edge: Place,
    pub(crate) level: Place,
    /// Where the level's is, if it is armed.
    pub(crate) level_is_nested: bool,
}

impl Places {
    pub(crate) fn of(&mut self, mode: Mode) -> &mut Place {
        match mode {
            Mode::Edge => &mut self.edge,
            Mode::Level => &mut self.level,
        }
    }

    /// The set in which there is the level's, or would be.
    pub(crate) fn set_of_level(&self) -> Set {
        let nested = if self.level.armed {
            self.level_is_nested
        } else {
            self.edge.armed
        };
        if nested { Set::Nested } else { Set::Main }
    }

    /// Whether a set holds the descriptor.
    pub(crate) fn is_in(&self, set: Set) -> bool {
        (set == Set::Main && self.edge.armed) || (self.level.armed && self.set_of_level() == set)
    }
}

/// Whether there is a reason for the registration of `mode`.
pub(crate) fn is_wanted(entry: &Entry<Places>, mode: Mode) -> bool {
    match mode {
        Mode::Edge => entry.wants_edge(),
        Mode::Level => !entry.want(Mode::Level).is_empty(),
    }
}

/// Where an event came from.
pub(crate) struct Origin {
    pub(crate) fd: RawFd,
    pub(crate) generation: u32,
    pub(crate) mode: Mode,
    pub(crate) set: Set,
}

impl Origin {
    /// What [`data_of`] was told, of an event of `set`.
    pub(crate) fn of(data: u64, set: Set) -> Self {
        let low = data as u32;
        Origin {
            fd: (low & !LEVEL) as RawFd,
            generation: (data >> 32) as u32,
            mode: if low & LEVEL == 0 {
                Mode::Edge
            } else {
                Mode::Level
            },
            set,
        }
    }
}

/// The data of the events of a registration.
pub(crate) fn data_of(fd: RawFd, mode: Mode, place: Place) -> u64 {
    let level = match mode {
        Mode::Edge => 0,
        Mode::Level => LEVEL,
    };
    u64::from(place.generation) << 32 | u64::from(fd as u32 | level)
}
