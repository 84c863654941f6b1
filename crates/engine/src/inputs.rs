//! The files from which a livepatch was made, each with a checksum or build ID.

use std::io::Read;
use std::path::Path;

use klpx_build_driver::packages::KernelFiles;
use klpx_build_driver::{PatchSet, PatchableKernel};
use klpx_diagnosis::words::hexadecimal;
use klpx_diagnosis::{Diagnosis, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::request::Request;

/// A file from which a livepatch was made. The kernel's source and headers are not listed: `kernel.key` stands for the
/// contents of all that is compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Input {
    /// The kind of file.
    pub kind: InputKind,
    /// The file's path, as given or found.
    pub path: String,
    /// SHA-256 of the file's contents, in hexadecimal; absent for the kernel's image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The build ID of the kernel's image, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
}

/// The kind of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputKind {
    /// A patch.
    Patch,
    /// The kernel's configuration.
    Config,
    /// The kernel's Module.symvers.
    Symvers,
    /// The kernel's image with its symbols.
    Vmlinux,
    /// An external module as it is loaded.
    Module,
    /// A file that a make variable of the kernel names, such as a profile.
    MakeFile,
    /// The certificate of the signing key.
    Certificate,
}

/// All inputs that are known before anything is compiled. The kernel's image is read later.
///
/// # Errors
/// Fails if a file can't be read.
pub(crate) fn inputs_before_build(
    request: &Request,
    patches: &PatchSet,
    files: &KernelFiles,
    kernel: &PatchableKernel,
) -> Result<Vec<Input>> {
    let patches = patches.hashes().map(|(name, hash)| Input {
        kind: InputKind::Patch,
        path: name.to_owned(),
        sha256: Some(hash.to_owned()),
        build_id: None,
    });
    let mut inputs: Vec<Input> = patches.collect();
    let module = request.external.as_ref().map(|external| (InputKind::Module, external.file.as_path()));
    let certificate =
        request.signing.as_ref().map(|signing| (InputKind::Certificate, signing.certificate.as_path()));
    let found = [
        (InputKind::Config, files.config.path.as_path()),
        (InputKind::Symvers, files.symvers.path.as_path()),
    ];
    let given = kernel.given().variables().iter().flat_map(|variable| variable.files());
    let given = given.map(|file| (InputKind::MakeFile, file.path()));
    for (kind, path) in found.into_iter().chain(given).chain(module).chain(certificate) {
        inputs.push(Input {
            kind,
            path: path.display().to_string(),
            sha256: Some(hash(path)?),
            build_id: None,
        });
    }
    Ok(inputs)
}

/// The kernel's image.
pub(crate) fn image(path: &Path, build_id: Option<&[u8]>) -> Input {
    let path = path.display().to_string();
    Input { kind: InputKind::Vmlinux, path, sha256: None, build_id: build_id.map(hexadecimal) }
}

fn hash(path: &Path) -> Result<String> {
    let failed = |error: &std::io::Error| Diagnosis::io("read", path, error);
    let mut file = klpx_input::open(path).map_err(|error| failed(&error))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(|error| failed(&error))? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}
