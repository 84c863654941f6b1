//! The signature at the end of a module: the signature, `struct module_signature` and a marker
//! (include/linux/module_signature.h). The signature covers everything before it.

/// The last bytes of a signed module.
const MARK: &[u8] = b"~Module signature appended~\n";
/// Bytes of `struct module_signature`: five one-byte numbers, three bytes of padding, and the size of the signature.
const HEADER: usize = 12;
/// The third number for a PKCS#7 message (`PKEY_ID_PKCS7`), the only kind that kernels accept. The other numbers are
/// zero.
const PKCS7: u8 = 2;

/// The module and its signature, a PKCS#7 message. `None` for a file without a signature.
pub fn split(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = file.strip_suffix(MARK)?;
    let (rest, header) = rest.split_at_checked(rest.len().checked_sub(HEADER)?)?;
    let size = header[8..].iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    (header[2] == PKCS7).then(|| rest.split_at_checked(rest.len().checked_sub(size)?)).flatten()
}

/// The module with a signature appended. `None` if the signature has more than 4 GiB.
pub fn append(module: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
    let size = u32::try_from(signature.len()).ok()?.to_be_bytes();
    let header = [[0, 0, PKCS7, 0], [0; 4], size].concat();
    Some([module, signature, &header, MARK].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_found_again_and_nothing_else_is() {
        let signed = append(b"module", b"signature").expect("a small one");
        assert_eq!(signed.len(), 6 + 9 + HEADER + MARK.len());
        assert_eq!(split(&signed), Some((&b"module"[..], &b"signature"[..])));
        assert_eq!(split(b"module"), None);
        assert_eq!(split(MARK), None);
        let kind = signed.len() - MARK.len() - HEADER + 2;
        let size = signed.len() - MARK.len() - 1;
        for (at, value) in [(kind, 1), (size, 200), (signed.len() - 1, b' ')] {
            let mut other = signed.clone();
            other[at] = value;
            assert_eq!(split(&other), None, "byte {at}");
        }
    }
}
