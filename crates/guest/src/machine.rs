//! The differences between guests of two architectures, in one table.

use klpx_normalize::arch::Arch;

/// How guests of an architecture run.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    /// Rust's name of the architecture. Tells a native machine from a foreign machine.
    rust: &'static str,
    /// The emulator.
    pub qemu: &'static str,
    /// The Debian package of the emulator.
    pub package: &'static str,
    /// Emulator arguments for this architecture only.
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

/// QEMU's `virt` board. Pointer authentication is emulated with QEMU's own algorithm, because the architected algorithm
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
    /// The machine for kernels of the architecture.
    pub fn of(arch: Arch) -> &'static Machine {
        match arch {
            Arch::X86_64 => &X86_64,
            Arch::Arm64 => &ARM64,
        }
    }

    /// Returns true if this host runs the machine's programs natively.
    pub fn is_native(&self) -> bool {
        self.rust == std::env::consts::ARCH
    }
}
