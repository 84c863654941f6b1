//! What lies in the cache directory: list it, remove what is not needed. Never touches a workspace that is in use.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use klpx_diagnosis::{Diagnosis, Result};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::files::remove_dir;
use crate::kernel::{FORMAT, Kernel, contents};
use crate::space::free;

/// What a workspace is of: `klpx.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The workspace format.
    pub format: u32,
    /// The workspace's key.
    pub key: String,
    /// The kernel's release.
    pub release: String,
    /// The architecture.
    pub arch: String,
    /// The compiler, such as `clang 22.1.8 ThinLTO`.
    pub compiler: String,
    /// The source tree it was made from.
    pub source: PathBuf,
    /// The identity of what that tree held.
    #[serde(default)]
    pub contents: String,
    /// Last use, seconds since the epoch.
    pub last_used: u64,
}

impl Info {
    pub(crate) fn of(kernel: &Kernel) -> Info {
        Info {
            format: FORMAT,
            key: kernel.key().to_owned(),
            release: kernel.release().to_owned(),
            arch: kernel.arch().name().to_owned(),
            compiler: kernel.toolchain().describe(),
            source: kernel.source().root().to_owned(),
            contents: kernel.contents().identity().to_owned(),
            last_used: now(),
        }
    }

    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        let text =
            serde_json::to_vec_pretty(self).map_err(|error| Diagnosis::internal(&error.to_string()))?;
        files::write_durably(&dir.join("klpx.json"), &text)
    }
}

/// One workspace in the cache.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its folder.
    pub dir: PathBuf,
    /// Its key: the folder's name.
    pub key: String,
    /// What it is of, when it says so.
    pub info: Option<Info>,
    /// True when patches can be built in it at once.
    pub complete: bool,
    /// True when a klpx is at work in it.
    pub busy: bool,
}

/// Every workspace, the last used first.
pub fn list(cache_dir: &Path) -> Result<Vec<Item>> {
    let kernels = cache_dir.join("kernels");
    let listing = match std::fs::read_dir(&kernels) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Diagnosis::io("read", &kernels, &error).into()),
    };
    let mut items = Vec::new();
    for entry in listing {
        let dir = entry.map_err(|error| Diagnosis::io("read", &kernels, &error))?.path();
        if dir.is_dir() {
            items.push(item(dir));
        }
    }
    items.sort_by_key(|item| {
        (std::cmp::Reverse(item.info.as_ref().map_or(0, |info| info.last_used)), item.key.clone())
    });
    Ok(items)
}

fn item(dir: PathBuf) -> Item {
    let key = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // What a killed klpx began to remove is no kernel any more, whatever is left of it.
    let whole = dir.extension().is_none();
    let info = std::fs::read(dir.join("klpx.json")).ok().filter(|_| whole);
    let info = info.and_then(|text| serde_json::from_slice(&text).ok());
    let made = ["prepared.json", "baseline/manifest.json"];
    let complete = whole && made.iter().any(|name| dir.join(name).is_file());
    let busy = File::open(dir.with_extension("lock")).is_ok_and(|file| file.try_lock().is_err());
    Item { dir, key, info, complete, busy }
}

impl Item {
    /// Bytes that it takes on disk. Looks at each of its files, some hundred thousand.
    pub fn size(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        walkdir::WalkDir::new(&self.dir)
            .into_iter()
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .map(|meta| meta.blocks() * 512)
            .sum()
    }
}

/// A folder of the cache that `fill` makes once, by what it is made of. Whoever comes second finds it whole; `fill` gets
/// an empty folder.
///
/// # Errors
/// What `fill` fails with; the cache can't be written.
pub fn kept(
    cache_dir: &Path,
    kind: &str,
    identity: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let parent = cache_dir.join(kind);
    let folder = parent.join(&blake3::hash(identity.as_bytes()).to_hex()[..16]);
    if folder.is_dir() {
        return Ok(folder);
    }
    std::fs::create_dir_all(&parent).map_err(|error| Diagnosis::io("create", &parent, &error))?;
    let new = tempfile::Builder::new().prefix(".new-").tempdir_in(&parent);
    let new = new.map_err(|error| Diagnosis::io("create", &parent, &error))?;
    fill(new.path())?;
    match std::fs::rename(new.path(), &folder) {
        Err(error) if !folder.is_dir() => Err(Diagnosis::io("create", &folder, &error).into()),
        // Another klpx was faster.
        Err(_) => Ok(folder),
        Ok(()) => {
            let _ = new.keep();
            Ok(folder)
        }
    }
}

