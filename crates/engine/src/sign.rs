//! Signs a finished module with the kernel's own `scripts/sign-file`.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use klpx_build_driver::Config;
use klpx_build_driver::process::{Call, Runner};
use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Note, Result, codes};

/// The key and certificate that sign a module.
#[derive(Clone, Debug)]
pub struct Signing {
    /// The private key: a file, or a `pkcs11:` URI of a key in a token.
    pub key: OsString,
    /// The certificate file.
    pub certificate: PathBuf,
    /// The hash function; `None` for the one in the kernel's configuration.
    pub hash: Option<String>,
    /// The passphrase or PIN of the key.
    pub pin: Option<Pin>,
}

/// A passphrase, never shown.
#[derive(Clone)]
pub struct Pin(pub OsString);

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}

impl Signing {
    fn is_in_token(&self) -> bool {
        self.key.as_encoded_bytes().starts_with(b"pkcs11:")
    }
}

/// A `Signing` with the program that signs. Everything that can be checked before the build has been checked.
pub(crate) struct ModuleSigner<'s> {
    signing: &'s Signing,
    program: PathBuf,
    hash: String,
}

impl<'s> ModuleSigner<'s> {
    /// # Errors
    /// Fails if the key or the certificate can't be read, or if the kernel's headers lack the program.
    pub(crate) fn new(
        signing: &'s Signing,
        headers: Option<&Path>,
        config: &Config,
    ) -> Result<ModuleSigner<'s>> {
        let key = Some(Path::new(&signing.key)).filter(|_| !signing.is_in_token());
        for path in [Some(signing.certificate.as_path()), key].into_iter().flatten() {
            klpx_input::open(path).map_err(|error| Diagnosis::io("read", path, &error))?;
        }
        let program = headers.map(|headers| headers.join("scripts/sign-file"));
        let program = program.filter(|program| program.is_file()).ok_or_else(|| {
            Diagnosis::new(
                &codes::MISSING_TOOL,
                "the program that signs modules is not there",
                "the kernel's headers or build tree have no scripts/sign-file",
                "install the package with the headers' programs (linux-kbuild on Debian), or sign \
                 with klpx sign",
            )
        })?;
        let configured = config.value("CONFIG_MODULE_SIG_HASH").unwrap_or("sha256");
        let hash = signing.hash.clone().unwrap_or_else(|| configured.to_owned());
        Ok(ModuleSigner { signing, program, hash })
    }

    /// The module with its signature.
    ///
    /// # Errors
    /// `klpx::not-signed`, with the program's output.
    pub(crate) fn sign(&self, module: &[u8], folder: &Path) -> Result<Vec<u8>> {
        let file = folder.join("klpx-signed.ko");
        std::fs::write(&file, module).map_err(|error| Diagnosis::io("write", &file, &error))?;
        let mut call = Call::new(&self.program).arg(&self.hash).arg(&self.signing.key);
        call = call.arg(&self.signing.certificate).arg(&file);
        if let Some(Pin(pin)) = &self.signing.pin {
            call = call.env("KBUILD_SIGN_PIN", pin);
        }
        let outcome = Runner::new().run(&call)?;
        if !outcome.success {
            return Err(Diagnosis::new(
                &codes::NOT_SIGNED,
                "the module can't be signed",
                "the kernel's sign-file fails",
                match self.signing.is_in_token() {
                    false => {
                        "check that key and certificate belong together, and that KBUILD_SIGN_PIN \
                         opens the key"
                    }
                    true => {
                        "check that OpenSSL has its provider pkcs11 (package pkcs11-provider), that \
                         KBUILD_SIGN_PIN opens the token, and that key and certificate belong \
                         together; or sign elsewhere, and then klpx sign"
                    }
                },
            )
            .place(DiagnosisPlace::file(self.signing.certificate.display().to_string(), None))
            .detail(outcome.lines)
            .into());
        }
        Ok(std::fs::read(&file).map_err(|error| Diagnosis::io("read", &file, &error))?)
    }
}

/// A note on a module without a signature.
pub(crate) fn note(config: &Config) -> Option<Note> {
    let text =
        "the kernel loads signed modules only (CONFIG_MODULE_SIG_FORCE), and this one will have no signature";
    config.is("CONFIG_MODULE_SIG_FORCE").then(|| Note::new(&codes::NO_SIGNATURE, text))
}
