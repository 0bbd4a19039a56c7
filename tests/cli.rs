//! The binary as a person or a script meets it: standard output, standard error, exit code.
//!
//! Each test runs the binary in a folder of its own, and its answer is held by a snapshot under
//! `tests/snapshots`. `INSTA_UPDATE=always cargo test --test cli` writes them anew.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails may panic, its helpers too")]

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use tempfile::TempDir;

const OPEN: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: cart
  namespace: shop
spec:
  selector: {matchLabels: {app: cart}}
  template:
    metadata: {labels: {app: cart}}
    spec: {containers: [{name: cart, image: cart}]}
";

const BLACKHOLE: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: default-deny
  namespace: shop
spec:
  podSelector: {}
  policyTypes:
    - Ingress
    - Egress
";

const ALLOW_DNS: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: allow-dns
  namespace: shop
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
      podSelector: {matchLabels: {k8s-app: kube-dns}}
    ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
";

const UNREADABLE: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: partner, namespace: shop}
spec:
  podSelector: {}
  ingress:
  - from:
    - ipBlock:
        cidr: 10.0.0.0/99
";

/// Runs the binary over some files, and tells what came of it.
struct Run {
    folder: TempDir,
    stdin: String,
}

fn with(files: &[(&str, &str)]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Run { folder, stdin: String::new() }
}

impl Run {
    fn stdin(mut self, text: &str) -> Self {
        text.clone_into(&mut self.stdin);
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.current_dir(self.folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"] {
            command.env_remove(variable);
        }
        command
    }

    fn run(&self, arguments: &str) -> (i32, String, String) {
        self.run_with(arguments, |_| {})
    }

    fn run_with(&self, arguments: &str, set: impl Fn(&mut Command)) -> (i32, String, String) {
        let mut command = self.command();
        command.args(arguments.split_whitespace());
        set(&mut command);
        let mut child = command.spawn().unwrap();
        // A command that fails early may not read what it is given.
        let _ = child.stdin.take().unwrap().write_all(self.stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// The whole answer, as a snapshot holds it.
    fn told(&self, arguments: &str) -> String {
        let (code, out, err) = self.run(arguments);
        format!("exit code {code}\n─── stdout\n{out}─── stderr\n{err}")
    }

    fn code(&self, arguments: &str) -> i32 {
        self.run(arguments).0
    }
}

#[test]
fn check_points_at_what_is_wrong_and_says_what_to_do() {
    let files = [("shop/workload.yaml", OPEN), ("shop/policy.yaml", BLACKHOLE)];
    assert_snapshot!(with(&files).told("check shop"));
}

#[test]
fn check_is_clean_when_nothing_is_wrong() {
    let files = [("shop/workload.yaml", OPEN), ("shop/policy.yaml", BLACKHOLE), ("shop/dns.yaml", ALLOW_DNS)];
    assert_snapshot!(with(&files).told("check shop"));
}

/// Namespaces that stand in every way a namespace can.
fn postures() -> String {
    let namespace = |name: &str, labels: &str| {
        format!("---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{labels}}}}}}}\n")
    };
    let deployment = |namespace: &str, name: &str| {
        format!(
            "---\n{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{{name: a, image: a}}]}}}}}}}}\n"
        )
    };
    let policy = |namespace: &str, name: &str, spec: &str| {
        format!(
            "---\n{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}\n"
        )
    };
    let dns = "egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]}]";
    let all = format!("{{podSelector: {{}}, policyTypes: [Ingress, Egress], {dns}}}");
    let tomorrow = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    [
        namespace("closed", ""),
        deployment("closed", "a"),
        policy("closed", "default-deny", &all),
        namespace("partly", ""),
        deployment("partly", "a"),
        deployment("partly", "b"),
        policy("partly", "of-a", &all.replace("podSelector: {}, ", "podSelector: {matchLabels: {app: a}}, ")),
        namespace("today", ""),
        deployment("today", "a"),
        policy("today", "of-a", &all.replace("podSelector: {}, ", "podSelector: {matchLabels: {app: a}}, ")),
        namespace("dark", ""),
        deployment("dark", "a"),
        policy("dark", "default-deny", "{podSelector: {}, policyTypes: [Ingress, Egress]}"),
        namespace("plain", "istio-injection: enabled"),
        deployment("plain", "a"),
        policy("plain", "default-deny", &all),
        namespace("mutual", "istio-injection: enabled"),
        deployment("mutual", "a"),
        policy("mutual", "default-deny", &all),
        "---\n{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: mutual}, spec: {mtls: {mode: STRICT}}}\n".to_owned(),
        namespace("waived", ""),
        deployment("waived", "a"),
        format!("---\n{{apiVersion: portcullis.dev/v1alpha1, kind: Waiver, metadata: {{name: legacy, namespace: waived}}, spec: {{rules: [NP001], match: {{}}, owner: payments, reason: moves, expires: '{tomorrow}'}}}}\n"),
        "---\n{apiVersion: portcullis.dev/v1alpha1, kind: Waiver, metadata: {name: old, namespace: waived}, spec: {rules: [NP001], match: {}, owner: payments, reason: moved, expires: '2026-01-01'}}\n".to_owned(),
        namespace("foreign", ""),
        deployment("foreign", "a"),
        "---\n{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: c, namespace: foreign}}\n".to_owned(),
        namespace("bare", ""),
        namespace("portcullis", ""),
    ]
    .concat()
}

#[test]
fn audit_shows_how_each_namespace_stands_the_worst_first() {
    let stand = postures();
    let files = [("state/all.yaml", stand.as_str())];
    let tomorrow = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24)).to_string();
    let day = tomorrow.split('T').next().unwrap();
    let (code, out, err) = with(&files).run("audit --cluster state");
    assert_eq!((code, err.as_str()), (1, ""), "{out}");
    assert_snapshot!("audit", out.replace(day, "A-DAY-ON.."));
    let (_, all, _) = with(&files).run("audit --cluster state --all");
    assert!(all.contains("\nportcullis "), "{all}");
    let (code, dark, _) = with(&files).run("audit dark --cluster state");
    assert_eq!(code, 1);
    assert!(
        dark.starts_with("dark, 1 workloads\n")
            && dark.contains("dns      1 cut off")
            && dark.contains("# fix for NP002"),
        "{dark}"
    );
    let (code, closed, _) = with(&files).run("audit closed --cluster state");
    assert_eq!(code, 0);
    assert!(closed.ends_with("nothing to object to\n"), "{closed}");
}

