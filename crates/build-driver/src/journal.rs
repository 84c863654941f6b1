//! stub
use std::path::Path;
use klpx_diagnosis::Result;
pub(crate) fn recover(_dir: &Path) -> Result<bool> { Ok(false) }
