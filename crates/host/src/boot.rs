//! Loads the livepatches that are installed for the running kernel, as at boot. A switch on the kernel's command line
//! prevents the load.

use klpx_diagnosis::Result;
use serde_json::json;

use crate::args::WaitingArgs;
use crate::host::Host;
use crate::installed;
use crate::load::LoadRequest;
use crate::report::CommandOutput;

/// The switch. The kernel leaves a word with a dot to the module of that name, and prints no message (init/main.c,
/// unknown_bootoption).
pub(crate) const SWITCH: &str = "klpx.livepatch=off";

/// Loads the installed livepatches. The caller holds the lock.
///
/// # Errors
/// The error of the first livepatch that fails. Livepatches on top of it are not loaded.
pub(crate) fn run(host: &Host, waiting: &WaitingArgs, report: &mut CommandOutput<'_>) -> Result<()> {
    if host.text("/proc/cmdline").is_some_and(|line| line.split_whitespace().any(|word| word == SWITCH)) {
        report.line(&format!("nothing is loaded: the kernel was booted with {SWITCH}"))?;
        return report.result(json!({"off": true, "livepatches": []}));
    }
    let (livepatches, mut failures) = installed::readable(host, &host.release()?);
    let here = host.build_id();
    let (fitting, others): (Vec<_>, Vec<_>) =
        livepatches.into_iter().partition(|opened| opened.livepatch.kernel_build_id == here);
    for other in others {
        report.note(format!("{} is for another build of this kernel, and left out", other.livepatch.name))?;
    }
    let (wanted, older) = installed::plan(fitting);
    for name in older {
        report.note(format!("{name} is older than the cumulative livepatch, and left out"))?;
    }
    if wanted.is_empty() && failures.is_empty() {
        report.line("no livepatch is installed for the running kernel")?;
    }
    let mut values = Vec::new();
    let load = LoadRequest { host, waiting, retry: false, must_mark: true };
    for opened in wanted {
        match load.run(&opened, report) {
            Ok(loaded) => {
                values.push(loaded.value);
                failures.extend(loaded.failure);
            }
            Err(failure) => failures.push(failure),
        }
        if !failures.is_empty() {
            break;
        }
    }
    report.result(json!({"off": false, "livepatches": values}))?;
    failures.into_iter().next().map_or(Ok(()), Err)
}
