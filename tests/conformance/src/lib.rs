//! The conformance suite: what every loop has to do, and what the reactor has to make of it.
//!
//! A case is a function of a constructor. [`loop_suite!`] makes a test of each case that talks to a
//! [`Loop`](gevent_hub_core::event_loop::Loop) directly and of each that talks to a reactor on it;
//! [`reactor_suite!`] leaves out what needs real descriptors, for the fake loop. A file in `tests/` names
//! the loop; nothing else has to be written for one.

pub mod fork;
pub mod ops;
pub mod readiness;
pub mod sources;
pub mod support;
pub mod threads;
pub mod waiting;
pub mod watchers;

struct Skipped(String);

/// Called by a constructor when this machine does not have the loop: ends the case, and says so.
pub fn skip(why: impl std::fmt::Display) -> ! {
    std::panic::resume_unwind(Box::new(Skipped(why.to_string())))
}

/// Runs one case.
#[doc(hidden)]
pub fn run(case: impl FnOnce()) {
    if let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(case)) {
        match payload.downcast::<Skipped>() {
            Ok(skipped) => eprintln!("skipped: {}", skipped.0),
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }
}

/// Makes a test of every case of one module.
#[macro_export]
#[doc(hidden)]
macro_rules! cases {
    ($make:expr, $module:ident: $($case:ident)*) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(#[test]
            fn $case() {
                $crate::run(|| $crate::$module::$case(&$make));
            })*
        }
    };
}

/// Tests the loop that `$make`, a closure, gives as a `Box<dyn Loop>`.
#[macro_export]
macro_rules! loop_suite {
    ($make:expr) => {
        $crate::cases!($make, readiness:
            level_repeats_until_it_is_read
            an_edge_comes_once_for_each_change
            an_edge_watcher_hears_of_what_was_ready_before
            a_second_edge_watcher_hears_too_and_the_first_goes_on
            keys_on_one_descriptor_have_their_own_interests
            nothing_comes_after_unwatch
            a_second_watch_of_a_key_replaces_the_first
            a_half_close_is_reading_and_rdhup
            a_full_close_of_a_unix_peer_hangs_up
            a_reset_is_an_error_or_a_hang_up
            urgent_data_is_seen_by_an_edge_watcher
            pipes_report_data_and_both_kinds_of_end
            a_regular_file_is_ready
            a_bad_descriptor_is_refused
            a_number_used_again_after_closing_belongs_to_the_new_key
            a_number_used_again_without_notice_works
            duplicates_are_separate
            a_description_that_lives_on_is_silent_after_unwatch
            connects_report_success_and_refusal
            a_listener_is_readable_when_someone_connects
            hundreds_of_descriptors_are_told_apart
            a_terminal_can_be_watched);
        $crate::cases!($make, waiting:
            now_does_not_wait
            a_deadline_is_kept_and_not_rounded_to_nothing
            a_wake_ends_a_wait_without_end
            a_wake_before_the_poll_is_not_lost
            wakes_coalesce
            a_waker_outlives_its_loop
            many_threads_wake
            an_interrupted_wait_is_no_error
            the_signal_mask_is_in_force_during_the_wait
            its_descriptor_tells_that_there_is_something_to_do
            the_counters_count);
        $crate::cases!($make, ops:
            a_receive_waits_for_data
            a_receive_with_data_there_gets_it
            receives_are_served_in_their_order
            a_receive_ends_with_the_stream
            a_big_send_goes_on_when_there_is_room
            an_accept_gives_a_ready_made_descriptor
            connects_succeed_and_are_refused
            a_pipe_is_read_and_written
            a_poll_reports_bits
            a_cancelled_receive_loses_nothing
            closing_ends_what_waits
            a_bad_descriptor_is_an_error
            files_are_done_or_offloaded
            messages_are_sent_and_received);
        $crate::cases!($make, fork:
            a_child_hears_its_own_and_leaves_the_parent_alone
            operations_start_again_in_the_child
            wakes_of_the_child_stay_in_the_child
            the_reactor_runs_fork_watchers_in_the_child
            the_offload_pool_works_in_the_child);
        $crate::cases!(|| $crate::support::reactor($make()), sources:
            a_fiber_waits_only_after_eagain
            an_end_of_file_in_the_same_edge_is_not_lost
            both_directions_are_waited_for_at_once
            closing_wakes_whoever_waits
            a_detached_source_is_silent
            a_file_never_waits
            a_number_used_again_is_another_source
            a_level_watcher_and_a_source_share_a_descriptor);
        $crate::reactor_suite!(|| $crate::support::reactor($make()));
        $crate::cases!(|| $crate::support::reactor($make()), threads:
            async_sends_come_from_other_threads
            remote_entries_wake_a_sleeping_loop);
        $crate::cases!(|| $crate::support::reactor($make()), watchers:
            io_watchers_repeat_and_stop
            io_watchers_on_a_closed_descriptor_get_an_error
            io_watchers_on_a_file_are_always_ready
            io_watchers_go_by_priority
            a_callback_closes_what_another_waits_for
            a_signal_wakes_a_sleeping_loop
            a_child_is_reaped_with_its_status
            a_child_that_ended_before_the_start_is_seen
            two_watchers_of_one_child_both_hear
            any_child_is_reaped_by_pid_zero
            a_traced_child_reports_stops
            other_children_are_left_to_others
            a_stat_watcher_sees_a_file_change
            a_stat_watcher_is_told_of_changes);
    };
}

/// Tests a reactor on any loop, also a fake one, with what needs no descriptors; `$make`, a closure, gives
/// an `Rc<Reactor>`.
#[macro_export]
macro_rules! reactor_suite {
    ($make:expr) => {
        $crate::cases!($make, phases:
            prepare_queue_timer_check_come_in_order
            timers_fire_in_the_order_of_deadlines
            a_timer_is_never_early
            a_repeating_timer_repeats
            idle_watchers_keep_the_loop_awake
            unreferenced_watchers_let_it_end
            run_modes_end_after_one_iteration
            break_ends_a_run
            runs_nest
            destroying_in_a_callback_ends_the_run
            a_parks_deadline_passes);
    };
}

pub mod phases;
