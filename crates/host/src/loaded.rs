//! Loaded livepatches, as sysfs shows them (Documentation/ABI/testing/sysfs-kernel-livepatch).

use std::collections::BTreeSet;

use crate::file::{Livepatch, ReplacedFunction};
use crate::host::{Host, is_name};

/// The folder of all livepatches in sysfs.
pub(crate) const ALL: &str = "/sys/kernel/livepatch";

/// The state of a livepatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LivepatchState {
    /// Every task runs the new functions.
    Enabled,
    /// In transition to enabled.
    Enabling,
    /// In transition to disabled.
    Disabling,
    /// No task runs the new functions, but the module is still loaded.
    Disabled,
}

impl LivepatchState {
    /// The words for people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            LivepatchState::Enabled => "enabled",
            LivepatchState::Enabling => "in transition, being enabled",
            LivepatchState::Disabling => "in transition, being disabled",
            LivepatchState::Disabled => "disabled",
        }
    }

    /// Returns true during a transition.
    pub(crate) fn is_transition(self) -> bool {
        matches!(self, LivepatchState::Enabling | LivepatchState::Disabling)
    }
}

/// A livepatch whose module is loaded.
#[derive(Clone, Debug)]
pub(crate) struct LoadedLivepatch {
    pub(crate) name: String,
    pub(crate) state: LivepatchState,
    /// The replaced functions in sysfs, sorted.
    pub(crate) functions: BTreeSet<ReplacedFunction>,
    /// The build ID of the module.
    pub(crate) build_id: Option<String>,
}

impl LoadedLivepatch {
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
pub(crate) fn find_loaded(host: &Host, name: &str) -> Option<LoadedLivepatch> {
    let folder = folder(name);
    let flag = |file: &str| Some(host.text(&format!("{folder}/{file}"))? != "0");
    let state = match (flag("enabled")?, flag("transition").unwrap_or(false)) {
        (true, false) => LivepatchState::Enabled,
        (true, true) => LivepatchState::Enabling,
        (false, true) => LivepatchState::Disabling,
        (false, false) => LivepatchState::Disabled,
    };
    let objects = host.names(&folder);
    let functions = objects.iter().flat_map(|object| {
        let names = host.names(&format!("{folder}/{object}"));
        let names = names.into_iter().filter(|name| name.contains(','));
        names.map(|function| ReplacedFunction { object: object.clone(), function })
    });
    Some(LoadedLivepatch {
        name: name.to_owned(),
        state,
        functions: functions.collect(),
        build_id: host.build_id_of(name),
    })
}

/// Every livepatch, sorted by name, with those that are disabled or replaced and whose modules are still loaded.
pub(crate) fn all(host: &Host) -> Vec<LoadedLivepatch> {
    let mut found: Vec<LoadedLivepatch> = active(host);
    for name in host.names("/sys/module").into_iter().filter(|name| is_name(name)) {
        if is_left(host, &name) {
            let build_id = host.build_id_of(&name);
            found.push(LoadedLivepatch {
                name,
                state: LivepatchState::Disabled,
                functions: BTreeSet::new(),
                build_id,
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The livepatches that the livepatch core knows.
pub(crate) fn active(host: &Host) -> Vec<LoadedLivepatch> {
    host.names(ALL).iter().filter_map(|name| find_loaded(host, name)).collect()
}

/// Returns true if a livepatch's module is loaded without effect.
pub(crate) fn is_left(host: &Host, name: &str) -> bool {
    let taint = host.text(&format!("/sys/module/{name}/taint"));
    // TAINT_LIVEPATCH (kernel/panic.c)
    taint.is_some_and(|taint| taint.contains('K')) && !host.has(&folder(name))
}