#[test]
fn check_honours_a_waiver_among_the_manifests_until_its_day() {
    let waiver = |days: i64| {
        let ends = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
        format!(
            "{OPEN}---\napiVersion: portcullis.dev/v1alpha1\nkind: Waiver\nmetadata: {{name: legacy, namespace: shop}}\nspec:\n  rules: [NP001]\n  match: {{}}\n  owner: payments\n  reason: moves in January\n  expires: \"{ends}\"\n"
        )
    };
    let (code, out, _) = with(&[]).stdin(&waiver(10)).run("check -");
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("waived[NP001]: namespace `shop`") && out.contains("= waived: until "), "{out}");
    assert!(out.contains("by Waiver shop/legacy (owner payments): moves in"), "{out}");
    assert!(out.contains("1 waived in "), "{out}");
    let (_, json, _) = with(&[]).stdin(&waiver(10)).run("check - --output json");
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["findings"][0]["waived"]["owner"], "payments");
    assert_eq!(report["summary"]["waived"], 1);

    let (code, out, _) = with(&[]).stdin(&waiver(-1)).run("check -");
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("deny[NP001]") && out.contains("warn[CL006]: Waiver shop/legacy has run out"), "{out}");
}

#[test]
fn check_of_an_open_namespace_offers_a_policy() {
    assert_snapshot!(with(&[]).stdin(OPEN).told("check -"));
}

#[test]
fn the_fix_as_printed_mends_what_it_is_for() {
    let (code, out, _) = with(&[]).stdin(OPEN).run("check -");
    assert_eq!(code, 1);
    let fix = out.split_once("\n# fix for").map(|(_, rest)| format!("# {rest}")).unwrap();
    let (fix, _) = fix.split_once("\n\n").unwrap();
    assert_eq!(with(&[]).stdin(&format!("{OPEN}---\n{fix}\n")).told("check -").lines().next(), Some("exit code 0"));
}

