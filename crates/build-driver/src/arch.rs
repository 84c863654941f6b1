//! The facts about architectures that a build needs, one table for each.

use klpx_diagnosis::{Code, codes};

/// The facts about an architecture. Every architecture has one table.
struct KernelArchFacts {
    /// The name for users.
    name: &'static str,
    /// The name in kbuild: the value of ARCH, and the folder under `arch/`.
    kbuild: &'static str,
    /// The configuration symbol that is set for the architecture, without `CONFIG_`.
    symbol: &'static str,
    /// The machine number of an ELF header (`EM_*`).
    machine: u16,
    /// Rust's name of the architecture. Tells a native build from a cross build.
    rust: &'static str,
    /// The prefix of Debian's cross tools.
    cross: &'static str,
    /// True if GCC reaches all data of a file from one address (`-fsection-anchors`).
    gcc_anchors_data: bool,
    /// The first release with livepatching, and the code for older ones; `None` if every supported release has it.
    livepatch_since: Option<LivepatchSince>,
}

/// The first release of an architecture that has HAVE_LIVEPATCH (`arch/*/Kconfig`).
pub(crate) struct LivepatchSince {
    /// Major and minor number.
    pub(crate) release: (u32, u32),
    /// The code of the refusal of an older release.
    pub(crate) code: &'static Code,
}

/// Declares the architectures, each with its table of facts.
macro_rules! architectures {
    ($($(#[$doc:meta])* $arch:ident: $facts:path,)+) => {
        /// The architectures that klpx supports.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum KernelArch {
            $($(#[$doc])* $arch,)+
        }

        impl KernelArch {
            /// Every architecture.
            pub(crate) const ALL: &[KernelArch] = &[$(KernelArch::$arch,)+];

            fn facts(self) -> &'static KernelArchFacts {
                match self {
                    $(KernelArch::$arch => &$facts,)+
                }
            }
        }
    };
}

architectures! {
    /// x86, 64 bits.
    X86_64: X86_64,
    /// arm64.
    Arm64: ARM64,
}

static X86_64: KernelArchFacts = KernelArchFacts {
    name: "x86_64",
    kbuild: "x86",
    symbol: "X86_64",
    machine: 62,
    rust: "x86_64",
    cross: "x86_64-linux-gnu-",
    gcc_anchors_data: false,
    livepatch_since: None,
};

static ARM64: KernelArchFacts = KernelArchFacts {
    name: "arm64",
    kbuild: "arm64",
    symbol: "ARM64",
    machine: 183,
    rust: "aarch64",
    cross: "aarch64-linux-gnu-",
    gcc_anchors_data: true,
    livepatch_since: Some(LivepatchSince { release: (6, 17), code: &codes::ARM64_TOO_OLD }),
};

impl KernelArch {
    /// The name in kbuild: the value of ARCH, and the folder under `arch/`.
    pub fn kbuild(self) -> &'static str {
        self.facts().kbuild
    }

    /// The machine number of an ELF header (EM_X86_64, EM_AARCH64).
    pub fn machine(self) -> u16 {
        self.facts().machine
    }

    /// The name for users.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The configuration symbol that is set for the architecture, without `CONFIG_`.
    pub(crate) fn symbol(self) -> &'static str {
        self.facts().symbol
    }

    /// The prefix of the tools that build for the architecture on this machine; empty for the machine's own.
    pub(crate) fn cross(self) -> &'static str {
        let facts = self.facts();
        if facts.rust == std::env::consts::ARCH { "" } else { facts.cross }
    }

    /// Returns true if GCC reaches all data of a file from one address (`-fsection-anchors`, on by default on some
    /// targets at -O1). `-fdata-sections` disables section anchors, so that the code of most functions changes.
    pub(crate) fn gcc_anchors_data(self) -> bool {
        self.facts().gcc_anchors_data
    }

    /// The first release with livepatching; `None` if every supported release has it.
    pub(crate) fn livepatch_since(self) -> Option<&'static LivepatchSince> {
        self.facts().livepatch_since.as_ref()
    }
}
