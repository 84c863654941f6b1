//! Counts what an object holds.
use std::time::Instant;
fn main() {
    for path in std::env::args().skip(1) {
        let t = Instant::now();
        let file = klpx_normalize::elf::ElfFile::open(path.as_ref()).unwrap();
        let o = klpx_normalize::object::Object::read(&file).unwrap();
        let mut relocs = 0; let mut kinds = [0usize; 5]; let mut entries = 0;
        for i in o.item_ids() {
            entries += o.entries(i).len();
            for r in o.item_relocations(i) {
                relocs += 1;
                let k = match o.resolve(o.item(i).section, r) {
                    klpx_normalize::object::Target::Item{..} => 0,
                    klpx_normalize::object::Target::Literal{..} => 1,
                    klpx_normalize::object::Target::Entry{..} => 2,
                    klpx_normalize::object::Target::External{..} => 3,
                    klpx_normalize::object::Target::Absolute(_) => 4,
                };
                kinds[k] += 1;
            }
        }
        println!("{path}: {} sections {} items {} relocs {:?} entries {} files {} {:?}", o.elf.section_count(), o.items().len(), relocs, kinds, entries, o.file_count(), t.elapsed());
    }
}
