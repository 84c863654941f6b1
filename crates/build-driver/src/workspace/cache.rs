//! The contents of the cache directory: lists workspaces and removes unneeded ones. Never touches a workspace that is
//! in use, or a folder without klpx's own mark.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use klpx_diagnosis::{Diagnosis, Result, codes};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::kernel::{FORMAT, PatchableKernel, contents};
use crate::own;
use crate::space::free;
use crate::workspace::lock;

/// The file that describes a workspace and shows that it belongs to klpx. It contains the key that is the folder's
/// name.
const MARK: &str = "klpx.json";
/// The extension of a workspace's folder during its removal.
const REMOVED: &str = "removed";
/// The number of digits in a key.
const KEY: usize = 12;

/// The description of a workspace: `klpx.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceInfo {
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
    /// The source tree that the workspace was made from.
    pub source: PathBuf,
    /// The identity of the source tree's contents.
    #[serde(default)]
    pub contents: String,
    /// Last use, seconds since the epoch.
    pub last_used: u64,
}

impl WorkspaceInfo {
    pub(crate) fn new(kernel: &PatchableKernel) -> WorkspaceInfo {
        WorkspaceInfo {
            format: FORMAT,
            key: kernel.key().to_owned(),
            release: kernel.release().to_owned(),
            arch: kernel.arch().name().to_owned(),
            compiler: kernel.toolchain().describe(),
            source: kernel.source().root().to_owned(),
            contents: kernel.contents().identity().to_owned(),
            last_used: unix_time(),
        }
    }

    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        let text =
            serde_json::to_vec_pretty(self).map_err(|error| Diagnosis::internal(&error.to_string()))?;
        files::write_durably(&dir.join(MARK), &text)
    }
}

/// One workspace in the cache.
#[derive(Clone, Debug)]
pub struct CachedWorkspace {
    /// The folder of the workspace.
    pub dir: PathBuf,
    /// The folder's name, which is the workspace's key.
    pub key: String,
    /// The description, if it can be read.
    pub info: Option<WorkspaceInfo>,
    /// True if patches can be built in the workspace at once.
    pub complete: bool,
    /// True if a klpx is using the workspace.
    pub busy: bool,
    /// The evidence that the folder belongs to klpx.
    pub ownership: Ownership,
}

/// Every folder with the name of a workspace, the most recently used first.
pub fn list(cache_dir: &Path) -> Result<Vec<CachedWorkspace>> {
    let kernels = cache_dir.join("kernels");
    let listing = match std::fs::read_dir(&kernels) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Diagnosis::io("read", &kernels, &error).into()),
    };
    let kernels = own::check(&kernels)?;
    let mut items = Vec::new();
    for entry in listing {
        let name = entry.map_err(|error| Diagnosis::io("read", &kernels, &error))?.file_name();
        items.extend(name.to_str().and_then(|name| item(&kernels, name)));
    }
    items.sort_by_key(|item| {
        (std::cmp::Reverse(item.info.as_ref().map_or(0, |info| info.last_used)), item.key.clone())
    });
    Ok(items)
}

/// The workspace in a folder. `None` if the folder's name is not a workspace's.
fn item(kernels: &Path, name: &str) -> Option<CachedWorkspace> {
    let key = name.strip_suffix(REMOVED).and_then(|key| key.strip_suffix('.')).unwrap_or(name);
    let is_key = key.len() == KEY && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    let dir = kernels.join(name);
    if !is_key || !own::is_folder(&dir) {
        return None;
    }
    let mark = std::fs::read(dir.join(MARK)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let mark = mark.filter(|info: &WorkspaceInfo| info.key == key);
    let ownership = match &mark {
        Some(_) => Ownership::Marked,
        None if is_empty(&dir) => Ownership::Empty,
        None => Ownership::Unknown,
    };
    // A folder that a killed klpx began to remove is no longer a workspace, whatever is left.
    let whole = key == name;
    let made = ["prepared.json", "baseline/manifest.json"];
    let complete = whole && made.iter().any(|name| dir.join(name).is_file());
    let busy = lock::is_taken(&dir);
    Some(CachedWorkspace {
        dir,
        key: name.to_owned(),
        info: mark.filter(|_| whole),
        complete,
        busy,
        ownership,
    })
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut listing| listing.next().is_none())
}

/// The evidence that a folder belongs to klpx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The mark has the folder's key.
    Marked,
    /// The folder is empty: klpx was killed before it wrote the mark.
    Empty,
    /// No evidence. The folder is never removed.
    Unknown,
}

