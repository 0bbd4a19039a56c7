//! A namespace on an API server that is simulated: what is stored, what of a request reaches the
//! gate, and what controllers and the garbage collector do without asking it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use portcullis::admission;
use portcullis::cluster::Cluster;
use portcullis::config;
use portcullis::k8s::lower_value;
use portcullis::model::Object;
use portcullis::rules::RuleSet;
use portcullis::yaml::{self, Source};
use serde_json::{Value, json};

use super::mesh::{inject, takes_plaintext};
use super::oracle::{list, open_directions, selects};
use super::sent::Entries;

const NAMESPACE: &str = "shop";
const NOW: &str = "2026-06-01T12:00:00Z";
/// The most pods a controller makes here.
const MOST_REPLICAS: u64 = 2;

/// A namespace of a mesh, and cluster DNS.
const STANDING: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {kubernetes.io/metadata.name: shop, istio-injection: enabled}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: kube-system, labels: {kubernetes.io/metadata.name: kube-system}}}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: 10.96.0.10
  selector: {k8s-app: kube-dns}
  ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system}
spec: {template: {metadata: {labels: {k8s-app: kube-dns}}, spec: {containers: [{name: coredns, image: coredns}]}}}
";
/// It is closed by default, resolves names and demands mutual TLS of the two workloads in it.
const OWN: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-dns}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress: [{to: [{namespaceSelector: {}}], ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]}]
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default}, spec: {mtls: {mode: STRICT}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {replicas: 1, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: web}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec: {replicas: 1, selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: db}]}}}
";

/// Kind and name.
pub(crate) type Key = (String, String);

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The API server itself would refuse it, or there is nothing to do.
    Void,
    /// Stored, and the gate said nothing.
    Silent,
    /// The gate warned of it or denied it. It is not stored: what an editor was found out with is not
    /// what this looks for.
    Told,
}

pub(crate) struct World {
    rules: RuleSet,
    entries: Entries,
    standing: Vec<Object>,
    /// What the namespace holds, as the API server stores it.
    objects: BTreeMap<Key, Value>,
    uids: u32,
    /// The uids of pods whose traffic goes through a proxy.
    captured: BTreeSet<String>,
}

impl World {
    /// The standing namespace, judged by this configuration.
    pub(crate) fn new(configuration: &str) -> Self {
        let rules = config::read(Source::new("gate.yaml", configuration)).unwrap().rule_set();
        let entries = Entries::of(&rules);
        let standing = documents(STANDING).iter().map(lowered).collect();
        let mut world = Self { rules, entries, standing, objects: BTreeMap::new(), uids: 0, captured: BTreeSet::new() };
        for object in documents(OWN) {
            world.store(object);
        }
        world.settle();
        world
    }

