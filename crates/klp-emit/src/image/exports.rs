//! Module.symvers.

use std::path::Path;

use hashbrown::HashMap;
use klpx_diagnosis::{Diagnosis, Result, codes};

use super::module_files::module_name;

/// One line of Module.symvers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The checksum of the type; 0 without CONFIG_MODVERSIONS.
    pub crc: u32,
    /// `vmlinux`, or the running kernel's name for the exporting module.
    pub object: String,
    /// The exporting module's path in the build tree, without `.ko`.
    pub path: String,
    /// True for `EXPORT_SYMBOL_GPL`.
    pub gpl: bool,
    /// The namespace, empty for none. `module:a,b` is open only to the modules `a` and `b`.
    pub namespace: String,
}

/// Module.symvers: what can be imported, and from where.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    pub(super) by_name: HashMap<String, Export>,
}

impl Exports {
    /// Reads the text of a Module.symvers (scripts/mod/modpost.c, read_dump): five fields separated by tabs, of which
    /// the namespace may be empty.
    ///
    /// # Errors
    /// `klpx::bad-symvers`.
    pub fn parse(text: &str) -> Result<Exports, Diagnosis> {
        let mut by_name = HashMap::with_capacity(text.len() / 50);
        for (n, line) in text.lines().enumerate() {
            let (name, export) = parse_export(line).ok_or_else(|| {
                Diagnosis::new(
                    &codes::BAD_SYMVERS,
                    format!("line {} is no export", n + 1),
                    "the file is no Module.symvers, or it was cut",
                    "give the Module.symvers of the kernel to be patched",
                )
            })?;
            by_name.insert(name, export);
        }
        Ok(Exports { by_name })
    }

    /// The export with this name.
    pub fn get(&self, name: &str) -> Option<&Export> {
        self.by_name.get(name)
    }

    /// How many exports there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Returns true if nothing is exported.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

fn parse_export(line: &str) -> Option<(String, Export)> {
    let mut fields = line.split('\t');
    let crc = u32::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok()?;
    let name = fields.next().filter(|name| !name.is_empty())?;
    let path = fields.next()?;
    let gpl = match fields.next()? {
        "EXPORT_SYMBOL" => false,
        "EXPORT_SYMBOL_GPL" => true,
        _ => return None,
    };
    let namespace = fields.next().unwrap_or("").to_owned();
    let object = module_name(Path::new(path));
    Some((name.to_owned(), Export { crc, object, path: path.to_owned(), gpl, namespace }))
}
