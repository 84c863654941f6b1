//! What debug information says of data: the layouts of types, and where variables are declared.
//!
//! Objects that live when a livepatch is loaded have the original's layout, and code that is not replaced goes on using
//! it. Code of another layout reads and writes the wrong bytes of them. This crate tells what two builds of a unit
//! disagree about, and whether a kernel has a type as a unit has it.
//!
//! Owns the description of types, from DWARF and from BTF, their comparison, and declarations. Never decides what a
//! difference means for a livepatch.

mod btf;
mod compare;
mod declarations;
mod dwarf;

use std::collections::BTreeMap;
use std::fmt;

pub use btf::Btf;
pub use compare::{Change, changes};
pub use declarations::{Declaration, Declarations};

/// What sort of type a name stands for. C keeps the names of typedefs apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `struct name`.
    Struct,
    /// `union name`.
    Union,
    /// `enum name`.
    Enum,
    /// A typedef of a structure, union or enumeration without a name of its own.
    Typedef,
}

/// A type's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What sort of type.
    pub kind: Kind,
    /// The name alone.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sort = match self.kind {
            Kind::Struct => "struct ",
            Kind::Union => "union ",
            Kind::Enum => "enum ",
            Kind::Typedef => "",
        };
        write!(f, "{sort}{}", self.name)
    }
}

/// A member of a structure or union. Members of an unnamed structure inside count as members of the one around it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Its name, with the names of the structures around it: `pos.x`.
    pub name: String,
    /// Where it begins, in bits.
    pub offset: u64,
    /// Bits of a bit-field; 0 for all others.
    pub width: u64,
    /// Its type as C writes it, with typedefs and qualifiers taken away.
    pub text: String,
    /// The named type that lies in it, not only behind a pointer.
    pub embeds: Option<Key>,
}

/// What a type is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layout {
    /// Bytes.
    pub size: u64,
    /// In the order of the source.
    pub members: Vec<Member>,
    /// Of an enumeration: its names and their values, in the order of the source.
    pub values: Vec<(String, i64)>,
}

/// A type's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// What it is.
    pub layout: Layout,
    /// The source file, as debug information has it.
    pub file: String,
    /// The line in that file; 0 when it is not known.
    pub line: u32,
}

/// The types that a unit defines and uses.
#[derive(Clone, Debug, Default)]
pub struct Layouts {
    /// By name. Functions and blocks may have types of one name.
    pub(crate) types: BTreeMap<Key, Vec<Definition>>,
    /// Variables of file scope, by the type that lies in them.
    pub(crate) variables: BTreeMap<Key, Vec<String>>,
}

impl Layouts {
    /// The definitions of a name.
    pub fn of(&self, key: &Key) -> &[Definition] {
        self.types.get(key).map_or(&[], Vec::as_slice)
    }

    /// Names of variables of file scope that hold an object of a type, sorted.
    pub fn variables(&self, key: &Key) -> &[String] {
        self.variables.get(key).map_or(&[], Vec::as_slice)
    }
}
