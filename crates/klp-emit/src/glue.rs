//! The part of the module that kbuild compiles: the `klp_patch` arrays, the imports, and the Makefile.
//!
//! Owns only generated text. The text is GPL-2.0, as anything linked with the kernel must be. It is compiled apart from
//! the closure, because objtool refuses an object that it has processed before; the two are linked afterwards.

use std::fmt::Write;

use crate::plan::{Plan, PlannedObject, VMLINUX};

/// The module's behaviour, and what it says about itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct GlueOptions<'o> {
    /// True if the livepatch replaces all loaded livepatches (atomic replace).
    pub replace: bool,
    /// The entries for modinfo: key and text, in this order. Keys are C identifiers.
    pub info: &'o [(&'static str, String)],
}

/// The name of the C file, without `.c`, beside the Kbuild file.
pub const GLUE: &str = "klpx-glue";

/// The C source.
pub fn source(plan: &Plan, options: GlueOptions<'_>) -> String {
    let mut text = String::from(
        "// SPDX-License-Identifier: GPL-2.0\n\
         // Written by klpx. The functions are in an object that is linked to this one.\n\
         #include <linux/kernel.h>\n#include <linux/module.h>\n#include <linux/livepatch.h>\n\n",
    );
    aliases(&mut text, plan);
    imports(&mut text, plan);
    for (n, object) in plan.objects.iter().enumerate() {
        functions(&mut text, n, object);
    }
    objects(&mut text, plan);
    let replace = if options.replace { "\t.replace = true,\n" } else { "" };
    let _ = write!(
        text,
        "static struct klp_patch klpx_patch = {{\n\t.mod = THIS_MODULE,\n\t.objs = klpx_objects,\n{replace}}};\n\n\
         static int __init klpx_init(void)\n{{\n\treturn klp_enable_patch(&klpx_patch);\n}}\n\n\
         static void __exit klpx_exit(void)\n{{\n}}\n\n\
         module_init(klpx_init);\nmodule_exit(klpx_exit);\n\
         MODULE_LICENSE(\"GPL\");\nMODULE_INFO(livepatch, \"Y\");\n",
    );
    for (key, value) in options.info {
        let _ = writeln!(text, "MODULE_INFO({key}, \"{}\");", c_string(value));
    }
    namespaces(&mut text, plan);
    text
}

/// The Kbuild file for a module `name` (letters, digits, `-`, `_`).
pub fn kbuild(name: &str) -> String {
    format!("# SPDX-License-Identifier: GPL-2.0\nobj-m := {name}.o\n{name}-y := {GLUE}.o\n")
}

/// Declares new functions as weak references: modpost skips these, and the link with the closure defines them.
fn aliases(text: &mut String, plan: &Plan) {
    for object in &plan.objects {
        for function in &object.functions {
            let _ = writeln!(text, "extern void {}(void) __attribute__((weak));", function.alias);
        }
        for callback in &object.callbacks {
            let (kind, object) = match callback.kind.member() {
                "pre_patch" => ("int", "struct klp_object *"),
                _ => ("void", "struct klp_object *"),
            };
            let _ = writeln!(text, "extern {kind} {}({object}) __attribute__((weak));", callback.alias);
        }
    }
    text.push('\n');
}

/// Makes references so that modpost records each import (dependency, version, namespace); module.lds drops the
/// pointers.
fn imports(text: &mut String, plan: &Plan) {
    for (n, import) in plan.imports.iter().enumerate() {
        let name = &import.name;
        let _ = writeln!(
            text,
            "extern const char klpx_import_{n}[] __asm__(\"{name}\");\n\
             static const void *const klpx_keep_{n} __used __section(\".discard.klpx_imports\") = klpx_import_{n};"
        );
    }
    text.push('\n');
}

fn functions(text: &mut String, n: usize, object: &PlannedObject) {
    let _ = writeln!(text, "static struct klp_func klpx_funcs_{n}[] = {{");
    for function in &object.functions {
        let _ = writeln!(
            text,
            "\t{{ .old_name = \"{}\", .new_func = {}, .old_sympos = {} }},",
            function.old.name, function.alias, function.old.sympos
        );
    }
    text.push_str("\t{ }\n};\n\n");
}

