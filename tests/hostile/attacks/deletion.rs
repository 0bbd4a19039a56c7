//! Getting rid of a policy without the gate being asked to let it go.

use std::time::Duration;

use crate::shop::{CLOSED, Profile, Shop, denied, done, told};
use crate::support::eventually;

/// An owner of which there is none.
const NOWHERE: &str =
    r#"{"apiVersion":"v1","kind":"ConfigMap","name":"nope","uid":"11111111-1111-1111-1111-111111111111"}"#;

async fn policies(shop: &Shop) -> String {
    shop.admin("get networkpolicies --namespace=$ns --output=name", "").await.stdout
}

#[tokio::test]
async fn a_namespace_editor_cannot_have_the_garbage_collector_delete_a_policy() {
    let shop = Shop::closed("collected").await;
    shop.knows("cart").await;
    let merge = format!(r#"{{"metadata":{{"ownerReferences":[{NOWHERE}]}}}}"#);
    let json = format!(r#"[{{"op":"add","path":"/metadata/ownerReferences","value":[{NOWHERE}]}}]"#);
    for patch in [format!("--type=merge --patch={merge}"), format!("--type=json --patch={json}")] {
        shop.denies(&format!("patch networkpolicy default-deny --namespace=$ns {patch}"), "", "NP001").await;
    }
    let owned = format!("metadata: {{name: default-deny, ownerReferences: [{NOWHERE}], ");
    let applied = CLOSED.replace("metadata: {name: default-deny, ", &owned);
    let applied = applied.split("---").next().unwrap();
    shop.denies("apply -f -", applied, "NP001").await;
    shop.denies("apply --server-side --force-conflicts -f -", applied, "NP001").await;
    // As long as the collector takes to notice, and more.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(policies(&shop).await.contains("default-deny"));
}

#[tokio::test]
async fn a_namespace_editor_cannot_tie_a_policy_to_what_is_deleted_next() {
    let shop = Shop::closed("tied").await;
    shop.knows("cart").await;
    done(&shop.editor("create configmap anchor --namespace=$ns", "").await);
    let uid = shop.admin("get configmap anchor --namespace=$ns --output=jsonpath={.metadata.uid}", "").await.stdout;
    let owner = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","name":"anchor","uid":"{uid}"}}"#);
    let patch = format!(r#"{{"metadata":{{"ownerReferences":[{owner}]}}}}"#);
    denied(
        &shop
            .editor(&format!("patch networkpolicy default-deny --namespace=$ns --type=merge --patch={patch}"), "")
            .await,
        "NP001",
    );
    done(&shop.editor("delete configmap anchor --namespace=$ns", "").await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(policies(&shop).await.contains("default-deny"));
}

#[tokio::test]
async fn a_policy_that_is_being_deleted_protects_nothing_that_comes_later() {
    let second = CLOSED
        .split("---")
        .next()
        .unwrap()
        .replace("name: default-deny", "name: second, finalizers: [example.com/later]");
    let shop =
        Shop::standing(Profile::Restricted, "held", "", &[CLOSED, &second, crate::shop::CART].join("\n---\n")).await;
    // While the other stands, one of them may go.
    eventually("the gate knows both", async || {
        let said = shop.editor("delete networkpolicy default-deny --namespace=$ns --dry-run=server", "").await;
        said.succeeded.then_some(())
    })
    .await;
    done(&shop.editor("delete networkpolicy second --namespace=$ns --wait=false", "").await);
    assert!(policies(&shop).await.contains("second"), "the finalizer holds it");
    denied(&shop.editor("delete networkpolicy default-deny --namespace=$ns", "").await, "NP001");
    done(
        &shop
            .editor(
                "patch networkpolicy second --namespace=$ns --type=merge --patch={\"metadata\":{\"finalizers\":null}}",
                "",
            )
            .await,
    );
    assert!(!policies(&shop).await.contains("second"));
    denied(&shop.editor("delete networkpolicy default-deny --namespace=$ns", "").await, "NP001");
}

#[tokio::test]
async fn a_namespace_editor_cannot_start_pods_behind_a_policy_that_is_going() {
    let second = CLOSED
        .split("---")
        .next()
        .unwrap()
        .replace("name: default-deny", "name: second, finalizers: [example.com/later]");
    let dns = CLOSED.split("---").nth(1).unwrap();
    let shop = Shop::standing(Profile::Restricted, "going", "", &[&second, dns].join("\n---\n")).await;
    // In an empty namespace nothing is opened by it.
    shop.editor("delete networkpolicy second --namespace=$ns --wait=false", "").await;
    let going = shop
        .admin("get networkpolicy second --namespace=$ns --output=jsonpath={.metadata.deletionTimestamp}", "")
        .await;
    assert!(!going.stdout.is_empty(), "{going:?}");
    eventually("a pod that starts now is told of", async || {
        let said = shop.editor("run late --image=example.com/late --namespace=$ns --dry-run=server", "").await;
        (!said.succeeded && said.stderr.contains("[NP001 ")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_namespace_editor_cannot_close_a_namespace_with_a_policy_that_is_gone_at_once() {
    let shop = Shop::standing(Profile::Restricted, "fleeting", "", CLOSED.split("---").nth(1).unwrap()).await;
    let owned = format!("name: default-deny, ownerReferences: [{NOWHERE}]");
    let fleeting = CLOSED.split("---").next().unwrap().replace("name: default-deny", &owned);
    let policy = shop.editor("create -f -", &fleeting).await;
    let pod = shop.editor("run late --image=example.com/late --namespace=$ns", "").await;
    let is_told = |stderr: &str| stderr.contains("denied the request") || stderr.contains("Warning: [");
    assert!(is_told(&policy.stderr) || is_told(&pod.stderr), "{policy:?} {pod:?}");
}

#[tokio::test]
async fn a_namespace_editor_cannot_open_a_namespace_by_deleting_everything_at_once() {
    let shop = Shop::closed("everything").await;
    shop.knows("cart").await;
    let said = shop.editor("delete networkpolicies --all --namespace=$ns", "").await;
    told(&said);
    assert!(policies(&shop).await.contains("default-deny"), "{said:?}");
}
