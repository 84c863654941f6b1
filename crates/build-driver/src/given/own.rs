//! Variables that klpx sets itself, each with the reason and with the alternative for the user.

/// Variables with one common reason.
pub(super) struct VariableRow {
    /// Names. A `*` at the end matches any rest.
    names: &'static [&'static str],
    pub(super) why: &'static str,
    pub(super) instead: &'static str,
}

static ROWS: [VariableRow; 9] = [
    VariableRow {
        names: &["ARCH", "SRCARCH", "SUBARCH", "UTS_MACHINE"],
        why: "the configuration says which architecture the kernel is of",
        instead: "leave it out; --config or --build-dir names the configuration",
    },
    VariableRow {
        names: &["CC", "LD", "LLVM", "CROSS_COMPILE", "HOSTCC", "HOSTLD"],
        why: "klpx looks for the very compiler and linker that the configuration names",
        instead: "name the tools with --llvm or --cross-compile",
    },
    VariableRow {
        names: &["O", "M", "MO", "KBUILD_OUTPUT", "KBUILD_EXTMOD", "KBUILD_EXTMOD_OUTPUT", "VPATH"],
        why: "klpx builds in a tree of its own",
        instead: "name the kernel's trees with --source and --build-dir, and an external module's with --module-source",
    },
    VariableRow {
        names: &["KCONFIG_*", "KBUILD_DEFCONFIG", "KBUILD_KCONFIG"],
        why: "klpx takes the kernel's configuration as it is",
        instead: "name it with --config",
    },
    VariableRow {
        names: &[
            "KERNELRELEASE",
            "KERNELVERSION",
            "LOCALVERSION",
            "VERSION",
            "PATCHLEVEL",
            "SUBLEVEL",
            "EXTRAVERSION",
        ],
        why: "the release is that of the kernel to be patched",
        instead: "leave it out; --kernel, --build-dir or --vmlinux names that kernel",
    },
    VariableRow {
        names: &["KBUILD_BUILD_TIMESTAMP", "KBUILD_BUILD_USER", "KBUILD_BUILD_HOST", "KBUILD_BUILD_VERSION"],
        why: "klpx holds it fast so that the same inputs give the same bytes; no function of a livepatch has it",
        instead: "leave it out",
    },
    VariableRow {
        names: &[
            "V",
            "KBUILD_VERBOSE",
            "C",
            "CHECK",
            "KBUILD_CHECKSRC",
            "W",
            "KBUILD_EXTRA_WARN",
            "MAKE*",
            "MFLAGS",
            "GNUMAKEFLAGS",
            "SHELL",
            "CONFIG_SHELL",
            "KLPX_*",
            "_*",
        ],
        why: "it says how make runs and what it prints, and klpx reads what make prints",
        instead: "leave it out; no code of the kernel depends on it",
    },
    VariableRow {
        names: &["INSTALL*", "MODLIB", "DEPMOD", "PAHOLE", "KBUILD_MODPOST_*", "KBUILD_SIGN_PIN"],
        why: "it is of what comes after the units are compiled, which klpx does otherwise or not at all",
        instead: "leave it out; no code of the kernel depends on it",
    },
    VariableRow {
        names: &[
            "CONFIG_RUST",
            "CONFIG_DEBUG_INFO_BTF",
            "CONFIG_DEBUG_INFO_BTF_MODULES",
            "CONFIG_MODULE_SIG_FORMAT",
            "CONFIG_SYSTEM_TRUSTED_KEYRING",
            "CONFIG_LTO*",
            "CONFIG_CC_IS_*",
            "CONFIG_LD_IS_*",
        ],
        why: "klpx goes by what the configuration says of it",
        instead: "leave it out; --config names the configuration that the kernel was built with",
    },
];

/// Why a variable can't be given. `None` if it can.
pub(super) fn row(name: &str) -> Option<&'static VariableRow> {
    let is = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *pattern,
    };
    ROWS.iter().find(|row| row.names.iter().any(is))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::given::FLAGS;
    use crate::kbuild::make::USELESS;

    /// Names of variables that a source file passes to make: the text between a quote and an equals sign.
    fn given_in(source: &str) -> Vec<&str> {
        let code = source.split("#[cfg(test)]").next().unwrap_or(source);
        let before = |at: usize| code[..at].rsplit('"').next().unwrap_or_default();
        let all = code.match_indices('=').map(|(at, _)| before(at));
        let is_name = |name: &&str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        };
        all.filter(is_name).collect()
    }

    #[test]
    fn whatever_klpx_gives_to_make_can_not_be_given_by_the_user() {
        let sources = [
            include_str!("../kbuild/make.rs"),
            include_str!("../toolchain/mod.rs"),
            include_str!("../workspace/external_source.rs"),
        ];
        let mut seen = 0;
        let off = USELESS.iter().filter_map(|word| word.strip_suffix('='));
        for name in
            sources.iter().flat_map(|source| given_in(source)).chain(off).filter(|name| *name != FLAGS)
        {
            assert!(row(name).is_some(), "{name}");
            seen += 1;
        }
        assert!(seen > 15, "the sources are read: {seen}");
    }

    #[test]
    fn each_variable_has_one_row_and_the_kernels_own_have_none() {
        for (n, one) in ROWS.iter().enumerate() {
            for name in one.names {
                let found = row(name.trim_end_matches('*')).map(|found| found.why);
                assert!(found.is_none_or(|why| why == one.why), "row {n}: {name}");
            }
        }
        for name in [
            "KCFLAGS",
            "KCPPFLAGS",
            "CLANG_AUTOFDO_PROFILE",
            "LLVM_IAS",
            "PYTHON3",
            "CONFIG_DEBUG_SECTION_MISMATCH",
        ] {
            assert!(row(name).is_none(), "{name}");
        }
    }
}
