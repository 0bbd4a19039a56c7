//! The image, as far as it can be had without a container runtime: its root file system is assembled
//! as `deploy/Dockerfile` does it, and the program runs with that for a root.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what is not as expected fails the test it is in"
)]

#[path = "control_plane/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the image's tests need some of it")]
mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{Authority, Folder, LONG, Process, eventually, get};

/// The user the image names.
const USER: &str = "65532:65532";

/// The image's root file system, assembled once.
fn assembled() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let root = scratch.join("image-root");
        let made = Command::new(here("deploy/image-root"))
            .arg(&root)
            // As the tests themselves are built: what is asked is how it is linked, not how fast it is.
            .arg("dev")
            .env("CARGO", env!("CARGO"))
            .env("CARGO_TARGET_DIR", scratch.parent().unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .status()
            .unwrap();
        assert!(made.success(), "the image's root cannot be assembled, see the lines above; try `make image-root`");
        root
    })
}

/// A file of the repository.
fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A root file system: the image's, and files that whatever runs it would mount.
fn root(files: &[(&str, &[u8])]) -> Folder {
    let root = Folder::new("portcullis-image-");
    // The image's user has to get in.
    fs::set_permissions(&*root, fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(assembled().join("portcullis"), root.join("portcullis")).unwrap();
    for (path, content) in files {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        root.write(path, content);
    }
    root
}

/// The program in a root of its own, with an empty environment, by the image's user.
fn contained(root: &Path, arguments: &[&str]) -> Command {
    // Who is root may be any user, others only seem to be root themselves.
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = if is_root {
        let mut command = Command::new("chroot");
        command.arg(format!("--userspec={USER}"));
        command
    } else {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "chroot"]);
        command
    };
    command.arg(root).arg("/portcullis").args(arguments);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command
}

/// What the program said, in a root with these files.
fn said(files: &[(&str, &[u8])], arguments: &[&str]) -> Output {
    contained(&root(files), arguments).output().expect("chroot, and unless this is root, unshare are there")
}

/// The program headers of an ELF file of 64 bits, by their types.
fn program_headers(elf: &[u8]) -> Vec<u32> {
    let number = |at: usize, size: usize| {
        let bytes = elf[at..at + size].iter().rev();
        usize::try_from(bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte))).unwrap()
    };
    assert_eq!(elf[..6], *b"\x7fELF\x02\x01", "it is no ELF file of 64 bits, the least byte first");
    let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).map(|at| u32::try_from(number(start + at * size, 4)).unwrap()).collect()
}

#[test]
fn the_root_holds_the_program_and_nothing_else() {
    let root = assembled();
    let names: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["portcullis"]);
    let mode = fs::metadata(root.join("portcullis")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755, "anybody may run it, and only its owner change it");
}

#[test]
fn the_image_is_made_of_what_is_tested_here() {
    let text = fs::read_to_string(here("deploy/Dockerfile")).unwrap();
    let (building, image) = text.split_once("FROM scratch\n").unwrap();
    assert!(building.contains("deploy/image-root /image-root\n"), "{building}");
    let lines: Vec<_> = image.lines().filter(|line| !line.starts_with('#')).collect();
    let user = format!("USER {USER}");
    assert_eq!(lines[..2], ["COPY --from=build /image-root/ /", &user]);
    // What the build is not shown, it cannot use; what is named and not there was renamed.
    let shown = fs::read_to_string(here("deploy/Dockerfile.dockerignore")).unwrap();
    let shown: Vec<_> = shown.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(shown.contains(&"src"), "{shown:?}");
    for path in shown {
        assert!(here(path).exists(), "{path}");
    }
}

#[test]
fn the_program_asks_for_no_loader() {
    /// The type of the header that names the dynamic loader.
    const INTERPRETER: u32 = 3;
    let is_loaded = |path: &Path| program_headers(&fs::read(path).unwrap()).contains(&INTERPRETER);
    assert!(!is_loaded(&assembled().join("portcullis")));
    // The test's own program is linked as usual: the header is one that would be seen.
    assert!(is_loaded(&std::env::current_exe().unwrap()) || cfg!(target_feature = "crt-static"));
}

#[test]
fn it_runs_with_nothing_around_it() {
    let Output { status, stdout, stderr } = said(&[], &["--version"]);
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{status}: {err}");
    assert!(out.starts_with(concat!("portcullis ", env!("CARGO_PKG_VERSION"), " (")), "{out}");
}

