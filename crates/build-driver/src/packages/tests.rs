//! Searches in small roots: one root for each row of the table, and failures from real machines.

use std::path::Path;

use super::missing::{PackageVersions, Shortage};
use super::testing::{Kind, Root, vmlinux};
use super::{
    FileOrigin, KernelFiles, KernelPiece, KernelSearch, KernelSource, Selector, WantedKernel, find, survey,
};
use crate::process::Runner;

const DEBIAN: &str = "6.12.115+deb12-cloud-amd64";
const DEBIAN_BANNER: &str = "Linux version 6.12.115+deb12-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.12.115-2~deb12u1 (2026-11-04)";
const DEBIAN_VERSION: &str = "6.12.115-2~deb12u1";
const OLD: &str = "6.1.0-56-cloud-amd64";
const OLD_BANNER: &str = "Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)";

/// A kernel for each row of the table: its name, its banner, the version of its source, the places of its files.
struct Row {
    distribution: &'static str,
    banner: &'static str,
    version: &'static str,
    headers: &'static str,
    vmlinux: &'static str,
    source: &'static str,
    modules: &'static str,
    debug_modules: &'static str,
}

const ROWS: [Row; 5] = [
    Row {
        distribution: "Debian",
        banner: DEBIAN_BANNER,
        version: "6.12.115",
        headers: "usr/src/linux-headers-6.12.115+deb12-cloud-amd64",
        vmlinux: "usr/lib/debug/boot/vmlinux-6.12.115+deb12-cloud-amd64",
        source: "usr/src/linux-source-6.12.tar.xz",
        modules: "lib/modules/6.12.115+deb12-cloud-amd64",
        debug_modules: "usr/lib/debug/lib/modules/6.12.115+deb12-cloud-amd64",
    },
    Row {
        distribution: "Debian",
        banner: "Linux version 7.3.4+deb13-amd64 (debian-kernel@lists.debian.org) (x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0, GNU ld (GNU Binutils for Debian) 2.44) #1 SMP PREEMPT_DYNAMIC Debian 7.3.4-1~bpo13+1 (2026-11-15)",
        version: "7.3.4",
        headers: "usr/src/linux-headers-7.3.4+deb13-amd64",
        vmlinux: "usr/lib/debug/boot/vmlinux-7.3.4+deb13-amd64",
        source: "usr/src/linux-source-7.3.tar.xz",
        modules: "usr/lib/modules/7.3.4+deb13-amd64",
        debug_modules: "usr/lib/debug/usr/lib/modules/7.3.4+deb13-amd64",
    },
    Row {
        distribution: "Ubuntu",
        banner: "Linux version 6.8.0-45-generic (buildd@lcy02-amd64-115) (x86_64-linux-gnu-gcc-13 (Ubuntu 13.2.0-23ubuntu4) 13.2.0, GNU ld (GNU Binutils for Ubuntu) 2.42) #45-Ubuntu SMP PREEMPT_DYNAMIC Fri Aug 30 12:02:04 UTC 2024",
        version: "6.8.12",
        headers: "usr/src/linux-headers-6.8.0-45-generic",
        vmlinux: "usr/lib/debug/boot/vmlinux-6.8.0-45-generic",
        source: "usr/src/linux-source-6.8.0/linux-source-6.8.0.tar.bz2",
        modules: "lib/modules/6.8.0-45-generic",
        debug_modules: "usr/lib/debug/lib/modules/6.8.0-45-generic",
    },
    Row {
        distribution: "Fedora and Red Hat",
        banner: "Linux version 6.11.4-301.fc41.x86_64 (mockbuild@be03da54) (gcc (GCC) 14.2.1 20240912 (Red Hat 14.2.1-3), GNU ld version 2.43.1-2.fc41) #1 SMP PREEMPT_DYNAMIC Sun Oct 20 15:02:33 UTC 2024",
        version: "6.11.4",
        headers: "usr/src/kernels/6.11.4-301.fc41.x86_64",
        vmlinux: "usr/lib/debug/lib/modules/6.11.4-301.fc41.x86_64/vmlinux",
        source: "",
        modules: "lib/modules/6.11.4-301.fc41.x86_64",
        debug_modules: "usr/lib/debug/lib/modules/6.11.4-301.fc41.x86_64",
    },
    Row {
        distribution: "SUSE",
        banner: "Linux version 6.11.3-1-default (geeko@buildhost) (gcc (SUSE Linux) 14.2.1 20241007, GNU ld (GNU Binutils; openSUSE Tumbleweed) 2.43.1) #1 SMP PREEMPT_DYNAMIC Thu Oct 10 07:41:29 UTC 2024 (8e1c2a2)",
        version: "6.11.3",
        headers: "usr/src/linux-6.11.3-1-obj/x86_64/default",
        vmlinux: "usr/lib/debug/boot/vmlinux-6.11.3-1-default.debug",
        source: "usr/src/linux-6.11.3-1",
        modules: "usr/lib/modules/6.11.3-1-default",
        debug_modules: "usr/lib/debug/usr/lib/modules/6.11.3-1-default",
    },
];