#[test]
fn check_for_programs_is_json() {
    let files = [("a.yaml", OPEN), ("b.yaml", BLACKHOLE), ("c.yaml", UNREADABLE), ("d.yaml", "a: [1\n")];
    let (code, out, _) = with(&files).run("check . --output json");
    let mut report: serde_json::Value = serde_json::from_str(&out).unwrap();
    // The texts are the rules' own affair.
    for finding in report["findings"].as_array_mut().unwrap() {
        for text in ["message", "why", "help", "fix"] {
            assert!(finding[text].is_string());
            finding[text] = "…".into();
        }
        finding["evidence"] = serde_json::json!([]);
    }
    assert_eq!(code, 2);
    assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_judged() {
    let files = [
        ("a/broken.yaml", "kind: [\n"),
        ("a/chart/Chart.yaml", "name: chart\n"),
        ("a/chart/templates/x.yaml", "{{ x }}\n"),
        ("a/.hidden/x.yaml", "not: read\n"),
        ("a/kustomization.yaml", "resources: [policy.yaml]\n"),
        ("a/notes.txt", "not read\n"),
        ("a/policy.yaml", BLACKHOLE),
        ("a/template.yml", "kind: {{ .kind }}\n"),
        ("a/twice.json", "{\"a\": 1, \"a\": 2}\n"),
        ("a/values.yaml", "replicas: 2\n"),
        ("a/dns.yaml", ALLOW_DNS),
        ("a/dns-again.yaml", ALLOW_DNS),
    ];
    assert_snapshot!(with(&files).told("check a missing.yaml"));
}

#[test]
fn a_part_that_cannot_be_read_is_a_finding_with_its_line() {
    let files = [("a.yaml", UNREADABLE)];
    let run = with(&files);
    let (code, out, _) = run.run("check a.yaml");
    assert!(out.contains("warn[CL001]") && out.contains("--> a.yaml:9:15"), "{out}");
    assert_eq!(code, 0, "a warning");
}

#[test]
fn standard_input_is_read_in_either_format() {
    let json = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-public"}},
    ]});
    let run = with(&[]).stdin(&json.to_string());
    assert_eq!(run.run("check -"), (0, "no findings in 1 object (1 document read)\n".into(), String::new()));
}

#[test]
fn nothing_to_check_is_not_a_clean_bill() {
    for (run, arguments) in
        [(with(&[("a/x.txt", "")]), "check a"), (with(&[]), "check -"), (with(&[]), "check nowhere")]
    {
        let (code, _, err) = run.run(arguments);
        assert_eq!(code, 2, "{arguments}");
        assert!(err.starts_with("error: "), "{err}");
    }
}

#[test]
fn fail_on_decides_the_exit_code() {
    // A namespace of its own without workloads is warned about.
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    let warned = with(&[("a.yaml", namespace)]);
    let denied = with(&[("a.yaml", OPEN)]);
    let codes = |run: &Run| {
        ["deny", "warn", "audit", "never"].map(|action| run.code(&format!("check a.yaml --fail-on {action}")))
    };
    assert_eq!(codes(&warned), [0, 1, 1, 0]);
    assert_eq!(codes(&denied), [1, 1, 1, 0]);
    assert_eq!(with(&[("a.yaml", "a: [")]).code("check a.yaml --fail-on never"), 2);
}

#[test]
fn the_configuration_decides_what_is_denied() {
    let files = [
        ("a.yaml", OPEN),
        ("warn.yaml", "mode: warn\n"),
        ("off.yaml", "rules:\n  missing-default-deny:\n    action: off\n"),
        ("broken.yaml", "mod: warn\n"),
    ];
    let run = with(&files);
    assert!(run.run("check a.yaml --config warn.yaml").1.ends_with("1 warning in 1 object (1 document read)\n"));
    assert_eq!(run.code("check a.yaml --config warn.yaml"), 0);
    assert_eq!(run.run("check a.yaml --config off.yaml").1, "no findings in 1 object (1 document read)\n");
    assert_eq!(run.code("check a.yaml --config broken.yaml"), 2);
    assert_eq!(run.code("check a.yaml --config missing.yaml"), 2);
}

