//! The differences between two configurations that do not matter: a table of options that change no code, each with its
//! reason.
//!
//! Any other difference matters. The table has an option only if nothing but the named use reads the option. An option
//! that depends on it (for instance DEBUG_INFO_BTF on pahole's version) is not in the table, and matters.

use std::collections::BTreeSet;

use crate::config::Config;

/// Options that change no C or assembly code. A `*` at the end matches any rest.
static ACCEPTED: [(&str, &str); 27] = [
    ("BUILD_SALT", "it goes into an ELF note only (include/linux/build-salt.h)"),
    ("MODULE_SIG_ALL", "it says whether installing modules signs them"),
    ("MODULE_SIG_KEY", "it names the key that modules are signed with"),
    ("MODULE_SIG_KEY_TYPE_RSA", "it is the kind of a key that the build makes"),
    ("MODULE_SIG_KEY_TYPE_ECDSA", "it is the kind of a key that the build makes"),
    ("SYSTEM_TRUSTED_KEYS", "it names a file of keys, which become data of certs/"),
    ("SYSTEM_REVOCATION_KEYS", "it names a file of keys, which become data of certs/"),
    ("SYSTEM_BLACKLIST_HASH_LIST", "it names a file of hashes, which become data of certs/"),
    ("CC_VERSION_TEXT", "the compiler is compared by itself"),
    ("GCC_VERSION", "the compiler is compared by itself"),
    ("CLANG_VERSION", "the compiler is compared by itself"),
    ("AS_VERSION", "the compiler and the linker are compared by themselves"),
    ("LD_VERSION", "the linker is compared by itself"),
    ("LLD_VERSION", "the linker is compared by itself"),
    ("PAHOLE_VERSION", "pahole runs after the link, on debug information"),
    ("PAHOLE_HAS_SPLIT_BTF", "pahole runs after the link, on debug information"),
    ("PAHOLE_HAS_LANG_EXCLUDE", "pahole runs after the link, on debug information"),
    ("PAHOLE_HAS_BTF_TAG", "it adds attributes to debug information only (include/linux/compiler_types.h)"),
    ("HAVE_RUST", "it says what the architecture could do"),
    ("RUST_IS_AVAILABLE", "units in Rust are not compiled"),
    ("RUSTC_VERSION", "units in Rust are not compiled"),
    ("RUSTC_VERSION_TEXT", "units in Rust are not compiled"),
    ("RUSTC_CLANG_LLVM_COMPATIBLE", "units in Rust are not compiled"),
    ("RUSTC_LLVM_*", "units in Rust are not compiled"),
    ("RUSTC_HAS_*", "units in Rust are not compiled"),
    ("RUSTC_SUPPORTS_*", "units in Rust are not compiled"),
    ("BINDGEN_VERSION_TEXT", "units in Rust are not compiled"),
];

/// Why a difference in the option changes no code. `None` if it may. Options are named without `CONFIG_`.
pub fn reason(option: &str) -> Option<&'static str> {
    let same = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => option.starts_with(start),
        None => option == pattern,
    };
    ACCEPTED.iter().find(|(pattern, _)| same(pattern)).map(|&(_, why)| why)
}

/// An option with different values in two configurations. A value of `None` means that the option is not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionDifference {
    /// The option, without `CONFIG_`.
    pub option: String,
    /// The value in the kernel's own configuration.
    pub kernel: Option<String>,
    /// The value in the other configuration.
    pub other: Option<String>,
    /// Why the difference changes no code. `None` if it may.
    pub accepted: Option<&'static str>,
}

impl std::fmt::Display for OptionDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        write!(f, "CONFIG_{}: {} -> {}", self.option, show(&self.kernel), show(&self.other))
    }
}

/// Every option that differs between the kernel's own configuration and another configuration, sorted by name.
pub fn differences(kernel: &Config, other: &Config) -> Vec<OptionDifference> {
    let names: BTreeSet<&str> = kernel.names().chain(other.names()).collect();
    let value = |config: &Config, name: &str| config.value(name).map(str::to_owned);
    let differs = names.into_iter().filter(|name| kernel.value(name) != other.value(name));
    let difference = |name: &str| OptionDifference {
        option: name.to_owned(),
        kernel: value(kernel, name),
        other: value(other, name),
        accepted: reason(name),
    };
    differs.map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_salts_and_unused_tools_change_no_code() {
        // Options that Debian omits from /boot/config, and a machine without pahole, rustc and bindgen.
        let kernel = Config::parse(
            "CONFIG_A=y\nCONFIG_PAHOLE_VERSION=130\nCONFIG_RUSTC_LLVM_MAJOR_VERSION=19\nCONFIG_RUST_IS_AVAILABLE=y\n",
        );
        let other = Config::parse(
            "CONFIG_A=y\nCONFIG_BUILD_SALT=\"R\"\nCONFIG_MODULE_SIG_ALL=y\nCONFIG_MODULE_SIG_KEY=\"certs/signing_key.pem\"\n\
             CONFIG_SYSTEM_TRUSTED_KEYS=\"\"\nCONFIG_PAHOLE_VERSION=0\n",
        );
        let found = differences(&kernel, &other);
        assert_eq!(found.len(), 7);
        assert!(found.iter().all(|difference| difference.accepted.is_some()), "{found:?}");
    }

    #[test]
    fn what_c_code_sees_matters() {
        let seen = [
            "DEBUG_INFO_BTF",
            "DEBUG_INFO_BTF_MODULES",
            "SCHED_CLASS_EXT",
            "RUST",
            "RUST_FW_LOADER_ABSTRACTIONS",
            "MODULE_SIG",
            "MODULE_SIG_FORCE",
            "SYSTEM_TRUSTED_KEYRING",
            "ARCH_WANT_COMPAT_IPC_PARSE_VERSION",
            "LOCALVERSION",
            "CC_HAS_ASM_GOTO_OUTPUT",
            "RUSTC",
        ];
        for option in seen {
            let kernel = Config::parse(&format!("CONFIG_{option}=y\n"));
            let found = differences(&kernel, &Config::default());
            assert_eq!(found.iter().map(|d| d.accepted).collect::<Vec<_>>(), [None], "{option}");
            assert_eq!(found[0].to_string(), format!("CONFIG_{option}: y -> not set"));
        }
    }

    #[test]
    fn each_entry_has_a_reason_and_no_entry_hides_another() {
        for (n, (pattern, why)) in ACCEPTED.iter().enumerate() {
            assert!(!why.is_empty() && !pattern.starts_with("CONFIG_"), "{pattern}");
            let earlier = ACCEPTED[..n].iter().filter_map(|(other, _)| other.strip_suffix('*'));
            assert!(earlier.into_iter().all(|start| !pattern.starts_with(start)), "{pattern}");
        }
    }
}