fn release(banner: &str) -> &str {
    banner.split(' ').nth(2).expect("a release")
}

/// A root with every package of a kernel. A row without a source place has its source in `tree`.
fn root(row: &Row) -> Root {
    let root = Root::new();
    let release = release(row.banner);
    root.headers(row.headers, row.banner, row.version)
        .link(&format!("lib/modules/{release}/build"), &format!("/{}", row.headers))
        .write(row.vmlinux, vmlinux(row.banner, Kind::Whole))
        .write(&format!("{}/kernel/fs/fat.ko.xz", row.modules), "")
        .write(&format!("{}/modules.order", row.modules), "kernel/fs/fat.ko\n")
        .write(&format!("{}/modules.builtin", row.modules), "")
        .write(&format!("{}/kernel/fs/fat.ko", row.debug_modules), "");
    match row.source {
        "" => root.source("tree", row.version),
        tarball if tarball.contains(".tar.") => root.write(tarball, ""),
        tree => root.source(tree, row.version),
    };
    root
}

fn debian() -> Root {
    let root = root(&ROWS[0]);
    root.changelog("linux-source-6.12", DEBIAN_VERSION);
    root
}

fn found(wanted: &WantedKernel) -> KernelFiles {
    find(wanted, &Runner::new(), &()).unwrap_or_else(|failure| panic!("{failure}"))
}

fn surveyed(wanted: &WantedKernel) -> KernelSearch {
    survey(wanted, &Runner::new(), &()).unwrap_or_else(|failure| panic!("{failure}"))
}

fn refused(wanted: &WantedKernel) -> klpx_diagnosis::Diagnosis {
    let failure = find(wanted, &Runner::new(), &()).expect_err("refused");
    failure.diagnoses().next().expect("one").clone()
}

#[test]
fn every_row_of_the_table_finds_its_kernel() {
    for row in &ROWS {
        let root = root(row);
        let source = (row.source.is_empty()).then(|| root.at("tree"));
        let files = found(&WantedKernel { source: source.clone(), ..root.wanted() });
        let release = release(row.banner);
        assert_eq!(files.release, release);
        assert_eq!(files.distribution.map(|known| known.name), Some(row.distribution), "{release}");
        assert_eq!(files.version.as_deref(), Some(row.version), "{release}");
        let headers = files.headers.expect("headers").path;
        assert_eq!(headers, root.at(row.headers));
        assert_eq!(files.config.path, headers.join(".config"));
        assert_eq!(files.symvers.path, headers.join("Module.symvers"));
        assert_eq!(files.vmlinux.path, root.at(row.vmlinux));
        assert_eq!(files.source.located().path, source.unwrap_or_else(|| root.at(row.source)));
        let modules = files.modules.expect("modules").path;
        assert_eq!(modules, root.at(row.modules));
        assert_eq!(files.modules_order.expect("modules.order").path, modules.join("modules.order"));
        assert_eq!(files.modules_builtin.expect("modules.builtin").path, modules.join("modules.builtin"));
        assert_eq!(files.debug_modules.expect("debug modules").path, root.at(row.debug_modules));
    }
}

#[test]
fn each_file_says_which_package_it_is_from() {
    let root = debian();
    let survey = surveyed(&root.wanted());
    let from = |piece| survey.found[&piece].from.to_string();
    assert_eq!(from(KernelPiece::Headers), format!("linux-headers-{DEBIAN}"));
    assert_eq!(from(KernelPiece::Config), format!("linux-headers-{DEBIAN}"));
    assert_eq!(from(KernelPiece::Vmlinux), format!("linux-image-{DEBIAN}-dbg"));
    assert_eq!(from(KernelPiece::Modules), format!("linux-image-{DEBIAN}"));
    assert_eq!(from(KernelPiece::Source), "linux-source-6.12");
    assert_eq!(survey.package.as_deref(), Some(DEBIAN_VERSION));
    assert_eq!(survey.notes, []);
}