#[test]
fn objects_without_a_namespace_go_where_the_flag_says() {
    let run = with(&[("a.yaml", &OPEN.replace("  namespace: shop\n", ""))]);
    assert!(run.run("check a.yaml").1.contains("namespace `default`"));
    assert!(run.run("check a.yaml -n web").1.contains("namespace `web`"));
    assert_eq!(run.code("check a.yaml -n kube-system"), 0, "exempt");
}

#[test]
fn colour_is_for_terminals_and_those_who_ask() {
    fn forced(command: &mut Command) {
        command.env("CLICOLOR_FORCE", "1");
    }
    let run = with(&[("a.yaml", OPEN)]);
    let is_coloured = |arguments: &str, set: fn(&mut Command)| run.run_with(arguments, set).1.contains('\u{1b}');
    assert!(!is_coloured("check a.yaml", |_| {}));
    assert!(is_coloured("check a.yaml --color always", |_| {}));
    assert!(is_coloured("check a.yaml", forced));
    assert!(!is_coloured("check a.yaml --color never", forced));
    assert!(!is_coloured("check a.yaml --output json", |_| {}));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let run = with(&[("a.yaml", OPEN)]);
    let mut child = run.command().args(["config", "schema"]).spawn().unwrap();
    // The other end of the pipe goes before anything is written to it or while it is.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn what_is_deeper_than_the_limit_is_told_with_advice() {
    let (code, _, err) = with(&[("deep.yaml", &"[".repeat(5_000))]).run("check deep.yaml");
    assert_eq!(code, 2);
    assert!(err.contains("which is the limit") && err.contains("help: nothing Kubernetes takes"), "{err}");
}

#[test]
fn of_a_file_that_is_one_long_line_only_what_is_near_is_shown() {
    let policies = (0..3_000).map(|number| {
        serde_json::json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": { "name": format!("wide-{number}"), "namespace": format!("shop-{}", number / 10) },
            "spec": {
                "podSelector": { "matchLabels": { "app": format!("a{number}") } },
                "policyTypes": ["Egress"],
                "egress": [{ "to": [{ "ipBlock": { "cidr": "0.0.0.0/0" } }] }],
            },
        })
    });
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": policies.collect::<Vec<_>>() });
    let text = list.to_string();
    let (code, out, err) = with(&[("list.json", &text)]).run("check list.json");
    assert_eq!((code, err.as_str()), (0, ""));
    let shown: Vec<_> = out.lines().filter(|line| line.starts_with("1 | ")).collect();
    assert!(shown.len() >= 3_000, "{}", shown.len());
    assert!(shown.iter().all(|line| line.chars().count() <= 110 && line.contains('…')), "{:?}", shown.first());
    assert!(out.lines().all(|line| line.chars().count() <= 160));
    // Where it is in the file, and not in what is shown.
    let column = text.rfind("\"0.0.0.0/0\"").unwrap() + 1;
    assert!(out.contains(&format!("--> list.json:1:{column}\n")), "{column}");
}

#[test]
fn findings_nobody_reads_to_the_end_are_no_failure() {
    let many: Vec<_> = (0..2_000).map(|i| OPEN.replace("shop", &format!("shop{i}"))).collect();
    let many = many.join("---\n");
    let run = with(&[("a.yaml", &many)]);
    let mut child = run.command().args(["check", "a.yaml"]).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    let mut child = run.command().args(["check", "a.yaml", "missing.yaml"]).spawn().unwrap();
    drop(child.stderr.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "only the asides were not read");
    assert!(output.stdout.starts_with(b"deny[NP001]"));
}

