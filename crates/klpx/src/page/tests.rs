//! Whole pages of invented results with hostile texts.

use std::collections::BTreeSet;
use std::path::Path;

use klpx_diagnosis::{Note, codes};
use klpx_engine::code::{Code, CodeReference, Filled, FunctionBody, ModuleFunction};
use klpx_engine::finding::{Cause, ChangeKind, Finding};
use klpx_engine::inlining::{InlinedCall, Inlines};
use klpx_engine::{Accepted, KernelFacts, KernelReference, Results, UnitFacts, WaitKind, Waiting};
use klpx_normalize::arch::Arch;
use klpx_verify::Verified;
use klpx_verify::inspect::{LivepatchFunction, LivepatchSymbol, Module, PatchedObject};

use super::*;
use crate::outcome::{TrialOutcome, TrialResult};
use crate::report::{self, Report};
use crate::signer::Signed;

/// A name that would act as markup, a link and a script if it were not escaped.
const HOSTILE: &str = "f<script src=//x.example>alert(1)</script>\"'&\u{202e}\u{1b}";

const PATCH: &str = "\
Subject: <b>a fix</b>
--- a/drivers/md/md.c
+++ b/drivers/md/md.c
@@ -10,3 +10,4 @@ static int f(void)
 \tint n = 0;
+\tif (n < 0) return -EINVAL; /* </pre><script> */
 \treturn n;
 }
";

/// x86_64 code with this number of `add $imm, %eax`. In the patched build, each `n`th has another constant.
fn body(arch: Arch, instructions: usize, every: Option<usize>, symbol: &str) -> FunctionBody {
    let mut bytes: Vec<u8> = vec![0xe8, 0, 0, 0, 0];
    for n in 0..instructions {
        let other = every.is_some_and(|every| n % every == 1);
        bytes.extend([0x05, n as u8, (n >> 8) as u8, u8::from(other), 0]);
    }
    bytes.push(0xc3);
    let bound = LivepatchSymbol { object: "vmlinux".into(), name: symbol.into(), sympos: 2 };
    let reference =
        |offset, to: &str, filled| CodeReference { offset, to: to.into(), meaning: to.into(), filled };
    let references = vec![
        reference(1, symbol, Filled::Livepatch(bound)),
        reference(7, "_printk", Filled::Export("_printk".into())),
    ];
    FunctionBody { arch, bytes, references }
}

struct Sample {
    report: Report,
    module: Module,
    functions: Vec<ModuleFunction>,
}

