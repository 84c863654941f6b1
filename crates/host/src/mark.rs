//! Crash marks: each names a livepatch that is being loaded. A mark of an earlier boot means that the machine went down
//! during the load, so the livepatch is not loaded again unless the user asks for a retry.

use std::path::PathBuf;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use serde::{Deserialize, Serialize};

use crate::file::Livepatch;
use crate::host::{Host, is_name};
use crate::{files, loaded};

/// The folder of the marks, on a disk: a mark must survive a crash.
const FOLDER: &str = "/var/lib/klpx/loading";

/// A mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CrashMark {
    /// The name of the livepatch.
    pub(crate) name: String,
    /// The hash of the livepatch's file. Empty for an unreadable mark, which stands for every livepatch of its name.
    pub(crate) sha256: String,
    /// The boot of the load.
    pub(crate) boot_id: String,
}

fn path(host: &Host, name: &str) -> PathBuf {
    host.at(&format!("{FOLDER}/{name}"))
}

/// Marks a livepatch that is about to be loaded.
///
/// # Errors
/// The error of the system.
pub(crate) fn set(host: &Host, livepatch: &Livepatch) -> Result<()> {
    let (name, sha256) = (livepatch.name.clone(), livepatch.sha256.clone());
    let mark = CrashMark { name, sha256, boot_id: host.boot_id()? };
    let text = serde_json::to_vec(&mark).map_err(|_| Diagnosis::internal("a mark is JSON"))?;
    files::put(&path(host, &livepatch.name), &text)
}

/// Removes a mark.
///
/// # Errors
/// The error of the system.
pub(crate) fn clear(host: &Host, name: &str) -> Result<()> {
    files::remove(&path(host, name))
}

/// Every mark, sorted by name.
pub(crate) fn all(host: &Host) -> Vec<CrashMark> {
    let names = host.names(FOLDER).into_iter().filter(|name| is_name(name));
    let read = |name: String| {
        let text = host.text(&format!("{FOLDER}/{name}")).unwrap_or_default();
        let mark: Option<CrashMark> = serde_json::from_str(&text).ok();
        let unread = || CrashMark { name: name.clone(), sha256: String::new(), boot_id: String::new() };
        mark.filter(|mark| mark.name == name).unwrap_or_else(unread)
    };
    names.map(read).collect()
}

/// The marks of other boots.
///
/// # Errors
/// The error of the system.
pub(crate) fn of_crashes(host: &Host) -> Result<Vec<CrashMark>> {
    let boot = host.boot_id()?;
    Ok(all(host).into_iter().filter(|mark| mark.boot_id != boot).collect())
}

/// Refuses a livepatch that was being loaded when the machine went down.
///
/// # Errors
/// `klpx::crash-mark`.
pub(crate) fn check(host: &Host, livepatch: &Livepatch) -> Result<()> {
    let of_it = |mark: &CrashMark| {
        mark.name == livepatch.name && (mark.sha256.is_empty() || mark.sha256 == livepatch.sha256)
    };
    match of_crashes(host)?.iter().any(of_it) {
        false => Ok(()),
        true => {
            let what = "the machine went down while this livepatch was being loaded";
            Err(Diagnosis::new(
                &codes::CRASH_MARK,
                what,
                format!("{FOLDER}/{} is of another boot; it may have crashed the kernel", livepatch.name),
                format!(
                    "look into the log of that boot; then try it again with klpx-host load \
                     --retry {}, or remove it with klpx-host uninstall {}",
                    livepatch.name, livepatch.name
                ),
            )
            .place(DiagnosisPlace::symbol(livepatch.name.clone()))
            .into())
        }
    }
}

/// Clears the marks of this boot, which a killed klpx-host left. The caller holds the lock, so no load is going on. A
/// livepatch that was loaded did no harm, unless its transition goes on.
///
/// # Errors
/// The error of the system.
pub(crate) fn settle(host: &Host) -> Result<()> {
    let boot = host.boot_id()?;
    for mark in all(host).into_iter().filter(|mark| mark.boot_id == boot) {
        if !loaded::find_loaded(host, &mark.name).is_some_and(|loaded| loaded.state.is_transition()) {
            clear(host, &mark.name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::livepatch;
    use crate::testing::Machine;

    #[test]
    fn a_mark_of_another_boot_stands_for_one_file() {
        let machine = Machine::new();
        let (host, a) = (machine.host(), livepatch("a", &["f"]));
        set(&host, &a).unwrap();
        check(&host, &a).unwrap();
        machine.put("/proc/sys/kernel/random/boot_id", "boot-2\n");
        let refused = check(&host, &a).unwrap_err();
        assert_eq!(refused.diagnoses().next().unwrap().code, "klpx::crash-mark");
        check(&host, &Livepatch { sha256: "newer".into(), ..a.clone() }).unwrap();
        check(&host, &livepatch("b", &["f"])).unwrap();
        settle(&host).unwrap();
        assert!(check(&host, &a).is_err(), "it is not of this boot");
        clear(&host, "a").unwrap();
        check(&host, &a).unwrap();
    }

    #[test]
    fn a_mark_that_is_damaged_stands_for_all_of_its_name() {
        for text in ["", "{", "{\"name\":\"b\",\"sha256\":\"x\",\"boot_id\":\"boot-1\"}"] {
            let machine = Machine::new();
            machine.put("/var/lib/klpx/loading/a", text);
            assert!(check(&machine.host(), &livepatch("a", &["f"])).is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_killed_in_this_boot_is_settled_when_its_transition_is_over() {
        let machine = Machine::new();
        let host = machine.host();
        for (name, transition) in [("a", "0"), ("b", "1")] {
            machine.livepatch(name, "1", transition, &["f"]);
            set(&host, &livepatch(name, &["f"])).unwrap();
        }
        set(&host, &livepatch("refused", &["f"])).unwrap();
        settle(&host).unwrap();
        assert_eq!(all(&host).iter().map(|mark| mark.name.as_str()).collect::<Vec<_>>(), ["b"]);
    }
}
