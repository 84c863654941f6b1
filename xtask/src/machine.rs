//! The differences between the architectures of fixture kernels, as one table. Starts nothing.

/// An architecture: how its kernels are made here and how its guests run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The kernel's name of the architecture, as in `make ARCH=` and klpx's reports.
    pub(crate) name: &'static str,
    /// Debian's name of the architecture.
    pub(crate) debian: &'static str,
    /// The prefix of GNU tools for the architecture on other hosts.
    triple: &'static str,
    /// `make`'s target for the image that QEMU boots.
    pub(crate) image_target: &'static str,
    /// The image's place in the build tree.
    pub(crate) image: &'static str,
    /// How the architecture's guests run.
    pub(crate) guest: &'static klpx_guest::Machine,
}

/// A PC.
pub(crate) static X86_64: Machine = Machine {
    name: "x86_64",
    debian: "amd64",
    triple: "x86_64-linux-gnu",
    image_target: "bzImage",
    image: "arch/x86/boot/bzImage",
    guest: &klpx_guest::X86_64,
};

/// QEMU's `virt` board.
pub(crate) static ARM64: Machine = Machine {
    name: "arm64",
    debian: "arm64",
    triple: "aarch64-linux-gnu",
    image_target: "Image",
    image: "arch/arm64/boot/Image",
    guest: &klpx_guest::ARM64,
};

impl Machine {
    /// Returns true if programs of this architecture run here directly.
    pub(crate) fn is_native(&self) -> bool {
        self.guest.is_native()
    }

    /// Returns the prefix of the GNU tools' names, which is `make`'s `CROSS_COMPILE`.
    pub(crate) fn prefix(&self) -> String {
        if self.is_native() { String::new() } else { format!("{}-", self.triple) }
    }

    /// Returns the name of a GNU tool for the architecture.
    pub(crate) fn tool(&self, name: &str) -> String {
        self.prefix() + name
    }
}