#[test]
fn the_release_is_uts_release_whatever_kernel_release_says() {
    let root = Root::new();
    let headers = format!("usr/src/linux-headers-{OLD}");
    root.headers(&headers, OLD_BANNER, "6.1.192")
        .write(&format!("{headers}/include/config/kernel.release"), "6.1.192\n")
        .write(&format!("usr/lib/debug/boot/vmlinux-{OLD}"), vmlinux(OLD_BANNER, Kind::Whole))
        .source("src", "6.1.192")
        .write("src/debian/changelog", "linux (6.1.192-2) bookworm-security; urgency=high\n");
    let files = found(&WantedKernel {
        build_dir: Some(root.at(&headers)),
        source: Some(root.at("src")),
        ..root.wanted()
    });
    assert_eq!(files.release, OLD);
    assert_eq!(files.package.as_deref(), Some("6.1.192-2"));
    assert_eq!(files.notes, []);
}

#[test]
fn a_vmlinux_that_can_not_be_patched_is_passed_over_with_the_reason() {
    let cases = [
        (Kind::TypesOnly, "type information only"),
        (Kind::DebugOnly, "code is in another file"),
        (Kind::Stripped, "symbols were stripped"),
    ];
    for (kind, why) in cases {
        let root = debian();
        std::fs::remove_file(root.at(ROWS[0].vmlinux)).expect("removed");
        root.write(&format!("{}/vmlinux", ROWS[0].headers), vmlinux(DEBIAN_BANNER, kind));
        let survey = surveyed(&root.wanted());
        assert!(!survey.is_complete());
        let [(path, reason)] = survey.passed_over.as_slice() else { panic!("{:?}", survey.passed_over) };
        assert!(path.ends_with("vmlinux") && reason.contains(why), "{reason}");
        let named = WantedKernel {
            vmlinux: Some(path.clone()),
            kernel: Some(Selector::parse(DEBIAN)),
            ..root.wanted()
        };
        assert_eq!(refused(&named).code, "klpx::bad-vmlinux");
    }
}

/// The shortage of a kernel without image and source, with the package manager's output.
fn shortage(lines: &str) -> (KernelSearch, Shortage) {
    let root = debian();
    std::fs::remove_file(root.at(ROWS[0].vmlinux)).expect("removed");
    std::fs::remove_file(root.at(ROWS[0].source)).expect("removed");
    let survey = surveyed(&root.wanted());
    let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
    let archive = if lines.is_empty() { PackageVersions::default() } else { PackageVersions::parse(&lines) };
    let shortage = Shortage::with(&survey, &archive);
    (survey, shortage)
}

#[test]
fn everything_missing_is_one_error_with_one_line_to_paste() {
    let (survey, shortage) = shortage("");
    let diagnosis = shortage.diagnosis(&survey);
    assert_eq!(diagnosis.code, "klpx::kernel-incomplete");
    assert!(diagnosis.why.ends_with("vmlinux, source"), "{}", diagnosis.why);
    let line =
        format!("apt install linux-image-{DEBIAN}-dbg={DEBIAN_VERSION} linux-source-6.12={DEBIAN_VERSION}");
    assert_eq!(diagnosis.remedy, line);
    let shown = diagnosis.detail.join("\n");
    assert!(shown.contains("found    headers") && shown.contains("missing  vmlinux"), "{shown}");
}

#[test]
fn sizes_are_those_of_the_exact_version() {
    let debug = format!("Package: linux-image-{DEBIAN}-dbg\nVersion: {DEBIAN_VERSION}\nSize: 80000000\n\n");
    let source = "Package: linux-source-6.12\nVersion: 6.12.118-1\nSize: 9\n\n\
                  Package: linux-source-6.12\nVersion: 6.12.115-2~deb12u1\nSize: 153193376\n";
    let (survey, known) = shortage(&format!("{debug}{source}"));
    assert!(known.diagnosis(&survey).remedy.ends_with("   (234 MB to download)"), "{known:?}");
    // The archive has a newer version.
    let (_, gone) = shortage("Package: linux-source-6.12\nVersion: 6.12.118-1\nSize: 9\n");
    assert!(gone.packages.iter().all(|package| package.bytes.is_none()));
    assert!(gone.hints[0].contains("snapshot.debian.org"), "{:?}", gone.hints);
}

