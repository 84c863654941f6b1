//! Source line and inlined functions of a function.
fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let f = klpx_normalize::elf::ElfFile::open(a[0].as_ref()).unwrap();
    let o = klpx_normalize::object::Object::read(&f).unwrap();
    let i = o.item_ids().find(|&i| o.item_name(i) == a[1].as_bytes()).unwrap();
    let s = *o.item(i);
    let t = std::time::Instant::now();
    println!("{:?} {:?}", klpx_inline_check::lines::position(&o.elf, s.section, s.entry), t.elapsed());
    println!("{:?} {:?}", klpx_inline_check::inlined::inlined_functions(&o.elf, s.section, s.entry), t.elapsed());
}
