//! The list of changes, in the changelog formats of Debian and rpm.

use std::time::{Duration, SystemTime};

use crate::package::Package;

/// An entry of Debian's changelog (deb-changelog(5)).
pub(crate) fn debian(package: &Package) -> String {
    let items: String = changes(package).iter().map(|change| format!("  * {change}\n")).collect();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(package.about.date);
    let date = httpdate::fmt_http_date(time).replace("GMT", "+0000");
    let (name, version, maintainer) = (&package.name, &package.version, &package.about.maintainer);
    format!("{name} ({version}) stable; urgency=high\n\n{items}\n -- {maintainer}  {date}\n")
}

/// The text of an entry of rpm's changelog.
pub(crate) fn rpm(package: &Package) -> String {
    changes(package).iter().map(|change| format!("- {change}\n")).collect()
}

/// The changes from the command line, or the first paragraph of the package's description if there are none.
fn changes(package: &Package) -> Vec<String> {
    let given: Vec<String> = package
        .about
        .changes
        .iter()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let given: Vec<String> = given.into_iter().filter(|line| !line.is_empty()).collect();
    match given.is_empty() {
        true => package.description().into_iter().take(1).collect(),
        false => given,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{about, livepatch};

    #[test]
    fn an_entry_names_version_changes_and_date() {
        let packages = Package::plan(vec![livepatch("a", "6.1")], &about(None)).unwrap();
        assert_eq!(
            debian(&packages[0]),
            "livepatch-6.1 (3) stable; urgency=high\n\n  * two fixes\n\n \
             -- Kernel Team <kernel@example.org>  Mon, 21 Sep 2026 14:13:20 +0000\n"
        );
        assert_eq!(rpm(&packages[0]), "- two fixes\n");
    }
}
