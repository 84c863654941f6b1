//! The JSON schemas of the commands' output for programs.

/// Each command and its schema.
pub const SCHEMAS: [(&str, &str); 7] = [
    ("load", include_str!("schema/load.json")),
    ("unload", include_str!("schema/unload.json")),
    ("status", include_str!("schema/status.json")),
    ("check", include_str!("schema/check.json")),
    ("list", include_str!("schema/list.json")),
    ("install", include_str!("schema/install.json")),
    ("uninstall", include_str!("schema/uninstall.json")),
];
