//! Binds units to a shipped image and compares every function: `check_unit IMAGE [--copy DIR] UNIT.o ...`. For
//! development only. `DIR` holds copies of stripped modules that still have their FILE symbols.

use std::path::{Path, PathBuf};
use std::time::Instant;

use klpx_diagnosis::Result;
use klpx_klp_emit::bind::Binding;
use klpx_klp_emit::image::{Image, TargetKernel, VMLINUX, module_name};
use klpx_klp_emit::witness::Witness;
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::Object;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let image = PathBuf::from(arguments.next().expect("an image"));
    let mut units: Vec<String> = arguments.collect();
    let copies: Vec<PathBuf> = match units.iter().position(|argument| argument == "--copy") {
        Some(n) => units.drain(n..n + 2).skip(1).map(PathBuf::from).collect(),
        None => Vec::new(),
    };
    let start = Instant::now();
    let lap = |what: &str| println!("{:8.1} ms {what}", start.elapsed().as_secs_f64() * 1e3);
    let file = ElfFile::open(&image)?;
    let is_module = image.extension().is_some_and(|e| e == "ko");
    let kernel;
    let image = match is_module {
        true => {
            let directory = image.parent().map(Path::to_owned).unwrap_or_default();
            kernel = TargetKernel::open(Path::new("/dev/null"), Path::new("/dev/null"), &[directory])?
                .with_debug_modules(&copies);
            kernel.image(&module_name(&image))?
        }
        false => Image::read(&file, VMLINUX)?,
    };
    lap("image read");
    for unit in &units {
        let file = ElfFile::open(Path::new(unit))?;
        let object = Object::read(&file)?;
        lap("unit read");
        let binding = Binding::new(&object, &image);
        lap("unit bound");
        println!("{unit}: {:?}", binding.tally());
        let found = Witness::new(&binding).check_unit(unit);
        lap("unit compared");
        let name = |item| String::from_utf8_lossy(object.item_name(item)).into_owned();
        println!("  functions {:?}, data {:?}", found.functions, found.data);
        for (item, why) in &found.explained {
            println!("  {why:?}: {}", name(*item));
        }
        for diagnosis in &found.unexplained {
            println!("  {} {diagnosis}", diagnosis.code);
            diagnosis.detail.iter().for_each(|line| println!("    {line}"));
        }
        for item in object.item_ids() {
            if let Err(diagnosis) = binding.item(item) {
                println!("  unbound {}: {diagnosis}", name(item));
            }
        }
    }
    lap("done");
    Ok(())
}
