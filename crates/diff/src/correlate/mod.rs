//! Correlation: finds which item of the patched object is which item of the original.
//!
//! Names come first, but only where a name can't mean something else in the other build: a global's name, and a local's
//! name in its file. Variables of functions often share a name, so their declarations tell them apart. The rest
//! (numbered names, the locals of a full LTO link) is paired by references, contents and users until no new pair
//! follows. Position in the symbol table counts only between copies that are otherwise the same. A wrong pair is worse
//! than none: an item without enough evidence stays unsettled, with its candidates. Objects without an identity
//! (`klpx_normalize::object::Object::anonymous`) have no counterpart; they are compared where they are used.
//!
//! `klpx_klp_emit::bind` also matches the symbols of two builds. The two modules share `klpx_normalize::align` and
//! `klpx_normalize::name`, but their steps differ. Here both sides are objects with items and relocations, but they have
//! two sources: a function may have another size and other contents, and a patch may add or remove files. There both
//! sides have one source, so equal sizes and contents are evidence; but the kernel's side may be a linked image without
//! relocations, or a module without FILE symbols.

mod alike;
mod declared;
mod files;
mod pairing;
mod settle;
mod side;
mod users;

use klpx_normalize::object::{ItemId, Object};

use declared::ObjectDeclarations;
pub use declared::{Edits, LineState, Sources};
use pairing::Pairing;
pub use pairing::{Correlation, ItemEvidence, Unsettled};
use side::ObjectSide;

/// Correlates two builds of one object.
pub fn correlate(original: &Object<'_>, patched: &Object<'_>, sources: Sources<'_>) -> Correlation {
    let declared = ObjectDeclarations::new((original, patched), sources);
    let (mut original, mut patched) = rayon::join(|| ObjectSide::new(original), || ObjectSide::new(patched));
    files::align(&original, &mut patched);
    original.count_siblings();
    patched.count_siblings();
    let result = Correlation {
        original_of: vec![None; patched.object.items().len()],
        patched_of: vec![None; original.object.items().len()],
        unsettled: Vec::new(),
    };
    let mut pairing = Pairing { original, patched, declared, result };
    pairing.by_name();
    pairing.by_file_and_base();
    pairing.by_declaration();
    settle::settle(&mut pairing);
    pairing.part_what_is_gone();
    pairing.result
}

/// Returns true for an item that is compared where it is used and has no counterpart.
pub fn is_anonymous(object: &Object<'_>, item: ItemId) -> bool {
    object.anonymous(item).is_some()
}
