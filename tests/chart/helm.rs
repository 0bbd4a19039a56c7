//! Helm, and the objects it renders.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The chart's folder.
pub(crate) fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/portcullis")
}

/// The values files of each shape the chart is tested in, by name.
pub(crate) fn shapes() -> Vec<(String, PathBuf)> {
    let mut shapes: Vec<_> = std::fs::read_dir(chart().join("ci"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().trim_end_matches("-values.yaml").to_owned(), path))
        .collect();
    shapes.sort();
    assert!(shapes.len() >= 9, "{shapes:?}");
    shapes
}

/// Helm with these words. Its caches and what it knows of users go into the build folder.
pub(crate) fn helm<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Output {
    static HELM: OnceLock<PathBuf> = OnceLock::new();
    let helm = HELM.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/helm/build");
        let built = Command::new(&script).stderr(Stdio::inherit()).output().unwrap();
        assert!(built.status.success(), "Helm cannot be built, see the lines above; try `make helm`");
        String::from_utf8(built.stdout).unwrap().trim_end().into()
    });
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm");
    Command::new(helm).args(words).env("HOME", &home).env("XDG_CACHE_HOME", home.join("cache")).output().unwrap()
}

/// What Helm renders with these words behind the chart's name, or what it says instead.
pub(crate) fn rendered(words: &[&str]) -> Result<Vec<Value>, String> {
    let chart = chart();
    let mut all = vec!["template", "portcullis", chart.to_str().unwrap(), "--namespace", "portcullis"];
    all.extend(words);
    let said = helm(all);
    if !said.status.success() {
        return Err(String::from_utf8(said.stderr).unwrap());
    }
    Ok(objects(&String::from_utf8(said.stdout).unwrap()))
}

/// The objects of a text.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    let documents = portcullis::yaml::parse(text).into_iter().map(|document| document.unwrap());
    documents.filter(|document| !document.is_empty()).map(|document| document.value()).collect()
}

/// The objects of a shape.
pub(crate) fn shape(name: &str) -> Vec<Value> {
    let (_, path) = shapes().into_iter().find(|(shape, _)| shape == name).unwrap();
    rendered(&["--values", path.to_str().unwrap()]).unwrap()
}

/// The object of this kind whose name ends like this.
#[track_caller]
pub(crate) fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects.iter().filter(|it| it["kind"] == kind && it["metadata"]["name"] == name);
    let object = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    assert!(found.next().is_none(), "two {kind} {name}");
    object
}
