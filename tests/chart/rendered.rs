//! What the chart renders, without a cluster.

use portcullis::config;
use portcullis::yaml::Source;
use serde_json::{Value, json};

use crate::helm::{chart, helm, object, objects, rendered, shape, shapes};

#[test]
fn helm_lints_the_chart_in_every_shape() {
    for (name, path) in shapes() {
        let said = helm([
            "lint",
            "--strict",
            "--namespace",
            "portcullis",
            chart().to_str().unwrap(),
            "--values",
            path.to_str().unwrap(),
        ]);
        assert!(said.status.success(), "{name}: {}", String::from_utf8_lossy(&said.stdout));
    }
}

#[test]
fn values_nobody_reads_or_that_mean_nothing_are_refused() {
    for (set, named) in [
        ("replicas=3", "replicas"),
        ("mode=enforced", "mode"),
        ("replicaCount=0", "replicaCount"),
        ("webhook.failurePolicy=fail", "failurePolicy"),
        ("webhook.timeoutSeconds=31", "timeoutSeconds"),
        ("image.digest=latest", "digest"),
        ("certificates.mode=selfsigned", "mode"),
        ("config.rules.no-such-rule.action=warn", "no-such-rule"),
        ("config.rules.wildcard-ip-block.maxShare=101", "maxShare"),
        ("config.cni.name=flanel", "cni"),
        ("config.waivers.maxDays.high=0", "high"),
        ("config.waivers.list[0].until=never", "until"),
        ("ports.webhook=0", "webhook"),
    ] {
        let said = rendered(&["--set", set]).expect_err(set);
        assert!(said.contains(named), "{set}: {said}");
    }
}

#[test]
fn a_configuration_with_every_section_in_it_is_taken() {
    let everything = json!({
        "onError": "deny",
        "onTimeout": "warn",
        "rules": {
            "missing-default-deny": {
                "action": "warn", "directions": ["ingress"], "grace": "5m", "unrestrictedPods": [{ "app": "scanner" }],
            },
            "wildcard-ip-block": { "maxShare": 50, "allow": ["10.0.0.0/8"], "directions": ["egress"], "everyone": true },
            "plaintext-mtls": { "newWorkloads": "warn", "grace": "30s", "requireMesh": true },
            "unreadable-object": { "action": "audit" },
            "mode-loosened": { "otherNamespaces": "deny" },
            "weakened-configuration": { "action": "deny" },
        },
        "namespaces": { "exempt": ["kube-system", "team-*"] },
        "dns": { "services": [{ "namespace": "dns", "name": "coredns" }], "addresses": ["169.254.20.10"] },
        "mesh": { "rootNamespace": "mesh", "injectByDefault": true },
        "cni": { "name": "calico", "podRanges": ["10.244.0.0/16"] },
        "waivers": {
            "maxDays": { "low": 1, "medium": 2, "high": 3, "critical": 4 },
            "renewals": 0,
            "list": [{
                "name": "legacy", "namespace": "shop", "rules": ["NP001"], "match": { "workloads": ["Deployment/cart"] },
                "owner": "payments", "reason": "moves", "expires": "2026-12-01",
            }],
        },
        "view": { "maxAge": "1m" },
    });
    let objects = rendered(&["--set-json", &format!("config={everything}")]).unwrap();
    let read = config::read(Source::new("portcullis.yaml", configuration(&objects))).unwrap();
    assert_eq!(read.waivers.list.len(), 1);
    let schema = config::schema();
    let sections = schema["properties"].as_object().unwrap().keys();
    let left_out: Vec<_> = sections.filter(|it| everything.get(it.as_str()).is_none()).collect();
    assert_eq!(left_out, ["profile", "mode"], "the chart's own values");
}

