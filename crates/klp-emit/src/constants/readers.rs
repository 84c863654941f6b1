//! Functions of the kernel that only read their arguments and keep no address of them.
//!
//! Owns the table, with the kernel's file that proves each entry. A function that is not in the table counts as one
//! that keeps its arguments.

/// A function that keeps nothing.
#[derive(Debug)]
pub(super) struct ReaderFunction {
    /// The function's symbol.
    pub(super) name: &'static str,
    /// The number of arguments in registers; `ALL` if the number varies.
    pub(super) arguments: usize,
    /// The arguments that the function only reads, from 0.
    pub(super) reads: &'static [usize],
    /// The argument into which the returned address may point.
    pub(super) returns_into: Option<usize>,
}

const fn reader(name: &'static str, arguments: usize, reads: &'static [usize]) -> ReaderFunction {
    ReaderFunction { name, arguments, reads, returns_into: None }
}

/// A reader that returns an address inside its argument `into`.
const fn finder(
    name: &'static str,
    arguments: usize,
    reads: &'static [usize],
    into: usize,
) -> ReaderFunction {
    ReaderFunction { name, arguments, reads, returns_into: Some(into) }
}

/// The number of arguments that can be in registers.
const ALL: usize = 6;

static READERS: &[ReaderFunction] = &[
    // lib/nlattr.c. An error report (struct netlink_ext_ack) refers to the policy, as it does to its message, until the
    // answer is sent. `nla_parse` and `nla_validate` are functions up to Linux 5.1.
    reader("__nla_parse", ALL, &[4]),
    reader("__nla_validate", ALL, &[3]),
    reader("nla_parse", ALL, &[3, 4]),
    reader("nla_validate", ALL, &[3]),
    reader("nla_policy_len", 2, &[0]),
    // lib/string.c, arch/x86/lib
    reader("memcpy", 3, &[1]),
    reader("__memcpy", 3, &[1]),
    reader("memmove", 3, &[1]),
    reader("__memmove", 3, &[1]),
    reader("memcmp", 3, &[0, 1]),
    reader("bcmp", 3, &[0, 1]),
    finder("memchr", 3, &[0], 0),
    finder("memchr_inv", 3, &[0], 0),
    reader("strcmp", 2, &[0, 1]),
    reader("strncmp", 3, &[0, 1]),
    reader("strcasecmp", 2, &[0, 1]),
    reader("strncasecmp", 3, &[0, 1]),
    reader("strlen", 1, &[0]),
    reader("strnlen", 2, &[0]),
    reader("strcpy", 2, &[1]),
    reader("strncpy", 3, &[1]),
    reader("strlcpy", 3, &[1]),
    reader("strscpy", 3, &[1]),
    reader("sized_strscpy", 3, &[1]),
    reader("strcat", 2, &[1]),
    reader("strncat", 3, &[1]),
    reader("strlcat", 3, &[1]),
    reader("strsep", 2, &[1]),
    reader("strspn", 2, &[0, 1]),
    reader("strcspn", 2, &[0, 1]),
    finder("strpbrk", 2, &[0, 1], 0),
    finder("strchr", 2, &[0], 0),
    finder("strrchr", 2, &[0], 0),
    finder("strstr", 2, &[0, 1], 0),
    finder("strnstr", 3, &[0, 1], 0),
    // lib/string_helpers.c
    reader("sysfs_streq", 2, &[0, 1]),
    reader("match_string", 3, &[0, 2]),
    reader("__sysfs_match_string", 3, &[0, 2]),
    // lib/parser.c: the result points into the text, not into the table
    reader("match_token", 3, &[1]),
    // lib/bsearch.c: the comparison function also gets both
    finder("bsearch", 5, &[0, 1], 1),
    // lib/vsprintf.c, kernel/printk/printk.c, fs/seq_file.c, fs/sysfs/file.c, drivers/base/core.c: formats and
    // arguments are read before the function returns
    reader("_printk", ALL, &[0, 1, 2, 3, 4, 5]),
    reader("printk", ALL, &[0, 1, 2, 3, 4, 5]),
    reader("sprintf", ALL, &[1, 2, 3, 4, 5]),
    reader("snprintf", ALL, &[2, 3, 4, 5]),
    reader("scnprintf", ALL, &[2, 3, 4, 5]),
    reader("seq_printf", ALL, &[1, 2, 3, 4, 5]),
    reader("seq_puts", 2, &[1]),
    reader("__seq_puts", 2, &[1]),
    reader("seq_write", 3, &[1]),
    reader("sysfs_emit", ALL, &[1, 2, 3, 4, 5]),
    reader("sysfs_emit_at", ALL, &[2, 3, 4, 5]),
    reader("_dev_emerg", ALL, &[1, 2, 3, 4, 5]),
    reader("_dev_alert", ALL, &[1, 2, 3, 4, 5]),
    reader("_dev_crit", ALL, &[1, 2, 3, 4, 5]),
    reader("_dev_err", ALL, &[1, 2, 3, 4, 5]),
    reader("_dev_warn", ALL, &[1, 2, 3, 4, 5]),
    reader("_dev_notice", ALL, &[1, 2, 3, 4, 5]),
    reader("_dev_info", ALL, &[1, 2, 3, 4, 5]),
    // lib/usercopy.c, fs/libfs.c
    reader("_copy_to_user", 3, &[1]),
    reader("simple_read_from_buffer", 5, &[3]),
    reader("memory_read_from_buffer", 5, &[3]),
    // mm/util.c: makes a copy
    reader("kmemdup", 3, &[0]),
    reader("kmemdup_noprof", 3, &[0]),
    reader("kstrdup", 2, &[0]),
    reader("kstrdup_noprof", 2, &[0]),
    // drivers/of/base.c
    finder("of_match_node", 2, &[0], 0),
    // drivers/pci/pci-driver.c, arch/x86/kernel/cpu/match.c
    finder("pci_match_id", 2, &[0], 0),
    finder("x86_match_cpu", 1, &[0], 0),
    // kernel/trace/trace_output.c
    reader("trace_print_symbols_seq", 4, &[2]),
    // drivers/i2c/i2c-core-base.c
    finder("i2c_match_id", 2, &[0], 0),
    // drivers/firmware/dmi_scan.c: an entry's own function gets the entry, and a table with functions is not passed on
    reader("dmi_check_system", 1, &[0]),
    finder("dmi_first_match", 1, &[0], 0),
];

