//! A namespace says how much the gate may do in it, and may say otherwise while the gate runs.

use crate::scene::Scene;
use crate::support::{Kubectl, Through, eventually};

const STANDING: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: $ns, labels: {gate: $ns}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: $ns-typo, labels: {gate: $ns, portcullis.dev/mode: 'off'}}}
";

/// What a Deployment meets with, by a dry run.
async fn created(scene: &Scene, namespace: &str) -> Kubectl {
    let create = format!("create deployment other --image=example.com/other --dry-run=server --namespace={namespace}");
    scene.kubectl(&create, "").await
}

#[tokio::test]
async fn a_mode_set_while_the_gate_runs_takes_effect() {
    let scene = Scene::new("modes", Through::Url, "", STANDING).await;
    Scene::denied(&created(&scene, "$ns").await, "NP001");
    let set = async |mode: &str| {
        let said = scene.kubectl(&format!("label namespace $ns {mode} --overwrite"), "").await;
        assert!(said.succeeded, "{said:?}");
    };

    // What relaxes is looked for before anything is denied, so it holds from the next change on.
    set("portcullis.dev/mode=warn").await;
    Scene::warned(&created(&scene, "$ns").await, "NP001");
    set("portcullis.dev/mode=audit").await;
    eventually("nothing is said any more", async || {
        let said = created(&scene, "$ns").await;
        assert!(said.succeeded, "{said:?}");
        said.stderr.is_empty().then_some(())
    })
    .await;
    let done = scene.kubectl("create deployment cart --image=example.com/cart --namespace=$ns", "").await;
    Scene::silent(&done);
    let audited = scene.gate.metric("portcullis_findings_total", "action=\"audit\"").await;
    assert!(audited > 0.0, "what is not said is counted");

    for strict in ["portcullis.dev/mode=enforce", "portcullis.dev/mode-"] {
        set("portcullis.dev/mode=audit").await;
        eventually("nothing is denied", async || created(&scene, "$ns").await.succeeded.then_some(())).await;
        set(strict).await;
        let said = eventually("it is denied again", async || {
            let said = created(&scene, "$ns").await;
            (!said.succeeded).then_some(said)
        })
        .await;
        Scene::denied(&said, "NP001");
    }
}

#[tokio::test]
async fn there_is_no_mode_that_switches_the_gate_off() {
    let scene = Scene::new("off", Through::Url, "", STANDING).await;
    Scene::denied(&created(&scene, "$ns-typo").await, "NP001");
    for mode in ["disabled", "none", "Audit", "false", ""] {
        let said = scene.kubectl(&format!("label namespace $ns-typo portcullis.dev/mode={mode} --overwrite"), "").await;
        assert!(said.succeeded, "{said:?}");
        Scene::denied(&created(&scene, "$ns-typo").await, "NP001");
    }
}
