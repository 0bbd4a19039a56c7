//! Who may know whom. The layers of the crate hold only as long as nothing reaches around them, so
//! the sources themselves are read here and held against a table.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what is missing here is a failed test, and these say where"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

/// A module, the modules it may name by `crate::…`, and why no others.
type Row = (&'static str, &'static [&'static str], &'static str);

const IMPORTS: &[Row] = &[
    ("netset", &[], "numbers only: it is the bottom"),
    ("model", &["netset"], "what a policy says, in sets; how Kubernetes spells it is `k8s`'s"),
    ("cluster", &["model"], "holds objects and does not judge them"),
    ("reach", &["cluster", "model", "netset"], "judges policies; the mesh is another question"),
    ("mesh", &["cluster", "model"], "judges the mesh; policies are another question"),
    ("rules", &["reach", "mesh", "cluster", "model", "netset"], "asks the evaluators; who asks it, it does not know"),
    ("k8s", &["model", "netset", "yaml"], "turns API objects into the model and knows nothing of what becomes of them"),
    ("telemetry", &[], "counts what it is given: names and numbers"),
    ("prose", &[], "breaks paragraphs into lines"),
    ("yaml", &["model"], "text and positions; what the text means is `k8s`'s"),
    ("source", &["k8s", "cluster", "telemetry", "model", "yaml"], "makes clusters of objects; judges none"),
    ("config", &["rules", "yaml", "mesh", "reach", "model", "prose"], "sets up rules; runs none"),
    ("report", &["rules", "yaml", "prose", "audit"], "says what was found; finds nothing"),
    (
        "admission",
        &["rules", "config", "cluster", "k8s", "model", "yaml", "prose"],
        "a pure function: the network and the files are `server`'s; of `config` it asks what the gate would take",
    ),
    (
        "audit",
        &["rules", "cluster", "mesh", "model", "telemetry"],
        "judges what stands and tells of it; how a cluster comes to be known is `source`'s",
    ),
    (
        "server",
        &["admission", "config", "telemetry", "rules", "cluster", "k8s", "model"],
        "the edge towards the network",
    ),
    (
        "upkeep",
        &["admission", "server", "telemetry", "rules"],
        "keeps the gate's own certificate and registration; what is judged, and how, is not its business",
    ),
    (
        "doctor",
        &["admission", "cluster", "k8s", "model", "rules", "source", "telemetry", "upkeep"],
        "looks at a cluster as the gate does, and tells what it finds; the text is `cli`'s",
    ),
    ("cli", ANYTHING, "the edge towards the user puts everything together"),
];

const ANYTHING: &[&str] = &["*"];

/// The domain: values in, values out.
const DOMAIN: [&str; 6] = ["netset", "model", "cluster", "reach", "mesh", "rules"];

/// What the domain must not name, and why.
const FOREIGN_TO_THE_DOMAIN: [(&str, &str); 11] = [
    ("tokio", "it is synchronous"),
    ("async", "it is synchronous"),
    ("await", "it is synchronous"),
    ("std::fs", "it does no I/O"),
    ("std::env", "it does no I/O"),
    ("std::net::TcpStream", "it does no I/O"),
    ("std::net::TcpListener", "it does no I/O"),
    ("std::time", "time is an argument"),
    ("Timestamp::now", "time is an argument"),
    ("Mutex", "it shares nothing that changes"),
    ("RwLock", "it shares nothing that changes"),
];

#[test]
fn every_module_imports_only_what_its_row_allows() {
    let rows: BTreeMap<&str, &[&str]> = IMPORTS.iter().map(|(module, may, _)| (*module, *may)).collect();
    assert_eq!(rows.len(), IMPORTS.len(), "a module has two rows");
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(module) = source.module.as_deref() else { continue };
        let Some(may) = rows.get(module).copied() else {
            wrong.push(format!("{}: module `{module}` has no row in the table", source.path.display()));
            continue;
        };
        for path in &source.paths {
            let Some(imported) = crate_module(path, &rows) else { continue };
            if imported != module && may != ANYTHING && !may.contains(&imported) {
                let path = path.join("::");
                wrong.push(format!("{}: `{module}` names `{path}`", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_grant_of_the_table_is_used() {
    let rows: BTreeMap<&str, &[&str]> = IMPORTS.iter().map(|(module, may, _)| (*module, *may)).collect();
    let sources = sources();
    let mut used: BTreeSet<(&str, &str)> = BTreeSet::new();
    for source in &sources {
        let Some(module) = source.module.as_deref() else { continue };
        let imported = source.paths.iter().filter_map(|path| crate_module(path, &rows));
        used.extend(imported.map(|imported| (module, imported)));
    }
    let granted = IMPORTS.iter().flat_map(|(module, may, _)| may.iter().map(|imported| (*module, *imported)));
    let unused: Vec<_> = granted.filter(|grant| grant.1 != "*" && !used.contains(grant)).collect();
    assert!(unused.is_empty(), "these modules do not import what the table lets them: {unused:?}");
}

#[test]
fn only_lowering_names_the_types_of_the_api() {
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|source| source.module.as_deref() != Some("k8s"))
        .filter(|source| source.paths.iter().any(|path| path.first().is_some_and(|it| it == "k8s_openapi")))
        .map(|source| source.path.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "`k8s_openapi` is named in {wrong:?}");
}

#[test]
fn the_domain_does_no_io_reads_no_clock_and_holds_no_lock() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|it| it.module.as_deref().is_some_and(|it| DOMAIN.contains(&it))) {
        for path in &source.paths {
            let written = format!("::{}::", path.join("::"));
            for (foreign, why) in FOREIGN_TO_THE_DOMAIN {
                if written.contains(&format!("::{foreign}::")) {
                    wrong.push(format!("{}: names `{foreign}`, but {why}", source.path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_is_reached_by_a_mod() {
    let mut unreached: BTreeSet<PathBuf> = rust_files(&source_dir()).into_iter().collect();
    let mut open = vec![source_dir().join("lib.rs"), source_dir().join("main.rs")];
    while let Some(file) = open.pop() {
        assert!(unreached.remove(&file), "{} is not there, or two modules claim it", file.display());
        let folder = match file.file_name().and_then(|name| name.to_str()) {
            Some("lib.rs" | "main.rs" | "mod.rs") => file.parent().unwrap().to_owned(),
            _ => file.with_extension(""),
        };
        for module in modules(&tokens(&file)) {
            let (flat, nested) = (folder.join(format!("{module}.rs")), folder.join(&module).join("mod.rs"));
            open.push(if flat.exists() { flat } else { nested });
        }
    }
    assert!(unreached.is_empty(), "no `mod` names {unreached:?}: nothing compiles them");
}

#[test]
fn the_scan_sees_what_it_is_there_to_see() {
    let text = r#"
        //! Speaks of [`crate::rules`].
        use crate::{cluster::Cluster, netset::{self, IpSet}};
        use std::{fs, net::TcpStream as Stream};
        /// Not [`crate::server`].
        pub(crate) fn f(a: crate::reach::Peer) -> Timestamp { Timestamp::now() } // crate::mesh
        const TEXT: &str = "crate::admission";
        async fn g() {}
        #[cfg(test)]
        mod tests { use crate::k8s; }
        #[cfg(test)]
        use crate::config;
        mod next;
    "#;
    let paths: BTreeSet<String> = scan(&text.parse().unwrap()).iter().map(|path| path.join("::")).collect();
    for seen in ["crate::cluster::Cluster", "crate::netset::IpSet", "crate::netset::self", "crate::reach::Peer"] {
        assert!(paths.contains(seen), "{seen} in {paths:?}");
    }
    for seen in ["std::fs", "std::net::TcpStream", "Timestamp::now", "async"] {
        assert!(paths.contains(seen), "{seen} in {paths:?}");
    }
    for unseen in ["rules", "server", "mesh", "admission", "k8s", "config"] {
        assert!(!paths.iter().any(|path| path.starts_with(&format!("crate::{unseen}"))), "{unseen} in {paths:?}");
    }
    assert_eq!(modules(&text.parse().unwrap()), ["next"]);
    assert!(scan(&"//! Tests.\n#![cfg(test)]\nuse crate::k8s;".parse().unwrap()).is_empty());
}

/// One file of the library or the binary.
struct Source {
    path: PathBuf,
    /// The module at the top of the crate it belongs to; nothing for `lib.rs` and `main.rs`.
    module: Option<String>,
    /// Every path written in it outside comments, strings and tests.
    paths: Vec<Vec<String>>,
}

fn sources() -> Vec<Source> {
    let root = source_dir();
    let files = rust_files(&root);
    assert!(files.len() > 20, "the sources are not where they should be: {}", root.display());
    let read = |path: PathBuf| {
        let inside = path.strip_prefix(&root).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.strip_suffix(".rs").unwrap_or(first);
        let module = (module != "lib" && module != "main").then(|| module.to_owned());
        let paths = scan(&tokens(&path));
        Source { path, module, paths }
    };
    // A file of tests is a `#[cfg(test)]` module of its own, and may use what it likes.
    let is_tests = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == "tests" || stem == "testing");
    files.into_iter().filter(|path| !is_tests(path)).map(read).collect()
}

fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn tokens(file: &Path) -> TokenStream {
    fs::read_to_string(file).unwrap().parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The module of this crate a path names, if it names one: by `crate::…`, or by climbing out of
/// its own module with `super::super::…`.
fn crate_module<'p>(path: &'p [String], known: &BTreeMap<&str, &[&str]>) -> Option<&'p str> {
    match path {
        [first, module, ..] if first == "crate" => Some(module),
        [first, second, module, ..] if first == "super" && second == "super" && known.contains_key(module.as_str()) => {
            Some(module)
        }
        _ => None,
    }
}

/// Every path in these tokens, `use` trees taken apart. Doc comments and other attributes, and
/// items under `#[cfg(test)]`, are left out.
fn scan(tokens: &TokenStream) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    walk(tokens, &[], &mut paths);
    paths
}

fn walk(tokens: &TokenStream, prefix: &[String], paths: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = without_tests(tokens);
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(_) => {
                let mut path = prefix.to_vec();
                while let Some(TokenTree::Ident(name)) = tokens.get(at) {
                    path.push(name.to_string());
                    at += 1;
                    if !is_colons(&tokens, at) {
                        break;
                    }
                    at += 2;
                }
                // `a::{b, c}`: the group continues the path. After a type (`S {`) it does not.
                match tokens.get(at) {
                    Some(TokenTree::Group(group)) if at > 0 && is_colons(&tokens, at.saturating_sub(2)) => {
                        walk(&group.stream(), &path, paths);
                        at += 1;
                    }
                    _ => paths.push(path),
                }
            }
            TokenTree::Group(group) => {
                walk(&group.stream(), &[], paths);
                at += 1;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
        }
    }
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(it)) if it.as_char() == ':');
    colon(at) && colon(at + 1)
}

/// The tokens without attributes, and without what stands under `#[cfg(test)]`.
fn without_tests(tokens: &TokenStream) -> Vec<TokenTree> {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_hash = matches!(&tokens[at], TokenTree::Punct(it) if it.as_char() == '#');
        let bang = matches!(tokens.get(at + 1), Some(TokenTree::Punct(it)) if it.as_char() == '!');
        let attribute = at + 1 + usize::from(bang);
        let Some(TokenTree::Group(group)) = tokens.get(attribute).filter(|_| is_hash) else {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        };
        at = attribute + 1;
        if group.to_string().replace(' ', "") == "[cfg(test)]" {
            if bang {
                // `#![cfg(test)]`: the whole file is about tests.
                return kept;
            }
            at = end_of_item(&tokens, at);
        }
    }
    kept
}

/// The place after the item that starts here: after its block, or its semicolon.
fn end_of_item(tokens: &[TokenTree], start: usize) -> usize {
    let is_use = matches!(tokens.get(start), Some(TokenTree::Ident(it)) if it == "use");
    let ends = |token: &TokenTree| match token {
        TokenTree::Punct(it) => it.as_char() == ';',
        TokenTree::Group(it) => !is_use && it.delimiter() == proc_macro2::Delimiter::Brace,
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    };
    tokens[start..].iter().position(ends).map_or(tokens.len(), |length| start + length + 1)
}

/// The names of `mod name;`, those under `#[cfg(test)]` included.
fn modules(tokens: &TokenStream) -> Vec<String> {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let declared = tokens.windows(3).filter_map(|window| match window {
        [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Punct(end)]
            if word == "mod" && end.as_char() == ';' =>
        {
            Some(name.to_string())
        }
        _ => None,
    });
    declared.collect()
}