#[test]
fn what_would_not_work_is_said_before_it_is_tried() {
    let fails = |words: &[&str]| rendered(words).expect_err(&words.join(" "));
    let said = fails(&["--namespace", "kube-system"]);
    assert!(said.contains("the gate cannot run in kube-system") && said.contains("--create-namespace"), "{said}");
    for (set, why) in [
        ("probe.namespace=portcullis", "`portcullis` is the gate's own namespace"),
        ("probe.namespace=kube-system", "`kube-system` is one the cluster heals with"),
        ("config.namespaces.exempt={default}", "`default` is exempt by `config.namespaces.exempt`"),
        (
            "config.mesh.rootNamespace=kube-system,probe.namespace=kube-system",
            "`kube-system` is one the cluster heals with",
        ),
        ("webhook.objectSelector.matchLabels.team=a", "carries no labels and would not be sent: team=a"),
        (
            r"webhook.namespaceSelector.matchLabels.kubernetes\.io/metadata\.name=shop",
            "`default` does not meet `webhook.namespaceSelector`: kubernetes.io/metadata.name=shop",
        ),
    ] {
        let said = fails(&["--set", set]);
        assert!(said.contains(why) && said.contains("`Ignore`"), "{set}: {said}");
        rendered(&["--set", set, "--set", "probe.namespace="]).unwrap();
    }
    // A pattern leaves out nothing that the API server could know of, and the mesh's root is sent all the same.
    rendered(&["--set", "config.namespaces.exempt={def*}"]).unwrap();
    rendered(&["--set", "config.namespaces.exempt={istio-system},probe.namespace=istio-system"]).unwrap();
    // What other labels a namespace has only the cluster tells.
    rendered(&["--set", "webhook.namespaceSelector.matchLabels.team=a"]).unwrap();
    let unlabelled = "webhook.objectSelector.matchExpressions[0]";
    rendered(&["--set", &format!("{unlabelled}.key=team,{unlabelled}.operator=DoesNotExist")]).unwrap();
    let said = fails(&["--set", "certificates.mode=secret"]);
    assert!(said.contains("certificates.secret.name"), "{said}");
    let said = fails(&["--set", "config.mode=enforce"]);
    assert!(said.contains("set the value `mode` of the chart"), "{said}");
}

/// The configuration file in the rendered ConfigMap.
fn configuration(objects: &[Value]) -> String {
    object(objects, "ConfigMap", "portcullis")["data"]["portcullis.yaml"].as_str().unwrap().to_owned()
}

#[test]
fn the_configuration_of_every_shape_is_one_the_gate_takes() {
    for (name, _) in shapes() {
        let text = configuration(&shape(&name));
        let read = config::read(Source::new("portcullis.yaml", text.clone()));
        assert!(read.is_ok(), "{name}: {}\n{text}", read.unwrap_err());
    }
    let warns = configuration(&shape("default"));
    assert!(warns.contains("mode: warn"), "it is not safe on the first day:\n{warns}");
    let elsewhere = configuration(&rendered(&["--namespace", "guard"]).unwrap());
    assert!(elsewhere.contains("- guard"), "its own namespace is exempt wherever it is:\n{elsewhere}");
}

#[test]
fn a_value_that_is_left_empty_is_the_charts_default() {
    let default = configuration(&shape("default"));
    for set in ["mode=null,profile=null", "config=null", "webhook.namespaceSelector=null,webhook.annotations=null"] {
        let objects = rendered(&["--set", set]).unwrap_or_else(|said| panic!("{set}: {said}"));
        assert_eq!(configuration(&objects), default, "{set}");
    }
}

