//! Checks whether a signature is valid under a certificate.

use const_oid::ObjectIdentifier;
use der::{Decode, DecodePem};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use crate::message::Message;

/// An algorithm that can be checked, as the certificate and the message name it.
struct KnownAlgorithm {
    /// The algorithm of the certificate's key.
    key: ObjectIdentifier,
    /// The curve of the key.
    curve: Option<ObjectIdentifier>,
    /// The hash function.
    hash: ObjectIdentifier,
    /// The signature algorithms that the message may name.
    signed: &'static [ObjectIdentifier],
    algorithm: &'static dyn VerificationAlgorithm,
}

/// The supported algorithms. Kernels accept RSA and ECDSA keys (certs/Kconfig), RSA with PKCS#1 1.5 padding and never
/// PSS.
const KNOWN: [KnownAlgorithm; 7] = {
    use const_oid::db::rfc5912::{
        ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ID_EC_PUBLIC_KEY as EC, ID_SHA_256, ID_SHA_384, ID_SHA_512,
        RSA_ENCRYPTION as RSA, SECP_256_R_1, SECP_384_R_1, SHA_256_WITH_RSA_ENCRYPTION,
        SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
    };
    const fn rsa(
        hash: ObjectIdentifier,
        signed: &'static [ObjectIdentifier],
        algorithm: &'static dyn VerificationAlgorithm,
    ) -> KnownAlgorithm {
        KnownAlgorithm { key: RSA, curve: None, hash, signed, algorithm }
    }
    const fn ec(
        curve: ObjectIdentifier,
        hash: ObjectIdentifier,
        signed: &'static [ObjectIdentifier],
        algorithm: &'static dyn VerificationAlgorithm,
    ) -> KnownAlgorithm {
        KnownAlgorithm { key: EC, curve: Some(curve), hash, signed, algorithm }
    }
    [
        rsa(ID_SHA_256, &[RSA, SHA_256_WITH_RSA_ENCRYPTION], &signature::RSA_PKCS1_2048_8192_SHA256),
        rsa(ID_SHA_384, &[RSA, SHA_384_WITH_RSA_ENCRYPTION], &signature::RSA_PKCS1_2048_8192_SHA384),
        rsa(ID_SHA_512, &[RSA, SHA_512_WITH_RSA_ENCRYPTION], &signature::RSA_PKCS1_2048_8192_SHA512),
        ec(SECP_256_R_1, ID_SHA_256, &[ECDSA_WITH_SHA_256], &signature::ECDSA_P256_SHA256_ASN1),
        ec(SECP_256_R_1, ID_SHA_384, &[ECDSA_WITH_SHA_384], &signature::ECDSA_P256_SHA384_ASN1),
        ec(SECP_384_R_1, ID_SHA_256, &[ECDSA_WITH_SHA_256], &signature::ECDSA_P384_SHA256_ASN1),
        ec(SECP_384_R_1, ID_SHA_384, &[ECDSA_WITH_SHA_384], &signature::ECDSA_P384_SHA384_ASN1),
    ]
};

/// A certificate that may belong to the signer.
#[derive(Clone, Debug)]
pub struct Certificate(x509_cert::Certificate);

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureVerdict {
    /// The certificate's key made the signature for this module.
    Right,
    /// The message names the certificate, but the signature does not match the module.
    Wrong,
    /// The message names another certificate.
    Other,
    /// The signature can't be checked, with the reason.
    Unchecked(String),
}

impl Certificate {
    /// Reads a certificate, PEM or DER.
    ///
    /// # Errors
    /// The fault of the file, as a fragment of a sentence.
    pub fn read(bytes: &[u8]) -> Result<Certificate, String> {
        let read = match bytes.starts_with(b"-----") {
            true => x509_cert::Certificate::from_pem(bytes),
            false => x509_cert::Certificate::from_der(bytes),
        };
        read.map(Certificate).map_err(|error| format!("it is no X.509 certificate: {error}"))
    }