#[test]
fn it_judges_manifests() {
    let closed = b"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: shop}, spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}";
    let Output { status, stdout, stderr } = said(&[("manifests/policy.yaml", closed)], &["check", "/manifests"]);
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(1), "{out}{err}");
    assert!(out.contains("NP002") && out.contains("manifests/policy.yaml"), "{out}");
}

#[tokio::test]
async fn it_serves() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&["portcullis.portcullis.svc"]);
    let mut files = vec![
        ("tls/tls.crt".to_owned(), certificate.into_bytes()),
        // It is the user's to read, as a mounted Secret is by `fsGroup`.
        ("tls/tls.key".to_owned(), key.into_bytes()),
    ];
    for entry in fs::read_dir(here("deploy/demo/cluster")).unwrap() {
        let path = entry.unwrap().path();
        files.push((format!("cluster/{}", path.file_name().unwrap().to_str().unwrap()), fs::read(path).unwrap()));
    }
    let files: Vec<_> = files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    let root = root(&files);
    let mut command =
        contained(&root, &["serve", "--cluster=/cluster", "--tls-cert=/tls/tls.crt", "--tls-key=/tls/tls.key"]);
    command.args(["--listen=127.0.0.1:0", "--operations=127.0.0.1:0", "--log-format=json", "--linger=0"]);
    let mut process = Process::spawn("portcullis", &mut command, root.join("log"));
    let (webhook, operations) = eventually("it serves", async || {
        process.assert_running();
        let log = process.output();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let serving = lines.into_iter().find(|line| line["message"] == "serving")?;
        let address = |field: &str| serving[field].as_str().unwrap().parse::<SocketAddr>().unwrap();
        Some((address("webhook"), address("operations")))
    })
    .await;
    for page in ["/livez", "/readyz"] {
        eventually(page, async || (get(operations, page).await?.0 == 200).then_some(())).await;
    }
    let answer = review(webhook, &authority).await;
    assert!(answer.contains(r#""allowed":false"#) && answer.contains("NP001"), "{answer}");
    let status = tokio::task::spawn_blocking(|| process.stop(LONG)).await.unwrap();
    assert!(status.success(), "{status}");
}

/// What the server answers to the review of the demonstration.
async fn review(webhook: SocketAddr, authority: &Authority) -> String {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let name = ServerName::try_from("portcullis.portcullis.svc").unwrap();
    let stream = TcpStream::connect(webhook).await.unwrap();
    let mut stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
    let body = fs::read_to_string(here("deploy/demo/review.json")).unwrap();
    let head = "POST /validate HTTP/1.1\r\nHost: gate\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A static glibc brings its own ways to find a name, and no others.
#[tokio::test]
async fn it_finds_an_api_server_by_its_name() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let port = listener.local_addr().unwrap().port();
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&["portcullis.portcullis.svc"]);
    let kubeconfig = format!(
        "{{apiVersion: v1, kind: Config, current-context: it, contexts: [{{name: it, context: {{cluster: it, user: it}}}}], \
         users: [{{name: it, user: {{token: none}}}}], \
         clusters: [{{name: it, cluster: {{server: 'https://api.example.test:{port}', certificate-authority-data: {}}}}}]}}",
        base64_of(&authority.pem())
    );
    let root = root(&[
        ("etc/hosts", b"127.0.0.1 api.example.test\n"),
        ("kubeconfig", kubeconfig.as_bytes()),
        ("tls/tls.crt", certificate.as_bytes()),
        ("tls/tls.key", key.as_bytes()),
    ]);
    let mut command =
        contained(&root, &["serve", "--kubeconfig=/kubeconfig", "--tls-cert=/tls/tls.crt", "--tls-key=/tls/tls.key"]);
    command.args(["--listen=127.0.0.1:0", "--operations=127.0.0.1:0", "--linger=0"]);
    let process = Process::spawn("portcullis", &mut command, root.join("log"));
    let called = tokio::time::timeout(LONG, listener.accept()).await;
    let (mut stream, _) = called.unwrap_or_else(|_| panic!("nobody calls\n{}", process.tail())).unwrap();
    // The greeting of TLS names whom it is for.
    let mut greeting = vec![0; 2048];
    let length = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut greeting)).await.unwrap().unwrap();
    let named = greeting[..length].windows(16).any(|bytes| bytes == b"api.example.test");
    assert!(named, "{:?}", String::from_utf8_lossy(&greeting[..length]));
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
