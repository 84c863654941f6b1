//! What a symbol is: the pieces of functions that Clang leaves without a type, and weak names.

use klpx_normalize::elf::{ElfFile, SymbolId};
use klpx_normalize::object::{Object, Target};
use klpx_testkit::{command, run};

const NOTYPE: u8 = 0;
const FUNCTION: u8 = 2;

fn assemble(source: &str) -> ElfFile {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.s"), source).expect("the source");
    run(command("gcc").args(["-c", "-o", "a.o", "a.s"]).current_dir(folder.path()));
    let bytes = std::fs::read(folder.path().join("a.o")).expect("an object");
    ElfFile::from_bytes("a.o", bytes)
}

fn symbol(object: &Object<'_>, name: &str) -> SymbolId {
    let named = |&id: &SymbolId| object.elf.symbol_name(id) == name.as_bytes();
    object.elf.symbol_ids().find(named).expect("the symbol")
}

#[test]
fn only_a_sized_piece_of_code_counts_as_a_function_without_the_type() {
    let file = assemble(
        "
	.section .text.unlikely,\"ax\"
f.cold:	nop
	ret
	.size	f.cold, 2
g.cold:	ret
label:	ret
	.size	label, 1
	.data
h.cold:	.quad 1
	.size	h.cold, 8
",
    );
    let object = Object::read(&file).expect("an object");
    let types = ["f.cold", "g.cold", "label", "h.cold"]
        .map(|name| (name, object.elf.symbol_type(symbol(&object, name))));
    assert_eq!(types, [("f.cold", FUNCTION), ("g.cold", NOTYPE), ("label", NOTYPE), ("h.cold", NOTYPE)]);
    let items: Vec<_> = object.item_ids().map(|item| object.item_name(item)).collect();
    assert!(items.contains(&&b"f.cold"[..]), "{items:?}");
}

#[test]
fn a_weak_name_is_an_alias_only_beside_another_name() {
    let file = assemble(
        "
	.section .text.only,\"ax\"
	.weak	only
	.type	only, @function
only:	ret
	.size	only, 1
	.section .text.both,\"ax\"
	.type	local, @function
local:	ret
	.size	local, 1
	.weak	second
	.type	second, @function
	.set	second, local
	.size	second, 1
	.section .text.user,\"ax\"
	.globl	user
	.type	user, @function
user:	call	only
	call	second
	ret
	.size	user, .-user
",
    );
    let object = Object::read(&file).expect("an object");
    let alias = |name| object.is_weak_alias(symbol(&object, name));
    assert_eq!(["only", "local", "second"].map(alias), [false, false, true]);
    let user = object.symbol_item(symbol(&object, "user")).expect("an item");
    let section = object.item(user).section;
    let targets: Vec<Target> =
        object.item_relocations(user).iter().map(|rela| object.resolve(section, rela)).collect();
    let only = object.symbol_item(symbol(&object, "only")).expect("an item");
    assert_eq!(
        targets,
        [
            Target::Item { item: only, offset: 0 },
            Target::External { symbol: symbol(&object, "second"), offset: 0 }
        ]
    );
}
