//! What `klpx inspect` reports about a module's signature.

use std::path::Path;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_signature::{Certificate, Message, SignatureVerdict, Signer};
use serde_json::{Value, json};

/// The remedy for a module without a signature.
const SIGN_IT: &str = "sign it with klpx sign, or build it with --sign-key";

/// The signature of a module.
pub(crate) enum Signed {
    /// The module has no signature.
    No,
    /// The signature can't be read, for this reason.
    Unreadable(String),
    /// The signer, and the verdict if a certificate was given.
    By(Signer, Option<SignatureVerdict>),
}

impl Signed {
    /// Reads the signature, and checks it by a certificate.
    ///
    /// # Errors
    /// Fails if the certificate can't be read.
    pub(crate) fn read(file: &[u8], certificate: Option<&Path>) -> Result<Signed> {
        let certificate = certificate.map(read_certificate).transpose()?;
        let Some((module, signature)) = klpx_signature::split(file) else { return Ok(Signed::No) };
        Ok(match Message::read(signature) {
            Err(why) => Signed::Unreadable(why),
            Ok(message) => {
                let verdict = certificate.map(|certificate| certificate.check(module, &message));
                Signed::By(message.signer(), verdict)
            }
        })
    }

    /// Keys and values for people.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        match self {
            Signed::No => vec![("signature", "none".to_owned())],
            Signed::Unreadable(why) => vec![("signature", format!("not readable: {why}"))],
            Signed::By(signer, verdict) => {
                let how = format!("{} with {}", signer.algorithm, signer.hash);
                let state = match verdict {
                    None => "not checked: name the signer's certificate with --cert".to_owned(),
                    Some(SignatureVerdict::Right) => "right".to_owned(),
                    Some(SignatureVerdict::Wrong) => "WRONG: it is not one of this module".to_owned(),
                    Some(SignatureVerdict::Other) => {
                        "not checked: the certificate is not the signer's".to_owned()
                    }
                    Some(SignatureVerdict::Unchecked(why)) => format!("not checked: {why}"),
                };
                let issuer = signer.issuer.iter().map(|issuer| ("signer", issuer.clone()));
                let rest = [("key", signer.key.clone()), ("signature", format!("{how}, {state}"))];
                issuer.chain(rest).collect()
            }
        }
    }

    /// The signature as JSON; null for a module without one.
    pub(crate) fn json(&self) -> Value {
        match self {
            Signed::No => Value::Null,
            Signed::Unreadable(why) => json!({"unreadable": why}),
            Signed::By(signer, verdict) => json!({
                "issuer": signer.issuer,
                "key": signer.key,
                "hash": signer.hash,
                "algorithm": signer.algorithm,
                "verdict": verdict.as_ref().map(|verdict| match verdict {
                    SignatureVerdict::Right => "right",
                    SignatureVerdict::Wrong => "wrong",
                    SignatureVerdict::Other => "other-signer",
                    SignatureVerdict::Unchecked(_) => "unchecked",
                }),
            }),
        }
    }

    /// The failure of a command that was told to check the signature, if the signature is not known to be right.
    pub(crate) fn failure(&self, module: &Path) -> Option<Diagnosis> {
        let (what, why, remedy) = match self {
            Signed::By(_, Some(SignatureVerdict::Right)) => return None,
            Signed::By(_, Some(SignatureVerdict::Wrong)) => (
                "the signature is wrong",
                "the certificate's key did not sign these bytes",
                "do not load it: get the module again from where it was signed",
            ),
            Signed::By(_, Some(SignatureVerdict::Other)) => (
                "the signature is another's",
                "it names another certificate",
                "name the signer's certificate with --cert",
            ),
            Signed::By(_, Some(SignatureVerdict::Unchecked(why))) => {
                ("the signature can't be checked", why.as_str(), "check it with openssl cms -verify")
            }
            Signed::By(_, None) | Signed::No => {
                ("the module has no signature", "nothing stands behind its sections", SIGN_IT)
            }
            Signed::Unreadable(why) => ("the signature can't be read", why.as_str(), SIGN_IT),
        };
        let place = DiagnosisPlace::file(module.display().to_string(), None);
        Some(Diagnosis::new(&codes::SIGNATURE, what, why, remedy).place(place))
    }
}

fn read_certificate(path: &Path) -> Result<Certificate> {
    let bytes = klpx_input::bytes(path).map_err(|error| Diagnosis::io("read", path, &error))??;
    Ok(Certificate::read(&bytes).map_err(|why| {
        Diagnosis::new(
            &codes::BAD_CERTIFICATE,
            "the file holds no certificate",
            why,
            "name the signer's certificate, as PEM or DER",
        )
        .place(DiagnosisPlace::file(path.display().to_string(), None))
    })?)
}
