//! The meaning of references into merged strings and shared sections.

use std::path::Path;

use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::{ItemId, Object, Role, Target};
use klpx_testkit::{command, run};

/// A section of strings with one named string, as ThinLTO leaves it when it promotes `.str`, and an array before an
/// unnamed constant. A loop over the array ends one past it.
const SOURCE: &str = r#"
	.section .rodata.str1.1,"aMS",@progbits,1
	.globl	named
	.type	named,@object
	.size	named,6
named:	.asciz	"named"
	.asciz	"after"
	.section .rodata.table,"a",@progbits
	.globl	table
	.type	table,@object
	.size	table,24
table:	.quad	.rodata.str1.1+0
	.quad	.rodata.str1.1+6
	.quad	named
	.section .data.shared,"aw",@progbits
	.globl	array
	.type	array,@object
	.size	array,8
array:	.quad	1
	.quad	0x1122334455667788
	.globl	later
	.type	later,@object
	.size	later,8
later:	.quad	3
	.section .data.users,"aw",@progbits
	.globl	users
	.type	users,@object
	.size	users,24
users:	.quad	.data.shared+8
	.quad	.data.shared+24
	.quad	.data.shared+16
"#;

fn assemble(dir: &Path) -> ElfFile {
    let (source, object) = (dir.join("a.s"), dir.join("a.o"));
    std::fs::write(&source, SOURCE).expect("the source");
    run(command("gcc").args(["-c", "-o"]).arg(&object).arg(&source));
    ElfFile::open(&object).expect("the object")
}

fn targets(object: &Object<'_>, name: &str) -> Vec<Target> {
    let item = object.item_ids().find(|&i| object.item_name(i) == name.as_bytes()).expect("the item");
    let section = object.item(item).section;
    object.item_relocations(item).iter().map(|rela| object.resolve(section, rela)).collect()
}

fn name(object: &Object<'_>, item: ItemId) -> String {
    String::from_utf8_lossy(object.item_name(item)).into_owned()
}

#[test]
fn a_string_after_a_named_one_is_its_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = assemble(dir.path());
    let object = Object::read(&file).expect("an object");
    let targets = targets(&object, "table");
    for (n, target) in [(0, "named"), (2, "named")] {
        assert!(
            matches!(targets[n], Target::Item { item, offset: 0 } if name(&object, item) == target),
            "{targets:?}"
        );
    }
    let Target::Literal { section, start, end, offset: 0 } = targets[1] else { panic!("{targets:?}") };
    assert_eq!(object.role(section), Role::Strings);
    assert_eq!(object.range(section, start, end), b"after\0");
}

#[test]
fn one_past_the_end_is_the_arrays_only_where_nothing_follows() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = assemble(dir.path());
    let object = Object::read(&file).expect("an object");
    let targets = targets(&object, "users");
    assert!(
        matches!(targets[0], Target::Literal { start: 8, .. }),
        "unnamed data follows the array: {targets:?}"
    );
    assert!(
        matches!(targets[1], Target::Item { item, offset: 8 } if name(&object, item) == "later"),
        "{targets:?}"
    );
    assert!(
        matches!(targets[2], Target::Item { item, offset: 0 } if name(&object, item) == "later"),
        "{targets:?}"
    );
}