#[test]
fn the_gates_own_namespace_passes_the_restricted_profile_wherever_names_are_resolved() {
    // Where the API server is only the installation knows; left out, any address is admitted on its ports.
    let api_server = r#"networkPolicy.apiServer=[{"ipBlock": {"cidr": "10.96.0.1/32"}}]"#;
    let elsewhere = json!({ "services": [{ "namespace": "dns", "name": "resolver" }] });
    let address = json!({ "addresses": ["169.254.20.10", "fd00::10"] });
    let both = json!({ "services": [{ "namespace": "dns", "name": "resolver" }], "addresses": ["169.254.20.10"] });
    let short = json!({ "addresses": ["::10"] });
    for dns in [json!({}), elsewhere, address, both, short] {
        let objects = rendered(&["--set-json", &format!("config.dns={dns}"), "--set-json", api_server]).unwrap();
        let read = ["Deployment", "NetworkPolicy", "Service", "ValidatingWebhookConfiguration"];
        let of_gate = |it: &&Value| read.contains(&it["kind"].as_str().unwrap());
        let mut manifests = vec![
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "portcullis" } }),
            // Its pods answer where no other cluster DNS does.
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": "resolver", "namespace": "dns" },
                "spec": {
                    "selector": { "app": "resolver" },
                    "ports": [
                        { "name": "udp", "port": 53, "targetPort": 5399, "protocol": "UDP" },
                        { "name": "tcp", "port": 53, "targetPort": 5399, "protocol": "TCP" },
                    ],
                },
            }),
        ];
        manifests.extend(objects.iter().filter(of_gate).cloned());
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": manifests }).to_string();
        let manifests = portcullis::source::Manifests::of(Source::new("chart", list), "portcullis");
        let strict = format!("{{profile: restricted, namespaces: {{exempt: []}}, dns: {dns}}}");
        let rules = config::read(Source::new("c", strict)).unwrap().rule_set();
        let mut findings = rules.judge_all(&manifests.applied_to_empty(), jiff::Timestamp::now());
        findings.retain(|finding| finding.namespace.as_deref() == Some("portcullis"));
        assert!(findings.is_empty(), "{dns}: {findings:#?}");
        assert!(manifests.objects() >= 5, "the rules read it");
    }
}

#[test]
fn the_port_of_probes_and_metrics_is_open_to_scrapers_alone() {
    let from = |objects: &[Value]| {
        let policy = object(objects, "NetworkPolicy", "portcullis");
        let rules = policy["spec"]["ingress"].as_array().unwrap().clone();
        let of_operations = |rule: &&Value| rule["ports"][0]["port"] == "operations";
        rules.iter().filter(of_operations).map(|rule| rule["from"].clone()).collect::<Vec<_>>()
    };
    let monitoring = json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "monitoring" } } });
    assert_eq!(from(&shape("default")), [json!([monitoring])]);
    let own = &from(&shape("monitoring"))[0];
    assert_eq!(own[0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"], "prometheus");
    // A rule without peers would open it to everyone.
    let none = rendered(&["--set", "networkPolicy.metricsFrom=null"]).unwrap();
    assert!(from(&none).is_empty(), "{none:#?}");
    let none = rendered(&["--set-json", "networkPolicy.metricsFrom=[]"]).unwrap();
    assert!(from(&none).is_empty(), "{none:#?}");
}

#[test]
fn the_addresses_of_api_servers_reach_the_gate() {
    let arguments = |objects: &[Value]| {
        let container = &object(objects, "Deployment", "portcullis")["spec"]["template"]["spec"]["containers"][0];
        let arguments = container["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned());
        arguments.filter(|it| it.starts_with("--api-server-address")).collect::<Vec<_>>()
    };
    assert!(arguments(&shape("default")).is_empty());
    assert_eq!(arguments(&shape("monitoring")), ["--api-server-address=192.0.2.0/28,2001:db8::/64"]);
    let said = rendered(&["--set", "webhook.apiServerAddresses={api.example.com}"]).expect_err("no address");
    assert!(said.contains("apiServerAddresses"), "{said}");
}

#[test]
fn the_pods_fit_the_restricted_pod_security_standard() {
    let objects = shape("default");
    let pod = &object(&objects, "Deployment", "portcullis")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod["enableServiceLinks"], false);
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
        assert!(container["resources"]["requests"]["memory"].is_string());
    }
}

