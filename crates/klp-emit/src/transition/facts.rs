//! Facts about Linux: which functions make kernel threads, which wait without a time limit, and which are on the stack
//! of tasks that wait for long. Names are those of Linux 6.1 to 7.2; a name that a kernel lacks has no effect there.

/// A function that makes a kernel thread. The first argument is the thread's main function.
pub(super) struct Creator {
    pub(super) name: &'static str,
    /// The number of the argument, from 0, with the format of the thread's name.
    pub(super) format: Option<usize>,
}

/// Functions that make kernel threads (include/linux/kthread.h, include/linux/sched/task.h). `user_mode_thread` is not
/// among them, because its thread leaves for user space. Neither is smpboot_register_percpu_thread: the main function
/// of its threads is smpboot_thread_fn, which calls the caller's `.thread_fn` and gets control back (kernel/smpboot.c).
pub(super) const CREATORS: [Creator; 5] = [
    // kernel/kthread.c
    Creator { name: "kthread_create_on_node", format: Some(3) },
    Creator { name: "__kthread_create_on_node", format: Some(3) },
    Creator { name: "kthread_create_on_cpu", format: Some(3) },
    // kernel/fork.c
    Creator { name: "kernel_thread", format: None },
    Creator { name: "create_io_thread", format: None },
];

/// Functions in which a task waits until it is woken, without a time limit. Waits with a time limit are left out
/// (prepare_to_wait_event begins both kinds), and so are locks.
pub(super) const WAITS: [&str; 21] = [
    // kernel/sched/core.c; wait_event and similar macros call it in the function that uses them (include/linux/wait.h)
    "schedule",
    "io_schedule",
    // kernel/sched/wait.c
    "wait_woken",
    "do_wait_intr",
    "do_wait_intr_irq",
    // kernel/sched/completion.c
    "wait_for_completion",
    "wait_for_completion_io",
    "wait_for_completion_interruptible",
    "wait_for_completion_killable",
    "wait_for_completion_state",
    // kernel/time/hrtimer.c; in 7.2 partly kernel/time/sleep_timeout.c
    "do_nanosleep",
    "hrtimer_nanosleep",
    "schedule_hrtimeout_range",
    "schedule_hrtimeout_range_clock",
    // fs/select.c
    "poll_schedule_timeout",
    // kernel/futex/waitwake.c
    "futex_wait_queue",
    "futex_do_wait",
    // kernel/exit.c
    "do_wait",
    // net/core/sock.c, net/core/datagram.c
    "sk_wait_data",
    "__skb_wait_for_more_packets",
    // kernel/kthread.c
    "kthread_parkme",
];

/// Functions that only kernel threads call, to learn whether to end or to park (kernel/kthread.c). Such a call alone
/// does not count as a wait, because short functions of a thread also make it; kthread_parkme is also in `WAITS`.
pub(super) const OF_THREADS: [&str; 3] =
    ["kthread_should_stop", "kthread_freezable_should_stop", "kthread_parkme"];

/// Functions that call `schedule` to let another task run, without waiting for anything.
pub(super) const YIELDS: [&str; 8] = [
    // kernel/sched/syscalls.c; in 6.1 kernel/sched/core.c
    "do_sched_yield",
    "yield_to",
    // kernel/entry/common.c; in 7.2 partly include/linux/irq-entry-common.h
    "exit_to_user_mode_loop",
    "irqentry_exit_to_user_mode",
    "syscall_exit_to_user_mode",
    "syscall_exit_to_user_mode_work",
    // kernel/entry/kvm.c; in 7.2 kernel/entry/virt.c
    "xfer_to_guest_mode_handle_work",
    "xfer_to_guest_mode_work",
];

/// Functions that are on the stack of tasks that wait for long.
pub(super) struct OnPath {
    /// What these tasks do.
    pub(super) doing: &'static str,
    /// Functions by the kernel's file in which they are.
    pub(super) functions: &'static [(&'static str, &'static [&'static str])],
    /// System calls.
    pub(super) calls: &'static [&'static str],
}

