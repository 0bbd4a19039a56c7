//! Where the programs of a control plane are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The program of this name, built first where that was not done yet.
pub(crate) fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control-plane/build");
        // Its progress and its reasons are for whoever runs the tests, not for one test's output.
        let build = Command::new(&script).stderr(Stdio::inherit()).output();
        let build = build.unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
        let folder = String::from_utf8_lossy(&build.stdout).trim_end().to_owned();
        build.status.success().then(|| folder.into())
    });
    let folder =
        folder.as_ref().expect("the control plane cannot be built, see the lines above; try `make control-plane`");
    folder.join(name)
}