/// Prefixes of assembly functions with calling conventions of their own (arch/x86: lib, entry/thunk.S, paravirt, static
/// calls, hypercalls): such a function may take and preserve any register.
const ASSEMBLY: [&[u8]; 15] = [
    b"preempt_schedule",
    b"__SCT__",
    b"__raw_callee_save",
    b"__get_user",
    b"__put_user",
    b"__sw_hweight",
    b"__x86_",
    b"cmpxchg",
    b"this_cpu_cmpxchg",
    b"rep_",
    b"copy_user_",
    b"clear_user_",
    b"clear_page_",
    b"xen_hypercall",
    b"hypercall",
];

/// Returns true if the name is that of a function with a calling convention of its own.
pub(super) fn is_assembly(name: &[u8]) -> bool {
    ASSEMBLY.iter().any(|start| name.starts_with(start))
}

/// The reader of this name, if the function is known to keep nothing.
pub(super) fn reader_of(name: &[u8]) -> Option<&'static ReaderFunction> {
    READERS.iter().find(|reader| reader.name.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_function_is_there_once_and_reads_arguments_that_it_has() {
        for (n, reader) in READERS.iter().enumerate() {
            assert!(READERS[..n].iter().all(|other| other.name != reader.name), "{}", reader.name);
            assert!(reader.arguments <= ALL, "{}", reader.name);
            let own = |argument: &usize| *argument < reader.arguments;
            assert!(reader.reads.iter().all(own) && !reader.reads.is_empty(), "{}", reader.name);
            assert!(reader.returns_into.is_none_or(|into| reader.reads.contains(&into)), "{}", reader.name);
        }
        assert!(reader_of(b"strcmp").is_some() && reader_of(b"kstrdup_const").is_none());
    }
}
