//! What the gate must not stop: those who do their work.

use crate::shop::{CART, CLOSED, Profile, Shop, done, registration};
use crate::support::eventually;

/// A pod of an operator whose kind the gate does not know.
const KAFKA: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: kafka-0
  namespace: $ns
  labels: {strimzi.io/name: kafka}
  ownerReferences: [{apiVersion: core.strimzi.io/v1beta2, kind: StrimziPodSet, name: kafka, uid: 55555555-2222-2222-2222-222222222222, controller: true, blockOwnerDeletion: false}]
spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: example.com/kafka}]}
";

async fn comes_back(profile: Profile, name: &str) {
    let shop = Shop::standing(profile, name, "", KAFKA).await;
    eventually("the gate knows the pod", async || {
        let reviews = shop.gate.reviews().await;
        shop.admin("label pod kafka-0 seen=yes --overwrite --namespace=$ns --dry-run=server", "").await;
        (shop.gate.reviews().await > reviews).then_some(())
    })
    .await;
    // A node is drained.
    done(&shop.admin("delete pod kafka-0 --namespace=$ns --grace-period=0 --force", "").await);
    eventually("the pod is gone", async || {
        shop.admin("get pods --namespace=$ns --output=name", "").await.stdout.is_empty().then_some(())
    })
    .await;
    done(&shop.operator("create -f -", KAFKA).await);
}

#[tokio::test]
async fn an_operator_can_make_its_pod_again_in_a_namespace_that_stood_open() {
    comes_back(Profile::Restricted, "kafka").await;
}

#[tokio::test]
async fn an_operator_can_make_its_pod_again_under_baseline() {
    comes_back(Profile::Baseline, "kafka-baseline").await;
}

#[tokio::test]
async fn an_application_can_be_uninstalled_with_its_workloads_first() {
    let app = [CART, CLOSED].join("\n---\n");
    let shop = Shop::standing(Profile::Restricted, "uninstalled", "", &app).await;
    shop.knows("cart").await;
    for round in 0..3 {
        let said = shop.editor("delete --wait=false -f -", &app).await;
        assert!(said.succeeded, "round {round}: {said:?}");
        done(&shop.editor("create -f -", &[CLOSED, CART].join("\n---\n")).await);
        shop.knows("cart").await;
    }
}

#[tokio::test]
async fn an_application_can_be_uninstalled_with_its_policies_first_in_two_runs() {
    let app = [CLOSED, CART].join("\n---\n");
    let shop = Shop::standing(Profile::Restricted, "policies-first", "", &app).await;
    shop.knows("cart").await;
    let first = shop.editor("delete --wait=false -f -", &app).await;
    if !first.succeeded {
        assert!(
            first.stderr.contains("delete the workloads first") || first.stderr.contains("workloads first"),
            "the order should be said: {first:?}"
        );
        let second = shop.editor("delete --wait=false --ignore-not-found -f -", &app).await;
        assert!(second.succeeded, "{second:?}");
    }
    let left = shop.admin("get networkpolicies,deployments --namespace=$ns --output=name", "").await;
    assert_eq!(left.stdout, "", "{left:?}");
}

#[tokio::test]
async fn while_the_gate_is_away_controllers_pods_start_all_the_same() {
    let shop = Shop::standing(Profile::Restricted, "away", "", CLOSED).await;
    // Nothing listens there.
    let away = crate::support::own_address();
    let mut absent = registration(shop.plane, "absent", &["--url", &format!("https://{away}:9/validate")]);
    for entry in absent["webhooks"].as_array_mut().unwrap() {
        entry["namespaceSelector"]["matchLabels"] = serde_json::json!({ "gate": "absent" });
    }
    // Before the registration is there, for the label itself would be asked about.
    done(&shop.admin("label namespace $ns gate=absent --overwrite", "").await);
    shop.plane.apply(&absent.to_string()).await;
    eventually("a bare pod is refused", async || {
        let said = shop.editor("run bare --image=example.com/bare --namespace=$ns --dry-run=server", "").await;
        said.stderr.contains("failed calling webhook").then_some(())
    })
    .await;
    done(&shop.operator("create -f -", KAFKA).await);
}
