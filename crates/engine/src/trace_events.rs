//! Names trace events in failures: macros make functions, tables and types from an event's definition, and only the
//! event's name is in the source.

use std::collections::BTreeSet;

use klpx_diagnosis::Diagnosis;
use klpx_normalize::name::{EVENT, EVENT_CLASS, made_for_event};
use klpx_normalize::object::Object;

use crate::pairs::PairObjects;

/// The trace events whose definitions are compiled into a set of objects.
#[derive(Default)]
pub(crate) struct TraceEvents {
    classes: BTreeSet<Vec<u8>>,
    events: BTreeSet<Vec<u8>>,
}

impl TraceEvents {
    pub(crate) fn find(objects: &[PairObjects<'_>]) -> TraceEvents {
        let mut found = TraceEvents::default();
        for pair in objects {
            found.add(&pair.original);
            found.add(&pair.patched);
        }
        found
    }

    fn add(&mut self, object: &Object<'_>) {
        for item in object.item_ids() {
            let name = object.item_name(item);
            self.classes.extend(name.strip_prefix(EVENT_CLASS).map(<[u8]>::to_vec));
            self.events.extend(name.strip_prefix(EVENT).map(<[u8]>::to_vec));
        }
    }

    /// The trace event, or class of trace events, whose definition makes something of this name.
    fn made_by(&self, name: &str) -> Option<String> {
        let class = made_for_event(name.as_bytes()).find(|class| self.classes.contains(*class))?;
        let kind = if self.events.contains(class) { "trace event" } else { "class of trace events" };
        Some(format!("{kind} {}", String::from_utf8_lossy(class)))
    }

    /// Adds to a refusal the trace event whose definition makes the refused item.
    pub(crate) fn name_event(&self, name: &str, mut refusal: Diagnosis) -> Diagnosis {
        if let Some(event) = self.made_by(name) {
            refusal.why = format!("the definition of {event} makes it; {}", refusal.why);
            refusal.remedy = format!(
                "leave the definition of {event} as it is: the kernel's tables hold its functions, fields and format"
            );
        }
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klpx_diagnosis::codes;

    #[test]
    fn what_a_definition_makes_is_told_by_the_event() {
        let names = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let events = TraceEvents {
            classes: names(&["signal_generate", "softirq"]),
            events: names(&["signal_generate"]),
        };
        let cases = [
            ("perf_trace_signal_generate", Some("trace event signal_generate")),
            ("trace_event_raw_event_signal_generate", Some("trace event signal_generate")),
            ("print_fmt_softirq", Some("class of trace events softirq")),
            ("trace_event_raw_softirq", Some("class of trace events softirq")),
            // Functions of perf itself.
            ("perf_trace_init", None),
            ("signal_generate", None),
        ];
        for (name, expected) in cases {
            assert_eq!(events.made_by(name).as_deref(), expected, "{name}");
        }
        let refusal = Diagnosis::new(&codes::NOT_TRACEABLE, "no", "it is notrace", "none");
        assert_eq!(
            events.name_event("perf_trace_softirq", refusal.clone()).why,
            "the definition of class of trace events softirq makes it; it is notrace"
        );
        assert_eq!(events.name_event("perf_trace_init", refusal.clone()), refusal);
    }
}
