//! What differs between the architectures of fixture kernels and guests: one table. Starts nothing.

/// An architecture: how its kernels are made here and how its guests run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The kernel's name of it, as `make ARCH=` and klpx's reports have it.
    pub(crate) name: &'static str,
    /// Rust's name of it, to tell a native machine from a foreign one.
    rust: &'static str,
    /// Debian's name of it.
    pub(crate) debian: &'static str,
    /// GNU tools for it have this before their name where the host is another.
    triple: &'static str,
    /// `make`'s target for the image that QEMU boots.
    pub(crate) image_target: &'static str,
    /// Where that image lies in the build tree.
    pub(crate) image: &'static str,
    /// The emulator.
    pub(crate) qemu: &'static str,
    /// What the emulator needs to know for this architecture alone.
    pub(crate) board: &'static [&'static str],
    /// The processor to emulate.
    pub(crate) emulated: &'static str,
    /// The serial console's device.
    pub(crate) console: &'static str,
}

/// A PC.
pub(crate) static X86_64: Machine = Machine {
    name: "x86_64",
    rust: "x86_64",
    debian: "amd64",
    triple: "x86_64-linux-gnu",
    image_target: "bzImage",
    image: "arch/x86/boot/bzImage",
    qemu: "qemu-system-x86_64",
    board: &["-smp", "2,sockets=2"],
    emulated: "max",
    console: "ttyS0",
};

/// QEMU's `virt` board. Its pointer authentication is emulated with an algorithm of QEMU's own: the architected one
/// takes most of the time.
pub(crate) static ARM64: Machine = Machine {
    name: "arm64",
    rust: "aarch64",
    debian: "arm64",
    triple: "aarch64-linux-gnu",
    image_target: "Image",
    image: "arch/arm64/boot/Image",
    qemu: "qemu-system-aarch64",
    board: &["-machine", "virt", "-smp", "2"],
    emulated: "max,pauth-impdef=on",
    console: "ttyAMA0",
};

impl Machine {
    /// True when programs for it run here as they are.
    pub(crate) fn is_native(&self) -> bool {
        self.rust == std::env::consts::ARCH
    }

    /// What stands before the names of the GNU tools; `make`'s `CROSS_COMPILE`.
    pub(crate) fn prefix(&self) -> String {
        if self.is_native() { String::new() } else { format!("{}-", self.triple) }
    }

    /// A GNU tool for it.
    pub(crate) fn tool(&self, name: &str) -> String {
        self.prefix() + name
    }
}
