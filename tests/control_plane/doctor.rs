//! `portcullis doctor` over a cluster that is well, and over one that is not.

use std::net::SocketAddr;
use std::process::Command;

use crate::cold_start::{DENY, OWN, apply_in, installation, pods_of, register, runs};
use crate::support::{BINARY, ControlPlane, Gate, Knows, Setup, eventually};

/// What `portcullis doctor` says, with what differs from run to run taken out.
async fn doctor(plane: &ControlPlane, gate: SocketAddr) -> (Option<i32>, String) {
    let mut command = Command::new(BINARY);
    command.args(["doctor", "--namespace", OWN, "--kubeconfig"]).arg(plane.kubeconfig());
    let told = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(told.stderr.is_empty(), "{told:?}");
    let said = String::from_utf8(told.stdout).unwrap();
    let lines = said.replace(&gate.to_string(), "ADDRESS");
    let without_dates = |line: &str| match line.split_once("until ") {
        Some((before, _)) => format!("{before}until A DAY\n"),
        None => format!("{line}\n"),
    };
    (told.status.code(), lines.lines().map(without_dates).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_what_keeps_the_gate_from_guarding() {
    let plane = ControlPlane::with_controllers().await;
    let setup = Setup { cluster: Knows::Live(plane.kubeconfig()), ..Setup::default() };
    let gate = Gate::start(setup).await;
    let address = gate.webhook;
    let (code, unregistered) = doctor(&plane, address).await;
    assert_eq!(code, Some(1), "{unregistered}");
    assert!(unregistered.contains("there is no ValidatingWebhookConfiguration `portcullis`"), "{unregistered}");
    assert!(unregistered.contains("a policy that opens everything was let through"), "{unregistered}");

    plane.apply(&installation(&gate)).await;
    let config = |mode: &str| {
        format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: portcullis, namespace: {OWN}}}, data: {{portcullis.yaml: 'mode: {mode}'}}}}"
        )
    };
    plane.apply(&config("enforce")).await;
    pods_of(&plane, OWN, "gate:one").await;
    register(&plane, &gate).await;
    let (code, well) = doctor(&plane, address).await;
    assert_eq!(code, Some(0), "{well}");
    insta::assert_snapshot!(well);

    plane.apply(&config("warn")).await;
    let (_, warns) = doctor(&plane, address).await;
    assert!(
        warns.contains("attention the gate judges by ConfigMap gates/portcullis: profile `baseline`, mode `warn`"),
        "{warns}"
    );
    runs(&plane, "delete configmap portcullis --namespace gates").await;
    let (_, unknown) = doctor(&plane, address).await;
    assert!(unknown.contains("configmaps \"portcullis\" not found"), "{unknown}");

    // Not through the gate, which would refuse it.
    runs(&plane, "delete validatingwebhookconfiguration portcullis").await;
    eventually("nothing is asked any more", async || apply_in(&plane, OWN, DENY, &[]).await.succeeded.then_some(()))
        .await;
    register(&plane, &gate).await;
    gate.stop().await;
    let (code, ill) = doctor(&plane, address).await;
    assert_eq!(code, Some(1), "{ill}");
    assert!(ill.contains("the API server cannot reach the gate"), "{ill}");
    assert!(ill.contains("the API server cannot reach portcullis: "), "{ill}");
}