/// Functions from the place where tasks sleep to the entry into the kernel. Most machines have such tasks at any time.
pub(super) const ON_PATH: [OnPath; 11] = [
    OnPath {
        doing: "sleep or wait for anything",
        functions: &[
            ("kernel/sched/core.c", &["schedule"]),
            ("kernel/time/timer.c", &["schedule_timeout"]),
            ("kernel/time/hrtimer.c", &["schedule_hrtimeout_range", "schedule_hrtimeout_range_clock"]),
            (
                "kernel/time/sleep_timeout.c",
                &["schedule_timeout", "schedule_hrtimeout_range", "schedule_hrtimeout_range_clock"],
            ),
            ("kernel/sched/wait.c", &["wait_woken"]),
        ],
        calls: &[],
    },
    OnPath {
        doing: "wait in poll or select",
        functions: &[(
            "fs/select.c",
            &[
                "do_sys_poll",
                "do_poll",
                "do_select",
                "core_sys_select",
                "kern_select",
                "do_pselect",
                "poll_schedule_timeout",
            ],
        )],
        calls: &["poll", "ppoll", "select", "pselect6"],
    },
    OnPath {
        doing: "wait in epoll_wait",
        functions: &[("fs/eventpoll.c", &["ep_poll", "do_epoll_wait", "do_epoll_pwait"])],
        calls: &["epoll_wait", "epoll_pwait", "epoll_pwait2"],
    },
    OnPath {
        doing: "wait in nanosleep",
        functions: &[
            ("kernel/time/hrtimer.c", &["do_nanosleep", "hrtimer_nanosleep"]),
            ("kernel/time/posix-timers.c", &["common_nsleep", "common_nsleep_timens"]),
        ],
        calls: &["nanosleep", "clock_nanosleep"],
    },
    OnPath {
        doing: "wait for a futex",
        functions: &[
            (
                "kernel/futex/waitwake.c",
                &[
                    "futex_wait",
                    "__futex_wait",
                    "futex_wait_queue",
                    "futex_do_wait",
                    "futex_wait_multiple",
                    "futex_wait_restart",
                ],
            ),
            ("kernel/futex/syscalls.c", &["do_futex"]),
        ],
        calls: &["futex", "futex_waitv", "futex_wait"],
    },
    OnPath {
        doing: "wait for a child process",
        functions: &[("kernel/exit.c", &["do_wait", "kernel_wait4", "kernel_waitid"])],
        calls: &["wait4", "waitid"],
    },
    OnPath {
        doing: "wait for a signal",
        functions: &[("kernel/signal.c", &["do_sigtimedwait", "sigsuspend"])],
        calls: &["rt_sigtimedwait", "rt_sigsuspend", "pause"],
    },
    OnPath {
        doing: "wait in read, for a pipe, a terminal or a socket",
        functions: &[
            ("fs/read_write.c", &["vfs_read", "ksys_read", "new_sync_read", "vfs_readv", "do_readv"]),
            ("fs/pipe.c", &["pipe_read", "anon_pipe_read", "fifo_pipe_read"]),
            ("drivers/tty/tty_io.c", &["tty_read", "iterate_tty_read"]),
            ("drivers/tty/n_tty.c", &["n_tty_read"]),
            ("net/socket.c", &["sock_read_iter"]),
        ],
        calls: &["read", "readv"],
    },
    OnPath {
        doing: "wait to open a FIFO",
        functions: &[("fs/pipe.c", &["wait_for_partner", "fifo_open"])],
        calls: &[],
    },
    OnPath {
        doing: "wait in accept",
        functions: &[
            ("net/ipv4/inet_connection_sock.c", &["inet_csk_accept", "inet_csk_wait_for_connect"]),
            ("net/ipv4/af_inet.c", &["inet_accept"]),
            ("net/unix/af_unix.c", &["unix_accept"]),
            ("net/socket.c", &["do_accept", "__sys_accept4", "__sys_accept4_file"]),
        ],
        calls: &["accept", "accept4"],
    },
    OnPath {
        doing: "wait for data of a socket",
        functions: &[
            (
                "net/socket.c",
                &[
                    "sock_recvmsg",
                    "sock_recvmsg_nosec",
                    "__sys_recvfrom",
                    "___sys_recvmsg",
                    "____sys_recvmsg",
                    "__sys_recvmsg",
                ],
            ),
            ("net/ipv4/af_inet.c", &["inet_recvmsg"]),
            ("net/ipv6/af_inet6.c", &["inet6_recvmsg"]),
            ("net/ipv4/tcp.c", &["tcp_recvmsg", "tcp_recvmsg_locked"]),
            ("net/ipv4/udp.c", &["udp_recvmsg", "__skb_recv_udp"]),
            ("net/ipv6/udp.c", &["udpv6_recvmsg"]),
            ("net/core/sock.c", &["sk_wait_data"]),
            (
                "net/core/datagram.c",
                &["__skb_wait_for_more_packets", "__skb_recv_datagram", "skb_recv_datagram"],
            ),
            (
                "net/unix/af_unix.c",
                &[
                    "unix_stream_recvmsg",
                    "unix_stream_read_generic",
                    "unix_stream_data_wait",
                    "unix_dgram_recvmsg",
                    "__unix_dgram_recvmsg",
                ],
            ),
            ("net/netlink/af_netlink.c", &["netlink_recvmsg"]),
        ],
        calls: &["recvfrom", "recvmsg"],
    },
];