#[test]
fn a_pod_has_time_for_all_of_its_way_down() {
    for (name, _) in shapes() {
        let objects = shape(&name);
        let pod = &object(&objects, "Deployment", "portcullis")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let seconds = |flag: &str| -> i64 {
            let flag = format!("--{flag}=");
            let mut arguments = container["args"].as_array().unwrap().iter().filter_map(Value::as_str);
            arguments.find_map(|argument| argument.strip_prefix(&flag)).unwrap().parse().unwrap()
        };
        let before = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_i64().unwrap();
        let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
        assert!(before > 0 && grace > before + seconds("linger") + seconds("drain"), "{name}: {grace}");
    }
}

#[test]
fn what_the_program_is_started_with_it_takes() {
    for (name, _) in shapes() {
        let objects = shape(&name);
        let container = &object(&objects, "Deployment", "portcullis")["spec"]["template"]["spec"]["containers"][0];
        let arguments = container["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap());
        let said =
            std::process::Command::new(crate::support::BINARY).args(arguments).arg("--no-such-flag").output().unwrap();
        let said = String::from_utf8(said.stderr).unwrap();
        // The first thing it does not know is the one it cannot know.
        assert!(said.contains("unexpected argument '--no-such-flag'"), "{name}: {said}");
    }
}

#[test]
fn a_critical_priority_class_comes_with_the_quota_without_which_some_clusters_refuse_its_pods() {
    let objects = shape("default");
    let class = &object(&objects, "Deployment", "portcullis")["spec"]["template"]["spec"]["priorityClassName"];
    let quota = &object(&objects, "ResourceQuota", "portcullis-critical-pods")["spec"];
    assert_eq!(quota["scopeSelector"]["matchExpressions"][0]["values"], json!([class]));
    let plain = rendered(&["--set", "priorityClassName="]).unwrap();
    assert!(!plain.iter().any(|it| it["kind"] == "ResourceQuota"));
}

#[test]
fn what_cert_manager_renews_is_signed_by_an_authority_that_stays() {
    let objects = rendered(&["--set", "certificates.mode=cert-manager"]).unwrap();
    let spec = |kind: &str, name: &str| object(&objects, kind, name)["spec"].clone();
    let leaf = spec("Certificate", "portcullis");
    let issuer = spec("Issuer", leaf["issuerRef"]["name"].as_str().unwrap());
    assert!(issuer.get("selfSigned").is_none(), "the `caBundle` would change with each renewal: {issuer}");
    let authority = spec("Certificate", "portcullis-authority");
    assert_eq!(issuer["ca"]["secretName"], authority["secretName"]);
    assert_eq!((&authority["isCA"], &authority["privateKey"]["rotationPolicy"]), (&json!(true), &json!("Never")));
    assert_eq!(object(&objects, "Issuer", "portcullis-self-signed")["spec"], json!({ "selfSigned": {} }));
    let given = shape("cert-manager");
    assert!(!given.iter().any(|it| it["kind"] == "Issuer"));
}

#[test]
fn the_gates_own_secret_is_not_the_one_of_cert_manager() {
    let own = object(&shape("default"), "Deployment", "portcullis").to_string();
    assert!(own.contains("--certificate-secret=portcullis-tls"), "{own}");
    let objects = shape("cert-manager");
    let name = &object(&objects, "Certificate", "portcullis")["spec"]["secretName"];
    assert_ne!(name, "portcullis-tls", "while one mode follows the other, both would write it");
    let volumes = object(&objects, "Deployment", "portcullis")["spec"]["template"]["spec"]["volumes"].clone();
    assert!(volumes.as_array().unwrap().iter().any(|it| it["secret"]["secretName"] == *name), "{volumes}");
}

/// The entry of this name in the webhook configuration.
fn entry<'a>(objects: &'a [Value], name: &str) -> Option<&'a Value> {
    let entries = object(objects, "ValidatingWebhookConfiguration", "portcullis")["webhooks"].as_array().unwrap();
    entries.iter().find(|entry| entry["name"] == name)
}

fn expressions(entry: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let conditions = entry["matchConditions"].as_array().unwrap().iter();
    conditions.map(|it| (text(&it["name"]), text(&it["expression"]))).collect()
}

