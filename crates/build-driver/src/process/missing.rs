//! Programs that are not installed, and the packages that contain them.

use klpx_diagnosis::{Diagnosis, codes};

/// A program that a kernel build runs, its Debian package, and the symbols that require it (empty: always required).
pub(crate) const TOOLS: [(&str, &str, &[&str]); 12] = [
    ("make", "make", &[]),
    ("flex", "flex", &[]),
    ("bison", "bison", &[]),
    ("bc", "bc", &[]),
    ("git", "git", &[]),
    ("perl", "perl", &[]),
    ("python3", "python3", &[]),
    ("awk", "mawk", &[]),
    ("cpio", "cpio", &["IKHEADERS"]),
    ("pahole", "pahole", &["DEBUG_INFO_BTF"]),
    ("openssl", "openssl", &["MODULE_SIG"]),
    ("rustc", "rustc", &["RUST"]),
];

/// The Debian package of a program. Empty if unknown.
pub(crate) fn package_of(program: &str) -> String {
    let name = program.rsplit('/').next().unwrap_or(program);
    if let Some((_, package, _)) = TOOLS.iter().find(|(tool, _, _)| *tool == name) {
        return (*package).to_owned();
    }
    let (base, suffix) = match name.rsplit_once('-') {
        Some((base, suffix)) if suffix.chars().all(|c| c.is_ascii_digit()) => (base, format!("-{suffix}")),
        _ => (name, String::new()),
    };
    match base {
        "ld.lld" => format!("lld{suffix}"),
        "clang" => format!("clang{suffix}"),
        _ if base.starts_with("llvm-") => format!("llvm{suffix}"),
        _ if base.ends_with("-ld") => format!("binutils-{}", base.trim_end_matches("-ld").replace('_', "-")),
        "gcc" => format!("gcc{suffix}"),
        "ld" | "nm" | "objcopy" | "ar" | "strip" | "readelf" => "binutils".to_owned(),
        _ => String::new(),
    }
}

/// The diagnosis of a program that is not installed.
pub(crate) fn missing_tool(program: &str) -> Diagnosis {
    let package = package_of(program);
    let remedy = if package.is_empty() {
        "install it".to_owned()
    } else {
        format!("install it (Debian: apt install {package})")
    };
    Diagnosis::new(
        &codes::MISSING_TOOL,
        format!("{program} is not installed"),
        "building a kernel needs it",
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_names_its_package() {
        let cases = [
            ("flex", "apt install flex"),
            ("ld.lld-22", "apt install lld-22"),
            ("llvm-objcopy-19", "apt install llvm-19"),
            ("aarch64-linux-gnu-ld", "apt install binutils-aarch64-linux-gnu"),
            ("/usr/lib/llvm-22/bin/llvm-ar", "apt install llvm"),
            ("strange", "install it"),
        ];
        for (tool, remedy) in cases {
            assert!(missing_tool(tool).remedy.contains(remedy), "{tool}: {}", missing_tool(tool).remedy);
        }
    }
}
