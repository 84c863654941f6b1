//! Livepatches that are loaded, as sysfs shows them (Documentation/ABI/testing/sysfs-kernel-livepatch).

use std::collections::BTreeSet;

use crate::file::{Function, Livepatch};
use crate::host::{Host, is_name};

/// The folder of all livepatches.
pub(crate) const ALL: &str = "/sys/kernel/livepatch";

/// How far a livepatch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Every task runs the new functions.
    Enabled,
    /// On the way there.
    Enabling,
    /// On the way back.
    Disabling,
    /// No task runs the new functions; the module is there yet.
    Disabled,
}

impl State {
    /// For people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            State::Enabled => "enabled",
            State::Enabling => "in transition, being enabled",
            State::Disabling => "in transition, being disabled",
            State::Disabled => "disabled",
        }
    }

    /// True while tasks differ.
    pub(crate) fn is_transition(self) -> bool {
        matches!(self, State::Enabling | State::Disabling)
    }
}

/// A livepatch whose module is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) name: String,
    pub(crate) state: State,
    /// What sysfs shows as replaced, sorted.
    pub(crate) functions: BTreeSet<Function>,
    /// The build ID of its module.
    pub(crate) build_id: Option<String>,
}

impl Loaded {
    /// True when its module is that of a file, as far as build IDs tell.
    pub(crate) fn is_of(&self, livepatch: &Livepatch) -> bool {
        self.build_id.is_some() && self.build_id == livepatch.build_id
    }
}

/// The folder of one.
pub(crate) fn folder(name: &str) -> String {
    format!("{ALL}/{name}")
}

/// One that is enabled, or on the way to or from there. A livepatch that is disabled is not listed, because its folder is
/// gone from Linux 5.1 on.
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

/// Every one, sorted by name; those whose modules are left although they are disabled or replaced, too.
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

/// Those that the livepatch core knows.
pub(crate) fn active(host: &Host) -> Vec<Loaded> {
    host.names(ALL).iter().filter_map(|name| one(host, name)).collect()
}

/// True when the module of a livepatch is loaded and does nothing.
pub(crate) fn is_left(host: &Host, name: &str) -> bool {
    let taint = host.text(&format!("/sys/module/{name}/taint"));
    // TAINT_LIVEPATCH (kernel/panic.c)
    taint.is_some_and(|taint| taint.contains('K')) && !host.has(&folder(name))
}
