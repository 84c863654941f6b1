//! The pieces of a kernel that klpx needs, and the purpose of each.

use std::fmt;

use serde::Serialize;

/// A piece of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelPiece {
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

impl KernelPiece {
    /// Every piece, in report order.
    pub const ALL: [KernelPiece; 10] = [
        KernelPiece::Config,
        KernelPiece::Headers,
        KernelPiece::Symvers,
        KernelPiece::Vmlinux,
        KernelPiece::Source,
        KernelPiece::BootImage,
        KernelPiece::Modules,
        KernelPiece::DebugModules,
        KernelPiece::ModulesOrder,
        KernelPiece::ModulesBuiltin,
    ];

    /// Returns true if no livepatch can be made without the piece. Only patches of modules need modules.
    pub fn is_required(self) -> bool {
        matches!(
            self,
            KernelPiece::Config | KernelPiece::Symvers | KernelPiece::Vmlinux | KernelPiece::Source
        )
    }

    /// The piece whose package also contains this piece.
    pub(super) fn comes_with(self) -> KernelPiece {
        match self {
            KernelPiece::Config | KernelPiece::Symvers => KernelPiece::Headers,
            KernelPiece::DebugModules => KernelPiece::Vmlinux,
            KernelPiece::ModulesOrder | KernelPiece::ModulesBuiltin | KernelPiece::BootImage => {
                KernelPiece::Modules
            }
            KernelPiece::Headers | KernelPiece::Vmlinux | KernelPiece::Modules | KernelPiece::Source => self,
        }
    }

    /// The purpose of the piece.
    pub fn purpose(self) -> &'static str {
        match self {
            KernelPiece::Config => "how the kernel was configured",
            KernelPiece::Headers => "the configuration as the kernel's own build had it",
            KernelPiece::Symvers => "what the kernel exports, with checksums",
            KernelPiece::Vmlinux => "the kernel's code and symbols, to be compared and bound to",
            KernelPiece::Source => "what the patch applies to",
            KernelPiece::BootImage => "guests that try a livepatch",
            KernelPiece::Modules => "modules that a patch changes",
            KernelPiece::DebugModules => "names of source files in modules",
            KernelPiece::ModulesOrder | KernelPiece::ModulesBuiltin => "which sources belong to which module",
        }
    }
}

impl fmt::Display for KernelPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KernelPiece::Config => "configuration",
            KernelPiece::Headers => "headers",
            KernelPiece::Symvers => "Module.symvers",
            KernelPiece::Vmlinux => "vmlinux",
            KernelPiece::Source => "source",
            KernelPiece::BootImage => "boot image",
            KernelPiece::Modules => "modules",
            KernelPiece::DebugModules => "modules' debug copies",
            KernelPiece::ModulesOrder => "modules.order",
            KernelPiece::ModulesBuiltin => "modules.builtin",
        })
    }
}