fn objects(text: &mut String, plan: &Plan) {
    text.push_str("static struct klp_object klpx_objects[] = {\n");
    for (n, object) in plan.objects.iter().enumerate() {
        text.push_str("\t{\n");
        if object.name != VMLINUX {
            let _ = writeln!(text, "\t\t.name = \"{}\",", object.name);
        }
        let _ = writeln!(text, "\t\t.funcs = klpx_funcs_{n},");
        for callback in &object.callbacks {
            let _ = writeln!(text, "\t\t.callbacks.{} = {},", callback.kind.member(), callback.alias);
        }
        text.push_str("\t},\n");
    }
    text.push_str("\t{ }\n};\n\n");
}

/// A text in the form that stands between the quotes of a C string.
fn c_string(text: &str) -> String {
    let plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic() && !b"\"\\?".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("\\{byte:03o}") })
        .collect()
}

fn namespaces(text: &mut String, plan: &Plan) {
    let mut names: Vec<&str> = plan.imports.iter().filter_map(|import| import.namespace.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names.iter().filter(|name| !name.is_empty()) {
        // MODULE_IMPORT_NS() takes a string since 6.13 and a bare word before; both become this line.
        let _ = writeln!(text, "MODULE_INFO(import_ns, \"{name}\");");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Bound, CallbackKind, Import, PlannedCallback, PlannedFunction};

    fn plan() -> Plan {
        let function =
            PlannedFunction { old: Bound { name: "md_run".into(), sympos: 1 }, alias: "klpx_new_0".into() };
        let callback = PlannedCallback { kind: CallbackKind::PrePatch, alias: "klpx_new_1".into() };
        let object = |name: &str| PlannedObject {
            name: name.into(),
            functions: vec![function.clone()],
            callbacks: vec![callback.clone()],
            added: vec![],
        };
        Plan {
            objects: vec![object("vmlinux"), object("raid1")],
            imports: vec![Import { name: "memcpy".into(), namespace: Some("CRYPTO".into()) }],
            ..Plan::default()
        }
    }

    #[test]
    fn the_arrays_name_objects_functions_and_callbacks() {
        let info = [("description", "a \"fix\" for 100 % of ü".to_owned()), ("cve", "CVE-2026-1".to_owned())];
        let text = source(&plan(), GlueOptions { replace: true, info: &info });
        for part in [
            "{ .old_name = \"md_run\", .new_func = klpx_new_0, .old_sympos = 1 },",
            ".name = \"raid1\",",
            ".callbacks.pre_patch = klpx_new_1,",
            "__asm__(\"memcpy\")",
            ".replace = true",
            "MODULE_INFO(import_ns, \"CRYPTO\");",
            "MODULE_INFO(livepatch, \"Y\");",
            r#"MODULE_INFO(description, "a \042fix\042 for 100 % of \303\274");"#,
            "MODULE_INFO(cve, \"CVE-2026-1\");",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains(".name = \"vmlinux\""));
        assert!(!source(&plan(), GlueOptions::default()).contains(".replace"));
    }

    #[test]
    fn callbacks_are_declared_with_what_they_return_and_namespaces_are_imported_once() {
        let mut plan = plan();
        plan.imports.push(Import { name: "memset".into(), namespace: Some("CRYPTO".into()) });
        plan.imports.push(Import { name: "kfree".into(), namespace: None });
        plan.objects[1].callbacks[0].kind = CallbackKind::PostUnpatch;
        let text = source(&plan, GlueOptions::default());
        assert_eq!(text.matches("import_ns").count(), 1, "{text}");
        assert!(text.contains("extern int klpx_new_1(struct klp_object *)"), "{text}");
        assert!(text.contains("extern void klpx_new_1(struct klp_object *)"), "{text}");
        assert!(text.contains(".callbacks.post_unpatch = klpx_new_1,"), "{text}");
    }
}
