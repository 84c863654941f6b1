//! Literals that are neither strings nor constants.
use klpx_normalize::object::*;
fn main() {
    for path in std::env::args().skip(1) {
        let file = klpx_normalize::elf::ElfFile::open(path.as_ref()).unwrap();
        let o = Object::read(&file).unwrap();
        let mut m = std::collections::BTreeMap::new();
        for i in o.item_ids() { for r in o.item_relocations(i) {
            if let Target::Literal{section, start, end, offset} = o.resolve(o.item(i).section, r) {
                if !matches!(o.role(section), Role::Strings | Role::Constants(_)) {
                let e = m.entry(String::from_utf8_lossy(o.elf.section_name(section)).into_owned()).or_insert((0, vec![]));
                e.0 += 1; if e.1.len() < 4 { e.1.push((String::from_utf8_lossy(o.item_name(i)).into_owned(), start, end, offset)); }
            }}
        }}
        for (k, v) in m { println!("{k} {v:?}"); }
    }
}
