//! Names that the kernel's macros and tools make from other names.

/// Returns `__BTF_ID__func__f__` for `__BTF_ID__func__f__120622886`. The symbol is a place for the number of a type,
/// which tools/bpf/resolve_btfids fills in after the link. A counter and a line follow the name
/// (include/linux/btf_ids.h). Returns `None` for any other name, including the name of a set.
pub fn type_id(name: &[u8]) -> Option<&[u8]> {
    const KINDS: [&[u8]; 4] = [b"struct__", b"union__", b"typedef__", b"func__"];
    let rest = name.strip_prefix(b"__BTF_ID__")?;
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let kind = KINDS.iter().any(|kind| rest.starts_with(kind));
    let base = &name[..name.len() - digits];
    (kind && digits > 0 && base.ends_with(b"__")).then_some(base)
}

/// Returns the mark at the start of a prefix function's name: of call padding (`--prefix` of tools/objtool) or of
/// kCFI's type hash.
pub fn prefix_mark(name: &[u8]) -> Option<&[u8]> {
    name.first_chunk::<6>().filter(|mark| PREFIXES.contains(mark)).map(|mark| &mark[..])
}

const PREFIXES: [&[u8; 6]; 2] = [b"__pfx_", b"__cfi_"];

/// Returns true for arm64 mapping symbols: `$x`, `$d` and their numbered forms.
pub fn is_mapping_symbol(name: &[u8]) -> bool {
    matches!(name, [b'$', b'x' | b'd'] | [b'$', b'x' | b'd', b'.', ..])
}

/// The prefix of the object of a class of trace events, `struct trace_event_class`.
pub const EVENT_CLASS: &[u8] = b"event_class_";
/// The prefix of the object of a trace event, `struct trace_event_call`.
pub const EVENT: &[u8] = b"event_";
/// The prefixes of all names that the definition of a class of trace events makes (include/trace/trace_events.h,
/// perf.h, bpf_probe.h; the same from 6.1 to 7.3).
const MADE_FOR_EVENT: [&[u8]; 14] = [
    EVENT_CLASS,
    EVENT,
    b"trace_event_raw_event_",
    b"do_trace_event_raw_event_",
    b"perf_trace_",
    b"do_perf_trace_",
    b"__bpf_trace_",
    b"trace_raw_output_",
    b"trace_event_get_offsets_",
    b"trace_event_fields_",
    b"trace_event_type_funcs_",
    b"trace_event_data_offsets_",
    b"trace_event_raw_",
    b"print_fmt_",
];

/// Returns the names of the classes of trace events whose definition can have made this name.
pub fn made_for_event(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    MADE_FOR_EVENT.iter().filter_map(|prefix| name.strip_prefix(*prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_type_numbers_are_told_by_kind_and_name() {
        let base = |name: &'static str| {
            type_id(name.as_bytes()).map(|base| std::str::from_utf8(base).expect("text"))
        };
        assert_eq!(base("__BTF_ID__func__vfs_read__120622886"), Some("__BTF_ID__func__vfs_read__"));
        assert_eq!(base("__BTF_ID__struct__x8__7"), Some("__BTF_ID__struct__x8__"));
        for other in [
            "__BTF_ID__set__deny",
            "__BTF_ID__set__deny__1234",
            "__BTF_ID__set8__kfuncs12",
            "__BTF_ID__func__f",
            "__BTF_ID__func__f12",
            "x",
        ] {
            assert_eq!(base(other), None, "{other}");
        }
    }
}
