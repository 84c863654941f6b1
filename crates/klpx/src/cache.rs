//! `klpx cache`, and the location of the cache.

use std::io::Write;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use klpx_build_driver::cache::{self, CacheChoice, Ownership};
use klpx_diagnosis::{Diagnosis, Result, codes};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::args::{Cache, Common};
use crate::render;

/// The cache directory: the requested one, or `klpx` in the user's cache folder.
pub(crate) fn directory(common: &Common) -> Result<PathBuf> {
    directory_or(common.cache_dir.as_deref())
}

/// The cache directory for commands without the other common arguments.
pub(crate) fn directory_or(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(dir) = named {
        return std::path::absolute(dir).map_err(|e| Diagnosis::io("find", dir, &e).into());
    }
    match etcetera::choose_base_strategy() {
        Ok(base) => Ok(base.cache_dir().join("klpx")),
        Err(_) => Err(Diagnosis::new(
            &codes::NO_CACHE_DIR,
            "no place for the cache",
            "HOME is not set",
            "name a folder with --cache-dir or KLPX_CACHE_DIR",
        )
        .into()),
    }
}

/// Runs the command.
pub(crate) fn run(command: &Cache, out: &mut impl Write) -> Result<()> {
    let text = match command {
        Cache::List { common } => list(&directory(common)?)?,
        Cache::Prune { days, free, key, common } => {
            let which = match (key, free, days) {
                (Some(key), ..) => CacheChoice::Key(key.clone()),
                (None, Some(gigabytes), _) => CacheChoice::UntilFree(u64::from(*gigabytes) * 1_000_000_000),
                (None, None, 0) => CacheChoice::All,
                (None, None, days) => CacheChoice::Unused(u64::from(*days) * 24 * 60 * 60),
            };
            prune(&directory(common)?, &which)?
        }
    };
    out.write_all(text.as_bytes())
        .map_err(|e| Diagnosis::io("write", Path::new("standard output"), &e).into())
}

fn list(dir: &Path) -> Result<String> {
    let items = cache::list(dir)?;
    if items.is_empty() {
        return Ok(format!("nothing in {}\n", dir.display()));
    }
    let mut rows = vec![["kernel", "size", "release", "compiler", "state"].map(str::to_owned).to_vec()];
    let sizes: Vec<u64> = items.par_iter().map(cache::CachedWorkspace::size).collect();
    for (item, size) in items.iter().zip(sizes) {
        let state = match (item.ownership, item.busy, item.complete) {
            (Ownership::Unknown, ..) => "not klpx's",
            (_, true, _) => "in use",
            (_, false, true) => "ready",
            (_, false, false) => "not finished",
        };
        let (release, compiler) = item.info.as_ref().map_or((String::new(), String::new()), |info| {
            (format!("{} {}", info.release, info.arch), info.compiler.clone())
        });
        rows.push(vec![item.key.clone(), gigabytes(size), release, compiler, state.to_owned()]);
    }
    Ok(render::table(&rows))
}

fn prune(dir: &Path, which: &CacheChoice) -> Result<String> {
    let pruned = cache::prune(dir, which)?;
    if let CacheChoice::Key(key) = which
        && pruned.removed.is_empty()
        && pruned.busy.is_empty()
        && pruned.unknown.is_empty()
    {
        let what = format!("{} has no kernel whose key begins with {key:?}", dir.display());
        return Err(Diagnosis::new(
            &codes::NO_SUCH_KERNEL,
            what,
            "only kernels in the cache can be removed",
            "klpx cache list shows the keys",
        )
        .into());
    }
    let removed = render::plural(pruned.removed.len(), "kernel");
    let mut text = format!("removed {removed}, {}", gigabytes(pruned.freed));
    if let Some(free) = pruned.free {
        text.push_str(&format!(" · {} are free", gigabytes(free)));
    }
    text.push('\n');
    for item in pruned.busy {
        text.push_str(&format!("kept {}: in use\n", item.key));
    }
    for item in pruned.unknown {
        let dir = item.dir.display();
        text.push_str(&format!("kept {dir}: nothing shows that klpx made it; remove it by hand\n"));
    }
    Ok(text)
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}
