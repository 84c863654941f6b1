//! Why the kernel refuses a module: reasons and remedies for its error numbers.

use std::io;

use klpx_diagnosis::{Code, Diagnosis, DiagnosisPlace, codes};

/// An error number, its code, its meaning here, and the remedy.
type Row = (i32, &'static Code, &'static str, &'static str);

/// The error numbers of kernel/module/main.c, kernel/module/signing.c and kernel/livepatch/core.c, Linux 6.1 to 7.2.
const REASONS: [Row; 15] = [
    (
        libc::EKEYREJECTED,
        &codes::LOAD_REFUSED,
        "it has no signature that the kernel accepts",
        "sign it with a key that the kernel trusts: one of its own, or one that is enrolled with mokutil",
    ),
    (
        libc::ENOKEY,
        &codes::LOAD_REFUSED,
        "the kernel does not know the key of its signature",
        "sign it with a key that the kernel trusts, or enrol the certificate with mokutil",
    ),
    (
        libc::EBADMSG,
        &codes::LOAD_REFUSED,
        "the kernel can't read its signature",
        "sign it again, with a hash function that the kernel has",
    ),
    (
        libc::ENOPKG,
        &codes::LOAD_REFUSED,
        "the kernel lacks the algorithm of its signature",
        "sign it again, with a hash function that the kernel has",
    ),
    (
        libc::ENOEXEC,
        &codes::LOAD_REFUSED,
        "it is not a module for this kernel: its version magic, symbol versions or format differ",
        "build it again for this kernel; the kernel's log says what differs",
    ),
    (
        libc::ENOENT,
        &codes::LOAD_REFUSED,
        "it needs a symbol that the kernel and the loaded modules do not export",
        "load the modules that it depends on, or build it again for this kernel",
    ),
    (
        libc::EINVAL,
        &codes::LOAD_REFUSED,
        "a function or variable is not where it expects it, or a loaded livepatch's state does not fit",
        "build it again for this kernel; the kernel's log names the symbol",
    ),
    (
        libc::EEXIST,
        &codes::LOAD_REFUSED,
        "a module of that name is loaded",
        "unload that one, or build this one with another --name",
    ),
    (
        libc::EBUSY,
        &codes::CANNOT_LOAD,
        "another livepatch is in transition, or the module is just being loaded or removed",
        "try again when klpx-host status shows no transition",
    ),
    (
        libc::EPERM,
        &codes::CANNOT_LOAD,
        "the kernel does not let this process load it: no CAP_SYS_MODULE, locked down, or modules are disabled",
        "run the command as root, outside of a container; under lockdown, sign the module",
    ),
    (
        libc::EACCES,
        &codes::CANNOT_LOAD,
        "a security module of the kernel forbids it",
        "look into the audit log; SELinux asks for module_load on the file's type",
    ),
    (
        libc::ENODEV,
        &codes::CANNOT_LOAD,
        "the kernel's livepatch support was not started",
        "look into the kernel's log from its boot",
    ),
    (libc::ENOMEM, &codes::CANNOT_LOAD, "the kernel has no memory for it", "free some memory and try again"),
    (
        libc::ETXTBSY,
        &codes::CANNOT_LOAD,
        "somebody is writing to the file",
        "try again when the file is finished",
    ),
    (libc::ENOSYS, &codes::CANNOT_LOAD, "the kernel has no modules", "boot a kernel with CONFIG_MODULES"),
];

/// The diagnosis of a failed load, with the lines of the kernel's log.
pub(crate) fn explained(livepatch: &str, error: &io::Error, log: Vec<String>) -> Diagnosis {
    let row = REASONS.iter().find(|(number, ..)| error.raw_os_error() == Some(*number));
    let (code, why, remedy) = match row {
        Some((_, code, why, remedy)) => (*code, format!("{why} ({error})"), *remedy),
        None => (&codes::LOAD_REFUSED, error.to_string(), "look into the kernel's log: dmesg"),
    };
    Diagnosis::new(code, "the kernel refuses the livepatch", why, remedy)
        .place(DiagnosisPlace::symbol(livepatch))
        .detail(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_one_row_and_every_error_is_told() {
        for (number, code, why, remedy) in REASONS {
            assert_eq!(REASONS.iter().filter(|row| row.0 == number).count(), 1, "{number}");
            let diagnosis =
                explained("a", &io::Error::from_raw_os_error(number), vec!["livepatch: x".into()]);
            assert!(
                diagnosis.why.starts_with(why) && diagnosis.remedy == remedy && diagnosis.code == code.name
            );
            assert_eq!(diagnosis.detail, ["livepatch: x"]);
        }
        assert!(!explained("a", &io::Error::other("odd"), Vec::new()).remedy.is_empty());
    }
}