/// Which workspaces to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those not used for so many seconds.
    Unused(u64),
    /// Those whose key begins so.
    Key(String),
    /// The ones used longest ago, one after the other until the cache's file system has so many bytes free.
    UntilFree(u64),
}

/// What pruning did.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Workspaces that are gone, in that order.
    pub removed: Vec<Item>,
    /// Bytes that they took on disk.
    pub freed: u64,
    /// Workspaces that would have been removed but are in use.
    pub busy: Vec<Item>,
    /// Bytes that whoever runs this has free now where the cache lies, if that can be told.
    pub free: Option<u64>,
}

/// Removes workspaces that are not in use, those used longest ago first.
pub fn prune(cache_dir: &Path, which: &Which) -> Result<Pruned> {
    // Nothing need be there yet.
    let place = cache_dir.ancestors().find(|dir| dir.is_dir());
    prune_with(cache_dir, which, &|| free(place?))
}

fn prune_with(cache_dir: &Path, which: &Which, free: &dyn Fn() -> Option<u64>) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    for item in list(cache_dir)?.into_iter().rev() {
        let last_used = item.info.as_ref().map_or(0, |info| info.last_used);
        let wanted = match which {
            Which::All => true,
            Which::Unused(seconds) => last_used.saturating_add(*seconds) < now(),
            Which::Key(key) => item.key.starts_with(key.as_str()),
            Which::UntilFree(bytes) => free().is_some_and(|free| free < *bytes),
        };
        if !wanted {
            continue;
        }
        let path = item.dir.with_extension("lock");
        let lock = File::options().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(|error| Diagnosis::io("lock", &path, &error))?;
        if lock.try_lock().is_err() {
            pruned.busy.push(item);
            continue;
        }
        // The lock file stays: a klpx that waits for it has it open already.
        pruned.freed += item.size();
        remove(&item.dir)?;
        pruned.removed.push(item);
    }
    if !pruned.removed.is_empty() {
        let left = list(cache_dir)?.into_iter();
        contents::forget_unused(cache_dir, &left.filter_map(|item| Some(item.info?.contents)).collect())?;
    }
    pruned.free = free();
    Ok(pruned)
}

