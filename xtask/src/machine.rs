//! What differs between the architectures of fixture kernels: one table. Starts nothing.

/// An architecture: how its kernels are made here and how its guests run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The kernel's name of it, as `make ARCH=` and klpx's reports have it.
    pub(crate) name: &'static str,
    /// Debian's name of it.
    pub(crate) debian: &'static str,
    /// GNU tools for it have this before their name where the host is another.
    triple: &'static str,
    /// `make`'s target for the image that QEMU boots.
    pub(crate) image_target: &'static str,
    /// Where that image lies in the build tree.
    pub(crate) image: &'static str,
    /// How its guests run.
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
    /// True when programs for it run here as they are.
    pub(crate) fn is_native(&self) -> bool {
        self.guest.is_native()
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