    /// What there is of a kind.
    pub(crate) fn names(&self, kind: &str) -> Vec<&str> {
        self.objects.keys().filter(|(it, _)| it == kind).map(|(_, name)| name.as_str()).collect()
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.objects.keys().cloned().collect()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    /// The pods that are open, each with the directions, or that take plaintext. What is leaving is not
    /// opened any more.
    pub(crate) fn open(&self) -> Vec<String> {
        let policies: Vec<&Value> = self.of("NetworkPolicy").collect();
        let authentications: Vec<&Value> = self.of("PeerAuthentication").collect();
        let staying = self.of("Pod").filter(|pod| !is_going(pod));
        let told = |pod: &Value| {
            let mut open = open_directions(pod, &policies);
            let uid = pod["metadata"]["uid"].as_str().unwrap();
            if !self.captured.contains(uid) || takes_plaintext(pod, &authentications) {
                open.push("plaintext");
            }
            (!open.is_empty()).then(|| format!("{} with {}: {open:?}", name(pod), pod["metadata"]["labels"]))
        };
        staying.filter_map(told).collect()
    }

    fn of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |((it, _), _)| it == kind).map(|(_, object)| object)
    }

    /// An editor creates an object.
    pub(crate) fn create(&mut self, object: Value) -> Outcome {
        let mut object = stored(object);
        // The injector comes before the gate.
        let is_captured = object["kind"] == "Pod" && inject(&mut object);
        if self.objects.contains_key(&key(&object)) || !is_valid(&object) {
            return Outcome::Void;
        }
        if self.is_told("CREATE", Some(&object), None) {
            return Outcome::Told;
        }
        let uid = self.store(object);
        if is_captured {
            self.captured.insert(uid);
        }
        self.settle();
        Outcome::Silent
    }

    /// An editor changes an object in any of the ways there are.
    pub(crate) fn update(&mut self, key: &Key, change: impl FnOnce(&mut Value)) -> Outcome {
        let Some(old) = self.objects.get(key).cloned() else { return Outcome::Void };
        let mut new = old.clone();
        change(&mut new);
        let new = stored(new);
        // Of what is going, no finalizer can be added.
        let holds = |object: &Value| list(&object["metadata"]["finalizers"]).len();
        if new == old || !is_valid(&new) || is_going(&old) && holds(&new) > holds(&old) {
            return Outcome::Void;
        }
        if self.is_told("UPDATE", Some(&new), Some(&old)) {
            return Outcome::Told;
        }
        self.objects.insert(key.clone(), new);
        self.settle();
        Outcome::Silent
    }

    /// An editor scales by the subresource, of which no registration asks.
    pub(crate) fn scale(&mut self, key: &Key, replicas: u64) -> Outcome {
        let Some(object) = self.objects.get_mut(key) else { return Outcome::Void };
        object["spec"]["replicas"] = replicas.into();
        self.settle();
        Outcome::Silent
    }

    /// An editor deletes an object.
    pub(crate) fn delete(&mut self, key: &Key) -> Outcome {
        let Some(old) = self.objects.get(key).cloned() else { return Outcome::Void };
        if is_going(&old) {
            return Outcome::Void;
        }
        if self.is_told("DELETE", None, Some(&old)) {
            return Outcome::Told;
        }
        self.remove(key);
        self.settle();
        Outcome::Silent
    }

    /// Asks the gate, if the API server would, and the answer must be one.
    fn is_told(&self, operation: &str, new: Option<&Value>, old: Option<&Value>) -> bool {
        let object = new.or(old).unwrap();
        let (group, version) = object["apiVersion"].as_str().unwrap().split_once('/').unwrap_or(("", "v1"));
        let kind = json!({ "group": group, "version": version, "kind": object["kind"] });
        let resource = format!("{}s", object["kind"].as_str().unwrap().to_lowercase()).replace("ys", "ies");
        let request = json!({
                "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
                "kind": kind,
                "requestKind": kind,
                "name": name(object),
                "namespace": NAMESPACE,
                "operation": operation,
                "userInfo": { "username": "editor", "groups": ["system:authenticated"] },
                "object": new,
                "oldObject": old,
                "dryRun": false,
        });
        if !self.entries.ask_about(
            &resource,
            &with_resource(&request, &resource),
            &request["object"],
            &request["oldObject"],
        ) {
            return false;
        }
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
        let own = self.objects.values().filter(|it| it["kind"] != "ConfigMap").map(lowered);
        let cluster = Cluster::of(self.standing.iter().cloned().chain(own));
        let now: Timestamp = NOW.parse().unwrap();
        let answer = admission::review(&self.rules, (&cluster).into(), review.to_string().as_bytes(), now);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        let said = answer.to_string();
        assert!(!said.contains("rule-failed"), "{answer:#}");
        // What is told grows with what a change opens, which is little here.
        assert!(said.len() < 64 * 1024, "an answer of {} bytes", said.len());
        answer["response"]["allowed"] == false || !list(&answer["response"]["warnings"]).is_empty()
    }

    /// Stores an object that is new, and gives its uid.
    fn store(&mut self, mut object: Value) -> String {
        self.uids += 1;
        let uid = format!("00000000-0000-0000-0000-{:012}", self.uids);
        object["metadata"]["uid"] = uid.clone().into();
        object["metadata"]["namespace"] = NAMESPACE.into();
        object["metadata"]["creationTimestamp"] = created(self.uids).into();
        let object = stored(object);
        self.objects.insert(key(&object), object);
        uid
    }

    fn remove(&mut self, key: &Key) {
        let Some(object) = self.objects.get_mut(key) else { return };
        if list(&object["metadata"]["finalizers"]).is_empty() {
            self.objects.remove(key);
        } else {
            object["metadata"]["deletionTimestamp"] = NOW.into();
        }
    }

    /// Controllers and the garbage collector do what they do, until nothing changes.
    fn settle(&mut self) {
        for _ in 0..12 {
            let before = self.objects.clone();
            self.collect();
            for key in self.keys() {
                let Some(object) = self.objects.get(&key).filter(|it| !is_going(it)).cloned() else { continue };
                match key.0.as_str() {
                    "Deployment" => self.roll_out(&object),
                    "ReplicaSet" | "StatefulSet" | "Job" => self.run(&object),
                    _ => {}
                }
            }
            if self.objects == before {
                return;
            }
        }
    }

    /// What has owners of which none is there goes, and so does what nothing holds any more.
    fn collect(&mut self) {
        let is_there = |owner: &Value| self.objects.values().any(|it| it["metadata"]["uid"] == owner["uid"]);
        let is_orphan = |object: &Value| {
            let owners = list(&object["metadata"]["ownerReferences"]);
            !owners.is_empty() && !owners.iter().any(is_there)
        };
        let going = self.objects.iter().filter(|(_, it)| is_going(it) || is_orphan(it));
        for key in going.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.remove(&key);
        }
    }

    /// A Deployment has a ReplicaSet of its template, and scales down those of others.
    fn roll_out(&mut self, deployment: &Value) {
        let hash = hash(&deployment["spec"]["template"]);
        let current = ("ReplicaSet".to_owned(), format!("{}-{hash}", name(deployment)));
        let replicas = deployment["spec"]["replicas"].clone();
        let uid = &deployment["metadata"]["uid"];
        for (key, set) in &mut self.objects {
            if key.0 == "ReplicaSet" && is_controlled_by(set, uid) {
                set["spec"]["replicas"] = if *key == current { replicas.clone() } else { 0.into() };
            }
        }
        if !self.objects.contains_key(&current) {
            let mut template = deployment["spec"]["template"].clone();
            template["metadata"]["labels"]["pod-template-hash"] = hash.clone().into();
            let mut selector = deployment["spec"]["selector"].clone();
            selector["matchLabels"]["pod-template-hash"] = hash.into();
            self.store(json!({
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {
                    "name": current.1,
                    "labels": template["metadata"]["labels"],
                    "ownerReferences": [owner(deployment)],
                },
                "spec": { "replicas": replicas, "selector": selector, "template": template },
            }));
        }
    }

    /// What makes pods of a template has as many as it asks for.
    fn run(&mut self, controller: &Value) {
        let (kind, own) = (controller["kind"].as_str().unwrap(), name(controller));
        let replicas = controller["spec"]["replicas"].as_u64().unwrap_or(1).min(MOST_REPLICAS);
        let uid = &controller["metadata"]["uid"];
        // Pods that are nobody's and fit are adopted.
        if kind != "Job" {
            for (key, pod) in &mut self.objects {
                let is_orphan = list(&pod["metadata"]["ownerReferences"]).is_empty();
                if key.0 == "Pod"
                    && is_orphan
                    && !is_going(pod)
                    && selects(&controller["spec"]["selector"], &pod["metadata"]["labels"])
                {
                    pod["metadata"]["ownerReferences"] = json!([owner(controller)]);
                }
            }
        }
        let mut pods: Vec<Key> = self
            .objects
            .iter()
            .filter(|(key, it)| key.0 == "Pod" && is_controlled_by(it, uid))
            .map(|(key, _)| key.clone())
            .collect();
        while pods.len() > usize::try_from(replicas).unwrap() {
            self.remove(&pods.pop().unwrap());
        }
        for number in 0..replicas {
            let pod = ("Pod".to_owned(), format!("{own}-{number}"));
            if pods.len() >= usize::try_from(replicas).unwrap() || self.objects.contains_key(&pod) {
                continue;
            }
            let template = &controller["spec"]["template"];
            let mut labels = template["metadata"]["labels"].clone();
            match kind {
                "StatefulSet" => {
                    labels["statefulset.kubernetes.io/pod-name"] = pod.1.clone().into();
                    labels["apps.kubernetes.io/pod-index"] = number.to_string().into();
                    labels["controller-revision-hash"] = format!("{own}-{}", hash(template)).into();
                }
                "Job" => {
                    labels["batch.kubernetes.io/job-name"] = own.into();
                    labels["job-name"] = own.into();
                    labels["batch.kubernetes.io/controller-uid"] = uid.clone();
                }
                _ => {}
            }
            let annotations = &template["metadata"]["annotations"];
            let mut made = json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": { "name": pod.1, "labels": labels, "ownerReferences": [owner(controller)] },
                "spec": template["spec"],
                "status": { "phase": "Running", "podIP": format!("10.0.0.{}", self.uids % 250 + 1) },
            });
            if !annotations.is_null() {
                made["metadata"]["annotations"] = annotations.clone();
            }
            let is_captured = inject(&mut made);
            let uid = self.store(made);
            if is_captured {
                self.captured.insert(uid);
            }
            pods.push(pod);
        }
    }
}

