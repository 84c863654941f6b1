//! Replaces functions of a kernel by copies of themselves: the emitter's first test on a real kernel.
//!
//! `replace_self emit BUILD OBJECT OUT FUNCTION|file:FILE.c...` writes the closure object, the glue and its Kbuild file to OUT
//! (OBJECT is `vmlinux` or a module's path without `.ko`, in the build tree BUILD, `:FILE.o` after it for another build). After kbuild and the link,
//! `replace_self finish LINKED OUT.ko`. Run again with OUT/final.ko there, `emit` verifies that.
//! `replace_self pair BUILD OBJECT OUT ORIGINAL.o PATCHED.o` does the same with two builds.

use std::error::Error;
use std::path::Path;

use klpx_diff::{Change, Difference, compare};
use klpx_klp_emit::bind::Binding;
use klpx_klp_emit::image::Kernel;
use klpx_klp_emit::kernel_binder::KernelBinder;
use klpx_klp_emit::plan::Unit;
use klpx_klp_emit::{closure, emit, finish, glue, inspect, verify};
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::{ItemId, Object};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["emit", build, object, out, ref functions @ ..] => {
            emit_module(build.as_ref(), object, out.as_ref(), functions)
        }
        ["pair", build, object, out, original, patched] => {
            let (original, patched) = (ElfFile::open(original.as_ref())?, ElfFile::open(patched.as_ref())?);
            let (original, patched) = (Object::read(&original)?, Object::read(&patched)?);
            let difference = compare(&original, &patched);
            module(build.as_ref(), object, out.as_ref(), &original, &patched, &difference)
        }
        ["finish", linked, out] => {
            std::fs::write(out, finish::finish(&ElfFile::open(linked.as_ref())?)?)?;
            Ok(())
        }
        _ => Err("usage: replace_self emit|finish ...".into()),
    }
}

fn is_traceable(object: &Object<'_>, item: ItemId) -> bool {
    let table = |entry: &klpx_normalize::object::Entry| object.tables[usize::from(entry.table)].kind.name;
    let name = object.elf.section_name(object.item(item).section);
    object.entries(item).iter().any(|entry| table(entry) == "__mcount_loc") && !name.starts_with(b".init")
}

fn emit_module(build: &Path, object: &str, out: &Path, functions: &[&str]) -> Result<(), Box<dyn Error>> {
    let (object, path) = match object.split_once(':') {
        Some((object, path)) => (object, path.into()),
        None => (object, build.join(format!("{object}.o"))),
    };
    let file = ElfFile::open(&path)?;
    let read = Object::read(&file)?;
    let mut difference = compare(&read, &read);
    for item in read.item_ids() {
        let file = read.file_name(read.symbol_file(read.item(item).symbol));
        let named = |name: &&str| match name.strip_prefix("file:") {
            Some(wanted) => read.item(item).code && wanted.as_bytes() == file && is_traceable(&read, item),
            None => read.item_name(item) == name.as_bytes(),
        };
        if functions.iter().any(|name| named(name)) {
            difference.functions.push(Change { patched: item, original: Some(item), reasons: vec![] });
        }
    }
    module(build, object, out, &read, &read, &difference)
}

fn module(
    build: &Path,
    object: &str,
    out: &Path,
    original: &Object<'_>,
    patched: &Object<'_>,
    difference: &Difference,
) -> Result<(), Box<dyn Error>> {
    let name = klpx_klp_emit::image::module_name(format!("{object}.o").as_ref());
    let kernel = Kernel::open(&build.join("vmlinux"), &build.join("Module.symvers"), &[build.to_owned()])?;
    let vmlinux = kernel.image("vmlinux")?;
    let image = kernel.image(&name)?;
    let bindings = [Binding::new(original, &image)];
    let binder = KernelBinder::new(&kernel, &vmlinux, &bindings);
    let units = [Unit { object_name: &name, original, patched, difference, edited: None }];
    let closure = closure::select(&units)?;
    let emitted = emit::emit(&closure, &binder)?;
    for object in &emitted.plan.objects {
        println!("{}: {} functions", object.name, object.functions.len());
    }
    println!("{} imports, {:#?}", emitted.plan.imports.len(), emitted.plan.livepatch_symbols);
    println!("{:#?}", emitted.plan.warnings);
    if out.join("final.ko").exists() {
        let images: Vec<_> = if name == "vmlinux" { vec![&vmlinux] } else { vec![&vmlinux, &image] };
        let target = verify::KernelFiles::new(&kernel, &images);
        let module = ElfFile::open(&out.join("final.ko"))?;
        println!("{:#?}", inspect::inspect(&module)?.objects);
        let start = std::time::Instant::now();
        match verify::verify(&module, &target, &units) {
            Ok(verified) => println!("{verified:?} {:?}", start.elapsed()),
            Err(failure) => println!("{failure}"),
        }
        return Ok(());
    }
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join("closure.o"), &emitted.object)?;
    std::fs::write(
        out.join(format!("{}.c", glue::GLUE)),
        glue::source(&emitted.plan, glue::Options { replace: true }),
    )?;
    std::fs::write(out.join("Kbuild"), glue::kbuild("livepatch-test"))?;
    Ok(())
}
