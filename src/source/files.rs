//! Which files a path stands for, and what is in them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Fault, Note};
use crate::yaml::{Problem, Source};

/// A file that was read.
pub(super) struct File {
    pub(super) source: Source,
    /// Why it is no text, if it is none.
    pub(super) problem: Option<Problem>,
    /// Whether it was found in a folder, and not named itself.
    pub(super) is_found: bool,
}

/// What reading a list of paths came to.
#[derive(Default)]
pub(super) struct Files {
    pub(super) read: Vec<File>,
    pub(super) faults: Vec<Fault>,
    pub(super) notes: Vec<Note>,
    /// What was read or entered already, so that a file given twice counts once and a link to a
    /// parent folder ends.
    seen: BTreeSet<PathBuf>,
}

/// The names kustomize looks for.
pub(super) const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

impl Files {
    /// Reads a path as it was given: `-`, a file of whatever name, or a folder.
    pub(super) fn take(&mut self, path: &Path) {
        if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            match io::stdin().lock().read_to_end(&mut bytes) {
                Ok(_) => self.decode("<stdin>".to_owned(), bytes, false),
                Err(error) => self.fault("<stdin>", &error),
            }
        } else if path.is_dir() {
            self.folder(path);
        } else {
            self.file(path, false);
        }
    }

    fn file(&mut self, path: &Path, is_found: bool) {
        if !self.is_new(path) {
            return;
        }
        match fs::read(path) {
            Ok(bytes) => self.decode(path.display().to_string(), bytes, is_found),
            Err(error) => self.fault(&path.display().to_string(), &error),
        }
    }

    /// Reads what lies in a folder and below, in the order of the names. Hidden files and folders
    /// are left out: `.github` holds YAML that is no manifest, and the `..data` of a mounted
    /// ConfigMap holds each file a second time.
    fn folder(&mut self, path: &Path) {
        if !self.is_new(path) {
            return;
        }
        let entries = fs::read_dir(path).and_then(|entries| {
            let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
            paths
        });
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.fault(&path.display().to_string(), &error),
        };
        entries.retain(|entry| !name(entry).starts_with('.'));
        entries.sort();
        if entries.iter().any(|entry| name(entry) == "Chart.yaml") {
            let shown = path.display();
            self.faults.push(Fault::about(
                path,
                Problem::new(0..0, "this folder is a Helm chart, whose templates have to be rendered first")
                    .help(format!("`helm template {shown} | portcullis check -` checks what the chart installs")),
            ));
            return;
        }
        for entry in entries {
            if entry.is_dir() {
                self.folder(&entry);
            } else if KUSTOMIZATIONS.contains(&name(&entry)) {
                let shown = path.display();
                self.notes.push(Note {
                    place: None,
                    message: format!(
                        "`{}` is not applied: the files beside it are read as they are; `kustomize build {shown} | portcullis check -` checks what it makes of them",
                        entry.display()
                    ),
                });
            } else if entry.extension().is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json") {
                self.file(&entry, true);
            }
        }
    }

    fn is_new(&mut self, path: &Path) -> bool {
        // A path that cannot be resolved is reported where it is opened.
        fs::canonicalize(path).map_or(true, |path| self.seen.insert(path))
    }

    fn decode(&mut self, name: String, bytes: Vec<u8>, is_found: bool) {
        let (source, problem) = Source::decode(name, bytes);
        self.read.push(File { source, problem, is_found });
    }

    fn fault(&mut self, name: &str, error: &io::Error) {
        self.faults.push(Fault::about(Path::new(name), Problem::not_opened(error)));
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The files below a path with their size and time of change: while it stays the same, they need
/// not be read again.
pub fn stamp(path: &Path) -> Vec<(PathBuf, u64, Option<std::time::SystemTime>)> {
    let mut stamps = Vec::new();
    let mut open = vec![path.to_path_buf()];
    let mut entered = BTreeSet::new();
    while let Some(path) = open.pop() {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            if fs::canonicalize(&path).is_ok_and(|path| entered.insert(path)) {
                open.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            }
        } else {
            stamps.push((path, metadata.len(), metadata.modified().ok()));
        }
    }
    stamps.sort();
    stamps
}
