//! Special sections whose form klpx does not know are refused, because the description of a function would be lost.

use klpx_normalize::arch::Arch;
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::Object;
use klpx_normalize::special::TableKind;
use klpx_testkit::{command, run};

/// A section's rows, and the reason for a refusal; `None` where the rows are accepted.
const CASES: [(&str, Option<&str>); 7] = [
    (".section __ex_table,\"a\"; .long f - ., g - ., 3", None),
    // a relocation where the form has none
    (".section __ex_table,\"a\"; .long f - .; .word 0, g - ., 3, 0", Some("an unknown entry form")),
    // a row without a relocation
    (".section __ex_table,\"a\"; .long f - ., g - ., 3, 0, 0, 0", Some("an unknown entry form")),
    // half a row
    (".section __ex_table,\"a\"; .long f - ., g - ., 3, f - .", Some("an unknown entry form")),
    (".section .orc_unwind_ip,\"a\"; .long f - .; .section .orc_unwind,\"a\"; .byte 1, 2, 3, 4, 5, 6", None),
    // a companion with one more row
    (
        ".section .orc_unwind_ip,\"a\"; .long f - .; .section .orc_unwind,\"a\"; .zero 12",
        Some("two tables disagree"),
    ),
    // no companion
    (".section .orc_unwind_ip,\"a\"; .long f - .", Some("two tables disagree")),
];

/// An object with the functions `f` and `g`, and more lines.
fn assemble(lines: &str) -> ElfFile {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, object) = (folder.path().join("a.s"), folder.path().join("a.o"));
    let text = format!(
        ".text\n.globl f, g\n.type f,@function\n.type g,@function\nf: nop\n.size f,1\ng: ret\n.size g,1\n{}\n",
        lines.replace("; ", "\n")
    );
    std::fs::write(&source, text).expect("the source");
    run(command("as").arg("--64").arg("-o").arg(&object).arg(&source));
    ElfFile::open(&object).expect("the object")
}

#[test]
fn an_entry_belongs_to_the_function_at_its_place_whatever_the_name() {
    for name in ["f", ".weak w; .set w, f", ".globl w; .set w, f"] {
        let (more, name) = if name == "f" { ("", "f") } else { (name, "w") };
        let file = assemble(&format!("{more}; .section __ex_table,\"a\"; .long {name} - ., g - ., 3"));
        let object = Object::read(&file).expect("a sound object");
        let f = object.item_ids().find(|&item| object.item_name(item) == b"f").expect("a function");
        assert_eq!(object.entries(f).len(), 1, "{more}");
    }
}

/// The search for the shortest form that fits begins at the end of the list.
#[test]
fn forms_stand_with_the_longest_first() {
    for &arch in Arch::ALL {
        for kind in TableKind::all(arch) {
            let sizes: Vec<u8> = kind.forms.iter().map(|(size, _)| *size).collect();
            assert!(sizes.is_sorted_by(|a, b| a > b), "{}: {sizes:?}", kind.name);
        }
    }
}

#[test]
fn a_special_section_of_another_form_is_refused() {
    for (rows, refused) in CASES {
        let file = assemble(rows);
        let said = Object::read(&file).err();
        let what =
            said.map(|failure| failure.diagnoses().map(|found| found.what.clone()).collect::<String>());
        assert_eq!(what.as_deref(), refused, "{rows}");
    }
}
