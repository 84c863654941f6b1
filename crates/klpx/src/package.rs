//! `klpx package`: makes packages for hosts from finished livepatches.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_package::{About, Format, Package, PackagedLivepatch};
use serde_json::{Value, json};

use crate::args;
use crate::output::OutputFile;
use crate::{json, render};

/// Schema version of the JSON.
const SCHEMA: u32 = 1;
/// The variable with the date of the packages, as in all reproducible builds.
const DATE: &str = "SOURCE_DATE_EPOCH";

/// Runs the command.
pub(crate) fn run(args: &args::PackageArgs, out: &mut impl Write) -> Result<()> {
    let format = args.format.into();
    let packages = Package::plan(livepatches(args)?, &about(args)?)?;
    let places = packages.iter().map(|package| args.output.join(package.file_name(format)));
    let outputs: Vec<_> =
        places.map(|path| Ok((OutputFile::claim(&path, 0o666)?, path))).collect::<Result<_>>()?;
    let mut rows = vec![["kernel", "livepatch", "package"].map(str::to_owned).to_vec()];
    let mut list = Vec::new();
    for (package, (output, path)) in packages.iter().zip(outputs) {
        let livepatch = &package.livepatch;
        output.write(&make(package, format)?)?;
        let path = path.display().to_string();
        list.push(json!({
            "path": path,
            "name": package.name,
            "version": package.version,
            "release": livepatch.release,
            "build_id": livepatch.build_id,
            "livepatch": livepatch.name,
        }));
        rows.push(vec![livepatch.release.clone(), livepatch.name.clone(), path]);
    }
    let text = match args.json {
        true => json::to_text(&json!({"schema": SCHEMA, "packages": list}))?,
        false => render::table(&rows),
    };
    out.write_all(text.as_bytes())
        .map_err(|error| Diagnosis::io("write", Path::new("standard output"), &error).into())
}

fn make(package: &Package, format: Format) -> Result<Vec<u8>> {
    let scratch = tempfile::tempdir()
        .map_err(|error| Diagnosis::io("make a folder in", &std::env::temp_dir(), &error))?;
    package.make(format, scratch.path())
}

/// The modules with their reports. Refuses a report that belongs to no module.
fn livepatches(args: &args::PackageArgs) -> Result<Vec<PackagedLivepatch>> {
    let mut livepatches: Vec<PackagedLivepatch> =
        args.modules.iter().map(|path| PackagedLivepatch::open(path)).collect::<Result<_>>()?;
    for path in &args.report {
        let bytes = klpx_input::bytes(path).map_err(|error| Diagnosis::io("read", path, &error))??;
        let report: Option<Value> = serde_json::from_slice(&bytes).ok();
        let of = |report: &Value, pointer: &str| report.pointer(pointer)?.as_str().map(str::to_owned);
        let name = report
            .as_ref()
            .and_then(|report| Some((of(report, "/module/name")?, of(report, "/kernel/release")?)));
        let livepatch = name.and_then(|(name, release)| {
            livepatches.iter_mut().find(|one| one.name == name && one.release == release)
        });
        let livepatch = livepatch.ok_or_else(|| {
            Diagnosis::new(
                &codes::NOT_PACKAGED,
                "the report is that of no module here",
                "its module's name and kernel are none of those that are packaged",
                "name the report that klpx build --report wrote with the module",
            )
            .place(DiagnosisPlace::file(path.display().to_string(), None))
        })?;
        livepatch.report = report;
    }
    Ok(livepatches)
}

fn about(args: &args::PackageArgs) -> Result<About> {
    let changes = match &args.changelog {
        None => Vec::new(),
        Some(path) => {
            let text = klpx_input::text(path)?;
            text.lines().map(str::to_owned).collect()
        }
    };
    Ok(About {
        version: args.version.clone(),
        maintainer: maintainer(&args.maintainer)?,
        changes,
        date: date(args)?,
    })
}

/// `Name <address>`, on one line: the text becomes a field of control files.
fn maintainer(text: &str) -> Result<String> {
    let parts = text.strip_suffix('>').and_then(|rest| rest.split_once(" <"));
    let fits = parts.is_some_and(|(name, address)| {
        let plain =
            |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_control() || "<>".contains(c));
        plain(name) && plain(address) && address.contains('@') && !address.contains(' ')
    });
    match fits {
        true => Ok(text.to_owned()),
        false => Err(Diagnosis::new(
            &codes::USAGE,
            format!("{text:?} is no maintainer"),
            "each package states a name and an address",
            "write --maintainer 'NAME <ADDRESS>', or set KLPX_MAINTAINER",
        )
        .into()),
    }
}

/// The date of the packages, in seconds since 1970.
fn date(args: &args::PackageArgs) -> Result<u64> {
    if let Some(text) = std::env::var_os(DATE) {
        let seconds = text.to_str().and_then(|text| text.parse::<u32>().ok());
        return seconds.map(u64::from).ok_or_else(|| {
            let what = format!("{DATE} is {text:?}");
            let why = "packages hold a time as seconds since 1970";
            Diagnosis::new(&codes::USAGE, what, why, format!("unset {DATE}")).into()
        });
    }
    let mut newest = 0;
    for path in &args.modules {
        let time = path.metadata().and_then(|meta| meta.modified());
        let time = time.map_err(|error| Diagnosis::io("read", path, &error))?;
        newest = newest.max(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maintainer_is_a_name_and_an_address_on_one_line() {
        assert!(maintainer("Kernel Team <kernel@example.org>").is_ok());
        for bad in
            ["", "kernel@example.org", "<kernel@example.org>", "A <b>", "A <b@c>\nDepends: x", "A <b@c d>"]
        {
            assert!(maintainer(bad).is_err(), "{bad}");
        }
    }
}