    /// Checks the signature of a module. `module` is everything before the signature.
    pub fn check(&self, module: &[u8], message: &Message) -> SignatureVerdict {
        if !message.is_by(&self.0) {
            return SignatureVerdict::Other;
        }
        if message.info.signed_attrs.is_some() {
            return SignatureVerdict::Unchecked(
                "the signature is one of attributes of the module".to_owned(),
            );
        }
        let info = &self.0.tbs_certificate.subject_public_key_info;
        let curve = info.algorithm.parameters.as_ref().and_then(|any| any.decode_as().ok());
        let known = KNOWN.iter().find(|known| {
            known.key == info.algorithm.oid
                && (known.curve.is_none() || known.curve == curve)
                && known.hash == message.info.digest_alg.oid
                && known.signed.contains(&message.info.signature_algorithm.oid)
        });
        let (Some(known), Some(key)) = (known, info.subject_public_key.as_bytes()) else {
            let signer = message.signer();
            return SignatureVerdict::Unchecked(format!(
                "klpx can't check {} with {}",
                signer.algorithm, signer.hash
            ));
        };
        match UnparsedPublicKey::new(known.algorithm, key).verify(module, message.info.signature.as_bytes()) {
            Ok(()) => SignatureVerdict::Right,
            Err(_) => SignatureVerdict::Wrong,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use klpx_testkit as tools;

    use super::*;

    const MODULE: &[u8] = b"a module's bytes";

    /// Makes a key with its certificate, and signs like scripts/sign-file.
    fn signed(folder: &Path, key: &[&str], hash: &str, more: &[&str]) -> (Certificate, Vec<u8>) {
        let run = |args: &[&str]| {
            tools::run(tools::command("openssl").args(args).current_dir(folder));
        };
        std::fs::write(folder.join("module"), MODULE).unwrap();
        let make =
            ["req", "-x509", "-nodes", "-subj", "/CN=klpx test", "-keyout", "key", "-out", "cert", "-newkey"];
        run(&[&make[..], key].concat());
        let sign =
            ["cms", "-sign", "-binary", "-nocerts", "-in", "module", "-signer", "cert", "-inkey", "key"];
        run(&[&sign[..], &["-outform", "DER", "-out", "signature", "-md", hash], more].concat());
        let certificate = Certificate::read(&std::fs::read(folder.join("cert")).unwrap()).unwrap();
        (certificate, std::fs::read(folder.join("signature")).unwrap())
    }

    #[test]
    fn a_signature_is_right_by_its_certificate_for_its_module_alone() {
        let folder = tempfile::tempdir().unwrap();
        let rsa = &["rsa:2048"][..];
        let p384 = &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"][..];
        let p256 = &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"][..];
        let mut other = None;
        for (key, hash) in [
            (rsa, "sha256"),
            (rsa, "sha384"),
            (rsa, "sha512"),
            (p256, "sha256"),
            (p256, "sha384"),
            (p384, "sha256"),
            (p384, "sha384"),
        ] {
            let (certificate, signature) = signed(folder.path(), key, hash, &["-noattr"]);
            let message = Message::read(&signature).unwrap();
            let signer = message.signer();
            assert_eq!(signer.issuer.as_deref(), Some("CN=klpx test"), "{key:?}");
            assert!(signer.hash.ends_with(&hash[3..]), "{signer:?}");
            assert_eq!(certificate.check(MODULE, &message), SignatureVerdict::Right, "{key:?} {hash}");
            assert_eq!(certificate.check(b"another", &message), SignatureVerdict::Wrong, "{key:?} {hash}");
            if let Some(other) = other.replace(certificate) {
                assert_eq!(other.check(MODULE, &message), SignatureVerdict::Other, "{key:?} {hash}");
            }
            let mut damaged = signature;
            let last = damaged.len() - 1;
            damaged[last] ^= 1;
            if let Ok(message) = Message::read(&damaged) {
                assert_eq!(
                    other.as_ref().unwrap().check(MODULE, &message),
                    SignatureVerdict::Wrong,
                    "{key:?} {hash}"
                );
            }
        }
    }

    #[test]
    fn what_klpx_cannot_check_is_neither_right_nor_wrong() {
        let folder = tempfile::tempdir().unwrap();
        for (key, hash, more) in [
            ("rsa:2048", "sha512", &[][..]),
            ("rsa:2048", "sha1", &["-noattr"]),
            ("rsa:2048", "sha256", &["-noattr", "-keyopt", "rsa_padding_mode:pss"]),
        ] {
            let (certificate, signature) = signed(folder.path(), &[key], hash, more);
            let verdict = certificate.check(MODULE, &Message::read(&signature).unwrap());
            assert!(matches!(verdict, SignatureVerdict::Unchecked(_)), "{hash} {more:?}: {verdict:?}");
        }
    }

    #[test]
    fn a_key_may_be_named_by_its_identifier() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, signature) = signed(folder.path(), &["rsa:2048"], "sha256", &["-noattr", "-keyid"]);
        let message = Message::read(&signature).unwrap();
        assert_eq!(message.signer().issuer, None);
        assert_eq!(message.signer().key.split(':').count(), 20);
        assert_eq!(certificate.check(MODULE, &message), SignatureVerdict::Right);
    }

    #[test]
    fn other_bytes_are_no_message_and_no_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let (_, signature) = signed(folder.path(), &["rsa:2048"], "sha256", &["-noattr"]);
        for bad in [&b""[..], b"0", &signature[..signature.len() - 1], b"-----BEGIN CERTIFICATE-----\n"] {
            assert!(Message::read(bad).is_err());
            assert!(Certificate::read(bad).is_err());
        }
    }
}