#[test]
fn the_webhook_asks_what_the_program_itself_would_register_for() {
    for name in ["default", "enforce"] {
        let objects = shape(name);
        let configuration = configuration(&objects);
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chart-{name}.yaml"));
        std::fs::write(&folder, configuration).unwrap();
        let printed = std::process::Command::new(crate::support::BINARY)
            .args(["webhook", "--service", "portcullis/portcullis", "--guard", "-o", "json", "--config"])
            .arg(&folder)
            .output()
            .unwrap();
        let registration: Value = serde_json::from_slice(&printed.stdout).unwrap();
        for its in registration["webhooks"].as_array().unwrap() {
            let entry_name = its["name"].as_str().unwrap();
            let ours = entry(&objects, entry_name).unwrap_or_else(|| panic!("{name} has no {entry_name}"));
            assert_eq!(ours["rules"], its["rules"], "{name} {entry_name}");
            assert_eq!(expressions(ours), expressions(its), "{name} {entry_name}");
            let selected = |entry: &Value| entry["namespaceSelector"]["matchExpressions"][0].clone();
            assert_eq!(selected(ours), selected(its), "{name} {entry_name}");
            for field in ["sideEffects", "matchPolicy", "admissionReviewVersions", "timeoutSeconds"] {
                assert_eq!(ours[field], its[field], "{name} {entry_name} {field}");
            }
        }
        assert_eq!(registration["webhooks"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn nothing_depends_on_the_gate_before_it_is_proved() {
    for (name, _) in shapes() {
        let objects = shape(&name);
        assert_eq!(entry(&objects, "gate.portcullis.dev").unwrap()["failurePolicy"], "Ignore", "{name}");
        for entry in object(&objects, "ValidatingWebhookConfiguration", "portcullis")["webhooks"].as_array().unwrap() {
            if name != "own-secret" {
                assert!(entry["clientConfig"].get("caBundle").is_none(), "{name}: set at run time");
            }
        }
    }
}

#[test]
fn what_flux_is_told_to_leave_alone_is_what_the_gate_sets() {
    let readme = std::fs::read_to_string(chart().join("README.md")).unwrap();
    let block = readme.split("```yaml\n").find(|block| block.starts_with("driftDetection:")).unwrap();
    let told = objects(block.split_once("```").unwrap().0).remove(0);
    let ignored = &told["driftDetection"]["ignore"][0];
    let rendered = shape("default");
    let webhook = object(&rendered, "ValidatingWebhookConfiguration", ignored["target"]["name"].as_str().unwrap());
    let mut set = Vec::new();
    for (at, entry) in webhook["webhooks"].as_array().unwrap().iter().enumerate() {
        set.push(format!("/webhooks/{at}/clientConfig/caBundle"));
        if entry["name"] == "gate.portcullis.dev" {
            set.insert(0, format!("/webhooks/{at}/failurePolicy"));
        }
    }
    assert_eq!(ignored["paths"], json!(set));
}

#[test]
fn a_disruption_budget_is_there_where_one_replica_may_go() {
    let has = |shape_name: &str| shape(shape_name).iter().any(|it| it["kind"] == "PodDisruptionBudget");
    assert!(has("default") && has("autoscaling") && !has("single-replica"));
    let objects = shape("default");
    let deployment = &object(&objects, "Deployment", "portcullis")["spec"];
    assert_eq!(deployment["replicas"], 2);
    assert_eq!(deployment["strategy"]["rollingUpdate"], json!({ "maxUnavailable": 0, "maxSurge": 1 }));
    assert!(object(&shape("autoscaling"), "Deployment", "portcullis")["spec"].get("replicas").is_none());
}

#[test]
fn monitoring_comes_where_its_operator_is_installed_unless_somebody_says_otherwise() {
    let kinds = |words: &[&str]| {
        let objects = rendered(words).unwrap();
        let is_monitoring = |it: &&Value| {
            let kind = it["kind"].as_str().unwrap();
            matches!(kind, "ServiceMonitor" | "PrometheusRule") || it["metadata"]["name"] == "portcullis-dashboard"
        };
        objects.iter().filter(is_monitoring).count()
    };
    let [monitor, rule] = ["ServiceMonitor", "PrometheusRule"].map(|kind| format!("monitoring.coreos.com/v1/{kind}"));
    let installed = ["--api-versions", &monitor, "--api-versions", &rule];
    let all = |value: &str| {
        ["serviceMonitor", "prometheusRule", "grafana"].map(|it| format!("{it}.enabled={value}")).join(",")
    };
    assert_eq!(kinds(&[]), 0);
    assert_eq!(kinds(&installed), 3);
    // Some bring a part of the operator's definitions only.
    assert_eq!((kinds(&["--api-versions", &monitor]), kinds(&["--api-versions", &rule])), (2, 1));
    assert_eq!(kinds(&[&installed[..], &["--set", &all("false")]].concat()), 0);
    assert_eq!(kinds(&["--set", &all("true")]), 3);
    rendered(&["--set", "grafana.enabled=always"]).unwrap_err();
}

#[test]
fn no_alert_is_about_what_the_values_ask_for() {
    let alerts = |words: &[&str]| {
        let words: Vec<_> = ["--set", "prometheusRule.enabled=true"].iter().chain(words).copied().collect();
        let objects = rendered(&words).unwrap();
        let rules = object(&objects, "PrometheusRule", "portcullis")["spec"]["groups"][0]["rules"].clone();
        rules.as_array().unwrap().iter().map(|it| it["alert"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = alerts(&[]);
    for (set, alert) in [
        ("audit.enabled=false", "PortcullisAuditStale PortcullisReportsRefused"),
        ("probe.namespace=", "PortcullisNotProved"),
        ("webhook.namespaceSelector.matchLabels.team=a", "PortcullisRegistrationNarrowed"),
        (
            "webhook.objectSelector.matchExpressions[0].key=a,webhook.objectSelector.matchExpressions[0].operator=DoesNotExist",
            "PortcullisRegistrationNarrowed",
        ),
    ] {
        let left: Vec<_> = all.iter().filter(|name| !alert.contains(name.as_str())).cloned().collect();
        assert_eq!(alerts(&["--set", set]), left, "{set}");
        assert_ne!(all, left, "{alert}");
    }
}

#[test]
fn every_alert_has_a_page_in_the_runbook_and_rests_on_metrics_there_are() {
    let objects = shape("monitoring");
    let runbook = std::fs::read_to_string(chart().join("RUNBOOK.md")).unwrap();
    let alerts = object(&objects, "PrometheusRule", "portcullis")["spec"]["groups"][0]["rules"].as_array().unwrap();
    assert!(alerts.len() >= 10);
    let known: Vec<_> = portcullis::telemetry::metrics::CATALOGUE.iter().map(|metric| metric.name).collect();
    let dashboard = object(&objects, "ConfigMap", "portcullis-dashboard")["data"]["portcullis.json"].as_str().unwrap();
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let mut expressions = Vec::new();
    for alert in alerts {
        let name = alert["alert"].as_str().unwrap();
        assert!(runbook.contains(&format!("\n## {name}\n")), "{name} has no page");
        assert!(alert["annotations"]["runbook_url"].as_str().unwrap().ends_with(&format!("#{}", name.to_lowercase())));
        expressions.push(alert["expr"].as_str().unwrap().to_owned());
    }
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().unwrap().iter();
        expressions.extend(targets.map(|target| target["expr"].as_str().unwrap().to_owned()));
    }
    let mut seen = 0;
    for expression in expressions {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("portcullis_")) {
            let name = word.trim_end_matches("_bucket");
            assert!(known.contains(&name), "no metric `{name}`: {expression}");
            seen += 1;
        }
    }
    assert!(seen > 20);
}