impl CachedWorkspace {
    /// The bytes on disk. Examines each file, some hundred thousand.
    pub fn size(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        walkdir::WalkDir::new(&self.dir)
            .into_iter()
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .map(|meta| meta.blocks() * 512)
            .sum()
    }
}

/// A folder of the cache that `fill` makes once, found by its identity. A concurrent klpx finds it complete. `fill`
/// gets an empty folder.
///
/// # Errors
/// The error of `fill`, or an error if the cache can't be written.
pub fn cached_folder(
    cache_dir: &Path,
    kind: &str,
    identity: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let parent = cache_dir.join(kind);
    let parent = own::folder(&parent)?;
    let folder = parent.join(&blake3::hash(identity.as_bytes()).to_hex()[..16]);
    if folder.is_dir() {
        return own::check(&folder);
    }
    let new = tempfile::Builder::new().prefix(".new-").tempdir_in(&parent);
    let new = new.map_err(|error| Diagnosis::io("create", &parent, &error))?;
    fill(new.path())?;
    match std::fs::rename(new.path(), &folder) {
        Err(error) if !folder.is_dir() => Err(Diagnosis::io("create", &folder, &error).into()),
        // Another klpx made the folder first.
        Err(_) => Ok(folder),
        Ok(()) => {
            let _ = new.keep();
            Ok(folder)
        }
    }
}

/// The workspaces to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheChoice {
    /// All workspaces.
    All,
    /// Workspaces that were not used for so many seconds.
    Unused(u64),
    /// Workspaces whose key begins with this text.
    Key(String),
    /// The least recently used workspaces, one by one, until the cache's file system has so many bytes free.
    UntilFree(u64),
}

/// The result of pruning.
#[derive(Debug, Default)]
pub struct Pruned {
    /// The removed workspaces, in order of removal.
    pub removed: Vec<CachedWorkspace>,
    /// The bytes that they took on disk.
    pub freed: u64,
    /// Workspaces that were kept because they are in use.
    pub busy: Vec<CachedWorkspace>,
    /// Folders that were kept because nothing shows that they belong to klpx.
    pub unknown: Vec<CachedWorkspace>,
    /// The bytes that the user of this process now has free on the cache's file system, if known.
    pub free: Option<u64>,
}

/// Removes workspaces that are not in use, the least recently used first.
pub fn prune(cache_dir: &Path, which: &CacheChoice) -> Result<Pruned> {
    // The cache may not exist yet.
    let place = cache_dir.ancestors().find(|dir| dir.is_dir());
    prune_with(cache_dir, which, &|| free(place?))
}

fn prune_with(cache_dir: &Path, which: &CacheChoice, free: &dyn Fn() -> Option<u64>) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    for item in list(cache_dir)?.into_iter().rev() {
        let last_used = item.info.as_ref().map_or(0, |info| info.last_used);
        let wanted = match which {
            CacheChoice::All => true,
            CacheChoice::Unused(seconds) => last_used.saturating_add(*seconds) < unix_time(),
            CacheChoice::Key(key) => item.key.starts_with(key.as_str()),
            CacheChoice::UntilFree(bytes) => free().is_some_and(|free| free < *bytes),
        };
        if !wanted {
            continue;
        }
        if item.ownership == Ownership::Unknown {
            pruned.unknown.push(item);
            continue;
        }
        let Some(_lock) = lock::try_take(&item.dir)? else {
            pruned.busy.push(item);
            continue;
        };
        // The lock file stays: a klpx that waits for the lock has the file open already.
        pruned.freed += item.size();
        remove(&item)?;
        pruned.removed.push(item);
    }
    if !pruned.removed.is_empty() {
        let left = list(cache_dir)?.into_iter();
        contents::forget_unused(cache_dir, &left.filter_map(|item| Some(item.info?.contents)).collect())?;
    }
    pruned.free = free();
    Ok(pruned)
}

/// Removes a workspace. Renames it first, so that no part of it is ever taken for the whole. The lock holds under the
/// new name. A folder that a kill leaves behind still has the mark.
fn remove(item: &CachedWorkspace) -> Result<()> {
    let removed = item.dir.with_extension(REMOVED);
    let name = removed.file_name().unwrap_or_default().to_string_lossy();
    let in_the_way = item.dir.parent().and_then(|kernels| self::item(kernels, &name));
    match in_the_way {
        Some(left) if left.ownership == Ownership::Unknown => return Err(not_marked(&removed).into()),
        _ => empty(&removed)?,
    }
    match std::fs::rename(&item.dir, &removed) {
        // Another klpx removed the workspace first, or the first call of `empty` removed it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Diagnosis::io("remove", &item.dir, &error).into()),
        Ok(()) => empty(&removed),
    }
}

