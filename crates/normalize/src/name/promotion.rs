//! The names that ThinLTO gives to locals that it makes global.

/// Returns a name without the hash that ThinLTO adds to a promoted local. The hash differs between build directories.
pub fn without_promotion(name: &[u8]) -> &[u8] {
    match split_promotion(name) {
        Some((base, _, [])) => base,
        _ => name,
    }
}

/// The mark that every promoted name contains.
pub const PROMOTED: &[u8] = b".llvm.";

/// Returns the origin that ThinLTO named a promoted local after: the hash of its module, or its file.
pub fn promotion(name: &[u8]) -> Option<&[u8]> {
    split_promotion(name).map(|(_, module, _)| module)
}

/// Splits `f.llvm.12.cold` into `f`, `12` and `.cold`.
fn split_promotion(name: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    const MARK: &[u8] = b".llvm";
    let mut end = name.len();
    // Most names have no dot, so the search starts at the end and takes one part at a time.
    while let Some(dot) = name[..end].iter().rposition(|&b| b == b'.') {
        let (before, module) = (&name[..dot], &name[dot + 1..end]);
        if let Some(base) = before.strip_suffix(MARK) {
            return (!base.is_empty() && is_module(module)).then_some((base, module, &name[end..]));
        }
        end = dot;
    }
    None
}

/// Returns true for text that may follow `.llvm.`: a number, or a path in which `_` replaced all but letters and
/// digits.
pub(super) fn is_module(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hash_of_a_promotion_is_dropped() {
        for (name, rest) in [
            ("f.llvm.12", "f"),
            ("f.1.llvm.12", "f.1"),
            ("f.llvm.a_c", "f"),
            ("f.llvm.", "f.llvm."),
            ("f.llvm.1.cold", "f.llvm.1.cold"),
        ] {
            assert_eq!(without_promotion(name.as_bytes()), rest.as_bytes());
        }
    }

    #[test]
    fn a_promoted_name_tells_its_module() {
        for (name, module) in [("f.llvm.12", "12"), ("f.llvm.12.cold.1", "12"), ("f.2.llvm.a_c", "a_c")] {
            assert_eq!(promotion(name.as_bytes()), Some(module.as_bytes()));
        }
        for name in ["f", "f.llvm.", ".llvm.12", "f.llvm.-", "f.1"] {
            assert_eq!(promotion(name.as_bytes()), None, "{name}");
        }
    }
}
