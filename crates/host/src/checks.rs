//! The conditions for loading a livepatch: a table of checks. No check changes the machine.

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, codes};

use crate::file::Livepatch;
use crate::host::Host;
use crate::loaded;

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CheckResult {
    /// The condition holds.
    Right(String),
    /// The check can't decide, with the reason. The kernel will decide.
    Unknown(String),
    /// The livepatch must not be loaded.
    Refused(Box<Diagnosis>),
}

type CheckFunction = fn(&Host, &Livepatch) -> CheckResult;

/// Every check, in the order of the output.
const CHECKS: [(&str, CheckFunction); 7] = [
    ("kernel", kernel),
    ("release", release),
    ("build ID", build_id),
    ("signature", signature),
    ("name", name),
    ("transitions", transitions),
    ("functions", functions),
];

/// Runs every check.
pub(crate) fn run(host: &Host, livepatch: &Livepatch) -> Vec<(&'static str, CheckResult)> {
    CHECKS.iter().map(|(name, check)| (*name, check(host, livepatch))).collect()
}

/// The refusals in a list of findings.
pub(crate) fn refusals(findings: Vec<(&'static str, CheckResult)>) -> Vec<Diagnosis> {
    let refused = findings.into_iter().filter_map(|(_, finding)| match finding {
        CheckResult::Refused(diagnosis) => Some(*diagnosis),
        CheckResult::Right(_) | CheckResult::Unknown(_) => None,
    });
    refused.collect()
}

fn refused(diagnosis: Diagnosis) -> CheckResult {
    CheckResult::Refused(Box::new(diagnosis))
}

/// The livepatch as the place of a diagnosis.
fn place(livepatch: &Livepatch) -> DiagnosisPlace {
    DiagnosisPlace::symbol(livepatch.name.clone())
}

fn kernel(host: &Host, _: &Livepatch) -> CheckResult {
    let lacks = |why: &str, remedy: &str| {
        let what = "the running kernel takes no livepatches";
        refused(Diagnosis::new(&codes::KERNEL_TAKES_NONE, what, why, remedy))
    };
    if !host.has("/sys/kernel") {
        return lacks("/sys is not mounted", "mount sysfs at /sys");
    }
    if !host.has(loaded::ALL) {
        return lacks(
            "it has no /sys/kernel/livepatch",
            "boot a kernel that was built with CONFIG_LIVEPATCH",
        );
    }
    if host.text("/proc/sys/kernel/modules_disabled").as_deref() == Some("1") {
        return lacks(
            "the sysctl kernel.modules_disabled is 1",
            "boot without it: it can't be taken back while the kernel runs",
        );
    }
    CheckResult::Right("it takes livepatches".to_owned())
}

fn release(host: &Host, livepatch: &Livepatch) -> CheckResult {
    match host.release() {
        Ok(release) if release == livepatch.release => CheckResult::Right(release),
        Ok(release) => refused(
            Diagnosis::new(
                &codes::OTHER_RELEASE,
                "the livepatch is for another kernel",
                format!("it is for {}, and {release} runs", livepatch.release),
                format!("build it for {release}, or boot {}", livepatch.release),
            )
            .place(place(livepatch)),
        ),
        Err(failure) => CheckResult::Unknown(failure.to_string()),
    }
}

fn build_id(host: &Host, livepatch: &Livepatch) -> CheckResult {
    let other = |why: String, remedy: &str| {
        let what = "the livepatch is for another build of the kernel";
        refused(Diagnosis::new(&codes::OTHER_BUILD_ID, what, why, remedy).place(place(livepatch)))
    };
    match (host.build_id(), &livepatch.kernel_build_id) {
        (Some(here), Some(there)) if here == *there => CheckResult::Right(here),
        (Some(here), Some(there)) => other(
            format!("it is for the build {there}, and {here} runs"),
            "boot the kernel of the installed package, or build the livepatch for the one that runs",
        ),
        (Some(here), None) => refused(
            Diagnosis::new(
                &codes::NO_BUILD_ID,
                "the livepatch does not say which build of the kernel it is for",
                format!(
                    "its modinfo has no kernel_build_id, and the build {here} of {} runs",
                    livepatch.release
                ),
                "build it with klpx build from the kernel's own vmlinux",
            )
            .place(place(livepatch)),
        ),
        (None, Some(there)) => other(
            format!(
                "it is for the build {there}, and the running kernel has no build ID in /sys/kernel/notes"
            ),
            "mount sysfs at /sys, and boot the kernel that the livepatch is for",
        ),
        (None, None) => CheckResult::Unknown("neither the kernel nor the livepatch has one".to_owned()),
    }
}

fn signature(host: &Host, livepatch: &Livepatch) -> CheckResult {
    let enforced = host.text("/sys/module/module/parameters/sig_enforce").is_some_and(|value| value == "Y");
    // `none [integrity] confidentiality` (security/lockdown/lockdown.c)
    let lockdown = host.text("/sys/kernel/security/lockdown");
    let level = lockdown.as_deref().and_then(|text| text.split('[').nth(1)?.split(']').next());
    let why = match (enforced, level) {
        (true, _) => "module.sig_enforce is on",
        (false, Some("integrity" | "confidentiality")) => "the kernel is locked down",
        _ if livepatch.signed => return CheckResult::Right("there is one; the kernel checks it".to_owned()),
        (false, Some(_)) => {
            return CheckResult::Right("there is none, and the kernel asks for none".to_owned());
        }
        (false, None) => {
            let why = "there is none, and /sys/kernel/security/lockdown does not tell whether one is needed";
            return CheckResult::Unknown(why.to_owned());
        }
    };
    match livepatch.signed {
        true => CheckResult::Right("there is one; the kernel checks it".to_owned()),
        false => refused(
            Diagnosis::new(
                &codes::UNSIGNED,
                "the livepatch has no signature",
                format!("the kernel loads signed modules only: {why}"),
                "sign it with a key that the kernel trusts: klpx build --sign-key, or klpx sign",
            )
            .place(place(livepatch)),
        ),
    }
}

fn name(host: &Host, livepatch: &Livepatch) -> CheckResult {
    let Livepatch { name, .. } = livepatch;
    if !host.has(&format!("/sys/module/{name}/refcnt")) && !host.has(&loaded::folder(name)) {
        return CheckResult::Right(format!("{name} is free"));
    }
    let (why, remedy) = match loaded::is_left(host, name) {
        true => (
            "its livepatch is disabled, and the module was not removed",
            format!("remove it: klpx-host unload {name}"),
        ),
        false => (
            "a kernel has one module of a name at a time",
            "build the livepatch with another --name: it replaces the loaded one, and nothing is unpatched \
             meanwhile"
                .to_owned(),
        ),
    };
    let what = "a module of that name is loaded";
    refused(Diagnosis::new(&codes::NAME_TAKEN, what, why, remedy).place(place(livepatch)))
}

fn transitions(host: &Host, livepatch: &Livepatch) -> CheckResult {
    let busy = loaded::active(host)
        .into_iter()
        .find(|other| other.name != livepatch.name && other.state.is_transition());
    match busy {
        None => CheckResult::Right("none is going on".to_owned()),
        Some(other) => refused(
            Diagnosis::new(
                &codes::TRANSITION_BUSY,
                "another livepatch is in transition",
                "the kernel makes one transition at a time",
                format!("wait for it: klpx-host status; or take it back: klpx-host unload {}", other.name),
            )
            .place(DiagnosisPlace::symbol(other.name.clone())),
        ),
    }
}

fn functions(host: &Host, livepatch: &Livepatch) -> CheckResult {
    let others = loaded::active(host);
    let others: Vec<_> = others.iter().filter(|other| other.name != livepatch.name).collect();
    if livepatch.replace == Some(true) {
        let names: Vec<&str> = others.iter().map(|other| other.name.as_str()).collect();
        return CheckResult::Right(match names.is_empty() {
            true => "no other livepatch is loaded".to_owned(),
            false => format!("it replaces {}", names.join(", ")),
        });
    }
    let shared = |other: &loaded::LoadedLivepatch| {
        let shared = other.functions.intersection(&livepatch.functions);
        shared.map(|f| format!("{}/{}: {}", f.object, f.function, other.name)).collect::<Vec<_>>()
    };
    let shared: Vec<String> = others.iter().flat_map(|other| shared(other)).collect();
    match shared.is_empty() {
        true => CheckResult::Right("no other livepatch patches them".to_owned()),
        false => refused(
            Diagnosis::new(
                &codes::PATCHED_BY_ANOTHER,
                "another livepatch patches functions of this one",
                "it is not cumulative, so that the fix of the other one would be lost",
                "build one cumulative livepatch from all patches, without --no-replace",
            )
            .place(place(livepatch))
            .detail(shared),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::livepatch;
    use crate::testing::Machine;

    /// The result of a check: a code, `right` or `unknown`.
    fn verdict(machine: &Machine, livepatch: &Livepatch, check: &str) -> String {
        let findings = run(&machine.host(), livepatch);
        let (_, finding) = findings.into_iter().find(|(name, _)| *name == check).unwrap();
        match finding {
            CheckResult::Right(_) => "right".to_owned(),
            CheckResult::Unknown(_) => "unknown".to_owned(),
            CheckResult::Refused(diagnosis) => diagnosis.code.to_owned(),
        }
    }

    /// A check, a livepatch, further files of the machine, and the verdict.
    type Row<'a> = (&'a str, Livepatch, &'a [(&'a str, &'a str)], &'a str);

    #[test]
    fn each_check_has_its_reasons() {
        const ENFORCE: &str = "/sys/module/module/parameters/sig_enforce";
        const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
        let other: &[(&str, &str)] = &[
            ("/sys/kernel/livepatch/b/enabled", "1\n"),
            ("/sys/kernel/livepatch/b/transition", "0\n"),
            ("/sys/kernel/livepatch/b/vmlinux/f,1/x", ""),
        ];
        let busy: &[(&str, &str)] =
            &[("/sys/kernel/livepatch/b/enabled", "0\n"), ("/sys/kernel/livepatch/b/transition", "1\n")];
        let plain = || livepatch("a", &["f"]);
        let additive =
            |name: &str, function: &str| Livepatch { replace: Some(false), ..livepatch(name, &[function]) };
        let rows: Vec<Row<'_>> = vec![
            ("kernel", plain(), &[], "right"),
            ("kernel", plain(), &[("/proc/sys/kernel/modules_disabled", "1\n")], "klpx::kernel-takes-none"),
            ("release", plain(), &[], "right"),
            ("release", plain(), &[("/proc/sys/kernel/osrelease", "6.12.2+test\n")], "klpx::other-release"),
            ("build ID", plain(), &[], "right"),
            (
                "build ID",
                Livepatch { kernel_build_id: Some("ff".into()), ..plain() },
                &[],
                "klpx::other-build-id",
            ),
            ("build ID", Livepatch { kernel_build_id: None, ..plain() }, &[], "klpx::no-build-id"),
            ("build ID", plain(), &[("/sys/kernel/notes", "")], "klpx::other-build-id"),
            (
                "build ID",
                Livepatch { kernel_build_id: None, ..plain() },
                &[("/sys/kernel/notes", "")],
                "unknown",
            ),
            ("signature", plain(), &[], "unknown"),
            (
                "signature",
                plain(),
                &[(ENFORCE, "N\n"), (LOCKDOWN, "[none] integrity confidentiality\n")],
                "right",
            ),
            ("signature", plain(), &[(ENFORCE, "Y\n")], "klpx::unsigned"),
            ("signature", plain(), &[(LOCKDOWN, "none [integrity] confidentiality\n")], "klpx::unsigned"),
            ("signature", Livepatch { signed: true, ..plain() }, &[(ENFORCE, "Y\n")], "right"),
            ("name", plain(), &[], "right"),
            ("name", plain(), &[("/sys/module/a/refcnt", "0\n")], "klpx::name-taken"),
            ("transitions", plain(), other, "right"),
            ("transitions", plain(), busy, "klpx::transition-busy"),
            ("functions", plain(), other, "right"),
            ("functions", additive("a", "f"), other, "klpx::patched-by-another"),
            ("functions", Livepatch { replace: None, ..plain() }, other, "klpx::patched-by-another"),
            ("functions", additive("a", "g"), other, "right"),
            ("functions", additive("b", "f"), other, "right"),
        ];
        for (check, livepatch, files, expected) in rows {
            let machine = Machine::new();
            files.iter().for_each(|(path, text)| machine.put(path, text));
            assert_eq!(verdict(&machine, &livepatch, check), expected, "{check}: {files:?}");
        }
        let machine = Machine::new();
        machine.take("/sys/kernel/livepatch");
        assert_eq!(verdict(&machine, &plain(), "kernel"), "klpx::kernel-takes-none");
    }
}