#[test]
fn the_package_manager_tells_the_version_of_a_kernel_of_which_nothing_is_there() {
    let root = Root::new();
    let kernel = Some(Selector::parse("7.3.4+deb13-cloud-amd64"));
    let survey = surveyed(&WantedKernel { kernel, ..root.wanted() });
    let stanza = |name: &str, version: &str| format!("Package: {name}\nVersion: {version}\nSize: 1\n\n");
    let text = [
        stanza("linux-headers-7.3.4+deb13-cloud-amd64", "7.3.4-1"),
        stanza("linux-image-7.3.4+deb13-cloud-amd64", "7.3.4-1"),
        stanza("linux-modules-7.3.4+deb13-cloud-amd64", "7.3.4-1"),
        stanza("linux-image-7.3.4+deb13-cloud-amd64-dbg", "7.3.4-1"),
        stanza("linux-source-7.3", "7.3.5-1"),
        stanza("linux-source-7.3", "7.3.4-1"),
    ];
    let lines: Vec<String> = text.concat().lines().map(str::to_owned).collect();
    let shortage = Shortage::with(&survey, &PackageVersions::parse(&lines));
    let arguments = "linux-headers-7.3.4+deb13-cloud-amd64=7.3.4-1 linux-image-7.3.4+deb13-cloud-amd64-dbg=7.3.4-1 \
                     linux-modules-7.3.4+deb13-cloud-amd64=7.3.4-1 linux-source-7.3=7.3.4-1";
    assert_eq!(shortage.install, Some(format!("apt install {arguments}")));
    assert!(shortage.packages.iter().all(|package| package.bytes == Some(1)));
}

#[test]
fn rows_that_were_not_tried_say_so() {
    let cases = [
        (
            "6.11.4-301.fc41.x86_64",
            "dnf --enablerepo='*debug*' install kernel-debuginfo-6.11.4-301.fc41.x86_64 ",
        ),
        ("6.11.3-1-default", "zypper --plus-content debug install kernel-default kernel-default-debuginfo "),
        ("6.8.0-45-generic", "apt install linux-headers-6.8.0-45-generic "),
    ];
    for (release, line) in cases {
        let survey =
            surveyed(&WantedKernel { kernel: Some(Selector::parse(release)), ..Root::new().wanted() });
        let shortage = Shortage::with(&survey, &PackageVersions::default());
        let install = shortage.install.expect("a line");
        assert!(install.starts_with(line), "{install}");
        assert!(shortage.hints.iter().any(|hint| hint.contains("not tried")), "{release}");
    }
}

#[test]
fn a_kernel_of_nobody_has_no_packages_to_install() {
    let root = debian();
    let survey = surveyed(&WantedKernel { kernel: Some(Selector::parse("7.2.0-rc1+")), ..root.wanted() });
    let diagnosis = Shortage::with(&survey, &PackageVersions::default()).diagnosis(&survey);
    assert_eq!(diagnosis.code, "klpx::kernel-incomplete");
    assert!(
        diagnosis.remedy.contains("--build-dir") && !diagnosis.remedy.contains("apt"),
        "{}",
        diagnosis.remedy
    );
    assert!(diagnosis.detail.contains(&format!("other kernels here: {DEBIAN}")), "{:?}", diagnosis.detail);
}

#[test]
fn source_of_another_version_is_not_taken() {
    // The packaged tarball has the next version.
    let root = root(&ROWS[0]);
    root.changelog("linux-source-6.12", "6.12.117-1~deb12u1");
    let survey = surveyed(&root.wanted());
    assert_eq!(survey.missing(), [KernelPiece::Source]);
    assert!(survey.passed_over[0].1.contains("6.12.117-1~deb12u1"), "{:?}", survey.passed_over);
    // dpkg's record takes precedence over the changelog.
    let status = format!(
        "Package: linux-source-6.12\nStatus: install ok installed\nVersion: {DEBIAN_VERSION}\n\n\
         Package: other\nStatus: install ok installed\nVersion: 1\n"
    );
    root.write("var/lib/dpkg/status", status);
    assert!(surveyed(&root.wanted()).is_complete());
    // A tree named by the user is an error rather than passed over.
    for version in ["6.12.117", "6.12.0-rc3", "6.13.115"] {
        root.source(version, version);
        let named = WantedKernel { source: Some(root.at(version)), ..root.wanted() };
        assert_eq!(refused(&named).code, "klpx::source-mismatch", "{version}");
    }
}