/// The prefixes of a system call's functions, which end with `sys_` (include/linux/syscalls.h and
/// arch/*/include/asm/syscall_wrapper.h).
const SYSTEM_CALL: [&str; 6] =
    ["__x64_sys_", "__ia32_sys_", "__arm64_sys_", "__se_sys_", "__do_sys_", "sys_"];

/// What tasks do that have a function on their stack for long. `file` is the base name of the function's file, if
/// known.
pub(super) fn on_path(name: &str, file: Option<&str>) -> Option<&'static OnPath> {
    let call = SYSTEM_CALL.iter().find_map(|start| name.strip_prefix(start));
    let is_of = |path: &str| file.is_none_or(|file| path.rsplit('/').next() == Some(file));
    ON_PATH.iter().find(|path| {
        call.is_some_and(|call| path.calls.contains(&call))
            || path.functions.iter().any(|(of, functions)| is_of(of) && functions.contains(&name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_the_table_is_told_by_name_and_file() {
        let doing = |name, file| on_path(name, file).map(|path| path.doing);
        assert_eq!(doing("do_epoll_wait", Some("eventpoll.c")), Some("wait in epoll_wait"));
        assert_eq!(doing("do_epoll_wait", None), Some("wait in epoll_wait"));
        assert_eq!(doing("do_epoll_wait", Some("driver.c")), None);
        for name in ["__x64_sys_pause", "__arm64_sys_pause", "__do_sys_pause", "__ia32_sys_pause"] {
            assert_eq!(doing(name, Some("signal.c")), Some("wait for a signal"), "{name}");
        }
        for other in ["pause", "__x64_sys_getpid", "vfs_write", "schedule_work", ""] {
            assert_eq!(doing(other, None), None, "{other}");
        }
    }

    #[test]
    fn no_function_is_in_two_rows() {
        let mut all: Vec<&str> =
            ON_PATH.iter().flat_map(|path| path.functions).flat_map(|(_, names)| *names).copied().collect();
        all.sort_unstable();
        // Linux moved these functions to another file.
        let moved = ["schedule_hrtimeout_range", "schedule_hrtimeout_range_clock", "schedule_timeout"];
        let twice: Vec<&str> = all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        assert_eq!(twice, moved);
        assert!(YIELDS.iter().all(|name| on_path(name, None).is_none()));
    }
}
