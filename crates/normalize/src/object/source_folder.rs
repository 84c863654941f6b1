//! Paths of the source in strings. The compiler writes a path as given on its command line, so the path depends on
//! where the kernel was built. Such paths lie in the locations of the undefined-behaviour sanitizer (`struct
//! source_location`, lib/ubsan.h), and in `__FILE__` where no `-fmacro-prefix-map` removes the folder (modules outside
//! the kernel's tree, before Linux 6.13). Clang's names of types hold paths as well ([`super::places_in_type`]).

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::sanitizer::{AT, places_in_type};
use crate::elf::SectionId;
use crate::object::{Object, Role};

impl<'d> Object<'d> {
    /// Returns the object with the folders in which its source was compiled.
    #[must_use]
    pub fn compiled_in(mut self, folders: &[PathBuf]) -> Object<'d> {
        let bytes = |folder: &PathBuf| [folder.as_os_str().as_bytes(), b"/"].concat();
        self.source_folders = folders.iter().map(bytes).collect();
        self
    }

    /// Returns what follows the folder of the source in a string, if the string begins with one.
    pub fn path_in_source<'t>(&self, section: SectionId, bytes: &'t [u8]) -> Option<&'t [u8]> {
        (self.role(section) == Role::Strings).then(|| self.behind_folder(bytes)).flatten()
    }

    /// Returns a literal's bytes without the folder of the source, if the literal is a string that begins with one, or
    /// the description of a type that names one.
    pub fn without_source_folder<'t>(&self, section: SectionId, bytes: &'t [u8]) -> Cow<'t, [u8]> {
        if let Some(path) = self.path_in_source(section, bytes) {
            return Cow::Borrowed(path);
        }
        if self.source_folders.is_empty() || !self.is_type_description(section) {
            return Cow::Borrowed(bytes);
        }
        let mut rest = Vec::with_capacity(bytes.len());
        let mut from = 0;
        for place in places_in_type(bytes) {
            let path = place.start + AT.len()..place.end;
            if let Some(behind) = self.behind_folder(&bytes[path.clone()]) {
                rest.extend_from_slice(&bytes[from..path.start]);
                from = path.end - behind.len();
            }
        }
        rest.extend_from_slice(&bytes[from..]);
        Cow::Owned(rest)
    }

    fn behind_folder<'t>(&self, path: &'t [u8]) -> Option<&'t [u8]> {
        self.source_folders.iter().find_map(|folder| path.strip_prefix(&folder[..]))
    }
}