/// Removes a workspace so that no part of it is ever taken for the whole: under another name, which goes on with the
/// lock of the workspace.
fn remove(dir: &Path) -> Result<()> {
    let removed = dir.with_extension("removed");
    remove_dir(&removed)?;
    match std::fs::rename(dir, &removed) {
        // Another klpx was faster, or that was it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Diagnosis::io("remove", dir, &error).into()),
        Ok(()) => remove_dir(&removed),
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(cache: &Path, key: &str, last_used: u64) -> PathBuf {
        let dir = cache.join("kernels").join(key);
        std::fs::create_dir_all(dir.join("src")).expect("mkdir");
        std::fs::write(dir.join("src/file"), vec![1; 10_000]).expect("write");
        let info = Info {
            format: FORMAT,
            key: key.to_owned(),
            release: "7.2.13".to_owned(),
            arch: "x86_64".to_owned(),
            compiler: "gcc 12".to_owned(),
            source: "/src".into(),
            contents: String::new(),
            last_used,
        };
        info.save(&dir).expect("saved");
        dir
    }

    #[test]
    fn an_empty_cache_lists_nothing() {
        let cache = tempfile::tempdir().expect("dir");
        assert!(list(cache.path()).expect("list").is_empty());
    }

    #[test]
    fn pruning_leaves_recent_and_busy_workspaces() {
        let cache = tempfile::tempdir().expect("dir");
        let old = workspace(cache.path(), "aaa", 1000);
        let recent = workspace(cache.path(), "bbb", now());
        let held = workspace(cache.path(), "ccc", 1000);
        let lock = File::create(held.with_extension("lock")).expect("lock file");
        lock.lock().expect("locked");
        let items = list(cache.path()).expect("list");
        assert_eq!(items.iter().map(|i| i.key.as_str()).collect::<Vec<_>>(), ["bbb", "aaa", "ccc"]);
        assert_eq!(items.iter().filter(|item| item.busy).count(), 1);
        assert!(items[0].size() >= 10_000);
        let pruned = prune(cache.path(), &Which::Unused(3600)).expect("pruned");
        assert_eq!((pruned.removed.len(), pruned.busy.len()), (1, 1));
        assert!(pruned.freed >= 10_000 && pruned.free.is_some());
        assert!(!old.exists() && recent.exists() && held.exists());
        drop(lock);
        // A child that another test starts just now has a copy of the lock until it runs its program.
        let is_free = || File::open(held.with_extension("lock")).is_ok_and(|file| file.try_lock().is_ok());
        let wait = || std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(
            (0..1000).any(|_| is_free() || {
                wait();
                false
            }),
            "the lock is free"
        );
        let pruned = prune(cache.path(), &Which::Key("cc".to_owned())).expect("pruned");
        assert_eq!(pruned.removed.len(), 1);
    }

    #[test]
    fn what_a_killed_prune_left_is_no_kernel_and_goes_first() {
        let cache = tempfile::tempdir().expect("dir");
        let left = workspace(cache.path(), "aaa.removed", now());
        let again = workspace(cache.path(), "aaa", now());
        std::fs::create_dir(left.join("baseline")).expect("mkdir");
        std::fs::write(left.join("baseline/manifest.json"), "{}").expect("write");
        let items = list(cache.path()).expect("list");
        assert_eq!(items.iter().map(|i| i.key.as_str()).collect::<Vec<_>>(), ["aaa", "aaa.removed"]);
        assert!(!items[1].complete && items[1].info.is_none());
        let pruned = prune(cache.path(), &Which::Unused(3600)).expect("pruned");
        assert_eq!(pruned.removed.len(), 1);
        assert!(again.is_dir() && !left.exists());
        // The name may be taken when the kernel itself goes.
        let left = workspace(cache.path(), "aaa.removed", now());
        remove(&again).expect("removed");
        assert!(!again.exists() && !left.exists());
        remove(&again).expect("gone already");
    }

    #[test]
    fn room_is_made_from_what_was_used_longest_ago_and_no_more_than_that() {
        let cache = tempfile::tempdir().expect("dir");
        for (key, last_used) in [("aaa", 3000), ("bbb", 1000), ("ccc", 2000), ("ddd", 4000)] {
            workspace(cache.path(), key, last_used);
        }
        // A file system of 50 bytes, of which each workspace takes 10.
        let free = || Some(50 - 10 * list(cache.path()).expect("list").len() as u64);
        let prune = |bytes| {
            let pruned = prune_with(cache.path(), &Which::UntilFree(bytes), &free).expect("pruned");
            (pruned.removed.into_iter().map(|item| item.key).collect::<Vec<_>>(), pruned.free)
        };
        assert_eq!(prune(10), (vec![], Some(10)), "enough is free");
        assert_eq!(prune(21), (vec!["bbb".to_owned(), "ccc".to_owned()], Some(30)));
        assert_eq!(prune(1000), (vec!["aaa".to_owned(), "ddd".to_owned()], Some(50)), "never enough");
        workspace(cache.path(), "eee", 1);
        let unknown = prune_with(cache.path(), &Which::UntilFree(1000), &|| None).expect("pruned");
        assert!(unknown.removed.is_empty() && unknown.free.is_none());
        let missing = super::prune(&cache.path().join("not/there/yet"), &Which::All).expect("pruned");
        assert!(missing.removed.is_empty() && missing.free.is_some());
    }
}
