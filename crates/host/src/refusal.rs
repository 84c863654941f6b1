//! Why the kernel refuses a module: reasons and remedies for its error numbers.

use std::io;

use klpx_diagnosis::{Class, Diagnosis, Place};

/// An error number, its class, its meaning here, and the remedy.
type Row = (i32, Class, &'static str, &'static str);

/// The error numbers of kernel/module/main.c, kernel/module/signing.c and kernel/livepatch/core.c, Linux 6.1 to 7.2.
const REASONS: [Row; 15] = [
    (
        libc::EKEYREJECTED,
        Class::Verification,
        "it has no signature that the kernel accepts",
        "sign it with a key that the kernel trusts: one of its own, or one that is enrolled with mokutil",
    ),
    (
        libc::ENOKEY,
        Class::Verification,
        "the kernel does not know the key of its signature",
        "sign it with a key that the kernel trusts, or enrol the certificate with mokutil",
    ),
    (
        libc::EBADMSG,
        Class::Verification,
        "the kernel can't read its signature",
        "sign it again, with a hash function that the kernel has",
    ),
    (
        libc::ENOPKG,
        Class::Verification,
        "the kernel lacks the algorithm of its signature",
        "sign it again, with a hash function that the kernel has",
    ),
    (
        libc::ENOEXEC,
        Class::Verification,
        "it is not a module for this kernel: its version magic, symbol versions or format differ",
        "build it again for this kernel; the kernel's log says what differs",
    ),
    (
        libc::ENOENT,
        Class::Verification,
        "it needs a symbol that the kernel and the loaded modules do not export",
        "load the modules that it depends on, or build it again for this kernel",
    ),
    (
        libc::EINVAL,
        Class::Verification,
        "a function or variable is not where it expects it, or a loaded livepatch's state does not fit",
        "build it again for this kernel; the kernel's log names the symbol",
    ),
    (
        libc::EEXIST,
        Class::Verification,
        "a module of that name is loaded",
        "unload that one, or build this one with another --name",
    ),
    (
        libc::EBUSY,
        Class::Environment,
        "another livepatch is in transition, or the module is just being loaded or removed",
        "try again when klpx-host status shows no transition",
    ),
    (
        libc::EPERM,
        Class::Environment,
        "the kernel does not let this process load it: no CAP_SYS_MODULE, locked down, or modules are disabled",
        "run the command as root, outside of a container; under lockdown, sign the module",
    ),
    (
        libc::EACCES,
        Class::Environment,
        "a security module of the kernel forbids it",
        "look into the audit log; SELinux asks for module_load on the file's type",
    ),
    (
        libc::ENODEV,
        Class::Environment,
        "the kernel's livepatch support was not started",
        "look into the kernel's log from its boot",
    ),
    (libc::ENOMEM, Class::Environment, "the kernel has no memory for it", "free some memory and try again"),
    (
        libc::ETXTBSY,
        Class::Environment,
        "somebody is writing to the file",
        "try again when the file is finished",
    ),
    (libc::ENOSYS, Class::Environment, "the kernel has no modules", "boot a kernel with CONFIG_MODULES"),
];

/// The diagnosis of a failed load, with the lines of the kernel's log.
pub(crate) fn explained(livepatch: &str, error: &io::Error, log: Vec<String>) -> Diagnosis {
    let row = REASONS.iter().find(|(number, ..)| error.raw_os_error() == Some(*number));
    let (class, why, remedy) = match row {
        Some((_, class, why, remedy)) => (*class, format!("{why} ({error})"), *remedy),
        None => (Class::Verification, error.to_string(), "look into the kernel's log: dmesg"),
    };
    Diagnosis::new("klpx::load-refused", class, "the kernel refuses the livepatch")
        .place(Place::symbol(livepatch))
        .why(why)
        .remedy(remedy)
        .detail(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_one_row_and_every_error_is_told() {
        for (number, class, why, remedy) in REASONS {
            assert_eq!(REASONS.iter().filter(|row| row.0 == number).count(), 1, "{number}");
            let told = explained("a", &io::Error::from_raw_os_error(number), vec!["livepatch: x".into()]);
            assert!(told.why.starts_with(why) && told.remedy == remedy && told.class == class);
            assert_eq!(told.detail, ["livepatch: x"]);
        }
        assert!(!explained("a", &io::Error::other("odd"), Vec::new()).remedy.is_empty());
    }
}
