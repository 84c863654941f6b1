//! todo
use anyhow::Result;
#[derive(clap::Args)]
pub(crate) struct Args {}
pub(crate) fn run(_: &crate::workspace::Workspace, _: &Args) -> Result<bool> { Ok(true) }