/// A build with this number of functions, and this number of instructions in each.
fn sample(functions: usize, instructions: usize, arch: Arch) -> Sample {
    let name = |n: usize| format!("{HOSTILE}{n}");
    let inlines = |n: usize| Inlines {
        by_way_of: Vec::new(),
        call: InlinedCall { function: name(n), file: Some("drivers/md/md.c".into()), line: Some(7) },
    };
    let finding = |n: usize| Finding {
        object: "vmlinux".into(),
        function: name(n),
        kind: if n % 5 == 4 { ChangeKind::New } else { ChangeKind::Changed },
        cause: Some(if n == 0 { Cause::Edited } else { Cause::Inlines }),
        inlines: if n == 0 { Vec::new() } else { vec![inlines(0)] },
        hunks: Vec::new(),
        why: format!("code differs from {HOSTILE}:12 on"),
        file: Some("drivers/md/md.c".into()),
        line: Some(12),
        reasons: vec!["size was 12 bytes, is 14".into(), "other bytes from +0x4 on".into()],
    };
    let code = |n: usize| Code {
        object: "vmlinux".into(),
        function: name(n),
        original: (n % 5 != 4).then(|| body(arch, instructions, None, "md_stop")),
        patched: body(arch, instructions, Some(7), "md_stop"),
    };
    let functions: Vec<usize> = (0..functions).collect();
    let results = Results {
        kernel: Some(KernelFacts {
            release: "6.12.117+deb12-cloud-amd64".into(),
            arch: "x86_64".into(),
            compiler: "gcc 12.2.0".into(),
            make: Vec::new(),
            key: "0123456789abcdef".into(),
        }),
        units: vec![UnitFacts {
            unit: "drivers/md/md.o".into(),
            object: "vmlinux".into(),
            equal: 178,
            explained: 2,
        }],
        changes: functions.iter().copied().map(finding).collect(),
        code: functions.iter().copied().map(code).collect(),
        patches: vec![PATCH.as_bytes().to_vec()],
        bound: vec![KernelReference {
            object: "vmlinux".into(),
            name: "md_stop".into(),
            position: 2,
            unit: Some("md.c".into()),
            address: Some("0xffffffff81234560".into()),
        }],
        accepted_layouts: vec![Accepted {
            name: "struct mddev".into(),
            differences: vec!["member x is new at 8".into()],
            inside: vec![HOSTILE.into()],
        }],
        transition: vec![Waiting {
            object: "vmlinux".into(),
            function: name(0),
            kind: WaitKind::ThreadMain,
            reason: "the main function of a kernel thread".into(),
            thread: Some(HOSTILE.into()),
        }],
        notes: vec![Note::new(&codes::HUNK_MOVED, format!("{HOSTILE}: hunk #1 succeeded at 4"))],
        ..Results::default()
    };
    let report = Report {
        schema: report::SCHEMA,
        klpx: "0.1.0",
        patches: vec![format!("dir/{HOSTILE}.patch")],
        results,
        module: Some(report::ModuleReport {
            path: "livepatch-md.ko".into(),
            name: "livepatch_md".into(),
            replaced: functions.len(),
            symbols: 1,
            relocations: 2,
            bytes: 123_456,
            sha256: "ab".repeat(32),
            signature: serde_json::Value::Null,
        }),
        test: Some(TrialOutcome {
            release: "6.12.117".into(),
            emulated: true,
            seconds: 12.34,
            missing_modules: vec![HOSTILE.into()],
            trials: vec![TrialResult {
                name: "load".into(),
                good: true,
                passed: vec!["insmod".into()],
                problems: Vec::new(),
            }],
        }),
        ..Report::default()
    };
    let in_module = |&n: &usize| ModuleFunction {
        symbol: name(n),
        replaces: vec![("vmlinux".into(), name(n), 0)],
        body: body(arch, instructions, Some(7), "md_stop"),
    };
    let function = |&n: &usize| LivepatchFunction {
        old_name: name(n),
        sympos: 0,
        new_symbol: name(n),
        new_at: (klpx_normalize::elf::SectionId(1), 0),
        new_size: 1,
    };
    let module = Module {
        info: [("name", "livepatch_md"), ("description", HOSTILE), ("cve", "CVE-2026-1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
        objects: vec![PatchedObject {
            name: "vmlinux".into(),
            functions: functions.iter().map(function).collect(),
            callbacks: vec![("pre_patch", HOSTILE.into())],
        }],
        replace: Some(true),
        symbols: vec![LivepatchSymbol { object: "vmlinux".into(), name: HOSTILE.into(), sympos: 1 }],
        relocations: Vec::new(),
        imports: vec![HOSTILE.into()],
    };
    let functions = functions.iter().map(in_module).collect();
    Sample { report, module, functions }
}

/// The page of a build, and the page of its module.
fn pages(functions: usize, instructions: usize, arch: Arch) -> [String; 2] {
    let Sample { report, module, functions } = sample(functions, instructions, arch);
    let verified = Verified { functions: functions.len(), symbols: 1, ..Verified::default() };
    let (signed, path) = (Signed::No, Path::new("livepatch-md.ko"));
    let (module, functions, signed) = (&module, functions.as_slice(), &signed);
    let build =
        BuildResults { report: &report, verified: &verified, module, functions, signed, not_tried: None };
    let own = Inspected { path, bytes: 123_456, sha256: "abc", module, functions, signed };
    [built(&build), inspected(&own)]
}

/// The tags of a page, each with its attributes.
fn tags(page: &str) -> Vec<&str> {
    let (_, body) = page.split_once("</style>").expect("a style");
    body.split('<').skip(1).filter_map(|rest| Some(rest.split_once('>')?.0)).collect()
}

/// The values of an attribute.
fn values<'p>(page: &'p str, attribute: &str) -> Vec<&'p str> {
    let start = format!(" {attribute}=\"");
    page.split(start.as_str()).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0)).collect()
}

#[test]
fn texts_of_files_are_no_markup() {
    for page in pages(6, 40, Arch::X86_64) {
        for tag in tags(&page) {
            let name = tag.split([' ', '\n']).next().unwrap_or_default();
            assert!(!["script", "iframe", "img", "object", "b", "link"].contains(&name), "<{tag}>");
        }
        assert!(page.contains("f&lt;script src=//x.example&gt;alert(1)"), "the name is shown as text");
        assert!(!page.contains(['\u{202e}', '\u{1b}']), "characters that act");
        assert!(!page.contains("</pre><script>"));
    }
}

#[test]
fn a_page_stands_alone() {
    for page in pages(3, 10, Arch::X86_64) {
        for word in ["http", "url(", "@import", "<script", " src=\"", " onclick"] {
            assert!(!page.contains(word), "{word}");
        }
        let ids = values(&page, "id");
        let once: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(once.len(), ids.len(), "each name once: {ids:?}");
        for link in values(&page, "href") {
            let to = link.strip_prefix('#').expect("a link within the page");
            assert!(once.contains(to), "{link} leads nowhere");
        }
        for label in values(&page, "aria-labelledby") {
            assert!(once.contains(label), "{label} is no label");
        }
    }
}

