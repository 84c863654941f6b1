//! Loaded livepatches, as sysfs shows them (Documentation/ABI/testing/sysfs-kernel-livepatch).

use std::collections::BTreeSet;

use crate::file::{Function, Livepatch};
use crate::host::{Host, is_name};

/// The folder of all livepatches in sysfs.
pub(crate) const ALL: &str = "/sys/kernel/livepatch";

/// The state of a livepatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Every task runs the new functions.
    Enabled,
    /// In transition to enabled.
    Enabling,
    /// In transition to disabled.
    Disabling,
    /// No task runs the new functions, but the module is still loaded.
    Disabled,
}

impl State {
    /// The words for people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            State::Enabled => "enabled",
            State::Enabling => "in transition, being enabled",
            State::Disabling => "in transition, being disabled",
            State::Disabled => "disabled",
        }
    }

    /// Returns true during a transition.
    pub(crate) fn is_transition(self) -> bool {
        matches!(self, State::Enabling | State::Disabling)
    }
}

/// A livepatch whose module is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) name: String,
    pub(crate) state: State,
    /// The replaced functions in sysfs, sorted.
    pub(crate) functions: BTreeSet<Function>,
    /// The build ID of the module.
    pub(crate) build_id: Option<String>,
}

impl Loaded {
    /// Returns true if the loaded module has the build ID of the file.
    pub(crate) fn is_of(&self, livepatch: &Livepatch) -> bool {
        self.build_id.is_some() && self.build_id == livepatch.build_id
    }
}

/// The sysfs folder of a livepatch.
pub(crate) fn folder(name: &str) -> String {
    format!("{ALL}/{name}")
}

/// A livepatch that has a folder in sysfs: it is enabled or in transition. From Linux 5.1 on, the kernel removes the
/// folder of a disabled livepatch.
pub(crate) fn one(host: &Host, name: &str) -> Option<Loaded> {
    let folder = folder(name);
    let flag = |file: &str| Some(host.text(&format!("{folder}/{file}"))? != "0");
    let state = match (flag("enabled")?, flag("transition").unwrap_or(false)) {
        (true, false) => State::Enabled,
        (true, true) => State::Enabling,
        (false, true) => State::Disabling,
        (false, false) => State::Disabled,
    };
    let objects = host.names(&folder);
    let functions = objects.iter().flat_map(|object| {
        let names = host.names(&format!("{folder}/{object}"));
        let names = names.into_iter().filter(|name| name.contains(','));
        names.map(|function| Function { object: object.clone(), function })
    });
    Some(Loaded {
        name: name.to_owned(),
        state,
        functions: functions.collect(),
        build_id: host.build_id_of(name),
    })
}

/// Every livepatch, sorted by name, with those that are disabled or replaced and whose modules are still loaded.
pub(crate) fn all(host: &Host) -> Vec<Loaded> {
    let mut found: Vec<Loaded> = active(host);
    for name in host.names("/sys/module").into_iter().filter(|name| is_name(name)) {
        if is_left(host, &name) {
            let build_id = host.build_id_of(&name);
            found.push(Loaded { name, state: State::Disabled, functions: BTreeSet::new(), build_id });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The livepatches that the livepatch core knows.
pub(crate) fn active(host: &Host) -> Vec<Loaded> {
    host.names(ALL).iter().filter_map(|name| one(host, name)).collect()
}

/// Returns true if a livepatch's module is loaded without effect.
pub(crate) fn is_left(host: &Host, name: &str) -> bool {
    let taint = host.text(&format!("/sys/module/{name}/taint"));
    // TAINT_LIVEPATCH (kernel/panic.c)
    taint.is_some_and(|taint| taint.contains('K')) && !host.has(&folder(name))
}