fn empty(dir: &Path) -> Result<()> {
    own::remove_but_last(dir, MARK).map_err(|error| Diagnosis::io("remove", dir, &error).into())
}

fn not_marked(dir: &Path) -> Diagnosis {
    let what = format!("{} is in the way, and nothing shows that klpx made it", dir.display());
    Diagnosis::new(
        &codes::CACHE_CORRUPT,
        what,
        format!("it has no {MARK} with its key"),
        "look at it, and remove it by hand",
    )
}

/// The diagnosis of a workspace with a file that klpx did not leave like this.
pub(crate) fn corrupt(workspace: &Path, file: &Path, why: impl Into<String>) -> Diagnosis {
    let what = format!("{} is not what klpx wrote", file.display());
    Diagnosis::new(
        &codes::CACHE_CORRUPT,
        what,
        why,
        format!("remove the kernel's workspace: {}", removal(workspace)),
    )
}

/// The command that removes one workspace.
pub(crate) fn removal(workspace: &Path) -> String {
    let key = workspace.file_name().unwrap_or_default().to_string_lossy();
    let cache = workspace.ancestors().nth(2).unwrap_or(workspace);
    format!("klpx cache prune --key {key} --cache-dir {}", cache.display())
}

/// Seconds since the epoch.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(cache: &Path, key: &str, last_used: u64) -> PathBuf {
        let dir = cache.join("kernels").join(key);
        std::fs::create_dir_all(dir.join("src")).expect("mkdir");
        std::fs::write(dir.join("src/file"), vec![1; 10_000]).expect("write");
        let info = WorkspaceInfo {
            format: FORMAT,
            key: key.trim_end_matches(".removed").to_owned(),
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
        let old = workspace(cache.path(), "aaaaaaaaaaaa", 1000);
        let recent = workspace(cache.path(), "bbbbbbbbbbbb", unix_time());
        let held = workspace(cache.path(), "cccccccccccc", 1000);
        let lock = lock::try_take(&held).expect("lock file").expect("free");
        let items = list(cache.path()).expect("list");
        assert_eq!(
            items.iter().map(|i| i.key.as_str()).collect::<Vec<_>>(),
            ["bbbbbbbbbbbb", "aaaaaaaaaaaa", "cccccccccccc"]
        );
        assert_eq!(items.iter().filter(|item| item.busy).count(), 1);
        assert!(items[0].size() >= 10_000);
        let pruned = prune(cache.path(), &CacheChoice::Unused(3600)).expect("pruned");
        assert_eq!((pruned.removed.len(), pruned.busy.len()), (1, 1));
        assert!(pruned.freed >= 10_000 && pruned.free.is_some());
        assert!(!old.exists() && recent.exists() && held.exists());
        drop(lock);
        // A child that another test is just starting has a copy of the lock until it executes its program.
        let is_free = || !lock::is_taken(&held);
        let wait = || std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(
            (0..1000).any(|_| is_free() || {
                wait();
                false
            }),
            "the lock is free"
        );
        let pruned = prune(cache.path(), &CacheChoice::Key("cc".to_owned())).expect("pruned");
        assert_eq!(pruned.removed.len(), 1);
    }

    #[test]
    fn what_a_killed_prune_left_is_no_kernel_and_goes_first() {
        let cache = tempfile::tempdir().expect("dir");
        let left = workspace(cache.path(), "aaaaaaaaaaaa.removed", unix_time());
        let again = workspace(cache.path(), "aaaaaaaaaaaa", unix_time());
        std::fs::create_dir(left.join("baseline")).expect("mkdir");
        std::fs::write(left.join("baseline/manifest.json"), "{}").expect("write");
        let items = list(cache.path()).expect("list");
        assert_eq!(
            items.iter().map(|i| i.key.as_str()).collect::<Vec<_>>(),
            ["aaaaaaaaaaaa", "aaaaaaaaaaaa.removed"]
        );
        assert!(!items[1].complete && items[1].info.is_none());
        let pruned = prune(cache.path(), &CacheChoice::Unused(3600)).expect("pruned");
        assert_eq!(pruned.removed.len(), 1);
        assert!(again.is_dir() && !left.exists());
        // The name for the removal may be taken.
        let left = workspace(cache.path(), "aaaaaaaaaaaa.removed", unix_time());
        let item = item(again.parent().expect("kernels"), "aaaaaaaaaaaa").expect("a workspace");
        remove(&item).expect("removed");
        assert!(!again.exists() && !left.exists());
        remove(&item).expect("gone already");
    }

    #[test]
    fn room_is_made_from_what_was_used_longest_ago_and_no_more_than_that() {
        let cache = tempfile::tempdir().expect("dir");
        for (key, last_used) in
            [("aaaaaaaaaaaa", 3000), ("bbbbbbbbbbbb", 1000), ("cccccccccccc", 2000), ("dddddddddddd", 4000)]
        {
            workspace(cache.path(), key, last_used);
        }
        // A file system of 50 bytes. Each workspace takes 10.
        let free = || Some(50 - 10 * list(cache.path()).expect("list").len() as u64);
        let prune = |bytes| {
            let pruned = prune_with(cache.path(), &CacheChoice::UntilFree(bytes), &free).expect("pruned");
            (pruned.removed.into_iter().map(|item| item.key).collect::<Vec<_>>(), pruned.free)
        };
        assert_eq!(prune(10), (vec![], Some(10)), "enough is free");
        assert_eq!(prune(21), (vec!["bbbbbbbbbbbb".to_owned(), "cccccccccccc".to_owned()], Some(30)));
        assert_eq!(
            prune(1000),
            (vec!["aaaaaaaaaaaa".to_owned(), "dddddddddddd".to_owned()], Some(50)),
            "never enough"
        );
        workspace(cache.path(), "eeeeeeeeeeee", 1);
        let unknown = prune_with(cache.path(), &CacheChoice::UntilFree(1000), &|| None).expect("pruned");
        assert!(unknown.removed.is_empty() && unknown.free.is_none());
        let missing = super::prune(&cache.path().join("not/there/yet"), &CacheChoice::All).expect("pruned");
        assert!(missing.removed.is_empty() && missing.free.is_some());
    }

    #[test]
    fn what_klpx_did_not_make_is_never_removed() {
        let cache = tempfile::tempdir().expect("dir");
        let kernels = cache.path().join("kernels");
        let precious = |name: &str, mark: &str| {
            let dir = kernels.join(name);
            std::fs::create_dir_all(&dir).expect("mkdir");
            std::fs::write(dir.join("precious"), "text").expect("write");
            std::fs::write(dir.join(MARK), mark).expect("write");
            dir
        };
        let mark_of =
            |key| std::fs::read_to_string(workspace(cache.path(), key, 1).join(MARK)).expect("mark");
        let another = mark_of("bbbbbbbbbbbb");
        // A name that klpx never uses. A workspace's name with an empty mark, with half a mark, with another
        // workspace's mark.
        let kept = [
            precious("5.14.el9", &another),
            precious("5.14.removed", &another),
            precious("aaaaaaaaaaaa", ""),
            precious("cccccccccccc", &another[..another.len() / 2]),
            precious("dddddddddddd", &another),
            precious("eeeeeeeeeeee.removed", &another),
        ];
        let outside = tempfile::tempdir().expect("dir");
        std::fs::write(
            outside.path().join(MARK),
            mark_of("bbbbbbbbbbbb").replace("bbbbbbbbbbbb", "ffffffffffff"),
        )
        .expect("write");
        std::os::unix::fs::symlink(outside.path(), kernels.join("ffffffffffff")).expect("link");
        std::fs::create_dir(kernels.join("000000000000")).expect("mkdir");
        let sources = cache.path().join("sources");
        let listed = format!("{}.files", "0".repeat(64));
        std::fs::create_dir(&sources).expect("mkdir");
        for name in ["notes.files", "linux-5.14", &listed] {
            std::fs::write(sources.join(name), "").expect("write");
        }
        let pruned = prune(cache.path(), &CacheChoice::All).expect("pruned");
        let removed: Vec<_> = pruned.removed.iter().map(|item| item.key.as_str()).collect();
        assert_eq!(removed, ["000000000000", "bbbbbbbbbbbb"]);
        assert_eq!(pruned.unknown.len(), 4);
        assert!(kept.iter().all(|dir| dir.join("precious").is_file()));
        assert!(outside.path().join(MARK).is_file());
        let left = |name: &str| sources.join(name).exists();
        assert!(left("notes.files") && left("linux-5.14") && !left(&listed));
    }

    #[test]
    fn a_folder_of_others_in_the_way_stays() {
        let cache = tempfile::tempdir().expect("dir");
        workspace(cache.path(), "aaaaaaaaaaaa", 1);
        let other = cache.path().join("kernels/aaaaaaaaaaaa.removed");
        std::fs::create_dir(&other).expect("mkdir");
        std::fs::write(other.join("precious"), "text").expect("write");
        let failure = prune(cache.path(), &CacheChoice::Key("aaaaaaaaaaaa".to_owned())).expect_err("refused");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::cache-corrupt");
        assert!(other.join("precious").is_file());
    }
}