#[test]
fn headings_are_in_order_and_tables_have_heads() {
    for page in pages(3, 10, Arch::X86_64) {
        let levels = tags(&page).into_iter().filter_map(|tag| tag.strip_prefix('h')?.get(..1)?.parse().ok());
        let levels: Vec<usize> = levels.collect();
        assert_eq!(levels.iter().filter(|&&level| level == 1).count(), 1);
        assert!(levels.is_sorted_by(|one, next| next <= &(one + 1)), "{levels:?}");
        assert_eq!(levels.first(), Some(&1));
        let tables = page.split("<table").skip(1);
        for table in tables.map(|rest| rest.split_once("</table>").map_or(rest, |(table, _)| table)) {
            for part in ["<caption>", "<thead>", "scope=\"col\""] {
                assert!(table.contains(part), "{part} in {table}");
            }
        }
        assert!(page.contains("<html lang=\"en\">") && page.contains("@media print"));
    }
}

#[test]
fn fifty_long_functions_are_below_2_mb_and_what_is_cut_is_said() {
    for &arch in Arch::ALL {
        for page in pages(50, 1_000, arch) {
            assert!(page.len() < 2_000_000, "{}", page.len());
            assert!(page.contains("cut here: "));
        }
    }
    for page in pages(1, 5_000, Arch::X86_64) {
        assert!(
            page.len() < 2_000_000 && page.contains("Only the first 4,000 instructions"),
            "{}",
            page.len()
        );
    }
    let [build, own] = pages(2, 20, Arch::X86_64);
    assert!(!build.contains("cut here: ") && !own.contains("cut here: "));
}

#[test]
fn the_same_results_give_the_same_page() {
    assert_eq!(pages(3, 100, Arch::X86_64), pages(3, 100, Arch::X86_64));
}

#[test]
fn what_a_person_has_to_see_is_there() {
    let [build, own] = pages(6, 40, Arch::X86_64);
    for text in [
        "Linux 6.12.117+deb12-cloud-amd64",
        "gcc 12.2.0",
        "CVE-2026-1",
        "struct mddev",
        "1 function, 1 the main function of a thread",
        "klpx::hunk-moved",
        "<strong>Passed</strong>",
        "<code>md_stop</code> of vmlinux",
        "<td>md.c</td>",
        "number 2",
        "0xffffffff81234560",
        "the export <code>_printk</code>",
        "<del>add $1,%eax</del>",
        "<ins>add $0x10001,%eax</ins>",
        "178 functions of drivers/md/md.o are those of the shipped vmlinux.",
        "2 functions of drivers/md/md.o are not byte for byte",
        "id=\"hunk-1-1\"",
        "What was not checked",
    ] {
        assert!(build.contains(text), "{text}");
    }
    for text in ["Livepatch symbols", "pre_patch", "What a module does not say", "call → md_stop"] {
        assert!(own.contains(text), "{text}");
    }
}

/// Shows a page in a browser, in a frame of this width. Returns how much wider than the frame the page is, and the
/// number of its headings.
fn shown(page: &str, width: u32) -> (i64, usize) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("frame.html");
    let text = page.replace('&', "&amp;").replace('"', "&quot;");
    let outer = format!(
        "<!doctype html><meta charset=utf-8><iframe id=f style=\"width:{width}px;height:800px;border:0\" srcdoc=\"{text}\"></iframe>\
         <script>onload = () => {{ const page = document.getElementById('f').contentDocument;\
         const over = page.documentElement.scrollWidth - page.documentElement.clientWidth;\
         const heads = page.querySelectorAll('h1, h2, h3').length;\
         document.body.innerHTML = `<p id=found>${{over}} ${{heads}}</p>`; }}</script>"
    );
    std::fs::write(&file, outer).expect("written");
    let home = format!("--user-data-dir={}", dir.path().join("profile").display());
    let mut browser = klpx_testkit::command("chromium");
    browser.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--dump-dom",
    ]);
    browser.args(["--window-size=1600,900", "--virtual-time-budget=20000", &home]);
    let dom = klpx_testkit::said(browser.arg(format!("file://{}", file.display())));
    let (_, found) = dom.split_once("<p id=\"found\">").unwrap_or_else(|| panic!("no answer: {dom}"));
    let mut numbers = found.split(['<', ' ']).map(str::parse::<i64>);
    let mut number = || numbers.next().and_then(Result::ok).expect("a number");
    (number(), usize::try_from(number()).expect("a count"))
}

#[test]
fn a_browser_shows_it_on_a_desk_and_on_a_phone() {
    for page in pages(3, 60, Arch::X86_64) {
        let headings =
            page.matches("<h1").count() + page.matches("<h2").count() + page.matches("<h3").count();
        for width in [390, 1280] {
            assert_eq!(shown(&page, width), (0, headings), "at {width} px");
        }
    }
}
