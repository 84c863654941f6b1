//! `klpx sign`, and the signing options of `klpx build`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_engine::Pin;
use klpx_normalize::elf::ElfFile;
use klpx_signature::{self as signature, Message};

use crate::args::{Sign, SigningArgs};
use crate::output::OutputFile;

/// The variable from which kbuild takes the passphrase.
const PIN: &str = "KBUILD_SIGN_PIN";

/// Runs the command.
pub(crate) fn run(args: &Sign) -> Result<()> {
    let module = ElfFile::open(&args.module)?;
    module.parse()?;
    let place = |path: &Path| DiagnosisPlace::file(path.display().to_string(), None);
    if signature::split(module.bytes()).is_some() {
        return Err(Diagnosis::new(
            &codes::SIGNED_ALREADY,
            "the module has a signature",
            "a signature covers all that stands before it, and the kernel looks at the last one only",
            "sign the module as klpx build wrote it",
        )
        .place(place(&args.module))
        .into());
    }
    let signature = read(&args.signature)?;
    if let Err(why) = Message::read(&signature) {
        return Err(Diagnosis::new(
            &codes::BAD_SIGNATURE,
            "the file holds no signature",
            why,
            "make it with openssl cms -sign -binary -noattr -nocerts -outform DER",
        )
        .place(place(&args.signature))
        .into());
    }
    let signed = signature::append(module.bytes(), &signature)
        .ok_or_else(|| Diagnosis::internal("a signature of a bounded file fits"))?;
    let output = args.output.as_ref().unwrap_or(&args.module);
    OutputFile::claim(output, 0o666)?.write(&signed)
}

impl SigningArgs {
    /// The signing options in the form that the engine takes.
    pub(crate) fn read(&self) -> Result<Option<klpx_engine::Signing>> {
        let (Some(key), Some(certificate)) = (&self.sign_key, &self.sign_cert) else { return Ok(None) };
        let pin = match self.sign_pin_fd {
            Some(descriptor) => Some(pin_of(descriptor)?),
            None => std::env::var_os(PIN),
        };
        let (key, certificate, hash) = (key.clone(), certificate.clone(), self.sign_hash.clone());
        Ok(Some(klpx_engine::Signing { key, certificate, hash, pin: pin.map(Pin) }))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    klpx_input::bytes(path).map_err(|error| Diagnosis::io("read", path, &error))?
}

/// Reads the first line from an open descriptor.
fn pin_of(descriptor: u32) -> Result<OsString> {
    let path = PathBuf::from(format!("/proc/self/fd/{descriptor}"));
    let mut bytes = read(&path)?;
    bytes.truncate(bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len()));
    Ok(OsString::from_vec(bytes))
}
