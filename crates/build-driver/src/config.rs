//! The kernel's `.config`: symbols, values, and the settings that rule out a livepatch. Never runs Kconfig.

use std::collections::BTreeMap;
use std::path::Path;

use klpx_diagnosis::{Code, Diagnosis, Result, codes};

use crate::arch::KernelArch;
use crate::process;
use crate::tree::Version;

/// A parsed `.config`. Symbols are named without `CONFIG_`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    text: String,
    values: BTreeMap<String, String>,
}

impl Config {
    /// Reads a `.config` file.
    ///
    /// # Errors
    /// If the file can't be read, or sets no symbol.
    pub fn read(path: &Path) -> Result<Config> {
        let text = process::read(path).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                Diagnosis::new(
                    &codes::CONFIG_MISSING,
                    format!("no kernel configuration at {}", path.display()),
                    "klpx makes the kernel's code again, which needs the very configuration of the kernel",
                    "name the build tree with --build-dir, or the configuration with --config",
                )
            } else {
                Diagnosis::io("read", path, &error)
            }
        })??;
        let config = Config::parse(&String::from_utf8_lossy(&text));
        if config.values.is_empty() {
            let what = format!("{} is not a kernel configuration", path.display());
            return Err(Diagnosis::new(
                &codes::CONFIG_INVALID,
                what,
                "it sets no CONFIG_ symbol",
                "name the unedited .config of the kernel's own build with --config",
            )
            .into());
        }
        Ok(config)
    }

    /// Parses the text of a `.config`. Ignores lines that set nothing, as Kconfig does.
    pub fn parse(text: &str) -> Config {
        let values = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("CONFIG_")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), unquote(value)))
            .collect();
        Config { text: text.to_owned(), values }
    }

    /// Returns true if the symbol is `y`.
    pub fn is(&self, name: &str) -> bool {
        self.value(name) == Some("y")
    }

    /// The symbol's value, without quotes. `None` if the symbol is not set.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The symbol's value as a number. 0 if the symbol is not set or has no decimal value.
    pub fn number(&self, name: &str) -> u64 {
        self.value(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// The text that was parsed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many symbols are set.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Returns true if no symbol is set.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The symbols that are set, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

fn unquote(value: &str) -> String {
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        None => value.to_owned(),
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
    }
}

impl KernelArch {
    /// The architecture of a configuration.
    pub(crate) fn of(config: &Config) -> Result<KernelArch> {
        let found = KernelArch::ALL.iter().find(|arch| config.is(arch.symbol()));
        found.copied().ok_or_else(|| {
            let symbols: Vec<String> =
                KernelArch::ALL.iter().map(|arch| format!("CONFIG_{}", arch.symbol())).collect();
            let what = "the configuration is for an architecture klpx does not support";
            Diagnosis::new(
                &codes::UNSUPPORTED_ARCHITECTURE,
                what,
                format!("neither {} is set", symbols.join(" nor ")),
                "for ppc64le, s390x and loongarch64 see kpatch-build",
            )
            .into()
        })
    }
}

/// One setting that rules out a livepatch.
struct ConfigRule {
    code: &'static Code,
    symbol: &'static str,
    /// The required value: `true` for `y`, `false` for not set.
    wanted: bool,
    why: &'static str,
    remedy: &'static str,
}

/// Every setting that klpx checks, in the order of the report.
const RULES: [ConfigRule; 8] = [
    ConfigRule {
        code: &codes::NO_MODULES,
        symbol: "MODULES",
        wanted: true,
        why: "a livepatch is a module and this kernel loads none",
        remedy: "boot a kernel built with CONFIG_MODULES=y",
    },
    ConfigRule {
        code: &codes::NO_LIVEPATCH,
        symbol: "LIVEPATCH",
        wanted: true,
        why: "the kernel was built without the livepatch core",
        remedy: "boot a kernel built with CONFIG_LIVEPATCH=y (it needs KALLSYMS_ALL, DYNAMIC_FTRACE and STACKTRACE)",
    },
    ConfigRule {
        code: &codes::RANDSTRUCT,
        symbol: "RANDSTRUCT",
        wanted: false,
        why: "structure layouts depend on a random seed; a rebuild with another seed has other layouts",
        remedy: "use a kernel built with CONFIG_RANDSTRUCT_NONE=y",
    },
    ConfigRule {
        code: &codes::RANDSTRUCT,
        symbol: "GCC_PLUGIN_RANDSTRUCT",
        wanted: false,
        why: "structure layouts depend on a random seed; a rebuild with another seed has other layouts",
        remedy: "use a kernel built with CONFIG_RANDSTRUCT_NONE=y",
    },
    ConfigRule {
        code: &codes::LATENT_ENTROPY,
        symbol: "GCC_PLUGIN_LATENT_ENTROPY",
        wanted: false,
        why: "the plugin puts random constants into functions, so that every rebuild differs everywhere",
        remedy: "use a kernel built without CONFIG_GCC_PLUGIN_LATENT_ENTROPY",
    },
    ConfigRule {
        code: &codes::DEAD_CODE_ELIMINATION,
        symbol: "LD_DEAD_CODE_DATA_ELIMINATION",
        wanted: false,
        why: "the final link drops functions that vmlinux.o still has",
        remedy: "use a kernel built without CONFIG_LD_DEAD_CODE_DATA_ELIMINATION",
    },
    ConfigRule {
        code: &codes::TRIMMED_SYMBOLS,
        symbol: "TRIM_UNUSED_KSYMS",
        wanted: false,
        why: "exports that no in-tree module uses were dropped, a livepatch may need them",
        remedy: "use a kernel built without CONFIG_TRIM_UNUSED_KSYMS",
    },
    ConfigRule {
        code: &codes::NO_KALLSYMS,
        symbol: "KALLSYMS",
        wanted: true,
        why: "the livepatch core finds functions by name in kallsyms",
        remedy: "use a kernel built with CONFIG_KALLSYMS=y",
    },
];

/// Checks for every setting that rules out a livepatch. Each becomes a diagnosis.
pub(crate) fn check(config: &Config, arch: KernelArch, version: &Version) -> Result<()> {
    let mut found = Vec::new();
    for rule in &RULES {
        let set = config.is(rule.symbol);
        let randstruct = rule.symbol == "RANDSTRUCT" && config.is("RANDSTRUCT_NONE");
        if set == rule.wanted || randstruct {
            continue;
        }
        let state = if rule.wanted { "is not set" } else { "is set" };
        found.push(Diagnosis::new(
            rule.code,
            format!("CONFIG_{} {state}", rule.symbol),
            rule.why,
            rule.remedy,
        ));
    }
    if let Some(since) = arch.livepatch_since()
        && (version.major, version.minor) < since.release
    {
        let (name, (major, minor)) = (arch.name(), since.release);
        found.push(Diagnosis::new(
            since.code,
            format!("Linux {version} has no livepatching on {name}"),
            format!("arch/{} gained HAVE_LIVEPATCH in {major}.{minor}", arch.kbuild()),
            format!("use a kernel of {major}.{minor} or later"),
        ));
    }
    klpx_diagnosis::Failure::all(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u32, minor: u32) -> Version {
        Version { major, minor, patch: 0, extra: String::new() }
    }

    const GOOD: &str = "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\nCONFIG_KALLSYMS=y\n";

    #[test]
    fn values_are_read_as_kconfig_writes_them() {
        let config = Config::parse(
            "# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=m\nCONFIG_D=\"a \\\"q\\\" b\"\nCONFIG_N=0x10\nCONFIG_V=120200\njunk\n",
        );
        assert!(!config.is("A") && config.is("B") && !config.is("C"));
        assert_eq!(config.value("C"), Some("m"));
        assert_eq!(config.value("D"), Some("a \"q\" b"));
        assert_eq!(config.number("V"), 120_200);
        assert_eq!(config.value("A"), None);
    }

    #[test]
    fn each_bad_setting_has_its_code() {
        let cases = [
            ("", None),
            ("CONFIG_LIVEPATCH=n\n", Some("klpx::no-livepatch")),
            ("CONFIG_MODULES=n\n", Some("klpx::no-modules")),
            ("CONFIG_KALLSYMS=n\n", Some("klpx::no-kallsyms")),
            ("CONFIG_RANDSTRUCT=y\nCONFIG_RANDSTRUCT_FULL=y\n", Some("klpx::randstruct")),
            ("CONFIG_GCC_PLUGIN_LATENT_ENTROPY=y\n", Some("klpx::latent-entropy")),
            ("CONFIG_LD_DEAD_CODE_DATA_ELIMINATION=y\n", Some("klpx::dead-code-elimination")),
            ("CONFIG_TRIM_UNUSED_KSYMS=y\n", Some("klpx::trimmed-symbols")),
        ];
        for (line, code) in cases {
            let config = Config::parse(&format!("{GOOD}{line}"));
            let result = check(&config, KernelArch::X86_64, &version(7, 2));
            let got = result.err().and_then(|failure| failure.diagnoses().next().map(|d| d.code));
            assert_eq!(got, code, "{line}");
        }
    }

    #[test]
    fn arm64_needs_6_17() {
        let config = Config::parse(&GOOD.replace("X86_64", "ARM64"));
        assert_eq!(KernelArch::of(&config).expect("arch"), KernelArch::Arm64);
        for old in [version(6, 16), version(6, 12), version(5, 19)] {
            let failure = check(&config, KernelArch::Arm64, &old).expect_err("refused");
            let found: Vec<_> = failure.diagnoses().collect();
            assert_eq!(found.iter().map(|d| d.code).collect::<Vec<_>>(), ["klpx::arm64-too-old"], "{old}");
            assert!(found[0].why.contains("6.17") && !found[0].remedy.is_empty(), "{old}");
        }
        assert!(check(&config, KernelArch::X86_64, &version(6, 1)).is_ok());
        assert!(check(&config, KernelArch::Arm64, &version(6, 17)).is_ok());
        assert!(check(&config, KernelArch::Arm64, &version(7, 0)).is_ok());
    }
}
