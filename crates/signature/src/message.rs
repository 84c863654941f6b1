//! The contents of a signature: a CMS message without content and without certificates, as scripts/sign-file makes it
//! (RFC 5652).

use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use const_oid::ObjectIdentifier;
use const_oid::db::{DB, rfc5911};
use der::{Decode, Encode};

/// A signature that was parsed.
#[derive(Clone, Debug)]
pub struct Message {
    pub(crate) info: SignerInfo,
}

/// The signer, as the message names it. The texts are not trustworthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The issuer of the signer's certificate (RFC 4514). `None` if the message has only the identifier of the key.
    pub issuer: Option<String>,
    /// The serial number of the certificate or the identifier of its key, in hexadecimal.
    pub key: String,
    /// The name of the hash function, or its object identifier if the name is unknown.
    pub hash: String,
    /// The name of the signature algorithm, or its object identifier if the name is unknown.
    pub algorithm: String,
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// The fault of the message, as a fragment of a sentence.
    pub fn read(signature: &[u8]) -> Result<Message, String> {
        let content =
            ContentInfo::from_der(signature).map_err(|error| format!("it is no CMS message: {error}"))?;
        if content.content_type != rfc5911::ID_SIGNED_DATA {
            return Err("it is a CMS message of another kind than a signature".to_owned());
        }
        let signed: SignedData =
            content.content.decode_as().map_err(|error| format!("it is no signed data: {error}"))?;
        match <[SignerInfo; 1]>::try_from(signed.signer_infos.0.into_vec()) {
            Ok([info]) => Ok(Message { info }),
            Err(infos) => Err(format!("it has {} signers, and the kernel's has one", infos.len())),
        }
    }

    /// The signer that the message names.
    pub fn signer(&self) -> Signer {
        let (issuer, key) = match &self.info.sid {
            SignerIdentifier::IssuerAndSerialNumber(of) => {
                (Some(of.issuer.to_string()), of.serial_number.to_string())
            }
            SignerIdentifier::SubjectKeyIdentifier(key) => (None, hexadecimal(key.0.as_bytes())),
        };
        let (hash, algorithm) = (name(&self.info.digest_alg.oid), name(&self.info.signature_algorithm.oid));
        Signer { issuer, key, hash, algorithm }
    }

    /// Returns true if the message names the certificate.
    pub(crate) fn is_by(&self, certificate: &x509_cert::Certificate) -> bool {
        let certificate = &certificate.tbs_certificate;
        match &self.info.sid {
            SignerIdentifier::IssuerAndSerialNumber(of) => {
                certificate
                    .issuer
                    .to_der()
                    .is_ok_and(|one| of.issuer.to_der().is_ok_and(|other| one == other))
                    && certificate.serial_number == of.serial_number
            }
            SignerIdentifier::SubjectKeyIdentifier(key) => certificate
                .get::<x509_cert::ext::pkix::SubjectKeyIdentifier>()
                .is_ok_and(|of| of.is_some_and(|(_, of)| of == *key)),
        }
    }
}

fn name(oid: &ObjectIdentifier) -> String {
    DB.by_oid(oid).map_or_else(|| oid.to_string(), |name| name.trim_start_matches("id-").to_owned())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}
