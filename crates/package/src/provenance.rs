//! The provenance of a livepatch: an in-toto statement, version 1, whose predicate is SLSA provenance, version 1.

use klpx_diagnosis::words;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::livepatch::PackagedLivepatch;

/// The statement. A fact that no report gives is left out; nothing is guessed.
pub(crate) fn statement(livepatch: &PackagedLivepatch) -> Value {
    let report =
        |pointer: &str| livepatch.report.as_ref().and_then(|report| report.pointer(pointer)).cloned();
    let info = |key: &str| livepatch.module.info(key);
    let mut external = Map::new();
    external.insert("kernel".to_owned(), json!(livepatch.release));
    external.extend(report("/patches").map(|patches| ("patches".to_owned(), patches)));
    let mut internal = Map::new();
    internal.insert("kernel_build_id".to_owned(), json!(livepatch.build_id));
    internal.extend(report("/kernel/compiler").map(|compiler| ("compiler".to_owned(), compiler)));
    internal.extend(report("/kernel/make").map(|make| ("make".to_owned(), make)));
    let dependencies: Vec<Value> = report("/inputs").iter().flat_map(dependencies).collect();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": format!("{}.ko", livepatch.name), "digest": {"sha256": sha256(&livepatch.bytes)}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:klpx:build:1",
                "externalParameters": external,
                "internalParameters": internal,
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": "urn:klpx", "version": {"klpx": info("klpx")}},
            },
        },
    })
}

/// The inputs of a build that have a hash, as resolved dependencies.
fn dependencies(inputs: &Value) -> Vec<Value> {
    let inputs = inputs.as_array().map(Vec::as_slice).unwrap_or_default();
    let hashed = inputs.iter().filter_map(|input| {
        let (name, hash) = (input.get("path")?, input.get("sha256")?);
        Some(json!({"name": name, "digest": {"sha256": hash}}))
    });
    hashed.collect()
}

fn sha256(bytes: &[u8]) -> String {
    words::hexadecimal(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::livepatch;

    #[test]
    fn a_statement_names_the_module_by_its_hash_and_what_the_report_tells() {
        let mut livepatch = livepatch("a", "6.1");
        let hash = "8dbc3c5e51a8e9d6a8fb9b8d8a8b2ed5e6a6f2a1";
        let bare = statement(&livepatch);
        assert_eq!(bare.pointer("/subject/0/name"), Some(&json!("a.ko")));
        let digest = bare.pointer("/subject/0/digest/sha256").and_then(Value::as_str).unwrap_or_default();
        assert_eq!(digest.len(), 64);
        assert_eq!(bare.pointer("/predicate/buildDefinition/resolvedDependencies"), Some(&json!([])));
        livepatch.report = Some(json!({
            "patches": ["fix.patch"],
            "kernel": {"compiler": "gcc 12.2.0", "make": ["KCFLAGS=-O3"]},
            "inputs": [{"path": "fix.patch", "sha256": hash}, {"path": "no hash"}],
        }));
        let whole = statement(&livepatch);
        let of = |pointer: &str| whole.pointer(&format!("/predicate/buildDefinition/{pointer}")).cloned();
        assert_eq!(of("externalParameters/patches/0"), Some(json!("fix.patch")));
        assert_eq!(of("internalParameters/compiler"), Some(json!("gcc 12.2.0")));
        assert_eq!(of("internalParameters/make"), Some(json!(["KCFLAGS=-O3"])));
        assert_eq!(
            of("resolvedDependencies"),
            Some(json!([{"name": "fix.patch", "digest": {"sha256": hash}}]))
        );
    }
}
