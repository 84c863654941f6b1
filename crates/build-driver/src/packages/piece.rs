//! The pieces of a kernel that klpx needs, and the purpose of each.

use std::fmt;

use serde::Serialize;

/// A piece of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Piece {
    /// The configuration.
    Config,
    /// The folder for building modules: the configuration in the form that kbuild and the compiler read.
    Headers,
    /// Module.symvers: exports and their checksums.
    Symvers,
    /// The kernel's image with code and symbols.
    Vmlinux,
    /// The image that a boot loader starts.
    BootImage,
    /// The folder of the loadable modules.
    Modules,
    /// The folder of the debug package's module copies.
    DebugModules,
    /// modules.order.
    ModulesOrder,
    /// modules.builtin.
    ModulesBuiltin,
    /// The source: a tree or a tarball.
    Source,
}

impl Piece {
    /// Every piece, in report order.
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

    /// Returns true if no livepatch can be made without the piece. Only patches of modules need modules.
    pub fn is_required(self) -> bool {
        matches!(self, Piece::Config | Piece::Symvers | Piece::Vmlinux | Piece::Source)
    }

    /// The piece whose package also contains this piece.
    pub(super) fn comes_with(self) -> Piece {
        match self {
            Piece::Config | Piece::Symvers => Piece::Headers,
            Piece::DebugModules => Piece::Vmlinux,
            Piece::ModulesOrder | Piece::ModulesBuiltin | Piece::BootImage => Piece::Modules,
            Piece::Headers | Piece::Vmlinux | Piece::Modules | Piece::Source => self,
        }
    }

    /// The purpose of the piece.
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