#[cfg(unix)]
#[test]
fn a_folder_that_links_to_itself_is_read_once() {
    let run = with(&[("a/b/x.yaml", BLACKHOLE)]);
    let link = run.folder.path().join("a/b/up");
    std::os::unix::fs::symlink("../../a", link).unwrap();
    assert!(run.run("check a").1.contains("in 1 object (1 document read)"));
    assert!(run.run("check a a/b/x.yaml").1.contains("in 1 object (1 document read)"));
}

#[test]
fn review_answers_as_the_gate_does() {
    let object: serde_json::Value = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "default-deny", "namespace": "shop"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    });
    let review = |object: &serde_json::Value| {
        serde_json::json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u-1",
            "kind": {"group": "networking.k8s.io", "version": "v1", "kind": "NetworkPolicy"},
            "resource": {"group": "networking.k8s.io", "version": "v1", "resource": "networkpolicies"},
            "name": "default-deny", "namespace": "shop", "operation": "CREATE",
            "userInfo": {"username": "ada"}, "object": object, "dryRun": false,
        }})
        .to_string()
    };
    let run = with(&[("state/workload.yaml", OPEN), ("mode.yaml", "mode: audit\n")]).stdin(&review(&object));
    let (code, out, err) = run.run("review - --cluster state");
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, err.as_str()), (1, ""));
    assert_eq!(answer["response"]["uid"], "u-1");
    assert_eq!(answer["response"]["allowed"], false);
    let (code, out, _) = run.run("review - --cluster state --config mode.yaml");
    assert_eq!(code, 0, "{out}");

    let broken = with(&[("state/a.yaml", "a: ["), ("ok/a.yaml", OPEN)]).stdin(&review(&object));
    assert_eq!(broken.code("review - --cluster state"), 2, "a cluster that is half known");
    assert_eq!(broken.code("review nowhere.json --cluster ok"), 2);
    assert_eq!(broken.code("review - --cluster nowhere"), 2);
    assert_eq!(with(&[("ok/a.yaml", OPEN)]).stdin("{}").code("review - --cluster ok"), 2);
}

#[test]
fn a_review_may_be_written_as_yaml() {
    let review = "apiVersion: admission.k8s.io/v1\nkind: AdmissionReview\nrequest:\n  uid: u-2\n  kind: {group: '', version: v1, kind: ConfigMap}\n  resource: {group: '', version: v1, resource: configmaps}\n  operation: CREATE\n  userInfo: {}\n  object: {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: b}}\n";
    let (code, out, err) = with(&[("state/a.yaml", OPEN), ("r.yaml", review)]).run("review r.yaml --cluster state");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("\"uid\": \"u-2\""), "{out}");
}

#[test]
fn rules_lists_the_catalogue() {
    let (code, out, err) = with(&[]).run("rules");
    assert_eq!((code, err.as_str()), (0, ""));
    for rule in portcullis::rules::RULES {
        let row = out.lines().find(|line| line.starts_with(rule.meta.code)).unwrap();
        assert!(row.contains(rule.meta.name) && row.contains(rule.meta.severity.as_str()), "{row}");
    }
    let (_, json, _) = with(&[]).run("rules --output json");
    let rules: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(rules.len(), portcullis::rules::RULES.len());
}

#[test]
fn rules_explains_each_by_name_and_code() {
    for rule in portcullis::rules::RULES {
        let by_name = with(&[]).run(&format!("rules {}", rule.meta.name));
        let by_code = with(&[]).run(&format!("rules {}", rule.meta.code.to_lowercase()));
        assert_eq!(by_name, by_code);
        assert!(by_name.1.starts_with(&format!("{} {}\n", rule.meta.code, rule.meta.name)));
        assert!(!by_name.1.contains("```") && !by_name.1.contains("## "), "{}", by_name.1);
    }
    assert_snapshot!("rule_page", with(&[]).told("rules NP003"));
    assert_snapshot!("rule_unknown", with(&[]).told("rules dns-blackhol"));
}

