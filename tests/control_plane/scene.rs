//! A gate with namespaces of its own on the shared control plane.

use crate::support::{ControlPlane, Gate, Knows, Kubectl, Registration, Setup, Through};

/// A gate that is asked about the namespaces with the label `gate: $ns`, where `$ns` stands for a
/// name of the scene's own in all that is applied here.
pub(crate) struct Scene {
    pub(crate) plane: &'static ControlPlane,
    /// Runs for as long as the scene.
    pub(crate) gate: Gate,
    name: String,
}

impl Scene {
    /// A gate with this configuration over the live cluster. The documents are applied before it is
    /// there to judge them.
    pub(crate) async fn new(name: &str, through: Through, config: &str, standing: &str) -> Self {
        let plane = ControlPlane::shared().await;
        let name = format!("{name}-{through:?}").to_lowercase();
        let standing = standing.replace("$ns", &name);
        plane.apply(&standing).await;
        let cluster = Knows::Live(plane.kubeconfig());
        let gate = Gate::start(Setup { cluster, config, ..Setup::default() }).await;
        Registration::new(plane, &gate, through, &name).await;
        Self { plane, gate, name }
    }

    /// The text with the scene's name in it.
    pub(crate) fn named(&self, text: &str) -> String {
        text.replace("$ns", &self.name)
    }

    /// Runs `kubectl` with these words and this input.
    pub(crate) async fn kubectl(&self, command: &str, input: &str) -> Kubectl {
        let (command, input) = (self.named(command), self.named(input));
        let said = self.plane.kubectl(command.split_whitespace(), &input).await;
        // So that one snapshot holds for every scene.
        let unnamed = |text: String| text.replace(&self.name, "$ns");
        Kubectl { stdout: unnamed(said.stdout), stderr: unnamed(said.stderr), succeeded: said.succeeded }
    }

    /// What kubectl says of a command that the gate must deny.
    #[track_caller]
    pub(crate) fn denied(said: &Kubectl, code: &str) {
        let is_denied = said.stderr.contains("denied the request") && said.stderr.contains(&format!("[{code} "));
        assert!(!said.succeeded && is_denied, "{code} should deny: {said:?}");
    }

    /// What it says of a command that the gate must warn of and let through.
    #[track_caller]
    pub(crate) fn warned(said: &Kubectl, code: &str) {
        assert!(said.succeeded && said.stderr.contains(&format!("Warning: [{code} ")), "{code} should warn: {said:?}");
    }

    /// What it says of a command that the gate must have nothing to say about.
    #[track_caller]
    pub(crate) fn silent(said: &Kubectl) {
        assert!(said.succeeded && said.stderr.is_empty(), "there should be nothing to say: {said:?}");
    }
}