#[test]
fn a_tree_of_the_right_version_says_that_the_package_was_not_checked() {
    let root = debian();
    root.source("tree", "6.12.115");
    let named = WantedKernel { source: Some(root.at("tree")), ..root.wanted() };
    let files = found(&named);
    assert!(matches!(files.source, KernelSource::Tree(_)));
    let [note] = files.notes.as_slice() else { panic!("{:?}", files.notes) };
    assert!(note.contains(DEBIAN_VERSION) && note.contains("not checked"), "{note}");
    root.write("tree/debian/changelog", "linux (6.12.115-1) unstable; urgency=medium\n");
    assert_eq!(refused(&named).code, "klpx::source-mismatch");
}

#[test]
fn a_tarball_whose_package_is_known_needs_no_note_once_it_is_unpacked() {
    let root = debian();
    root.source("unpacked", "6.12.115").source("other", "6.12.117");
    let files = found(&root.wanted());
    assert!(matches!(files.source, KernelSource::Tarball(_)));
    let tree = |name| crate::SourceTree::open(&root.at(name)).expect("a tree");
    assert_eq!(files.check_source(&tree("unpacked")).expect("checked"), []);
    let failure = files.check_source(&tree("other")).expect_err("refused");
    assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::source-mismatch");
}

#[test]
fn an_image_without_a_banner_says_that_its_release_was_not_checked() {
    let root = debian();
    root.write(ROWS[0].vmlinux, vmlinux("no banner", Kind::Whole));
    let survey = surveyed(&root.wanted());
    assert!(survey.is_complete() && survey.notes[0].contains("not checked"), "{:?}", survey.notes);
}

#[test]
fn files_of_different_builds_of_one_release_are_refused() {
    let root = debian();
    let other = DEBIAN_BANNER.replace("115-2~deb12u1", "115-1~deb12u1");
    root.write(ROWS[0].vmlinux, vmlinux(&other, Kind::Whole));
    let diagnosis = refused(&root.wanted());
    assert_eq!(diagnosis.code, "klpx::package-mismatch");
    assert!(diagnosis.why.contains("6.12.115-1~deb12u1"), "{}", diagnosis.why);
}

#[test]
fn a_kernel_is_named_by_release_or_by_its_vmlinux() {
    let root = debian();
    let image = root.at(ROWS[0].vmlinux);
    let by_image = found(&WantedKernel {
        kernel: Some(Selector::parse(image.to_str().expect("text"))),
        ..root.wanted()
    });
    assert_eq!(by_image.release, DEBIAN);
    assert_eq!(by_image.vmlinux.from, FileOrigin::Option("--kernel"));
    let by_release = found(&WantedKernel { kernel: Some(Selector::parse(DEBIAN)), ..root.wanted() });
    assert_eq!(by_release.vmlinux.path, image);
    let other = WantedKernel { kernel: Some(Selector::parse(OLD)), vmlinux: Some(image), ..root.wanted() };
    assert_eq!(refused(&other).code, "klpx::release-mismatch");
    let headers = WantedKernel {
        kernel: Some(Selector::parse(OLD)),
        build_dir: Some(root.at(ROWS[0].headers)),
        ..root.wanted()
    };
    assert_eq!(refused(&headers).code, "klpx::release-mismatch");
}

#[test]
fn several_kernels_below_a_root_need_a_name() {
    let root = debian();
    root.headers(&format!("usr/src/linux-headers-{OLD}"), OLD_BANNER, "6.1.192");
    root.write("usr/src/linux-headers-6.1.0-56-common/Makefile", "");
    let diagnosis = refused(&root.wanted());
    assert_eq!(diagnosis.code, "klpx::which-kernel");
    assert_eq!(diagnosis.detail, [OLD, DEBIAN]);
    assert_eq!(refused(&Root::new().wanted()).code, "klpx::which-kernel");
}

