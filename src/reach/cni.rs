//! What enforces the policies, where that decides the answer.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::written;
use crate::netset::IpSet;

/// Yes, no, or not known. `Maybe` is never rounded to either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// Certainly not.
    No,
    /// It depends on something not known.
    Maybe,
    /// Certainly.
    Yes,
}

impl Truth {
    /// Both: the weaker of the two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// Either: the stronger of the two.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.max(other)
    }
}

impl From<bool> for Truth {
    fn from(known: bool) -> Self {
        if known { Self::Yes } else { Self::No }
    }
}

/// Implementations of NetworkPolicy whose differences are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CniName {
    /// Where implementations differ, the answer stays open, and what is open never denies.
    #[default]
    Unknown,
    /// Calico.
    Calico,
    /// Cilium.
    Cilium,
    /// OVN-Kubernetes, OpenShift's.
    OvnKubernetes,
    /// Antrea.
    Antrea,
    /// The policy agent of the AWS VPC CNI.
    AwsVpcCni,
    /// Azure's network policy manager.
    AzureNpm,
}

/// What enforces NetworkPolicies in this cluster. Implementations differ where the API leaves room.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Cni {
    /// Which implementation it is.
    pub name: CniName,
    /// The ranges pods get their addresses from. They decide whether an `ipBlock` covers pods that
    /// have no address yet, and are named when a wide block includes them.
    #[serde(deserialize_with = "written::ranges")]
    #[schemars(with = "Vec<String>")]
    pub pod_ranges: Vec<IpNet>,
}

impl Cni {
    /// Whether an `ipBlock` with a pod's address in it admits that pod. Cilium's matches only what
    /// is outside the cluster.
    pub fn blocks_match_pods(&self) -> Truth {
        match self.name {
            CniName::Unknown => Truth::Maybe,
            CniName::Cilium => Truth::No,
            CniName::Calico | CniName::OvnKubernetes | CniName::Antrea | CniName::AwsVpcCni | CniName::AzureNpm => {
                Truth::Yes
            }
        }
    }

    /// Whether an `ipBlock` with a node's address in it admits the node. Cilium does with
    /// `policyCIDRMatchMode=nodes` only.
    pub fn blocks_match_nodes(&self) -> Truth {
        self.blocks_match_pods()
    }

    /// Whether `endPort` is honoured. Where it is not, a range is its first port. An implementation
    /// that is not named is taken to honour it, as all but one do.
    pub fn supports_end_port(&self) -> bool {
        self.name != CniName::AzureNpm
    }

    /// Whether named ports are honoured. Where they are not, they admit nothing. An implementation
    /// that is not named is taken to honour them, as all but one do.
    pub fn supports_named_ports(&self) -> bool {
        self.name != CniName::AzureNpm
    }

    /// Whether rules for a direction that `policyTypes` leaves out are enforced all the same. The
    /// API says they have no effect; Cilium (cilium#48703) and older AWS agents do,
    /// depending on their version.
    pub fn enforces_unlisted_direction(&self) -> Truth {
        match self.name {
            CniName::Unknown | CniName::Cilium | CniName::AwsVpcCni => Truth::Maybe,
            CniName::Calico | CniName::OvnKubernetes | CniName::Antrea | CniName::AzureNpm => Truth::No,
        }
    }

    /// Whether policies see the address of a Service before it becomes a pod's. The API leaves it
    /// open; of all implementations known, only the AWS agent looks before the translation.
    pub fn sees_cluster_ips(&self) -> bool {
        self.name == CniName::AwsVpcCni
    }

    /// The ranges pods get their addresses from; empty where they are not configured.
    pub fn pod_addresses(&self) -> IpSet {
        self.pod_ranges.iter().copied().collect()
    }
}
