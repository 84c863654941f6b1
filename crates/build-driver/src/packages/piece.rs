//! The pieces that a kernel consists of for klpx, and what each is needed for.

use std::fmt;

use serde::Serialize;

/// A piece of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Piece {
    /// The configuration.
    Config,
    /// The folder for building modules: the configuration as kbuild and the compiler read it.
    Headers,
    /// Module.symvers: exports and their checksums.
    Symvers,
    /// The kernel's image with code and symbols.
    Vmlinux,
    /// The image that a boot loader starts.
    BootImage,
    /// The folder of the modules as they are loaded.
    Modules,
    /// The folder of the debug package's copies of the modules.
    DebugModules,
    /// modules.order.
    ModulesOrder,
    /// modules.builtin.
    ModulesBuiltin,
    /// The source: a tree or a tarball.
    Source,
}

impl Piece {
    /// Every piece, in the order of reports.
    pub const ALL: [Piece; 10] = [
        Piece::Config,
        Piece::Headers,
        Piece::Symvers,
        Piece::Vmlinux,
        Piece::Source,
        Piece::BootImage,
        Piece::Modules,
        Piece::DebugModules,
        Piece::ModulesOrder,
        Piece::ModulesBuiltin,
    ];

    /// True when no livepatch can be made without it. Modules are needed for patches of modules only.
    pub fn is_required(self) -> bool {
        matches!(self, Piece::Config | Piece::Symvers | Piece::Vmlinux | Piece::Source)
    }

    /// The piece whose package brings it.
    pub(super) fn comes_with(self) -> Piece {
        match self {
            Piece::Config | Piece::Symvers => Piece::Headers,
            Piece::DebugModules => Piece::Vmlinux,
            Piece::ModulesOrder | Piece::ModulesBuiltin | Piece::BootImage => Piece::Modules,
            Piece::Headers | Piece::Vmlinux | Piece::Modules | Piece::Source => self,
        }
    }

    /// What it is needed for.
    pub fn purpose(self) -> &'static str {
        match self {
            Piece::Config => "how the kernel was configured",
            Piece::Headers => "the configuration as the kernel's own build had it",
            Piece::Symvers => "what the kernel exports, with checksums",
            Piece::Vmlinux => "the kernel's code and symbols, to be compared and bound to",
            Piece::Source => "what the patch applies to",
            Piece::BootImage => "guests that try a livepatch",
            Piece::Modules => "modules that a patch changes",
            Piece::DebugModules => "names of source files in modules",
            Piece::ModulesOrder | Piece::ModulesBuiltin => "which sources belong to which module",
        }
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Piece::Config => "configuration",
            Piece::Headers => "headers",
            Piece::Symvers => "Module.symvers",
            Piece::Vmlinux => "vmlinux",
            Piece::Source => "source",
            Piece::BootImage => "boot image",
            Piece::Modules => "modules",
            Piece::DebugModules => "modules' debug copies",
            Piece::ModulesOrder => "modules.order",
            Piece::ModulesBuiltin => "modules.builtin",
        })
    }
}