#[test]
fn a_build_tree_one_stands_in_is_not_taken_when_others_may_change_it() {
    let root = Root::new();
    root.headers("build", DEBIAN_BANNER, "6.12.115");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(root.at("build"), mode).expect("chmod");
    let wanted = WantedKernel { here: Some(root.at("build")), ..WantedKernel::default() };
    let failure = survey(&wanted, &Runner::new(), &()).expect_err("refused");
    assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::untrusted-folder");
}

#[test]
fn a_build_tree_one_stands_in_brings_everything() {
    let root = Root::new();
    let banner =
        "Linux version 7.2.13 (me@here) (gcc (Debian 12.2.0-14) 12.2.0, GNU ld 2.40) #3 SMP Thu Jan 1 2026";
    root.headers("build", banner, "7.2.13")
        .write("build/vmlinux", vmlinux(banner, Kind::Whole))
        .write("build/modules.order", "fs/fat/fat.o\n")
        .source("src", "7.2.13")
        .link("build/source", root.at("src").to_str().expect("text"));
    // Without named roots, the machine's own packages would count for another kernel.
    let files = found(&WantedKernel { here: Some(root.at("build")), ..WantedKernel::default() });
    assert_eq!((files.release.as_str(), files.distribution), ("7.2.13", None));
    assert_eq!(files.vmlinux.from, FileOrigin::BuildTree);
    assert_eq!(files.modules.as_ref().expect("modules").path, root.at("build"));
    assert_eq!(files.source.located().path, root.at("src").canonicalize().expect("there"));
    let pinned: Vec<&str> = files.pinned().iter().map(|(name, _)| *name).collect();
    assert_eq!(pinned, [".config", "include/config/auto.conf", "include/generated/autoconf.h"]);
}

#[test]
fn a_folder_that_packages_only_share_is_no_folder_of_modules() {
    let root = debian();
    std::fs::remove_dir_all(root.at(ROWS[0].modules).join("kernel")).expect("removed");
    let survey = surveyed(&root.wanted());
    assert!(survey.is_complete(), "modules are needed for patches of modules only");
    assert!(survey.missing().contains(&KernelPiece::Modules), "{:?}", survey.missing());
}

#[test]
fn layers_complete_each_other() {
    let (fetched, installed) = (Root::new(), debian());
    std::fs::rename(installed.at("usr/lib"), fetched.at("lib-of-debug")).expect("moved");
    std::fs::create_dir_all(fetched.at("usr")).expect("mkdir");
    std::fs::rename(fetched.at("lib-of-debug"), fetched.at("usr/lib")).expect("moved");
    let sysroots = vec![fetched.path().to_owned(), installed.path().to_owned()];
    let files =
        found(&WantedKernel { sysroots, kernel: Some(Selector::parse(DEBIAN)), ..WantedKernel::default() });
    assert!(files.vmlinux.path.starts_with(fetched.path()));
    assert!(files.config.path.starts_with(installed.path()));
}

#[test]
fn named_files_that_are_not_there_are_errors() {
    let root = debian();
    let no = || Some(Path::new("no/such/place").to_owned());
    let cases = [
        (WantedKernel { vmlinux: no(), ..root.wanted() }, "klpx::io"),
        (WantedKernel { config: no(), ..root.wanted() }, "klpx::config-missing"),
        (WantedKernel { source: no(), ..root.wanted() }, "klpx::source-missing"),
        (WantedKernel { build_dir: no(), ..root.wanted() }, "klpx::build-dir-missing"),
        (WantedKernel { modules: no(), ..root.wanted() }, "klpx::no-such-folder"),
    ];
    for (wanted, code) in cases {
        assert_eq!(refused(&wanted).code, code);
    }
}

#[test]
fn damaged_files_are_passed_over_or_refused_without_a_panic() {
    let root = debian();
    let image = vmlinux(DEBIAN_BANNER, Kind::Whole);
    for length in [0, 1, 16, 63, 64, image.len() / 2, image.len() - 1] {
        root.write(ROWS[0].vmlinux, &image[..length]);
        let survey = surveyed(&root.wanted());
        assert!(survey.missing().contains(&KernelPiece::Vmlinux), "of {length} bytes");
    }
    root.write(ROWS[0].vmlinux, &image);
    root.write("usr/share/doc/linux-source-6.12/changelog.Debian.gz", b"\x1f\x8bnot gzip");
    let survey = surveyed(&root.wanted());
    assert!(survey.is_complete() && survey.notes[0].contains("when it is unpacked"), "{:?}", survey.notes);
}
