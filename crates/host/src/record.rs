//! The records of livepatches until the next boot: since when each is enabled, and from which file. sysfs does not show
//! either: the times of its folders are the times of the first access (fs/kernfs/inode.c).

use std::fs::{self, File};

use klpx_diagnosis::{Diagnosis, Result};
use serde::{Deserialize, Serialize};

use crate::file::Livepatch;
use crate::files;
use crate::host::{Host, failed};

/// The folder of the records, in memory: it is empty after a boot.
const FOLDER: &str = "/run/klpx";

/// The record of one livepatch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LivepatchRecord {
    /// The end of the transition, in seconds since 1970.
    pub(crate) since: u64,
    /// The module's own build ID.
    pub(crate) build_id: Option<String>,
    /// The hash of the livepatch's file.
    pub(crate) sha256: String,
    /// True if the transition was forced.
    pub(crate) forced: bool,
    pub(crate) description: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) cves: Vec<String>,
}

/// Records a livepatch.
///
/// # Errors
/// The error of the system.
pub(crate) fn put(host: &Host, livepatch: &Livepatch, forced: bool) -> Result<()> {
    let record = LivepatchRecord {
        since: host.kernel.date(),
        build_id: livepatch.build_id.clone(),
        sha256: livepatch.sha256.clone(),
        forced,
        description: livepatch.description.clone(),
        version: livepatch.version.clone(),
        cves: livepatch.cves.clone(),
    };
    let text = serde_json::to_vec(&record).map_err(|_| Diagnosis::internal("a record is JSON"))?;
    files::put(&host.at(&path(&livepatch.name)), &text)
}

/// The record of a module with this build ID.
pub(crate) fn read(host: &Host, name: &str, build_id: Option<&str>) -> Option<LivepatchRecord> {
    let record: LivepatchRecord = serde_json::from_str(&host.text(&path(name))?).ok()?;
    (record.build_id.as_deref() == build_id).then_some(record)
}

/// Removes the record of a livepatch.
pub(crate) fn clear(host: &Host, name: &str) {
    // A leftover record is harmless: records are used only for loaded livepatches.
    let _ = fs::remove_file(host.at(&path(name)));
}

fn path(name: &str) -> String {
    format!("{FOLDER}/{name}.json")
}

/// Lets one klpx-host at a time change the loaded livepatches, as long as the returned file is open.
///
/// # Errors
/// The error of the system.
pub(crate) fn lock(host: &Host) -> Result<File> {
    let path = host.at(&format!("{FOLDER}/lock"));
    let open = || -> std::io::Result<File> {
        fs::create_dir_all(host.at(FOLDER))?;
        let file = File::options().create(true).append(true).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    Ok(open().map_err(|error| failed("lock", &path, &error))?)
}
