//! What differs between guests of two architectures: one table.

use klpx_normalize::arch::Arch;

/// How guests of an architecture run.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    /// Rust's name of the architecture, to tell a native machine from a foreign one.
    rust: &'static str,
    /// The emulator.
    pub qemu: &'static str,
    /// Debian's package of the emulator.
    pub package: &'static str,
    /// What the emulator needs to know for this architecture alone.
    pub(crate) board: &'static [&'static str],
    /// The processor to emulate.
    pub(crate) emulated: &'static str,
    /// The serial console's device.
    pub(crate) console: &'static str,
}

/// A PC.
pub static X86_64: Machine = Machine {
    rust: "x86_64",
    qemu: "qemu-system-x86_64",
    package: "qemu-system-x86",
    board: &["-smp", "2,sockets=2"],
    emulated: "max",
    console: "ttyS0",
};

/// QEMU's `virt` board. Its pointer authentication is emulated with an algorithm of QEMU's own: the architected one
/// takes most of the time.
pub static ARM64: Machine = Machine {
    rust: "aarch64",
    qemu: "qemu-system-aarch64",
    package: "qemu-system-arm",
    board: &["-machine", "virt", "-smp", "2"],
    emulated: "max,pauth-impdef=on",
    console: "ttyAMA0",
};

impl Machine {
    /// The machine for kernels of an architecture.
    pub fn of(arch: Arch) -> &'static Machine {
        match arch {
            Arch::X86_64 => &X86_64,
            Arch::Arm64 => &ARM64,
        }
    }

    /// True when programs for it run here as they are.
    pub fn is_native(&self) -> bool {
        self.rust == std::env::consts::ARCH
    }
}
