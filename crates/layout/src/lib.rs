//! Reads from debug information how types are laid out and where variables are declared.
//!
//! Objects that live when a livepatch is loaded have the original's layout, and code that is not replaced goes on using
//! this layout. Code with a different layout would read and write the wrong bytes. This crate tells which types differ
//! between two builds of a unit, and whether a kernel has a type in the unit's form.
//!
//! Owns the descriptions of types from DWARF and BTF, their comparison, and declarations. Never decides what a
//! difference means for a livepatch.
//!
//! # Reading order
//!
//! [`Layouts`] are the types of a build, [`changes`] compares two of them, [`Btf`] reads the types that a kernel carries.
//! [`Declarations`] tell where a variable is declared, for the pairing of variables.

mod btf;
mod compare;
mod declarations;
mod dwarf;

use std::collections::BTreeMap;
use std::fmt;

pub use btf::Btf;
pub use compare::{TypeChange, changes};
pub use declarations::{Declaration, Declarations};

/// The kind of type that a name stands for. C keeps the names of typedefs apart from the other kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TypeKind {
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
pub struct TypeKey {
    /// The kind of type.
    pub kind: TypeKind,
    /// The name alone.
    pub name: String,
}

impl fmt::Display for TypeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sort = match self.kind {
            TypeKind::Struct => "struct ",
            TypeKind::Union => "union ",
            TypeKind::Enum => "enum ",
            TypeKind::Typedef => "",
        };
        write!(f, "{sort}{}", self.name)
    }
}

/// The described structures around a structure without a name.
#[derive(Clone, Copy, Debug, Default)]
struct Enclosing<'n> {
    /// The names of the members that lead to the structure, each with a dot behind it.
    prefix: &'n str,
    /// The structure's place in the outermost structure, in bits.
    offset: u64,
}

/// A member of a structure or union. Members of an unnamed structure count as members of the structure around it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The member's name, with the names of the structures around it: `pos.x`.
    pub name: String,
    /// The place of its first bit, in bits.
    pub offset: u64,
    /// Width of a bit-field in bits; 0 for any other member.
    pub width: u64,
    /// The member's type as C writes it, without typedefs and qualifiers.
    pub text: String,
    /// The named type that lies in the member itself, not only behind a pointer.
    pub embeds: Option<TypeKey>,
}

/// The layout of a type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layout {
    /// Size in bytes.
    pub size: u64,
    /// The members, in the order of the source.
    pub members: Vec<Member>,
    /// The names and values of an enumeration, in the order of the source.
    pub values: Vec<(String, i64)>,
}

/// A type's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeDefinition {
    /// The type's layout.
    pub layout: Layout,
    /// The source file, as debug information has it.
    pub file: String,
    /// The line in the file; 0 if unknown.
    pub line: u32,
}

/// The types that a unit defines and uses.
#[derive(Clone, Debug, Default)]
pub struct Layouts {
    /// Definitions by name. Functions and blocks may have several types of one name.
    pub(crate) types: BTreeMap<TypeKey, Vec<TypeDefinition>>,
    /// Variables of file scope, by the type that they hold.
    pub(crate) variables: BTreeMap<TypeKey, Vec<String>>,
}

impl Layouts {
    /// Returns the definitions of a name.
    pub fn of(&self, key: &TypeKey) -> &[TypeDefinition] {
        self.types.get(key).map_or(&[], Vec::as_slice)
    }

    /// Returns the names of variables of file scope that hold an object of a type, sorted.
    pub fn variables(&self, key: &TypeKey) -> &[String] {
        self.variables.get(key).map_or(&[], Vec::as_slice)
    }
}
