//! Labels that the cluster itself writes on pods: controllers on what they make of a template, the API
//! server on a pod that is bound to a node.
//!
//! No request says so: what controllers make was judged as the template, and a binding is none of the
//! requests that are sent. So a policy that selects by such a label selects pods that are never judged
//! by themselves, and a template has to be judged for every value its pods may carry.

use super::{Str, Workload};

/// The revision of a Deployment that a pod is of.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const REVISION_HASH: &str = "controller-revision-hash";
const TEMPLATE_GENERATION: &str = "pod-template-generation";
const JOB_NAMES: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
const JOB_UIDS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Of the node, from Kubernetes 1.35 on (`PodTopologyLabels`).
const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// The keys that controllers write.
const BY_CONTROLLERS: [&str; 10] = [
    POD_TEMPLATE_HASH,
    POD_INDEX,
    POD_NAME,
    REVISION_HASH,
    TEMPLATE_GENERATION,
    JOB_NAMES[0],
    JOB_NAMES[1],
    JOB_UIDS[0],
    JOB_UIDS[1],
    COMPLETION_INDEX,
];

/// What is known of a label that the cluster writes on the pods of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Generated {
    /// Every pod has this value.
    Value(Str),
    /// Every pod has a number of its own after this: `web-0`, `web-1`. By scaling, any of them comes.
    Numbered(String),
    /// Every pod has some value.
    Some,
    /// A pod may have some value, or none.
    Perhaps,
}

/// Whether controllers write a label of this key on pods.
pub fn is_by_controllers(key: &str) -> bool {
    BY_CONTROLLERS.contains(&key)
}

/// Whether the cluster writes a label of this key on pods.
pub fn is_generated(key: &str) -> bool {
    is_by_controllers(key) || TOPOLOGY.contains(&key)
}

impl Workload {
    /// What the cluster will write under this key on the pods of this workload; nothing where that is
    /// left to what is written in it. Where controllers write a key of their own they write it over
    /// one of the template's.
    pub fn generated(&self, key: &str) -> Option<Generated> {
        if TOPOLOGY.contains(&key) {
            let is_bound = self.is_pod() && !self.ips.is_empty();
            return (!is_bound).then_some(Generated::Perhaps);
        }
        // The API server writes these into the template of a Job, where it was asked about one.
        let is_job_name = JOB_NAMES.contains(&key);
        let is_of_job = (is_job_name || JOB_UIDS.contains(&key)) && self.labels.get(key).is_none();
        match self.id.kind.as_str() {
            "Deployment" if key == POD_TEMPLATE_HASH => Some(Generated::Some),
            "StatefulSet" if key == POD_NAME => Some(Generated::Numbered(format!("{}-", self.id.name))),
            "StatefulSet" if key == POD_INDEX => Some(Generated::Numbered(String::new())),
            "StatefulSet" | "DaemonSet" if key == REVISION_HASH => Some(Generated::Some),
            "DaemonSet" if key == TEMPLATE_GENERATION => Some(Generated::Numbered(String::new())),
            "Job" if is_of_job && is_job_name => Some(Generated::Value(self.id.name.clone())),
            "Job" | "CronJob" if is_of_job => Some(Generated::Some),
            // Only where each pod has work of its own, which is not known here.
            "Job" | "CronJob" if key == COMPLETION_INDEX => Some(Generated::Perhaps),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Labels;
    use super::*;

    fn of(kind: &str, key: &str) -> Option<Generated> {
        Workload::bare(kind, "shop", "web", Labels::from([("app", "web"), (key, "written")])).generated(key)
    }

    #[test]
    fn controllers_write_over_what_a_template_says() {
        assert_eq!(of("Deployment", POD_TEMPLATE_HASH), Some(Generated::Some));
        assert_eq!(of("StatefulSet", POD_NAME), Some(Generated::Numbered("web-".to_owned())));
        assert_eq!(of("StatefulSet", POD_INDEX), Some(Generated::Numbered(String::new())));
        assert_eq!(of("DaemonSet", REVISION_HASH), Some(Generated::Some));
    }

    #[test]
    fn where_no_controller_writes_it_a_label_is_what_is_written() {
        for kind in ["Pod", "ReplicaSet", "ReplicationController"] {
            for key in BY_CONTROLLERS {
                assert_eq!(of(kind, key), None, "{kind} {key}");
            }
        }
        for key in JOB_NAMES.into_iter().chain(JOB_UIDS) {
            assert_eq!((of("Job", key), of("Deployment", key)), (None, None), "{key}");
        }
        assert_eq!(of("Deployment", "app"), None);
    }

    #[test]
    fn a_jobs_name_is_known_and_that_of_a_cron_jobs_job_is_not() {
        let bare = |kind| Workload::bare(kind, "shop", "web", Labels::default()).generated("job-name");
        assert_eq!(bare("Job"), Some(Generated::Value("web".into())));
        assert_eq!(bare("CronJob"), Some(Generated::Some));
    }

    #[test]
    fn where_a_pod_is_is_known_once_it_runs() {
        let mut pod = Workload::bare("Pod", "shop", "web", Labels::from([(TOPOLOGY[1], "a")]));
        assert_eq!(pod.generated(TOPOLOGY[1]), Some(Generated::Perhaps));
        pod.ips = vec![std::net::Ipv4Addr::LOCALHOST.into()];
        assert_eq!(pod.generated(TOPOLOGY[1]), None);
    }
}
