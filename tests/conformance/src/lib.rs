//! The conformance suite: what every loop has to do, and what the reactor has to make of it.
//!
//! A case is a function of a constructor: of a [`Loop`], which it talks to directly, or of a reactor on one.
//! [`cases`] lists them. The runner in `tests/` runs each on every loop and compares the [`trace`]s; a new loop
//! needs one line there.

pub mod cancel;
pub mod fork;
pub mod kinds;
pub mod ops;
pub mod order;
pub mod phases;
pub mod readiness;
pub mod signals;
pub mod sources;
pub mod storms;
pub mod support;
pub mod threads;
pub mod trace;
pub mod waiting;
pub mod watchers;

use gevent_hub_core::event_loop::Loop;
use gevent_hub_core::reactor::Reactor;
use std::rc::Rc;
use support::{MakeLoop, MakeReactor};

/// What a case needs.
#[derive(Clone, Copy)]
pub enum Run {
    /// A loop.
    Loop(fn(MakeLoop)),
    /// A reactor on a loop with real descriptors.
    Reactor(fn(MakeReactor)),
    /// A reactor on any loop, also the fake one with virtual time.
    AnyReactor(fn(MakeReactor)),
}

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// `module::function`.
    pub name: &'static str,
    /// The function.
    pub run: Run,
}

impl Case {
    /// Runs it on loops from `make`, and gives its trace.
    pub fn trace_on(&self, make: MakeLoop) -> Vec<String> {
        let reactor = || -> Rc<Reactor> { support::reactor(make()) };
        let traced = || Box::new(trace::Traced::new(make())) as Box<dyn Loop>;
        trace::begin();
        match self.run {
            Run::Loop(case) => case(&traced),
            Run::Reactor(case) | Run::AnyReactor(case) => case(&reactor),
        }
        trace::end()
    }
}

macro_rules! list {
    ($($kind:ident $module:ident { $($case:ident)* })*) => {
        vec![$($(Case {
            name: concat!(stringify!($module), "::", stringify!($case)),
            run: Run::$kind($module::$case),
        },)*)*]
    };
}

/// All cases.
pub fn cases() -> Vec<Case> {
    list! {
        Loop readiness {
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
            a_terminal_can_be_watched
        }
        Loop kinds {
            a_directory_and_a_device_answer_as_files_do
            a_fifo_is_opened_closed_and_opened_again
            a_terminal_hangs_up_when_its_other_side_closes
            both_sides_of_a_terminal_are_watched
            datagrams_come_one_by_one
            a_refused_datagram_is_an_error
            packets_in_sequence_have_an_end
            an_unconnected_stream_waits_to_be_connected
            another_loop_is_something_to_read
            urgent_data_is_heard_in_every_mode_that_reads
            a_half_closed_stream_is_written_to_and_then_closed
            shutting_down_our_own_side_hangs_nothing_up
            partial_reads_keep_a_level_and_not_an_edge
            a_full_stream_becomes_writable_for_both_modes
            a_duplicate_outlives_the_closing_of_the_first
            the_same_stream_by_two_numbers_in_two_modes
        }
        Loop cancel {
            before_the_first_poll
            after_a_poll
            when_the_data_is_there_already
            after_the_end_came_with_a_poll
            of_what_does_not_exist
            a_send_that_waits_for_room
            an_accept
            a_connect
            a_read_and_a_write_of_a_pipe
            a_poll_and_a_message
            one_of_many_leaves_the_others
            closing_at_every_point
            cancelled_keys_are_used_again
            a_storm_of_cancellations
        }
        Loop waiting {
            now_does_not_wait
            a_deadline_is_kept_and_not_rounded_to_nothing
            a_wake_ends_a_wait_without_end
            a_wake_before_the_poll_is_not_lost
            wakes_coalesce
            a_waker_outlives_its_loop
            many_threads_wake
            an_interrupted_wait_is_no_error
            its_descriptor_tells_that_there_is_something_to_do
            the_counters_count
        }
        Loop ops {
            a_receive_waits_for_data
            a_receive_with_data_there_gets_it
            receives_are_served_in_their_order
            receives_of_the_kernels_are_served_in_their_order
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
            paths_are_done_or_offloaded
            messages_are_sent_and_received
            urgent_bytes_are_received_as_such
            operations_and_watchers_share_a_descriptor
            reads_and_writes_of_one_stream_wait_at_once
        }
        Loop storms {
            ten_thousand_descriptors
            ten_thousand_level_watchers_all_get_their_turn
            watchers_come_and_go_by_thousands
            wakes_from_many_threads_while_descriptors_are_busy
            numbers_are_used_again_and_again
        }
        Loop fork {
            a_child_hears_its_own_and_leaves_the_parent_alone
            a_child_that_nobody_told_hears_all_the_same
            operations_start_again_in_the_child
            wakes_of_the_child_stay_in_the_child
            a_child_of_a_child_is_on_its_own_too
            cancelling_in_the_child_leaves_the_parents_operation
        }
        Reactor fork {
            the_reactor_runs_fork_watchers_in_the_child
            the_offload_pool_works_in_the_child
            watchers_of_every_kind_go_on_in_the_child
        }
        Reactor sources {
            a_fiber_waits_only_after_eagain
            an_end_of_file_in_the_same_edge_is_not_lost
            both_directions_are_waited_for_at_once
            closing_wakes_whoever_waits
            a_detached_source_is_silent
            what_a_short_read_left_is_found
            a_short_read_is_as_good_as_eagain
            a_file_never_waits
            a_number_used_again_is_another_source
            a_level_watcher_and_a_source_share_a_descriptor
        }
        Reactor threads {
            async_sends_come_from_other_threads
            remote_entries_wake_a_sleeping_loop
            a_storm_of_wakes_loses_nothing
        }
        Reactor watchers {
            io_watchers_repeat_and_stop
            io_watchers_on_a_closed_descriptor_get_an_error
            io_watchers_on_a_file_are_always_ready
            io_watchers_go_by_priority
            a_callback_closes_what_another_waits_for
            a_child_is_reaped_with_its_status
            a_child_that_ended_before_the_start_is_seen
            two_watchers_of_one_child_both_hear
            any_child_is_reaped_by_pid_zero
            a_traced_child_reports_stops
            other_children_are_left_to_others
            a_stat_watcher_sees_a_file_change
            a_stat_watcher_is_told_of_changes
        }
        Reactor signals {
            a_signal_wakes_a_sleeping_loop
            two_signals_go_by_priority
            a_storm_of_signals_loses_no_descriptor
            a_signal_and_the_end_of_a_child_come_together
            a_stopped_watcher_gives_the_signal_back
        }
        Reactor order {
            ready_descriptors_go_by_priority_among_all_kinds
            what_a_callback_starts_waits_for_the_next_iteration
            what_a_callback_stops_does_not_run
            a_starved_idle_watcher_runs_when_nothing_else_does
            timers_and_descriptors_of_one_iteration
            readiness_goes_before_a_deadline_that_is_due
            a_nested_run_takes_what_was_pending
            unreferenced_descriptors_let_the_run_end
            feeding_is_as_good_as_happening
            watchers_of_one_descriptor_run_in_the_order_of_their_start
        }
        AnyReactor phases {
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
            a_parks_deadline_passes
        }
    }
}
