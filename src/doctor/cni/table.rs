//! The implementations that are known, a row each.

use super::Confidence::{High, Medium};
use super::Enforces::{No, Unknown, Yes};
use super::Sign::{
    Argument, Container, DaemonSet, KindnetReadsPolicies, KubeletVersion, NetworkType, NodeAnnotation, NodeArgument,
    NodeLabel, SdnMode, Setting, SettingHolds, Variable,
};
use super::{Row, Switch};

/// The ConfigMaps of `kube-system` that switches are read from.
pub const CONFIG_MAPS: [&str; 3] = ["amazon-vpc-cni", "cilium-config", "eni-config"];

/// One that simply enforces.
const fn enforcing(name: &'static str, known_by: &'static [super::Sign]) -> Row {
    Row { name, known_by, unless: &[], enforces: Yes, confidence: High, switches: &[], caveat: "" }
}

/// Something that is there without an implementation.
const fn bare(name: &'static str, known_by: &'static [super::Sign]) -> Row {
    Row { name, known_by, unless: &[], enforces: No, confidence: Medium, switches: &[], caveat: "" }
}

const fn off(signs: &'static [super::Sign], because: &'static str) -> Switch {
    Switch { signs, enforces: No, because }
}

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    enforcing("Calico", &[DaemonSet("calico-node")]),
    enforcing("Canal", &[DaemonSet("canal"), DaemonSet("rke2-canal")]),
    Row {
        switches: &[
            off(&[Setting("cilium-config", "enable-policy", "never")], "enforcement is switched off"),
            off(&[Setting("cilium-config", "policy-audit-mode", "true")], "in audit mode policies are logged and not enforced"),
            off(&[Setting("cilium-config", "enable-k8s-networkpolicy", "false")], "NetworkPolicies of Kubernetes are passed over"),
        ],
        caveat: "an `ipBlock` matches nothing inside the cluster, nor nodes, unless it is set up to",
        ..enforcing("Cilium", &[DaemonSet("cilium"), DaemonSet("rke2-cilium")])
    },
    enforcing("GKE Dataplane V2", &[DaemonSet("anetd")]),
    enforcing("Antrea", &[DaemonSet("antrea-agent")]),
    enforcing("OVN-Kubernetes", &[DaemonSet("ovnkube-node"), NetworkType("OVNKubernetes")]),
    Row {
        switches: &[
            off(&[SdnMode("Subnet")], "in this mode every pod reaches every pod"),
            off(&[SdnMode("Multitenant")], "in this mode namespaces are isolated from each other, and policies count for nothing"),
        ],
        ..enforcing("OpenShift SDN", &[DaemonSet("sdn"), NetworkType("OpenShiftSDN")])
    },
    Row {
        switches: &[off(&[Argument("kube-ovn-controller", "--enable-np=false")], "policies are switched off")],
        ..enforcing("Kube-OVN", &[DaemonSet("kube-ovn-cni"), DaemonSet("ovs-ovn")])
    },
    Row {
        switches: &[off(&[Argument("kube-router", "--run-firewall=false")], "its firewall is switched off")],
        ..enforcing("kube-router", &[DaemonSet("kube-router")])
    },
    enforcing("kube-network-policies", &[DaemonSet("kube-network-policies"), Container("kube-flannel-ds", "kube-network-policies")]),
    Row {
        switches: &[off(&[NodeArgument("--disable-network-policy")], "its policy controller is switched off; what it enforced before may linger")],
        ..enforcing("k3s", &[KubeletVersion("+k3s")])
    },
    Row { confidence: Medium, ..enforcing("k0s", &[KubeletVersion("+k0s")]) },
    Row {
        enforces: Unknown,
        confidence: Medium,
        switches: &[
            Switch { signs: &[KindnetReadsPolicies(true)], enforces: Yes, because: "it reads policies, which versions that enforce them do; on some kernels (WSL2) they have been seen not to take effect" },
            Switch { signs: &[KindnetReadsPolicies(false)], enforces: No, because: "it does not read policies: this is a version from before it enforced them" },
        ],
        ..enforcing("kindnet", &[DaemonSet("kindnet")])
    },
    Row {
        confidence: High,
        switches: &[
            Switch { signs: &[Argument("aws-node", "--enable-network-policy=true")], enforces: Unknown, because: "the agent is switched on; whether the controller is, its ConfigMap `amazon-vpc-cni` does not say" },
            Switch { signs: &[Argument("aws-node", "--enable-network-policy=true"), Setting("amazon-vpc-cni", "enable-network-policy-controller", "true")], enforces: Yes, because: "agent and controller are switched on" },
        ],
        caveat: "policies are enforced only where its policy agent is switched on, by default after a pod has started, and not on Windows and Fargate",
        ..bare("AWS VPC CNI", &[DaemonSet("aws-node")])
    },
    Row {
        caveat: "it is being retired; on Windows sooner than on Linux",
        ..enforcing("Azure Network Policy Manager", &[DaemonSet("azure-npm"), DaemonSet("azure-npm-win")])
    },
    Row {
        switches: &[off(&[SettingHolds("eni-config", "eni_conf", "\"disable_network_policy\":\"true\"")], "policies are switched off"),
                    off(&[Setting("eni-config", "disable_network_policy", "true")], "policies are switched off")],
        ..enforcing("Terway", &[DaemonSet("terway"), DaemonSet("terway-eniip")])
    },
    Row {
        switches: &[off(&[Variable("weave-net", "EXPECT_NPC", "0")], "its policy controller is switched off")],
        caveat: "the project is archived",
        ..enforcing("Weave Net", &[Container("weave-net", "weave-npc")])
    },
    Row { confidence: Medium, ..enforcing("NSX", &[DaemonSet("nsx-node-agent"), DaemonSet("nsx-ncp")]) },
    Row {
        unless: &[Container("kube-flannel-ds", "kube-network-policies")],
        confidence: High,
        caveat: "it connects pods and enforces nothing; its chart can install kube-network-policies beside it (`netpol.enabled`)",
        ..bare("Flannel", &[DaemonSet("kube-flannel-ds"), DaemonSet("kube-flannel"), NodeAnnotation("flannel.alpha.coreos.com/")])
    },
    bare("GKE without a policy engine", &[NodeLabel("cloud.google.com/gke-")]),
    bare("AKS without a policy engine", &[NodeLabel("kubernetes.azure.com/")]),
    bare("minikube's bridge", &[NodeLabel("minikube.k8s.io/")]),
    Row {
        enforces: Unknown,
        caveat: "NetworkPolicies do not cover the secondary networks it attaches to pods",
        ..bare("Multus", &[DaemonSet("kube-multus-ds"), DaemonSet("multus")])
    },
];
