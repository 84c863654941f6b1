//! The files of a package.

use std::io::Write;

use flate2::{Compression, GzBuilder};
use klpx_diagnosis::{Diagnosis, Result};

use crate::package::{Format, Package};
use crate::{changelog, provenance};

/// The module has the licence that it names. The other files of a package describe how the module was made.
const COPYRIGHT: &str = include_str!("script/copyright");

/// A file of a package.
pub(crate) struct PackageFile {
    /// Absolute path.
    pub(crate) path: String,
    /// Contents.
    pub(crate) bytes: Vec<u8>,
    /// True for documentation.
    pub(crate) is_document: bool,
}

/// The files, sorted by path.
pub(crate) fn list(package: &Package, format: Format) -> Result<Vec<PackageFile>> {
    let livepatch = &package.livepatch;
    let beside = |ending: &str| format!("{}/{}.{ending}", livepatch.folder(), livepatch.name);
    let module = PackageFile { path: livepatch.path(), bytes: livepatch.bytes.clone(), is_document: false };
    let statement = text(&provenance::statement(livepatch))?;
    let mut files =
        vec![module, PackageFile { path: beside("intoto.json"), bytes: statement, is_document: false }];
    if let Some(report) = &livepatch.report {
        files.push(PackageFile { path: beside("report.json"), bytes: text(report)?, is_document: false });
    }
    if format == Format::Deb {
        let document = |name: &str, bytes| PackageFile {
            path: format!("/usr/share/doc/{}/{name}", package.name),
            bytes,
            is_document: true,
        };
        files.push(document("copyright", COPYRIGHT.as_bytes().to_vec()));
        files.push(document("changelog.gz", compressed(changelog::debian(package).as_bytes())?));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn text(value: &serde_json::Value) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|_| Diagnosis::internal("a value is JSON"))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Compresses without a file name or time, so that equal texts give equal bytes.
fn compressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let written = writer.write_all(bytes).and_then(|()| writer.finish());
    Ok(written.map_err(|_| Diagnosis::internal("memory takes what is written"))?)
}
