//! The gate on a real API server: a control plane is started, the gate watches it and is registered
//! with it, and a person works with `kubectl`.
//!
//! Every command that is shown is run, and what is shown below it is what it printed. An outcome
//! that is not the one told of here ends the run with an error.

#![allow(dead_code, unused_imports, reason = "the control plane's support serves tests as well")]
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what the control plane's support cannot do ends the demonstration with its log"
)]

#[path = "../../tests/control_plane/support/mod.rs"]
mod support;

use std::io::Write as _;
use std::process::Command;

use anstyle::{AnsiColor, Style};
use anyhow::ensure;

use Outcome::{Denied, Done, Warned};
use support::{ControlPlane, Folder, Gate, Knows, Kubectl, Setup, eventually};

const HEADING: Style = Style::new().bold();
const SAID: Style = AnsiColor::BrightBlack.on_default();
const COMMAND: Style = AnsiColor::Cyan.on_default();
const REFUSED: Style = AnsiColor::Red.on_default();

/// What is deployed.
const CART: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: cart
  namespace: shop
spec:
  replicas: 2
  selector:
    matchLabels: {app: cart}
  template:
    metadata:
      labels: {app: cart}
    spec:
      containers: [{name: cart, image: example.com/cart}]
";

/// What must come of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Warned,
    Denied,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut session = Session::begin().await?;

    tell("A namespace must exist before its policies can: creating one warns, with a command that closes it.")?;
    session.run("create namespace shop", Warned).await?;

    tell("A Deployment in it is denied. Nothing of it is stored, and the message says what is missing.")?;
    session.file("cart.yaml", CART);
    session.run("apply -f cart.yaml", Denied).await?;

    tell("The YAML at the end of the message, as it was printed, and the Deployment again.")?;
    session.take_fix("default-deny.yaml")?;
    session.run("apply -f default-deny.yaml", Done).await?;
    session.run("apply -f cart.yaml", Done).await?;
    session.run("--namespace shop get networkpolicies,deployments -o name", Done).await?;

    tell("Somebody tidies up. The default-deny is all that keeps the pods from being open.")?;
    session.run("--namespace shop delete networkpolicy default-deny", Denied).await?;

    tell("Somebody locks down. Without its one egress rule, no pod of the namespace resolves a name.")?;
    let patch = r#"--namespace shop patch networkpolicy default-deny --type=merge --patch={"spec":{"egress":[]}}"#;
    session.run(patch, Denied).await?;

    tell("The whole namespace may go all the same: what is being deleted is not held up.")?;
    session.run("delete namespace shop", Done).await
}

fn tell(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(anstream::stdout(), "\n{HEADING}# {text}{HEADING:#}")?)
}

/// A person at a terminal.
struct Session {
    plane: ControlPlane,
    _gate: Gate,
    folder: Folder,
    /// What the last command said on stderr.
    said: String,
}

impl Session {
    async fn begin() -> anyhow::Result<Self> {
        anstream::eprintln!("{SAID}starting etcd, an API server and a controller manager{SAID:#}");
        let plane = ControlPlane::with_controllers().await;
        plane.apply(support::DNS).await;
        anstream::eprintln!("{SAID}starting the gate and registering it{SAID:#}");
        let gate = Gate::start(Setup { cluster: Knows::Live(plane.kubeconfig()), ..Setup::default() }).await;
        let folder = Folder::new("portcullis-session-");
        let authority = folder.write("ca.crt", gate.authority());
        let url = format!("https://{}/validate", gate.webhook);
        let printed =
            Command::new(support::BINARY).args(["webhook", "--url", &url, "--ca-file"]).arg(authority).output()?;
        ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        plane.apply(&String::from_utf8(printed.stdout)?).await;
        eventually("the gate is asked", async || {
            let tried = plane.kubectl(["create", "namespace", "nobody", "--dry-run=server"], "").await;
            tried.stderr.contains("Warning").then_some(())
        })
        .await;
        Ok(Self { plane, _gate: gate, folder, said: String::new() })
    }

    fn file(&mut self, name: &str, text: &str) {
        self.folder.write(name, text);
    }

    /// Saves the YAML of the last denial, which stands at its end.
    fn take_fix(&mut self, name: &str) -> anyhow::Result<()> {
        let at = self.said.find("\napiVersion:");
        let at = at.ok_or_else(|| anyhow::anyhow!("the denial prints no YAML:\n{}", self.said))?;
        let fix = self.said.split_at(at + 1).1.to_owned();
        self.file(name, &fix);
        Ok(())
    }

    async fn run(&mut self, command: &str, expected: Outcome) -> anyhow::Result<()> {
        // As it is typed, and with the file where it is.
        let words = command.split(' ').map(|word| {
            let is_file = std::path::Path::new(word).extension().is_some_and(|extension| extension == "yaml");
            if is_file { self.folder.join(word).display().to_string() } else { word.to_owned() }
        });
        let Kubectl { stdout, stderr, succeeded } = self.plane.kubectl(words, "").await;
        let stderr = stderr.replace(&format!("{}/", self.folder.display()), "");
        let outcome = match (succeeded, stderr.is_empty()) {
            (true, true) => Outcome::Done,
            (true, false) => Outcome::Warned,
            (false, _) => Outcome::Denied,
        };
        let mut out = anstream::stdout();
        let typed = match command.split_once("--patch=") {
            Some((before, patch)) => format!("{before}--patch='{patch}'"),
            None => command.to_owned(),
        };
        writeln!(out, "{COMMAND}$ kubectl {typed}{COMMAND:#}")?;
        let style = if outcome == Outcome::Denied { REFUSED } else { Style::new() };
        for line in stderr.lines() {
            writeln!(out, "{style}{line}{style:#}")?;
        }
        write!(out, "{stdout}")?;
        ensure!(outcome == expected, "this is not what should have come of it");
        self.said = stderr;
        Ok(())
    }
}
