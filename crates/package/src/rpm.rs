//! Packages for rpm, made by the `rpm` crate.

use klpx_diagnosis::{Diagnosis, Result, codes};
use rpm::{BuildConfig, CompressionType, Dependency, FileOptions, PackageBuilder};

use crate::package::{Format, Package, folded};
use crate::scripts::{self, When};
use crate::{changelog, files};

/// The bytes of a package.
///
/// # Errors
/// `klpx::internal` with the library's message.
pub(crate) fn make(package: &Package) -> Result<Vec<u8>> {
    build(package).map_err(|error| {
        let why = error.to_string();
        Diagnosis::new(&codes::INTERNAL, "the package can't be made", why, klpx_diagnosis::REPORT).into()
    })
}

fn build(package: &Package) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error>> {
    let Package { name, version, livepatch, about } = package;
    let date = u32::try_from(about.date)?;
    let architecture = package.architecture(Format::Rpm);
    let mut builder = PackageBuilder::new(name, version, "GPL-2.0-only", architecture, &package.summary());
    builder.using_config(BuildConfig::v4().compression(CompressionType::Gzip).source_date(date));
    builder.release("1").build_host("localhost").packager(about.maintainer.as_str());
    let paragraphs: Vec<String> = package.description().iter().map(|text| folded(text, "")).collect();
    builder.description(paragraphs.join("\n")).group("System Environment/Kernel");
    builder.add_changelog_entry(format!("{} - {version}-1", about.maintainer), changelog::rpm(package), date);
    builder.requires(Dependency::any("klpx-host"));
    for file in files::list(package, Format::Rpm).map_err(|failure| failure.to_string())? {
        let options = FileOptions::new(file.path).permissions(0o644);
        builder.with_file_contents(file.bytes, if file.is_document { options.doc() } else { options })?;
    }
    builder.post_install_script(scripts::rpm(livepatch, When::Installed));
    builder.pre_uninstall_script(scripts::rpm(livepatch, When::Removing));
    builder.post_uninstall_script(scripts::rpm(livepatch, When::Removed));
    let mut bytes = Vec::new();
    builder.build()?.write(&mut bytes)?;
    Ok(bytes)
}