/// The request with what conditions see of its resource.
fn with_resource(request: &Value, resource: &str) -> Value {
    let mut request = request.clone();
    request["resource"] = json!({ "resource": resource });
    request
}

/// A hash of a template such as controllers put into labels. There are few, so that it can be
/// guessed here as it can be worked out there.
fn hash(template: &Value) -> String {
    let sum: u32 = template.to_string().bytes().map(u32::from).sum();
    format!("h{}", sum % 3)
}

/// One minute after another.
fn created(number: u32) -> String {
    format!("2026-05-01T{:02}:{:02}:00Z", number / 60 % 24, number % 60)
}

/// An owner reference to an object.
pub(crate) fn owner(object: &Value) -> Value {
    json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "name": object["metadata"]["name"],
        "uid": object["metadata"]["uid"],
        "controller": true,
    })
}

fn is_controlled_by(object: &Value, uid: &Value) -> bool {
    list(&object["metadata"]["ownerReferences"]).iter().any(|it| it["controller"] == true && it["uid"] == *uid)
}

fn is_going(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn key(object: &Value) -> Key {
    (object["kind"].as_str().unwrap().to_owned(), name(object).to_owned())
}

/// An object with the defaults that the API server fills in.
fn stored(mut object: Value) -> Value {
    if object["metadata"]["labels"].is_null() {
        object["metadata"]["labels"] = json!({});
    }
    if object["kind"] == "NetworkPolicy" && list(&object["spec"]["policyTypes"]).is_empty() {
        let has_egress = !list(&object["spec"]["egress"]).is_empty();
        object["spec"]["policyTypes"] = if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    }
    object
}

/// Whether the API server's own validation takes it: a template carries the labels that its
/// controller selects by, and one owner at most controls.
fn is_valid(object: &Value) -> bool {
    let labels = &object["spec"]["template"]["metadata"]["labels"];
    let controllers = list(&object["metadata"]["ownerReferences"]).iter().filter(|it| it["controller"] == true);
    (object["spec"]["template"].is_null() || object["kind"] == "Job" || selects(&object["spec"]["selector"], labels))
        && controllers.count() <= 1
}

fn documents(text: &str) -> Vec<Value> {
    yaml::parse(text)
        .into_iter()
        .map(|document| document.unwrap())
        .filter(|it| !it.is_empty())
        .map(|it| it.value())
        .collect()
}

fn lowered(object: &Value) -> Object {
    let lowered = lower_value(object, NAMESPACE);
    assert_eq!(lowered.problems, [], "{object:#}");
    lowered.object.unwrap()
}
