//! Compares two objects and prints what differs.
use std::time::Instant;
fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let t = Instant::now();
    let (f, g) = (klpx_normalize::elf::ElfFile::open(a[0].as_ref()).unwrap(), klpx_normalize::elf::ElfFile::open(a[1].as_ref()).unwrap());
    let (o, p) = rayon::join(|| klpx_normalize::object::Object::read(&f).unwrap(), || klpx_normalize::object::Object::read(&g).unwrap());
    let read = t.elapsed();
    let d = klpx_diff::compare(&o, &p);
    println!("read {read:?} total {:?}", t.elapsed());
    let mut ev = std::collections::BTreeMap::new();
    for e in d.correlation.original_of.iter().flatten() { *ev.entry(e.1).or_insert(0) += 1; }
    println!("{ev:?}");
    let n = |o: &klpx_normalize::object::Object, i| String::from_utf8_lossy(o.item_name(i)).into_owned();
    for (k, l) in [("fn", &d.functions), ("data", &d.data), ("registry", &d.registries)] {
        println!("{k}: {}", l.len());
        for c in l.iter().take(60) { println!("  {} {} {:?}", if c.original.is_some() {"changed"} else {"new"}, n(&p, c.patched), c.reasons); }
    }
    println!("removed {}", d.removed.len());
    for &r in d.removed.iter().take(40) { println!("  {}", n(&o, r)); }
}