#[test]
fn config_check_prints_what_holds_or_what_is_wrong() {
    let good = "profile: restricted\nmode: warn\nrules:\n  wildcard-ip-block: {maxShare: 50, action: audit}\n  dns-blackhole: {action: off}\n";
    let bad = "profil: baseline\n";
    let rules = "rules:\n  dns-blackhol:\n    action: warn\n  wildcard-ip-block:\n    maxShare: most\n";
    let run = with(&[("good.yaml", good), ("bad.yaml", bad), ("rules.yaml", rules)]);
    assert_snapshot!("config_good", run.told("config check good.yaml"));
    assert_snapshot!("config_bad", run.told("config check bad.yaml"));
    assert_snapshot!("config_rules", run.told("config check rules.yaml"));
    assert_snapshot!("config_missing", run.told("config check missing.yaml"));
}

#[test]
fn the_printed_default_is_accepted() {
    let (code, default, _) = with(&[]).run("config default");
    assert_eq!(code, 0);
    assert_eq!(with(&[("c.yaml", &default)]).code("config check c.yaml"), 0);
}

#[test]
fn the_printed_schema_is_json() {
    let (code, schema, _) = with(&[]).run("config schema");
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(code, 0);
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(schema["properties"]["rules"]["properties"]["wildcard-ip-block"]["properties"]["maxShare"].is_object());
}

#[test]
fn help_and_version_are_answers() {
    assert_snapshot!("help", with(&[]).told("--help"));
    let (code, version, _) = with(&[]).run("--version");
    assert_eq!(code, 0);
    assert!(version.starts_with(concat!("portcullis ", env!("CARGO_PKG_VERSION"), " (")), "{version}");
}

#[test]
fn a_wrong_command_line_is_2() {
    for arguments in ["", "chek", "check", "check a --output xml", "config", "review -", "completions tcl"] {
        assert_eq!(with(&[]).code(arguments), 2, "{arguments}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, script, _) = with(&[]).run(&format!("completions {shell}"));
        assert!(code == 0 && script.contains("check") && script.contains("fail-on"), "{shell}");
    }
}

#[test]
fn webhook_prints_the_registration() {
    let certificate = rcgen::generate_simple_self_signed(["gate".to_owned()]).unwrap();
    let key = certificate.signing_key.serialize_pem();
    let (ca, both) = (certificate.cert.pem(), certificate.cert.pem() + &key);
    let off = "rules: {plaintext-mtls: {action: 'off'}, dns-blackhole: {action: 'off'}}\n";
    let files = [("ca.crt", ca.as_str()), ("both.pem", &both), ("empty.pem", ""), ("off.yaml", off)];
    let run = with(&files);
    assert_snapshot!("webhook", run.told("webhook --service portcullis/gate"));
    assert_snapshot!(
        "webhook_narrow",
        run.told("webhook --url https://gate:8443 --config off.yaml --failure-policy ignore --timeout-seconds 3")
    );

    let (code, json, err) = run.run("webhook --service a/b:8443 --ca-file ca.crt --guard --output json");
    let object: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(object["webhooks"][1]["clientConfig"]["service"]["port"], 8443);
    assert!(object["webhooks"][1]["clientConfig"]["caBundle"].as_str().unwrap().starts_with("LS0tLS1CRUdJTiBDRVJU"));

    for (file, said) in [("both.pem", "private key"), ("empty.pem", "no certificate"), ("none.pem", "cannot be read")] {
        let (code, out, err) = run.run(&format!("webhook --service a/b --ca-file {file}"));
        assert!(code == 2 && out.is_empty() && err.contains(said), "{file}: {err}");
    }
    for arguments in [
        "",
        "--url http://gate",
        "--url https://gate --service a/b",
        "--service a",
        "--service a/b --timeout-seconds 0",
        "--service a/b --timeout-seconds 31",
    ] {
        assert_eq!(run.code(&format!("webhook {arguments}")), 2, "{arguments}");
    }
}

#[test]
fn an_audit_shows_what_its_exit_code_is_about_though_it_stands_in_an_exempt_namespace() {
    let state = "{apiVersion: v1, kind: Namespace, metadata: {name: portcullis, labels: {portcullis.dev/mode: audit}}}\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}\n";
    let (code, out, _) = with(&[("state/a.yaml", state)]).run("audit --cluster state --fail-on warn");
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("mode-loosened (high, warn)") && !out.contains("kube-system"), "{out}");
}
